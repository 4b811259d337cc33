"""Which layout a folder has, and what is reported of what is not read."""

import json

import pytest

from automl.errors import DataError
from tests.fixtures.real_names import CAT_AND_DOG, classes, files, fill, labelled, read, splits_of, tab, table, tree_of


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
    assert any(name in line and "--format table" in line for line in found.remarks)


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


def test_what_is_not_read_is_counted(tmp_path):
    classes(tmp_path)
    files(tmp_path, ["cat/x.heif9", "cat/y.xyz", "dog/y.xyz", "README.md"])
    assert "4 files of kinds that are not read: .heif9 1, .md 1, .xyz 2" in read(tmp_path).remarks


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


def test_a_file_of_another_ending_counts_by_its_content(tmp_path):
    classes(tmp_path)
    (tmp_path / "cat/cat000.jpg").rename(tmp_path / "cat/cat000.mp4")
    files(tmp_path, ["dog/empty.mp4"])
    found = read(tmp_path)
    assert (found.media, len(found.samples)) == ("image", 40)
    assert "1 files are no images, as most are, and are left out: 'dog/empty.mp4'" in found.problems


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
    with pytest.raises(DataError, match="--label-column is for a label file, and no table here names the files"):
        read(tmp_path, label_column="kind")


def test_what_was_left_out_is_told_with_the_error(tmp_path):
    fill(tmp_path / "a", [f"{k}.png" for k in range(9)])
    files(tmp_path / "b", [f"{k}.mp4" for k in range(4)])
    with pytest.raises(DataError, match=r"one class, 'a'[^\n]*\n  4 files are no images"):
        read(tmp_path)


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


def test_what_lies_beside_splits_is_left_out_and_told(tmp_path):
    for number, splits in enumerate((("train", "val", "extra"), ("a/train", "a/val", "b/train", "b/extra"))):
        root = tmp_path / str(number)
        tree_of(root, *(f"{s}/{c}" for s in splits for c in ("real", "fake")))
        found = read(root, holdout_fraction=0)
        assert found.classes == ("fake", "real")
        assert set(splits_of(found)) == {"train", "validation"}
        assert "extra/ is no split and is left out: 12 files" in found.problems


def ffdi(root, suffix="trainset_label.txt", header="img_name,target"):
    for folder, n in (("trainset", 20), ("valset", 8), ("testset", 3)):
        fill(root / folder, [f"{folder[0]}{k}.jpg" for k in range(n)])
        if folder != "testset":
            lines = "".join(f"{folder[0]}{k}.jpg,{k % 2}\n" for k in range(n))
            (root / suffix.replace("train", folder[:-3])).write_text(f"{header}\n{lines}")


@pytest.mark.parametrize("suffix", ["trainset_label.txt", "train_label.txt"])
def test_the_ffdi_layout(tmp_path, suffix):
    ffdi(tmp_path, suffix)
    found = read(tmp_path)
    assert (found.format, found.classes, found.real_class, found.positive) == ("ffdi", ("0", "1"), 0, 1)
    assert found.samples["split"].value_counts().to_dict() == {"train": 18, "validation": 8, "holdout": 2}
    assert not found.samples["path"].str.contains("testset").any()


def test_a_format_that_does_not_fit_is_an_error(tmp_path):
    fill(tmp_path / "cat", ["a.jpg"])
    with pytest.raises(DataError, match="trainset_label"):
        read(tmp_path, format="ffdi")
    with pytest.raises(DataError, match="no label file"):
        read(tmp_path, format="table")
    with pytest.raises(DataError, match="needs a folder"):
        read(tmp_path / "cat" / "a.jpg", format="folder")


@pytest.mark.shared
def test_the_shared_sets(shared):
    faces = read(shared / "data" / "ffdi_faces")
    assert faces.format == "ffdi"
    assert faces.samples["split"].value_counts().to_dict() == {"train": 1040, "validation": 400, "holdout": 160}
    insects = read(shared / "data" / "hymenoptera")
    assert (insects.format, insects.classes, len(insects.samples)) == ("folder", ("ants", "bees"), 397)


def test_folders_of_sounds(tmp_path):
    for name in ("real", "fake"):
        files(tmp_path / name, [f"{k}.{ending}" for k, ending in enumerate(["wav", "FLAC", "mp3", "ogg", "m4a"] * 3)])
    found = read(tmp_path)
    assert (found.format, found.media, len(found.samples)) == ("folder", "sound", 30)
    assert found.classes[found.real_class] == "real"
    assert found.classes[found.positive] == "fake"


def test_what_most_files_are_counts_and_the_others_are_named(tmp_path):
    for name in ("real", "fake"):
        files(tmp_path / name, [f"{k}.mp4" for k in range(10)])
    files(tmp_path / "real", ["poster.jpg", "track.wav"])
    found = read(tmp_path)
    assert (found.media, len(found.samples)) == ("video", 20)
    assert found.problems == (
        "2 files are no videos, as most are, and are left out: 'real/poster.jpg', 'real/track.wav'",
    )


def test_a_label_file_of_videos_without_a_header(tmp_path):
    names = [f"c{k}.mov" for k in range(20)]
    files(tmp_path / "clips", names)
    found = read(table(tmp_path, [], [(name, k % 2) for k, name in enumerate(names)]))
    assert (found.format, found.media, len(found.samples)) == ("table", "video", 20)


def test_groups_csv_is_no_label_file(tmp_path):
    for name in ("real", "fake"):
        files(tmp_path / name, [f"{name}{k}.mp4" for k in range(10)])
    table(
        tmp_path,
        ["name", "group"],
        [(f"{n}{k}.mp4", k // 2) for n in ("real", "fake") for k in range(10)],
        "groups.csv",
    )
    found = read(tmp_path)
    assert (found.format, found.media) == ("folder", "video")
    assert found.samples["group"].nunique() == 5
