"""The gallery of one view: originals, each augmentation alone, pairs that are mixed, whole recipes, degraded copies."""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from automl.data.cache import ImageMaker
from automl.data.dataset import Dataset
from automl.degradations.copies import degrade_files
from automl.degradations.degradation import load_degradations
from automl.errors import AutomlError, DataError, shorten
from automl.gallery.augmented import ENLARGED, Studio, Subject, enlarge_middle
from automl.gallery.levels import list_units
from automl.gallery.mixed import show_pairs, show_training
from automl.gallery.pictures import Picture, Row, Section, ViewGallery, name_label
from automl.gallery.plan import ViewPlan, describe_recipe
from automl.gallery.samples import Shown, decode_some
from automl.reporter import Progress, Reporter
from automl.space.nodes import Branches

_INTERPOLATION = "bicubic"
_NAMED = 5
"""Files that cannot be read are named, so many."""


def make_gallery(plan: ViewPlan, dataset: Dataset, samples: int, seed: int, reporter: Reporter) -> ViewGallery:
    """Makes all pictures of one view.

    Raises:
        DataError: If no file gives an image.
    """
    with reporter.show_progress(f"decoding for the view {plan.view.name}") as progress:
        shown = decode_some(dataset, plan.view, plan.decode_size, samples, seed, progress)
    rows = shown.choose_subjects()
    real = dataset.real_class_name
    subjects = [Subject(shown.middle_image(row), shown.name_class(row), shown.name_class(row) == real) for row in rows]
    crop = plan.augmentation.children["crop"]
    studio = Studio(
        subjects, plan.image_size, _INTERPOLATION, isinstance(crop, Branches) and set(crop.branches) == {"squash"}
    )
    units = [(unit, studio.show_unit(unit)) for unit in list_units(plan.augmentation)]
    notes = [f"{unit.name} is not shown: {_explain_absence(dataset)}" for unit, row in units if not row.lines]
    labels = [dataset.classes.index(subject.class_name) for subject in subjects]
    with reporter.show_progress("degrading") as progress:
        copies, missing = _show_copies(plan, dataset, shown, rows[0], progress)
    sections = [
        _show_originals(shown),
        Section(
            "Each augmentation alone",
            "Names are those of the recipe's fields. Below a picture: the limit within which its strength is drawn, of"
            " which 12 draws it shows the one that changes most; or which of 12 draws it is.",
            tuple(row for _, row in units if row.lines),
        ),
        Section(
            "Mixup and CutMix",
            "Two samples become one, and so do their labels.",
            tuple(show_pairs(plan.mixing, studio, labels, dataset.classes)),
        ),
        Section(
            "As training sees them",
            "All of it together, in the first batches. Below each picture: the label that the network learns.",
            tuple(_show_recipes(plan, shown, samples)),
        ),
        copies,
    ]
    return ViewGallery(
        plan.view.name, tuple(part for part in sections if part.rows), (*_list_unreadable(shown), *notes, *missing)
    )


def _show_originals(shown: Shown) -> Section:
    """Shows the samples as they are decoded."""
    names = shown.data.samples.samples["name"].tolist()
    pictures = tuple(
        Picture(
            shown.middle_image(row),
            f"{name_label(shown.name_class(row))}: {Path(names[row]).name}",
            f"A sample of {name_label(shown.name_class(row))}",
        )
        for row in range(len(shown))
    )
    return Section("Originals", "", (Row("", "", (pictures,)),))


def _show_recipes(plan: ViewPlan, shown: Shown, samples: int) -> list[Row]:
    """Shows samples as each whole recipe has them; several recipes share the samples."""
    several, rows, first = len(plan.recipes) > 1, list[Row](), 0
    each = -(-samples // len(plan.recipes))
    for number, recipe in enumerate(plan.recipes, start=1):
        pictures, first = show_training(recipe, shown.data, each, first)
        title = f"recipe {number} drawn from the space" if several else "the recipe"
        rows.append(Row(title, f"{recipe.image_size} px, {describe_recipe(recipe)}", (pictures,)))
    return rows


def _show_copies(
    plan: ViewPlan, dataset: Dataset, shown: Shown, row: int, progress: Progress
) -> tuple[Section, list[str]]:
    """Shows degraded copies of one file; and what could not be made, one line each."""
    title, text = "Degraded copies", "What automl evaluate --degrade measures; training does not see them."
    if dataset.media == "video":  # to encode one takes seconds
        return Section(title, text, ()), []
    path, size = Path(shown.data.samples.samples["path"].iloc[row]), plan.decode_size
    degradations, pictures, missing = load_degradations(medium=dataset.media), list[Picture](), list[str]()
    with TemporaryDirectory() as folder:
        for done, degradation in enumerate(degradations, start=1):
            try:
                (copy,) = degrade_files([path], degradation, Path(folder))
                made = copy if isinstance(copy, DataError) else next(ImageMaker(plan.view, size).decode([str(copy)]))
            except AutomlError as exc:  # PyAV lacks an encoder
                made = DataError(str(exc))
            progress(done, len(degradations))
            if isinstance(made, DataError):
                missing.append(f"the degradation {degradation.name} is not shown: {made}")
                continue
            described = f"The first sample after the degradation {degradation.name}"
            pictures.append(Picture(made[len(made) // 2], degradation.name, described))
    first = Picture(shown.middle_image(row), "as it is", "The first sample, as it is")
    if not pictures:
        return Section(title, text, ()), missing
    line = (first, *pictures)
    rows = [Row("", "", (line,))]
    if dataset.media == "image":
        rows.append(Row("", f"{ENLARGED}:", (tuple(map(enlarge_middle, line)),)))
    return Section(title, text, tuple(rows)), missing


def _list_unreadable(shown: Shown) -> list[str]:
    """Writes how many of the chosen files gave no image, and which."""
    if not (count := len(shown.unreadable)):
        return []
    names: Sequence[str] = [f"{name} ({reason})" for name, reason in shown.unreadable]
    return [f"{count} of {count + len(shown)} files that were looked at gave no image: {shorten(names, _NAMED, '; ')}"]


def _explain_absence(dataset: Dataset) -> str:
    """Says why self-blending cannot be shown."""
    if dataset.real_class is None:
        return "no class is known to be of genuine samples; --real-class names it"
    return f"no sample of class {dataset.real_class_name} could be read"
