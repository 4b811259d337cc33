import csv
import io
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from automl.data.dataset import open_dataset
from automl.data.layouts.label_file import read_table
from automl.errors import DataError, SpecError
from automl.spec import DataSpec


def images(folder, names):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (2, 2)).save(folder / name)


def table(root, header, rows, name="labels.csv", separator=","):
    root.mkdir(parents=True, exist_ok=True)
    lines = [separator.join(header)] if header else []
    text = "\n".join([*lines, *(separator.join(map(str, row)) for row in rows)]) + "\n"
    (root / name).write_text(text, encoding="utf-8")
    return root / name


def simple(root, n=20, **options):
    """A folder of n images and a label file of two classes."""
    names = [f"i{k}.png" for k in range(n)]
    images(root, names)
    return table(root, ["file", "label"], [(name, k % 2) for k, name in enumerate(names)], **options)


def read(path, **options):
    return open_dataset(DataSpec(path=path, **options), 0)


def counts(dataset):
    return dataset.samples.groupby(["split", "label"]).size().to_dict()


# --- image folders


def test_class_folders(tmp_path):
    for name in ("cat", "dog"):
        images(tmp_path / name, [f"{k}.{ext}" for k, ext in enumerate(["jpg", "JPEG", "Png", "webp", "bmp"] * 4)])
    images(tmp_path / "cat" / "deeper", ["x.jpg"])
    images(tmp_path / ".hidden", ["x.jpg"])
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
            images(tmp_path / split / name, [f"{k}.jpg" for k in range(n)])
    assert counts(read(tmp_path)) == {
        (split, label): n for split, n in (("train", 10), ("validation", 4), ("holdout", 3)) for label in (0, 1)
    }


def test_an_unlabelled_test_folder_is_left_out(tmp_path):
    for split in ("train", "val"):
        for name in ("cat", "dog"):
            images(tmp_path / split / name, [f"{k}.jpg" for k in range(5)])
    images(tmp_path / "test", ["a.jpg", "b.jpg"])
    found = read(tmp_path, holdout_fraction=0)
    assert len(found.samples) == 20
    assert any("2 files of test/" in problem for problem in found.problems)


def test_no_images_and_one_class_are_errors(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        read(tmp_path / "nowhere")
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "x.doc").touch()
    with pytest.raises(DataError, match=r"no labelled images, videos or sounds.*1 \.doc"):
        read(tmp_path)
    images(tmp_path / "cat", ["a.jpg", "b.jpg", "c.jpg"])
    with pytest.raises(DataError, match="one class"):
        read(tmp_path)


def test_too_few_samples_are_an_error(tmp_path):
    images(tmp_path / "cat", [f"{k}.jpg" for k in range(9)])
    images(tmp_path / "dog", ["a.jpg", "b.jpg"])
    with pytest.raises(DataError, match="class 'dog' has"):
        read(tmp_path)


def test_names_that_cannot_be_printed_are_left_out(tmp_path):
    for name in ("cat", "dog"):
        images(tmp_path / name, [f"{k}.png" for k in range(9)])
    for odd in (b"caf\xe9.png", b"\x1b[2J.png"):
        (tmp_path / "cat" / os.fsdecode(odd)).write_bytes((tmp_path / "cat" / "1.png").read_bytes())
    found = read(tmp_path)
    assert len(found.samples) == 18
    assert "2 names are not printable" in found.problems[0]
    assert found.problems[0].isprintable()


# --- label files


