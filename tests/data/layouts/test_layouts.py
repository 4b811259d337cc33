"""What real folders and tables look like, and what is said where they cannot be read."""

import json
import shutil

import pytest

from automl.errors import DataError
from tests.fixtures.real_names import classes_of, files, fill, read, tab

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
    with pytest.raises(
        DataError, match=r"'test/', 'train/' hold no folders of classes, and no table names their files"
    ):
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


# --- levels of folders


def tree_of(root, *folders, n=6):
    for folder in folders:
        fill(root / folder, [f"{folder.replace('/', '-')}-{k}.png" for k in range(n)])


def splits_of(found):
    return found.samples.groupby("split").size().to_dict()


def test_real_and_fake_are_the_classes_at_any_level(tmp_path):
    splits, kinds = ("train", "val"), ("car", "cat")
    tree_of(tmp_path, *(f"{s}/{k}/{c}" for s in splits for k in kinds for c in ("0_real", "1_fake")))
    found = read(tmp_path, holdout_fraction=0)
    assert (found.classes, splits_of(found)) == (("fake", "real"), {"train": 24, "validation": 24})
    assert "the folders of level 2 are not told apart: car, cat" in found.told


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
    assert "the folders in those of classes are not told apart: a/1, a/2, b/3, b/4" in read(tmp_path).told


# --- tables beside folders


def test_a_label_file_of_which_few_files_are_there_is_still_the_label_file(tmp_path):
    for k in range(20):
        fill(tmp_path / f"batch{'ab'[k // 10]}", [f"{k:03d}.png"])
    tab(tmp_path / "labels.csv", [("file", "label"), *((f"{k:03d}.png", k % 2) for k in range(100))])
    found = read(tmp_path)
    assert (found.format, found.classes, len(found.samples)) == ("table", ("0", "1"), 20)
    assert any("80 of 100 files are missing" in line for line in found.problems)


def test_why_a_table_beside_folders_is_not_read_is_told(tmp_path):
    classes(tmp_path)
    (tmp_path / "labels.csv").write_bytes(b"file,label\ncat/cat000.jpg,gr\xfcn\n")
    found = read(tmp_path)
    assert found.format == "folder"
    assert any("not read: " in line and "not a UTF-8 text" in line for line in found.problems)


def test_splits_of_tables_beside_folders_are_heeded(tmp_path):
    classes(tmp_path)
    rows = {c: [(f"{c}/{c}{k:03d}.jpg", c) for k in range(20)] for c in CAT_AND_DOG}
    for name, begin, end in (("train", 0, 10), ("validation", 10, 15), ("test", 15, 20)):
        tab(
            tmp_path / f"{name}.csv",
            [("Filename", "Label"), *(row for found in rows.values() for row in found[begin:end])],
        )
    found = read(tmp_path)
    assert found.format == "table"
    assert splits_of(found) == {"train": 20, "validation": 10, "holdout": 10}


def test_flags_of_columns_want_a_table(tmp_path):
    classes(tmp_path)
    with pytest.raises(DataError, match="--label-column is about a label file, and no table here names the files"):
        read(tmp_path, label_column="kind")


def test_what_was_left_out_is_told_with_the_error(tmp_path):
    fill(tmp_path / "a", [f"{k}.png" for k in range(9)])
    files(tmp_path / "b", [f"{k}.mp4" for k in range(4)])
    with pytest.raises(DataError, match=r"one class, 'a'[^\n]*\n  4 files are no images"):
        read(tmp_path)


# --- columns


def test_what_a_table_of_a_split_names_is_looked_for_in_its_folder(tmp_path):
    fill(tmp_path / "train", [f"{k}.png" for k in range(30)])
    fill(tmp_path / "val", [f"{k}.png" for k in range(8)])
    tab(tmp_path / "train.csv", [("file", "label"), *((f"{k}.png", k % 2) for k in range(30))])
    tab(tmp_path / "val.csv", [("file", "label"), *((f"{k}.png", k % 2) for k in range(20))])
    found = read(tmp_path, holdout_fraction=0)
    assert splits_of(found) == {"train": 30, "validation": 8}
    assert any("val.csv: 12 of 20 files are missing" in line for line in found.problems)


