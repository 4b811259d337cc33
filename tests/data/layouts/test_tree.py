"""One walk, with a count of what is left out; the same rule for training and predictions."""

import os

import pytest

from automl.data.layouts.tree import LeftOut, Tree, walk_media
from automl.errors import DataError
from tests.fixtures.real_names import files, fill, read


def test_a_walk_counts_what_it_leaves_out(tmp_path):
    fill(tmp_path, ["a/x.jpg", "a/b/y.png"])
    files(tmp_path, ["a/notes.txt", "a/model.bin", "a/b/more.txt", ".hidden/z.jpg", "__MACOSX/z.jpg", "a/._x.jpg"])
    (tmp_path / "a/nowhere.jpg").symlink_to(tmp_path / "gone.jpg")
    (tmp_path / "a/b/round").symlink_to(tmp_path / "a")
    os.mkfifo(tmp_path / "a/pipe.jpg")  # opening it would wait for ever
    left = LeftOut()
    assert sorted(walk_media(tmp_path, left)) == [("a", "x.jpg"), ("a/b", "y.png")]
    assert left.endings == {".txt": 2, ".bin": 1}
    assert left.list_remarks() == ["3 files of kinds that are not read: .bin 1, .txt 2"]
    assert left.list_warnings() == [
        "left out, links that lead nowhere (1): 'a/nowhere.jpg'",
        "left out, pipes, sockets or devices (1): 'a/pipe.jpg'",
        "left out, links to a folder around them (1): 'a/b/round'",
    ]


def test_linked_folders_are_followed_in_classes(tmp_path):
    fill(tmp_path / "data/cat", [f"{k}.jpg" for k in range(9)])
    fill(tmp_path / "data/dog", [f"{k}.jpg" for k in range(9)])
    fill(tmp_path / "elsewhere", [f"m{k}.jpg" for k in range(5)])
    (tmp_path / "data/cat/more").symlink_to(tmp_path / "elsewhere")
    found = read(tmp_path / "data")
    assert len(found.samples) == 23
    assert "links that lead out of the folder, which are followed: 1" in found.remarks


def test_a_folder_that_cannot_be_opened_is_told(tmp_path, monkeypatch):
    fill(tmp_path, ["a/x.jpg", "b/y.jpg"])
    scandir = os.scandir

    def closed(path):  # root, as which CI runs, opens every folder
        if str(path).endswith("/b"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", closed)
    left = LeftOut()
    assert list(walk_media(tmp_path, left)) == [("a", "x.jpg")]
    assert left.list_warnings() == ["left out, folders that cannot be opened (1): 'b'"]
    with pytest.raises(DataError, match=r"cannot read .*/b: Permission denied"):
        list(walk_media(tmp_path, LeftOut(), strict=True))


def test_a_root_that_is_gone_is_an_error(tmp_path):
    with pytest.raises(DataError, match=r"cannot read .*No such file"):
        Tree(tmp_path / "gone")


def test_a_tree_knows_its_folders(tmp_path):
    fill(tmp_path, ["t.jpg", "a/x.jpg", "a/b/y.png", "c/d/z.jpg"])
    files(tmp_path, ["empty/notes.txt", "labels.csv"])
    tree = Tree(tmp_path)
    assert (tree.folders_in(""), tree.folders_in("a"), tree.files_in("")) == (["a", "c"], ["a/b"], ["t.jpg"])
    assert list(tree.files_below("")) == ["t.jpg", "a/x.jpg", "a/b/y.png", "c/d/z.jpg"]
    assert (len(tree), tree.tables) == (4, ["labels.csv", "empty/notes.txt"])
