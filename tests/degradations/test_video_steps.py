from fractions import Fraction

import av
import numpy as np
import pytest

from automl.degradations.copies import degrade_file
from automl.degradations.degradation import choose_degradations
from automl.errors import DataError
from automl.media.info import probe_media
from automl.media.sound import read_sound
from automl.media.video import iterate_frames
from automl.views.registry import make_images, make_view
from tests.fixtures.clips import FRAMES, HEIGHT, WIDTH, number_of, picture, tone, write_video


@pytest.fixture
def clip(tmp_path):
    return write_video(tmp_path / "clip.mp4", sound=tone(2.0, 16_000))


@pytest.fixture
def degrade(tmp_path):
    def apply(name, source, folder="copies"):
        return degrade_file(source, choose_degradations([name], medium="video")[0], tmp_path / folder)

    return apply


def write_noisy(path):
    """A clip of details that move, with a little noise."""
    random = np.random.default_rng(5)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10, options={"qp": "0"})
        stream.width, stream.height, stream.pix_fmt, stream.thread_count = 320, 240, "yuv444p", 1
        base = random.integers(0, 256, (60, 80, 3)).repeat(4, 0).repeat(4, 1)
        for number in range(10):
            moved = np.roll(base, 5 * number, axis=1)
            pixels = (moved + random.normal(0, 6, base.shape)).clip(0, 255).astype(np.uint8)
            frame = av.VideoFrame.from_ndarray(pixels)
            frame.pts, frame.time_base = number, Fraction(1, 10)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def test_a_lower_rate_is_a_smaller_file_and_a_worse_picture(tmp_path, degrade):
    source = write_noisy(tmp_path / "noisy.mp4")
    frames = np.stack([pixels for _, pixels in iterate_frames(source)]).astype(float)
    sizes, errors = [], []
    for name in ("h264-28", "h264-35", "h264-42"):
        copy = degrade(name, source)
        info = probe_media(copy)
        assert (info.video.codec, info.video.pixel_format, info.video.frames) == ("h264", "yuv420p", 10)
        assert info.duration_seconds == pytest.approx(1.0, abs=0.01)
        sizes.append(copy.stat().st_size)
        errors.append(np.square(np.stack([pixels for _, pixels in iterate_frames(copy)]) - frames).mean())
    assert sizes[2] < 0.9 * sizes[1] < 0.7 * sizes[0]
    assert errors[0] < errors[1] < errors[2]


def test_every_second_frame_is_dropped_and_the_rest_stays_as_it_was(clip, degrade):
    copy = degrade("frames-half", clip)
    frames, source = list(iterate_frames(copy)), list(iterate_frames(clip))
    assert [number_of(pixels) for _, pixels in frames] == list(range(0, FRAMES, 2))
    assert [seconds for seconds, _ in frames] == pytest.approx([seconds for seconds, _ in source[::2]], abs=1e-4)
    for (_, pixels), (_, expected) in zip(frames, source[::2], strict=True):
        assert np.abs(pixels.astype(float) - expected).max() <= 3  # RGB to YUV and back, and no more
    assert probe_media(copy).duration_seconds == pytest.approx(2.0, abs=0.05)


def test_some_frames_are_dropped_at_random_the_same_each_time(tmp_path, degrade):
    source = write_video(tmp_path / "long.mp4", ticks=range(100))
    copies = [degrade("frames-random", source, folder) for folder in ("one", "two")]
    numbers = [[number_of(pixels) for _, pixels in iterate_frames(copy)] for copy in copies]
    assert numbers[0] == numbers[1]
    assert numbers[0][0] == 0
    assert numbers[0] == sorted(set(numbers[0]))
    assert 60 <= len(numbers[0]) <= 80
    assert len(set(np.diff(numbers[0]))) > 1  # at random, not in steps
    assert probe_media(copies[0]).duration_seconds == pytest.approx(10.0, abs=0.5)


