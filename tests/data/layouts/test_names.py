"""Files are found by the names that people write for them."""

import unicodedata
from pathlib import Path

import pytest

from automl.data.layouts.names import Finder
from automl.errors import DataError
from tests.fixtures.real_names import classes_of, fill, read, tab

N = 20


def labelled(root, names, header=("file", "label"), table="labels.csv"):
    return tab(root / table, [header, *((name, k % 2) for k, name in enumerate(names))])


@pytest.mark.parametrize(
    ("disk", "written"),
    [
        ("images/f{k:03d}.jpg", "f{k:03d}"),
        ("images/f{k:03d}.jpg", "f{k:03d}.png"),
        ("images/f{k:03d}.jpg", "F{k:03d}.JPG"),
        ("train/f{k:03d}.jpg", "/kaggle/input/x/train/f{k:03d}.jpg"),
        ("photos/f{k:03d}.jpg", "train/f{k:03d}.jpg"),
        ("photos/a/f{k:03d}.jpg", "C:\\\\data\\\\a\\\\f{k:03d}.jpg"),
        ("images/{k:05d}.png", "{k}"),
        ("deep/er/still/f{k:03d}.jpg", "f{k:03d}.jpg"),
        ("images/v1.{k}.jpg", "v1.{k}"),
    ],
)
def test_a_name_is_found_as_people_write_it(tmp_path, disk, written):
    fill(tmp_path, [disk.format(k=k) for k in range(N)])
    labelled(tmp_path, [written.format(k=k) for k in range(N)])
    found = read(tmp_path)
    by_file = classes_of(found)
    assert by_file == {Path(disk.format(k=k)).name: str(k % 2) for k in range(N)}
    assert set(found.samples["name"]) == {written.format(k=k) for k in range(N)}  # a submission keeps them
    told = any("names are not those of the files and were matched" in line for line in found.remarks)
    assert told is (not disk.endswith(written))


@pytest.mark.parametrize("disk", ["NFC", "NFD"])
def test_both_unicode_forms_of_a_name_are_one(tmp_path, disk):
    other = {"NFC": "NFD", "NFD": "NFC"}[disk]
    fill(tmp_path / "images", [unicodedata.normalize(disk, f"café{k}.jpg") for k in range(N)])
    labelled(tmp_path, [unicodedata.normalize(other, f"café{k}.jpg") for k in range(N)])
    assert len(read(tmp_path).samples) == N


def test_an_absolute_name_below_the_folder_is_that_file(tmp_path):
    names = fill(tmp_path / "images", [f"{k}.jpg" for k in range(N)])
    labelled(tmp_path, [str(tmp_path / "images" / name) for name in names])
    assert len(read(tmp_path).samples) == N


def test_links_are_followed_in_tables_as_in_folders(tmp_path):
    fill(tmp_path / "elsewhere", [f"{k}.jpg" for k in range(N)])
    (tmp_path / "data").mkdir()
    (tmp_path / "data/images").symlink_to(tmp_path / "elsewhere")
    labelled(tmp_path / "data", [f"images/{k}.jpg" for k in range(N)])
    found = read(tmp_path / "data")
    assert len(found.samples) == N
    assert "links that lead out of the folder, which are followed: 1" in found.remarks


def test_names_of_a_table_in_a_folder_of_its_own(tmp_path):
    fill(tmp_path / "images", [f"{k}.jpg" for k in range(N)])
    file = labelled(tmp_path / "labels", [f"../images/{k}.jpg" for k in range(N)])
    assert len(read(tmp_path).samples) == N
    with pytest.raises(DataError, match=r"20 names lead out of .*give the folder that holds both"):
        read(file)
    assert len(read(file, files_folder=tmp_path).samples) == N


def test_files_may_lie_anywhere_that_is_named(tmp_path):
    fill(tmp_path / "images", [f"{k}.jpg" for k in range(N)])
    file = labelled(tmp_path / "tables", [str(tmp_path / "images" / f"{k}.jpg") for k in range(N)])
    assert len(read(file, files_folder=tmp_path / "images").samples) == N
    other = labelled(tmp_path / "tables", [f"{k}.jpg" for k in range(N)], table="other.csv")
    assert len(read(other, files_folder=tmp_path / "images").samples) == N


