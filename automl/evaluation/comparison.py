"""Whether one model is better than another on the same samples: paired tests.

The AUC of two classes of samples that are independent: DeLong, DeLong & Clarke-Pearson 1988, "Comparing the areas under
two or more correlated receiver operating characteristic curves" (Biometrics 44), computed from midranks by Sun & Xu
2014, "Fast implementation of DeLong's algorithm for comparing the areas under correlated ROC curves" (IEEE Signal
Processing Letters 21). Everything else, and AUC where samples are in groups, which DeLong's test does not know: the
paired bootstrap, both models on the same replicates (`automl.training.intervals`). Of more than two models, the p of
each metric are corrected for the number of pairs by Holm 1979, "A simple sequentially rejective multiple test
procedure" (Scandinavian Journal of Statistics 6).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm, rankdata

Floats = NDArray[np.floating[Any]]
_LEVEL = 0.95
_NONE = 1e-12  # a deviation that is rounding alone


@dataclass(frozen=True)
class Difference:
    """How much larger a metric is for one model than for another one."""

    value: float
    low: float
    """Of the 95 % interval."""
    high: float
    p: float
    """Of a difference so far from 0, either way, if there were none."""
    method: str
    """`DeLong` or `bootstrap`."""


def compare_aucs(truth: NDArray[Any], one: Floats, other: Floats) -> Difference:
    """Compares the AUC of two models by DeLong's test.

    Args:
        truth: Whether each sample is positive (N,) bool; both kinds are there, at least two of each.
        one: Scores (N,) of the first model.
        other: Those of the second one.

    Returns:
        The AUC of `one` less that of `other`, with an interval and p from the normal distribution.
    """
    aucs, covariance = delong_covariance(truth, np.stack([one, other]))
    value = float(aucs[0] - aucs[1])
    deviation = float(np.sqrt(max(0.0, covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])))
    reach = float(norm.ppf((1 + _LEVEL) / 2)) * deviation
    # without variance both rank all samples right, or all alike
    p = float(2 * norm.sf(abs(value) / deviation)) if deviation > _NONE else 1.0
    return Difference(value, value - reach, value + reach, p, "DeLong")


def delong_covariance(truth: NDArray[Any], scores: Floats) -> tuple[Floats, Floats]:
    """Computes AUCs (M,) and their covariance (M, M) for scores (M, N), by midranks (Sun & Xu 2014)."""
    truth = np.asarray(truth, dtype=bool)
    hits, misses = scores[:, truth], scores[:, ~truth]
    m, n = hits.shape[1], misses.shape[1]
    ranks = rankdata(np.concatenate([hits, misses], axis=1), axis=1)
    aucs = ranks[:, :m].sum(axis=1) / (m * n) - (m + 1) / (2 * n)
    of_hits = (ranks[:, :m] - rankdata(hits, axis=1)) / n
    of_misses = 1 - (ranks[:, m:] - rankdata(misses, axis=1)) / m
    return aucs, np.atleast_2d(np.cov(of_hits)) / m + np.atleast_2d(np.cov(of_misses)) / n


def compare_replicates(value: float, replicates: Floats) -> Difference:
    """Compares a metric of two models by its differences (R,) on the same replicates; `value` is that of the samples.

    p is twice the share of replicates on the side of 0 where there are fewer, counted as (k + 1) / (R + 1) and so never
    0 (Davison & Hinkley 1997, "Bootstrap methods and their application", section 4.2).
    """
    low, high = np.quantile(replicates, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
    fewer = min(int((replicates <= 0).sum()), int((replicates >= 0).sum()))
    p = min(1.0, 2 * (fewer + 1) / (len(replicates) + 1))
    return Difference(value, min(value, float(low)), max(value, float(high)), p, "bootstrap")


def correct_p(values: Sequence[float]) -> list[float]:
    """Corrects the p of several comparisons by Holm's procedure; one alone stays as it is."""
    order = np.argsort(values, kind="stable")
    factors = np.arange(len(order), 0, -1)
    stepped = np.minimum(1.0, np.maximum.accumulate(np.asarray(values)[order] * factors))
    corrected = np.empty(len(order))
    corrected[order] = stepped
    return [float(p) for p in corrected]
