"""Reading one image file of any kind that users have, as 8-bit RGB.

A file is read as what its content is, whatever its name. What happens to each kind:

- Transparency (RGBA, LA, palette or colour key) is laid on white, as a browser shows it. Dropping the alpha channel
  instead would bring back pixels that the author had erased, and an invisible pixel must not give a label away.
- An EXIF orientation is applied; CMYK, gray, palette, Lab and YCbCr are converted; of an animation, the first frame
  counts.
- What is no pixel loses no pixel: text, profiles and tags that are too large or broken are left out.
- An image of more pixels than Pillow's own error allows (twice `PIL.Image.MAX_IMAGE_PIXELS`) is refused, as it could
  fill the memory; of a JPEG, those count that are decoded, for it can be decoded at a fraction of its size.
- More than 8 bits, in gray and in RGB, are scaled to 0..255. One file does not say what the others of its set are
  like, so the rule looks at the range of its values, by the 0.1th and the 99.9th percentile, as single pixels may be
  broken:

  - whole numbers up to 255, 4095 or 65535 are taken as 8, 12 or 16 bits, floats up to 1 or 255 as what they are: the
    same scale for all files of a set whose brightest values lie between a 16th and all of that;
  - anything else (negative values, as in CT; more than 16 bits; other floats) is scaled to its own range. **The mean
    brightness of such files does not tell one from another any more**: where it matters, convert the set to 16 bits.
  - NaN is black, infinities are black and white. `probe_image` tells which rule a file came under.
"""

import math
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms, ImageFile, ImageOps
from PIL.JpegImagePlugin import JpegImageFile
from PIL.TiffImagePlugin import IMAGELENGTH, IMAGEWIDTH, TiffImageFile

from automl.errors import DataError
from automl.media.image_file import read_image

LONGEST = 8
"""Long side over short side up to which an image is shrunk by its short side alone; a longer one is shrunk until it has
no more pixels than one that long, so that a panorama does not fill the cache. Nothing is cut off."""

MIDDLE = 2  # long side over short side of the middle that crops cut from (`data.transforms.shown_part`)

_WIDE_GRAY = frozenset({"I", "I;16", "I;16L", "I;16B", "I;16N", "F"})
_HALVES = frozenset({"RGB;16B", "RGB;16L", "RGB;16N"})  # raw modes of Pillow that come in two bytes a value
_ORIENTATION_TAG = 0x0112
_SIDEWAYS = frozenset({5, 6, 7, 8})
_BEYOND = 0.001  # of the values, at both ends, do not count for the range
_RANGE_PIXELS = 100_000  # values looked at, in a grid, for the range
_OVERSHOOT = 0.05  # of the range: floats that were resampled go a little beyond it


class ImageInfo(NamedTuple):
    """What is in an image file."""

    width: int  # pixels, upright
    height: int
    scaling: str
    """How values of more than 8 bits were scaled, in words that are the same for all files of a kind, to be counted;
    "" where there is nothing to tell."""


def read_rgb(path: str | Path, short_side: int | None = None) -> Image.Image:
    """Decodes an image file as an image of mode RGB, upright.

    Where the caller shrinks it to `short_side` pixels, a JPEG that is at least four times as large is decoded at a
    fraction of its size, at least twice what is asked, which is faster and leaves the details to the caller's own
    antialiased resize.

    Raises:
        DataError: If the file is missing, truncated, too large or not an image; the cause is chained.
    """
    return read_image(path, lambda image: _decode_picture(image, short_side)[0])


def read_pixels(path: str | Path, size: int) -> np.ndarray:
    """Decodes and resizes a file: the one way to the pixels that networks are trained on and predict from.

    Args:
        path: The file.
        size: Pixels of the short side; a larger image is shrunk (bicubic, antialiased), a smaller one stays as it is.
            One of more than 1:`LONGEST` is shrunk to as many pixels as one of 1:`LONGEST` has.

    Returns:
        Shape (height, width, 3), dtype uint8, RGB; perhaps read-only. All of the image, but for less than a pixel of
        the result at the ends of one that is longer than 1:2.

    Raises:
        DataError: As `read_rgb`.
    """
    image = read_rgb(path, short_side=size)
    (width, left, right), (height, top, bottom) = _find_spans(*image.size, size)
    if (width, height) != image.size:
        image = image.resize((width, height), Image.Resampling.BICUBIC, box=(left, top, right, bottom))
    return np.asarray(image)


