"""How far a metric would move on other samples of the same kind: bootstrap intervals.

Percentile bootstrap (Efron & Tibshirani 1993, chapter 13). Samples that belong together are drawn together: whole
groups with replacement, the cluster bootstrap (Field & Welsh 2007, "Bootstrapping clustered data"). Where there are no
groups, each class is drawn by itself, so that a replicate has as many of each class as the data: what pROC does by
default with 2000 replicates (Robin et al. 2011, "pROC: an open-source package for R and S+ to analyze and compare ROC
curves"; Carpenter & Bithell 2000, "Bootstrap confidence intervals: when, which, what?", for the number).

Of few groups the bootstrap is too narrow: of three it holds the true AUC in 63 % of simulations, of eight in 86 %.
There each group is left out in turn (the jackknife: Efron & Tibshirani 1993, chapter 11), and Student's t with one
degree of freedom less than there are groups is laid around the metric on the logit scale: 93 to 96 %
(`studies/benchmarks/validation/`).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from automl.training.metrics import compute_metric

Labels = NDArray[np.integer[Any]]
Floats = NDArray[np.floating[Any]]
Groups = NDArray[Any]

REPEATS, _LEVEL = 2000, 0.95

_FEW_GROUPS = 20
"""Below so many, each is left out in turn."""
_NO_SHARES = ("log_loss", "brier")
"""Metrics that are no share of samples: of these 0 is the least, and the best."""
_ROUNDING = 1e-9
_EDGE = 1e-4
"""Shares are kept so far from 0 and 1 on the logit scale."""


@dataclass(frozen=True)
class Interval:
    """A metric and where it would be on most other samples of the same size."""

    value: float
    """On the samples themselves."""
    low: float
    high: float


def bootstrap(
    metric: Callable[[Labels, Floats], float],
    labels: Labels,
    probabilities: Floats,
    groups: Groups | None = None,
    *,
    repeats: int = REPEATS,
    level: float = _LEVEL,
    seed: int = 0,
) -> Interval:
    """Computes a metric with its percentile bootstrap interval.

    A replicate of whole groups that has one class only, where the samples have more, is drawn again: a metric that
    compares classes is not defined on it. Groups are ignored when all samples are of one group: there is then no
    second one to tell how groups differ, and the interval is too narrow.

    Args:
        metric: Of labels (n,) and probabilities (n, …), rows drawn with replacement.
        labels: True classes (N,) int.
        probabilities: (N, C), or anything else with a row a sample.
        groups: What each sample belongs to (N,); None, or each sample its own group: samples are independent.
        repeats: Replicates.
        level: Share of the replicates inside the interval.
        seed: Of the draws.

    Returns:
        The metric and the interval, which is widened to hold the metric where the replicates lie to one side of it.

    Raises:
        ValueError: If shapes, `repeats` or `level` make no sense.
        DataError: As `metric` does on the samples themselves.
    """
    labels, probabilities = np.asarray(labels), np.asarray(probabilities)
    if len(labels) != len(probabilities) or (groups is not None and len(groups) != len(labels)):
        raise ValueError(
            f"{len(labels)} labels, {len(probabilities)} predictions: one of each (and one group) a sample"
        )
    if repeats < 1 or not 0 < level < 1:
        raise ValueError(f"repeats is at least 1 and level between 0 and 1, got {repeats} and {level}")
    value = metric(labels, probabilities)
    draws = islice(draw_rows(labels, groups, seed), repeats)
    return interval_around(value, [metric(labels[rows], probabilities[rows]) for rows in draws], level)


def draw_rows(labels: Labels, groups: Groups | None = None, seed: int = 0) -> Iterator[NDArray[np.int64]]:
    """Yields the row numbers (n,) of one replicate after the other, without end; arguments as in `bootstrap`.

    The same arguments give the same rows: replicates of two models are then paired.
    """
    random, codes = np.random.default_rng(seed), number_groups(groups)
    return _draw_within_classes(labels, random) if codes is None else _draw_whole_groups(labels, codes, random)


def interval_around(value: float, replicates: Sequence[float] | Floats, level: float = _LEVEL) -> Interval:
    """Returns the percentile interval of replicates, widened to hold the value."""
    low, high = np.quantile(replicates, [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, min(value, float(low)), max(value, float(high)))


def metric_interval(
    name: str,
    labels: Labels,
    models: Sequence[Floats],
    positive: int = 1,
    groups: Groups | None = None,
    *,
    repeats: int = REPEATS,
    level: float = _LEVEL,
    seed: int = 0,
) -> Interval:
    """Computes the interval of a metric's mean over models of one recipe, such as one for each seed.

    It says how the mean would vary with the samples; the models stay the same. Where every replicate of a share is 0 or
    1, it is the interval of Clopper & Pearson 1934 for as many samples as the smallest class has.

    Labels, groups and what follows are as in `bootstrap`; name, positive class and errors as in `compute_metric`. Each
    model has probabilities (N, C).
    """
    # Checked and computed as everywhere else; the replicates may then be computed in a quicker way.
    exact = [compute_metric(name, labels, probabilities, positive) for probabilities in models]
    stacked: Floats = np.stack([np.asarray(probabilities, dtype=np.float64) for probabilities in models], axis=1)

    if name in ("accuracy", "log_loss"):  # means over samples, which need computing once
        stacked = _score_samples(name, labels, stacked)

    def metric(labels: Labels, rows: Floats) -> float:
        if rows.ndim == 2:
            return float(rows.mean())
        if name == "auc":
            return rank_auc(labels, rows, positive)
        return float(np.mean([compute_metric(name, labels, rows[:, k], positive) for k in range(len(exact))]))

    if (few := leave_groups_out(name, metric, labels, stacked, groups, level)) is not None:
        return few
    drawn = bootstrap(metric, labels, stacked, groups, repeats=repeats, level=level, seed=seed)
    return widen_edge(name, drawn, labels, level)


def widen_edge(name: str, interval: Interval, labels: Labels, level: float = _LEVEL) -> Interval:
    """Returns an interval of a share of 0 or 1 with a width, which replicates that are all the same do not give.

    By the smallest class: see `metric_interval`. Other intervals, and those of metrics that are no share, stay.
    """
    if interval.high - interval.low > _ROUNDING or name in _NO_SHARES:
        return interval
    count = int(np.unique(np.asarray(labels), return_counts=True)[1].min())
    return _reach_from_edge(interval.value, count, level)


def _reach_from_edge(value: float, count: int, level: float) -> Interval:
    """Computes the interval of a share of 0 or 1, of which every replicate is the same.

    That of Clopper & Pearson 1934 for as many samples as the smallest class has: `count` of `count` are right, and so
    would be in one of forty draws if the share were no more than its lower end.
    """
    reach = 1 - float(((1 - level) / 2) ** (1 / count))
    return Interval(value, max(0.0, value - reach), min(1.0, value + reach))


def leave_groups_out(
    name: str,
    metric: Callable[[Labels, Floats], float],
    labels: Labels,
    probabilities: Floats,
    groups: Groups | None,
    level: float = _LEVEL,
) -> Interval | None:
    """Computes the interval of a metric on few groups, by leaving out each in turn, with Student's t.

    `name` is that of the metric, and all else as for `bootstrap`. Returns None where there are no groups or enough of
    them for the bootstrap, or where a class is in one group alone.
    """
    codes = number_groups(groups)
    if codes is None or codes.max() + 1 >= _FEW_GROUPS:
        return None
    labels = np.asarray(labels)
    values = []
    for code in range(codes.max() + 1):
        kept = codes != code
        if len(np.unique(labels[kept])) < len(np.unique(labels)):
            return None
        values.append(metric(labels[kept], probabilities[kept]))
    is_share = name not in _NO_SHARES
    return _reach_around(metric(labels, probabilities), np.array(values), level, is_share=is_share)


def _reach_around(value: float, values: Floats, level: float, *, is_share: bool) -> Interval:
    """Computes Student's interval from what a metric is without each of G groups; of a share on the logit scale."""
    from scipy.special import expit, logit
    from scipy.stats import t

    count = len(values)
    error = float(np.sqrt((count - 1) / count * np.square(values - values.mean()).sum()))
    if error <= _ROUNDING and is_share:
        return _reach_from_edge(value, count, level)
    reach = float(t.ppf((1 + level) / 2, count - 1)) * error
    if not is_share:
        return Interval(value, max(0.0, value - reach), value + reach)
    inner = float(np.clip(value, _EDGE, 1 - _EDGE))
    low, high = expit(logit(inner) + np.array([-1, 1]) * reach / (inner * (1 - inner)))
    return Interval(value, min(value, float(low)), max(value, float(high)))


