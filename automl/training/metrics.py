"""The metrics a study can maximize or minimize, by scikit-learn.

Binary metrics look at the positive class's probability. With more classes, AUC, TPR@FPR and EER are the mean over
one-vs-rest problems, F1 and balanced accuracy the mean over classes: each over the classes the labels contain, so that
a class missing from a small validation set does not make the metric undefined.
"""

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from automl.errors import DataError, SpecError
from automl.spec import METRICS

Labels = NDArray[np.integer[Any]]
Floats = NDArray[np.floating[Any]]

_MINIMIZED = ("log_loss", "eer")


def direction(name: str) -> Literal["maximize", "minimize"]:
    """Whether a metric is better when larger or when smaller."""
    _check_name(name)
    return "minimize" if name in _MINIMIZED else "maximize"


def default_metric(classes: int) -> str:
    """The metric of a study that names none: AUC for two classes, accuracy for more."""
    return "auc" if classes == 2 else "accuracy"


def compute(name: str, labels: Labels, probabilities: Floats, positive: int = 1, *, fpr: float = 1e-3) -> float:
    """Computes one metric.

    Args:
        name: One of `automl.spec.METRICS`.
        labels: True classes (N,) int.
        probabilities: Predicted probabilities (N, C); rows need to sum to 1 only roughly (fp16).
        positive: The positive class, where there are two.
        fpr: The false-positive rate at which `tpr_at_fpr` is read: the best TPR among the thresholds that do not
            exceed it, not interpolated.

    Returns:
        The metric; see `direction` for which way is better.

    Raises:
        FloatingPointError: If a probability is NaN or infinite: the training has diverged.
        DataError: If there are no labels, or only one class where the metric compares classes.
        SpecError: If there is no such metric.
    """
    _check_name(name)
    labels, probabilities = np.asarray(labels), np.asarray(probabilities, dtype=np.float64)
    _check_predictions(labels, probabilities)
    if name in ("auc", "tpr_at_fpr", "eer"):
        score = {"auc": _auc, "eer": _eer, "tpr_at_fpr": lambda truth, s: _tpr_at_fpr(truth, s, fpr)}[name]
        return _one_vs_rest(name, score, labels, probabilities, positive)
    if name == "log_loss":
        return _log_loss(labels, probabilities)
    return _of_decisions(name, labels, probabilities, positive)


def all_metrics(labels: Labels, probabilities: Floats, positive: int = 1, *, fpr: float = 1e-3) -> dict[str, float]:
    """Computes every metric; arguments and errors as in `compute`."""
    return {name: compute(name, labels, probabilities, positive, fpr=fpr) for name in METRICS}


def _check_name(name: str) -> None:
    if name not in METRICS:
        raise SpecError(f"no metric {name!r}; choose one of: {', '.join(METRICS)}")


def _check_predictions(labels: Labels, probabilities: Floats) -> None:
    if probabilities.ndim != 2 or labels.shape != probabilities.shape[:1]:
        raise ValueError(f"labels (N,) and probabilities (N, C) do not fit: {labels.shape}, {probabilities.shape}")
    if not len(labels):
        raise DataError("no samples to score; check that the split is not empty")
    if broken := int((~np.isfinite(probabilities)).any(axis=1).sum()):
        raise FloatingPointError(
            f"{broken} of {len(labels)} predictions are NaN or infinite: the training has diverged; "
            "lower the learning rate, clip gradients, or use fp32"
        )


def _one_vs_rest(
    name: str, score: Callable[[Any, Any], float], labels: Labels, probabilities: Floats, positive: int
) -> float:
    """A binary metric on the positive class, or its mean over the present classes where there are more than two."""
    present = np.unique(labels)
    if len(present) < 2:
        raise DataError(f"{name} compares classes, but all {len(labels)} samples are of class {present[0]}")
    chosen = [positive] if probabilities.shape[1] == 2 else present
    return float(np.mean([score(labels == k, probabilities[:, k]) for k in chosen]))


def _auc(truth: Any, scores: Any) -> float:
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(truth, scores))


def _tpr_at_fpr(truth: Any, scores: Any, limit: float) -> float:
    from sklearn.metrics import roc_curve

    fpr, tpr, _ = roc_curve(truth, scores)
    return float(tpr[fpr <= limit].max())


def _eer(truth: Any, scores: Any) -> float:
    """Where the false-positive and false-negative rates cross, interpolated along the ROC curve."""
    from sklearn.metrics import roc_curve

    fpr, tpr, _ = roc_curve(truth, scores)
    excess = fpr + tpr - 1  # FPR - FNR: from -1 to 1, never falling
    after = int(np.argmax(excess >= 0))
    share = -excess[after - 1] / (excess[after] - excess[after - 1])
    return float(fpr[after - 1] + share * (fpr[after] - fpr[after - 1]))


def _log_loss(labels: Labels, probabilities: Floats) -> float:
    from sklearn.metrics import log_loss

    # Renormalised first, because scikit-learn warns of rows that sum to 1 only as fp16 does.
    normal = probabilities / probabilities.sum(axis=1, keepdims=True)
    return float(log_loss(labels, normal, labels=range(probabilities.shape[1])))


def _of_decisions(name: str, labels: Labels, probabilities: Floats, positive: int) -> float:
    """Metrics of the most probable class."""
    from sklearn.metrics import accuracy_score, f1_score, recall_score

    predicted = probabilities.argmax(axis=1)
    present = np.unique(labels)
    if name == "accuracy":
        return float(accuracy_score(labels, predicted))
    if name == "balanced_accuracy":  # the mean recall; scikit-learn's own warns of classes that are only predicted
        return float(recall_score(labels, predicted, labels=present, average="macro", zero_division=0))
    if probabilities.shape[1] == 2:
        return float(f1_score(labels == positive, predicted == positive, zero_division=0))
    return float(f1_score(labels, predicted, labels=present, average="macro", zero_division=0))
