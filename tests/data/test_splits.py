from collections import Counter

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from automl.data.splits import (
    check_counts,
    draw_folds,
    find_inseparable,
    redraw_validation,
    shuffle_labels,
    split_samples,
)
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


# --- domains, folds, other draws


def domained(seed=0):
    """Real images of 40 people, and fakes of four generators; person and generator are independent."""
    generators = [f"g{i % 4}" for i in range(80)]
    frame = table([0] * 80 + [1] * 80, groups=[f"p{i // 2}" for i in range(80)] + [f"q{i}" for i in range(80)])
    return frame.assign(domain=["real"] * 80 + generators)


def test_validation_by_a_column_holds_out_whole_values_and_a_share_of_a_class_with_one():
    frame = domained().assign(path="")
    splits, problems = split_samples(frame, DataSpec(validation_by="generator"), seed=3)
    held = frame.assign(split=splits)
    assert not problems
    fakes = held[held["label"] == 1].groupby("domain")["split"].agg(set)
    assert sum("validation" in sides for sides in fakes) == 1
    assert all("train" not in sides for sides in fakes if "validation" in sides)
    real = held[held["label"] == 0]
    assert Counter(real["split"])["validation"] == 16  # a fifth, by persons
    assert real.groupby("group")["split"].nunique().max() == 1


def test_a_given_validation_set_is_not_used_beside_validation_by():
    frame = domained()
    frame.loc[::5, "split"] = "validation"
    splits, problems = split_samples(frame, DataSpec(validation_by="generator"), seed=3)
    assert problems == ["the validation set of the data is trained on: --validation-by chooses another one"]
    sides = frame.assign(split=splits).query("label == 1").groupby("domain")["split"].agg(set)
    assert sum(side >= {"train", "validation"} for side in sides) == 0


@pytest.mark.parametrize(
    ("domains", "message"),
    [
        ([""] * 40, "--validation-by generator: the column has no value; some class needs two"),
        (["a"] * 40, "--validation-by generator: the column has only 'a'; some class needs two"),
        (["a"] * 20 + ["b"] * 20, "--validation-by generator: the column has one value a class; some class needs two"),
    ],
)
def test_a_column_that_divides_no_class_is_refused(domains, message):
    frame = table([0] * 20 + [1] * 20).assign(domain=domains)
    with pytest.raises(DataError, match=message):
        split_samples(frame, DataSpec(validation_by="generator"), 0)


def test_groups_that_share_a_domain_are_inseparable_and_a_group_joins_domains():
    labels = np.array([1, 1, 1, 1, 1, 0, 0])
    groups = np.array(["a", "b", "b", "c", "d", "e", "f"])
    domains = np.array(["x", "x", "y", "y", "z", "real", "real"])
    assert pd.factorize(find_inseparable(labels, groups, domains))[0].tolist() == [0, 0, 0, 0, 1, 2, 3]


@settings(max_examples=20)
@given(seed=st.integers(0, 999), folds=st.integers(2, 5))
def test_folds_cover_each_sample_once_and_tear_no_group(seed, folds):
    frame = domained().assign(domain="")
    frame.loc[:3, "split"] = "holdout"
    fold_of = draw_folds(frame, folds, seed)
    assert fold_of[:4].tolist() == [-1] * 4
    assert frame.assign(fold=fold_of).groupby("group")["fold"].nunique().max() == 1
    counts = Counter(zip(fold_of.tolist(), frame["label"], strict=True))
    for label, total in ((0, 76), (1, 80)):
        assert all(abs(counts[fold, label] - total / folds) <= 2 for fold in range(folds))


def test_folds_over_domains_hold_each_generator_out_once():
    frame = domained()
    fold_of = draw_folds(frame, 4, 1)
    fakes = frame.assign(fold=fold_of).query("label == 1")
    assert fakes.groupby("domain")["fold"].nunique().tolist() == [1] * 4
    assert sorted(fakes.groupby("domain")["fold"].first()) == [0, 1, 2, 3]


def test_more_folds_than_a_class_has_samples_for_are_refused():
    with pytest.raises(DataError, match="--folds 5: 1 classes have fewer than 2 samples in a fold; give fewer folds"):
        draw_folds(table([0] * 60 + [1] * 6, splits=["train"] * 66), 5, 0)


def test_another_draw_is_of_the_same_size_and_spares_the_holdout():
    frame = table([0] * 50 + [1] * 30)
    frame["split"] = split_samples(frame, DataSpec(), 0)[0]
    drawn = redraw_validation(frame, 7)
    assert (drawn == "holdout").tolist() == (frame["split"] == "holdout").tolist()
    assert Counter(zip(drawn, frame["label"], strict=True)) == Counter(zip(frame["split"], frame["label"], strict=True))
    assert drawn.tolist() != frame["split"].tolist()
    assert drawn.tolist() == redraw_validation(frame, 7).tolist()
