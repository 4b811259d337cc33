import os
import re
from html.parser import HTMLParser

import pytest
from PIL import Image

import automl
from automl.data.cache import ImageMaker
from automl.errors import DataError, RecipeError, SpaceError, SpecError
from tests.fixtures.photos import save_photos
from tests.fixtures.reporter import RecordingReporter
from tests.fixtures.view_clips import background, tone, write_clip

RECIPE = "backbone: resnet18\nimage_size: 48\naugmentation: {affine: {name: random}}\nmixing: {name: mixup}\n"
NOTHING = "backbone: {pool: {}}\naugmentation: {crop: resize, horizontal_flip: 0.0}\n"


class Tags(HTMLParser):
    """The tags of a page, each with its attributes."""

    def __init__(self):
        super().__init__()
        self.tags = []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))


@pytest.fixture
def photos(tmp_path):
    """Two classes of ten images; the name of one has to be escaped."""
    for label, seeds in {"real": range(10), "<b>fake&": range(10, 20)}.items():
        save_photos(tmp_path / "photos" / label, seeds)
    return tmp_path / "photos"


@pytest.fixture
def recipe(tmp_path):
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    return tmp_path / "recipe.yaml"


def show(data, **given):
    return automl.preview(data, reporter=RecordingReporter(), **given)


def test_a_page_and_a_picture_of_a_recipe(photos, recipe, tmp_path, browser):
    made = show(photos, recipe=recipe, out=tmp_path / "out", samples=6)
    text = made.page.read_text(encoding="utf-8")
    page = Tags()
    page.feed(text)
    titles = re.findall(r'<h2 id="image-\d">(.*?)</h2>', text)
    wanted = ["Originals", "Each augmentation alone", "Mixup and CutMix", "As training sees them", "Degraded copies"]
    assert titles == wanted
    assert "rotate_degrees 10" in text
    assert "<b>" not in text
    assert "&lt;b&gt;fake&amp;" in text
    assert all(each["alt"] for tag, each in page.tags if tag == "img")
    links = [each["href"].removeprefix("#") for tag, each in page.tags if tag == "a"]
    assert links == [each["id"] for tag, each in page.tags if tag == "h2"]
    assert len(text) < 5_000_000
    with Image.open(made.sheets[0]) as sheet:
        assert (sheet.format, sheet.width) == ("PNG", 1600)
    assert made.lines[0] == f"6 samples of 14 to train on, as the recipe {recipe} changes them."
    for width, dark in ((390, False), (1280, True)):
        with browser(made.page, dark=dark, width=width) as opened:
            loaded = "[...document.images].map((one) => (one.loading = 'eager', one.decode()))"
            opened.page.evaluate(f"Promise.all({loaded})")
            assert (opened.errors, opened.requests) == ([], [])
            assert opened.page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_no_more_files_are_decoded_than_are_shown(photos, recipe, tmp_path, monkeypatch):
    decoded, decode = [], ImageMaker.decode

    def count(maker, files):
        decoded.extend(files)
        return decode(maker, files)

    monkeypatch.setattr(ImageMaker, "decode", count)
    show(photos, recipe=recipe, out=tmp_path / "out", samples=4)
    assert len([file for file in decoded if file.startswith(str(photos))]) == 4


def test_files_that_cannot_be_read_are_counted_and_named_and_others_take_their_turn(photos, recipe, tmp_path):
    for broken in [*photos.glob("real/*")][:6]:
        broken.write_bytes(b"nothing")
    made = show(photos, recipe=recipe, out=tmp_path / "out", samples=14)
    (line,) = [line for line in made.lines if "gave no image" in line]
    count, looked_at = map(int, re.search(r"(\d+) of (\d+) files", line).groups())
    assert looked_at == 14
    assert 1 <= count <= 6
    assert re.search(r"real/\d\.png \(not an image", line)
    assert line.removeprefix("image: ").split(" (")[0] in made.page.read_text(encoding="utf-8").replace("&lt;", "<")


def test_folders_of_names_that_are_not_utf_8(photos, recipe, tmp_path):
    folder = photos.rename(os.fsdecode(os.fsencode(tmp_path) + b"/\xe9"))
    made = show(folder, recipe=recipe, out=tmp_path / "out", samples=4)
    assert "<h1>What training sees of \ufffd</h1>" in made.page.read_text(encoding="utf-8")


def test_videos_without_sound_have_no_part_for_it(tmp_path):
    space = "backbone: {pool: {}}\nview: {choice: {frame: {count: 1}, mel: {count: 1}}}\nimage_size: 32\n"
    (tmp_path / "space.yaml").write_text(space)
    for label in "ab":
        (tmp_path / "clips" / label).mkdir(parents=True)
        for number in range(5):
            write_clip(tmp_path / f"clips/{label}/{number}.mkv", [background(48 + number, 64)] * 2)
    made = show(tmp_path / "clips", space=str(tmp_path / "space.yaml"), out=tmp_path / "out", samples=2)
    assert [sheet.name for sheet in made.sheets] == ["preview.png"]
    assert [line.split(":")[0] for line in made.lines if "mel" in line] == ["view mel is not shown"]


@pytest.mark.slow
def test_sounds_have_a_part_for_each_view_with_masks(tmp_path):
    for label, hertz in (("a", 300), ("b", 900)):
        (tmp_path / "sounds" / label).mkdir(parents=True)
        for number in range(5):
            write_clip(tmp_path / f"sounds/{label}/{number}.wav", sound=tone(0.6, hertz + 40 * number))
    made = show(tmp_path / "sounds", out=tmp_path / "out", samples=2)
    assert [sheet.name for sheet in made.sheets] == ["preview-mel.png", "preview-audio_features.png"]
    text = made.page.read_text(encoding="utf-8")
    assert {"time_mask 0.2", "frequency_mask 0.1", "-38 dB", "telephone"} <= set(re.findall(r'">([^<>]+)</li>', text))


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"data": "nothing"}, DataError, "nothing"),
        ({"space": "space.yaml"}, SpaceError, "space.yaml has nothing to show: no augmentation and no mixing"),
        ({"recipe": "space.yaml"}, RecipeError, "is a search space, not a recipe"),
        ({"recipe": "missing.yaml"}, RecipeError, "cannot read missing.yaml"),
        ({"recipe": "recipe.yaml", "space": "image"}, SpecError, "--recipe and --space: give one of them"),
        ({"samples": 1}, SpecError, "--samples 1: give 2 to 200"),
        ({"out": "recipe.yaml"}, DataError, "it is a file"),
        ({"space": "audio"}, SpaceError, "looks at sounds, and the data are images"),
    ],
)
def test_what_cannot_be_shown_is_one_line(photos, recipe, tmp_path, monkeypatch, given, error, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "space.yaml").write_text(NOTHING)
    with pytest.raises(error, match=re.escape(message)) as caught:
        show(**{"data": photos} | given)
    assert len(str(caught.value).splitlines()) == 1


def test_without_a_file_that_can_be_read_there_is_nothing_to_show(photos, recipe, tmp_path):
    for broken in photos.glob("*/*"):
        broken.write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"none of the 14 images to train on in .* can be read: ") as caught:
        show(photos, recipe=recipe, out=tmp_path / "out")
    assert len(str(caught.value).splitlines()) == 1
    assert not (tmp_path / "out").exists()
