"""The metrics that a study can maximize or minimize, by scikit-learn.

Binary metrics look at the positive class's probability. With more classes, AUC, TPR@FPR and EER are the mean over
one-vs-rest problems, F1 and balanced accuracy the mean over classes: each over the classes that the labels contain, so
that a class missing from a small validation set does not make the metric undefined.

To add a metric: one function of `Predictions` and one row in `METRICS`; its name also stands in `automl.spec.METRICS`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import f1_score, log_loss, recall_score, roc_auc_score, roc_curve

from automl.errors import DataError, SpecError

Labels = NDArray[np.integer[Any]]
Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Predictions:
    """True classes (N,) int, and the probabilities (N, C) float64 that a model gives to the classes."""

    labels: Labels
    probabilities: Floats
    positive: int
    """The positive class, where there are two."""
    fpr: float
    """The false-positive rate at which `tpr_at_fpr` is read."""

    @property
    def predicted(self) -> Labels:
        """The most probable class of each sample, (N,) int."""
        return np.asarray(self.probabilities.argmax(axis=1))

    @property
    def present(self) -> Labels:
        """The classes that the labels contain."""
        return np.unique(self.labels)


@dataclass(frozen=True)
class Metric:
    """A metric: how it is computed, and which way is better."""

    function: Callable[[Predictions], float]
    direction: Literal["maximize", "minimize"] = "maximize"


def metric_direction(name: str) -> Literal["maximize", "minimize"]:
    """Returns whether a metric is better when larger (`maximize`) or when smaller (`minimize`)."""
    return _find_metric(name).direction


def metric_sign(name: str) -> int:
    """Returns 1 or -1: of two values, the one with the larger `sign * value` is better."""
    return 1 if metric_direction(name) == "maximize" else -1


def default_metric(classes: int) -> str:
    """Returns the metric of a study that names none: AUC for two classes, accuracy for more."""
    return "auc" if classes == 2 else "accuracy"


def compute_metric(name: str, labels: Labels, probabilities: Floats, positive: int = 1, *, fpr: float = 1e-3) -> float:
    """Computes one metric.

    Args:
        name: One of `automl.spec.METRICS`.
        labels: True classes (N,) int.
        probabilities: Predicted probabilities (N, C); rows need to sum to 1 only roughly (fp16).
        positive: The positive class, where there are two.
        fpr: The false-positive rate at which `tpr_at_fpr` is read: the best TPR among the thresholds that do not
            exceed it, not interpolated.

    Raises:
        FloatingPointError: If a probability is NaN or infinite: the training has diverged.
        DataError: If there are no labels, or only one class where the metric compares classes.
        SpecError: If there is no such metric.
    """
    metric = _find_metric(name)
    labels, probabilities = np.asarray(labels), np.asarray(probabilities, dtype=np.float64)
    if probabilities.ndim != 2 or labels.shape != probabilities.shape[:1]:
        raise ValueError(f"labels (N,) and probabilities (N, C) do not fit: {labels.shape}, {probabilities.shape}")
    if not len(labels):
        raise DataError("no samples to score; check that the split is not empty")
    if broken := int((~np.isfinite(probabilities)).any(axis=1).sum()):
        raise FloatingPointError(
            f"{broken} of {len(labels)} predictions are NaN or infinite: the training has diverged; "
            "lower the learning rate, clip gradients, or use fp32"
        )
    return metric.function(Predictions(labels, probabilities, positive, fpr))


def all_metrics(labels: Labels, probabilities: Floats, positive: int = 1) -> dict[str, float]:
    """Computes every metric; arguments and errors as in `compute_metric`."""
    return {name: compute_metric(name, labels, probabilities, positive) for name in METRICS}


def _find_metric(name: str) -> Metric:
    """Returns the metric of a name, which may come from a user."""
    if name not in METRICS:
        raise SpecError(f"no metric {name!r}; choose one of: {', '.join(METRICS)}")
    return METRICS[name]


def _average_over_classes(name: str, score: Callable[[Any, Any, float], float], given: Predictions) -> float:
    """Computes a binary metric of the positive class, or its mean over the present classes if there are more."""
    if len(given.present) < 2:
        raise DataError(f"{name} compares classes, but all {len(given.labels)} samples are of class {given.present[0]}")
    chosen = [given.positive] if given.probabilities.shape[1] == 2 else given.present
    return float(np.mean([score(given.labels == k, given.probabilities[:, k], given.fpr) for k in chosen]))


def _tpr_at_fpr(truth: Any, scores: Any, limit: float) -> float:
    """Computes the best true-positive rate among thresholds whose false-positive rate is within the limit."""
    fpr, tpr, _ = roc_curve(truth, scores)
    return float(tpr[fpr <= limit].max())


def _equal_error_rate(truth: Any, scores: Any, _fpr: float) -> float:
    """Computes where false-positive and false-negative rates cross."""
    fpr, tpr, _ = roc_curve(truth, scores)
    return find_equal_error(fpr, tpr)


def find_equal_error(fpr: Floats, tpr: Floats) -> float:
    """Finds where false-positive and false-negative rates cross, interpolated along a ROC curve from (0, 0)."""
    excess = fpr + tpr - 1  # FPR - FNR: from -1 to 1, never falling
    after = int(np.argmax(excess >= 0))
    share = -excess[after - 1] / (excess[after] - excess[after - 1])
    return float(fpr[after - 1] + share * (fpr[after] - fpr[after - 1]))


def _log_loss(given: Predictions) -> float:
    """Computes the mean of -log of the true class's probability."""
    # Renormalised first, because scikit-learn warns of rows that sum to 1 only as fp16 does.
    normal = given.probabilities / given.probabilities.sum(axis=1, keepdims=True)
    return float(log_loss(given.labels, normal, labels=range(normal.shape[1])))


def _balanced_accuracy(given: Predictions) -> float:
    """Computes the mean recall; scikit-learn's own function warns of classes that are only predicted."""
    return float(recall_score(given.labels, given.predicted, labels=given.present, average="macro", zero_division=0))


def _f1(given: Predictions) -> float:
    """Computes the F1 score of the positive class, or its mean over the present classes if there are more."""
    if given.probabilities.shape[1] == 2:
        return float(f1_score(given.labels == given.positive, given.predicted == given.positive, zero_division=0))
    return float(f1_score(given.labels, given.predicted, labels=given.present, average="macro", zero_division=0))


METRICS = {
    "auc": Metric(partial(_average_over_classes, "auc", lambda truth, scores, _: roc_auc_score(truth, scores))),
    "accuracy": Metric(lambda given: float(np.mean(given.predicted == given.labels))),
    "balanced_accuracy": Metric(_balanced_accuracy),
    "f1": Metric(_f1),
    "log_loss": Metric(_log_loss, "minimize"),
    "tpr_at_fpr": Metric(partial(_average_over_classes, "tpr_at_fpr", _tpr_at_fpr)),
    "eer": Metric(partial(_average_over_classes, "eer", _equal_error_rate), "minimize"),
}
"""Every metric by its name."""
