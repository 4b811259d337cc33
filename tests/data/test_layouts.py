"""What real folders and tables look like, and what is said where they cannot be read."""

import json
import shutil

import pytest

from automl.errors import DataError
from tests.data.real_names import classes_of, files, fill, read, tab

CAT_AND_DOG = {"cat": 20, "dog": 20}


def classes(root, counts=None, start=0):
    for name, n in (counts or CAT_AND_DOG).items():
        fill(root / name, [f"{name}{k:03d}.jpg" for k in range(start, start + n)])


def labelled(root, n=20):
    """Images of two classes in one folder, and the rows of their table."""
    names = fill(root / "images", [f"f{k:03d}.jpg" for k in range(n)])
    return [(name, k % 2) for k, name in enumerate(names)]


# --- folders or a table


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        (
            "files.csv",
            [("file", "size"), *((f"{c}/{c}{k:03d}.jpg", 1000 + k % 3) for c in CAT_AND_DOG for k in range(20))],
        ),
        ("notes.txt", [("cat/cat000.jpg blurry",), ("dog/dog001.jpg dark",)]),
        ("bad.csv", [("file", "label"), ("cat/cat000.jpg", "blurry"), ("cat/cat001.jpg", "dark")]),
        (
            "captions.csv",
            [("file", "text"), *((f"{c}/{c}{k:03d}.jpg", f"a {c} no. {k}") for c in CAT_AND_DOG for k in range(20))],
        ),
    ],
)
def test_a_table_that_only_mentions_the_files_is_told_and_not_read(tmp_path, name, rows):
    classes(tmp_path)
    tab(tmp_path / name, rows)
    found = read(tmp_path)
    assert (found.format, found.classes, len(found.samples)) == ("folder", ("cat", "dog"), 40)
    assert any(name in line and "--format table" in line for line in found.told)


def test_a_table_that_agrees_with_the_folders_and_says_more_is_read(tmp_path):
    classes(tmp_path)
    rows = [(f"{c}/{c}{k:03d}.jpg", c, f"p{k % 8}") for c in CAT_AND_DOG for k in range(20)]
    tab(tmp_path / "labels.csv", [("file", "label", "group"), *rows])
    found = read(tmp_path)
    assert (found.format, found.classes, found.grouped) == ("table", ("cat", "dog"), True)


def test_a_label_column_that_covers_the_files_beats_folders_of_persons(tmp_path):
    classes(tmp_path, {"anna": 20, "ben": 20})
    rows = [(f"{c}/{c}{k:03d}.jpg", ("real", "fake")[k % 2]) for c in ("anna", "ben") for k in range(20)]
    tab(tmp_path / "labels.csv", [("file", "label"), *rows])
    found = read(tmp_path)
    assert (found.format, found.classes) == ("table", ("fake", "real"))
    assert read(tmp_path, format="folder").classes == ("anna", "ben")


def test_a_flag_asks_for_the_table(tmp_path):
    classes(tmp_path)
    rows = [(f"{c}/{c}{k:03d}.jpg", k % 3) for c in CAT_AND_DOG for k in range(20)]
    tab(tmp_path / "files.csv", [("file", "size"), *rows])
    assert read(tmp_path, label_column="size").classes == ("0", "1", "2")
    assert read(tmp_path, format="table").classes == ("0", "1", "2")


# --- folders


def test_folders_around_the_data_are_gone_down(tmp_path):
    for split, start in (("Train", 0), ("Validation", 50)):
        classes(tmp_path / "archive/Dataset" / split, {"Real": 10, "Fake": 10}, start)
    found = read(tmp_path)
    assert found.classes == ("Fake", "Real")
    assert found.told[0] == "all files lie in archive/Dataset/"
    assert (found.samples["split"] == "validation").sum() == 20


@pytest.mark.parametrize("names", [("airplane", "car", "train", "truck"), ("dev", "test", "train", "valid", "x")])
def test_a_class_may_be_called_like_a_split(tmp_path, names):
    classes(tmp_path, dict.fromkeys(names, 10))
    found = read(tmp_path)
    assert found.classes == tuple(sorted(names))
    assert any("train/" in line and "read as a class" in line for line in found.told)


def test_folders_of_splits_without_classes_are_no_classes(tmp_path):
    classes(tmp_path, {"train": 10, "test": 10})
    with pytest.raises(DataError, match=r"test/, train/ hold no folders of classes, and no table names their files"):
        read(tmp_path)


def test_names_of_folders_are_names(tmp_path):
    classes(tmp_path, {"001": 10, "1": 10, "07": 10})
    assert set(read(tmp_path).classes) == {"001", "1", "07"}


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


