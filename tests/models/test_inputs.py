import sqlite3
import tracemalloc

import pytest
from PIL import Image

from automl.errors import DataError
from automl.models.folder import Labels
from automl.models.inputs import open_inputs

LABELS = Labels(("0", "1"), 1, (0.5, 0.5), "img_name")


def images(folder, names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (2, 2)).save(folder / name)


def table(folder, text, name="rows.csv"):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def read(path, labels=LABELS, **options):
    """File column, prediction column, names, problems."""
    with open_inputs(path, labels, **options) as inputs:
        items = list(inputs)
        assert len(inputs) == len(items) == len(list(inputs))  # as often as it is asked
        return inputs.file_column, inputs.prediction_column, [item.name for item in items], inputs.problems


# --- folders


def test_a_folder_is_sorted_and_what_is_no_image_is_left_out(tmp_path):
    names = ["b.png", "a/z.jpg", "a/b/c.JPG".lower(), "B.png", "é.webp", "a.png"]
    images(tmp_path, [*names, ".hidden/x.png"])
    (tmp_path / ".y.png").touch()
    (tmp_path / "notes.txt").touch()
    (tmp_path / "folder.png").mkdir()
    assert read(tmp_path) == ("img_name", "y_pred", sorted(names), ())
    with open_inputs(tmp_path, LABELS) as inputs:
        assert all(item.path == str(tmp_path / item.name) for item in inputs)


def test_the_file_column_of_a_folder_is_the_trainings(tmp_path):
    images(tmp_path, ["a.png"])
    assert read(tmp_path, Labels(("0", "1"), 1, (0.5, 0.5), "video_name"))[0] == "video_name"
    assert read(tmp_path, Labels(("0", "1"), 1, (0.5, 0.5)))[0] == "img_name"
    assert read(tmp_path, file_column="id")[0] == "id"


def test_of_an_ffdi_root_the_testset_is_predicted(tmp_path):
    images(tmp_path, ["trainset/a.png", "valset/b.png", "testset/c.png"])
    _, _, names, problems = read(tmp_path)
    assert names == ["c.png"]
    assert problems == (f"only testset/ of {tmp_path} is predicted, not trainset/, valset/",)


def test_an_ffdi_root_without_a_testset_names_the_choices(tmp_path):
    images(tmp_path, ["trainset/a.png", "valset/b.png"])
    with pytest.raises(DataError, match=r"no testset/.*trainset or .*valset"):
        read(tmp_path)
    assert read(tmp_path / "valset")[2] == ["b.png"]


def test_names_of_many_files_take_no_memory(tmp_path):
    from automl.models.inputs import _sorted_on_disk

    def peak(count):
        tracemalloc.start()
        with _sorted_on_disk(f"{(i * 7919) % count:060}.png" for i in range(count)) as (found, names):
            assert found == count
            previous = ""
            for name in names():
                assert previous < name
                previous = name
        top = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return top

    peak(10)
    assert peak(20_000) < 2 * peak(2_000) + 50_000  # bytes; 20,000 names are 2.4 MB


def test_a_full_disk_while_sorting_is_an_error(tmp_path, monkeypatch):
    images(tmp_path, ["a.png"])

    class Full(sqlite3.Connection):
        def executemany(self, *_):
            raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr("automl.models.inputs.sqlite3.connect", lambda _, **k: Full(":memory:", **k))
    with pytest.raises(DataError, match="disk is full"):
        read(tmp_path)


# --- label files


def test_rows_keep_their_order_and_their_duplicates(tmp_path):
    images(tmp_path, ["c.png", "a.png", "b.png"])
    file = table(tmp_path, "img_name,target\nc.png,0\na.png,1\nc.png,0\nmissing.png,1\nb.png,0\n")
    assert read(file) == ("img_name", "y_pred", ["c.png", "a.png", "c.png", "missing.png", "b.png"], ())
    with open_inputs(file, LABELS) as inputs:
        assert [item.path != "" for item in inputs] == [True, True, True, False, True]


@pytest.mark.parametrize(
    ("name", "header", "cells", "column"),
    [
        ("labels.csv", "img_name,target", ("0", "1"), "y_pred"),
        ("labels.csv", "img_name,target", ("0.0", "01"), "y_pred"),
        ("sample_submission.csv", "id,score", ("0", "1"), "score"),
        ("sample_submission.csv", "id,score", ("0", "0"), "score"),
        ("test.csv", "video_name,y_pred", ("0.5", "0.5"), "y_pred"),
        ("test.csv", "id,prob", ("0.5", "0.25"), "prob"),
        ("test.csv", "id,prob", ("", ""), "prob"),
        ("test.csv", "id,prob", ("-1", "-1"), "prob"),
        ("test.csv", "id,prob", ("0", "0"), "prob"),
        ("test.csv", "img_name,target", ("0", "0"), "y_pred"),
        ("test.csv", "id,label,group", ("0,x", "1,y"), "y_pred"),
    ],
)
def test_a_sample_submission_keeps_its_column(tmp_path, name, header, cells, column):
    images(tmp_path, ["a.png", "b.png"])
    file = table(tmp_path, f"{header}\na.png,{cells[0]}\nb.png,{cells[1]}\n", name)
    assert read(file) == (header.split(",")[0], column, ["a.png", "b.png"], ())