def shrink_size(width: int, height: int, size: int) -> tuple[int, int]:
    """Returns the (width, height) in pixels that `read_pixels` gives an image of `width` × `height`."""
    (width, *_), (height, *_) = _find_spans(width, height, size)
    return width, height


def _find_spans(width: int, height: int, size: int) -> tuple[tuple[int, float, float], tuple[int, float, float]]:
    """Returns of both axes of an image: pixels of the result, and from where to where of the image they are made.

    The middle of 1:2 becomes the pixels that it would become alone, and what is beyond goes on in steps of that width.
    """
    short = min(width, height)
    scale = min(1.0, size / short, size * math.sqrt(LONGEST / (width * height)))

    def span(length: int) -> tuple[int, float, float]:
        middle = min(length, MIDDLE * short)
        pixels = max(1, round(middle * scale))
        before = (length - middle) // 2
        after = length - middle - before
        left, right, step = int(before * scale), int(after * scale), middle / pixels
        return left + pixels + right, max(0.0, before - left * step), min(length, before + middle + right * step)

    return span(width), span(height)


def image_size(path: str | Path) -> tuple[int, int]:
    """Reads an image's upright (width, height) in pixels from its header; DataError as `read_rgb`."""
    return read_image(path, _find_upright_size)


def probe_image(path: str | Path) -> ImageInfo:
    """Decodes an image file, a JPEG at an eighth of its size, and says what is in it; DataError as `read_rgb`."""

    def look(image: ImageFile.ImageFile) -> ImageInfo:
        size = _find_upright_size(image) if isinstance(image, JpegImageFile) else None  # what else is not drafted
        picture, note = _decode_picture(image, 1)
        return ImageInfo(*(size or picture.size), note)

    return read_image(path, look)


def describe_alone(exc: DataError, path: str | Path) -> str:
    """Returns what an error says of a file, without its path: for a list in which the file is named already."""
    return str(exc).removeprefix(f"cannot read {path}: ").removeprefix(f"{path}: ")


def _find_upright_size(image: ImageFile.ImageFile) -> tuple[int, int]:
    """Returns the (width, height) of an opened image in pixels; leaves a JPEG drafted."""
    width, height = image.size
    if isinstance(image, TiffImageFile):  # its size is upright already, or not, as the version of Pillow has it
        width, height = image.tag_v2[IMAGEWIDTH], image.tag_v2[IMAGELENGTH]
    _draft_jpeg(image, 1)
    orientation = None
    with suppress(Exception):  # broken EXIF does not make the image unreadable
        orientation = image.getexif().get(_ORIENTATION_TAG)
    return (height, width) if orientation in _SIDEWAYS else (width, height)


def _draft_jpeg(image: ImageFile.ImageFile, short_side: int | None) -> None:
    """Has a JPEG decoded at a fraction of its size, and raises DataError if too many pixels are to be decoded."""
    width, height = image.size
    if short_side is not None:
        image.draft(None, (2 * short_side, 2 * short_side))  # no-op on anything but a JPEG
    if not image.info.get("progressive"):  # of such a one, libjpeg holds all the coefficients
        width, height = image.size
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and width * height > 2 * limit:
        raise DataError(
            f"cannot read {os.fsdecode(image.filename)}: {width}×{height} are {width * height / 1e6:.0f} megapixels, "
            f"the limit is {2 * limit / 1e6:.0f}; shrink it or cut it into pieces first"
        )


