"""Whether probabilities mean what they say: calibration.

The expected calibration error, the reliability curve and the temperature are those of Guo, Pleiss, Sun & Weinberger
2017, "On calibration of modern neural networks" (ICML, arXiv 1706.04599): of the probability of the predicted class
(the confidence), in 15 bins of equal width; a temperature divides the logits, and the best one has the least log loss.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

Labels = NDArray[np.integer[Any]]
Floats = NDArray[np.floating[Any]]

BINS = 15
"""Of equal width, from 0 to 1 (Guo et al. 2017, section 4)."""
TEMPERATURES = (0.05, 20.0)
"""The lowest and the highest that is tried."""
_EPS = 1e-12


@dataclass(frozen=True)
class Bin:
    """Samples whose confidence is in one range."""

    low: float
    high: float
    samples: int
    confidence: float
    """Their mean confidence."""
    accuracy: float
    """Share of them that is predicted right."""


@dataclass(frozen=True)
class Calibration:
    """How well confidence and accuracy agree."""

    ece: float
    """Expected calibration error: the mean distance of confidence and accuracy over bins, weighted by samples."""
    bins: tuple[Bin, ...]
    """The bins that hold samples: the reliability curve."""
    temperature: float
    """What the logits would have to be divided by for the least log loss on these samples; above 1: to be less sure."""
    log_loss: float
    log_loss_at_temperature: float
    """At the best temperature, which was chosen on these very samples."""


def measure_calibration(labels: Labels, probabilities: Floats) -> Calibration:
    """Measures the calibration of probabilities (N, C) given the true classes (N,)."""
    labels, normal = np.asarray(labels), np.asarray(probabilities, dtype=np.float64)
    confidence, right = normal.max(axis=1), normal.argmax(axis=1) == labels
    # a bin holds its upper end, not its lower one
    number = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
    bins = [
        Bin(k / BINS, (k + 1) / BINS, int(inside.sum()), float(confidence[inside].mean()), float(right[inside].mean()))
        for k in range(BINS)
        if (inside := number == k).any()
    ]
    ece = sum(each.samples * abs(each.confidence - each.accuracy) for each in bins) / len(labels)
    log_odds = np.log(normal.clip(_EPS, 1.0))

    def loss_at(log_temperature: float) -> float:
        scaled = log_odds / np.exp(log_temperature)
        scaled -= scaled.max(axis=1, keepdims=True)
        return float(np.mean(np.log(np.exp(scaled).sum(axis=1)) - scaled[np.arange(len(labels)), labels]))

    best = minimize_scalar(loss_at, bounds=np.log(TEMPERATURES), method="bounded")
    return Calibration(float(ece), tuple(bins), float(np.exp(best.x)), loss_at(0.0), float(best.fun))
