import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, logit
from scipy.stats import beta, norm, t

from automl.errors import DataError
from automl.spec import METRICS
from automl.training.intervals import bootstrap, describe_bootstrap, describe_method, describe_methods, metric_interval
from automl.training.metrics import compute_metric


def binormal(n, distance=1.0, seed=0):
    """n of each of two classes, whose scores lie `distance` standard deviations apart: labels, probabilities."""
    random = np.random.default_rng(seed)
    labels = np.repeat([0, 1], n)
    positive = norm.cdf(random.normal(size=2 * n) + distance * labels)
    return labels, np.stack([1 - positive, positive], axis=1)


def accuracy(labels, probabilities):
    return float(np.mean(probabilities.argmax(axis=1) == labels))


@given(st.integers(2, 40), st.integers(0, 10**6), st.sampled_from(METRICS), st.booleans())
@settings(max_examples=30)
def test_the_interval_holds_the_value(n, seed, name, grouped):
    labels, probabilities = binormal(n, seed=seed)
    groups = np.random.default_rng(seed).integers(0, 5, 2 * n) if grouped else None
    found = metric_interval(name, labels, [probabilities], groups=groups, repeats=20, seed=seed)
    assert found.value == pytest.approx(compute_metric(name, labels, probabilities), abs=1e-12)
    assert found.low <= found.value <= found.high


@pytest.mark.parametrize("name", ["auc", "accuracy", "log_loss"])
@pytest.mark.parametrize("classes", [2, 4])
def test_the_quick_metrics_are_those_of_scikit_learn(name, classes):
    random = np.random.default_rng(1)
    labels = random.integers(0, classes, 60)
    models = [random.dirichlet(np.ones(classes), 60).round(1) for _ in range(3)]  # rounded: many ties
    found = metric_interval(name, labels, models, positive=0, repeats=2)
    assert found.value == pytest.approx(
        np.mean([compute_metric(name, labels, model, 0) for model in models]), abs=1e-12
    )


def test_more_samples_make_it_narrower_and_the_seed_makes_it_the_same():
    widths = []
    for n in (20, 80, 320):
        found = metric_interval("auc", *_one(n), repeats=300)
        widths.append(found.high - found.low)
    assert widths[0] > 1.25 * widths[1] > 1.5 * widths[2]
    assert metric_interval("auc", *_one(20), repeats=50, seed=1) == metric_interval(
        "auc", *_one(20), repeats=50, seed=1
    )
    assert metric_interval("auc", *_one(20), repeats=50, seed=1) != metric_interval(
        "auc", *_one(20), repeats=50, seed=2
    )


def _one(n):
    labels, probabilities = binormal(n)
    return labels, [probabilities]


def test_it_covers_the_true_auc_about_as_often_as_it_says():
    true = norm.cdf(1 / np.sqrt(2))
    intervals = []
    for seed in range(50):
        labels, probabilities = binormal(60, seed=seed)
        intervals.append(metric_interval("auc", labels, [probabilities], repeats=150, level=0.9))
    covered = np.mean([found.low <= true <= found.high for found in intervals])
    assert 0.8 <= covered <= 0.98


def test_samples_of_a_group_count_as_one():
    labels, probabilities = binormal(50)
    alone = bootstrap(accuracy, labels, probabilities, repeats=400)
    often = np.repeat(np.arange(100), 9)
    together = bootstrap(accuracy, labels[often], probabilities[often], often, repeats=400)
    apart = bootstrap(accuracy, labels[often], probabilities[often], repeats=400)
    width = alone.high - alone.low
    assert together.high - together.low == pytest.approx(width, rel=0.25)
    assert apart.high - apart.low < width / 2


@pytest.mark.parametrize("groups", [None, np.array([f"/data/{k}.png" for k in range(10)])], ids=["none", "own"])
def test_each_class_is_drawn_as_often_as_it_is_there(groups):
    labels = np.array([0] * 7 + [1] * 3)
    seen = []
    bootstrap(lambda y, _: seen.append(tuple(np.bincount(y))) or 0.0, labels, np.zeros((10, 2)), groups, repeats=20)
    assert set(seen) == {(7, 3)}


def test_whole_groups_are_drawn_and_a_class_is_never_missing():
    labels, groups = np.array([0, 0, 0, 1]), np.array(["a", "a", "a", "b"])
    seen = []

    def metric(y, rows):
        seen.append(sorted(rows.tolist()))
        return 0.0

    bootstrap(metric, labels, np.arange(4), groups, repeats=10)
    assert seen == [[0, 1, 2, 3]] * 11  # two of a, or two of b, would lack a class