def test_what_is_not_read_is_counted(tmp_path):
    classes(tmp_path)
    files(tmp_path, ["cat/x.heif9", "cat/y.xyz", "dog/y.xyz", "README.md"])
    assert "4 files of kinds that are not read: .heif9 1, .md 1, .xyz 2" in read(tmp_path).told


# --- tables


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("file,label\n{}", "{0},{1},\n"),
        ("file,label,\n{}", "{0},{1},\n"),
        ("# made on Monday\nfile,label\n{}", "{0},{1}\n"),
        ("# file,label\n{}", "{0},{1}\n"),
        ("sep=;\nfile;id;label\n{}", "{0};x{0};{1}\n"),
        ("SEP=;\nfile;label\n{}", "{0};{1}\n"),
        ("My labels\nfile,label\n{}", "{0},{1}\n"),
        ("\ufefffile\tlabel\n{}", "{0}\t{1}\n"),
    ],
)
def test_tables_as_spreadsheets_write_them(tmp_path, text, rows):
    body = "".join(rows.format(name, label) for name, label in labelled(tmp_path))
    (tmp_path / "labels.csv").write_text(text.format(body), encoding="utf-8")
    found = read(tmp_path)
    assert (found.format, found.classes, len(found.samples)) == ("table", ("0", "1"), 20)
    assert any("line above the table is skipped: 'My labels'" in line for line in found.problems) is ("My" in text)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"file,label\nf000.jpg,0\nf001.jpg,1,x\n", r"row 3: 3 columns"),
        ("file,label\nf000.jpg,\u732b\u72d7\u9e1f\n".encode("gbk"), r"not a UTF-8 text"),
        (b"file label\nmy cat 0.jpg 1\nmy dog.jpg 0\n", r"one column only"),
        (b"file,label\nnone0.jpg,0\nnone1.jpg,1\n", r"none of its 2 files exist"),
    ],
)
def test_beside_one_folder_of_images_the_tables_error_is_the_answer(tmp_path, content, message):
    labelled(tmp_path)
    (tmp_path / "labels.csv").write_bytes(content)
    for path in (tmp_path, tmp_path / "labels.csv"):
        with pytest.raises(DataError, match=message):
            read(path)


def test_a_readme_is_not_taken_for_labels(tmp_path):
    labelled(tmp_path)
    (tmp_path / "README.txt").write_text("Pictures, taken in May.\n")
    with pytest.raises(DataError, match="one class, 'images'"):
        read(tmp_path)


def test_what_is_no_table_is_called_what_it_is(tmp_path):
    classes(tmp_path / "photos")
    archive = shutil.make_archive(str(tmp_path / "photos"), "zip", tmp_path / "photos")
    with pytest.raises(DataError, match=r"photos.zip is a zip archive; unpack it"):
        read(archive)
    for name, head in (("x.parquet", b"PAR1"), ("x.tar.gz", b"\x1f\x8b\x08"), ("x.xlsx", b"PK\x03\x04")):
        (tmp_path / name).write_bytes(head + b"\0" * 40)
        with pytest.raises(DataError, match=r" is (Parquet|a gzip archive|a spreadsheet)"):
            read(tmp_path / name)
    (tmp_path / "coco.json").write_text(json.dumps({"images": [1], "annotations": [2]}))
    with pytest.raises(DataError, match="JSON of another kind"):
        read(tmp_path / "coco.json")
    (tmp_path / "broken.json").write_text('{"a": ')
    with pytest.raises(DataError, match="not JSON"):
        read(tmp_path / "broken.json")
    fill(tmp_path, ["one.jpg"])
    with pytest.raises(DataError, match="is one file; give its folder"):
        read(tmp_path / "one.jpg")


def test_labels_in_json(tmp_path):
    rows = labelled(tmp_path)
    (tmp_path / "labels.json").write_text(json.dumps(dict(rows)))
    assert classes_of(read(tmp_path))["f001.jpg"] == "1"
    records = [{"image": name, "category": label, "boxes": [1, 2]} for name, label in rows]
    (tmp_path / "labels.json").write_text(json.dumps(records))
    assert classes_of(read(tmp_path))["f001.jpg"] == "1"


def test_a_file_of_another_ending_counts_by_its_content(tmp_path):
    classes(tmp_path)
    (tmp_path / "cat/cat000.jpg").rename(tmp_path / "cat/cat000.mp4")
    files(tmp_path, ["dog/empty.mp4"])
    found = read(tmp_path)
    assert (found.media, len(found.samples)) == ("image", 40)
    assert "1 files are no images, as most are, and are left out: 'dog/empty.mp4'" in found.problems
