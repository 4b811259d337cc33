import sys

import av
import pytest

from automl.errors import DataError
from automl.media.info import probe_media
from automl.media.opening import VIDEO_ENDINGS, require
from automl.media.sound import read_sound
from automl.media.video import iterate_frames, read_frames
from tests.fixtures.clip_kinds import KINDS
from tests.fixtures.clips import FRAMES, HEIGHT, RATE, WIDTH, tone, write_sound, write_video


@pytest.mark.parametrize("name", KINDS)
def test_what_is_in_a_video(name, clips):
    info = probe_media(clips[name])
    assert (info.video.width, info.video.height, info.video.rotation_degrees) == (WIDTH, HEIGHT, 0)
    assert info.video.variable_rate == name.startswith("vfr")
    assert (info.audio is not None) == ("sound" in name)
    if "ticks" not in KINDS[name] and "sound" not in KINDS[name]:
        assert info.video.frames_per_second == pytest.approx(RATE, rel=0.01)
        assert info.video.frames == pytest.approx(FRAMES, abs=1)
        assert info.duration_seconds == pytest.approx(FRAMES / RATE, abs=0.11)


def test_codecs_and_pixel_formats_are_named(clips):
    assert probe_media(clips["vp8.webm"]).video.codec == "vp8"
    info = probe_media(clips["yuv444p10.mkv"])
    assert (info.video.codec, info.video.pixel_format) == ("ffv1", "yuv444p10le")


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_a_rotated_video_has_its_upright_size(tmp_path, degrees):
    info = probe_media(write_video(tmp_path / "x.mp4", ticks=range(3), degrees=degrees))
    assert (info.video.width, info.video.height) == (WIDTH, HEIGHT)
    assert info.video.rotation_degrees == 360 - degrees  # written counterclockwise


@pytest.mark.parametrize(("rate", "channels"), [(8_000, 1), (192_000, 2)])
def test_what_is_in_a_sound(tmp_path, rate, channels):
    info = probe_media(write_sound(tmp_path / "x.wav", tone(0.5, rate, channels), rate))
    assert info.video is None
    assert (info.audio.sample_rate_hz, info.audio.channels, info.audio.codec) == (rate, channels, "pcm_s16le")
    assert info.duration_seconds == info.audio.duration_seconds == pytest.approx(0.5)


def _fail(path, match):
    for read in (
        lambda: probe_media(path),
        lambda: read_frames(path, count=2),
        lambda: list(iterate_frames(path)),
        lambda: read_sound(path, 8_000),
    ):
        with pytest.raises(DataError, match=match) as caught:
            read()
        assert path.name in str(caught.value)
        assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("flags", [{}, {"movflags": "faststart"}])
def test_a_truncated_mp4_is_an_error(tmp_path, flags):
    path = write_video(tmp_path / "x.mp4", sound=tone(2.0, 16_000), options=flags)
    path.write_bytes(path.read_bytes()[:-1000])
    _fail(path, "cut off")


def test_a_truncated_matroska_file_is_an_error(clips, tmp_path):
    path = tmp_path / "x.mkv"
    path.write_bytes(clips["gray.mkv"].read_bytes()[: clips["gray.mkv"].stat().st_size // 4])
    with pytest.raises(DataError, match="cut off"):
        probe_media(path)


def test_no_frames_are_an_error(tmp_path):
    with av.open(str(tmp_path / "x.avi"), "w") as container:
        video = container.add_stream("mpeg4", rate=10)
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        container.start_encoding()
    _fail(tmp_path / "x.avi", "no frames|no sound track")


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"not a film\n" * 50, "not a video or sound file"),
        (b"", "empty"),
        (b"#EXTM3U\n#EXTINF:2,\nother.mp4\n", "not a video"),  # a playlist may open what it names
        (b"ffconcat version 1.0\nfile other.mp4\n", "not a video"),
    ],
)
def test_what_is_no_media_file_is_an_error(tmp_path, content, match, clips):
    (tmp_path / "other.mp4").write_bytes(clips["h264.mp4"].read_bytes())
    (tmp_path / "x.mp4").write_bytes(content)
    _fail(tmp_path / "x.mp4", match)


def test_a_folder_and_a_missing_file_are_errors(tmp_path):
    (tmp_path / "folder.mp4").mkdir()
    _fail(tmp_path / "folder.mp4", "it is a folder")
    _fail(tmp_path / "missing.mp4", "no such file")


def test_a_missing_package_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(DataError, match=r"pip install --force-reinstall av"):
        require("av")


@pytest.mark.shared
def test_every_real_clip_can_be_probed(shared):
    clips = [p for p in (shared / "data" / "ffdv_videos").rglob("*") if p.suffix in VIDEO_ENDINGS]
    infos = [probe_media(path) for path in clips]
    assert len(infos) == 23
    assert sum(info.audio is not None for info in infos) == 6