def describe_method(groups: Groups | None = None) -> str:
    """Names the method of `metric_interval` on samples with these groups, and its papers, in one line."""
    if (codes := number_groups(groups)) is not None and codes.max() + 1 < _FEW_GROUPS:
        return (
            f"{_LEVEL:.0%} interval by leaving out each of {codes.max() + 1} groups, Student's t (Efron & Tibshirani "
            "1993); so few groups say little"
        )
    return describe_bootstrap(groups)


def describe_methods(groups: Mapping[str, Groups | None]) -> str:
    """Names the method of several splits' intervals, of which `groups` has the name and the groups, in one line."""
    methods = {name: describe_method(each) for name, each in groups.items()}
    if len(set(methods.values())) == 1:
        return next(iter(methods.values()))
    return "; ".join(f"{name}: {method}" for name, method in methods.items())


def describe_bootstrap(groups: Groups | None = None) -> str:
    """Names the method of `bootstrap` on samples with these groups, and its papers, in one line."""
    how = "samples drawn within each class (Robin et al. 2011)"
    if groups is not None and number_groups(groups) is not None:
        how = f"whole groups drawn, {len(np.unique(groups))} of them (Field & Welsh 2007)"
    elif groups is not None and len(groups) > 1 and len(np.unique(groups)) == 1:
        how += "; all of them are of one group, and how another one would do is not in it"
    papers = "Efron & Tibshirani 1993, Carpenter & Bithell 2000"
    return f"{_LEVEL:.0%} percentile bootstrap, {REPEATS} replicates, {how}; {papers}"


