from fractions import Fraction

import av
import numpy as np
import pytest

from automl.views.base import NothingToSee
from automl.views.motion import Motion, draw_difference
from automl.views.registry import make_images
from tests.fixtures.view_clips import moving_face, write_clip


def fading(count):
    """Frames that grow brighter by 3 steps each."""
    return [np.full((32, 48, 3), 20 + 3 * number, dtype=np.uint8) for number in range(count)]


@pytest.mark.parametrize(("difference", "rest"), [("signed", 128), ("absolute", 0)])
@pytest.mark.parametrize("apart", [1, 2])
def test_change_is_drawn_with_its_gain(tmp_path, difference, rest, apart):
    path = write_clip(tmp_path / "x.mkv", fading(12))
    found = make_images(Motion(count=3, of="frame", gain=2, difference=difference, frames_apart=apart), path, 16)
    assert len(found) == 3
    assert np.abs(found.pixels.astype(int) - (rest + 2 * 3 * apart)).max() <= 2


def test_signs_and_limits():
    dark, bright = np.full((2, 2, 3), 100, np.uint8), np.full((2, 2, 3), 110, np.uint8)
    assert (draw_difference(dark, bright, True, 4) == 168).all()
    assert (draw_difference(bright, dark, True, 4) == 88).all()
    assert (draw_difference(bright, dark, False, 4) == 40).all()
    assert (draw_difference(dark, bright, True, 32) == 255).all()
    assert (draw_difference(bright, dark, True, 32) == 0).all()


def test_a_face_at_rest_gives_gray_and_one_that_moves_does_not(tmp_path):
    rest = make_images(Motion(count=2), write_clip(tmp_path / "rest.mkv", moving_face(6, step=0)), 64)
    moves = make_images(Motion(count=2), write_clip(tmp_path / "moves.mkv", moving_face(6, step=6)), 64)
    assert np.abs(rest.pixels.astype(int) - 128).max() <= 8
    assert moves.pixels.std() > 10


def test_whole_frames_need_no_detector_and_have_one_key(monkeypatch):
    monkeypatch.setattr("automl.views.face_detector.find_default_model", None)
    assert Motion(of="frame", margin=2).key == Motion(of="frame").key != Motion(of="frame", gain=1).key


def write_at(path, milliseconds, gop_size=10):
    """Writes a frame for each time, brighter by 3 steps each."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=30, options={"qp": "0"})
        video.width, video.height, video.pix_fmt = 48, 32, "yuv444p"
        video.codec_context.time_base, video.gop_size = Fraction(1, 1000), gop_size
        for number, time in enumerate(milliseconds):
            picture = av.VideoFrame.from_ndarray(np.full((32, 48, 3), 20 + 3 * (number % 70), dtype=np.uint8))
            picture.pts, picture.time_base = int(time), Fraction(1, 1000)
            container.mux(video.encode(picture))
        container.mux(video.encode())
    return path


def trimmed(path, target, seconds):
    """Copies a clip so that an edit list leaves its beginning out; the frames it decodes from stay in the file."""
    with av.open(str(path)) as source, av.open(str(target), "w") as container:
        video = source.streams.video[0]
        copy = container.add_stream_from_template(video)
        for packet in source.demux(video):
            if packet.dts is not None:
                packet.pts -= round(seconds / packet.time_base)
                packet.dts -= round(seconds / packet.time_base)
                packet.stream = copy
                container.mux(packet)
    return target


def brighter_by(found, apart):
    """Whether each picture of gain 2 shows what `apart` steps of 3 change; where 70 frames are over, it is darker."""
    changes = found.pixels.astype(int).mean(axis=(1, 2, 3)) - 128
    return all(abs(c - 6 * apart) <= 2 for c in changes if c > 0) and sum(changes > 0) >= len(changes) - 2


@pytest.mark.parametrize("ending", ["mkv", "mp4"])
@pytest.mark.parametrize("apart", [1, 3])
def test_150_frames_at_a_variable_rate_have_all_their_pairs(tmp_path, ending, apart):
    steps = np.random.default_rng(0).integers(10, 103, 150)
    path = write_at(tmp_path / f"x.{ending}", np.cumsum(steps * 8400 // steps.sum()))
    found = make_images(Motion(of="frame", count=8, gain=2, frames_apart=apart), path, 16)
    assert (len(found), found.notes) == (8, ())
    assert brighter_by(found, apart)


@pytest.mark.parametrize("ending", ["mkv", "mp4"])
def test_30_and_then_15_frames_a_second_have_all_their_pairs(tmp_path, ending):
    path = write_at(tmp_path / f"x.{ending}", [*np.arange(60) * 1000 / 30, *(2000 + np.arange(30) * 1000 / 15)])
    found = make_images(Motion(of="frame", count=8, gain=2), path, 16)
    assert (len(found), found.notes) == (8, ())
    assert brighter_by(found, 1)


@pytest.mark.parametrize("count", [4, 8, 24])
def test_a_clip_trimmed_by_an_edit_list_keeps_its_last_pair(tmp_path, count):
    path = trimmed(write_at(tmp_path / "x.mp4", range(0, 2000, 50)), tmp_path / "y.mp4", 0.75)
    found = make_images(Motion(of="frame", count=count, gain=2), path, 16)
    assert (len(found), found.notes) == (count, ())  # of 25 frames
    assert brighter_by(found, 1)
    assert found.times_seconds[-1] > 1.2 - 1.25 / count


def test_one_frame_has_no_motion(tmp_path):
    with pytest.raises(NothingToSee, match="no two frames"):
        make_images(Motion(of="frame"), write_clip(tmp_path / "x.mkv", fading(1)), 16)
