import re

import av
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from skimage.data import astronaut

from automl.errors import DataError
from automl.media import video as video_module
from automl.media.video import iterate_frames, read_frames
from tests.fixtures.clip_kinds import KINDS
from tests.fixtures.clips import FRAMES, HEIGHT, RATE, WIDTH, number_of, numbers_of, tone, write_sound, write_video


def everything(path):
    """(times, numbers) of all frames, read one after the other."""
    found = [(time, number_of(pixels)) for time, pixels in iterate_frames(path)]
    return np.array([time for time, _ in found]), [number for _, number in found]


@pytest.fixture(scope="module")
def read_whole(clips):
    return {name: everything(path) for name, path in clips.items()}


@pytest.mark.parametrize("name", KINDS)
def test_every_frame_comes_once_and_in_order(name, read_whole):
    times, numbers = read_whole[name]
    assert numbers == list(range(FRAMES))
    ticks = np.array(KINDS[name].get("ticks", range(FRAMES)))
    assert np.abs(np.diff(times) - np.diff(ticks) / RATE).max() < 0.002  # Matroska counts in milliseconds


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(wanted=st.lists(st.floats(0, 5), min_size=1, max_size=4), name=st.sampled_from(sorted(KINDS)))
def test_seeking_gives_the_frames_that_reading_everything_gives(clips, read_whole, wanted, name):
    times, numbers = read_whole[name]
    frames = read_frames(clips[name], wanted)
    displayed = [max(0, int(np.searchsorted(times, t + 1e-6, side="right")) - 1) for t in wanted]
    assert numbers_of(frames) == [numbers[i] for i in displayed]
    assert frames.times_seconds == pytest.approx(times[displayed])


@pytest.mark.parametrize("name", KINDS)
def test_the_time_of_a_frame_finds_it_again(name, clips, read_whole):
    times, numbers = read_whole[name]
    order = np.random.default_rng(0).permutation(len(times))
    assert numbers_of(read_frames(clips[name], times[order])) == [numbers[i] for i in order]
    for i in (0, 7, 13, 19):  # alone: the reader comes from the beginning
        assert numbers_of(read_frames(clips[name], [times[i]])) == [numbers[i]]


def test_few_frames_of_many_keyframes_are_read_by_seeking(clips, monkeypatch):
    given_out = []
    decode_packet = video_module.decode_packet
    monkeypatch.setattr(video_module, "decode_packet", lambda packet: given_out.append(packet) or decode_packet(packet))
    assert numbers_of(read_frames(clips["h264.mp4"], [1.6])) == [16]
    assert len(given_out) <= 6  # of twenty: frames 15 to 17, and what the decoder holds back
    given_out.clear()
    assert numbers_of(read_frames(clips["one_gop.mp4"], [0.3, 0.9, 1.2])) == [3, 9, 12]
    assert len(given_out) <= FRAMES  # in one pass


