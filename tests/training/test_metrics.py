import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from automl.errors import DataError, SpecError
from automl.spec import METRICS
from automl.training.metrics import METRICS as REGISTRY
from automl.training.metrics import all_metrics, compute_metric, default_metric, metric_direction, metric_sign


def predictions(seed, classes=2, size=60, skill=1.0):
    rng = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(classes), rng.integers(classes, size=size - classes)])
    logits = rng.normal(size=(size, classes)) + skill * np.eye(classes)[labels]
    odds = np.exp(logits)
    return labels, odds / odds.sum(1, keepdims=True)


def perfect(classes):
    labels = np.arange(20) % classes
    return labels, np.eye(classes)[labels]


@settings(deadline=None)
@given(seed=st.integers(0, 10_000), positive=st.sampled_from([0, 1]))
def test_binary_metrics_are_scikit_learns(seed, positive):
    labels, p = predictions(seed)
    truth, hard = labels == positive, p.argmax(1)
    found = all_metrics(labels, p, positive)
    assert found["auc"] == pytest.approx(sk.roc_auc_score(truth, p[:, positive]))
    assert found["accuracy"] == pytest.approx(sk.accuracy_score(labels, hard))
    assert found["balanced_accuracy"] == pytest.approx(sk.balanced_accuracy_score(labels, hard))
    assert found["f1"] == pytest.approx(sk.f1_score(labels, hard, pos_label=positive))
    assert found["log_loss"] == pytest.approx(sk.log_loss(labels, p))


@pytest.mark.slow
@settings(deadline=None)
@given(seed=st.integers(0, 10_000), classes=st.integers(3, 6))
def test_multi_class_metrics_are_scikit_learns(seed, classes):
    labels, p = predictions(seed, classes)
    hard = p.argmax(1)
    found = all_metrics(labels, p)
    assert found["auc"] == pytest.approx(sk.roc_auc_score(labels, p, multi_class="ovr"))
    assert found["balanced_accuracy"] == pytest.approx(sk.balanced_accuracy_score(labels, hard))
    assert found["f1"] == pytest.approx(sk.f1_score(labels, hard, average="macro"))
    assert found["log_loss"] == pytest.approx(sk.log_loss(labels, p))


@settings(deadline=None)
@given(seed=st.integers(0, 10_000), classes=st.integers(2, 5), limit=st.sampled_from([1e-3, 0.05, 0.3]))
def test_tpr_at_fpr_is_the_best_threshold_by_counting(seed, classes, limit):
    labels, p = predictions(seed, classes)

    def by_counting(k):
        own, other = p[labels == k, k], p[labels != k, k]
        return max([(own >= t).mean() for t in p[:, k] if (other >= t).mean() <= limit], default=0.0)

    expected = by_counting(1) if classes == 2 else np.mean([by_counting(k) for k in range(classes)])
    assert compute_metric("tpr_at_fpr", labels, p, 1, fpr=limit) == pytest.approx(expected)


@settings(deadline=None)
@given(seed=st.integers(0, 10_000), skill=st.floats(-3, 3))
def test_eer_is_where_the_error_rates_cross(seed, skill):
    labels, p = predictions(seed, skill=skill)
    fpr, tpr, _ = sk.roc_curve(labels, p[:, 1], drop_intermediate=False)
    along = np.linspace(0, len(fpr) - 1, 20_001)  # dense points on the ROC curve, its vertical pieces included
    x, y = (np.interp(along, np.arange(len(fpr)), values) for values in (fpr, tpr))
    assert compute_metric("eer", labels, p, 1) == pytest.approx(x[np.abs(1 - y - x).argmin()], abs=1e-3)


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("name", METRICS)
def test_perfect_predictions_get_the_best_value(name, classes):
    best = 1.0 if metric_direction(name) == "maximize" else 0.0
    assert compute_metric(name, *perfect(classes)) == pytest.approx(best, abs=1e-9)


def test_eer_of_reversed_and_of_constant_scores():
    labels, p = perfect(2)
    assert compute_metric("eer", labels, 1 - p) == pytest.approx(1.0)
    assert compute_metric("eer", labels, np.full_like(p, 0.5)) == pytest.approx(0.5)
    assert compute_metric("tpr_at_fpr", labels, np.full_like(p, 0.5)) == 0


@pytest.mark.parametrize("name", METRICS)
def test_swapping_the_classes_changes_nothing(name):
    labels, p = predictions(3)
    assert compute_metric(name, labels, p, 1) == pytest.approx(compute_metric(name, 1 - labels, p[:, ::-1], 0))


@pytest.mark.parametrize("name", METRICS)
def test_fp16_probabilities_are_close_and_warn_of_nothing(name):
    labels, p = predictions(5, classes=3)
    assert compute_metric(name, labels, p.astype(np.float16)) == pytest.approx(
        compute_metric(name, labels, p), abs=0.05
    )


@pytest.mark.parametrize("name", METRICS)
def test_a_class_missing_from_the_labels_is_left_out(name):
    labels, p = predictions(1, classes=3)
    kept = labels != 2
    assert np.isfinite(compute_metric(name, labels[kept], p[kept]))
    wide = np.column_stack([perfect(2)[1], np.zeros(20)])
    best = 1.0 if metric_direction(name) == "maximize" else 0.0
    assert compute_metric(name, perfect(2)[0], wide) == pytest.approx(best, abs=1e-9)


@pytest.mark.parametrize("name", ["auc", "tpr_at_fpr", "eer"])
def test_one_class_cannot_be_ranked(name):
    with pytest.raises(DataError, match="all 3 samples are of class 1"):
        compute_metric(name, np.array([1, 1, 1]), np.full((3, 2), 0.5))


@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", METRICS)
def test_broken_probabilities_are_divergence(name, broken):
    labels, p = predictions(0)
    p[7, 1] = broken
    with pytest.raises(FloatingPointError, match="1 of 60 predictions"):
        compute_metric(name, labels, p)


def test_zero_probability_of_the_truth_is_finite():
    assert np.isfinite(compute_metric("log_loss", np.array([0, 1]), np.array([[0.0, 1.0], [0.0, 1.0]])))


def test_bad_arguments_are_named():
    with pytest.raises(SpecError, match=r"'roc'.*balanced_accuracy"):
        metric_direction("roc")
    with pytest.raises(SpecError, match="'roc'"):
        compute_metric("roc", *perfect(2))
    with pytest.raises(DataError, match="no samples"):
        compute_metric("auc", np.zeros(0, int), np.zeros((0, 2)))
    with pytest.raises(ValueError, match=r"\(3,\), \(2, 2\)"):
        compute_metric("auc", np.zeros(3, int), np.zeros((2, 2)))


def test_the_spec_names_every_metric():
    assert tuple(REGISTRY) == METRICS


def test_directions_and_defaults():
    assert {name for name in METRICS if metric_direction(name) == "minimize"} == {"log_loss", "eer"}
    assert {name for name in METRICS if metric_sign(name) == -1} == {"log_loss", "eer"}
    assert default_metric(2) == "auc"
    assert default_metric(3) == "accuracy"