def test_a_column_of_folders_belongs_to_the_name(tmp_path):
    for split in ("train", "test"):
        fill(tmp_path / split, [f"{k}.png" for k in range(10)])
    rows = [(f"{k}.png", split, "ab"[k % 2]) for split in ("train", "test") for k in range(10)]
    tab(tmp_path / "labels.csv", [("file", "folder", "label"), *rows])
    found = read(tmp_path)
    assert len(found.samples) == 20
    assert "labels.csv: file: file in folder, label: label" in found.told


def test_a_name_in_rows_that_differ_must_be_one_file(tmp_path):
    for split in ("one", "two"):
        fill(tmp_path / split, [f"{k}.png" for k in range(10)])
    rows = [(f"{k}.png", person, "ab"[k % 2]) for person in ("anna", "ben") for k in range(10)]
    tab(tmp_path / "labels.csv", [("file", "who", "label"), *rows])
    with pytest.raises(DataError, match=r"'0.png' comes in 2 different rows and may be 'one/0.png', 'two/0.png'"):
        read(tmp_path / "labels.csv")
    assert any("not read: 'labels.csv'" in line and "2 different rows" in line for line in read(tmp_path).told)


def test_files_of_one_table_may_lie_in_two_folders(tmp_path):
    names = [
        *fill(tmp_path / "one", [f"a{k}.png" for k in range(14)]),
        *fill(tmp_path / "two", [f"b{k}.png" for k in range(6)]),
    ]
    tab(tmp_path / "labels.csv", [("file", "label"), *((name, k % 2) for k, name in enumerate(names))])
    assert len(read(tmp_path).samples) == 20


@pytest.mark.parametrize(
    ("header", "row"),
    [
        (("file", "x", "y", "animal"), lambda k: (k % 7, k % 5, "ab"[k % 2])),
        (("file", "diagnosis", "label"), lambda k: ("xyz"[k % 3], "ab"[k % 2])),
        (("file", "train", "test", "kind"), lambda k: (int(k % 4 > 0), int(k % 4 == 0), "ab"[k % 2])),
        (("name", "age", "label"), lambda k: (20 + k, "ab"[k % 2])),
    ],
)
def test_the_label_is_not_what_only_looks_so(tmp_path, header, row):
    names = fill(tmp_path / "img", [f"{k:03d}.png" for k in range(60)])
    tab(tmp_path / "labels.csv", [header, *((name, *row(k)) for k, name in enumerate(names[:30]))])
    options = {"label_column": "kind"} if "kind" in header else {}
    found = read(tmp_path, **options)
    assert (found.classes, len(found.samples)) == (("a", "b"), 30)


def test_a_column_that_is_another_one_in_each_row_is_no_label(tmp_path):
    names = fill(tmp_path / "img", [f"{k:03d}.png" for k in range(20)])
    tab(tmp_path / "images.csv", [("file", "number"), *((name, k) for k, name in enumerate(names))])
    with pytest.raises(DataError, match="no column holds labels: 'number' is another one in each row"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("column", "value", "split"),
    [
        ("is_train", "0", "validation"),
        ("train", "False", "validation"),
        ("test", "1", "holdout"),
        ("is_val", "yes", "validation"),
    ],
)
def test_columns_of_true_and_false_say_what_they_are_called(tmp_path, column, value, split):
    opposite = {"0": "1", "1": "0", "False": "True", "yes": "no"}[value]
    names = fill(tmp_path / "img", [f"{k:03d}.png" for k in range(20)])
    rows = [(name, k % 2, value if k < 8 else opposite) for k, name in enumerate(names)]
    tab(tmp_path / "labels.csv", [("file", "label", column), *rows])
    found = read(tmp_path, split_column=column, holdout_fraction=0)
    assert splits_of(found)[split] == 8
    assert any(f"of {column}, " in line and f"{value.lower()} is {split}" in line for line in found.told)