def test_classes_that_the_model_does_not_know_are_named_once(tmp_path):
    images(tmp_path, ["a.png", "b.png", "c.png"])
    file = table(tmp_path, "img_name,target\na.png,cat\nb.png,dog\nc.png,cat\n")
    _, column, _, problems = read(file)
    assert column == "y_pred"
    assert problems == (
        "rows.csv: column target holds 'cat', 'dog', and the model knows the classes '0', '1'; "
        "the column is not used for the prediction",
    )


@pytest.mark.parametrize(
    ("text", "names", "column"),
    [
        ("a.png\nb c.png\n", ["a.png", "b c.png"], "img_name"),
        ("b c.png\nd e.png\n", ["b c.png", "d e.png"], "img_name"),
        ("file\nb c.png\nd e.png\n", ["b c.png", "d e.png"], "file"),
        ("a.png,1\nd e.png,0\n", ["a.png", "d e.png"], "img_name"),
        ("name\na.png\n", ["a.png"], "name"),
    ],
)
def test_names_alone_and_tables_without_a_header(tmp_path, text, names, column):
    images(tmp_path, ["a.png", "b c.png", "d e.png"])
    assert read(table(tmp_path, text)) == (column, "y_pred", names, ())


def test_names_relative_to_a_folder_beside_the_table(tmp_path):
    images(tmp_path / "test", ["a.png"])
    assert read(table(tmp_path, "id,p\na.png,0.5\n", "test.csv"))[2] == ["a.png"]


@pytest.mark.parametrize("kind", ["dots", "absolute"])
def test_names_that_leave_the_folder_are_refused(tmp_path, kind):
    images(tmp_path, ["secret.png", "data/a.png"])
    name = {"dots": "../secret.png", "absolute": str(tmp_path / "secret.png")}[kind]
    with pytest.raises(DataError, match="lead out of"):
        read(table(tmp_path / "data", f"img_name,y\na.png,0\n{name},1\n"))


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("img_name,y\n", {}, "no column names files"),
        ("img_name,y\nx.png,0\nz.png,1\n", {}, "none of its 2 files exist in .*'x.png', 'z.png'"),
        ("img_name,y\na.png,0\n", {"file_column": "img_nam"}, "--file-column 'img_nam'.*did you mean 'img_name'"),
        ("y,z\n0,1\n", {}, "no column names files .*--file-column"),
        ("", {}, "empty"),
        ("img_name,y\na.png,0\nb.png\n", {}, "row 3: 1 columns"),
    ],
)
def test_a_label_file_that_cannot_be_used(tmp_path, text, options, message):
    images(tmp_path, ["a.png"])
    with pytest.raises(DataError, match=message):
        read(table(tmp_path, text), **options)


def test_nothing_to_predict(tmp_path):
    with pytest.raises(DataError, match="no such file or folder"):
        read(tmp_path / "nowhere")
    (tmp_path / "x.mp4").touch()
    with pytest.raises(DataError, match=r"no image files in .*it holds 1 \.mp4"):
        read(tmp_path)
    images(tmp_path, ["a.png"])
    with pytest.raises(DataError, match="is one file; give its folder"):
        read(tmp_path / "a.png")


# --- rows that must not get lost


@pytest.mark.parametrize("odd", [{3}, {3, 4}, {3, 11}, {19}])
@pytest.mark.parametrize("pattern", ["{k}.png,{q}0", "{k}.png,{q}x,0", "{k}.png,0,{q}x"])
def test_a_quote_that_swallows_rows_is_refused(tmp_path, odd, pattern):
    images(tmp_path, [f"{k}.png" for k in range(20)])
    lines = [pattern.format(k=k, q='"' if k in odd else "") for k in range(20)]
    file = table(tmp_path, "\n".join([",".join("abc"[: lines[0].count(",") + 1]), *lines]) + "\n")
    with pytest.raises(DataError, match=rf"line {min(odd) + 2}: a row has a quote that is not closed"):
        read(file)


@pytest.mark.parametrize("rest", ["", ",0"])
def test_the_first_row_of_a_list_without_a_header_counts_though_its_file_is_missing(tmp_path, rest):
    images(tmp_path, [f"test/im{k}.png" for k in range(1, 20)])
    file = table(tmp_path, "".join(f"im{k}{rest}\n" for k in range(20)), "test.csv")
    column, _, names, _ = read(file)
    assert (column, names) == ("img_name", [f"im{k}" for k in range(20)])


def test_names_with_quotes_in_a_plain_list(tmp_path):
    names = ['"a" b.png', '"c".png', "d.png"]
    images(tmp_path, names)
    file = table(tmp_path, "\n".join(names), "list.txt")
    with open_inputs(file, LABELS) as inputs:
        assert [(item.name, bool(item.path)) for item in inputs] == [(name, True) for name in names]


def test_names_alone_in_json_and_a_name_twice(tmp_path):
    images(tmp_path, ["1.png", "2.png"])
    assert read(table(tmp_path, '[{"file": "1.png"}, {"file": "2.png"}]', "list.json"))[2] == ["1.png", "2.png"]
    with pytest.raises(DataError, match=r"'1.png' is there twice"):
        read(table(tmp_path, '{"1.png": 0.5, "1.png": 0.6}', "list.json"))


def test_a_name_of_thousands_of_digits_is_a_missing_file(tmp_path):
    images(tmp_path, [f"{k:03d}.png" for k in range(3)])
    file = table(tmp_path, f"id,y\n0,.5\n1,.5\n2,.5\n²,.5\n{'9' * 5000},.5\n")
    with open_inputs(file, LABELS) as inputs:
        assert [bool(item.path) for item in inputs] == [True, True, True, False, False]
