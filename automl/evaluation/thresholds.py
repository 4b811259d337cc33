"""A threshold for a wanted false-positive rate: chosen on the model's own validation samples, tried on others."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from automl.errors import SpecError
from automl.models.folder import ValidationScores

Labels = NDArray[np.integer[Any]]
Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Threshold:
    """A threshold: samples whose probability of the positive class is above it count as positive."""

    wanted_fpr: float
    value: float
    source: str
    """What the validation scores are of that it was chosen on."""
    validation_negatives: int
    validation_fpr: float
    validation_tpr: float | None
    fpr: float | None
    """On the evaluated samples; None where they have no negatives."""
    tpr: float | None
    false_positives: int
    negatives: int
    true_positives: int
    positives: int


def choose_threshold(negatives: Sequence[float] | Floats, fpr: float) -> float:
    """Chooses the lowest score of the negatives above which at most a share `fpr` of them lies.

    Raises:
        SpecError: If `fpr` is not between 0 and 1.
    """
    if not 0 < fpr < 1:
        raise SpecError(f"--fpr {fpr}: a false-positive rate is between 0 and 1, such as 0.01")
    ordered = np.sort(np.asarray(negatives, dtype=np.float64))[::-1]
    return float(ordered[int(fpr * len(ordered) + 1e-9)])


def apply_threshold(
    validation: ValidationScores, classes: Sequence[str], positive: int, labels: Labels, scores: Floats, fpr: float
) -> Threshold | None:
    """Chooses a threshold on validation scores and applies it to others; None if validation has no negatives.

    `scores` (N,) are the probabilities of the positive class of samples of the true classes `labels` (N,).
    """
    kept = [np.array(validation.scores.get(name, ())) for name in classes]
    if validation.positive != classes[positive]:  # of two models, the first one decides
        kept = [1 - scores for scores in kept]
    negatives, positives = kept[1 - positive], kept[positive]
    if not len(negatives):
        return None
    value = choose_threshold(negatives, fpr)
    above, truth = scores > value, labels == positive
    hits, alarms = int((above & truth).sum()), int((above & ~truth).sum())
    return Threshold(
        fpr,
        value,
        validation.source,
        len(negatives),
        float((negatives > value).mean()),
        float((positives > value).mean()) if len(positives) else None,
        alarms / int((~truth).sum()) if (~truth).any() else None,
        hits / int(truth.sum()) if truth.any() else None,
        alarms,
        int((~truth).sum()),
        hits,
        int(truth.sum()),
    )
