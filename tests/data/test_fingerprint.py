import os
import time
from pathlib import Path

import pandas as pd
import pytest

from automl.data.dataset import Dataset
from automl.data.fingerprint import choose_names, compare_files, digest_files, match_samples, measure_files
from automl.errors import DataError

CLASSES = ("dark", "light")


def write_copy(folder, count=20, size=100):
    """A data set of files that each hold their own number; their names are the same under any folder."""
    for k in range(count):
        path = folder / CLASSES[k % 2] / f"{k:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes([k % 256]) * size)
    return open_copy(folder)


def open_copy(folder):
    paths = sorted(folder.rglob("*.png"))
    rows = [
        {"path": str(p), "name": str(p.relative_to(folder)), "label": CLASSES.index(p.parent.name), "group": str(p)}
        for p in paths
    ]
    samples = pd.DataFrame(rows).assign(split="train", domain="")
    return Dataset(folder, "folder", samples, CLASSES, None, 1, (), "tones")


def stored(dataset):
    """As a study stores it: without paths, and no group where a sample has none."""
    return measure_files(dataset.samples).assign(group="").drop(columns="path")


def compare(copy, original):
    samples = match_samples(copy, stored(original), CLASSES).samples
    return compare_files(measure_files(samples), stored(original))


def test_another_copy_under_another_folder_is_the_same(tmp_path):
    original, copy = write_copy(tmp_path / "a"), write_copy(tmp_path / "elsewhere" / "b")
    for path in (tmp_path / "elsewhere").rglob("*.png"):
        os.utime(path, (0, 0))
    assert digest_files(measure_files(original.samples)) == digest_files(measure_files(copy.samples))
    assert compare(copy, original) == []
    matched = match_samples(copy, stored(original).assign(split="holdout"), CLASSES).samples
    assert matched["path"].tolist() == copy.samples["path"].tolist() == matched["group"].tolist()
    assert set(matched["split"]) == {"holdout"}


def test_the_order_is_the_studys_and_what_it_has_not_is_left_out(tmp_path):
    original, copy = write_copy(tmp_path / "a", 4), write_copy(tmp_path / "b", 6)
    table = stored(original)[::-1].reset_index(drop=True)
    with pytest.raises(DataError, match=r"^2 files are new, such as dark/004\.png$"):
        match_samples(copy, table, CLASSES)
    names = match_samples(copy, table, CLASSES, may_have_more=True).samples["name"].tolist()
    assert names == table["name"].tolist()


def test_a_missing_file_and_another_label_are_named(tmp_path):
    original = write_copy(tmp_path / "a")
    write_copy(tmp_path / "b")
    (tmp_path / "b" / "dark" / "004.png").unlink()
    samples = open_copy(tmp_path / "b").samples
    samples.loc[samples["name"] == "light/003.png", "label"] = 0
    copy = Dataset(tmp_path / "b", "folder", samples, CLASSES, None, 1, (), "tones")
    with pytest.raises(DataError) as caught:
        match_samples(copy, stored(original), CLASSES)
    assert str(caught.value) == (
        "1 file is missing, such as dark/004.png; 1 file is labelled otherwise, such as light/003.png: dark here, "
        "light in the study"
    )
    with pytest.raises(DataError, match=r"^1 file is missing"):  # permuted labels are compared nowhere
        match_samples(copy, stored(original), CLASSES, any_label=True)


@pytest.mark.parametrize("may_have_more", [False, True])
def test_a_moved_file_is_named_with_its_new_folder(tmp_path, may_have_more):
    original = write_copy(tmp_path / "a")
    write_copy(tmp_path / "b")
    (tmp_path / "b" / "dark" / "000.png").unlink()
    (tmp_path / "b" / "dark" / "002.png").rename(tmp_path / "b" / "light" / "002.png")
    with pytest.raises(DataError, match=r"^2 files are missing, such as dark/002\.png \(moved to light/002\.png\?\)"):
        match_samples(open_copy(tmp_path / "b"), stored(original), CLASSES, may_have_more=may_have_more)


def test_labels_are_compared_by_the_names_of_their_classes(tmp_path):
    original, copy = write_copy(tmp_path / "a"), write_copy(tmp_path / "b")
    swapped = copy.samples.assign(label=1 - copy.samples["label"])
    copy = Dataset(tmp_path / "b", "folder", swapped, CLASSES[::-1], None, 1, (), "tones")
    matched = match_samples(copy, stored(original), CLASSES)
    assert matched.classes == CLASSES
    assert matched.samples["label"].tolist() == original.samples["label"].tolist()


def test_another_size_another_content_and_a_file_that_went_are_named(tmp_path):
    original, copy = write_copy(tmp_path / "a"), write_copy(tmp_path / "b")
    (tmp_path / "b" / "dark" / "000.png").write_bytes(b"longer" * 200)
    (tmp_path / "b" / "light" / "001.png").write_bytes(bytes([99]) * 100)
    Path(copy.samples["path"][2]).unlink()
    assert compare(copy, original) == [
        "1 file is missing, such as dark/004.png",
        "1 file is of another size, such as dark/000.png: 1,200 bytes here, 100 bytes in the study",
        "1 file is of other content (of 20 that were read), such as light/001.png",
    ]


def test_of_a_large_file_the_middle_and_the_end_are_read_as_well(tmp_path):
    original, copy = (write_copy(tmp_path / name, 1, 2**20) for name in "ab")
    path = Path(copy.samples["path"][0])
    for position in (2**19, 2**20 - 1):
        content = bytearray(2**20)
        content[position] = 1
        path.write_bytes(content)
        assert compare(copy, original) == ["1 file is of other content (of 1 that were read), such as dark/000.png"]


def test_the_same_files_are_read_whatever_else_there_is():
    names = [f"{k:05}.png" for k in range(5000)]
    chosen = [names[row] for row in choose_names(names, 50)]
    backwards = names[::-1]
    assert sorted(backwards[row] for row in choose_names(backwards, 50)) == sorted(chosen)
    assert len(set(chosen)) == 50
    assert {name[0:2] for name in chosen} == {"00", "01", "02", "03", "04"}  # from all over


def test_two_thousand_files_take_less_than_a_second(tmp_path):
    dataset = write_copy(tmp_path, 2000, 20_000)
    started = time.perf_counter()
    measured = measure_files(dataset.samples)
    digest_files(measured)
    assert time.perf_counter() - started < 1  # 0.1 s on an idle machine
    assert (measured["content"] != "").sum() == 256
