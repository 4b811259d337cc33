import numpy as np
import pytest

from automl.errors import DataError
from automl.features.label_checks import LabelIssue, find_label_issues, predict_out_of_fold


def test_what_reaches_another_classs_threshold_is_likely_of_that():
    labels = np.array([0, 0, 0, 0, 1, 1, 1, 1])
    of_one = np.array([0.1, 0.2, 0.1, 0.8, 0.9, 0.8, 0.7, 0.05])  # thresholds: 0.7 of class 0, 0.6125 of class 1
    issues = find_label_issues(np.stack([1 - of_one, of_one], axis=1), labels)
    assert [(issue.row, issue.label, issue.suggested) for issue in issues] == [(7, 1, 0), (3, 0, 1)]
    assert [issue.margin for issue in issues] == pytest.approx([0.9, 0.6])
    assert [issue.probability for issue in issues] == pytest.approx([0.95, 0.8])


def test_thresholds_are_those_of_each_class():
    """Where a model never gives class 1 more than .4, a half is much."""
    labels = np.array([0, 0, 0, 0, 1, 1])
    of_one = np.array([0.1, 0.1, 0.1, 0.5, 0.4, 0.4])
    (issue,) = find_label_issues(np.stack([1 - of_one, of_one], axis=1), labels)
    assert issue == LabelIssue(3, 0, 1, pytest.approx(0.5), pytest.approx(0.0))


def test_of_several_classes_the_likeliest_is_suggested():
    probabilities = np.eye(3)[[0, 0, 1, 1, 2, 2]] * 0.6 + 0.4 / 3
    probabilities[1] = [0.02, 0.88, 0.10]
    (issue,) = find_label_issues(probabilities, np.array([0, 0, 1, 1, 2, 2]))
    assert (issue.row, issue.suggested) == (1, 1)


def test_a_class_without_samples_is_never_suggested():
    probabilities = np.array([[0.1, 0.1, 0.8], [0.8, 0.1, 0.1], [0.2, 0.7, 0.1], [0.2, 0.7, 0.1]])
    assert all(issue.suggested < 2 for issue in find_label_issues(probabilities, np.array([0, 0, 1, 1])))


def test_right_labels_of_a_sure_model_are_no_issues():
    labels = np.arange(30) % 3
    assert find_label_issues(np.eye(3)[labels], labels) == []


def test_shapes_that_do_not_fit_are_an_error():
    with pytest.raises(DataError, match=r"got \(4, 2\) and \(3,\)"):
        find_label_issues(np.zeros((4, 2)), np.zeros(3, dtype=int))


@pytest.fixture
def clusters():
    """Features of three classes, two samples a group; labels, of which twenty of 400 are wrong; which those are."""
    rng = np.random.default_rng(0)
    groups = np.arange(400) // 2
    true = groups % 3
    features = rng.normal(size=(3, 40))[true] * 1.5 + rng.normal(size=(400, 40))
    wrong = rng.choice(400, 20, replace=False)
    labels = true.copy()
    labels[wrong] = (labels[wrong] + 1) % 3
    return features.astype(np.float32), labels, groups, wrong


def test_labels_that_were_made_wrong_are_named(clusters):
    features, labels, groups, wrong = clusters
    named = [issue.row for issue in find_label_issues(predict_out_of_fold(features, labels, groups, 3), labels)]
    assert np.isin(wrong, named).mean() >= 0.75  # those below the mean of their true class are not named
    assert np.isin(named, wrong).mean() >= 0.9


def test_no_sample_is_predicted_by_what_learned_from_its_group():
    """Features that only name the group say nothing of other groups."""
    rng = np.random.default_rng(0)
    groups, labels = np.arange(200) // 4, (np.arange(200) // 4 % 2)
    features = rng.normal(size=(50, 30))[groups].astype(np.float32)
    probabilities = predict_out_of_fold(features, rng.permuted(labels.reshape(50, 4)[:, 0])[groups], groups, 2)
    assert 0.25 < (probabilities.argmax(axis=1) == labels).mean() < 0.75
    assert probabilities.sum(axis=1) == pytest.approx(np.ones(200))
