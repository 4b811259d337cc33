"""How well a linear probe and nearest neighbours separate classes by frozen features.

The probe is multinomial logistic regression with an L2 penalty on standardised features, the measure of frozen features
since Alain & Bengio 2016 (arXiv:1610.01644). Its weights in terms of the raw features can be a classifier's first ones
(LP-FT, Kumar et al. 2022, arXiv:2202.10054). Nearest neighbours vote by cosine (Wu et al. 2018, arXiv:1805.01978).

Features of a network are strongly correlated, which is slow for L-BFGS: it is run in coordinates in which the loss is
about as curved in every direction, and then needs 7 to 9 iterations where scikit-learn's needs 81 to 165 on 100,000
samples of 1,536 features (`studies/benchmarks/feature_probe.py`, penalties .1 and .01). Two shortcuts keep
cross-validation fast. It looks at `_MOST_ROWS` samples at most; and their features are rotated once to their principal
axes, of which there are no more than samples: an L2 penalty does not see a rotation, so nothing is lost.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold
from torch import Tensor

from automl.errors import DataError
from automl.features.extraction import FeatureLayer
from automl.training.metrics import compute_metric, default_metric

Floats = NDArray[np.floating[Any]]
Integers = NDArray[np.integer[Any]]

ALL_LAYERS = "all layers"

STRENGTHS = (0.01, 0.1, 1.0, 10.0)
"""L2 penalties that are tried, relative to the number of features (see `fit_head`)."""

_NEIGHBOURS = (5, 20)
_TEMPERATURE = 0.07
"""Of the votes of neighbours (Wu et al. 2018)."""
_FOLDS = 5
_MOST_ROWS = 3000
"""Samples that cross-validation looks at, so that it takes seconds however many there are."""
_WIDE = 2048
"""Of more features, principal axes are computed from as many samples; of fewer, from four samples a feature."""
_BLOCK = 1024


@dataclass(frozen=True)
class ProbeHead:
    """A linear classifier of raw features: logits are `features @ weight.T + bias`.

    Attributes:
        weight: (classes, D) float32.
        bias: (classes,) float32.
        strength: The L2 penalty it was trained with.
    """

    weight: Floats
    bias: Floats
    strength: float

    def predict_probabilities(self, features: Floats) -> Floats:
        """Returns the probabilities (N, classes) float64 of features (N, D)."""
        logits = np.asarray(features, dtype=np.float32) @ self.weight.T + self.bias
        return _softmax(torch.from_numpy(logits))


@dataclass(frozen=True)
class LayerScore:
    """How well the features of one layer, or of all of them, tell the classes apart, on samples left out.

    Attributes:
        layer: The layer's name, or `ALL_LAYERS`.
        score: AUC for two classes, else accuracy; the mean over folds.
        standard_error: Of that mean.
        strength: The best L2 penalty, at which the score is; so that it is a little too good, alike for all layers.
        knn_score: The same of the nearest neighbours.
        neighbours: How many of them were best.
    """

    layer: str
    score: float
    standard_error: float
    strength: float
    knn_score: float
    neighbours: int


def fit_head(features: Floats, labels: Integers, classes: int, strength: float) -> ProbeHead:
    """Trains a linear head.

    It minimises the sum of the samples' cross entropies plus `strength · D / 2` times the squared weights of the
    standardised features, so that the same strength suits few features and many.

    Args:
        features: (N, D), any float dtype.
        labels: (N,) int, below `classes`.
        classes: Number of classes; one without samples gets a low logit.
        strength: Of the L2 penalty.

    Raises:
        DataError: If there are fewer than two samples, or features and labels do not fit.
    """
    _check_shapes(features, labels)
    z, mean, scale = _standardise(features)
    some = _choose_rows(len(z), _WIDE if z.shape[1] > _WIDE else max(_WIDE, 4 * z.shape[1]))
    axes, variances = _find_axes(z[some])
    weight, bias = _fit_weights(z, labels, classes, strength * z.shape[1], axes, variances)
    weight = weight / scale
    return ProbeHead(weight.numpy(), (bias - weight @ mean).numpy(), strength)


def score_layers(
    features: Floats,
    labels: Integers,
    groups: NDArray[Any],
    layers: Sequence[FeatureLayer],
    classes: int,
    positive: int = 1,
    *,
    seed: int = 0,
) -> list[LayerScore]:
    """Scores each layer and all of them together by cross-validation, in the order of `layers`, `ALL_LAYERS` last.

    Args:
        features: (N, D), any float dtype.
        labels: (N,) int.
        groups: What each sample belongs to (N,); the samples of a group are in one fold.
        layers: Which columns are whose.
        classes: Number of classes.
        positive: The positive class, where there are two.
        seed: Of the folds, and of the samples that are looked at where there are many.

    Raises:
        DataError: If there are too few samples, or too few groups of a class, for two folds.
    """
    _check_shapes(features, labels)
    rows = _choose_rows(len(labels), _MOST_ROWS, seed)
    chosen, labels = _standardise(features[rows])[0], labels[rows]
    folds = split_folds(labels, groups[rows], seed=seed)
    parts = [(layer.name, layer.columns) for layer in layers]
    if len(parts) > 1:
        parts.append((ALL_LAYERS, slice(None)))
    scores = []
    for name, columns in parts:
        z = chosen[:, columns]
        penalty = z.shape[1]
        axes, variances = _find_axes(z)
        z = z @ axes  # (N, min(N, D))
        judge = _Judge(labels, folds, classes, positive)
        probes = {s: judge.score(_probe_folds(z, labels, folds, classes, s * penalty, variances)) for s in STRENGTHS}
        strength = max(probes, key=lambda s: probes[s][0])
        votes = _vote_neighbours(z, labels, folds, classes)
        neighbours = {k: judge.score(probabilities)[0] for k, probabilities in votes.items()}
        best = max(neighbours, key=neighbours.__getitem__)
        scores.append(LayerScore(name, *probes[strength], strength, neighbours[best], best))
    return scores


def predict_left_out(features: Floats, labels: Integers, folds: Integers, classes: int) -> dict[float, Floats]:
    """Predicts each sample by linear heads that were trained on the other folds, with each of `STRENGTHS`.

    As `fit_head` trains them, but that all samples' features are standardised and rotated once; that needs no labels.

    Args:
        features: (N, D), any float dtype.
        labels: (N,) int, below `classes`.
        folds: In which fold each sample is left out, (N,) int; see `split_folds`.
        classes: Number of classes.

    Returns:
        Probabilities (N, classes) float64 by the strength of the L2 penalty.

    Raises:
        DataError: If features and labels do not fit.
    """
    _check_shapes(features, labels)
    z = _standardise(features)[0]
    penalty = z.shape[1]
    axes, variances = _find_axes(z)
    z = z @ axes
    return {s: _probe_folds(z, labels, folds, classes, s * penalty, variances) for s in STRENGTHS}


def split_folds(labels: Integers, groups: NDArray[Any], folds: int = _FOLDS, *, seed: int = 0) -> Integers:
    """Gives each sample the number of the fold in which it is left out, (N,) int64.

    Folds are stratified by class, and the samples of a group stay together. There are fewer folds where a class has
    fewer groups.

    Raises:
        DataError: If a class has fewer than two groups, or there is one class only.
    """
    present = np.unique(labels)
    if len(present) < 2:
        raise DataError(f"a probe compares classes, but all {len(labels)} samples are of one")
    least = min(len(np.unique(groups[labels == label])) for label in present)
    if least < 2:
        raise DataError("a probe needs samples of two groups in each class (two samples, where there are no groups)")
    alone = len(np.unique(groups)) == len(groups)  # then without groups, because a loop over them is slow
    kind = StratifiedKFold if alone else StratifiedGroupKFold
    splitter = kind(min(folds, least), shuffle=True, random_state=seed)
    numbers = np.zeros(len(labels), dtype=np.int64)
    for number, (_, left_out) in enumerate(splitter.split(labels, labels, None if alone else groups)):
        numbers[left_out] = number
    return numbers


@dataclass(frozen=True)
class _Judge:
    """Scores predictions fold by fold."""

    labels: Integers
    folds: Integers
    classes: int
    positive: int

    def score(self, probabilities: Floats) -> tuple[float, float]:
        """Returns the mean score over the folds in which it is defined, and its standard error."""
        metric, values = default_metric(self.classes), []
        for fold in np.unique(self.folds):
            rows = self.folds == fold
            if metric == "auc" and len(np.unique(self.labels[rows])) < 2:  # whole groups can leave one class alone
                continue
            values.append(compute_metric(metric, self.labels[rows], probabilities[rows], self.positive))
        if not values:
            raise DataError("in no fold are samples of both classes: too few groups for a probe")
        error = float(np.std(values, ddof=1)) / len(values) ** 0.5 if len(values) > 1 else float("nan")
        return float(np.mean(values)), error


# --- the probe ----------------------------------------------------------------------------------------------------


def _probe_folds(
    z: Tensor, labels: Integers, folds: Integers, classes: int, penalty: float, variances: Tensor
) -> Floats:
    """Predicts each sample by a probe trained on the other folds: probabilities (N, classes)."""
    probabilities = np.zeros((len(labels), classes))
    for fold in np.unique(folds):
        out = folds == fold
        inside = torch.from_numpy(~out)
        weight, bias = _fit_weights(z[inside], labels[~out], classes, penalty, None, variances)
        probabilities[out] = _softmax(z[~inside] @ weight.T + bias)
    return probabilities


def _fit_weights(
    z: Tensor, labels: Integers, classes: int, penalty: float, axes: Tensor | None, variances: Tensor
) -> tuple[Tensor, Tensor]:
    """Fits weights (classes, D) and biases (classes,) of standardised features (N, D) by L-BFGS.

    The weights are `u @ curvature^-½`. The curvature is taken as that of equal probabilities of two classes, a quarter
    of the features' covariance (a bound: Böhning 1992), plus that of the penalty. `axes` (D, M) are the principal ones,
    with the `variances` (M,) along them; None: the features' own.
    """
    count, targets = len(z), torch.nn.functional.one_hot(torch.from_numpy(labels).long(), classes).float()
    decay = penalty / count
    along, across = (variances / 4 + decay).rsqrt(), decay**-0.5

    def precondition(u: Tensor) -> Tensor:
        """Multiplies with the inverse root of the curvature, which is symmetric."""
        return u * along if axes is None else across * u + ((u @ axes) * (along - across)) @ axes.T

    def compute_loss(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        """Computes the mean loss and its gradient."""
        weight, bias = unpack_weights(flat)
        logs = (z @ weight.T + bias).log_softmax(1)
        loss = decay / 2 * float(weight.square().sum(dtype=torch.float64))
        loss -= float((targets * logs).sum(dtype=torch.float64)) / count
        error = (logs.exp() - targets) / count  # (N, classes)
        gradient = precondition(error.T @ z + decay * weight)
        return loss, torch.cat([gradient.flatten(), error.sum(0)]).double().numpy()

    def unpack_weights(flat: NDArray[np.float64]) -> tuple[Tensor, Tensor]:
        """Returns weights and biases from the optimizer's vector."""
        values = torch.from_numpy(flat).float()
        return precondition(values[:-classes].view(classes, -1)), values[-classes:]

    start = np.zeros(classes * (z.shape[1] + 1))
    # Tolerances that single precision reaches; the AUC has stood still long before.
    options = {"maxiter": 100, "gtol": 1e-4, "ftol": 1e-6}
    return unpack_weights(minimize(compute_loss, start, jac=True, method="L-BFGS-B", options=options).x)