def test_one_name_in_two_folders_is_that_of_the_folder_called_like_the_table(tmp_path):
    for split in ("train", "test"):
        fill(tmp_path / split, [f"{k:03d}.jpg" for k in range(N)])
    labelled(tmp_path, [f"{k:03d}" for k in range(N)], table="train.csv")
    found = read(tmp_path)
    assert {Path(path).parent.name for path in found.samples["path"]} == {"train"}
    assert any("20 more files lie there, and no row names them" in line for line in found.remarks)


def test_a_missing_file_is_not_found_in_another_folder(tmp_path):
    for split in ("train", "test"):
        fill(tmp_path / split, [f"{k:03d}.jpg" for k in range(N)])
    (tmp_path / "train/003.jpg").unlink()
    labelled(tmp_path, [f"train/{k:03d}.jpg" for k in range(N)])
    found = read(tmp_path)
    assert len(found.samples) == N - 1
    assert any("1 of 20 files are missing: 'train/003.jpg'" in problem for problem in found.problems)


def test_a_name_that_may_be_two_files_is_an_error(tmp_path):
    fill(tmp_path / "images", [f"{k}.jpg" for k in range(N)])
    fill(tmp_path / "images", ["7.png"])
    labelled(tmp_path, [f"{k}" for k in range(N)])
    with pytest.raises(DataError, match=r"'7' may be 'images/7.jpg', 'images/7.png'; write the names with"):
        read(tmp_path)


def test_files_spread_over_folders_are_found_by_their_names_alone(tmp_path):
    for k in range(N):
        fill(tmp_path / f"images_{k % 4:03d}/images", [f"{k:08d}_000.png"])
    labelled(tmp_path, [f"{k:08d}_000.png" for k in range(N)])
    found = read(tmp_path)
    assert (found.format, len(found.samples), found.classes) == ("table", N, ("0", "1"))


def test_the_nearest_name_is_told(tmp_path):
    fill(tmp_path / "images", [f"photo-{k}.jpg" for k in range(N)])
    labelled(tmp_path, [f"photo_{k}.jpg" for k in range(N)])
    with pytest.raises(DataError, match=r"none of its 20 files exist .*there is 'images/photo-0.jpg'"):
        read(tmp_path)


def test_labels_are_no_names_though_files_are_called_so(tmp_path):
    fill(tmp_path / "images", [f"{k}.jpg" for k in range(N)])
    tab(tmp_path / "labels.csv", [("id", "kind"), *((k, k % 2) for k in range(N))])
    assert classes_of(read(tmp_path)) == {f"{k}.jpg": str(k % 2) for k in range(N)}


def test_a_finder_keeps_inside_its_folder(tmp_path):
    fill(tmp_path, ["secret.png", "data/a.png", "data/images/b.png"])
    finder = Finder(tmp_path / "data/labels.csv")
    names = finder.settle_names(["a.png"])
    assert finder.locate_file(names, "a.png") == str(tmp_path / "data/a.png")
    assert finder.locate_file(names, "../secret.png") is None
    assert finder.locate_file(names, str(tmp_path / "secret.png")) is None
    assert finder.locate_file(names, "c.png") == ""


def test_a_few_names_that_differ_are_looked_for_in_their_own_folder(tmp_path, monkeypatch):
    fill(tmp_path / "images", [f"{k}.jpg" for k in range(2 * N)])
    fill(tmp_path / "other", ["39.jpg"])
    names = [f"images/{k}.jpg" for k in range(2 * N - 3)]
    labelled(tmp_path, [*names, "images/37.JPG", "images/38", "other/x.jpg"])
    monkeypatch.setattr(
        "automl.data.layouts.names.Tree", None
    )  # not all that lies below: the folder may be anybody's home
    found = read(tmp_path / "labels.csv")
    assert len(found.samples) == 2 * N - 1
    assert any("1 of 40 files are missing: 'other/x.jpg'" in problem for problem in found.problems)
