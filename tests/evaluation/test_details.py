import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from automl.evaluation.details import count_confusion, describe_classes, list_mistakes, trace_roc

LABELS = np.array([0, 0, 1, 1, 1, 2])
PROBABILITIES = np.array(
    [[0.8, 0.1, 0.1], [0.3, 0.6, 0.1], [0.1, 0.8, 0.1], [0.7, 0.2, 0.1], [0.2, 0.7, 0.1], [0.05, 0.9, 0.05]]
)
CLASSES = ("a", "b", "c", "d")


def test_each_class():
    a, b, c, d = describe_classes(LABELS, np.pad(PROBABILITIES, [(0, 0), (0, 1)]), CLASSES)
    assert (a.precision, a.recall, a.f1, a.support) == (0.5, 0.5, 0.5, 2)
    assert (b.precision, b.recall, b.support) == (0.5, pytest.approx(2 / 3), 3)
    assert b.auc == pytest.approx(roc_auc_score(LABELS == 1, PROBABILITIES[:, 1]))
    assert (c.precision, c.recall, c.f1, c.support) == (None, 0, 0, 1)  # never predicted
    assert (d.precision, d.recall, d.f1, d.support, d.auc) == (None, None, None, 0, None)  # never there


def test_the_confusion_matrix_has_the_truth_in_rows():
    assert count_confusion(LABELS, PROBABILITIES) == [[1, 1, 0], [1, 2, 0], [0, 1, 0]]


def test_the_most_confident_mistakes_come_first():
    found = list_mistakes(LABELS, PROBABILITIES, CLASSES, [f"{k}.png" for k in range(6)])
    assert [(one.row, one.path, one.label, one.predicted, one.score) for one in found] == [
        (5, "5.png", "c", "b", 0.9),
        (3, "3.png", "b", "a", 0.7),
        (1, "1.png", "a", "b", 0.6),
    ]
    many = np.tile(PROBABILITIES, (20, 1))
    assert len(list_mistakes(np.tile(LABELS, 20), many, CLASSES, ["x"] * 120)) == 20


def test_the_curve_is_short_and_keeps_its_ends():
    random = np.random.default_rng(0)
    truth = np.arange(5000) % 2 == 1
    curve = trace_roc(truth, random.normal(size=5000) + truth)
    assert len(curve.fpr) <= 500
    assert (curve.fpr[0], curve.tpr[0], curve.fpr[-1], curve.tpr[-1]) == (0, 0, 1, 1)
    assert sum(rate < 0.05 for rate in curve.fpr) > 100  # many where false positives are few
    assert trace_roc(np.ones(4, bool), np.arange(4.0)) is None
