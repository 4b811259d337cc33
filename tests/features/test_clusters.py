"""Clusters of samples that look alike."""

import numpy as np

from automl.features.clusters import cluster_features


def test_samples_that_look_alike_are_of_one_cluster():
    features = np.repeat(np.eye(3, dtype=np.float32), 8, axis=0) * np.linspace(1, 5, 24, dtype=np.float32)[:, None]
    labels = cluster_features(features, np.arange(24).astype(str), 3, seed=0)
    assert [len(set(part)) for part in np.split(labels, 3)] == [1, 1, 1]
    assert len(set(labels)) == 3


def test_a_group_is_of_one_cluster_whatever_its_samples_look_like():
    random = np.random.default_rng(0)
    features = random.normal(size=(80, 6)).astype(np.float32)
    groups = np.repeat(np.arange(16), 5).astype(str)
    labels = cluster_features(features, groups, 20, seed=0)
    assert all(len(set(labels[groups == group])) == 1 for group in groups)
    assert len(set(labels)) == 4  # four groups to a cluster
