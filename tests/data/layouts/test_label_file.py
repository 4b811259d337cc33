"""Label files, as people and programs write them."""

import csv
import io
import json
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from automl.data.layouts.label_file import read_label_file
from automl.data.layouts.text_table import open_table
from automl.errors import DataError
from automl.spec import DataSpec
from tests.fixtures.real_names import (
    classes,
    classes_of,
    counts,
    fill,
    labelled,
    read,
    simple,
    splits_of,
    tab,
    table,
)


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
    assert "labels.csv: file: file in folder, label: label" in found.remarks


def test_a_name_in_rows_that_differ_must_be_one_file(tmp_path):
    for split in ("one", "two"):
        fill(tmp_path / split, [f"{k}.png" for k in range(10)])
    rows = [(f"{k}.png", person, "ab"[k % 2]) for person in ("anna", "ben") for k in range(10)]
    tab(tmp_path / "labels.csv", [("file", "who", "label"), *rows])
    with pytest.raises(DataError, match=r"'0.png' comes in 2 different rows and may be 'one/0.png', 'two/0.png'"):
        read(tmp_path / "labels.csv")
    assert any("not read: 'labels.csv'" in line and "2 different rows" in line for line in read(tmp_path).remarks)


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
    with pytest.raises(DataError, match="no column holds labels: 'number' differs in each row"):
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
    assert any(f"of {column}, " in line and f"{value.lower()} is {split}" in line for line in found.remarks)


def test_a_column_called_split_that_is_none_is_not_taken(tmp_path):
    names = fill(tmp_path / "img", [f"{k:03d}.png" for k in range(20)])
    tab(tmp_path / "labels.csv", [("file", "label", "subset"), *((n, k % 2, "LibriTTS") for k, n in enumerate(names))])
    assert read(tmp_path).remarks[0].endswith("not used: subset")


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
    assert "not used: note, note_2" in read(tmp_path).remarks[0]
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
    table = open_table(tmp_path / "labels.csv")
    assert table.header == ("img name", "target")
    assert list(table.read_rows()) == [[f"{name}.jpg", label] for name, label in rows]


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=200) | st.text(max_size=100).map(str.encode))
def test_any_bytes_are_read_or_refused(tmp_path, content):
    (tmp_path / "labels.csv").write_bytes(content)
    try:
        table = open_table(tmp_path / "labels.csv")
        rows = list(table.read_rows())
    except DataError:
        return
    assert all(len(row) == len(table.header) for row in rows)


@pytest.mark.parametrize("separator", [",", ";", "\t", " "])
@pytest.mark.parametrize("name", ["labels.csv", "labels.TXT", "labels.tsv"])
def test_columns_are_recognised(tmp_path, separator, name):
    simple(tmp_path, name=name, separator=separator)
    found = read(tmp_path)
    assert (found.format, found.classes, len(found.samples)) == ("table", ("0", "1"), 20)
    assert found.samples["name"][0] == "i0.png"
    assert len(read(tmp_path / name).samples) == 20


def test_a_table_without_a_header(tmp_path):
    fill(tmp_path / "pictures", [f"ü\u202f{k}.png" for k in range(20)])
    table(tmp_path, None, [(f"ü\u202f{k}.png", k % 2) for k in range(20)])
    assert len(read(tmp_path).samples) == 20


def test_group_and_split_columns(tmp_path):
    fill(tmp_path / "img", [f"{k}.png" for k in range(24)])
    split = ["train", "valid", "test"]
    rows = [(k % 2, f"img\\{k}.png", f"person{k // 8}", split[k // 8]) for k in range(24)]
    table(tmp_path, ["y", "where", "Group", "Split"], rows)
    found = read(tmp_path)
    assert counts(found) == {(s, label): 4 for s in ("train", "validation", "holdout") for label in (0, 1)}
    assert found.grouped
    assert set(found.samples["group"]) == {"person0", "person1", "person2"}


def test_an_ambiguous_label_column_is_asked_for(tmp_path):
    fill(tmp_path, [f"{k}.png" for k in range(20)])
    table(tmp_path, ["file", "color", "shape"], [(f"{k}.png", k % 2, (k // 2) % 2) for k in range(20)])
    with pytest.raises(DataError, match=r"color, shape.*--label-column"):
        read(tmp_path)
    assert read(tmp_path, label_column="shape").classes == ("0", "1")
    with pytest.raises(DataError, match=r"did you mean 'color'"):
        read(tmp_path, label_column="colour")


def test_an_ambiguous_file_column_is_asked_for(tmp_path):
    fill(tmp_path, [f"{kind}{k}.png" for k in range(20) for kind in "am"])
    table(tmp_path, ["image", "mask", "label"], [(f"a{k}.png", f"m{k}.png", k % 2) for k in range(20)])
    found = read(tmp_path)  # the one with the usual name
    assert found.samples["name"].str.startswith("a").all()
    assert "labels.csv: file: image, label: label; not used: mask" in found.remarks
    table(tmp_path, ["left", "right", "label"], [(f"a{k}.png", f"m{k}.png", k % 2) for k in range(20)])
    with pytest.raises(DataError, match=r"'left', 'right'.*--file-column"):
        read(tmp_path)
    assert read(tmp_path, file_column="right").samples["name"].str.startswith("m").all()


def test_a_table_for_each_split(tmp_path):
    for split, n in (("train", 12), ("val", 6)):
        fill(tmp_path / split, [f"{k}.png" for k in range(n)])
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
    fill(outside, ["secret.png"])
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


def test_validation_by_keeps_a_column_and_not_that_of_the_labels(tmp_path):
    rows = [f"{k}.png,{'fake' if k % 2 else 'real'},{('g1', 'g2')[k // 2 % 2] if k % 2 else ''}" for k in range(8)]
    for k in range(8):
        Image.new("RGB", (8, 8), (k, 0, 0)).save(tmp_path / f"{k}.png")
    path = tmp_path / "labels.csv"
    path.write_text("\n".join(["file,label,generator", *rows]))
    found = read_label_file(path, DataSpec(path=path, validation_by="generator"))
    assert [row.domain for row in found.rows] == ["", "g1", "", "g2", "", "g1", "", "g2"]
    assert [row.label for row in found.rows] == ["real", "fake"] * 4
    assert "validated by: generator" in found.remarks[0]
    with pytest.raises(DataError, match="--validation-by 'label' is a column of labels; name another one"):
        read_label_file(path, DataSpec(path=path, validation_by="label"))
    with pytest.raises(DataError, match="--validation-by 'generatr' is not one of its columns"):
        read_label_file(path, DataSpec(path=path, validation_by="generatr"))
