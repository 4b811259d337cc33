import pytest

from automl.inspection.page import inspect_clip
from automl.inspection.picture_page import inspect_folder, inspect_image
from automl.models.folder import write_ensemble
from automl.views.frame import Frame
from automl.views.mel import Mel
from tests.fixtures.models import write
from tests.fixtures.photos import save_photos


def check_page(browser, path, figures, images):
    """Opens a page on a phone in the dark: every figure drew, nothing was fetched, nothing is wider than the screen."""
    with browser(path, dark=True, width=390) as opened:
        if figures:
            opened.wait_for_figures()
        page = opened.page
        assert page.locator(".js-plotly-plot").count() == figures
        assert page.locator("ul.tiles img").count() == images
        assert page.evaluate("[...document.images].every((image) => image.naturalWidth > 0)")
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        assert (opened.errors, opened.requests) == ([], [])


@pytest.fixture
def photos(tmp_path):
    return save_photos(tmp_path / "<b>&photos", range(5))


def test_the_page_of_an_image(tmp_path, photos, browser):
    model = write(tmp_path / "model").path
    done = inspect_image(photos[0], tmp_path / "out", model, "cpu")
    assert done.lines[0].startswith("Probability of class fake: 0.")
    assert any("Grad-CAM and occlusion" in line for line in done.lines)
    text = done.page.read_text(encoding="utf-8")
    assert "What a map is not proof of" in text
    check_page(browser, done.page, 0, 3)


def test_the_page_of_a_folder(tmp_path, photos, browser):
    model = write(tmp_path / "model", classes=("real", "<i>fake")).path
    done = inspect_folder(photos[0].parent, tmp_path / "out", model, "cpu", most=3)
    assert done.lines[0] == (
        "5 files scored, the highest probability of class <i>fake first: 3 shown; 2 files left out (--most)."
    )
    text = done.page.read_text(encoding="utf-8")
    assert "<i>fake" not in text
    assert "<b>&photos" not in text
    assert "<h1>&lt;b&gt;&amp;photos</h1>" in text
    check_page(browser, done.page, 0, 6)


@pytest.mark.slow
def test_the_page_of_a_clip_has_maps_of_its_frames_and_its_sound(tmp_path, talk, browser):
    write(tmp_path / "both" / "f", view=Frame(count=2))
    write(tmp_path / "both" / "m", view=Mel(count=2, seconds=0.5))
    write_ensemble(tmp_path / "both", {"f": 0.5, "m": 0.5})
    done = inspect_clip(talk, tmp_path / "out", 8, model=tmp_path / "both", device="cpu")
    text = done.page.read_text(encoding="utf-8")
    assert "Where the score comes from" in text
    assert "mel, 0.00 to 0.50 s" in text
    assert "hottest at " in text
    check_page(browser, done.page, 5, 6)  # similarity, two parts of the sound, its spectrogram, its features
