"""Labels that are likely wrong, by confident learning.

Northcutt et al. 2021, Confident Learning: Estimating Uncertainty in Dataset Labels (arXiv 1911.00068): a class's
threshold is the mean probability that the samples with its label get for it, from a model that did not learn from them.
A sample that reaches the threshold of another class, and of no other one with a higher probability, is likely of that.

It is a few lines, so that it is no dependency. The package cleanlab 2.9.0 (Apache-2.0; with termcolor 3 MB) works with
the same versions of numpy, pandas and scikit-learn, and its filter `confident_learning` gives the same rows.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from automl.backbones.weights import Weights
from automl.data.dataset import SPLITS
from automl.data.loader import ImageData
from automl.errors import DataError
from automl.features.feature_cache import build_features
from automl.features.probe import predict_left_out, split_folds
from automl.recipe import Recipe
from automl.reporter import Progress

Floats = NDArray[np.floating[Any]]
Integers = NDArray[np.integer[Any]]


@dataclass(frozen=True)
class LabelIssue:
    """A sample whose label is likely wrong.

    Attributes:
        row: Which sample.
        label: The one it has.
        suggested: The one it likely should have.
        probability: Of the suggested label.
        margin: Probability of the suggested label less that of the one it has, -1 to 1; of the likeliest, the largest.
    """

    row: int
    label: int
    suggested: int
    probability: float
    margin: float


def find_label_issues(probabilities: Floats, labels: Integers) -> list[LabelIssue]:
    """Finds samples whose labels are likely wrong, the likeliest first.

    Args:
        probabilities: (N, C) from a model that did not learn from the sample: out of fold, or on the validation split.
        labels: (N,) int, below C.

    Raises:
        DataError: If the shapes do not fit.
    """
    if probabilities.ndim != 2 or labels.shape != probabilities.shape[:1]:
        raise DataError(
            f"probabilities (N, C) and labels (N,) are needed, got {probabilities.shape} and {labels.shape}"
        )
    own = labels[:, None] == np.arange(probabilities.shape[1])  # (N, C)
    thresholds = np.where(own, probabilities, 0).sum(axis=0) / np.maximum(own.sum(axis=0), 1)
    reached = (probabilities >= thresholds) & own.any(axis=0)  # no sample is likely of a class that nobody knows
    suggested = np.where(reached, probabilities, -1).argmax(axis=1)
    rows = np.flatnonzero(reached.any(axis=1) & (suggested != labels))
    likely = probabilities[rows, suggested[rows]]
    margins = likely - probabilities[rows, labels[rows]]
    return [
        LabelIssue(int(rows[k]), int(labels[rows[k]]), int(suggested[rows[k]]), float(likely[k]), float(margins[k]))
        for k in np.argsort(-margins, kind="stable")
    ]


def predict_out_of_fold(
    features: Floats, labels: Integers, groups: NDArray[Any], classes: int, *, seed: int = 0
) -> Floats:
    """Predicts each sample by a linear probe that was trained on the other folds: probabilities (N, classes) float64.

    Of the L2 penalties `automl.features.probe.STRENGTHS`, that with the least cross entropy counts.

    Args:
        features: (N, D), any float dtype, such as frozen ones of a pretrained network.
        labels: (N,) int.
        groups: What each sample belongs to (N,); the samples of a group are in one fold.
        classes: Number of classes.
        seed: Of the folds.

    Raises:
        DataError: If there are too few samples, or too few groups of a class, for two folds.
    """
    folds = split_folds(labels, groups, seed=seed)
    every = predict_left_out(features, labels, folds, classes)
    own = np.arange(len(labels)), labels
    return min(every.values(), key=lambda probabilities: -np.log(np.maximum(probabilities[own], 1e-12)).mean())


def predict_samples(
    recipe: Recipe,
    weights: Weights | None,
    data: ImageData,
    device: str,
    *,
    seed: int = 0,
    progress: Progress = lambda _done, _total: None,
) -> tuple[NDArray[np.int64], Floats]:
    """Predicts the samples of all splits by `predict_out_of_fold` on the features of a frozen network.

    Args:
        recipe: Names the backbone, and says how images are cut, normalised and sized.
        weights: Where its pretrained weights are.
        data: The samples; of a clip the mean over its images counts.
        device: Where features are computed.
        seed: Of the folds.
        progress: Called while features are computed, with (images done, images in all).

    Returns:
        Which samples of the data set were predicted, (N,) int64 ascending, and their probabilities (N, classes).
        Those that show no image are not among them.

    Raises:
        DataError: As `predict_out_of_fold` raises.
        AutomlError: As `build_features` raises.
    """
    features = build_features(recipe, weights, data, "+".join(SPLITS), device, progress=progress)
    rows, means = features.average_images()
    samples = data.samples.samples
    labels, groups = samples["label"].to_numpy(np.int64)[rows], samples["group"].to_numpy(str)[rows]
    return rows, predict_out_of_fold(means, labels, groups, data.classes, seed=seed)
