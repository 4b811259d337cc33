"""A greedy ensemble: which models to average, and how much each of them counts.

Caruana, Niculescu-Mizil, Crew & Ksikes 2004, "Ensemble selection from libraries of models" (ICML), section 2: forward
selection with replacement (2.1), begun with the best models in order (2.2), ended where nothing improves.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from automl.training.metrics import compute, direction

Floats = NDArray[np.floating[Any]]


def greedy(
    validation_probabilities: Sequence[Floats],
    labels: NDArray[np.integer[Any]],
    metric: str,
    positive: int = 1,
    *,
    size: int = 25,
) -> list[float]:
    """Chooses the weights of models in the mean of their probabilities.

    Args:
        validation_probabilities: Of each model, (N, C), on samples that none of them was trained on.
        labels: True classes (N,) int of the same samples.
        metric: One of `automl.spec.METRICS`, to be made better.
        positive: The positive class, where there are two.
        size: Models in the ensemble at most, one that is taken twice counted twice.

    Returns:
        A weight for each model, in the order given; they sum to 1, and models that were left out have 0. On these
        samples the ensemble is never worse than the best model alone.

    Raises:
        ValueError: If there are no models, or they are not of the same samples and classes.
        DataError: As `metrics.compute`.
    """
    models = [np.asarray(probabilities, dtype=np.float64) for probabilities in validation_probabilities]
    shapes = {model.shape for model in models}
    if len(shapes) != 1 or size < 1:
        raise ValueError(
            f"an ensemble needs models of the same samples and classes, and size >= 1; got {shapes}, {size}"
        )
    sign = 1 if direction(metric) == "maximize" else -1

    def score(counts: NDArray[np.int64]) -> float:
        mean = sum(count * model for count, model in zip(counts, models, strict=True) if count) / counts.sum()
        return sign * compute(metric, labels, mean, positive)

    counts = _begin(len(models), score, size)
    best = score(counts)
    steps = np.eye(len(models), dtype=np.int64)
    while counts.sum() < size:
        scores = [score(counts + step) for step in steps]
        if max(scores) <= best:
            break
        best, counts = max(scores), counts + steps[int(np.argmax(scores))]
    return [float(weight) for weight in counts / counts.sum()]


def _begin(models: int, score: Any, size: int) -> NDArray[np.int64]:
    """Sorted initialisation: the best model, the two best, the three best, …, whichever is best; the fewer on a tie."""
    singles = np.eye(models, dtype=np.int64)
    order = sorted(range(models), key=lambda k: (-score(singles[k]), k))
    prefixes = [singles[order[:length]].sum(axis=0) for length in range(1, min(models, size) + 1)]
    return max(prefixes, key=score)
