"""Combining the scores of several models into one: their mean, or a fusion of views.

Weights of a mean are chosen greedily: Caruana, Niculescu-Mizil, Crew & Ksikes 2004, "Ensemble selection from libraries
of models" (ICML), section 2: forward selection with replacement (2.1), started with the best models in order (2.2),
ended where nothing improves.

A late fusion makes one score of a clip out of the scores of its views, by a logistic regression. What a view adds is
its evidence: how far its log-odds are from where they mean nothing. Evidence of independent views would simply be added
(naive Bayes). Views of one clip are not independent, so each has a weight, learned on clips that no view was trained
on: stacking (Wolpert 1992, "Stacked generalization"), as detectors of spoofed speech are joined (Brümmer et al. 2007,
"Fusion of heterogeneous speaker recognition systems", IEEE TASLP 15). A view that sees nothing of a clip has no
evidence, so that a clip is scored by the views it has.

Where log-odds mean nothing: a network that predicts the classes' shares in training where it knows nothing is neutral
at their log-odds. Real networks lean to one side (by balanced losses, by self-blending, by chance), which every clip
that they see would be blamed for beside a clip that they do not see. So that point is moved to the middle between the
classes, as far as there are clips to know it by.

Weights are few, but validation splits are small and may be told apart without an error, or by chance the wrong way
round. So the weights are held: never below 0, without which stacking hardly works (Breiman 1996, "Stacked regressions",
Machine Learning 24), and by an L2 penalty, a normal prior of variance 1 (scikit-learn's C = 1) about a half: of views
that nothing is known of, the evidence is added up, carefully. scikit-learn's LogisticRegression has neither. For prior
and penalty to mean the same for all, evidence is in units of what is usual for its view (the root of its mean square):
label smoothing, mixup and focal losses make log-odds small.

In simulations of two to four views joined on 8 and 24 clips, each of the three (the neutral point, the units, the
prior) makes the AUC of new clips up to .05 better than a plain penalty on plain log-odds where it has something to
mend, and costs .006 at most where not. On 100 clips a view that leans is still worth .02, a quiet one .008; the prior
makes no difference any more, but for a view that is truly the wrong way round, which costs .01.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from automl.errors import DataError, SpecError, WeightsError
from automl.models.folder import ENSEMBLE_FILE, FUSION_FILE, ModelFolder, read_json
from automl.training.metrics import compute_metric, metric_sign

Floats = NDArray[np.floating[Any]]

Combiner = Callable[[NDArray[Any]], NDArray[Any]]
"""From the scores of M members for N files, (M, N, classes), NaN where a member sees nothing, to (N, classes)."""

_SMALLEST = 1e-6
"""Probabilities are kept so far from 0 and 1: a softmax in half precision is 0 or 1 long before it is certain."""
_SMALLEST_SCALE = 0.05
"""A view whose probabilities stay within .0125 of a half is not made louder than one that just leaves that band."""
_DOUBT = 8
"""Clips of each class at which the middle between the classes is half believed."""
_EXPECTED = 0.5
"""The weight of a view that nothing is known of."""


# --- means ------------------------------------------------------------------------------------------------------------


def average_members(scores: NDArray[Any], weights: NDArray[Any]) -> NDArray[Any]:
    """Averages over the members that see something in a file; a `Combiner` for given weights (M,)."""
    sees = ~np.isnan(scores[..., 0])  # (M, N)
    shares = np.where(sees, weights[:, None], 0.0)
    shares = np.where(shares.sum(axis=0) > 0, shares, sees)  # only members that count nothing see something
    mean: NDArray[Any] = np.einsum("mn,mnc->nc", shares, np.nan_to_num(scores)) / shares.sum(axis=0)[:, None]
    return mean


def choose_weights(
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
        metric: The metric to be made better.
        positive: The positive class, where there are two.
        size: Models in the ensemble at most, one that is taken twice counted twice.

    Returns:
        A weight for each model; they sum to 1, and models that were left out have 0. On these samples the ensemble is
        never worse than the best model alone.
    """
    models = [np.asarray(probabilities, dtype=np.float64) for probabilities in validation_probabilities]
    shapes = {model.shape for model in models}
    if len(shapes) != 1 or size < 1:
        raise ValueError(
            f"an ensemble needs models of the same samples and classes, and size >= 1; got {shapes}, {size}"
        )
    sign = metric_sign(metric)

    def score(counts: NDArray[np.int64]) -> float:
        mean = sum(count * model for count, model in zip(counts, models, strict=True) if count) / counts.sum()
        return sign * compute_metric(metric, labels, mean, positive)

    steps = np.eye(len(models), dtype=np.int64)
    order = sorted(range(len(models)), key=lambda k: (-score(steps[k]), k))
    # The best model, the two best, the three best, …, whichever is best; the fewer on a tie.
    counts = max((steps[order[:length]].sum(axis=0) for length in range(1, min(len(models), size) + 1)), key=score)
    best = score(counts)
    while counts.sum() < size:
        scores = [score(counts + step) for step in steps]
        if max(scores) <= best:
            break
        best, counts = max(scores), counts + steps[int(np.argmax(scores))]
    return [float(weight) for weight in counts / counts.sum()]


