"""How a trained network does on degraded copies of validation samples: the objective `robust_auc`.

Of some validation samples, degraded copies are made once for all trials (`automl.degradations`), and decoded into the
cache as every sample is. A trial is scored on them once, at its end, so that it costs a share of its training.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import optuna
import pandas as pd
from numpy.typing import NDArray

from automl.data.cache import build_cache
from automl.data.dataset import Dataset
from automl.data.loader import ImageData
from automl.data.splits import choose_of_each_class
from automl.degradations.copies import degrade_files
from automl.degradations.degradation import Degradation, load_degradations
from automl.errors import DataError
from automl.files import cache_dir
from automl.recipe import Recipe
from automl.reporter import Progress
from automl.study.setup import ROBUST, StudySetup
from automl.study.trial_record import best_first, read_trial_record
from automl.training.evaluation import split_probabilities
from automl.training.metrics import compute_metric
from automl.views.base import BaseView

if TYPE_CHECKING:
    from torch import nn

    from automl.backbones.input import Preprocessing

SHARE = 0.2
"""Of a trial's cost that scoring its robustness may take, for the length of a usual recipe."""

_USUAL_EPOCHS = 5
_STEP_COST = 3
"""A training step of an image costs as much as so many forward passes."""
_FEWEST, _MOST = 40, 250
"""Samples: of fewer, the score is mostly chance; of more, it is hardly surer."""


@dataclass(frozen=True)
class TrainedNetwork:
    """A network, and what it expects of its input."""

    model: "nn.Module"
    preprocessing: "Preprocessing"


def plan_samples(setup: StudySetup, view: BaseView) -> int:
    """Plans how many validation samples are degraded, so that scoring them costs `SHARE` of a usual trial at most."""
    train = int((setup.dataset.samples["split"] == "train").sum())
    epochs = min(_USUAL_EPOCHS, setup.space.find_bounds("epochs")[1])
    passes = SHARE * _STEP_COST * epochs * train / len(load_degradations(medium=view.media))
    return int(np.clip(passes, _FEWEST, _MOST))


def score_robustness(
    fitted: TrainedNetwork,
    recipe: Recipe,
    data: ImageData,
    device: str,
    samples: int,
    progress: Progress = lambda _d, _t: None,
) -> dict[str, float]:
    """Scores a network on degraded copies of validation samples.

    Args:
        fitted: The network, and what it expects of its input.
        recipe: How it sees and joins images.
        data: The samples; some of their validation split are degraded, about as many of each class as it has.
        device: Where the network runs.
        samples: How many.
        progress: Called while copies are made, with (copies done, copies in all); what it raises ends that, and what
            was made is kept.

    Returns:
        The AUC of each degradation, by its name; without those of which a class has no readable copy.

    Raises:
        DataError: If there is no degraded copy at all.
    """
    degraded, names = degrade_validation(data, samples, recipe.view, progress)
    probabilities = split_probabilities(
        fitted.model, recipe, degraded, "validation", fitted.preprocessing, device, batch_size=data.batch_size(recipe)
    )
    labels, of_row = degraded.labels("validation"), names[degraded.rows("validation")]
    scores = {}
    for name in dict.fromkeys(of_row.tolist()):
        chosen = of_row == name
        if len(set(labels[chosen].tolist())) == data.classes:
            scores[name] = compute_metric("auc", labels[chosen], probabilities[chosen], data.positive)
    return scores


def degrade_validation(
    data: ImageData, samples: int, view: BaseView, progress: Progress = lambda _d, _t: None
) -> tuple[ImageData, NDArray[np.str_]]:
    """Makes degraded copies of some validation samples, or finds them in the cache, and decodes them.

    Returns:
        Samples whose validation split is the copies, and the name of each row's degradation, (N,) str. The sources
        stand in the training split: the cache wants both, and the shares of the classes are theirs.

    Raises:
        DataError: If no copy can be made.
    """
    table = data.samples.samples.iloc[choose_samples(data, samples)].assign(split="train", degradation="")
    degradations = load_degradations(medium=view.media)
    folder, parts = cache_dir() / "degraded", [table]
    for number, degradation in enumerate(degradations):
        before = number * len(table)

        def report(done: int, _total: int, before: int = before) -> None:
            progress(before + done, len(degradations) * len(table))

        parts.append(_degrade_table(table, degradation, folder / degradation.name, report))
    whole = pd.concat(parts, ignore_index=True)
    if len(whole) == len(table):
        raise DataError(f"no degraded copy could be made of {len(table)} validation samples")
    dataset: Dataset = replace(data.samples, samples=whole)
    cache = build_cache(dataset, data.cache.size, None, view)
    return ImageData(dataset, cache, data.loaders), whole["degradation"].to_numpy(str)


def find_front(study: optuna.Study, metric: str) -> list[tuple[int, float, float]]:
    """Finds the complete trials that no other one beats both on clean samples and on degraded copies.

    Returns:
        Trial, metric on clean samples, `robust_auc`; the most robust first.
    """
    known = [(trial.number, read_trial_record(trial).metrics) for trial in best_first(study)]
    front: list[tuple[int, float, float]] = []
    for number, metrics in known:  # the most robust first: whatever follows must be better on clean samples
        if not front or metrics[metric] > front[-1][1]:
            front.append((number, metrics[metric], metrics[ROBUST]))
    return front


def choose_samples(data: ImageData, samples: int) -> NDArray[np.int64]:
    """Chooses validation samples, of each class its share but two at least: their rows in the data set, ascending."""
    chosen: NDArray[np.int64] = choose_of_each_class(data.labels("validation"), samples, least=2)
    return np.asarray(data.rows("validation")[chosen])


def _degrade_table(table: pd.DataFrame, degradation: Degradation, folder: Path, report: Progress) -> pd.DataFrame:
    """Returns the samples with the paths of their copies, in the validation split, without those that have none."""
    copies = degrade_files([Path(path) for path in table["path"]], degradation, folder, report)
    made = [not isinstance(copy, DataError) for copy in copies]
    paths = [str(copy) for copy, is_made in zip(copies, made, strict=True) if is_made]
    return table[made].assign(path=paths, split="validation", degradation=degradation.name)
