"""The same picture, whatever the pixel format and the range it is stored in."""

from functools import cache

import av
import numpy as np
import pytest
from PIL import Image
from skimage.data import astronaut

from automl.media.video import read_frames

WIDTH, HEIGHT = 448, 336
LUMA = np.array([0.2126, 0.7152, 0.0722])  # BT.709
RANGES = {"limited": 1, "full": 2}
FORMATS = ["yuv420p", "yuv422p", "yuv444p", "yuv420p10le"]
ENCODINGS = [(name, extent) for name in FORMATS for extent in RANGES if (name, extent) != ("yuv420p10le", "full")]


@cache
def photograph():
    return np.asarray(Image.fromarray(astronaut()).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC))


def planes(pixels, pixel_format, extent):
    """Y, Cb and Cr of an RGB picture after BT.709, colours in the places where MPEG-2 and H.264 have them."""
    bits, full = (10 if pixel_format.endswith("10le") else 8), extent == "full"
    red, _, blue = np.moveaxis(pixels.astype(float), -1, 0)
    luma = pixels @ LUMA
    colors = [(blue - luma) / (2 * (1 - LUMA[2])), (red - luma) / (2 * (1 - LUMA[0]))]
    if "444" not in pixel_format:  # at every other pixel of a row
        around = [np.pad(color, ((0, 0), (1, 1)), mode="edge") for color in colors]
        colors = [((a[:, :-2] + 2 * a[:, 1:-1] + a[:, 2:]) / 4)[:, ::2] for a in around]
    if "420" in pixel_format:  # between two rows
        colors = [(color[::2] + color[1::2]) / 2 for color in colors]
    luma, colors = (luma, colors) if full else (16 + luma * 219 / 255, [color * 224 / 255 for color in colors])
    stored = [luma, *(128 + color for color in colors)]
    return [
        np.rint(plane * 2 ** (bits - 8)).clip(0, 2**bits - 1).astype("<u2" if bits > 8 else "u1") for plane in stored
    ]


def write_picture(path, pixels, pixel_format, extent):
    """Writes a lossless video of one frame."""
    height, width, _ = pixels.shape
    frame = av.VideoFrame(width, height, pixel_format)
    frame.colorspace, frame.color_range = 1, RANGES[extent]
    for plane, values in zip(frame.planes, planes(pixels, pixel_format, extent), strict=True):
        rows = np.zeros((plane.height, plane.line_size // values.itemsize), values.dtype)
        rows[:, : values.shape[1]] = values
        plane.update(rows.tobytes())
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=10, options={"qp": "0"})
        video.width, video.height, video.pix_fmt = width, height, pixel_format
        video.codec_context.colorspace, video.codec_context.color_range = 1, RANGES[extent]
        container.mux(video.encode(frame))
        container.mux(video.encode())
    return path


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    folder = tmp_path_factory.mktemp("colors")
    return {
        (name, extent): write_picture(folder / f"{name}_{extent}.mkv", photograph(), name, extent)
        for name, extent in ENCODINGS
    }


def read(path, size):
    return read_frames(path, [0.0], size=size).pixels[0].astype(float)


def rms(difference):
    return float(np.sqrt((difference**2).mean()))


@pytest.mark.parametrize("encoding", ENCODINGS, ids="-".join)
@pytest.mark.parametrize(("size", "noise"), [(84, 0.3), (168, 0.35), (None, 0.55)])
def test_all_encodings_look_alike(stored, encoding, size, noise):
    """Limited range has 219 steps: full size shows their rounding (1.16 / √12 levels, and .29 of our own twice)."""
    reference, pixels = read(stored["yuv444p", "full"], size), read(stored[encoding], size)
    difference = (pixels - reference) @ LUMA
    assert abs(difference.mean()) < 0.05
    assert rms(difference) < noise


@pytest.mark.parametrize("encoding", ENCODINGS, ids="-".join)
def test_neighbours_do_not_share_their_colors_in_pairs(stored, encoding):
    pixels = read(stored[encoding], 168)
    color = pixels[..., 2] - pixels @ LUMA
    steps = np.abs(np.diff(color, axis=1)).mean(axis=0)
    assert steps[::2].mean() == pytest.approx(steps[1::2].mean(), rel=0.15)


@pytest.mark.parametrize("encoding", ENCODINGS, ids="-".join)
@pytest.mark.parametrize("level", [0, 128, 255])
@pytest.mark.parametrize("size", [None, 24])
def test_white_is_white_and_black_is_black(tmp_path, encoding, level, size):
    path = write_picture(tmp_path / "x.mkv", np.full((48, 64, 3), level, np.uint8), *encoding)
    assert np.abs(read(path, size) - level).max() <= (0 if level in (0, 255) else 1)


@pytest.mark.parametrize("width", [64, 66])  # scaled to 43 and to 44: swscale took its other way at odd widths
def test_even_and_odd_widths_are_as_bright(tmp_path, width):
    path = write_picture(tmp_path / "x.mkv", np.full((48, width, 3), 200, np.uint8), "yuv420p", "limited")
    assert np.abs(read(path, 32) - 200).max() <= 1
