"""Metrics of parts of the samples: by the values of a column, and of the groups' means.

The rule for a column. A value whose samples are of several classes is measured on its own samples. A value whose
samples are all of one class (each generator makes fakes only) cannot be: by a metric that compares classes, its samples
are compared with all samples of the other classes, whatever their value. So the fakes of each generator are told from
all real samples, and the real samples of each source from all fakes. Metrics such as accuracy need no other class, and
are of the value's own samples. Samples without a value are one part, called "(empty)".
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from automl.evaluation.measures import COMPARES_CLASSES, Measured, Value, measure_metrics

Labels = NDArray[np.integer[Any]]
Floats = NDArray[np.floating[Any]]

EMPTY = "(empty)"
"""What samples without a value are called."""


@dataclass(frozen=True)
class Part:
    """The samples of one value of a column, by several models."""

    value: str
    counts: dict[str, int]
    """Its samples by class."""
    compared_with: str
    """What they are compared with beside each other: `all 400 of class real`; "" for nothing."""
    metrics: tuple[Value | None, ...]
    """Of each model; None where it cannot be computed."""
    accuracies: tuple[float, ...]
    """Of each model, on the value's own samples."""


@dataclass(frozen=True)
class GroupMeans:
    """A metric over means: each group's samples of one class count as one."""

    means: int
    groups: int
    metrics: tuple[Value | None, ...]
    """Of each model."""


def split_by_value(
    values: NDArray[Any],
    labels: Labels,
    models: Sequence[Floats],
    classes: Sequence[str],
    positive: int,
    groups: NDArray[Any] | None,
    metric: str,
) -> list[Part]:
    """Measures the samples of each value (N,) of a column, for models' probabilities (N, C) each; sorted by value."""
    parts = []
    for value in sorted(set(values.tolist())):
        own = values == value
        present = np.unique(labels[own])
        rows, beside = own, ""
        if metric in COMPARES_CLASSES and len(present) == 1:
            others = labels != present[0]
            rows = own | others
            if others.any():
                names = " and ".join(classes[k] for k in np.unique(labels[others]))
                beside = f"all {int(others.sum())} of class {names}"
        some = groups[rows] if groups is not None else None
        parts.append(
            Part(
                value or EMPTY,
                {classes[k]: int((labels[own] == k).sum()) for k in present},
                beside,
                tuple(_take_value(measure_metrics(labels[rows], p[rows], positive, some, [metric])) for p in models),
                tuple(float((p[own].argmax(axis=1) == labels[own]).mean()) for p in models),
            )
        )
    return parts


def measure_groups(
    labels: Labels, models: Sequence[Floats], positive: int, groups: NDArray[Any], metric: str
) -> GroupMeans:
    """Measures the means of the groups (N,): of a group with samples of several classes, a mean of each."""
    keys = np.stack([np.unique(groups, return_inverse=True)[1], labels], axis=1)
    pairs, number = np.unique(keys, axis=0, return_inverse=True)
    counts = np.bincount(number.ravel())
    values = []
    for probabilities in models:
        sums = np.zeros((len(pairs), probabilities.shape[1]))
        np.add.at(sums, number.ravel(), probabilities)
        means = sums / counts[:, None]
        values.append(_take_value(measure_metrics(pairs[:, 1], means, positive, pairs[:, 0], [metric])))
    return GroupMeans(len(pairs), len(np.unique(pairs[:, 0])), tuple(values))


def _take_value(measured: Measured) -> Value | None:
    """Returns the one metric, if it could be computed."""
    return next(iter(measured.values.values()), None)
