"""Tables as people and programs write them, cell by cell."""

import json

import pytest

from automl.data.layouts.columns import find_columns, find_file_column
from automl.data.layouts.label_file import find_mentions
from automl.data.layouts.names import Finder
from automl.data.layouts.text_table import open_table
from automl.data.layouts.tree import Tree
from automl.errors import DataError
from automl.spec import DataSpec
from tests.fixtures.real_names import fill


def text(folder, content, name="labels.csv"):
    (folder / name).write_text(content, encoding="utf-8")
    return folder / name


def cells(file, least=2):
    table = open_table(file, least)
    return list(table.header), list(table.read_rows())


def rows(count, odd, pattern="{k:03d}.png,{c},{q}tall"):
    """A table of captions, some of them with a quote that is not closed."""
    body = (pattern.format(k=k, c="ab"[k % 2], q='"' if k in odd else "") for k in range(count))
    return "file,label,caption\n" + "".join(f"{line}\n" for line in body)


# --- quotes


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (rows(40, {5}), 7),  # to the end of the file
        (rows(40, {5, 30}), 7),
        (rows(40, {5, 6}), 7),
        (rows(200, {150, 190}), 152),  # below the lines that the separator is recognised by
        (rows(40, {5}, "{k:03d}.png,{q}{c},tall"), 7),
        (rows(40, {5, 6}, "{k:03d}.png,{q}{c},tall"), 7),
        (rows(40, {39}), 41),
        ('file,label\na.png,"0\nb.png,1\nc.png,0"\nd.png,1\n', 2),  # it is closed as it should be
        ('file,label,note\na7.png,0,"5 inch\nb8.png,1,5"\nc9.png,0,x\n', 2),
        ('file,label,note\n\n\nid7,0,"x\nid8,1,y\nid9,0,"z\n', 4),  # as editors count
        ('note,file,label\n"x,a.png,0\ny,b.png,1\n5",c.png,1\n', 2),
        ("id,label,caption\n" + '1,0,"x\n2,1,y\n3,0,y\n4,0,"z\n', 2),
        ("id,label,caption\n" + '1,0,"x\n2,1,y\n3,0,y\n4,0,z"\n', 2),
        ('file,note,label\na.png,"x,0\nb.png,5",1\n', 2),
        ("file,label,caption\n" + '1.png,a,"x' + "y" * 100 + "\n" + "2.png,b,z\n" * 20_000, 2),  # too long for a cell
    ],
)
def test_a_quote_that_swallows_rows_is_refused(tmp_path, content, line):
    file = text(tmp_path, content)
    with pytest.raises(DataError, match=rf"labels.csv, line {line}: a row has a quote that is not closed"):
        cells(file)


@pytest.mark.parametrize(
    ("written", "caption"),
    [
        ('"a dog\nin the sun"', "a dog in the sun"),
        ('"a dog,\nand a cat, and 3 mice"', "a dog, and a cat, and 3 mice"),
        ('"a dog\n\nno. 2: ""Rex"""', 'a dog no. 2: "Rex"'),
        ('"first, then\nsecond, then"', "first, then second, then"),
        ('"a, b\nc, d\ne, f\ng, h"', "a, b c, d e, f g, h"),
        ('5" long', '5" long'),
        ('"a, b" ', "a, b"),
    ],
)
@pytest.mark.parametrize("count", [1, 60])
def test_quotes_that_are_closed_may_hold_anything(tmp_path, written, caption, count):
    body = "".join(f"{k}.png,{written},{k % 2}\n" for k in range(count))
    assert cells(text(tmp_path, f"file,caption,label\n{body}")) == (
        ["file", "caption", "label"],
        [[f"{k}.png", caption, str(k % 2)] for k in range(count)],
    )


def test_spaces_around_quotes_and_quotes_in_names(tmp_path):
    file = text(tmp_path, 'file,label\n"a.png" , "cat" \n"b" c.png,dog\n"d.png", "cat"\n')
    assert cells(file)[1] == [["a.png", "cat"], ['"b" c.png', "dog"], ["d.png", "cat"]]


