import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from automl.errors import DataError
from automl.features.extraction import FeatureLayer
from automl.features.probe import ALL_LAYERS, ProbeHead, fit_head, score_layers, split_folds


def clusters(samples, width, classes=2, apart=1.0, seed=0):
    """Correlated features of odd scales, whose first half of the columns differs between the classes."""
    random = np.random.default_rng(seed)
    labels = np.arange(samples) % classes
    centres = apart * np.random.default_rng(99).standard_normal((classes, width))
    centres[:, width // 2 :] = 0
    x = random.standard_normal((samples, width)) + random.standard_normal((samples, 1)) + centres[labels]
    return (x * np.geomspace(0.01, 100, width) + 50).astype(np.float32), labels


def alone(labels):
    return np.arange(len(labels)).astype(str)


@pytest.mark.parametrize(("samples", "width"), [(300, 12), (60, 200)])
@pytest.mark.parametrize("classes", [2, 4])
def test_the_head_is_scikit_learns(samples, width, classes):
    x, y = clusters(samples, width, classes)
    head = fit_head(x, y, classes, 0.1)
    z = (x - x.mean(0)) / x.std(0)
    # Of two classes, scikit-learn has one weight where a softmax has one and its negative: half the penalty.
    factor = 2 if classes == 2 else 1
    theirs = LogisticRegression(C=factor / (0.1 * width), tol=1e-8, max_iter=5000).fit(z, y)
    assert head.weight.shape == (classes, width)
    assert head.bias.shape == (classes,)
    assert head.weight.dtype == np.float32
    assert np.abs(head.predict_probabilities(x) - theirs.predict_proba(z)).max() < 0.01


def test_the_head_speaks_of_raw_features_and_leaves_constant_ones_alone():
    x, y = clusters(200, 10, apart=3)
    x = np.concatenate([x, np.full((200, 1), 7, np.float32)], axis=1)
    head = fit_head(x, y, 2, 0.01)
    assert np.abs(head.weight[:, -1]).max() == 0
    logits = x @ head.weight.T + head.bias
    assert (logits.argmax(1) == y).mean() > 0.95
    other, truth = clusters(200, 10, apart=3, seed=1)
    other = np.concatenate([other, np.full((200, 1), 7, np.float32)], axis=1)
    assert (head.predict_probabilities(other).argmax(1) == truth).mean() > 0.9


def test_float16_and_read_only_features_are_taken_as_they_are():
    x, y = clusters(100, 8)
    x = (x - 50) / np.geomspace(0.01, 100, 8)
    half = x.astype(np.float16)
    half.flags.writeable = False
    head = fit_head(half, y, 2, 0.1)
    assert np.allclose(head.weight, fit_head(x, y, 2, 0.1).weight, atol=1e-2)


def test_a_class_without_samples_is_improbable():
    x, y = clusters(60, 6)
    assert fit_head(x, y, 3, 0.1).predict_probabilities(x)[:, 2].max() < 0.05


def test_layers_are_scored_apart_and_together():
    x, y = clusters(400, 40, apart=0.4)
    layers = [FeatureLayer("good", 0, 20), FeatureLayer("noise", 20, 40)]
    good, noise, both = score_layers(x, y, alone(y), layers, 2)
    assert [good.layer, noise.layer, both.layer] == ["good", "noise", ALL_LAYERS]
    assert 0.8 < good.score < 1
    assert 0.8 < both.score < 1
    assert 0.4 < noise.score < 0.62
    assert good.knn_score > 0.7
    assert 0 < good.standard_error < 0.05
    assert noise.neighbours in (5, 20)


def test_the_positive_class_may_be_the_first():
    x, y = clusters(200, 10)
    layers = [FeatureLayer("x", 0, 10)]
    (one,), (other,) = (score_layers(x, y, alone(y), layers, 2, positive) for positive in (0, 1))
    assert one.score == pytest.approx(other.score, abs=1e-6)


def test_more_classes_are_scored_by_accuracy():
    x, y = clusters(400, 16, classes=8, apart=0.0)
    (score,) = score_layers(x, y, alone(y), [FeatureLayer("x", 0, 16)], 8)
    assert score.score < 0.25
    assert score.knn_score < 0.25
    x, y = clusters(400, 16, classes=8, apart=4.0)
    (score,) = score_layers(x, y, alone(y), [FeatureLayer("x", 0, 16)], 8)
    assert score.score > 0.95
    assert score.knn_score > 0.95


def test_a_group_that_is_remembered_does_not_help():
    """Ten images of each person, alike, with a label by chance: what is learned of a person says nothing of others."""
    random = np.random.default_rng(0)
    persons = np.repeat(np.arange(60), 10)
    labels = (np.arange(60) % 2)[persons]
    x = (random.standard_normal((60, 30))[persons] + 0.1 * random.standard_normal((600, 30))).astype(np.float32)
    layers = [FeatureLayer("x", 0, 30)]
    (leaking,) = score_layers(x, labels, alone(labels), layers, 2)
    (honest,) = score_layers(x, labels, persons.astype(str), layers, 2)
    assert leaking.score > 0.9
    assert leaking.knn_score > 0.9
    assert honest.score < 0.75
    assert honest.knn_score < 0.75


def test_folds_keep_groups_together_and_are_fewer_where_groups_are():
    labels, groups = np.arange(60) % 2, np.array([str(k // 4) for k in range(60)])
    folds = split_folds(labels, groups)
    assert all(len(set(folds[groups == group])) == 1 for group in set(groups))
    assert set(folds) == {0, 1, 2, 3, 4}
    assert set(split_folds(labels, np.array([str(k % 6) for k in range(60)]))) == {0, 1, 2}
    assert (split_folds(labels, alone(labels)) == split_folds(labels, alone(labels))).all()


def test_too_few_groups_or_classes_are_an_error():
    labels = np.arange(20) % 2
    with pytest.raises(DataError, match="of two groups in each class"):
        split_folds(labels, np.array(["a", "b"])[labels])
    with pytest.raises(DataError, match="all 20 samples are of one"):
        split_folds(np.zeros(20, dtype=int), alone(labels))


@pytest.mark.parametrize(("shape", "labels"), [((10,), 10), ((10, 3), 9), ((1, 3), 1)])
def test_what_does_not_fit_is_an_error(shape, labels):
    x, y = np.zeros(shape, np.float32), np.zeros(labels, dtype=int)
    with pytest.raises(DataError, match=r"features \(N, D\)"):
        fit_head(x, y, 2, 0.1)
    with pytest.raises(DataError, match=r"features \(N, D\)"):
        score_layers(x, y, alone(y), [FeatureLayer("x", 0, 3)], 2)


def test_of_many_samples_some_are_looked_at(monkeypatch):
    monkeypatch.setattr("automl.features.probe._MOST_ROWS", 100)
    x, y = clusters(1000, 10)
    (score,) = score_layers(x, y, alone(y), [FeatureLayer("x", 0, 10)], 2)
    (same,) = score_layers(x, y, alone(y), [FeatureLayer("x", 0, 10)], 2)
    assert score == same
    assert score.score > 0.8


def test_wide_features_are_whitened_by_some_of_the_samples(monkeypatch):
    x, y = clusters(300, 60)
    exact = fit_head(x, y, 2, 0.1)
    monkeypatch.setattr("automl.features.probe._WIDE", 40)
    rough = fit_head(x, y, 2, 0.1)
    assert np.abs(rough.predict_probabilities(x) - exact.predict_probabilities(x)).max() < 0.02


def test_probabilities_sum_to_one():
    head = ProbeHead(np.zeros((3, 2), np.float32), np.array([0, 1, 2], np.float32), 0.1)
    assert head.predict_probabilities(np.ones((4, 2), np.float16)).sum(1) == pytest.approx(np.ones(4))
