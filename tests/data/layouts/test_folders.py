"""Folders of classes and splits, as people have them."""

import os
from pathlib import Path

import pytest

from automl.errors import DataError
from tests.fixtures.real_names import classes, counts, fill, read, splits_of, tree_of


def test_folders_around_the_data_are_gone_down(tmp_path):
    for split, start in (("Train", 0), ("Validation", 50)):
        classes(tmp_path / "archive/Dataset" / split, {"Real": 10, "Fake": 10}, start)
    found = read(tmp_path)
    assert found.classes == ("Fake", "Real")
    assert found.remarks[0] == "all files lie in archive/Dataset/"
    assert (found.samples["split"] == "validation").sum() == 20


@pytest.mark.parametrize("names", [("airplane", "car", "train", "truck"), ("dev", "test", "train", "valid", "x")])
def test_a_class_may_be_called_like_a_split(tmp_path, names):
    classes(tmp_path, dict.fromkeys(names, 10))
    found = read(tmp_path)
    assert found.classes == tuple(sorted(names))
    assert any("train/" in line and "read as a class" in line for line in found.remarks)


def test_folders_of_splits_without_classes_are_no_classes(tmp_path):
    classes(tmp_path, {"train": 10, "test": 10})
    with pytest.raises(
        DataError, match=r"'test/', 'train/' hold no folders of classes, and no table names their files"
    ):
        read(tmp_path)


def test_names_of_folders_are_names(tmp_path):
    classes(tmp_path, {"001": 10, "1": 10, "07": 10})
    assert set(read(tmp_path).classes) == {"001", "1", "07"}


def test_real_and_fake_are_the_classes_at_any_level(tmp_path):
    splits, kinds = ("train", "val"), ("car", "cat")
    tree_of(tmp_path, *(f"{s}/{k}/{c}" for s in splits for k in kinds for c in ("0_real", "1_fake")))
    found = read(tmp_path, holdout_fraction=0)
    assert (found.classes, splits_of(found)) == (("fake", "real"), {"train": 24, "validation": 24})
    assert "no difference is made between the folders of level 2: car, cat" in found.remarks


def test_splits_may_lie_in_generators_and_classes(tmp_path):
    tree_of(
        tmp_path / "gen", *(f"{g}/{s}/{c}" for g in ("ADM", "VQDM") for s in ("train", "val") for c in ("ai", "nature"))
    )
    found = read(tmp_path / "gen", holdout_fraction=0)
    assert (found.classes, splits_of(found)) == (("ai", "nature"), {"train": 24, "validation": 24})
    tree_of(tmp_path / "inner", *(f"{c}/{s}" for c in ("cat", "dog") for s in ("train", "test")))
    found = read(tmp_path / "inner")
    assert found.classes == ("cat", "dog")
    assert splits_of(found)["holdout"] == 12


def test_splits_by_words(tmp_path):
    tree_of(
        tmp_path, *(f"seg_{s}/seg_{s}/{c}" for s in ("train", "test") for c in ("forest", "sea")), "seg_pred/seg_pred"
    )
    found = read(tmp_path)
    assert found.classes == ("forest", "sea")
    assert splits_of(found)["holdout"] == 12
    assert "seg_pred/ is no split and is left out: 6 files" in found.problems


@pytest.mark.parametrize(
    "names", [("n01440764", "n02102040"), ("c0", "c1"), ("grade_0", "grade_1"), ("fake1", "fake2")]
)
def test_classes_may_differ_by_digits_alone(tmp_path, names):
    tree_of(tmp_path, *names, n=10)
    assert read(tmp_path).classes == names


@pytest.mark.parametrize("names", [("images", "masks"), ("JPEGImages", "SegmentationClass"), ("part_1", "part_2")])
def test_folders_that_are_no_classes(tmp_path, names):
    tree_of(tmp_path, *names, n=10)
    with pytest.raises(DataError, match="hold no folders of classes"):
        read(tmp_path)


def test_folders_within_classes_are_told(tmp_path):
    tree_of(tmp_path, "a/1", "a/2", "b/3", "b/4", n=10)
    assert "no difference is made between the folders in those of classes: a/1, a/2, b/3, b/4" in read(tmp_path).remarks


def test_class_folders(tmp_path):
    for name in ("cat", "dog"):
        fill(tmp_path / name, [f"{k}.{ext}" for k, ext in enumerate(["jpg", "JPEG", "Png", "webp", "bmp"] * 4)])
    fill(tmp_path / "cat" / "deeper", ["x.jpg"])
    fill(tmp_path / ".hidden", ["x.jpg"])
    (tmp_path / "cat" / ".x.jpg").touch()
    (tmp_path / "cat" / "notes.txt").touch()
    found = read(tmp_path)
    assert (found.format, found.classes, len(found.samples)) == ("folder", ("cat", "dog"), 41)
    assert not found.grouped
    assert not found.problems
    assert set(found.samples["split"]) == {"train", "validation", "holdout"}
    assert Path(found.samples["path"][0]).is_absolute()
    assert found.samples.index.tolist() == list(range(41))


@pytest.mark.parametrize("validation", ["val", "valid", "validation", "Val"])
def test_split_folders_and_a_labelled_test_folder(tmp_path, validation):
    for split, n in (("train", 10), (validation, 4), ("test", 3)):
        for name in ("cat", "dog"):
            fill(tmp_path / split / name, [f"{k}.jpg" for k in range(n)])
    assert counts(read(tmp_path)) == {
        (split, label): n for split, n in (("train", 10), ("validation", 4), ("holdout", 3)) for label in (0, 1)
    }


def test_an_unlabelled_test_folder_is_left_out(tmp_path):
    for split in ("train", "val"):
        for name in ("cat", "dog"):
            fill(tmp_path / split / name, [f"{k}.jpg" for k in range(5)])
    fill(tmp_path / "test", ["a.jpg", "b.jpg"])
    found = read(tmp_path, holdout_fraction=0)
    assert len(found.samples) == 20
    assert any("files of test/ that lie in no class folder (2)" in problem for problem in found.problems)


def test_no_images_and_one_class_are_errors(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        read(tmp_path / "nowhere")
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "x.doc").touch()
    with pytest.raises(DataError, match=r"no labelled images, videos or sounds.*1 \.doc"):
        read(tmp_path)
    fill(tmp_path / "cat", ["a.jpg", "b.jpg", "c.jpg"])
    with pytest.raises(DataError, match="one class"):
        read(tmp_path)


def test_names_that_cannot_be_printed_are_left_out(tmp_path):
    for name in ("cat", "dog"):
        fill(tmp_path / name, [f"{k}.png" for k in range(9)])
    for odd in (b"caf\xe9.png", b"\x1b[2J.png"):
        (tmp_path / "cat" / os.fsdecode(odd)).write_bytes((tmp_path / "cat" / "1.png").read_bytes())
    found = read(tmp_path)
    assert len(found.samples) == 18
    assert "2 names are not printable" in found.problems[0]
    assert found.problems[0].isprintable()
