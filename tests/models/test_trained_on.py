import hashlib

import pytest

from automl.errors import WeightsError
from automl.models.trained_on import digest_name_and_size, read_trained_on, write_trained_on


def test_a_file_is_recognised_by_name_and_size_wherever_it_lies(tmp_path):
    for place, content in (("one", b"abc"), ("two", b"xyz"), ("three", b"longer")):
        (tmp_path / place).mkdir()
        (tmp_path / place / "a.png").write_bytes(content)
    one, two, three = (digest_name_and_size(tmp_path / place / "a.png") for place in ("one", "two", "three"))
    assert one == two == hashlib.sha256(b"a.png\n3").hexdigest()[:16]
    assert three != one
    assert digest_name_and_size(tmp_path / "gone.png") is None


def test_the_file_is_sorted_and_reads_back(tmp_path):
    for k in range(9):
        (tmp_path / f"{k}.png").write_bytes(b"x" * k)
    files = sorted(tmp_path.glob("*.png"))
    write_trained_on(tmp_path / "model", [*files, tmp_path / "gone.png"])
    lines = (tmp_path / "model/trained_on.txt").read_text().splitlines()
    assert lines == sorted(digest_name_and_size(path) for path in files)
    assert read_trained_on(tmp_path / "model") == set(lines)


def test_a_folder_of_before_has_none_and_a_damaged_file_is_named(tmp_path):
    assert read_trained_on(tmp_path) is None
    (tmp_path / "trained_on.txt").write_text("0123456789abcdef\nphoto.png\n")
    with pytest.raises(WeightsError, match=r"trained_on\.txt line 2: a line is 16 hexadecimal digits"):
        read_trained_on(tmp_path)
