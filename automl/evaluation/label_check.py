"""Labels of a data set that are likely wrong, each beside a likelier one (`automl.features.label_checks`).

They are judged by predictions of a model that did not learn from the sample: a linear probe on frozen features, which
needs no training, or the best trial of a search with `--folds`.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from automl.backbones.capabilities import find_capabilities
from automl.backbones.weights import find_cheapest
from automl.data.cache import build_cache
from automl.data.dataset import Dataset
from automl.data.loader import ImageData
from automl.devices import find_devices
from automl.errors import DataError, StudyError
from automl.features.label_checks import LabelIssue, find_label_issues, predict_samples
from automl.files import explain_write_errors, write_text
from automl.pages.templates import render_template
from automl.pages.thumbnails import make_thumbnails
from automl.recipe import Recipe
from automl.reporter import Reporter
from automl.spec import StudySpec
from automl.study.artifacts import fetch_predictions
from automl.study.folder import StudyFolder
from automl.study.setup import load_setup
from automl.study.spaces import describe_view, list_views, open_space
from automl.study.storage import open_study
from automl.study.trial_record import best_first
from automl.study.validation import read_predictions

_IMAGE_SIZE = 160  # pixels per side, or the nearest size that the weights load at
_MOST_SHOWN = 500
"""Of a page."""


@dataclass(frozen=True, eq=False)
class LabelCheck:
    """Which labels of a data set are likely wrong.

    Attributes:
        dataset: The samples.
        judge: What predicted them, in words.
        checked: How many of them were predicted.
        agreement: The share of those whose label is the predicted one. Where it is low, many right labels are named.
        issues: Likely wrong labels, the likeliest first; a row is that of `dataset.samples`.
    """

    dataset: Dataset
    judge: str
    checked: int
    agreement: float
    issues: tuple[LabelIssue, ...]

    @property
    def sentences(self) -> tuple[str, ...]:
        """What was checked and by what, and how many labels are likely wrong."""
        missing = len(self.dataset.samples) - self.checked
        rest = f"; not checked: {missing} without a prediction" if missing else ""
        return (
            f"{self.checked} samples checked by {self.judge}{rest}",
            f"likely wrong: {len(self.issues)} of {self.checked}; the predictions agree with "
            f"{100 * self.agreement:.0f} % of the labels (the lower that is, the more right labels are named)",
        )

    def list_rows(self, most: int | None = None) -> list[tuple[str, str, str, str]]:
        """Lists the file, its label, the likelier label and the probability of that, as texts."""
        names, classes = self.dataset.samples["name"], self.dataset.classes
        return [
            (str(names.iloc[one.row]), classes[one.label], classes[one.suggested], f"{one.probability:.3f}")
            for one in self.issues[:most]
        ]


def check_by_probe(dataset: Dataset, spec: StudySpec, reporter: Reporter) -> LabelCheck:
    """Checks labels by a linear probe on frozen features of the cheapest pretrained backbone at hand.

    Of clips, the first view of the default search space is looked at.

    Args:
        dataset: The samples, of whatever split.
        spec: Has the folder of weights, the data's settings and the seed of the folds.
        reporter: Receives what is done.

    Raises:
        WeightsError: If there are no pretrained weights.
        DataError: If no file can be read, or there are too few samples, or groups of a class, for two folds.
        AutomlError: If the cache cannot be written.
    """
    backbone, weights = find_cheapest(spec.weights_dir)
    capabilities = find_capabilities(backbone)
    sizes = capabilities.trainable_sizes(pretrained=True) or (capabilities.weights_size,)
    size = min(sizes, key=lambda each: abs(each - _IMAGE_SIZE))
    view = list_views(open_space(spec, dataset.media))[0]
    with reporter.show_progress(f"decoding {describe_view(view)}") as progress:
        data = ImageData(dataset, build_cache(dataset, size, progress, view))
    recipe = Recipe.from_mapping(
        {"backbone": backbone, "view": view, "image_size": size, "augmentation": {"crop": {"name": "squash"}}}
    )
    with reporter.show_progress(f"features of {backbone}") as progress:
        rows, probabilities = predict_samples(
            recipe, weights, data, find_devices("auto")[0], seed=spec.seed, progress=progress
        )
    seen = "" if dataset.media == "image" else f" of view {view.name}"
    judge = f"a linear probe on frozen features of {backbone} at {size} px{seen}, cross-validated by group"
    return _compare_labels(dataset, judge, rows, probabilities)


def check_by_study(dataset: Dataset, folder: StudyFolder) -> LabelCheck:
    """Checks labels, as the data has them now, by what a study's best trial predicted of samples it was not trained on.

    Raises:
        StudyError: If there is no such study, it is of other data, or its best trial has no such predictions.
    """
    study = open_study(folder)
    stored, trials = load_setup(study, folder).dataset, best_first(study)
    if not trials:
        raise StudyError(f"study {folder.name} has no complete trial; continue it with automl search")
    number = trials[0].number
    path = folder.predictions_file(number)
    fetch_predictions(study, folder, [number])
    if not path.is_file():
        raise StudyError(
            f"study {folder.name} has no predictions of its best trial, {number}: of an earlier version or another "
            "machine; without --study, a linear probe checks the labels"
        )
    rows, probabilities = read_predictions(path, len(stored.samples), len(stored.classes))
    positions = {file: row for row, file in enumerate(dataset.samples["path"])}
    own = np.array([positions.get(file, -1) for file in stored.samples["path"].iloc[rows]], dtype=np.int64)
    if stored.classes != dataset.classes or (own < 0).all():
        raise StudyError(f"study {folder.name} is of {stored.root}, whose samples or classes are not {dataset.root}'s")
    judge = f"trial {number} of study {folder.name}, each sample by a training without it"
    return _compare_labels(dataset, judge, own[own >= 0], probabilities[own >= 0])


def _compare_labels(
    dataset: Dataset, judge: str, rows: NDArray[np.int64], probabilities: NDArray[np.floating]
) -> LabelCheck:
    """Compares the labels of some rows with their predictions."""
    labels = dataset.samples["label"].to_numpy(np.int64)[rows]
    # where a class is hard to tell, its threshold is low: what reaches it may still be likelier of its own class
    likelier = (one for one in find_label_issues(probabilities, labels) if one.margin > 0)
    issues = tuple(replace(one, row=int(rows[one.row])) for one in likelier)
    return LabelCheck(dataset, judge, len(rows), float((probabilities.argmax(axis=1) == labels).mean()), issues)


def write_page(check: LabelCheck, path: Path) -> None:
    """Writes the likely wrong labels with pictures of the images as one HTML file of at most 5 MB.

    Raises:
        DataError: If it cannot be written.
    """
    shown = check.list_rows(_MOST_SHOWN)
    files = [str(check.dataset.samples["path"].iloc[one.row]) for one in check.issues[:_MOST_SHOWN]]
    pictures = make_thumbnails(files) if check.dataset.media == "image" else {}
    text = render_template(
        Path(__file__).with_name("labels.html.jinja"),
        check=check,
        name=check.dataset.root.name,
        rows=[(*row, pictures.get(file, "")) for row, file in zip(shown, files, strict=True)],
        more=len(check.issues) - len(shown),
        without=len(shown) - len(pictures) if pictures else 0,
    )
    with explain_write_errors(path, DataError, "--labels-html"):
        write_text(path, text)
