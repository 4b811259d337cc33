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
    clean: NDArray[np.float64],
    device: str,
    samples: int,
    progress: Progress = lambda _d, _t: None,
) -> dict[str, float]:
    """Estimates a network's AUC on degraded copies of the validation split, from copies of some of its samples.

    The AUC of few samples is mostly a matter of which ones they are. So what counts is what a degradation takes from
    the AUC of its samples, taken from the AUC of all clean ones: a control variate (Owen, Monte Carlo theory, methods
    and examples, 8.9, https://artowen.su.domains/mc/). Each degradation has samples of its own. With 65 of 400 faces
    the difference of two networks has an error of .004, with one draw for all .031
    (`studies/benchmarks/robust_score.py`).

    Args:
        fitted: The network, and what it expects of its input.
        recipe: How it sees and joins images.
        data: The samples; some of their validation split are degraded, about as many of each class as it has.
        clean: (N, C) its probabilities for the validation split.
        device: Where the network runs.
        samples: How many of each degradation.
        progress: Called while copies are made, with (copies done, copies in all); what it raises ends that, and what
            was made is kept.

    Returns:
        The AUC of each degradation, by its name; without those of which a class has no readable copy.

    Raises:
        DataError: If there is no degraded copy at all.
    """
    degraded, names, positions = degrade_validation(data, samples, recipe.view, progress)
    probabilities = split_probabilities(
        fitted.model, recipe, degraded, "validation", fitted.preprocessing, device, batch_size=data.batch_size(recipe)
    )
    labels, rows = degraded.labels("validation"), degraded.rows("validation")
    whole = compute_metric("auc", data.labels("validation"), clean, data.positive)
    scores = {}
    for name in dict.fromkeys(names[rows].tolist()):
        chosen = names[rows] == name
        if len(set(labels[chosen].tolist())) == data.classes:
            each = probabilities[chosen], clean[positions[rows[chosen]]]
            after, before = (compute_metric("auc", labels[chosen], one, data.positive) for one in each)
            scores[name] = float(np.clip(whole + after - before, 0, 1))
    return scores


def degrade_validation(
    data: ImageData, samples: int, view: BaseView, progress: Progress = lambda _d, _t: None
) -> tuple[ImageData, NDArray[np.str_], NDArray[np.int64]]:
    """Makes degraded copies of some validation samples, or finds them in the cache, and decodes them.

    Returns:
        Samples whose validation split is the copies; the name of each row's degradation, (N,) str; and of which sample
        of the validation split it is a copy, (N,) int64. The sources of the first degradation stand in the training
        split: the cache wants both, and the shares of the classes are theirs.

    Raises:
        DataError: If no copy can be made.
    """
    validation = data.samples.samples.iloc[data.rows("validation")].assign(position=range(len(data.rows("validation"))))
    degradations = load_degradations(medium=view.media)
    folder, parts = cache_dir() / "degraded", list[pd.DataFrame]()
    for number, degradation in enumerate(degradations):
        table = validation.iloc[choose_of_each_class(data.labels("validation"), samples, least=2, seed=number)]
        if not number:
            parts.append(table.assign(split="train", degradation=""))

        def report(done: int, total: int, number: int = number) -> None:
            progress(number * total + done, len(degradations) * total)

        parts.append(_degrade_table(table, degradation, folder / degradation.name, report))
    whole = pd.concat(parts, ignore_index=True)
    if len(whole) == len(parts[0]):
        raise DataError(f"no degraded copy could be made of {len(parts[0])} validation samples")
    dataset: Dataset = replace(data.samples, samples=whole.drop(columns=["position", "degradation"]))
    cache = build_cache(dataset, data.cache.size, None, view)
    names, positions = whole["degradation"].to_numpy(str), whole["position"].to_numpy(np.int64)
    return ImageData(dataset, cache, data.loaders), names, positions


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


def _degrade_table(table: pd.DataFrame, degradation: Degradation, folder: Path, report: Progress) -> pd.DataFrame:
    """Returns the samples with the paths of their copies, in the validation split, without those that have none."""
    copies = degrade_files([Path(path) for path in table["path"]], degradation, folder, report)
    made = [not isinstance(copy, DataError) for copy in copies]
    paths = [str(copy) for copy, is_made in zip(copies, made, strict=True) if is_made]
    return table[made].assign(path=paths, split="validation", degradation=degradation.name)
