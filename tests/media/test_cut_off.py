import io

import numpy as np
import pytest

from automl.errors import DataError
from automl.media.cut_off import refuse_cut_off
from automl.media.info import probe_media
from automl.media.sound import read_sound
from tests.fixtures.clips import tone, write_sound, write_video

RATE = 16_000
NOISE = np.random.default_rng(0).uniform(-0.5, 0.5, (1, 3 * 48_000)).astype(np.float32)

SIZED = {
    "x.wav": "pcm_s16le",
    "float.wav": "pcm_f32le",
    "x.w64": "pcm_s16le",
    "x.aiff": "pcm_s16be",
    "x.au": "pcm_s16be",
    "x.caf": "pcm_s16le",
    "x.flac": "flac",
    "x.ogg": "libopus",
    "flac.ogg": "flac",
    "x.mp3": "libmp3lame",
    "x.m4a": "aac",
    "x.mka": "aac",
    "sound.webm": "libopus",
    "sound.avi": "pcm_s16le",
    "sound.mov": "pcm_s16le",
}
UNSIZED = {"x.aac": "aac", "x.ts": "aac", "x.ac3": "ac3"}
VIDEOS = {
    "x.mp4": ("libx264", "aac"),
    "x.mkv": ("libx264", "aac"),
    "x.webm": ("libvpx", "libopus"),
    "x.avi": ("mpeg4", "pcm_s16le"),
    "mp3.avi": ("libx264", "libmp3lame"),
}


class Pipe(io.RawIOBase):
    """A file that can only be written from beginning to end."""

    def __init__(self, path):
        self.content, self.name = bytearray(), path.name

    def write(self, data):
        self.content += data
        return len(data)

    def seekable(self):
        return False

    def writable(self):
        return True


def write(folder, name):
    if name in VIDEOS:
        video, sound = VIDEOS[name]
        return write_video(folder / name, video, sound=tone(2.0, RATE), sound_codec=sound)
    return write_sound(folder / name, NOISE, 48_000, (SIZED | UNSIZED)[name])


def cut(path, share):
    content = path.read_bytes()
    path.write_bytes(content[: round(len(content) * share)])
    return path


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
@pytest.mark.parametrize("name", [*SIZED, *VIDEOS])
def test_a_file_that_is_cut_off_is_an_error(tmp_path, name, share):
    path = write(tmp_path, name)
    assert len(read_sound(path, RATE)) / RATE == pytest.approx(probe_media(path).audio.duration_seconds, abs=0.05)
    cut(path, share)
    for look in (probe_media, lambda path: read_sound(path, RATE)):
        with pytest.raises(DataError, match="cut off") as caught:
            look(path)
        assert str(path) in str(caught.value)
        assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("name", UNSIZED)
def test_what_does_not_say_how_long_it_is_is_read_as_far_as_it_goes(tmp_path, name):
    path = cut(write(tmp_path, name), 0.5)
    assert probe_media(path).duration_seconds == pytest.approx(1.5, abs=0.1)
    assert len(read_sound(path, RATE)) == pytest.approx(1.5 * RATE, abs=0.1 * RATE)


@pytest.mark.parametrize(
    ("container", "codec"),
    [
        ("wav", "pcm_s16le"),
        ("wav", "pcm_f32le"),
        ("au", "pcm_s16be"),
        ("caf", "pcm_s16le"),
        ("flac", "flac"),
        ("ogg", "libopus"),
        ("mp3", "libmp3lame"),
        ("adts", "aac"),
        ("matroska", "aac"),
        ("webm", "libopus"),
        ("mpegts", "aac"),
        ("flv", "aac"),
        ("avi", "libmp3lame"),
    ],
)
def test_what_was_written_into_a_pipe_is_whole(tmp_path, container, codec):
    path, pipe = tmp_path / "x.media", Pipe(tmp_path / "x.media")
    write_sound(pipe, NOISE, 48_000, codec, container_format=container)
    path.write_bytes(pipe.content)
    assert probe_media(path).duration_seconds == pytest.approx(3.0, abs=0.06)
    assert len(read_sound(path, RATE)) == pytest.approx(3 * RATE, abs=0.06 * RATE)


@pytest.mark.parametrize("said", [0, 0x7F000000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFDB, 0xFFFFFFFF])
def test_sizes_that_stand_for_unknown_ones(tmp_path, said):
    path = write(tmp_path, "x.wav")
    content = bytearray(path.read_bytes())
    place = content.index(b"data") + 4
    content[place : place + 4] = said.to_bytes(4, "little")
    path.write_bytes(content)
    assert len(read_sound(path, RATE)) == 3 * RATE


def test_an_ogg_without_the_flag_of_its_last_page_is_whole(tmp_path):
    path = write(tmp_path, "x.ogg")
    content = path.read_bytes()
    path.write_bytes(content[: content.rindex(b"OggS")])  # as a recording of a stream ends: between two pages
    assert probe_media(path).duration_seconds > 1
    assert len(read_sound(path, RATE)) > RATE


@pytest.mark.parametrize("container", ["RF64", "W64", "AIFF", "FLAC", "OGG", "MP3", "CAF", "AU", "WAVEX", "NIST"])
def test_what_libsndfile_writes_is_whole_and_what_is_cut_from_it_is_not(tmp_path, container):
    soundfile = pytest.importorskip("soundfile")
    path = tmp_path / "x"
    soundfile.write(path, NOISE[0], 48_000, format=container)
    assert probe_media(path).duration_seconds == pytest.approx(3.0, abs=0.06)
    with pytest.raises(DataError, match="cut off"):
        probe_media(cut(path, 0.6))


def test_tags_and_garbage_after_the_sound_do_no_harm(tmp_path):
    for name in SIZED:
        path = write(tmp_path, name)
        path.write_bytes(path.read_bytes() + b"TAG" + bytes(125))
        assert probe_media(path).duration_seconds == pytest.approx(3.0, abs=0.06), name


@pytest.mark.parametrize("content", [b"", b"R", b"RIFF\0\0", b"ID3", b"\xff", b"\x1aE\xdf\xa3", b"OggS", b"\0" * 40])
def test_stumps_are_told_by_whoever_reads_them(tmp_path, content):
    (tmp_path / "x.wav").write_bytes(content)
    with pytest.raises(DataError, match=r"cut off|empty|not a video or sound"):
        probe_media(tmp_path / "x.wav")


@pytest.mark.shared
def test_no_real_file_is_refused(shared):
    paths = [path for folder in ("audio_voices", "ffdv_videos") for path in (shared / "data" / folder).rglob("*.*")]
    assert len(paths) > 100
    for path in paths:
        refuse_cut_off(path)
