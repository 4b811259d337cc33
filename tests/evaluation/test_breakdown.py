import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from automl.evaluation.breakdown import EMPTY, measure_groups, split_by_value
from tests.fixtures.predictions import predictions

CLASSES = ("real", "fake")


def test_fakes_of_each_generator_are_told_from_all_reals():
    labels, probabilities = predictions(n=90)
    values = np.array(["", "gan", "", "diffusion"] * 22 + ["", "gan"])  # reals have none
    parts = split_by_value(values, labels, [probabilities, 1 - probabilities], CLASSES, 1, None, "auc")
    assert [part.value for part in parts] == [EMPTY, "diffusion", "gan"]
    gan = parts[2]
    rows = (labels == 0) | (values == "gan")
    wanted = roc_auc_score(labels[rows], probabilities[rows, 1])
    assert [value.value for value in gan.metrics] == pytest.approx([wanted, 1 - wanted])
    assert gan.metrics[0].low < wanted < gan.metrics[0].high
    assert gan.counts == {"fake": 23}
    assert gan.compared_with == "all 45 of class real"
    assert gan.accuracies[0] == pytest.approx((probabilities[values == "gan", 1] > 0.5).mean())
    assert parts[0].metrics[0].value == pytest.approx(roc_auc_score(labels, probabilities[:, 1]))


def test_a_value_of_both_classes_is_its_own():
    labels, probabilities = predictions(n=60)
    values = np.where(np.arange(60) < 40, "c23", "c40")
    one, other = split_by_value(values, labels, [probabilities], CLASSES, 1, None, "auc")
    assert (one.compared_with, other.compared_with) == ("", "")
    assert other.metrics[0].value == pytest.approx(roc_auc_score(labels[40:], probabilities[40:, 1]))
    assert other.counts == {"real": 10, "fake": 10}


def test_accuracy_needs_no_other_class_and_three_samples_have_no_interval():
    labels, probabilities = predictions(n=60)
    values = np.where(np.arange(60) < 57, np.where(labels == 0, "photos", "gan"), "few")
    few, gan, _ = split_by_value(values, labels, [probabilities], CLASSES, 1, None, "accuracy")
    assert gan.compared_with == ""
    assert gan.metrics[0].value == gan.accuracies[0]
    assert few.metrics[0].low is None


def test_where_all_samples_are_of_one_class():
    labels, probabilities = predictions(n=20)
    rows = labels == 1
    (part,) = split_by_value(np.array(["gan"] * 10), labels[rows], [probabilities[rows]], CLASSES, 1, None, "auc")
    assert part.metrics == (None,)
    assert part.compared_with == ""


def test_each_group_counts_once_a_class():
    labels = np.array([0, 0, 1, 1, 0, 1])
    positive = np.array([0.1, 0.5, 0.2, 0.6, 0.45, 0.9])
    groups = np.array(["a", "a", "a", "a", "b", "b"])
    found = measure_groups(labels, [np.stack([1 - positive, positive], axis=1)], 1, groups, "auc")
    # means: real a .3, fake a .4, real b .45, fake b .9
    assert (found.means, found.groups) == (4, 2)
    assert found.metrics[0].value == pytest.approx(0.75)
    assert found.metrics[0].low is None
