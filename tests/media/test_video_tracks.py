"""Which of several tracks is read: the default one, else FFmpeg's choice, never a cover."""

import struct
from fractions import Fraction

import av
import numpy as np
import pytest

from automl.errors import DataError
from automl.media.info import probe_media
from automl.media.opening import _MOST_TRACKS
from automl.media.sound import read_sound
from automl.media.video import read_frames
from tests.fixtures.clips import shown_size, tone

DEFAULT, COVER = av.stream.Disposition.default, av.stream.Disposition.attached_pic
NONE = av.stream.Disposition(0)
SMALL, LARGE = (64, 48), (128, 96)
RATE = 16_000


def write_pictures(path, *tracks):
    """Writes (size, frames, disposition, codec) each; the larger a track the brighter it is."""
    with av.open(str(path), "w") as container:
        streams = []
        for (width, height), frames, disposition, codec in tracks:
            stream = container.add_stream(codec, rate=25)
            stream.width, stream.height, stream.disposition = width, height, disposition
            stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
            streams.append((stream, frames))
        for number in range(max(frames for _, frames in streams)):
            for stream, frames in streams:
                if number < frames:
                    picture = av.VideoFrame.from_ndarray(np.full((stream.height, stream.width, 3), 90, np.uint8))
                    picture.pts = number
                    container.mux(stream.encode(picture))
        for stream, _ in streams:
            container.mux(stream.encode())
    return path


@pytest.mark.parametrize("ending", ["mkv", "mp4"])
@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
def test_the_default_track_is_read_and_there_are_two(tmp_path, ending, codec):
    path = write_pictures(tmp_path / f"x.{ending}", (SMALL, 25, NONE, codec), (LARGE, 25, DEFAULT, codec))
    assert shown_size(path) == LARGE
    assert probe_media(path).video.tracks == 2
    path = write_pictures(tmp_path / f"y.{ending}", (SMALL, 25, DEFAULT, codec), (LARGE, 25, NONE, codec))
    assert shown_size(path) == SMALL


def test_without_a_default_track_it_is_that_of_ffmpeg(tmp_path):
    path = write_pictures(tmp_path / "x.mkv", (SMALL, 25, NONE, "libx264"), (LARGE, 25, NONE, "libx264"))
    with av.open(str(path)) as container:
        best = container.streams.best("video")
    assert shown_size(path) == (best.width, best.height)


@pytest.mark.parametrize("ending", ["mkv", "mp4", "mov"])
@pytest.mark.parametrize("disposition", [NONE, DEFAULT, COVER])
def test_a_cover_is_never_read_beside_moving_pictures(tmp_path, ending, disposition):
    path = write_pictures(tmp_path / f"x.{ending}", (LARGE, 1, disposition, "mjpeg"), (SMALL, 25, NONE, "libx264"))
    assert shown_size(path) == SMALL
    assert probe_media(path).video.tracks == 1


def test_the_only_track_may_have_one_frame(tmp_path):
    path = write_pictures(tmp_path / "x.mkv", (SMALL, 1, DEFAULT, "libx264"))
    assert shown_size(path) == SMALL
    assert probe_media(path).video.tracks == 1


def write_sounds(path, *tracks):
    """Writes (samples, disposition, codec) each."""
    with av.open(str(path), "w") as container:
        streams = [container.add_stream(codec, rate=RATE, layout="mono") for _, _, codec in tracks]
        for stream, (_, disposition, _) in zip(streams, tracks, strict=True):
            stream.disposition = disposition
        for stream, (samples, _, _) in zip(streams, tracks, strict=True):
            frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = RATE, 0, Fraction(1, RATE)
            container.mux(stream.encode(frame))
            container.mux(stream.encode())
    return path


@pytest.mark.parametrize(("ending", "codec"), [("mkv", "flac"), ("mp4", "aac"), ("mka", "pcm_s16le")])
def test_the_default_sound_is_heard(tmp_path, ending, codec):
    silent, loud = tone(1.0, RATE, level=0.0), tone(1.0, RATE)
    path = write_sounds(tmp_path / f"x.{ending}", (silent, NONE, codec), (loud, DEFAULT, codec))
    assert np.sqrt((read_sound(path, RATE) ** 2).mean()) == pytest.approx(0.35, abs=0.02)
    assert probe_media(path).audio.tracks == 2
    path = write_sounds(tmp_path / f"y.{ending}", (silent, DEFAULT, codec), (loud, NONE, codec))
    assert np.abs(read_sound(path, RATE)).max() < 0.01


def test_one_track_of_each_is_ordinary(clips):
    info = probe_media(clips["sound.mp4"])
    assert (info.video.tracks, info.audio.tracks) == (1, 1)


def with_tracks(path, times):
    """Repeats the tracks of an MP4 file: the boxes of ISO/IEC 14496-12, 4.2."""

    def boxes(data):
        place = 0
        while place + 8 <= len(data):
            length, kind = struct.unpack(">I4s", data[place : place + 8])
            yield kind, data[place : place + length]
            place += length

    parts = []
    for kind, box in boxes(path.read_bytes()):
        if kind == b"moov":
            inner = b"".join(part * (times if name == b"trak" else 1) for name, part in boxes(box[8:]))
            box = struct.pack(">I4s", len(inner) + 8, kind) + inner
        parts.append(box)
    path.write_bytes(b"".join(parts))
    return path


def test_ten_thousand_tracks_are_one_clear_line(tmp_path):
    path = write_pictures(tmp_path / "x.mp4", (SMALL, 2, DEFAULT, "mpeg4"))
    with_tracks(path, 10_000)
    for read in (lambda: probe_media(path), lambda: read_frames(path, count=1), lambda: read_sound(path, RATE)):
        with pytest.raises(DataError, match=rf"x\.mp4: it has more than {_MOST_TRACKS} tracks"):
            read()


def test_a_hundred_tracks_are_read(tmp_path):
    path = with_tracks(write_pictures(tmp_path / "x.mp4", (SMALL, 2, DEFAULT, "mpeg4")), 100)
    assert shown_size(path) == SMALL
    assert probe_media(path).video.tracks == 100