def test_of_a_clip_of_four_hours_only_what_is_wanted_is_decoded(tmp_path, monkeypatch):
    path = write_video(tmp_path / "x.mp4", ticks=range(0, 4 * 3600 * RATE, 4 * 3600 * RATE // FRAMES), gop_size=1)
    given_out = []
    decode_packet = video_module.decode_packet
    monkeypatch.setattr(video_module, "decode_packet", lambda packet: given_out.append(packet) or decode_packet(packet))
    frames = read_frames(path, [3600.0, 7200.0, 10800.0])
    assert numbers_of(frames) == [5, 10, 15]
    assert frames.times_seconds == pytest.approx([3600, 7200, 10800])
    assert len(given_out) <= 9


@pytest.mark.parametrize("name", ["h264.mp4", "longer_sound.mkv", "mpeg4.avi"])
def test_a_count_spreads_evenly_over_the_pictures(name, clips):
    assert numbers_of(read_frames(clips[name], count=5)) == [2, 6, 10, 14, 18]


def test_more_frames_than_there_are_repeat_some(clips):
    numbers = numbers_of(read_frames(clips["h264.mp4"], count=40))
    assert numbers == sorted([*range(FRAMES), *range(FRAMES)])


def test_frames_of_a_variable_rate_are_counted_in_time(clips):
    assert numbers_of(read_frames(clips["vfr.mp4"], [1.9, 2.0, 3.95])) == [6, 7, 13]


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_a_rotated_video_is_upright(tmp_path, degrees):
    path = write_video(tmp_path / "x.mp4", ticks=range(6), degrees=degrees)
    frames = read_frames(path, count=6)
    assert frames.pixels.shape == (6, HEIGHT, WIDTH, 3)
    assert numbers_of(frames) == list(range(6))
    red, blue = frames.pixels[0, -8:, :8], frames.pixels[0, -8:, -8:]
    assert red[..., 0].mean() > 180 > 80 > red[..., 2].mean()
    assert blue[..., 2].mean() > 180 > 80 > blue[..., 0].mean()


@pytest.mark.parametrize("size", [24, 48, 100])
def test_the_short_side_is_shrunk_and_never_enlarged(clips, size):
    height = min(size, HEIGHT)
    for pixels in (
        read_frames(clips["h264.mp4"], count=2, size=size).pixels[1],
        next(iterate_frames(clips["h264.mp4"], size=size))[1],
    ):
        assert pixels.shape == (height, height * WIDTH // HEIGHT, 3)
        assert pixels.dtype == np.uint8


@pytest.mark.parametrize("name", ["h264.mp4", "yuv444p10.mkv", "vp8.webm"])
def test_colors_survive(name, clips):
    pixels = read_frames(clips[name], [0.0]).pixels[0].astype(int)
    assert np.abs(pixels[-16:, 4:24].mean((0, 1)) - (220, 30, 30)).max() < 12
    assert np.abs(pixels[-16:, 40:60].mean((0, 1)) - (30, 30, 220)).max() < 12


def test_a_stride_leaves_frames_out(clips):
    assert [number_of(pixels) for _, pixels in iterate_frames(clips["b_frames.mp4"], stride=6)] == [0, 6, 12, 18]


def test_reading_twice_gives_the_same_bytes(clips):
    first, second = (read_frames(clips["b_frames.mp4"], count=6, size=32).pixels for _ in range(2))
    assert first.tobytes() == second.tobytes()


@pytest.mark.parametrize("name", ["видео 12:30 ü.mp4", "no_ending", "100%03d.mp4"])
def test_any_name_will_do(name, clips, tmp_path):
    path = tmp_path / name
    path.write_bytes(clips["h264.mp4"].read_bytes())
    assert numbers_of(read_frames(path, count=2)) == [5, 15]


def test_pictures_missing_at_the_end_are_an_error(clips, tmp_path):
    path = tmp_path / "x.mkv"
    path.write_bytes(clips["gray.mkv"].read_bytes()[: clips["gray.mkv"].stat().st_size // 4])
    with pytest.raises(DataError, match=r"x\.mkv: cut off"):
        read_frames(path, count=4)


def test_sound_has_no_frames(tmp_path, clips):
    path = write_sound(tmp_path / "x.wav", tone(0.1, 8000), 8000)
    for read in (lambda: read_frames(path, count=1), lambda: next(iterate_frames(path))):
        with pytest.raises(DataError, match="no video track"):
            read()


def test_either_times_or_a_count(clips):
    with pytest.raises(ValueError, match="either times_seconds or a positive count"):
        read_frames(clips["h264.mp4"])
    with pytest.raises(ValueError, match="either times_seconds or a positive count"):
        read_frames(clips["h264.mp4"], [0.0], 3)


@pytest.mark.shared
def test_frames_of_a_real_clip_are_those_of_reading_everything(shared):
    path = shared / "data" / "ffdv_videos" / "valset" / "dfdc_yhffcuhhjy.mp4"
    wanted = [0.5, 1.234, 2.0]
    whole = []
    for time, pixels in iterate_frames(path, size=64):
        whole.append((time, pixels))
        if time > max(wanted):
            break
    frames = read_frames(path, wanted, size=64)
    for time, pixels, t in zip(frames.times_seconds, frames.pixels, wanted, strict=True):
        expected = max((entry for entry in whole if entry[0] <= t), key=lambda entry: entry[0])
        assert time == expected[0]
        assert (pixels == expected[1]).all()


def test_an_old_x264_is_recognised_after_a_seek(tmp_path):
    """Its version, which says how 4:4:4 is to be decoded, stands in the first packet alone.

    Nobody has an old x264: a new one's video is said to be an old one's, which a decoder that knows it decodes wrongly.
    """
    new, old = tmp_path / "new.mp4", tmp_path / "old.mp4"
    photograph = astronaut()
    with av.open(str(new), "w") as container:
        stream = container.add_stream("libx264", rate=RATE, options={"crf": "23", "g": "5"})
        stream.width, stream.height, stream.pix_fmt = 256, 192, "yuv444p"
        for number in range(FRAMES):
            pixels = np.ascontiguousarray(photograph[3 * number :, 5 * number :][:192, :256])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels)))
        container.mux(stream.encode())
    version = re.search(rb"x264 - core \d{3}", new.read_bytes())
    assert version is not None
    old.write_bytes(new.read_bytes().replace(version[0], b"x264 - core 148"))
    right, wrong = ([pixels for _, pixels in iterate_frames(path)] for path in (new, old))
    assert np.abs(right[16].astype(int) - wrong[16]).mean() > 50
    sought, sought_wrong = (read_frames(path, [1.6]).pixels[0] for path in (new, old))
    assert (sought == right[16]).all()
    assert np.abs(right[16].astype(int) - sought_wrong).mean() > 50


def test_a_real_clip_of_an_old_x264_is_the_same_by_seeking(shared):
    path = shared / "data" / "ffdv_videos" / "valset" / "ffpp_634.mp4"
    found = read_frames(path, [13.0], size=120)
    whole = dict(iterate_frames(path, size=120))
    assert (found.pixels[0] == whole[found.times_seconds[0]]).all()