names = st.text(
    st.characters(blacklist_categories=("Cs", "Cc"), blacklist_characters='/\\"'), min_size=1, max_size=12
).filter(lambda name: name == name.strip() and name not in (".", "..") and not name.isspace())


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(st.tuples(names, st.sampled_from(["0", "1", "réel", "深"])), min_size=2, max_size=8),
    separator=st.sampled_from(",;\t|"),
    end=st.sampled_from(["\n", "\r\n"]),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
)
def test_tables_are_read_as_they_were_written(tmp_path, rows, separator, end, encoding, quoting):
    # names without quotes must not hold what another table would be separated by; with quotes they may
    if quoting == csv.QUOTE_MINIMAL:
        rows = [("".join(c for c in name if c not in ",;\t| ") or "x", label) for name, label in rows]
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, delimiter=separator, lineterminator=end, quoting=quoting)
    writer.writerows([("img name", "target"), *((f"{name}.jpg", label) for name, label in rows)])
    (tmp_path / "labels.csv").write_bytes(buffer.getvalue().encode(encoding))
    header, found = read_table(tmp_path / "labels.csv")
    assert header == ["img name", "target"]
    assert found == [[f"{name}.jpg", label] for name, label in rows]


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=200) | st.text(max_size=100).map(str.encode))
def test_any_bytes_are_read_or_refused(tmp_path, content):
    (tmp_path / "labels.csv").write_bytes(content)
    try:
        header, rows = read_table(tmp_path / "labels.csv")
    except DataError:
        return
    assert all(len(row) == len(header) for row in rows)


@pytest.mark.parametrize("separator", [",", ";", "\t", " "])
@pytest.mark.parametrize("name", ["labels.csv", "labels.TXT", "labels.tsv"])
def test_columns_are_recognised(tmp_path, separator, name):
    simple(tmp_path, name=name, separator=separator)
    found = read(tmp_path)
    assert (found.format, found.classes, len(found.samples)) == ("table", ("0", "1"), 20)
    assert found.samples["name"][0] == "i0.png"
    assert len(read(tmp_path / name).samples) == 20


def test_a_table_without_a_header(tmp_path):
    images(tmp_path / "pictures", [f"ü\u202f{k}.png" for k in range(20)])
    table(tmp_path, None, [(f"ü\u202f{k}.png", k % 2) for k in range(20)])
    assert len(read(tmp_path).samples) == 20


