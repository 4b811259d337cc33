import os
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from automl.errors import AutomlError, RecipeError, SpecError, is_disk_full
from automl.files import (
    cache_dir,
    explain_write_errors,
    find_line,
    is_page_name,
    load_yaml,
    read_header,
    shipped,
    write_atomically,
    write_text,
)

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
VALUES = st.recursive(
    SCALARS, lambda v: st.lists(v, max_size=4) | st.dictionaries(st.text(), v, max_size=4), max_leaves=9
)


def written(folder: Path, content: str | bytes) -> Path:
    path = folder / "file.yaml"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(value=VALUES)
def test_what_is_written_is_read(tmp_path, value):
    write_text(tmp_path / "file.yaml", yaml.safe_dump(value))
    assert load_yaml(tmp_path / "file.yaml") == value


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    content=st.binary(max_size=60) | st.text(alphabet="ab:-[]{}!&*?|>'\"%@`#,0x_.\n\t ", max_size=60).map(str.encode)
)
def test_any_bytes_are_read_or_refused_with_the_files_name(tmp_path, content):
    path = written(tmp_path, content)
    message = str(path)
    try:
        load_yaml(path)
    except SpecError as exc:
        message = str(exc)
    assert str(path) in message


@pytest.mark.parametrize(
    ("content", "where"),
    [
        ("a: [1\nb: 2", "line 2, column 2"),
        ("a: 1\nb: c: d", "line 2, column 5"),
        ("\ta: 1", "line 1, column 1"),
        ("ok: 1\nbad: *nowhere", "line 2, column 6"),
        ("{[1]: 2}", "line 1, column 2"),
        ("x: !!python/object/apply:os.system [ls]", "line 1, column 4"),
        ("--- a\n--- b", "line 2, column 1"),
    ],
)
def test_broken_yaml_is_located(tmp_path, content, where):
    path = written(tmp_path, content)
    with pytest.raises(RecipeError) as caught:
        load_yaml(path, RecipeError)
    assert f"{path} {where}: " in str(caught.value)


@pytest.mark.parametrize(
    "content",
    ["a: 2024-99-99", "a: 0x_", "!!timestamp x", "!!int x", "a: \x00", "[" * 5_000, b"\xff\xfe\x00a"],
    ids=["date", "hexadecimal", "timestamp", "integer", "control", "deep", "utf-16"],
)
def test_what_yaml_cannot_build_is_an_error_of_ours(tmp_path, content):
    with pytest.raises(SpecError, match=r"file\.yaml"):
        load_yaml(written(tmp_path, content))


def test_an_unreadable_path_says_why(tmp_path):
    with pytest.raises(SpecError, match=r"cannot read .*missing\.yaml: No such file"):
        load_yaml(tmp_path / "missing.yaml")
    with pytest.raises(AutomlError, match="Is a directory"):
        load_yaml(tmp_path)


def test_a_byte_order_mark_is_no_part_of_a_key(tmp_path):
    assert load_yaml(written(tmp_path, b"\xef\xbb\xbfa: 1")) == {"a": 1}


def test_nothing_in_yaml_is_run(tmp_path):
    trap = tmp_path / "trap"
    with pytest.raises(SpecError):
        load_yaml(written(tmp_path, f"!!python/object/apply:pathlib.Path.touch [{trap}]"))
    assert not trap.exists()


@pytest.mark.parametrize("old", [None, "old"])
@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_an_exception_leaves_the_old_file_and_no_litter(tmp_path, old, error):
    path = tmp_path / "file.txt"
    if old:
        path.write_text(old)

    def fail():
        with write_atomically(path) as temporary:
            temporary.write_text("half of the n")
            raise error

    with pytest.raises(error):
        fail()
    assert (path.read_text() if path.exists() else None) == old
    assert list(tmp_path.iterdir()) == ([path] if old else [])


