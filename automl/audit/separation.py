"""How well one property alone tells the classes apart, and how sure that is.

The AUC is of predictions for samples that the predictor has not seen: folds of whole groups; a shallow tree for a
number (within a leaf, the larger or the smaller numbers first, as the classes have them), the shares of the classes for
a category. With more than two classes it is the mean of one class against the rest. A property that predicts nothing
has an AUC of about .5, whatever its values.

**Interval.** Newcombe 2006 ("Confidence intervals for an effect size measure based on the Mann-Whitney statistic. Part
2: asymptotic methods and evaluation", Statistics in Medicine 25, method 5): the variance of Hanley & McNeil 1982 at the
bound and not at the estimate, as Wilson's interval of a share. Bootstrap, DeLong and Hanley-McNeil at the estimate have
no width at an AUC of 1, which is what matters most here. Samples of one group count as one
sample. With several classes, the bounds are the means of the classes' bounds, each of a level at which all hold
together. The level is divided by the properties tried (Bonferroni): in a set without any difference, the chance that
one of the intervals lies above .5 is at most 1 in 40.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq
from scipy.stats import norm, rankdata
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold
from sklearn.tree import DecisionTreeClassifier

from automl.audit.properties import Value
from automl.training.intervals import Interval

_FOLDS = 5
_DEPTH, _LEAF = 3, 0.02  # of the tree: up to eight ranges of values, each of 2 % of the samples or more
_WITHIN_LEAF = 1e-3  # of a probability: orders what falls into one leaf of the tree, and no more
_LEVEL = 0.95  # of all intervals together
_PRIOR = 1.0  # samples of each class that a category is taken to have had before any was seen

Labels = npt.NDArray[np.int64]
Scores = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Folds:
    """Samples that are divided into folds, none of which cuts a group in two."""

    labels: Labels
    """(N,), each from 0 to the number of classes."""
    counts: Labels
    """(classes,): of each class, the groups with samples of it; without groups, the samples."""
    parts: tuple[tuple[Labels, Labels], ...]
    """Positions of the samples that are learnt from, and of those that are then predicted."""


def divide_samples(labels: Labels, groups: Sequence[str], classes: int) -> Folds | None:
    """Divides samples into up to five folds of whole groups; None where a class has fewer than two groups."""
    codes = np.unique(np.asarray(groups), return_inverse=True)[1]
    pairs = np.unique(np.stack([codes, labels], axis=1), axis=0)
    counts = np.bincount(pairs[:, 1], minlength=classes)
    if counts.min() < 2:
        return None
    grouped = len(np.unique(codes)) < len(codes)
    kind = StratifiedGroupKFold if grouped else StratifiedKFold
    splitter = kind(n_splits=int(min(_FOLDS, counts.min())), shuffle=True, random_state=0)
    return Folds(labels, counts, tuple(splitter.split(np.zeros((len(labels), 1)), labels, codes if grouped else None)))


def measure_separation(values: Sequence[Value], is_number: bool, folds: Folds, tried: int) -> Interval:
    """Computes the cross-validated AUC of predicting the classes from one property, and its interval.

    Args:
        values: One a sample; None where it has none.
        is_number: Whether they are numbers; else they are categories.
        folds: The samples' labels, divided.
        tried: How many properties are tried in all, for which the interval is corrected.
    """
    predict: Callable[[Any, Labels, Any, int], Scores] = _predict_number if is_number else _predict_category
    column: Any = _enter_numbers(values) if is_number else np.unique(list(map(str, values)), return_inverse=True)[1]
    classes = len(folds.counts)
    scores = np.zeros((len(column), classes))
    for learnt, predicted in folds.parts:
        scores[predicted] = predict(column[learnt], folds.labels[learnt], column[predicted], classes)
    compared = [1] if classes == 2 else list(range(classes))
    several = tried * len(compared)
    total = int(folds.counts.sum())
    intervals = []
    for label in compared:
        area = float(roc_auc_score(folds.labels == label, scores[:, label]))
        own = int(folds.counts[label])
        intervals.append(find_interval(area, own, total - own, 1 - (1 - _LEVEL) / several))
    return Interval(*(float(np.mean([getattr(one, name) for one in intervals])) for name in ("value", "low", "high")))


def find_interval(area: float, positives: int, negatives: int, level: float) -> Interval:
    """Computes Newcombe's interval (see the module's text) of an AUC that was measured on so many samples."""
    deviations = float(norm.ppf((1 + level) / 2))

    def find_bound(area: float) -> float:
        """Finds the lower bound."""

        def exceed(bound: float) -> float:
            """Returns by how much the AUC lies further above a bound than the bound lets it."""
            pairs = (positives + negatives) / 2 - 1
            spread = 1 + pairs * ((1 - bound) / (2 - bound) + bound / (1 + bound))
            return area - bound - deviations * float(np.sqrt(bound * (1 - bound) * spread / (positives * negatives)))

        top = area - 1e-9
        return float(brentq(exceed, 0.0, top)) if top > 0 else 0.0

    return Interval(area, find_bound(area), 1 - find_bound(1 - area))


def _enter_numbers(values: Sequence[Value]) -> Scores:
    """Returns numbers as an array, those that are missing far below the others."""
    column = np.array([np.nan if value is None else float(value) for value in values])
    least, most = np.nanmin(column), np.nanmax(column)
    return np.where(np.isnan(column), least - (most - least) - 1, column)


def _predict_number(learnt: Scores, labels: Labels, wanted: Scores, classes: int) -> Scores:
    """Predicts the classes (N, classes) of some numbers by a shallow tree that learnt from others."""
    leaf = max(2, round(_LEAF * len(learnt)))
    tree: Any = DecisionTreeClassifier(
        max_depth=_DEPTH, min_samples_leaf=leaf, class_weight="balanced", random_state=0
    ).fit(learnt[:, None], labels)
    scores = np.zeros((len(wanted), classes))
    scores[:, tree.classes_] = tree.predict_proba(wanted[:, None])
    ranks, own = rankdata(learnt) / len(learnt), np.eye(classes)[labels]
    trends = np.sign((ranks - ranks.mean()) @ own)  # whether a class has the larger numbers
    positions = np.searchsorted(np.sort(learnt), wanted) / len(learnt)
    return np.asarray(scores + _WITHIN_LEAF * trends * positions[:, None])


def _predict_category(learnt: Labels, labels: Labels, wanted: Labels, classes: int) -> Scores:
    """Predicts the classes (N, classes) of some categories by the shares of the classes among others."""
    counts = np.zeros((int(max(learnt.max(), wanted.max())) + 1, classes))
    np.add.at(counts, (learnt, labels), 1)
    of_class = np.maximum(np.bincount(labels, minlength=classes), 1)
    shares = counts / of_class + _PRIOR / len(labels)  # a category that was not seen has the same for each class
    return np.asarray((shares / shares.sum(axis=1, keepdims=True))[wanted])
