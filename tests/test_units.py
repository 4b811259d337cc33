import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from automl.errors import SpecError
from automl.units import (
    Share,
    format_bytes,
    format_count,
    format_figure,
    format_seconds,
    format_share,
    parse_bytes,
    parse_memory,
    parse_seconds,
)

UNITS = {"": 1, "B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
UNITS |= {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
SECONDS = {"d": 86_400, "h": 3_600, "m": 60, "s": 1}


@settings(deadline=None)
@given(number=st.integers(1, 10**6), unit=st.sampled_from(list(UNITS)), space=st.sampled_from(["", " "]))
def test_sizes_mean_what_their_units_say(number, unit, space):
    for spelling in (unit, unit.lower(), unit.upper()):
        assert parse_bytes(f" {number}{space}{spelling} ") == number * UNITS[unit]


@settings(deadline=None)
@given(size=st.integers(1, 10**18 - 1))
def test_plain_bytes_are_exact(size):
    assert parse_bytes(size) == parse_bytes(str(size)) == size


@settings(deadline=None)
@given(size=st.integers(1, 10**17))
def test_formatted_sizes_read_back_within_their_three_digits(size):
    assert parse_bytes(format_bytes(size)) == pytest.approx(size, rel=0.0051)


@settings(deadline=None)
@given(size=st.integers(0, 10**15))
def test_formatted_sizes_are_short(size):
    assert len(format_bytes(size)) <= 6


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0B"),
        (999, "999B"),
        (999_500, "1MB"),
        (15.9e9, "15.9GB"),
        (10**9 - 1, "1GB"),
        (1e15, "1000TB"),
        (-5e9, "-5GB"),
    ],
)
def test_sizes_as_people_write_them(size, text):
    assert format_bytes(size) == text


@pytest.mark.parametrize(("value", "size"), [(1.5, 1), (16e9, 16 * 10**9), ("0.5kB", 500), ("1.1GB", 1_100_000_000)])
def test_fractions_of_bytes_are_cut_off(value, size):
    assert parse_bytes(value) == size


BAD_SIZES = ["", "GB", "-1GB", "16 G B", "16GBB", "1e9", "16,5GB", "٣GB", "9" * 400 + "GB", True, None, -1, [], "b"]


@pytest.mark.parametrize("value", [*BAD_SIZES, float("nan"), float("inf"), 1e30, "0", 0, 0.4, "0.4B"])
def test_what_is_no_size_is_quoted_with_a_fix(value):
    with pytest.raises(SpecError) as caught:
        parse_bytes(value)
    assert repr(value) in str(caught.value)
    assert "16GB" in str(caught.value)


@settings(deadline=None)
@given(parts=st.lists(st.integers(0, 999), min_size=4, max_size=4), space=st.sampled_from(["", " "]))
def test_durations_add_their_parts(parts, space):
    text = space.join(f"{n}{unit}" for n, unit in zip(parts, SECONDS, strict=True) if n)
    total = sum(n * s for n, s in zip(parts, SECONDS.values(), strict=True))
    if total:
        assert parse_seconds(text) == parse_seconds(text.upper()) == total


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("1d", 86_400),
        ("8h30m", 30_600),
        ("1.5h", 5_400),
        (" 40m ", 2_400),
        ("90", 90),
        (90, 90),
        (0.5, 0.5),
        (1e-7, 1e-7),
    ],
)
def test_durations_as_people_write_them(value, seconds):
    assert parse_seconds(value) == pytest.approx(seconds)


@settings(deadline=None)
@given(seconds=st.floats(1e-6, 1e9))
def test_a_float_is_its_own_duration(seconds):
    assert parse_seconds(seconds) == seconds


