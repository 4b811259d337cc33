import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from automl.errors import SpecError
from automl.models.combine import choose_weights
from automl.spec import METRICS
from automl.training.metrics import compute_metric, metric_sign


def binary(*positive):
    """Probabilities (N, 2) from those of class 1."""
    values = np.array(positive)
    return np.stack([1 - values, values], axis=1)


def of(weights, models):
    return sum(weight * model for weight, model in zip(weights, models, strict=True))


@given(st.integers(1, 5), st.integers(0, 10**6), st.sampled_from(METRICS), st.sampled_from([2, 3]))
@settings(max_examples=40)
def test_it_is_never_worse_than_the_best_model(count, seed, metric, classes):
    random = np.random.default_rng(seed)
    labels = np.arange(24) % classes
    models = [
        random.dirichlet(np.ones(classes), 24) + 0.3 * random.random() * np.eye(classes)[labels] for _ in range(count)
    ]
    models = [model / model.sum(axis=1, keepdims=True) for model in models]
    weights = choose_weights(models, labels, metric, size=6)
    assert len(weights) == count
    assert sum(weights) == pytest.approx(1)
    assert all(weight == pytest.approx(round(weight * 60) / 60) for weight in weights)  # shares of at most six
    sign = metric_sign(metric)
    singles = [sign * compute_metric(metric, labels, model) for model in models]
    assert sign * compute_metric(metric, labels, of(weights, models)) >= max(singles) - 1e-12


def test_models_that_err_in_different_places_are_joined_and_a_bad_one_is_left_out():
    labels = np.array([0, 0, 1, 1])
    first, second = binary(0.1, 0.7, 0.6, 0.9), binary(0.6, 0.1, 0.9, 0.5)
    backwards = 1 - first
    assert choose_weights([backwards, first, second], labels, "auc") == [0, 0.5, 0.5]


def test_a_model_alone_that_nothing_improves():
    labels = np.array([0, 0, 1, 1])
    assert choose_weights([binary(0.5, 0.4, 0.3, 0.9), binary(0.1, 0.2, 0.8, 0.9)], labels, "auc") == [0, 1]
    assert choose_weights([binary(0.3, 0.4, 0.3, 0.9)], labels, "log_loss") == [1]
    assert choose_weights([binary(0.1, 0.2, 0.8, 0.9)] * 3, labels, "auc") == [1, 0, 0]  # a tie is no improvement


def test_a_model_may_be_taken_more_than_once():
    # the best mix of a constant 0.9 and a constant 0.5, where 4 of 5 samples are positive, is 3 : 1 in log loss
    labels = np.array([1, 1, 1, 1, 0])
    assert choose_weights([binary(*[0.9] * 5), binary(*[0.5] * 5)], labels, "log_loss", size=4) == [0.75, 0.25]
    assert choose_weights([binary(*[0.9] * 5), binary(*[0.5] * 5)], labels, "log_loss", size=1) == [1, 0]


def test_a_smaller_metric_may_be_the_better_one():
    labels = np.array([0, 1])
    sure, wrong = binary(0.1, 0.9), binary(0.9, 0.1)
    assert choose_weights([wrong, sure], labels, "log_loss") == [0, 1]
    assert choose_weights([wrong, sure], labels, "accuracy") == [0, 1]
    assert choose_weights([wrong, sure], labels, "auc", positive=0) == [0, 1]


def test_mistakes():
    labels = np.array([0, 1])
    for models in ([], [binary(0.1, 0.2), binary(0.1, 0.2, 0.3)]):
        with pytest.raises(ValueError, match="same samples"):
            choose_weights(models, labels, "auc")
    with pytest.raises(SpecError, match="no metric 'acc'"):
        choose_weights([binary(0.1, 0.9)], labels, "acc")