def number_groups(groups: Groups | None) -> NDArray[np.int64] | None:
    """Numbers the groups, from 0; None where there is one alone, or where each sample is its own."""
    names, codes = np.unique([] if groups is None else np.asarray(groups), return_inverse=True)
    return codes if 1 < len(names) < len(codes) else None


def _draw_within_classes(labels: Labels, random: np.random.Generator) -> Iterator[NDArray[np.int64]]:
    """Draws the row numbers of one replicate after the other, without end: as many of each class as there are."""
    members = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    while True:
        yield np.concatenate([rows[random.integers(len(rows), size=len(rows))] for rows in members])


def _draw_whole_groups(
    labels: Labels, codes: NDArray[np.int64], random: np.random.Generator
) -> Iterator[NDArray[np.int64]]:
    """Draws row numbers without end: as many groups as there are, of more than one class where the labels are."""
    order, sizes = np.argsort(codes, kind="stable"), np.bincount(codes)
    starts, several = np.cumsum(sizes) - sizes, np.ptp(labels) > 0
    while True:
        chosen = random.integers(len(sizes), size=len(sizes))
        lengths = sizes[chosen]
        firsts = np.repeat(starts[chosen] - (np.cumsum(lengths) - lengths), lengths)
        rows = order[firsts + np.arange(lengths.sum())]
        if not several or np.ptp(labels[rows]):
            yield rows


def _score_samples(name: str, labels: Labels, probabilities: Floats) -> Floats:
    """Computes what each sample adds to a mean over samples: (N, models) of (N, models, C)."""
    if name == "accuracy":
        return np.asarray(probabilities.argmax(axis=2) == np.asarray(labels)[:, None], dtype=np.float64)
    normal = probabilities / probabilities.sum(axis=2, keepdims=True)
    of_truth = np.take_along_axis(normal, np.asarray(labels)[:, None, None], axis=2)[..., 0]
    eps = np.finfo(np.float64).eps
    return np.asarray(-np.log(of_truth.clip(eps, 1 - eps)))  # clipped as scikit-learn does


def rank_auc(labels: Labels, probabilities: Floats, positive: int) -> float:
    """Computes the AUC of (N, models, C) probabilities, mean over models, as `metrics.compute_metric` defines it.

    By ranks (Mann & Whitney 1947), all models at once: several times quicker than a ROC curve for each.
    """
    chosen = [positive] if probabilities.shape[-1] == 2 else np.unique(labels).tolist()
    areas = []
    for label in chosen:
        truth = labels == label
        hits, misses = int(truth.sum()), int((~truth).sum())
        ranks = rankdata(probabilities[..., label], axis=0)[truth].sum(axis=0)
        areas.append((ranks - hits * (hits + 1) / 2) / (hits * misses))
    return float(np.mean(areas))
