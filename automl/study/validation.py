"""What a trial is validated on: one split, another one for each trial, or each part of the samples in turn.

One split that all trials share is fitted by a search: the chosen recipe is one that suits it. Another split for each
trial (Nagler et al. 2024, https://arxiv.org/abs/2405.15393) and the mean over folds make that harder. A split of whole
clusters or domains asks how a recipe does on what is unlike training.
"""

import json
import multiprocessing
import zipfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from automl.data.dataset import Dataset, draw_split, list_folds
from automl.data.loader import ImageData
from automl.data.splits import check_counts
from automl.devices import is_gpu
from automl.errors import DataError, SpecError, StudyError
from automl.features.clusters import cluster_samples
from automl.files import write_atomically
from automl.spec import StudySpec
from automl.study.pool import PoolEntry
from automl.study.screening import describe_input
from automl.study.setup import StudySetup, StudyViews
from automl.study.spaces import list_views, usual_image_size

_CLUSTERS = 4
"""As many clusters as validation splits would fit in, times this: a split is made of several kinds."""


@dataclass(frozen=True)
class FoldResult:
    """How a trial did on one fold.

    Attributes:
        metrics: Every metric on the fold.
        probabilities: (N, C) of its samples.
        rows: (N,) int64: which samples of the data set they are.
    """

    metrics: dict[str, float]
    probabilities: NDArray[np.float64]
    rows: NDArray[np.int64]

    def save(self, path: Path) -> None:
        """Writes it; a kill meanwhile leaves no file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with write_atomically(path) as temporary, temporary.open("wb") as file:
            np.savez(file, metrics=json.dumps(self.metrics), probabilities=self.probabilities, rows=self.rows)

    @classmethod
    def load(cls, path: Path) -> "FoldResult | None":
        """Reads it; None where there is none, or a damaged one."""
        try:
            with path.open("rb") as handle, np.load(handle, allow_pickle=False) as file:
                return cls(json.loads(str(file["metrics"])), file["probabilities"], file["rows"])
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return None


def split_for_trial(data: ImageData, spec: StudySpec, number: int) -> list[ImageData]:
    """Splits the samples as a trial sees them: once, or once for each fold.

    Raises:
        DataError: If a class has too few samples for so many folds.
    """
    seed = spec.seed + (1 + number if spec.resplit else 0)
    if spec.folds > 1:
        return [replace(data, samples=samples) for samples in list_folds(data.samples, spec.folds, seed)]
    return [replace(data, samples=draw_split(data.samples, seed))] if spec.resplit else [data]


def write_predictions(path: Path, results: list[FoldResult], labels: NDArray[np.int64]) -> None:
    """Writes the predictions of a trial for samples that it was not trained on: of its validation split or all folds.

    The file holds `rows` (N,) int64, `probabilities` (N, C) float64, `labels` (N,) int64 and `folds` (N,) int64.
    """
    rows = np.concatenate([result.rows for result in results])
    folds = np.repeat(np.arange(len(results)), [len(result.rows) for result in results])
    path.parent.mkdir(parents=True, exist_ok=True)
    with write_atomically(path) as temporary, temporary.open("wb") as file:
        probabilities = np.concatenate([result.probabilities for result in results])
        np.savez(file, rows=rows, probabilities=probabilities, labels=labels[rows], folds=folds)


def read_predictions(path: Path, samples: int, classes: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Reads what `write_predictions` wrote of a study of so many samples and classes.

    Returns:
        Which samples of the study were predicted, (N,) int64, and their probabilities (N, C) float64.

    Raises:
        StudyError: If the file cannot be read, or is not of such a study.
    """
    try:
        with path.open("rb") as handle, np.load(handle, allow_pickle=False) as file:
            rows, probabilities = file["rows"], file["probabilities"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as exc:
        raise StudyError(f"cannot read the predictions {path}: {exc}") from exc
    fits = rows.ndim == 1 and rows.dtype == np.int64 and probabilities.shape == (len(rows), classes)
    if not fits or not np.isin(rows, np.arange(samples)).all() or not np.isfinite(probabilities).all():
        raise StudyError(f"{path} is not of this study, which has {samples} samples of {classes} classes")
    return rows, probabilities


def hold_out_clusters(setup: StudySetup, spec: StudySpec, device: str, print_line: Callable[[str], None]) -> Dataset:
    """Draws a validation split of whole clusters of samples that look alike to the pool's fastest backbone.

    On a GPU another process computes the features, because this one never uses CUDA.

    Raises:
        SpecError: If no backbone of the pool has pretrained weights.
        DataError: If a class has too few samples in training or in the clusters that are held out.
    """
    with_weights = [entry for entry in setup.pool.entries if entry.weights is not None]
    if not with_weights:
        raise SpecError(
            "--validation hard needs pretrained weights to see which samples are alike; give --weights-dir, or leave "
            "it out"
        )
    entry = min(with_weights, key=lambda one: one.timing.evaluation_seconds)
    clusters = round(_CLUSTERS / spec.data.validation_fraction)
    if is_gpu(device):
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
            domains = process.submit(_cluster, setup, entry, device, clusters, spec.seed).result()
    else:
        domains = _cluster(setup, entry, device, clusters, spec.seed)
    dataset = replace(setup.dataset, samples=setup.dataset.samples.assign(domain=domains))
    drawn = draw_split(dataset, spec.seed)
    try:
        check_counts(drawn.samples, drawn.classes)
    except DataError as exc:
        raise DataError(f"--validation hard: {len(set(domains) - {''})} clusters cannot be divided so: {exc}") from exc
    held = drawn.samples.loc[drawn.samples["split"] == "validation", "domain"]
    print_line(
        f"validation is hard: {held.nunique()} of {len(set(domains) - {''})} clusters of samples that look alike to "
        f"{entry.backbone}, {len(held)} samples; the holdout is drawn as before"
    )
    return drawn


def take_splits(dataset: Dataset, stored: Dataset) -> Dataset:
    """Returns the samples as read, with the splits of a stored data set if it has the same ones."""
    same = [dataset.samples[name].tolist() == stored.samples[name].tolist() for name in ("name", "label")]
    if not all(same):
        return dataset
    return replace(dataset, samples=dataset.samples.assign(split=stored.samples["split"]))


def _cluster(setup: StudySetup, entry: PoolEntry, device: str, clusters: int, seed: int) -> NDArray[np.str_]:
    """Clusters the samples in this process."""
    view = list_views(setup.space)[0]
    data = StudyViews(setup, device).open_view(view)
    recipe = describe_input(entry, view, usual_image_size(setup.space))
    return cluster_samples(recipe, entry.locate_weights(), data, device, clusters, seed=seed)
