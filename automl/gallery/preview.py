"""The public function `automl.preview`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from automl.data.dataset import open_dataset
from automl.errors import DataError, SpecError
from automl.files import explain_write_errors, write_atomically, write_text
from automl.gallery.gallery import make_gallery
from automl.gallery.page import render_page
from automl.gallery.pictures import ViewGallery, decode_name
from automl.gallery.plan import plan_recipe, plan_space
from automl.gallery.sheet import draw_sheet
from automl.refit.plan import load_recipe
from automl.reporter import ConsoleReporter, Reporter
from automl.spec import StudySpec
from automl.units import format_count

PAGE = "preview.html"
_MOST_SAMPLES = 200
_LOOK_FOR = (
    "Look for pictures in which you could no longer tell the class: an augmentation that destroys its evidence (of a"
    " forgery: fine traces that blur, JPEG and scaling wipe out) teaches wrong labels; narrow it or leave it out."
)
_NOT_DEGRADED = "Degraded copies of videos are not shown: automl evaluate --degrade measures them."


@dataclass(frozen=True)
class Preview:
    """The files that were written: the page, and a picture for each view; and what is shown, in sentences."""

    page: Path
    sheets: tuple[Path, ...]
    lines: tuple[str, ...]


def preview(
    data: str | Path | dict[str, Any] | None = None,
    *,
    recipe: str | Path | None = None,
    space: str = "auto",
    out: str | Path | None = None,
    samples: int = 16,
    seed: int = 0,
    reporter: Reporter | None = None,
) -> Preview:
    """Writes pictures of what training does to some samples: a page, and a PNG for each view.

        automl.preview("photos/", recipe="runs/photos/best.yaml").page

    Nothing is trained, no weights are loaded, and no more files are decoded than are shown.

    Args:
        data: A folder or label file of any layout that `automl.search` reads, or a mapping with the keys of `DataSpec`;
            None: the embedded demo.
        recipe: A recipe file, whose augmentations are shown; None: those of the space.
        space: A search space, by name or path; auto: the one that a search of these data takes.
        out: Folder to write to; None: `preview/` and the name of the data. Files of an earlier call are replaced.
        samples: How many are shown as they are, and as the recipe as a whole shows them.
        seed: Decides which samples are shown, and what is drawn.
        reporter: Receives what is done; None: lines are printed.

    Returns:
        The files, and what is to be known of them.

    Raises:
        AutomlError: If data, recipe, space or folder do not fit; the message says what to change.
    """
    reporter = reporter or ConsoleReporter()
    if not 2 <= samples <= _MOST_SAMPLES:
        raise SpecError(f"--samples {samples}: give 2 to {_MOST_SAMPLES}")
    if recipe is not None and space != "auto":
        raise SpecError("--recipe and --space: give one of them")
    file = None if recipe is None else Path(recipe).expanduser()
    loaded = None if file is None else load_recipe(file)  # its mistakes come before the data, which may take long
    values = data if isinstance(data, dict) else {"path": data}
    spec = StudySpec.from_mapping({"data": values, "space": space, "seed": seed}, "automl preview", {"data": values})
    dataset = open_dataset(spec.data, spec.seed)
    folder = Path("preview") / dataset.name if out is None else Path(out).expanduser()
    if folder.exists() and not folder.is_dir():
        raise DataError(f"cannot write into {folder}: it is a file; name another folder with --out")
    plans = plan_recipe(file, loaded, dataset) if file and loaded else plan_space(spec, dataset)
    for problem in dataset.problems:
        reporter.print_line(f"warning: {problem}")
    galleries, empty = list[ViewGallery](), list[str]()
    for plan in plans:
        try:
            galleries.append(make_gallery(plan, dataset, samples, spec.seed, reporter))
        except DataError as exc:  # videos without sound have other views
            if plan is plans[-1] and not galleries:
                raise
            empty.append(f"view {plan.view.name} is not shown: {exc}")
    trained = int((dataset.samples["split"] == "train").sum())
    name = "the demo" if dataset.format == "demo" else decode_name(dataset.root.name or dataset.name)
    lines = (
        f"{format_count(min(samples, trained), 'sample')} of {trained} to train on, as {plans[0].source} changes them.",
        _LOOK_FOR,
        *([_NOT_DEGRADED] if dataset.media == "video" else []),
        *empty,
    )
    notes = [f"{gallery.view}: {note}" for gallery in galleries for note in gallery.notes]
    return _write_gallery(folder, galleries, name, lines, tuple(notes))


def _write_gallery(
    folder: Path, galleries: list[ViewGallery], name: str, lines: tuple[str, ...], notes: tuple[str, ...]
) -> Preview:
    """Writes the page and the pictures."""
    sheets = []
    with explain_write_errors(folder, DataError):
        write_text(folder / PAGE, render_page(galleries, name, lines))
        for gallery in galleries:
            several = len(galleries) > 1
            sheet = folder / (f"preview-{gallery.view}.png" if several else "preview.png")
            title = f"What training sees of {name}" + (f", view {gallery.view}" if several else "")
            with write_atomically(sheet) as temporary:
                draw_sheet(gallery, title).save(temporary, format="PNG")
            sheets.append(sheet)
    return Preview(folder / PAGE, tuple(sheets), (*lines, *notes))
