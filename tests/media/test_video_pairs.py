"""Neighbouring frames, however long each is displayed."""

import numpy as np
import pytest

from automl.media.video import iterate_frames, read_pairs
from tests.fixtures.clip_kinds import KINDS
from tests.fixtures.clips import FRAMES, numbers_of, write_video


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("apart", [1, 3])
def test_the_later_frame_is_the_one_that_follows(name, clips, apart):
    first, second = read_pairs(clips[name], 6, apart)
    starts = numbers_of(first)
    assert starts == sorted(set(starts))
    assert len(starts) == 6 or "ticks" in KINDS[name]
    assert numbers_of(second) == [number + apart for number in starts]
    times = [time for time, _ in iterate_frames(clips[name])]
    assert first.times_seconds == pytest.approx([times[number] for number in starts])
    assert second.times_seconds == pytest.approx([times[number + apart] for number in starts])


@pytest.mark.parametrize("name", ["h264.mp4", "b_frames.mp4", "one_gop.mp4", "gray.mkv", "b_frames.avi", "no_index.ts"])
@pytest.mark.parametrize("apart", [1, 4])
def test_every_pair_is_found_if_so_many_are_wanted(name, clips, apart):
    first, second = read_pairs(clips[name], FRAMES - apart, apart)
    assert numbers_of(first) == list(range(FRAMES - apart))
    assert numbers_of(second) == list(range(apart, FRAMES))


@pytest.mark.parametrize("gop_size", [1, 250])
@pytest.mark.parametrize("apart", [1, 2])
def test_a_last_frame_that_stays_long_has_a_pair(tmp_path, gop_size, apart):
    path = write_video(tmp_path / "x.mkv", ticks=[*range(9), 30, 31, 100], gop_size=gop_size)
    first, second = read_pairs(path, 8, apart)
    assert numbers_of(first)[-1] == 11 - apart
    assert numbers_of(second) == [number + apart for number in numbers_of(first)]


@pytest.mark.parametrize(("frames", "apart"), [(1, 1), (3, 3), (3, 25)])
def test_too_few_frames_have_no_pairs(tmp_path, frames, apart):
    first, second = read_pairs(write_video(tmp_path / "x.mp4", ticks=range(frames)), 4, apart)
    assert len(first) == len(second) == 0
    assert first.pixels.dtype == np.uint8


def test_pairs_are_shrunk_like_frames(clips):
    first, second = read_pairs(clips["h264.mp4"], 2, size=24)
    assert first.pixels.shape == second.pixels.shape == (2, 24, 32, 3)


@pytest.mark.parametrize("wrong", [{"count": 0}, {"count": 1, "apart": 0}])
def test_impossible_wishes(clips, wrong):
    with pytest.raises(ValueError, match="must be positive"):
        read_pairs(clips["h264.mp4"], **wrong)
