"""Pixels that are not square: frames have the shape in which a player shows them."""

from fractions import Fraction

import av
import numpy as np
import pytest

from automl.media.info import probe_media
from automl.media.video import read_frames
from tests.fixtures.clips import shown_size

STORED = 90, 72


def write_stretched(path, shape, degrees=0, codec="libx264", size=STORED):
    """Writes three frames, the left half of which is bright, of pixels so much wider than high."""
    width, height = size
    pixels = np.full((height, width, 3), 30, np.uint8)
    pixels[:, : width // 2] = 220
    with av.open(str(path), "w") as container:
        video = container.add_stream(codec, rate=25)
        video.width, video.height, video.pix_fmt = width, height, "yuv420p"
        video.codec_context.sample_aspect_ratio = shape
        if degrees:
            video.set_display_rotation(degrees)
        for _ in range(3):
            container.mux(video.encode(av.VideoFrame.from_ndarray(pixels)))
        container.mux(video.encode())
    return path


@pytest.mark.parametrize(
    ("name", "codec"), [("x.mp4", "libx264"), ("x.mkv", "libx264"), ("x.mov", "libx264"), ("x.avi", "mpeg4")]
)
@pytest.mark.parametrize(
    ("shape", "size"), [(Fraction(16, 11), (131, 72)), (Fraction(8, 11), (90, 99)), (Fraction(1), STORED)]
)
def test_what_is_too_short_is_made_longer(tmp_path, name, codec, shape, size):
    path = write_stretched(tmp_path / name, shape, codec=codec)
    assert shown_size(path) == size
    assert probe_media(path).video.square_pixels == (shape == 1)


@pytest.mark.parametrize("name", ["x.mp4", "x.mkv"])
@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_it_is_widened_before_it_is_turned(tmp_path, name, degrees):
    path = write_stretched(tmp_path / name, Fraction(16, 11), degrees)
    assert shown_size(path) == ((131, 72) if degrees == 180 else (72, 131))
    bright = read_frames(path, count=1).pixels[0] > 125
    assert bright.any(axis=1 if degrees == 180 else 0).all()  # the bright half lies along the long side,
    assert bright.mean() == pytest.approx(0.5, abs=0.01)  # and is a half


@pytest.mark.parametrize(("size", "expected"), [(36, (36, 66)), (72, (72, 131)), (200, (72, 131))])
def test_the_short_side_is_that_of_what_is_shown(tmp_path, size, expected):
    path = write_stretched(tmp_path / "x.mp4", Fraction(16, 11))
    assert read_frames(path, count=1, size=size).pixels.shape == (1, *expected, 3)


@pytest.mark.parametrize("size", [(90, 72), (320, 240)])
def test_what_a_scaler_rounded_is_square(tmp_path, size):
    path = write_stretched(tmp_path / "x.mp4", Fraction(1280, 1281), size=size)
    assert shown_size(path) == size
    assert probe_media(path).video.square_pixels


@pytest.mark.parametrize("shape", [(1000, 1), (1, 1000), (5, 1), (0, 1), (1, 0), (2**31 - 1, 2**31 - 1), (0, 0)])
def test_an_absurd_shape_is_ignored(tmp_path, shape):
    path = write_stretched(tmp_path / "x.mp4", Fraction(1), codec="mpeg4")
    data = path.read_bytes()
    assert data.count(b"pasp") == 1
    place = data.index(b"pasp") + 4
    path.write_bytes(data[:place] + b"".join(n.to_bytes(4, "big") for n in shape) + data[place + 8 :])
    assert shown_size(path) == STORED
    assert probe_media(path).video.square_pixels


def test_the_container_goes_before_the_codec(tmp_path):
    path = write_stretched(tmp_path / "x.mp4", Fraction(16, 11))
    data = path.read_bytes()
    place = data.index(b"pasp") + 4
    path.write_bytes(data[:place] + (2).to_bytes(4, "big") + (1).to_bytes(4, "big") + data[place + 8 :])
    assert shown_size(path) == (180, 72)
