from collections import Counter

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from automl.data.splits import check_counts, shuffle_labels, split_samples
from automl.errors import DataError
from automl.spec import DataSpec


def table(labels, groups=None, splits=None):
    n = len(labels)
    names = [f"s{i}" for i in range(n)]
    return pd.DataFrame({"label": labels, "group": groups or names, "split": splits or [""] * n})


def split(frame, seed=0, **options):
    splits, problems = split_samples(frame, DataSpec(**options), seed)
    return splits.tolist(), problems


@settings(max_examples=30)
@given(
    sizes=st.lists(st.integers(20, 90), min_size=2, max_size=4),
    validation=st.sampled_from([0.1, 0.2, 0.35]),
    holdout=st.sampled_from([0.0, 0.05, 0.1, 0.25]),
    seed=st.integers(0, 2**31),
)
def test_each_class_keeps_its_share(sizes, validation, holdout, seed):
    labels = np.repeat(np.arange(len(sizes)), sizes).tolist()
    splits, problems = split(table(labels), seed, validation_fraction=validation, holdout_fraction=holdout)
    counts = Counter(zip(splits, labels, strict=True))
    assert not problems
    for label, size in enumerate(sizes):
        assert abs(counts["validation", label] - max(2, validation * size)) <= 0.5
        assert abs(counts["holdout", label] - (max(1, holdout * size) if holdout else 0)) <= 0.5


grouped = st.lists(st.lists(st.integers(0, 1), min_size=1, max_size=8).filter(len), min_size=12, max_size=40).map(
    lambda groups: [[0, 0, 1, 1]] * 6 + groups
)


@settings(max_examples=30)
@given(groups=grouped, seed=st.integers(0, 99))
def test_no_group_is_torn_apart_and_every_class_is_everywhere(groups, seed):
    labels = [label for group in groups for label in group]
    names = [f"g{i}" for i, group in enumerate(groups) for _ in group]
    splits, problems = split(table(labels, names), seed)
    sides = {}
    for name, side in zip(names, splits, strict=True):
        sides.setdefault(name, set()).add(side)
    assert all(len(side) == 1 for side in sides.values())
    assert not problems
    counts = Counter(zip(splits, labels, strict=True))
    for label in (0, 1):
        total = labels.count(label)
        assert counts["train", label] >= 2
        assert counts["validation", label] >= 2
        assert abs(counts["validation", label] / total - 0.2) < 0.12
        assert abs(counts["holdout", label] / total - 0.1) < 0.12


@settings(max_examples=15)
@given(seed=st.integers(0, 1000))
def test_splits_depend_on_the_seed_and_not_on_the_order_of_rows(seed):
    labels, names = [0, 1] * 30, [f"g{i // 3}" for i in range(60)]
    frame = table(labels, names)
    order = np.random.default_rng(seed).permutation(60)
    shuffled = frame.iloc[order].reset_index(drop=True)
    splits, _ = split(frame, seed)
    assert np.array(splits)[order].tolist() == split(shuffled, seed)[0]
    assert splits == split(frame, seed)[0]
    assert splits != split(frame, seed + 1)[0] or splits != split(frame, seed + 2)[0]


def test_the_holdout_does_not_move_with_the_validation_fraction():
    frame = table([0, 1] * 50)
    one, other = (np.array(split(frame, validation_fraction=f)[0]) == "holdout" for f in (0.1, 0.3))
    assert (one == other).all()


def test_few_groups_that_hold_both_classes():
    frame = table([0, 1] * 14, [f"photo{i // 2}" for i in range(28)])
    for seed in range(20):
        splits, _ = split(frame, seed)
        assert 2 <= Counter(splits)["holdout"] <= 4
        assert 4 <= Counter(splits)["validation"] <= 8


def test_groups_larger_than_the_target_still_reach_validation():
    frame = table([0] * 90 + [1] * 90, [f"g{i // 30}" for i in range(180)])
    splits, _ = split(frame, holdout_fraction=0.1, validation_fraction=0.05)
    frame["split"] = splits
    check_counts(frame, ("a", "b"))


def test_a_given_validation_set_is_used_as_it_is():
    given_splits = ["train"] * 80 + ["validation"] * 20
    splits, problems = split(table([0, 1] * 50, splits=given_splits))
    assert splits[80:] == ["validation"] * 20
    assert Counter(splits[:80]) == {"train": 70, "holdout": 10}
    assert not problems


def test_a_given_test_set_is_the_holdout():
    splits, _ = split(table([0, 1] * 50, splits=["train"] * 80 + ["holdout"] * 20))
    assert splits[80:] == ["holdout"] * 20
    assert Counter(splits[:80]) == {"train": 64, "validation": 16}


def test_no_holdout_when_none_is_wanted():
    assert "holdout" not in split(table([0, 1] * 50), holdout_fraction=0)[0]


def test_a_group_on_both_given_sides_is_named_and_stays_out_of_the_holdout():
    names = ["anna"] * 4 + [f"g{i}" for i in range(90)] + ["anna"] * 2 + [f"v{i}" for i in range(4)]
    frame = table([0, 1] * 50, names, ["train"] * 94 + ["validation"] * 6)
    for seed in range(10):
        splits, problems = split(frame, seed)
        assert len(problems) == 1
        assert "anna" in problems[0]
        assert splits[:4] == ["train"] * 4


def test_shuffled_labels_keep_their_counts_within_each_split():
    frame = table([0, 1] * 100, splits=["train"] * 150 + ["validation"] * 50)
    labels = shuffle_labels(frame, 3)
    assert labels.tolist() != frame["label"].tolist()
    assert labels[:150].sum() == frame["label"][:150].sum()
    assert labels[150:].sum() == frame["label"][150:].sum()
    assert labels.tolist() == shuffle_labels(frame, 3).tolist()


def test_too_few_samples_are_told_by_class_and_split():
    with pytest.raises(DataError, match="one class, 'cat'"):
        check_counts(table([0, 0]), ("cat",))
    frame = table([0] * 5 + [1] * 3, splits=["train"] * 3 + ["validation"] * 2 + ["train"] * 2 + ["validation"])
    with pytest.raises(DataError, match="class 'dog' has 1 in validation"):
        check_counts(frame, ("cat", "dog"))


def test_many_samples_are_split_exactly():
    frame = table([0, 1] * 10_000)
    assert Counter(split(frame)[0])["validation"] == 4_000