def test_a_line_taken_whole_loses_only_the_quotes_around_it(tmp_path):
    file = text(tmp_path, '"a" b.png\n"c".png\n"d, e.png"\n"f ""g"".png"\nh.png\n', "list.txt")
    whole = open_table(file, least=1).one_column()
    assert [row for (row,) in whole.read_rows()] == ['"a" b.png', '"c".png', "d, e.png", 'f "g".png', "h.png"]


def test_a_last_column_that_is_empty_in_some_rows_hides_no_separator(tmp_path):
    body = "".join(f"{k}.png\t{k % 2}\t{'a, b, c' if k % 3 else ''}\n" for k in range(9))
    assert cells(text(tmp_path, f"file\tlabel\tnote\n{body}"))[1][:2] == [["0.png", "0", ""], ["1.png", "1", "a, b, c"]]


# --- headers


@pytest.mark.parametrize(
    "first", ["LA_0079 LA_T_1 - - bonafide", "S1 A_1 1 1 1", "0 0 x", "T_3 T_0 F - - - AC1 A05 spoof -", "é ü 1.0 1.0"]
)
def test_a_first_row_that_repeats_what_is_no_word_is_no_header(tmp_path, first):
    line = first.split()
    file = text(tmp_path, f"{first}\n" * 3, "protocol.txt")
    assert cells(file) == ([f"column_{i}" for i in range(1, len(line) + 1)], [line] * 3)


@pytest.mark.parametrize(
    ("header", "names"),
    [
        ("file,note,label,note,note", ["file", "note", "label", "note_2", "note_3"]),
        ("note,note,note_2,x,y", ["note", "note_3", "note_2", "x", "y"]),
        ("file,,label,,z", ["file", "column_2", "label", "column_4", "z"]),
        ("file,column_3,,x,y", ["file", "column_3", "column_3_2", "x", "y"]),
    ],
)
def test_columns_of_one_name_are_numbered(tmp_path, header, names):
    assert cells(text(tmp_path, f"{header}\na.png,b,c,d,e\n"))[0] == names


CELEBA = "5_o_Clock_Shadow Bald Male \n000001.jpg -1 -1  1\n000002.jpg  1 -1 -1\n"


@pytest.mark.parametrize(
    ("content", "header", "first"),
    [
        (CELEBA, ["column_1", "5_o_Clock_Shadow", "Bald", "Male"], ["000001.jpg", "-1", "-1", "1"]),
        (f"202599\n{CELEBA}", ["column_1", "5_o_Clock_Shadow", "Bald", "Male"], ["000001.jpg", "-1", "-1", "1"]),
        ('"file","label"\n"1","a.png","b"\n"2","b.png","c"\n', ["column_1", "file", "label"], ["1", "a.png", "b"]),
        ('"id" "label"\n"3" "im1" "b"\n"7" "im2" "b"\n', ["column_1", "id", "label"], ["3", "im1", "b"]),
        ("label,split\na.png,cat,train\nb.png,dog,test\n", ["column_1", "label", "split"], ["a.png", "cat", "train"]),
        ("My labels\na.png cat 1\nb.png dog 1\n", ["column_1", "column_2", "column_3"], ["a.png", "cat", "1"]),
    ],
)
def test_a_header_may_leave_out_the_first_column(tmp_path, content, header, first):
    table = open_table(text(tmp_path, content, "list.txt"))
    assert (list(table.header), next(table.read_rows())) == (header, first)
    assert table.title == {"2": "202599", "M": "My labels"}.get(content[0], "")


@pytest.mark.parametrize(
    "content",
    [
        "file,label\na.png,cat,x\nb.png,dog,y\n",
        "file,label\n1,cat,x\n2,cat,y\n",
        "label,file\ncat,a.png,x\ncat,b.png,y\n",
        "id,label\nim1,cat,x\nim2,dog,y\n",
    ],
)
def test_a_header_that_lacks_its_last_name_is_refused(tmp_path, content):
    with pytest.raises(DataError, match="row 2: 3 columns, the first row has 2"):
        cells(text(tmp_path, content))