@pytest.mark.parametrize(("name", "factor"), [("size-half", 2), ("size-quarter", 4)])
def test_frames_are_smaller_and_all_there(name, factor, clip, degrade):
    info = probe_media(copy := degrade(name, clip))
    assert (info.video.width, info.video.height) == (WIDTH // factor, HEIGHT // factor)
    assert [number_of(pixels) for _, pixels in iterate_frames(copy)] == list(range(FRAMES))


@pytest.mark.parametrize("name", ["h264-35", "frames-half", "size-half"])
def test_the_sound_stays(name, clip, degrade):
    before, after = read_sound(clip, 16_000), read_sound(degrade(name, clip), 16_000)
    assert before.shape == after.shape
    assert np.abs(before - after).max() < 1e-6


def test_a_clip_without_sound_has_none(tmp_path, degrade):
    assert probe_media(degrade("h264-28", write_video(tmp_path / "mute.mp4"))).audio is None


def test_a_clip_that_lies_on_its_side_is_written_upright(tmp_path, degrade):
    copy = degrade("frames-half", write_video(tmp_path / "side.mp4", degrees=90.0))
    info = probe_media(copy)
    assert (info.video.width, info.video.height, info.video.rotation_degrees) == (WIDTH, HEIGHT, 0)
    assert [number_of(pixels) for _, pixels in iterate_frames(copy)] == list(range(0, FRAMES, 2))


def test_pictures_that_begin_late_keep_their_times(tmp_path, degrade):
    source = write_video(tmp_path / "late.mp4", ticks=range(5, 15), sound=tone(1.5, 16_000))
    copy = degrade("h264-28", source)
    assert [seconds for seconds, _ in iterate_frames(copy)] == pytest.approx(
        [seconds for seconds, _ in iterate_frames(source)], abs=1e-4
    )


def test_an_odd_size_loses_its_last_row_for_the_lossy_copy_alone(tmp_path, degrade):
    odd = tmp_path / "odd.mkv"
    with av.open(str(odd), "w") as container:
        stream = container.add_stream("ffv1", rate=10)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT - 1, "yuv444p"
        for number in range(3):
            frame = av.VideoFrame.from_ndarray(picture(number)[:-1]).reformat(format="yuv444p")
            frame.pts, frame.time_base = number, Fraction(1, 10)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    for name, height in (("h264-28", HEIGHT - 2), ("frames-half", HEIGHT - 1)):
        video = probe_media(degrade(name, odd)).video
        assert (video.width, video.height) == (WIDTH, height)


def test_a_clip_that_is_cut_off_has_no_copy(tmp_path, degrade):
    content = write_video(tmp_path / "whole.mp4", codec="mjpeg", pixel_format="yuvj420p", ticks=range(40)).read_bytes()
    short, holed = tmp_path / "short.mp4", tmp_path / "holed.mp4"
    short.write_bytes(content[:-500])
    begin = content.index(b"mdat") + 4
    half = begin + (len(content) - begin) // 2
    index = content.index(b"moov")  # which follows the frames: two seconds of these are overwritten
    holed.write_bytes(content[:half] + bytes(index - 4 - half) + content[index - 4 :])
    for path, reason in (
        (short, "cut off"),
        (holed, "cut off: it ends after"),
        (tmp_path / "none.mp4", "no such file"),
    ):
        with pytest.raises(DataError, match=rf"cannot read {path}: .*{reason}|cannot read {path}: No such file"):
            degrade("frames-half", path)
    assert not list((tmp_path / "copies").glob("*"))


def test_views_read_a_copy(clip, degrade):
    images = make_images(make_view({"name": "frame"}), degrade("h264-28", clip), 32)
    assert images.pixels.shape[1:] == (32, 32, 3)
    assert [number_of(pixels) for pixels in images.pixels] == sorted({number_of(pixels) for pixels in images.pixels})


@pytest.mark.slow
def test_a_real_clip(shared, tmp_path, degrade):
    source = shared / "data" / "ffdv_videos" / "trainset" / "ffpp_004.mp4"
    copy = degrade("size-quarter", source)
    before, after = probe_media(source), probe_media(copy)
    assert (after.video.width, after.video.height) == (before.video.width // 4, before.video.height // 4)
    assert after.video.frames == before.video.frames
    assert after.duration_seconds == pytest.approx(before.duration_seconds, abs=0.05)