def test_group_and_split_columns(tmp_path):
    images(tmp_path / "img", [f"{k}.png" for k in range(24)])
    split = ["train", "valid", "test"]
    rows = [(k % 2, f"img\\{k}.png", f"person{k // 8}", split[k // 8]) for k in range(24)]
    table(tmp_path, ["y", "where", "Group", "Split"], rows)
    found = read(tmp_path)
    assert counts(found) == {(s, label): 4 for s in ("train", "validation", "holdout") for label in (0, 1)}
    assert found.grouped
    assert set(found.samples["group"]) == {"person0", "person1", "person2"}


def test_an_ambiguous_label_column_is_asked_for(tmp_path):
    images(tmp_path, [f"{k}.png" for k in range(20)])
    table(tmp_path, ["file", "color", "shape"], [(f"{k}.png", k % 2, (k // 2) % 2) for k in range(20)])
    with pytest.raises(DataError, match=r"color, shape.*--label-column"):
        read(tmp_path)
    assert read(tmp_path, label_column="shape").classes == ("0", "1")
    with pytest.raises(DataError, match=r"did you mean 'color'"):
        read(tmp_path, label_column="colour")


def test_an_ambiguous_file_column_is_asked_for(tmp_path):
    images(tmp_path, [f"{kind}{k}.png" for k in range(20) for kind in "am"])
    table(tmp_path, ["image", "mask", "label"], [(f"a{k}.png", f"m{k}.png", k % 2) for k in range(20)])
    found = read(tmp_path)  # the one with the usual name
    assert found.samples["name"].str.startswith("a").all()
    assert "labels.csv: file: image, label: label; not used: mask" in found.told
    table(tmp_path, ["left", "right", "label"], [(f"a{k}.png", f"m{k}.png", k % 2) for k in range(20)])
    with pytest.raises(DataError, match=r"'left', 'right'.*--file-column"):
        read(tmp_path)
    assert read(tmp_path, file_column="right").samples["name"].str.startswith("m").all()


def test_a_table_for_each_split(tmp_path):
    for split, n in (("train", 12), ("val", 6)):
        images(tmp_path / split, [f"{k}.png" for k in range(n)])
        table(tmp_path, ["file", "label"], [(f"{k}.png", k % 2) for k in range(n)], name=f"{split}_labels.csv")
    found = read(tmp_path, holdout_fraction=0)
    assert counts(found) == {("train", 0): 6, ("train", 1): 6, ("validation", 0): 3, ("validation", 1): 3}
    assert all(Path(path).is_file() for path in found.samples["path"])


def test_missing_files_are_listed_and_all_missing_is_an_error(tmp_path):
    file = simple(tmp_path)
    with file.open("a") as handle:
        handle.writelines(f"gone{k}.png,1\n" for k in range(7))
    found = read(tmp_path)
    assert len(found.samples) == 20
    assert any("7 of 27 files are missing: 'gone0.png'" in p and "and 2 more" in p for p in found.problems)
    table(tmp_path / "other", ["file", "label"], [(f"gone{k}.png", k % 2) for k in range(9)])
    with pytest.raises(DataError, match=r"none of its 9 files exist"):
        read(tmp_path / "other")


def test_duplicate_rows_are_counted_once_and_contradictions_refused(tmp_path):
    file = simple(tmp_path)
    with file.open("a") as handle:
        handle.write("i0.png,0\n./i2.png,0\n")
    found = read(tmp_path)
    assert len(found.samples) == 20
    assert any("2 duplicate rows" in problem for problem in found.problems)
    with file.open("a") as handle:
        handle.write("i0.png,1\n")
    with pytest.raises(DataError, match=r"1 files have more than one label: 'i0.png'"):
        read(tmp_path)


@pytest.mark.parametrize("kind", ["dots", "absolute"])
def test_names_that_leave_the_folder_are_refused(tmp_path, kind):
    outside = tmp_path / "outside"
    images(outside, ["secret.png"])
    root = tmp_path / "data"
    file = simple(root)
    name = {"dots": "../outside/secret.png", "absolute": str(outside / "secret.png")}[kind]
    with file.open("a") as handle:
        handle.write(f"{name},1\n")
    with pytest.raises(DataError, match=r"1 names lead out of .*secret"):
        read(root)


def test_a_broken_line_is_named(tmp_path):
    file = simple(tmp_path)
    with file.open("a") as handle:
        handle.write("a, b.png,1\n")
    with pytest.raises(DataError, match=r"row 22: 3 columns"):
        read(file)


# --- classes


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
    images(tmp_path, [f"{k}.png" for k in range(20)])
    table(tmp_path, ["file", "label"], [(f"{k}.png", labels[k % 2]) for k in range(20)])
    found = read(tmp_path)
    assert (found.classes, found.real_class, found.positive) == (classes, real, positive)


def test_flags_name_classes(tmp_path):
    simple(tmp_path)
    found = read(tmp_path, real_class="1", positive_class="0")
    assert (found.real_class, found.positive) == (1, 0)
    with pytest.raises(SpecError, match=r"--real-class 'x'.*0, 1"):
        read(tmp_path, real_class="x")


# --- FFDI


def ffdi(root, suffix="trainset_label.txt", header="img_name,target"):
    for folder, n in (("trainset", 20), ("valset", 8), ("testset", 3)):
        images(root / folder, [f"{folder[0]}{k}.jpg" for k in range(n)])
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
    images(tmp_path / "cat", ["a.jpg"])
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


def test_shuffled_labels(tmp_path):
    simple(tmp_path, 60)
    plain, shuffled = read(tmp_path), read(tmp_path, shuffle_labels=True)
    assert plain.samples["split"].equals(shuffled.samples["split"])
    assert counts(plain) == counts(shuffled)
    assert not plain.samples["label"].equals(shuffled.samples["label"])


# --- videos and sounds


def files(folder, names):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).touch()


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
