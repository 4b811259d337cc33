"""What lies behind the figures of a model: each class, the ROC curve, and the most confident mistakes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support, roc_auc_score, roc_curve

Labels = NDArray[np.integer[Any]]
Floats = NDArray[np.floating[Any]]

_CURVE_POINTS = 500
_MISTAKES = 20


@dataclass(frozen=True)
class ClassFigures:
    """How one class is predicted."""

    name: str
    precision: float | None
    """None where nothing is predicted to be of the class."""
    recall: float | None
    """None where no sample is of the class, as `f1` and `auc` are."""
    f1: float | None
    support: int
    """Samples of the class."""
    auc: float | None
    """Against all other samples, by the probability of the class."""


@dataclass(frozen=True)
class Curve:
    """A ROC curve, at most 500 points of it."""

    fpr: tuple[float, ...]
    tpr: tuple[float, ...]


@dataclass(frozen=True)
class Mistake:
    """A sample that is predicted wrong."""

    row: int
    """Number of the sample."""
    path: str
    label: str
    predicted: str
    score: float
    """Probability of the class that was predicted."""


def describe_classes(labels: Labels, probabilities: Floats, classes: Sequence[str]) -> list[ClassFigures]:
    """Describes each class of predictions (N, C) by scikit-learn; the predicted class is the most probable one."""
    predicted, every = probabilities.argmax(axis=1), range(len(classes))
    scores = precision_recall_fscore_support(labels, predicted, labels=every, zero_division=0)
    chosen = np.bincount(predicted, minlength=len(classes))
    return [
        ClassFigures(
            name,
            float(precision) if chosen[k] else None,
            float(recall) if support else None,
            float(f1) if support else None,
            int(support),
            float(roc_auc_score(labels == k, probabilities[:, k])) if 0 < support < len(labels) else None,
        )
        for k, (name, precision, recall, f1, support) in enumerate(zip(classes, *scores, strict=True))
    ]


def count_confusion(labels: Labels, probabilities: Floats) -> list[list[int]]:
    """Counts samples by true class (rows) and predicted class (columns)."""
    every = range(probabilities.shape[1])
    return [list(map(int, row)) for row in confusion_matrix(labels, probabilities.argmax(axis=1), labels=every)]


def trace_roc(truth: NDArray[Any], scores: Floats) -> Curve | None:
    """Computes the ROC curve; None where all samples are of one class."""
    if np.ptp(truth.astype(int)) == 0:
        return None
    fpr, tpr, _ = roc_curve(truth, scores)
    # many points are needed where the rate of false positives is small
    shown = np.unique(np.linspace(0, len(fpr) - 1, _CURVE_POINTS // 2).astype(int))
    small = np.flatnonzero(fpr <= fpr[min(len(fpr) - 1, _CURVE_POINTS // 2)])[: _CURVE_POINTS // 2]
    kept = np.union1d(shown, small)
    return Curve(tuple(fpr[kept].tolist()), tuple(tpr[kept].tolist()))


def list_mistakes(labels: Labels, probabilities: Floats, classes: Sequence[str], paths: Sequence[str]) -> list[Mistake]:
    """Lists the mistakes of the highest probability, at most 20, the most confident first."""
    predicted = probabilities.argmax(axis=1)
    wrong = np.flatnonzero(predicted != labels)
    confidence = probabilities[wrong, predicted[wrong]]
    rows = wrong[np.argsort(-confidence, kind="stable")][:_MISTAKES].tolist()
    return [
        Mistake(row, paths[row], classes[labels[row]], classes[predicted[row]], float(probabilities[row].max()))
        for row in rows
    ]
