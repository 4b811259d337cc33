from itertools import islice

import numpy as np
import pytest
from sklearn.metrics import brier_score_loss

from automl.evaluation.measures import (
    COMPARES_CLASSES,
    NAMES,
    explain_no_interval,
    measure_metrics,
    score_counts,
    score_curve,
)
from automl.training.intervals import REPEATS, draw_rows, metric_interval
from automl.training.metrics import METRICS, compute_metric
from tests.fixtures.predictions import predictions


@pytest.mark.parametrize("classes", [2, 4])
def test_values_are_those_of_a_search(classes):
    labels, probabilities = predictions(classes=classes)
    found = measure_metrics(labels, probabilities, 1)
    assert set(found.values) == set(NAMES)
    for name in METRICS:
        assert found.values[name].value == compute_metric(name, labels, probabilities, 1)
    at = compute_metric("tpr_at_fpr", labels, probabilities, 1, fpr=0.01)
    assert found.values["tpr_at_fpr_0.01"].value == at
    assert all(each.low <= each.value <= each.high for each in found.values.values())


def test_the_brier_score():
    labels, probabilities = predictions()
    found = measure_metrics(labels, probabilities, 0, names=["brier"]).values["brier"].value
    assert found == pytest.approx(brier_score_loss(labels == 0, probabilities[:, 0]))
    labels, probabilities = np.array([0, 2]), np.array([[0.5, 0.3, 0.2], [0.1, 0.1, 0.8]])
    three = measure_metrics(labels, probabilities, 0, names=["brier"]).values["brier"].value
    assert three == pytest.approx((0.25 + 0.09 + 0.04 + 0.01 + 0.01 + 0.04) / 2)


@pytest.mark.parametrize("name", ["auc", "log_loss"])
@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("size", [2, 6])
def test_intervals_are_those_of_everywhere_else(name, classes, size):
    labels, probabilities = predictions(n=60, classes=classes)
    groups = np.arange(60) // size
    found = measure_metrics(labels, probabilities, 1, groups, [name]).values[name]
    wanted = metric_interval(name, labels, [probabilities], 1, groups)
    assert (found.value, found.low, found.high) == pytest.approx((wanted.value, wanted.low, wanted.high))


def test_of_few_groups_intervals_are_wider_than_the_bootstraps():
    labels, probabilities = predictions(n=60)
    groups = np.arange(60) // 6
    found = measure_metrics(labels, probabilities, 1, groups)
    for name in ("auc", "accuracy", "brier"):
        drawn = np.quantile(found.replicates[name], [0.025, 0.975])
        assert found.values[name].high - found.values[name].low > drawn[1] - drawn[0], name


@pytest.mark.parametrize("decimals", [1, 9])
def test_the_quick_metrics_are_those_of_scikit_learn(decimals):
    for seed in range(20):
        labels, probabilities = predictions(n=50, seed=seed, decimals=decimals)
        curve = score_curve(labels == 1, probabilities[:, 1])
        for name in ("auc", "eer", "tpr_at_fpr"):
            assert curve[name] == pytest.approx(compute_metric(name, labels, probabilities, 1)), name
        confusion = np.zeros((2, 2), int)
        np.add.at(confusion, (labels, probabilities.argmax(axis=1)), 1)
        for name, value in score_counts(confusion, 1).items():
            assert value == pytest.approx(compute_metric(name, labels, probabilities, 1))


def test_replicates_of_two_models_are_paired():
    labels, one = predictions()
    found = measure_metrics(labels, one, 1, names=["accuracy"]).replicates["accuracy"]
    right = (one.argmax(axis=1) == labels).astype(float)
    assert len(found) == REPEATS
    assert found[:3].tolist() == pytest.approx([right[rows].mean() for rows in islice(draw_rows(labels), 3)])


def test_one_class_has_no_auc_and_the_others():
    labels, probabilities = predictions()
    rows = labels == 1
    found = measure_metrics(labels[rows], probabilities[rows], 1)
    assert set(found.missing) == set(COMPARES_CLASSES)
    assert "all 60 samples are of class 1" in found.missing["auc"]
    assert found.values["accuracy"].low is not None


def test_few_samples_have_no_interval():
    labels, probabilities = predictions(n=8)
    assert explain_no_interval(labels, None) == "no intervals: a class has 4 samples, fewer than 5"
    found = measure_metrics(labels, probabilities, 1)
    assert found.values["auc"].low is None
    assert not found.replicates
    labels, probabilities = predictions(n=40)
    assert explain_no_interval(labels, np.arange(40) % 3) == "no intervals: a class has 3 groups, fewer than 5"
    assert explain_no_interval(labels, None) == ""


def test_a_perfect_score_has_an_interval_as_everywhere_else():
    labels = np.tile([0, 1], 20)
    probabilities = np.stack([1 - labels, labels], axis=1) * 0.6 + 0.2
    measured = measure_metrics(labels, probabilities, 1)
    found = measured.values["auc"]
    assert (found.value, found.high) == (1.0, 1.0)
    assert found.low == pytest.approx(0.025 ** (1 / 20))
    assert found.low == pytest.approx(metric_interval("auc", labels, [probabilities]).low)