def _find_axes(z: Tensor) -> tuple[Tensor, Tensor]:
    """Finds the principal axes (D, M) of standardised features (N, D), and the variances (M,) along them.

    They come from the smaller of the two Gram matrices, features by features or samples by samples.
    """
    wide = len(z) < z.shape[1]
    values, vectors = torch.linalg.eigh(z @ z.T if wide else z.T @ z)
    kept = values > 1e-6 * values[-1]  # the others are rounding, or features that are constant
    values, vectors = values[kept], vectors[:, kept]
    return (z.T @ vectors) / values.sqrt() if wide else vectors, values / len(z)


# --- nearest neighbours -------------------------------------------------------------------------------------------


def _vote_neighbours(z: Tensor, labels: Integers, folds: Integers, classes: int) -> dict[int, Floats]:
    """Predicts each sample by its nearest neighbours in other folds: probabilities (N, classes) for each number."""
    unit = torch.nn.functional.normalize(z, dim=1)
    targets = torch.nn.functional.one_hot(torch.from_numpy(labels).long(), classes).double()
    fold = torch.from_numpy(folds)
    most = min(max(_NEIGHBOURS), int(min((folds != number).sum() for number in np.unique(folds))))
    votes: dict[int, list[Tensor]] = {count: [] for count in _NEIGHBOURS}
    for start in range(0, len(unit), _BLOCK):  # (block, N) similarities at a time
        block = slice(start, start + _BLOCK)
        near = (unit[block] @ unit.T).masked_fill_(fold[block, None] == fold, -torch.inf)
        cosines, nearest = near.topk(most, dim=1)
        weights = (cosines.double() / _TEMPERATURE).exp()[..., None]  # (block, most, 1)
        for count in _NEIGHBOURS:
            vote = (weights * targets[nearest])[:, :count].sum(1)
            votes[count].append(vote / vote.sum(1, keepdim=True))
    return {count: torch.cat(parts).numpy() for count, parts in votes.items()}


