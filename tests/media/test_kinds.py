import os

import av
import numpy as np
import pytest
from PIL import Image

from automl.media.kinds import ENDINGS, NOT_MEDIA, endings_for, find_medium, find_medium_at, is_media
from automl.media.sound import read_sound
from automl.media.video import read_frames
from tests.fixtures.clips import tone, write_sound, write_video


@pytest.mark.parametrize(
    ("name", "medium"),
    [
        ("a.JPG", "image"),
        ("deep/er/a b.mp4", "video"),
        ("x.WebM", "video"),
        ("voice.flac", "sound"),
        ("a.m4a", "sound"),
        (".hidden.mp4", None),
        ("deep/.hidden.wav", None),
        ("a.jfif", "image"),
        ("a.AVIF", "image"),
        ("a.mpg", "video"),
        ("a.m2ts", "video"),
        ("a.aiff", "sound"),
        ("a.wma", "sound"),
        ("mp4", None),
        ("notes.txt", None),
        ("", None),
    ],
)
def test_a_name_says_the_kind(name, medium):
    assert find_medium(name) == medium
    assert is_media(name) == (medium is not None)


def test_only_the_kinds_asked_for():
    assert is_media("a.mp4", ["video"])
    assert not is_media("a.mp4", ["image", "sound"])
    assert endings_for(["sound"]) == ".wav, .flac, .mp3, .ogg, .m4a, …"
    named = endings_for(tuple(ENDINGS)).removesuffix(", …").split(", ")
    assert {find_medium(f"x{ending}") for ending in named} == set(ENDINGS)


def test_an_ending_is_of_one_kind():
    every = [ending for endings in (*ENDINGS.values(), NOT_MEDIA) for ending in endings]
    assert len(every) == len(set(every))
    assert all(ending == ending.lower() and ending.startswith(".") for ending in every)


PICTURES = ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "AVIF", "JPEG2000", "DDS", "QOI", "BMP", "PPM", "SGI", "ICO"]
VIDEOS = {"mp4": {}, "mov": {}, "mkv": {}, "avi": {}, "ts": {}, "m2ts": {}, "flv": {}}
OTHER_VIDEOS = {"webm": "libvpx", "ogv": "libvpx", "wmv": "wmv2", "3gp": "libx264"}
SOUNDS = {"wav": "pcm_s16le", "w64": "pcm_s16le", "flac": "flac", "mp3": "mp3", "aac": "aac", "aiff": "pcm_s16be"}
OTHER_SOUNDS = {"au": "pcm_s16be", "caf": "pcm_s16be", "ac3": "ac3", "wv": "wavpack", "tta": "tta", "oga": "flac"}


def under_other_names(path):
    """What a file is taken for where its name does not say."""
    found = set()
    for name in ("noending", "x.jpg.1", "x.jpg!d", "image.php", "0001.x", "名前"):
        other = path.with_name(name)
        path.rename(other)
        found.add(find_medium_at(other))
        found.add(find_medium_at(str(other)))
        path = other
    path.unlink()
    return found


@pytest.mark.parametrize("form", PICTURES)
def test_a_picture_is_known_by_its_content(tmp_path, form):
    Image.new("RGB", (64, 64), (200, 30, 30)).save(tmp_path / "x", form)
    assert under_other_names(tmp_path / "x") == {"image"}


def write_mpeg(path):
    """Two seconds of MPEG-1, which has no ten frames a second."""
    noise = np.random.default_rng(0)
    with av.open(str(path), "w") as container:
        video = container.add_stream("mpeg1video", rate=25)
        video.width, video.height, video.pix_fmt, video.thread_count = 64, 48, "yuv420p", 1
        for _ in range(50):
            picture = noise.integers(0, 256, (48, 64, 3), dtype=np.uint8)
            container.mux(video.encode(av.VideoFrame.from_ndarray(picture).reformat(format="yuv420p")))
        container.mux(video.encode())
    return path


def test_what_ends_like_media_is_read(tmp_path):
    for ending, codec in {**dict.fromkeys(VIDEOS, "libx264"), **OTHER_VIDEOS}.items():
        path = write_video(tmp_path / f"x.{ending}", codec=codec)
        assert len(read_frames(path, count=2).pixels) == 2, ending
    assert len(read_frames(write_mpeg(tmp_path / "x.mpg"), count=2).pixels) == 2
    for ending, codec in {**SOUNDS, **OTHER_SOUNDS}.items():
        path = write_sound(tmp_path / f"x.{ending}", tone(0.5, 48_000), 48_000, codec)
        assert read_sound(path, 8_000).std() == pytest.approx(0.35, abs=0.05), ending


def test_videos_are_known_by_their_content(tmp_path):
    assert under_other_names(write_mpeg(tmp_path / "x.mpg")) == {"video"}
    for ending, codec in {**dict.fromkeys(VIDEOS, "libx264"), **OTHER_VIDEOS}.items():
        path = write_video(tmp_path / f"x.{ending}", codec=codec)
        assert find_medium_at(path) == "video"
        assert under_other_names(path) == {"video"}, ending


def test_sounds_are_known_by_their_content(tmp_path):
    for ending, codec in {**SOUNDS, **OTHER_SOUNDS}.items():
        path = write_sound(tmp_path / f"x.{ending}", tone(0.5, 48_000), 48_000, codec)
        assert find_medium_at(path) == "sound"
        assert under_other_names(path) == {"sound"}, ending


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"P",
        b"P5 is what we call it, and 12 others",
        b"BMW and Audi are the two classes",
        b"a,b\n1,2\n" * 100,
        b"GIF is no picture",
        b"#define X 1\n/* C */",
        b"<html><body></body></html>",
        b"%PDF-1.7",
        b"PK\3\4" + bytes(700),
        b"\x89HDF\r\n\x1a\n" + bytes(700),
        b"\xff\xfe" + "unicode".encode("utf-16-le"),
        b"\xef\xbb\xbf" + b"text",
        b"#EXTM3U\nhttp://example.org/a.ts",
        b"ffconcat version 1.0\nfile a.mp4",
        bytes(700),
        b"\x7fELF" + bytes(700),
        b"\0\1\0\0" + bytes(700),
        b"\x1f\x8b\x08" + bytes(700),
    ],
)
def test_what_is_no_media_is_none(tmp_path, data):
    (tmp_path / "README").write_bytes(data)
    assert find_medium_at(tmp_path / "README") is None


def test_a_known_ending_is_not_opened(tmp_path):
    for name, medium in {"a.jpg": "image", "a.MP4": "video", "a.csv": None, "a.json": None, "a.zip": None}.items():
        assert find_medium_at(tmp_path / name) == medium  # there is no such file
    Image.new("L", (8, 8)).save(tmp_path / "x.csv", "PNG")
    assert find_medium_at(tmp_path / "x.csv") is None


def test_what_cannot_be_opened_is_none(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    Image.new("L", (8, 8)).save(tmp_path / ".hidden", "PNG")
    for name in ("pipe", "link", ".hidden", "missing", ".", "a\0b"):
        assert find_medium_at(f"{tmp_path}/{name}") is None