@settings(deadline=None)
@given(seconds=st.floats(0.06, 1e8))
def test_formatted_durations_read_back_within_their_smaller_unit(seconds):
    unit = 0.05 if seconds < 9.95 else 0.5 if seconds < 3_599.5 else 60 if seconds < 86_400 else 3_600
    assert parse_seconds(format_seconds(seconds)) == pytest.approx(seconds, abs=unit * 1.001)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0.0s"), (4.24, "4.2s"), (9.96, "10s"), (59.6, "1m00s"), (185, "3m05s"), (30_600, "8h30m"), (90_000, "1d01h")],
)
def test_durations_are_written_with_two_units(seconds, text):
    assert format_seconds(seconds) == text


BAD_DURATIONS = [
    "",
    " ",
    "m",
    "-3",
    "h30m",
    "30m8h",
    "1h30",
    "1e3",
    "1.h",
    ".5h",
    "٣s",
    "9" * 400,
    "8h30m!",
    True,
    None,
]


@pytest.mark.parametrize("value", [*BAD_DURATIONS, -3, float("nan"), float("inf"), 1e30, "0", 0, "0h0m"])
def test_what_is_no_duration_is_quoted_with_a_fix(value):
    with pytest.raises(SpecError) as caught:
        parse_seconds(value)
    assert repr(value) in str(caught.value)
    assert "8h30m" in str(caught.value)


@settings(deadline=None)
@given(text=st.text(max_size=12))
def test_any_text_is_read_or_refused(text):
    for parse in (parse_bytes, parse_seconds):
        with contextlib.suppress(SpecError):
            assert parse(text) > 0
    with contextlib.suppress(SpecError):
        parse_memory(text)


@settings(deadline=None)
@given(percent=st.floats(1, 100), space=st.sampled_from(["", " "]))
def test_a_written_share_reads_back_the_same(percent, space):
    assert parse_memory(f"{space}{Share(percent)}{space}") == Share(percent) == parse_memory(Share(percent))


@pytest.mark.parametrize(
    ("value", "memory"),
    [("90%", Share(90)), (" 87.5 % ", Share(87.5)), ("Auto", "auto"), ("16GiB", 16 * 2**30), (16e9, 16 * 10**9)],
)
def test_gpu_memory_as_people_write_it(value, memory):
    assert parse_memory(value) == memory


def test_a_share_is_written_short():
    assert [str(Share(percent)) for percent in (90, 90.0, 87.5)] == ["90%", "90%", "87.5%"]


@pytest.mark.parametrize("value", ["%", "0%", "0.9%", "101%", "-5%", "1e1%", "5%%", "9" * 30 + "%"])
def test_what_is_no_share_is_quoted_with_a_fix(value):
    with pytest.raises(SpecError, match=r"\b90%") as caught:
        parse_memory(value)
    assert value.rstrip("%") in str(caught.value)


@pytest.mark.parametrize("value", [*BAD_SIZES, "automatic", "most"])
def test_what_is_no_memory_is_quoted_with_every_way_to_write_it(value):
    with pytest.raises(SpecError) as caught:
        parse_memory(value)
    assert all(part in str(caught.value) for part in (repr(value), "16GB", "auto", "90%"))


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0341, "0.0341"), (5.678, "5.68"), (88, "88"), (999.4, "999"), (1136.48, "1,136"), (6716.03, "6,716"), (0, "0")],
)
def test_figures_have_three_digits_and_no_exponent(value, text):
    assert format_figure(value) == text


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0 rows"), (1, "1 row"), (1.0, "1 row"), (2, "2 rows"), (0.5, "0.5 rows"), (1557, "1,557 rows")],
)
def test_one_is_singular(number, text):
    assert format_count(number, "row") == text
    assert format_count(number, "property", "properties") == text.replace("rows", "properties").replace(
        "row", "property"
    )


@pytest.mark.parametrize(
    ("done", "wanted", "text"), [(0, 1, "0 of 1 trial"), (2, 5, "2 of 5 trials"), (3, 2, "3 trials"), (1, 0, "1 trial")]
)
def test_more_than_was_wanted_is_not_a_part_of_it(done, wanted, text):
    assert format_share(done, wanted, "trial") == text