# --- features -----------------------------------------------------------------------------------------------------


def _check_shapes(features: Floats, labels: Integers) -> None:
    """Raises DataError if features and labels make no sense."""
    if features.ndim != 2 or labels.shape != features.shape[:1] or len(features) < 2:
        shapes = f"got {features.shape} and {labels.shape}"
        raise DataError(f"a probe needs features (N, D) and labels (N,) of two samples or more, {shapes}")


def _standardise(features: Floats) -> tuple[Tensor, Tensor, Tensor]:
    """Returns standardised features (N, D) float32, and what they were: their means and deviations (D,).

    The deviation of a constant one is 1.
    """
    x = torch.from_numpy(np.array(features, dtype=np.float32))  # a copy, of which nothing else is made
    deviation, mean = torch.std_mean(x, dim=0, correction=0)
    deviation = torch.where(deviation > 1e-6 * mean.abs(), deviation, 1.0)
    return x.sub_(mean).div_(deviation), mean, deviation


def _choose_rows(count: int, most: int, seed: int = 0) -> NDArray[np.int64]:
    """Draws up to `most` of the row numbers, ascending."""
    rows = np.arange(count) if count <= most else np.random.default_rng(seed).choice(count, most, replace=False)
    return np.sort(rows)


def _softmax(logits: Tensor) -> Floats:
    """Returns probabilities (N, classes) float64."""
    return np.asarray(logits.double().softmax(dim=1).numpy())