def test_mistakes():
    labels, probabilities = binormal(5)
    with pytest.raises(DataError, match="all 5 samples are of class 0"):
        metric_interval("auc", labels[:5], [probabilities[:5]])
    assert (
        metric_interval("accuracy", labels[:5], [probabilities[:5]], groups=np.array(list("aabbb")), repeats=9).low >= 0
    )
    with pytest.raises(ValueError, match="10 labels, 9 predictions"):
        bootstrap(accuracy, labels, probabilities[1:])
    for wrong in ({"repeats": 0}, {"level": 1.0}):
        with pytest.raises(ValueError, match="repeats"):
            bootstrap(accuracy, labels, probabilities, **wrong)


def test_two_thousand_replicates_of_ten_thousand_samples_take_seconds():
    labels, probabilities = binormal(5000)
    began = time.process_time()
    metric_interval("auc", labels, [probabilities], repeats=100)
    assert time.process_time() - began < 3  # a twentieth; about .15 on an idle machine


def test_the_method_is_named():
    assert "within each class (Robin et al. 2011)" in describe_method()
    assert "leaving out each of 2 groups, Student's t" in describe_method(np.array(["a", "a", "b"]))
    assert "2 of them (Field & Welsh 2007)" in describe_bootstrap(np.array(["a", "a", "b"]))
    assert "30 of them (Field & Welsh 2007)" in describe_method(np.repeat(np.arange(30), 2))
    assert "95%" in describe_method()


@pytest.mark.slow
def test_few_groups_are_left_out_in_turn():
    """Of groups that differ, as photographs do, the bootstrap holds the true value far too rarely."""
    covered = {"auc": 0, "bootstrap": 0}
    true, rounds = norm.cdf(1 / np.sqrt(1 + 0.5**2) / np.sqrt(2)), 60
    for seed in range(rounds):
        random = np.random.default_rng(seed)
        groups = np.repeat(np.arange(5), 20)
        labels = np.tile([0, 1], 50)
        shift = random.normal(scale=0.6, size=5)[groups] * (2 * labels - 1)  # how easy a group is
        scores = norm.cdf(random.normal(size=100) + labels + shift)
        probabilities = np.stack([1 - scores, scores], axis=1)
        few = metric_interval("auc", labels, [probabilities], groups=groups)
        drawn = bootstrap(lambda y, p: compute_metric("auc", y, p), labels, probabilities, groups, repeats=100)
        covered["auc"] += few.low <= true <= few.high
        covered["bootstrap"] += drawn.low <= true <= drawn.high
    assert covered["auc"] / rounds >= 0.88
    assert covered["bootstrap"] < covered["auc"]


def test_an_interval_of_few_groups_is_that_of_the_textbook():
    values = np.array([1.0, 0.0, 1.0, 1.0, 1.0, 0.0, 1.0, 1.0])  # of one sample each group, the mean's standard error
    labels, groups = np.zeros(16, int), np.repeat(np.arange(8), 2)
    labels[1::2] = 1
    right = np.repeat(values, 2)
    probabilities = np.where(labels[:, None] == np.array([0, 1]), right[:, None], 1 - right[:, None])
    found = metric_interval("accuracy", labels, [probabilities], groups=groups)
    error = values.std(ddof=1) / np.sqrt(8)
    reach = t.ppf(0.975, 7) * error / (0.75 * 0.25)
    assert found.value == 0.75
    assert (found.low, found.high) == pytest.approx(tuple(expit(logit(0.75) + np.array([-reach, reach]))))


def test_a_class_in_one_group_alone_leaves_the_bootstrap():
    labels, probabilities = binormal(6)
    groups = np.array([0] * 3 + [1] * 3 + [2] * 6)  # all of class 1 are in group 2
    found = metric_interval("auc", labels, [probabilities], groups=groups, repeats=50)
    assert found == metric_interval("auc", labels, [probabilities], groups=groups, repeats=50)
    assert found.low <= found.value <= found.high


@pytest.mark.parametrize("groups", [None, np.array([0, 0, 1, 1, 2, 2])], ids=["samples", "groups"])
def test_a_perfect_score_on_few_samples_has_an_interval(groups):
    labels = np.array([0, 1, 0, 1, 0, 1])
    probabilities = np.stack([1 - labels, labels], axis=1).astype(float)
    found = metric_interval("auc", labels, [probabilities], groups=groups, repeats=50)
    assert (found.value, found.high) == (1.0, 1.0)
    assert found.low == pytest.approx(0.025 ** (1 / 3))  # three of three, by Clopper & Pearson
    assert beta.ppf(0.025, 3, 1) == pytest.approx(found.low)


def test_the_methods_of_two_splits_are_named_once_or_each():
    alone, few = np.arange(50), np.repeat(np.arange(3), 20)
    assert describe_methods({"validation": alone, "holdout": alone}) == describe_method(alone)
    assert describe_methods({"validation": few, "holdout": alone}) == (
        f"validation: {describe_method(few)}; holdout: {describe_method(alone)}"
    )


def test_that_all_samples_are_of_one_group_is_part_of_the_description():
    assert "all of them are of one group" in describe_method(np.repeat(7, 20))
    assert "of one group" not in describe_method(np.arange(20))
    assert "of one group" not in describe_method()