def _decode_picture(image: ImageFile.ImageFile, short_side: int | None) -> tuple[Image.Image, str]:
    """Returns the picture of an opened file, upright, as RGB, and how its values were scaled."""
    _draft_jpeg(image, short_side)
    file, tiles = image.fp, image.tile
    image.load()
    if file and tiles and _HALVES.issuperset(map(_find_raw_mode, tiles)) and _find_range(np.asarray(image))[1] < 16:
        file.seek(0)
        low = type(image)(file, image.filename)
        low.tile = [_read_low_bytes(tile) for tile in low.tile]
        low.load()
        values = 256 * np.asarray(_turn_upright(image), np.float32) + np.asarray(_turn_upright(low), np.float32)
        scaled, note = _to_eight_bits(values, floats=False)
        return Image.fromarray(scaled), note
    return _to_rgb(_turn_upright(image))


def _find_raw_mode(tile: "ImageFile._Tile") -> str:
    """Returns how the values of a part of a file are stored."""
    return str(tile.args if isinstance(tile.args, str) else (tile.args or ("",))[0])


def _read_low_bytes(tile: "ImageFile._Tile") -> "ImageFile._Tile":
    """Changes a part of a file of 16-bit colour, of which Pillow keeps the high byte, to its low byte."""
    mode = _find_raw_mode(tile)
    mode = mode[:-1] + {"L": "B", "B": "L", "N": "B" if sys.byteorder == "little" else "L"}[mode[-1]]
    return tile._replace(args=mode if isinstance(tile.args, str) else (mode, *(tile.args or ())[1:]))


def _turn_upright(image: Image.Image) -> Image.Image:
    """Applies the EXIF orientation; broken EXIF counts as none."""
    with suppress(Exception):
        ImageOps.exif_transpose(image, in_place=True)
    return image


def _to_rgb(image: Image.Image) -> tuple[Image.Image, str]:
    """Converts a decoded image of any mode to RGB, and says how its values were scaled."""
    if image.mode in _WIDE_GRAY:
        values, note = _to_eight_bits(np.asarray(image, dtype=np.float32), image.mode == "F")
        return Image.fromarray(values).convert("RGB"), note
    if "transparency" in image.info or image.mode in {"RGBA", "LA", "PA", "RGBa", "La"}:
        if image.mode == "La":
            image = image.convert("LA")  # Pillow has no way from La to RGBA
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, image).convert("RGB"), ""
    if image.mode == "LAB":
        lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        return ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB") or image, ""
    # convert() copies an RGB image too, which detaches it from the file that is about to be closed
    return image.convert("RGB"), ""


def _to_eight_bits(values: npt.NDArray[np.float32], floats: bool) -> tuple[npt.NDArray[np.uint8], str]:
    """Scales gray of more than 8 bits to 0..255 (see the module's text), and says how, "" for plain 16 bits."""
    black, white, note = _choose_scale(*_find_range(values), floats)
    with np.errstate(invalid="ignore", over="ignore"):
        scaled = (values - np.float32(black)) * np.float32(255 / (white - black))
    return np.nan_to_num(np.rint(scaled.clip(0, 255, out=scaled), out=scaled), copy=False).astype(np.uint8), note


def _find_range(values: npt.NDArray[np.generic]) -> tuple[float, float]:
    """Returns between which values most of an image's lie, but for a thousandth at both ends."""
    step = math.ceil(math.sqrt(values.size / _RANGE_PIXELS)) or 1
    seen = values[::step, ::step]
    seen = seen[np.isfinite(seen)]
    if not seen.size:
        return 0.0, 0.0
    beyond = math.ceil(_BEYOND * (seen.size - 1))
    seen.partition((beyond, seen.size - 1 - beyond))  # no value in between: of few pixels, the largest would count
    return float(seen[beyond]), float(seen[-1 - beyond])


def _choose_scale(low: float, high: float, floats: bool) -> tuple[float, float, str]:
    """Returns what is black, what is white, and what to tell of it, for values that lie between `low` and `high`."""
    what = "floating point" if floats else "more than 8 bits"
    over = _OVERSHOOT if floats else 0.0
    for full in (1, 255) if floats else (255, 4095, 65_535):
        if low >= -over * full and full / 16 <= high <= (1 + over) * full:
            return 0.0, full, "" if full == 65_535 else f"{what}: {full} is white"
    if low >= high:
        return low, low + 1, ""
    return low, high, f"{what}{', some negative' if low < 0 else ''}: each file is scaled to its own range"
