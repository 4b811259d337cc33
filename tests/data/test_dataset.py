"""Classes and their roles, splits, and what is left out of a data set."""

import pytest

from automl.errors import DataError, SpecError
from tests.fixtures.real_names import classes, counts, fill, read, simple, tab, table


@pytest.mark.parametrize("inner", ["unknown", "test"])
def test_a_class_of_the_test_set_alone_is_none(tmp_path, inner):
    classes(tmp_path / "train")
    fill(tmp_path / "test" / inner, [f"u{k}.jpg" for k in range(8)])
    found = read(tmp_path)
    assert found.classes == ("cat", "dog")
    assert f"8 samples of classes that occur in the test set only are left out: '{inner}'" in found.problems


def test_small_classes_can_be_left_out(tmp_path):
    classes(tmp_path, {"cat": 20, "dog": 20, "emu": 3})
    with pytest.raises(DataError, match=r"class 'emu' has .*--min-class-samples"):
        read(tmp_path)
    found = read(tmp_path, min_class_samples=5)
    assert found.classes == ("cat", "dog")
    assert "3 samples of 1 classes of fewer than 5 are left out: 'emu'" in found.problems
    with pytest.raises(DataError, match="--min-class-samples 99 leaves no class; the largest has 20"):
        read(tmp_path, min_class_samples=99)


def test_a_class_that_the_validation_set_has_not_can_be_left_out(tmp_path):
    classes(tmp_path / "train", {"cat": 20, "dog": 20, "emu": 20})
    classes(tmp_path / "val", {"cat": 5, "dog": 5}, 50)
    with pytest.raises(DataError, match="class 'emu' has 0 in validation"):
        read(tmp_path)
    assert read(tmp_path, min_class_samples=2).classes == ("cat", "dog")


def test_a_holdout_that_cannot_be_made_is_told(tmp_path):
    rows = [(f"{c}{k}.jpg", c, f"person {k % 5}") for c in ("a", "b") for k in range(15)]
    fill(tmp_path / "images", [name for name, _, _ in rows])
    tab(tmp_path / "labels.csv", [("file", "label", "group"), *rows])
    found = read(tmp_path)
    assert "holdout" not in set(found.samples["split"])
    assert any(line.startswith("no holdout: 30 samples in 5 groups are too few") for line in found.problems)
    assert not any("holdout" in line for line in read(tmp_path, holdout_fraction=0).problems)


def test_too_few_samples_are_an_error(tmp_path):
    fill(tmp_path / "cat", [f"{k}.jpg" for k in range(9)])
    fill(tmp_path / "dog", ["a.jpg", "b.jpg"])
    with pytest.raises(DataError, match="class 'dog' has"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("labels", "classes", "real", "positive"),
    [
        (["10", "9"], ("9", "10"), None, 1),
        (["1.0", "0.0"], ("0", "1"), None, 1),
        (["real", "fake"], ("fake", "real"), 1, 0),
        (["Bonafide", "tts"], ("Bonafide", "tts"), 0, 1),
        (["ants", "bees"], ("ants", "bees"), None, 1),
    ],
)
def test_classes_are_ordered_and_their_roles_found(tmp_path, labels, classes, real, positive):
    fill(tmp_path, [f"{k}.png" for k in range(20)])
    table(tmp_path, ["file", "label"], [(f"{k}.png", labels[k % 2]) for k in range(20)])
    found = read(tmp_path)
    assert (found.classes, found.real_class, found.positive) == (classes, real, positive)


def test_flags_name_classes(tmp_path):
    simple(tmp_path)
    found = read(tmp_path, real_class="1", positive_class="0")
    assert (found.real_class, found.positive) == (1, 0)
    with pytest.raises(SpecError, match=r"--real-class 'x'.*0, 1"):
        read(tmp_path, real_class="x")


def test_shuffled_labels(tmp_path):
    simple(tmp_path, 60)
    plain, shuffled = read(tmp_path), read(tmp_path, shuffle_labels=True)
    assert plain.samples["split"].equals(shuffled.samples["split"])
    assert counts(plain) == counts(shuffled)
    assert not plain.samples["label"].equals(shuffled.samples["label"])