# --- fusions of views ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Fusion:
    """A logistic regression on the evidence of views.

    Attributes:
        weights: How much the evidence of each view counts, in units of `scales`, so that they can be compared; 0 for a
            view that seems to mislead.
        scales: The evidence that is usual for each view, in log-odds.
        neutral: The log-odds of the positive class at which each view means nothing.
        intercept: Log-odds of a clip without any evidence.
    """

    weights: dict[str, float]
    scales: dict[str, float]
    neutral: dict[str, float]
    intercept: float

    def __post_init__(self) -> None:
        if not self.weights or not self.weights.keys() == self.scales.keys() == self.neutral.keys():
            known = ", ".join(str(list(part)) for part in (self.weights, self.scales, self.neutral))
            raise ValueError(f"each view has a weight, a scale and a neutral point, got {known}")
        values = [*self.weights.values(), *self.scales.values(), *self.neutral.values(), self.intercept]
        if not np.isfinite(values).all() or min(self.scales.values()) <= 0 or min(self.weights.values()) < 0:
            raise ValueError(f"all is finite, no weight is below 0, and scales are above 0, got {self}")

    def join_scores(self, scores: Mapping[str, Floats], positive: int = 1) -> NDArray[np.float64]:
        """Joins the scores of the views.

        Args:
            scores: Of each view, (N, 2), NaN where it sees nothing of a clip.
            positive: The positive class.

        Returns:
            (N, 2) float64; of a clip that no view sees, the intercept alone.
        """
        from scipy.special import expit

        evidence = [
            weight / self.scales[view] * np.nan_to_num(_compute_log_odds(scores[view], positive) - self.neutral[view])
            for view, weight in self.weights.items()
        ]
        joined = np.asarray(expit(self.intercept + np.sum(evidence, axis=0)), dtype=np.float64)
        return np.stack([joined, 1 - joined] if positive == 0 else [1 - joined, joined], axis=1)

    def weight_shares(self) -> dict[str, float]:
        """Computes how much each view counts: shares that sum to 1, and are equal where no view counts."""
        total = sum(self.weights.values())
        return {view: weight / total if total else 1 / len(self.weights) for view, weight in self.weights.items()}


def fit_fusion(
    scores: Mapping[str, Floats], labels: NDArray[np.integer[Any]], priors: Mapping[str, float], positive: int = 1
) -> Fusion:
    """Learns the weights of views on clips that none of them was trained on.

    Args:
        scores: Of each view, (N, 2), NaN where it sees nothing of a clip.
        labels: True classes (N,) int.
        priors: The share of the positive class in what each view was trained on.
        positive: The positive class.

    Returns:
        The fusion; of one view it is its calibration. However well V views tell N clips apart, the weights are at most
        √(2 N log 2 + V / 4) away from a half, where the penalty is as large as the loss without any weights.

    Raises:
        SpecError: If there are not two classes.
        DataError: If the clips are of one class only.
    """
    for view, values in scores.items():
        if values.shape != (len(labels), 2):
            raise SpecError(
                f"views are joined for two classes, got scores {values.shape} of {view} for {len(labels)} clips"
            )
    truth = np.asarray(labels) == positive
    if truth.all() or not truth.any():
        raise DataError(f"the weights of views are learned from both classes, but all {len(truth)} clips are of one")
    log_odds = {view: _compute_log_odds(values, positive) for view, values in scores.items()}
    neutral = {view: _find_neutral(odds, truth, priors[view]) for view, odds in log_odds.items()}
    scales = {view: _find_scale(odds - neutral[view]) for view, odds in log_odds.items()}
    evidence = [np.nan_to_num(odds - neutral[view]) / scales[view] for view, odds in log_odds.items()]
    intercept, *weights = _fit_weights(np.stack(evidence, axis=1), truth)
    return Fusion(dict(zip(scores, weights, strict=True)), scales, neutral, intercept)


