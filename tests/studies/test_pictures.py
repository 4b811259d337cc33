"""The pictures of the pages: that they are there, small and shown, and that a recording is drawn as a terminal does."""

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
from PIL import Image

from tests.fixtures.scripts import load_script

ROOT = Path(__file__).parents[2]
pictures = load_script("pictures.py")
NAMES = sorted(["terminal.svg", *pictures.PAGES])
SVG = "{http://www.w3.org/2000/svg}"


def read_frames(svg):
    """Returns the lines of each frame, without what is between their pieces."""
    frames = []
    for group in ElementTree.fromstring(svg).iter(f"{SVG}g"):
        rows = {}
        for piece in group:
            rows.setdefault(float(piece.get("y")), []).append(piece.text)
        frames.append([" ".join(rows[y]) for y in sorted(rows)])
    return frames


def test_all_are_there_and_small():
    sizes = {file.name: file.stat().st_size for file in pictures.IMAGES.iterdir()}
    assert sorted(sizes) == NAMES
    assert max(sizes.values()) <= 150_000
    assert sum(sizes.values()) <= 400_000


@pytest.mark.parametrize("name", NAMES)
def test_each_is_shown_in_the_readme_with_words_for_who_cannot_see_it(name):
    (words,) = re.findall(rf"!\[([^\]]*)\]\(docs/images/{name}\)", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert len(words.split()) > 5


@pytest.mark.parametrize("name", pictures.PAGES)
def test_a_part_of_a_page_is_a_picture(name):
    with Image.open(pictures.IMAGES / name) as image:
        image.load()
        assert image.width >= 1400  # sharp on a screen of many pixels
        assert len(image.convert("RGB").getcolors(1 << 24)) > 16


def test_the_recording_shows_a_search_from_its_command_to_its_report_and_loads_nothing():
    text = (pictures.IMAGES / "terminal.svg").read_text(encoding="utf-8")
    frames = read_frames(text)
    assert len(frames) == pictures.MOMENTS + 1
    assert frames[0][0] == f"$ {pictures.SEARCH}"
    assert sum(any(row.startswith("trials ") for row in rows) for rows in frames) >= 4  # the live view
    assert frames[-1][-1] == "report: runs/demo/report.html"
    assert max(len(rows) for rows in frames) <= pictures.ROWS
    assert re.findall(r"(?:https?://(?!www\.w3\.org/2000/svg)|url\(|href|<script)[^\s]*", text) == []


def test_a_screen_is_what_rich_leaves_on_it():
    screen = pictures.Screen()
    screen.feed("first\r\n\x1b[?25lbar \x1b[3")
    screen.feed(
        "2mhalf\x1b[0m\r\x1b[2Kbar \x1b[32mfull\x1b[0m\r\nlast\r\x1b[2K\x1b[1A\x1b[2K\x1b[1mnew\x1b[0m\r\nlast row\r\n"
    )
    assert [row.plain for row in screen.read_rows()] == ["first", "new", "last row"]
    screen.feed("x" * (pictures.COLUMNS + 3))
    assert [row.plain for row in screen.read_rows()][-1] == "xxx"


def test_colours_and_columns_of_a_recording_are_drawn():
    recording = [(1.0, "a\r\n"), (9.0, "  \x1b[1;32m<b>\x1b[0m and\r\n")]
    svg = pictures.draw_recording("automl x", recording)
    assert read_frames(svg)[-1] == ["$ automl x", "a", "<b> and"]
    assert read_frames(svg)[0] == ["$ automl x"]
    (piece,) = (one for one in ElementTree.fromstring(svg).iter(f"{SVG}text") if one.text == "<b>")
    assert piece.get("fill") == "#3fb950"
    assert piece.get("font-weight") == "bold"
    assert float(piece.get("x")) == pytest.approx(pictures.MARGIN + 2 * pictures.CELL)


@pytest.mark.skipif(not hasattr(__import__("os"), "openpty"), reason="needs a terminal of its own, as Linux has")
def test_what_a_command_writes_to_a_terminal_is_recorded(tmp_path):
    recording = pictures.record_command("automl --version", tmp_path)
    assert re.fullmatch(r"(automl )?[\d.]+\S*\r\n", "".join(text for _, text in recording))
    with pytest.raises(SystemExit, match="ended with code 2"):
        pictures.record_command("automl no-such-command", tmp_path)
