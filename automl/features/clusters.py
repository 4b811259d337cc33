"""Clusters of samples that look alike to a pretrained network.

A validation split drawn at random resembles training: each of its samples has neighbours there. Whole clusters of
features held out are unlike training, as a test set from elsewhere may be. K-means on normalised features (Lloyd 1982,
https://scikit-learn.org/stable/modules/clustering.html#k-means).
"""

import numpy as np
from numpy.typing import NDArray

from automl.backbones.layers import PRE_LOGITS
from automl.backbones.weights import Weights
from automl.data.loader import ImageData
from automl.features.feature_cache import build_features
from automl.recipe import Recipe
from automl.reporter import Progress

_LEAST = 4
"""Samples of a cluster, on average at least."""


def cluster_samples(
    recipe: Recipe,
    weights: Weights | None,
    data: ImageData,
    device: str,
    clusters: int,
    *,
    seed: int = 0,
    progress: Progress = lambda _done, _total: None,
) -> NDArray[np.str_]:
    """Clusters the training and validation samples by what a frozen network sees in them.

    Args:
        recipe: Names the backbone, and says how images are cut, normalised and sized.
        weights: Where its pretrained weights are.
        data: The samples; of a clip the mean over its images counts.
        device: Where features are computed.
        clusters: How many; fewer where there are few samples.
        seed: Of the first centres.
        progress: Called while features are computed, with (images done, images in all).

    Returns:
        Of each sample of the data set, (N,) str, the name of its cluster: `cluster 3`; "" in the holdout and where
        nothing is seen.

    Raises:
        AutomlError: As `build_features` raises.
    """
    from sklearn.cluster import KMeans

    features = build_features(recipe, weights, data, "train+validation", device, progress=progress)
    columns = next(layer.columns for layer in features.layers if layer.name == PRE_LOGITS)
    rows, means = features.average_images(columns)
    means /= np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-9)
    count = max(2, min(clusters, len(rows) // _LEAST))
    labels = KMeans(count, n_init=4, random_state=seed % 2**32).fit_predict(means)
    names = np.full(len(data.samples.samples), "", dtype="<U16")
    names[rows] = [f"cluster {label}" for label in labels]
    return names