def _fit_weights(evidence: Floats, truth: NDArray[np.bool_]) -> list[float]:
    """Finds the intercept and the weights (V) that evidence (N, V) and prior make most probable; one optimum exists."""
    from scipy.optimize import minimize
    from scipy.special import expit

    sign = np.where(truth, 1.0, -1.0)

    def loss(values: Floats) -> tuple[float, Floats]:
        margins = sign * (values[0] + evidence @ values[1:])
        pull, off = sign * expit(-margins), values[1:] - _EXPECTED
        slope = np.append(-pull.sum(), off - pull @ evidence)
        return float(np.logaddexp(0, -margins).sum() + np.square(off).sum() / 2), slope

    views = evidence.shape[1]
    bounds = [(None, None), *[(0, None)] * views]
    start = np.array([0.0, *[_EXPECTED] * views])
    best = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds, tol=1e-10).x
    return [float(value) for value in best]


def _compute_log_odds(scores: Floats, positive: int) -> NDArray[np.float64]:
    """Computes the log-odds of the positive class, (N,), from (N, 2) scores; NaN where they are."""
    from scipy.special import logit

    log_odds: NDArray[np.float64] = logit(
        np.asarray(scores, dtype=np.float64)[:, positive].clip(_SMALLEST, 1 - _SMALLEST)
    )
    return log_odds


def _find_neutral(log_odds: Floats, truth: NDArray[np.bool_], prior: float) -> float:
    """Moves the prior's log-odds to the middle between the classes, by what is seen (N,) of each of them."""
    from scipy.special import logit

    start = float(logit(np.clip(prior, _SMALLEST, 1 - _SMALLEST)))
    classes = [log_odds[(truth == wanted) & ~np.isnan(log_odds)] for wanted in (True, False)]
    if not all(map(len, classes)):
        return start
    clips = len(classes) / sum(1 / len(part) for part in classes)  # the harmonic mean: one class may be rare
    middle = float(np.mean([part.mean() for part in classes]))
    return start + clips / (clips + _DOUBT) * (middle - start)


def _find_scale(evidence: Floats) -> float:
    """Computes the root mean square of evidence (N,) where it is not NaN; 1 where there is none."""
    seen = evidence[~np.isnan(evidence)]
    return max(_SMALLEST_SCALE, float(np.sqrt(np.square(seen).mean()))) if len(seen) else 1.0


# --- fusion.json ------------------------------------------------------------------------------------------------------


def read_fusion(path: Path) -> Fusion | None:
    """Reads what joins the scores of an ensemble; None where they are averaged."""
    if not (path / ENSEMBLE_FILE).is_file() or not (path / FUSION_FILE).is_file():
        return None
    fusion: Fusion = read_json(path / FUSION_FILE, Fusion)
    members = read_json(path / ENSEMBLE_FILE, dict[str, float])
    if fusion.weights.keys() != members.keys():
        raise WeightsError(
            f"{path / FUSION_FILE} joins {', '.join(fusion.weights)}, but {ENSEMBLE_FILE} names {', '.join(members)}; "
            "write the folder again: automl ensemble"
        )
    return fusion


def read_combiner(path: Path, members: Sequence[ModelFolder]) -> Combiner | None:
    """Reads how `automl ensemble` joins the scores of a model folder's members; None for any other model.

    Raises:
        WeightsError: If `fusion.json` is damaged, or does not fit the members.
    """
    fusion = read_fusion(path)
    if fusion is None:
        return None
    labels = members[0].labels
    if len(labels.classes) != 2:
        raise WeightsError(f"{path}: fusion.json joins models of two classes, and these have {len(labels.classes)}")
    names = [member.path.name for member in members]
    return lambda scores: fusion.join_scores(dict(zip(names, scores, strict=True)), labels.positive)
