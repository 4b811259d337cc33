"""Metrics of a model with intervals, and the bootstrap replicates by which two models are compared.

The values are those of `automl.training.metrics`. Of the thousands of replicates the same metrics are computed in a
quicker way, all of them on the same draws, which are those of `automl.training.intervals`; so are the intervals of few
groups, which take no draws. Beside the metrics of a search there are the TPR at an FPR of .01, and the Brier score: of
two classes the mean square of (probability of the positive class − truth), of more the sum of these over the classes
(Brier 1950, "Verification of forecasts expressed in terms of probability", Monthly Weather Review 78).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from automl.errors import DataError
from automl.reporter import Progress
from automl.training.intervals import (
    REPEATS,
    Interval,
    draw_rows,
    interval_around,
    leave_groups_out,
    number_groups,
    widen_edge,
)
from automl.training.metrics import METRICS, compute_metric, find_equal_error, metric_sign
from automl.units import format_count

Labels = NDArray[np.integer[Any]]
Floats = NDArray[np.floating[Any]]
Groups = NDArray[Any]

TPR_AT = {"tpr_at_fpr": 1e-3, "tpr_at_fpr_0.01": 1e-2}
"""The false-positive rates at which true-positive rates are read."""
NAMES = (*METRICS, "tpr_at_fpr_0.01", "brier")
"""Every metric of an evaluation."""
COMPARES_CLASSES = ("auc", *TPR_AT, "eer")
"""Metrics that are not defined on samples of one class."""

_LEAST = 5
"""Samples of each class, or groups that have some, that an interval needs: a choice of ours."""
_EPS = float(np.finfo(np.float64).eps)


@dataclass(frozen=True)
class Value:
    """A metric, and where it would be on most other samples of the same kind; no interval of too few samples."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Measured:
    """Metrics of one model on some samples."""

    values: dict[str, Value]
    missing: dict[str, str]
    """Why a metric cannot be computed, by its name."""
    replicates: dict[str, Floats] = field(default_factory=dict)
    """(R,) by metric; those of two models on the same samples are paired. None of too few samples."""


def sign_of(name: str) -> int:
    """Returns 1 for a metric that is better when larger, else -1."""
    return -1 if name == "brier" else metric_sign("tpr_at_fpr" if name in TPR_AT else name)


def explain_no_interval(labels: Labels, groups: Groups | None) -> str:
    """Writes why there are too few samples, or groups, of a class for an interval; "" if there are enough."""
    grouped = groups is not None and number_groups(groups) is not None
    units = groups if groups is not None and grouped else np.arange(len(labels))
    fewest = min(len(np.unique(units[labels == label])) for label in np.unique(labels))
    if fewest >= _LEAST:
        return ""
    return f"no intervals: a class has {format_count(fewest, 'group' if grouped else 'sample')}, fewer than {_LEAST}"


def measure_metrics(
    labels: Labels,
    probabilities: Floats,
    positive: int,
    groups: Groups | None = None,
    names: Sequence[str] = NAMES,
    progress: Progress = lambda _done, _total: None,
) -> Measured:
    """Computes metrics with 95 % intervals.

    Args:
        labels: True classes (N,), N at least 1.
        probabilities: (N, C).
        positive: The positive class, where there are two.
        groups: What each sample belongs to (N,); whole groups are then drawn, or, of few, left out in turn.
            None: samples are independent.
        names: Of `NAMES`.
        progress: Called with replicates done, and all.

    Returns:
        The metrics; of samples of one class, why those that compare classes are missing.
    """
    values, missing = dict[str, float](), dict[str, str]()
    for name in names:
        try:
            values[name] = _compute_value(name, labels, probabilities, positive)
        except DataError as exc:
            missing[name] = str(exc)
    if explain_no_interval(labels, groups):
        return Measured({name: Value(value) for name, value in values.items()}, missing)
    replicates = _draw_replicates(labels, probabilities, positive, groups, list(values), progress)
    around = dict[str, Interval]()
    for name, value in values.items():
        compute = partial(_compute_value, name, positive=positive)
        few = leave_groups_out(name, compute, labels, probabilities, groups)
        around[name] = few or widen_edge(name, interval_around(value, replicates[name]), labels)
    return Measured({name: Value(one.value, one.low, one.high) for name, one in around.items()}, missing, replicates)


