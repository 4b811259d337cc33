"""From the scores of a clip's images to the score of the clip: samples are clips, not frames."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from automl.views.parameters import Aggregate, Maximum, TopShare, TrimmedMean

Floats = NDArray[np.floating[Any]]


def aggregate(how: Aggregate, probabilities: Floats, positive: int) -> NDArray[np.float64]:
    """The score of one clip.

    Args:
        how: The recipe's `aggregate`.
        probabilities: Of the clip's images, (K, C), K at least 1.
        positive: The positive class, where there are two: `max` and `top` look for the images that are most of it.

    Returns:
        (C,) float64, sums to 1. Of more than two classes each is aggregated by itself, and the whole made to sum to 1.
    """
    values = np.asarray(probabilities, dtype=np.float64)
    if len(values) == 1:
        return np.array(values[0])
    if values.shape[1] == 2:
        score = float(_columns(how, values[:, [positive]])[0])
        return np.array([score, 1 - score] if positive == 0 else [1 - score, score])
    every = _columns(how, values)
    return np.asarray(every / every.sum(), dtype=np.float64)


def clip_scores(
    how: Aggregate, probabilities: Floats, counts: NDArray[np.integer[Any]], positive: int, prior: Floats
) -> NDArray[np.float64]:
    """The scores of clips.

    Args:
        how: The recipe's `aggregate`.
        probabilities: Of all images, (Σ counts, C), clip after clip.
        counts: Images of each clip, (N,); some may have none.
        positive: The positive class, where there are two.
        prior: (C,): the score of a clip without an image.

    Returns:
        (N, C) float64.
    """
    if (counts == 1).all():
        return np.asarray(probabilities, dtype=np.float64)
    ends = np.cumsum(counts)
    parts = [probabilities[end - count : end] for end, count in zip(ends, counts, strict=True)]
    scores = [aggregate(how, part, positive) if len(part) else np.asarray(prior, np.float64) for part in parts]
    return np.stack(scores)


def _columns(how: Aggregate, values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Aggregates each column of (K, C) by itself."""
    images = len(values)
    match how:
        case Maximum():
            found = values.max(axis=0)
        case TopShare(share=share):
            found = np.sort(values, axis=0)[-max(1, int(np.ceil(share * images - 1e-9))) :].mean(axis=0)
        case TrimmedMean(trim=trim):
            cut = int(trim * images)  # trim is less than a half: one image at least is left
            found = np.sort(values, axis=0)[cut : images - cut].mean(axis=0)
        case _:
            found = values.mean(axis=0)
    return np.asarray(found, dtype=np.float64)