def test_a_table_of_nothing_but_a_separators_name_is_empty(tmp_path):
    with pytest.raises(DataError, match="the label file is empty"):
        open_table(text(tmp_path, "sep=;\n"))


@pytest.mark.parametrize(
    ("first", "headed"),
    [("im0", False), ("im00,0", False), ("img,0", True), ("picture,0", True), ("xy1,0", True)],
)
def test_a_first_row_like_those_below_it_is_no_header_though_its_file_is_missing(tmp_path, first, headed):
    fill(tmp_path / "test", [f"im{k}.png" for k in range(1, 20)])
    body = "".join(f"im{k}{',0' if ',' in first else ''}\n" for k in range(1, 20))
    file = text(tmp_path, f"{first}\n{body}")
    table, _ = find_file_column(open_table(file, least=1), Finder(file), DataSpec())
    assert table.headed is headed


# --- cells


def test_numbers_that_are_none_are_no_numbers(tmp_path):
    fill(tmp_path / "images", [f"{k:03d}.png" for k in range(4)])
    lines = [f"{name},{k % 2},{s}" for k, (name, s) in enumerate(zip("0123", "0121", strict=True))]
    file = text(tmp_path, "\n".join(["id,label,split", *lines, f"{'9' * 5000},1,1", "²,0,1"]) + "\n")
    table, columns = find_columns(open_table(file), Finder(file), DataSpec())
    assert (columns.files.name, columns.files.names.numbers, len(list(table.read_rows()))) == ("id", True, 6)


# --- JSON


def test_a_key_twice_is_refused(tmp_path):
    for content in ('{"1.png": 0, "1.png": 1}', '[{"file": "1.png", "label": 0, "label": 0}]'):
        with pytest.raises(DataError, match=r"'(1.png|label)' is there twice in one object"):
            cells(text(tmp_path, content, "labels.json"))


@pytest.mark.parametrize("name", ["labels.json", "labels.jsonl", "labels.txt"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\n\n"])
def test_a_line_for_each_object_whatever_the_file_is_called(tmp_path, name, end):
    records = [{"file": f"{k}.png", "label": k % 2, "text": "one\u2028two"} for k in range(3)]
    lines = [json.dumps(record, ensure_ascii=False) for record in records]
    (tmp_path / name).write_bytes((end.join(lines) + end).encode())
    assert cells(tmp_path / name)[1] == [[f"{k}.png", str(k % 2), "one\u2028two"] for k in range(3)]


def test_names_alone_in_json(tmp_path):
    file = text(tmp_path, '[{"file": "1.png"}, {"file": "2.png"}]', "list.json")
    assert cells(file, least=1) == (["file"], [["1.png"], ["2.png"]])
    with pytest.raises(DataError, match="no two values each"):
        cells(file)
    with pytest.raises(DataError, match="the label file is empty"):
        cells(text(tmp_path, " \n", "empty.json"))


@pytest.mark.parametrize("start", ['{"images": [', '{"info": {"year": 2017}, "images": [', '{\n  "categories" : ['])
def test_cocos_annotations_are_not_read_to_be_refused(tmp_path, start):
    file = text(tmp_path, start + "1, " * 10_000, "instances.json")  # no JSON at all: nobody looks so far
    with pytest.raises(DataError, match="JSON of another kind"):
        open_table(file)


def test_large_json_that_nobody_named_is_not_read(tmp_path, monkeypatch):
    fill(tmp_path, ["a.png", "b.png"])
    file = text(tmp_path, '{"a.png": 0, "b.png": 1}', "labels.json")
    assert find_mentions(file, tmp_path, Tree(tmp_path), DataSpec()).rows == 1
    monkeypatch.setattr("automl.data.layouts.label_file._LARGEST_JSON", 10)
    looked = find_mentions(file, tmp_path, Tree(tmp_path), DataSpec())
    assert looked.rows == 0
    assert "give it as the path" in looked.reason
    assert len(cells(file)[1]) == 2
