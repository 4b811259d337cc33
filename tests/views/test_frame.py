import numpy as np
import pytest

from automl.views.base import cut_square
from automl.views.frame import Frame
from automl.views.registry import make_images
from tests.fixtures.view_clips import write_clip


def plain(value, count):
    return [np.full((32, 48, 3), value, dtype=np.uint8)] * count


def test_even_frames_are_those_in_the_middle_of_equal_parts(tmp_path):
    frames = [np.full((32, 48, 3), 10 * number, dtype=np.uint8) for number in range(20)]
    found = make_images(Frame(count=4), write_clip(tmp_path / "x.mkv", frames), 16)
    assert found.times_seconds == pytest.approx([0.2, 0.7, 1.2, 1.7])
    assert found.pixels.mean(axis=(1, 2, 3)) == pytest.approx([20, 70, 120, 170], abs=2)


def test_scenes_get_a_frame_each_however_short(tmp_path):
    path = write_clip(tmp_path / "x.mkv", [*plain(20, 30), *plain(120, 6), *plain(220, 6)])
    found = make_images(Frame(count=3, placement="scenes"), path, 16)
    assert found.pixels.mean(axis=(1, 2, 3)) == pytest.approx([20, 120, 220], abs=3)
    even = make_images(Frame(count=3), path, 16)
    assert even.pixels.mean(axis=(1, 2, 3)).round().tolist() != found.pixels.mean(axis=(1, 2, 3)).round().tolist()


def test_one_scene_is_cut_into_parts(tmp_path):
    path = write_clip(tmp_path / "x.mkv", plain(100, 20))
    times = make_images(Frame(count=4, placement="scenes"), path, 16).times_seconds
    assert len(times) == 4
    assert np.diff(times).min() > 0.3


def test_a_clip_of_fewer_frames_says_so(tmp_path):
    found = make_images(Frame(count=8), write_clip(tmp_path / "x.mkv", plain(100, 3)), 16)
    assert len(found) == 3
    assert "3 frames instead of 8" in found.notes[0]


@pytest.mark.parametrize(("height", "width"), [(20, 60), (60, 20), (20, 20), (100, 300)])
def test_the_middle_square_is_taken_and_nothing_added(height, width):
    picture = np.zeros((height, width, 3), dtype=np.uint8)
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    picture[top : top + side, left : left + side] = 200
    assert (cut_square(picture, 40) == 200).all()


@pytest.mark.parametrize(("height", "width"), [(270, 480), (480, 270), (24, 60)])
def test_squashed_frames_show_what_lies_at_their_ends(tmp_path, height, width):
    frame = np.full((height, width, 3), 90, dtype=np.uint8)
    along = frame if height > width else frame.swapaxes(0, 1)
    along[: len(along) // 5] = 230
    path = write_clip(tmp_path / "x.mkv", [frame] * 3)
    assert abs(make_images(Frame(count=1), path, 40).pixels.astype(int) - 90).max() < 12
    found = make_images(Frame(count=1, fit="squash"), path, 40).pixels
    assert found.shape == (1, 40, 40, 3)
    rows = found[0] if height > width else found[0].swapaxes(0, 1)
    assert abs(rows[:6].astype(int) - 230).max() < 12
    assert abs(rows[12:].astype(int) - 90).max() < 12
