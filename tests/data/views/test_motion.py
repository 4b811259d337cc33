import numpy as np
import pytest

from automl.data.views import NothingToSee, view_images, view_key
from automl.data.views.motion import difference_picture
from automl.recipe import Motion
from tests.data.views.clips import moving_face, write_clip


def fading(count):
    """Frames that grow brighter by 3 steps each."""
    return [np.full((32, 48, 3), 20 + 3 * number, dtype=np.uint8) for number in range(count)]


@pytest.mark.parametrize(("difference", "rest"), [("signed", 128), ("absolute", 0)])
@pytest.mark.parametrize("apart", [1, 2])
def test_change_is_drawn_with_its_gain(tmp_path, difference, rest, apart):
    path = write_clip(tmp_path / "x.mkv", fading(12))
    found = view_images(Motion(count=3, of="frame", gain=2, difference=difference, frames_apart=apart), path, 16)
    assert len(found) == 3
    assert np.abs(found.pixels.astype(int) - (rest + 2 * 3 * apart)).max() <= 2


def test_signs_and_limits():
    dark, bright = np.full((2, 2, 3), 100, np.uint8), np.full((2, 2, 3), 110, np.uint8)
    assert (difference_picture(dark, bright, True, 4) == 168).all()
    assert (difference_picture(bright, dark, True, 4) == 88).all()
    assert (difference_picture(bright, dark, False, 4) == 40).all()
    assert (difference_picture(dark, bright, True, 32) == 255).all()
    assert (difference_picture(bright, dark, True, 32) == 0).all()


def test_a_face_at_rest_gives_gray_and_one_that_moves_does_not(tmp_path):
    rest = view_images(Motion(count=2), write_clip(tmp_path / "rest.mkv", moving_face(6, step=0)), 64)
    moves = view_images(Motion(count=2), write_clip(tmp_path / "moves.mkv", moving_face(6, step=6)), 64)
    assert np.abs(rest.pixels.astype(int) - 128).max() <= 8
    assert moves.pixels.std() > 10


def test_whole_frames_need_no_detector_and_have_one_key(monkeypatch):
    monkeypatch.setattr("automl.data.faces.default_model", None)
    assert (
        view_key(Motion(of="frame", margin=2)) == view_key(Motion(of="frame")) != view_key(Motion(of="frame", gain=1))
    )


def test_one_frame_has_no_motion(tmp_path):
    with pytest.raises(NothingToSee, match="no two frames"):
        view_images(Motion(of="frame"), write_clip(tmp_path / "x.mkv", fading(1)), 16)
