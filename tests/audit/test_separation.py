import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from automl.audit.separation import divide_samples, find_interval, measure_separation

LABELS = np.arange(60) % 2
ALONE = [str(k) for k in range(60)]


def separate(values, labels=LABELS, groups=ALONE, classes=2, tried=1):
    folds = divide_samples(np.asarray(labels), groups, classes)
    return measure_separation(values, not isinstance(values[0], str), folds, tried)


def test_the_interval_is_newcombes():
    # Newcombe 2006, method 5, solved by hand: |.8 - t| = z · sqrt(t(1-t)(1 + 19((1-t)/(2-t) + t/(1+t))) / 400)
    interval = find_interval(0.8, 20, 20, 0.95)
    for bound in (interval.low, interval.high):
        spread = 1 + 19 * ((1 - bound) / (2 - bound) + bound / (1 + bound))
        assert abs(0.8 - bound) == pytest.approx(1.959964 * np.sqrt(bound * (1 - bound) * spread / 400), abs=1e-6)
    assert interval.low < 0.8 < interval.high


def test_at_the_ends_the_interval_has_a_width():
    assert find_interval(1.0, 50, 50, 0.95).low == pytest.approx(0.960, abs=0.001)
    assert find_interval(1.0, 5, 5, 0.95).low == pytest.approx(0.643, abs=0.001)
    assert find_interval(0.0, 50, 50, 0.95).low == 0
    assert find_interval(0.0, 50, 50, 0.95).high == pytest.approx(1 - find_interval(1.0, 50, 50, 0.95).low)


def test_the_interval_covers_the_true_area():
    random, hits = np.random.default_rng(0), 0
    truth = np.repeat([0, 1], 30)
    for _ in range(300):
        scores = random.standard_normal(60) + 1.19 * truth  # area .80
        interval = find_interval(roc_auc_score(truth, scores), 30, 30, 0.95)
        hits += interval.low <= 0.8 <= interval.high
    assert 0.92 <= hits / 300 <= 0.99


def test_numbers_and_categories_that_tell_all():
    assert separate([float(label) for label in LABELS]).value == 1
    assert separate(["a" if label else "b" for label in LABELS]).value == 1
    assert separate([3.0 if label else None for label in LABELS[::-1]], LABELS[::-1]).value == 1


def test_a_range_in_the_middle_is_seen():
    random = np.random.default_rng(0)
    labels = np.arange(200) % 2
    values = np.where(labels, random.uniform(-1, 1, 200), random.choice([-1, 1], 200) * random.uniform(1.1, 2, 200))
    found = separate(values.tolist(), labels, [str(k) for k in range(200)])
    assert found.value > 0.97


def test_values_that_occur_once_tell_nothing():
    assert separate([f"digest {k}" for k in range(60)]).value == 0.5


def test_more_tried_is_a_wider_interval():
    one, many = (separate([float(label) for label in LABELS], tried=tried) for tried in (1, 30))
    assert many.low < one.low < 1


def test_a_group_counts_once_and_is_never_cut():
    labels, groups = np.repeat([0, 1], 60), [str(k // 10) for k in range(120)]  # six groups a class
    values = [float(int(group)) for group in groups]
    apart = separate(labels.astype(float).tolist(), labels, groups)
    assert apart.value == 1
    assert apart.low == pytest.approx(find_interval(1.0, 6, 6, 0.95).low)
    # a category that names the group tells all of a group that was seen, and nothing of another
    named = separate([f"camera {group}" for group in groups], labels, groups)
    assert named.value == 0.5
    assert separate([f"camera {value}" for value in values], labels, [str(k) for k in range(120)]).value > 0.999
    folds = divide_samples(labels, groups, 2)
    for learnt, predicted in folds.parts:
        assert not {groups[k] for k in learnt} & {groups[k] for k in predicted}


def test_several_classes_one_against_the_rest():
    labels = np.arange(90) % 3
    groups = [str(k) for k in range(90)]
    assert separate(labels.astype(float).tolist(), labels, groups, classes=3).value == 1
    one_of_three = separate([float(label == 0) for label in labels], labels, groups, classes=3)
    assert one_of_three.value == pytest.approx((1 + 0.75 + 0.75) / 3, abs=0.05)
    assert one_of_three.low < one_of_three.value < one_of_three.high


def test_too_few_to_divide():
    assert divide_samples(np.array([0, 0, 0, 1]), ["a", "b", "c", "d"], 2) is None
    assert divide_samples(np.array([0, 0, 1, 1]), ["a", "b", "c", "c"], 2) is None
    assert len(divide_samples(np.array([0, 0, 1, 1]), ["a", "b", "c", "d"], 2).parts) == 2


@pytest.mark.slow
def test_permuted_labels_give_no_more_findings_than_promised():
    """Of 40 permutations with 9 properties each, one in 40 may have a bound above .5: 4 or more have 2 %."""
    random, clear = np.random.default_rng(1), 0
    count = 60
    columns = [random.standard_normal(count).tolist() for _ in range(4)]
    columns += [random.exponential(1, count).round(1).tolist() for _ in range(2)]
    columns += [random.choice(list("abcd"), count, p=[0.7, 0.1, 0.1, 0.1]).tolist() for _ in range(3)]
    groups = [str(k) for k in range(count)]
    for _ in range(40):
        labels = random.permutation(np.arange(count) % 2)
        folds = divide_samples(labels, groups, 2)
        lows = [measure_separation(one, isinstance(one[0], float), folds, len(columns)).low for one in columns]
        clear += max(lows) > 0.5
    assert clear <= 3