def test_a_column_called_split_that_is_none_is_not_taken(tmp_path):
    names = fill(tmp_path / "img", [f"{k:03d}.png" for k in range(20)])
    tab(tmp_path / "labels.csv", [("file", "label", "subset"), *((n, k % 2, "LibriTTS") for k, n in enumerate(names))])
    assert read(tmp_path).told[0].endswith("not used: subset")


def test_tables_of_one_name_in_parts_are_one_set(tmp_path):
    for part in range(3):
        records = {f"{part}{k}.png": {"label": "ab"[k % 2]} for k in range(8)}
        fill(tmp_path / f"part_{part}", records)
        (tmp_path / f"part_{part}/metadata.json").write_text(json.dumps(records))
    assert len(read(tmp_path).samples) == 24


def test_many_tables_take_no_time(tmp_path):
    for k in range(150):
        fill(tmp_path / f"c{k:03d}", [f"{k}-{n}.png" for n in range(4)])
        tab(tmp_path / f"c{k:03d}/files.csv", [("file", "size"), *((f"{k}-{n}.png", n) for n in range(4))])
    assert len(read(tmp_path, holdout_fraction=0).classes) == 150


def test_nan_is_no_label_and_no_group(tmp_path):
    fill(tmp_path, [f"{k}.png" for k in range(24)])
    cell = ("NaN", "nan", "<NA>", "")
    rows = [(f"{k}.png", cell[k] if k < 4 else "ab"[k % 2], cell[k % 4] if k < 14 else f"g{k}") for k in range(24)]
    tab(tmp_path / "labels.csv", [("file", "label", "group"), *rows])
    found = read(tmp_path)
    assert (found.classes, len(found.samples)) == (("a", "b"), 20)
    assert "labels.csv: 4 rows have no label and are left out: '0.png', '1.png', '2.png', '3.png'" in found.problems
    assert found.samples["group"].nunique() == 20  # those without one are each by themselves


def test_two_columns_of_one_name_matter_only_if_they_are_used(tmp_path):
    rows = [(name, label, "x", "y") for name, label in labelled(tmp_path)]
    tab(tmp_path / "labels.csv", [("file", "label", "note", "note"), *rows])
    assert "not used: note, note_2" in read(tmp_path).told[0]
    tab(tmp_path / "labels.csv", [("file", "label", "note", "label"), *rows])
    with pytest.raises(DataError, match="more than one column is named 'label'; rename one"):
        read(tmp_path / "labels.csv")


def test_a_label_of_two_lines_is_one_of_one_line(tmp_path):
    rows = [(name, f"{'ab'[label]}\nx") for name, label in labelled(tmp_path)]
    tab(tmp_path / "labels.csv", [("file", "label"), *rows])
    assert read(tmp_path).classes == ("a x", "b x")


def test_a_quote_that_swallows_rows_is_told_beside_the_images(tmp_path):
    rows = labelled(tmp_path)
    lines = [f"{name},{label},{chr(34) if k in (5, 9) else ''}x" for k, (name, label) in enumerate(rows)]
    (tmp_path / "labels.csv").write_text("\n".join(["file,label,note", *lines]) + "\n")
    for path in (tmp_path, tmp_path / "labels.csv"):
        with pytest.raises(DataError, match=r"labels.csv, line 7: a row has a quote that is not closed"):
            read(path)


def test_what_lies_beside_splits_is_left_out_and_told(tmp_path):
    for number, splits in enumerate((("train", "val", "extra"), ("a/train", "a/val", "b/train", "b/extra"))):
        root = tmp_path / str(number)
        tree_of(root, *(f"{s}/{c}" for s in splits for c in ("real", "fake")))
        found = read(root, holdout_fraction=0)
        assert found.classes == ("fake", "real")
        assert set(splits_of(found)) == {"train", "validation"}
        assert "extra/ is no split and is left out: 12 files" in found.problems