def test_readers_see_the_old_file_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / "file.txt"
    write_text(path, "old")
    with write_atomically(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
        assert temporary.parent == path.parent  # a rename is atomic only within one file system
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_missing_folders_are_made(tmp_path):
    write_text(tmp_path / "a" / "b" / "file.txt", "é")
    assert (tmp_path / "a" / "b" / "file.txt").read_bytes() == "é".encode()


def test_cache_is_where_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.setenv("AUTOML_CACHE", "~/elsewhere")
    assert cache_dir() == Path.home() / "elsewhere"
    monkeypatch.delenv("AUTOML_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_dir() == tmp_path / "automl"
    for unset in ("", None):
        monkeypatch.delenv("XDG_CACHE_HOME") if unset is None else monkeypatch.setenv("XDG_CACHE_HOME", unset)
        assert cache_dir() == Path.home() / ".cache" / "automl"


def test_shipped_files_are_found_from_a_checkout():
    assert shipped("search_spaces", "image.yaml").is_file()
    assert not shipped("studies", f"nothing-{os.getpid()}.yaml").exists()


def test_a_header_ends_with_the_first_line_that_is_none(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("# source: timm: results\n#date:2026\na,b\n# no: more\n")
    assert read_header(path) == {"source": "timm: results", "date": "2026"}


@pytest.mark.parametrize(("number", "full"), [(28, True), (122, True), (5, False)])  # no space, quota, input or output
def test_a_full_disk_is_known_through_what_it_caused(number, full):
    with pytest.raises(RecipeError) as caught:
        raise RecipeError("cannot write it") from OSError(number, "of the system")
    assert is_disk_full(caught.value) is full
    assert not is_disk_full(RecipeError("cannot write it"))
    closing = RecipeError("nor be closed")
    closing.__context__ = OSError(number, "of the system")  # it was raised while that one was handled
    assert is_disk_full(closing) is full


@pytest.mark.parametrize("full", [False, True])
def test_a_file_that_cannot_be_written_is_one_line_with_the_flag(tmp_path, full):
    cause = OSError(28, "No space left on device") if full else IsADirectoryError(21, "Is a directory")
    with pytest.raises(RecipeError) as caught, explain_write_errors(tmp_path, RecipeError, "--runs"):
        raise cause
    assert str(caught.value).startswith(f"cannot write {tmp_path}: {cause.strerror}; ")
    assert ("the disk is full; " in str(caught.value)) == full == is_disk_full(cause)
    assert str(caught.value).endswith("choose another --runs")


@pytest.mark.parametrize(
    ("keys", "line"),
    [
        (("a",), 2),
        (("tune", "rank"), 5),
        (("tune", "alpha"), 3),
        (("restarts", "1"), 8),
        (("restarts", "7"), 6),
        (("flow", "x"), 9),
        (("nothing",), None),
        ((), None),
    ],
)
def test_the_line_of_a_value_or_of_what_holds_it(tmp_path, keys, line):
    text = "# a comment\na: 1\ntune:\n  name: lora\n  rank: 0\nrestarts:\n- 0.5\n- 0.4\nflow: {x: 1}\n"
    assert find_line(written(tmp_path, text), keys) == line


def test_a_name_that_stands_twice_is_refused(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text("backbone: resnet18\ntune: head\nloss:\n  name: focal\ntune: all\n")
    with pytest.raises(SpecError, match=r"recipe\.yaml line 5, column 1: tune stands there twice, first in line 2"):
        load_yaml(path)
    path.write_text("base: &base {a: 1, b: 2}\nother: {<<: *base, b: 3}\n")  # a merge is meant
    assert load_yaml(path)["other"] == {"a": 1, "b": 3}


@pytest.mark.parametrize(
    ("name", "is_page"), [("a.html", True), ("a.HTM", True), ("study.db", False), ("--json", False), ("html", False)]
)
def test_a_page_is_known_by_its_name(name, is_page):
    assert is_page_name(Path(name)) is is_page