def _compute_value(name: str, labels: Labels, probabilities: Floats, positive: int) -> float:
    """Computes one metric as everywhere else."""
    if name == "brier":
        return float(_score_brier(labels, probabilities, positive).mean())
    if name in TPR_AT:
        return compute_metric("tpr_at_fpr", labels, probabilities, positive, fpr=TPR_AT[name])
    return compute_metric(name, labels, probabilities, positive)


def _score_brier(labels: Labels, probabilities: Floats, positive: int) -> Floats:
    """Computes what each sample adds to the Brier score, (N,)."""
    if probabilities.shape[1] == 2:
        return np.asarray((probabilities[:, positive] - (labels == positive)) ** 2)
    truth = labels[:, None] == np.arange(probabilities.shape[1])
    return np.asarray(((probabilities - truth) ** 2).sum(axis=1))


def _draw_replicates(
    labels: Labels,
    probabilities: Floats,
    positive: int,
    groups: Groups | None,
    names: Sequence[str],
    progress: Progress,
) -> dict[str, Floats]:
    """Computes metrics of every replicate, all of them on the same draws: (R,) by name."""
    classes = probabilities.shape[1]
    predicted = probabilities.argmax(axis=1)
    normal = probabilities / probabilities.sum(axis=1, keepdims=True)
    of_truth = normal[np.arange(len(labels)), labels].clip(_EPS, 1 - _EPS)  # clipped as scikit-learn does
    each = {
        "accuracy": (predicted == labels).astype(np.float64),
        "log_loss": -np.log(of_truth),
        "brier": _score_brier(labels, probabilities, positive),
    }
    of_curves, of_counts = {*names} & {*COMPARES_CLASSES}, {*names} & {"f1", "balanced_accuracy"}
    replicates: dict[str, Floats] = {name: np.empty(REPEATS) for name in names}
    for k, rows in enumerate(islice(draw_rows(labels, groups), REPEATS)):
        drawn, values = labels[rows], {name: float(each[name][rows].mean()) for name in names if name in each}
        if of_counts:
            pairs = np.bincount(drawn * classes + predicted[rows], minlength=classes**2)
            values |= score_counts(pairs.reshape(classes, classes), positive)
        if of_curves:
            chosen = [positive] if classes == 2 else np.unique(drawn).tolist()
            curves = [score_curve(drawn == label, probabilities[rows, label]) for label in chosen]
            values |= {name: float(np.mean([curve[name] for curve in curves])) for name in COMPARES_CLASSES}
        for name in names:
            replicates[name][k] = values[name]
        if k % 20 == 0:
            progress(k, REPEATS)
    return replicates


def score_counts(confusion: NDArray[np.integer[Any]], positive: int) -> dict[str, float]:
    """Computes F1 and balanced accuracy of a confusion matrix (C, C), true classes in rows, as scikit-learn does."""
    hits, truth, predicted = np.diag(confusion), confusion.sum(axis=1), confusion.sum(axis=0)
    present = truth > 0
    f1 = 2 * hits / np.maximum(truth + predicted, 1)
    balanced = float((hits[present] / truth[present]).mean())
    return {"f1": float(f1[positive] if len(hits) == 2 else f1[present].mean()), "balanced_accuracy": balanced}


def score_curve(truth: NDArray[Any], scores: Floats) -> dict[str, float]:
    """Computes what compares two classes, in one pass: AUC, EER and TPR at FPR, of truth (N,) bool and scores (N,)."""
    order = np.argsort(-scores, kind="stable")
    steps = np.flatnonzero(np.diff(scores[order], append=-np.inf))  # the last of equal scores
    hits = np.concatenate([[0], np.cumsum(truth[order])[steps]])
    alarms = np.concatenate([[0], steps + 1]) - hits
    tpr, fpr = hits / hits[-1], alarms / alarms[-1]
    rates = {name: float(tpr[fpr <= limit].max()) for name, limit in TPR_AT.items()}
    return {"auc": float((np.diff(fpr) * (tpr[1:] + tpr[:-1]) / 2).sum()), "eer": find_equal_error(fpr, tpr), **rates}
