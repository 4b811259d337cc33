"""From the scores of a clip's images to the score of the clip: samples are clips, not frames."""

from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from automl.schema import Part

Floats = NDArray[np.floating[Any]]


class BaseAggregate(Part):
    """How the scores of a clip's images become the score of the clip."""

    name: str

    def combine_columns(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Combines each column of (K, C) by itself."""
        raise NotImplementedError(f"the aggregate {self.name} combines nothing")


class Mean(BaseAggregate):
    """The mean over the images."""

    name: Literal["mean"] = "mean"

    def combine_columns(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Takes the mean of each column."""
        return np.asarray(values.mean(axis=0))


class Maximum(BaseAggregate):
    """The image that is most of the positive class: one forged face is enough for a forged clip."""

    name: Literal["max"] = "max"

    def combine_columns(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Takes the maximum of each column."""
        return np.asarray(values.max(axis=0))


class TrimmedMean(BaseAggregate):
    """The mean without the share `trim` of the images at each end, rounded down; never of none."""

    name: Literal["trimmed_mean"] = "trimmed_mean"
    trim: Annotated[float, Field(gt=0, lt=0.5)] = 0.2

    def combine_columns(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Takes the mean of each column's middle."""
        cut = int(self.trim * len(values))  # trim is less than a half: one image at least is left
        return np.asarray(np.sort(values, axis=0)[cut : len(values) - cut].mean(axis=0))


class TopShare(BaseAggregate):
    """The mean of the share `share` of the images that are most of the positive class, rounded up."""

    name: Literal["top"] = "top"
    share: Annotated[float, Field(gt=0, le=1)] = 0.25

    def combine_columns(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Takes the mean of each column's largest values."""
        top = max(1, int(np.ceil(self.share * len(values) - 1e-9)))
        return np.asarray(np.sort(values, axis=0)[-top:].mean(axis=0))


Aggregate = Annotated[Mean | Maximum | TrimmedMean | TopShare, Field(discriminator="name")]


def aggregate_scores(how: Aggregate, probabilities: Floats, positive: int) -> NDArray[np.float64]:
    """Computes the score of a clip, (C,) float64 of sum 1, from the probabilities (K, C) of its images, K at least 1.

    Of two classes, `max` and `top` look for the images that are most of the `positive` one. Of more, each is aggregated
    by itself, and the whole made to sum to 1.
    """
    values = np.asarray(probabilities, dtype=np.float64)
    if len(values) == 1:
        return np.array(values[0])
    if values.shape[1] == 2:
        score = float(how.combine_columns(values[:, [positive]])[0])
        return np.array([score, 1 - score] if positive == 0 else [1 - score, score])
    every = how.combine_columns(values)
    return np.asarray(every / every.sum(), dtype=np.float64)


def score_clips(
    how: Aggregate, probabilities: Floats, counts: NDArray[np.integer[Any]], positive: int, prior: Floats
) -> NDArray[np.float64]:
    """Computes the scores of clips, (N, C) float64.

    `probabilities` (Σ counts, C) are those of all images, clip after clip; `counts` (N,) the images of each clip. One
    without an image gets `prior` (C,).
    """
    if (counts == 1).all():
        return np.asarray(probabilities, dtype=np.float64)
    ends = np.cumsum(counts)
    parts = [probabilities[end - count : end] for end, count in zip(ends, counts, strict=True)]
    scores = [aggregate_scores(how, part, positive) if len(part) else np.asarray(prior, np.float64) for part in parts]
    return np.stack(scores)
