"""Reading one image file of any kind that users have, as 8-bit RGB.

What happens to each kind:

- Transparency (RGBA, LA, palette or colour key) is laid on white, as a browser shows it. Dropping the alpha channel
  instead would bring back pixels that the author had erased, and an invisible pixel must not give a label away.
- 16-bit gray is scaled from 0..65535 to 0..255 (Pillow's own conversion clips, which makes such images white).
- An EXIF orientation is applied; CMYK, gray, palette and YCbCr are converted; of an animation, the first frame counts.
- An image of more pixels than `PIL.Image.MAX_IMAGE_PIXELS` is refused: it could fill the memory.
"""

import warnings
from contextlib import suppress
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from automl.errors import DataError

__all__ = ["EXTENSIONS", "LONGEST", "image_size", "read_pixels", "read_rgb", "reason_alone", "shrunk"]

EXTENSIONS = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"})
"""Endings of image files, in lower case."""

LONGEST = 2
"""Long side over short side of what is kept of an image; what is beyond is cut off at both ends."""

# Only these decoders may see a file, whatever its name; GIF because the web is full of GIFs named .jpg.
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")
_WIDE_GRAY = frozenset({"I", "I;16", "I;16L", "I;16B", "I;16N", "F"})
_ORIENTATION_TAG = 0x0112
_SIDEWAYS = frozenset({5, 6, 7, 8})

# Pillow only warns between one and two times MAX_IMAGE_PIXELS, and a warning does not stop the decoding.
warnings.simplefilter("error", Image.DecompressionBombWarning)
warnings.filterwarnings("ignore", "(Corrupt|Possibly corrupt) EXIF data", UserWarning)  # such an image is still good


def read_rgb(path: str | Path, short_side: int | None = None) -> Image.Image:
    """Decodes an image file.

    Args:
        path: The file.
        short_side: The caller shrinks the image to this many pixels on its short side; a JPEG that is at least four
            times as large is then decoded at a fraction of its size, at least twice what is asked, which is faster
            and leaves the details to the caller's own antialiased resize. None: full size.

    Returns:
        An image of mode RGB, upright.

    Raises:
        DataError: If the file is missing, truncated, too large or not an image; the cause is chained.
    """
    try:
        with Image.open(path, formats=_FORMATS) as image:
            _refuse_bomb(image)
            if short_side is not None:
                image.draft(None, (2 * short_side, 2 * short_side))  # no-op on anything but a JPEG
            image.load()
            return _to_rgb(_upright(image))
    except Exception as exc:  # a broken file makes Pillow raise nearly anything: OSError, SyntaxError, struct.error
        raise DataError(f"cannot read {path}: {_reason(exc)}") from exc


def read_pixels(path: str | Path, size: int) -> np.ndarray:
    """Decodes and resizes a file: the one way to the pixels that networks are trained on and predict from.

    Args:
        path: The file.
        size: Pixels of the short side; a larger image is shrunk (bicubic, antialiased), a smaller one stays as it is.
            A long side of more than `LONGEST` times the short one is cut off equally at both ends.

    Returns:
        Shape (height, width, 3), dtype uint8, RGB; perhaps read-only.

    Raises:
        DataError: As `read_rgb`.
    """
    image = read_rgb(path, short_side=size)
    width, height = image.size
    longest = LONGEST * min(width, height)
    left, top = max(0, width - longest) // 2, max(0, height - longest) // 2
    box = (left, top, left + min(width, longest), top + min(height, longest))
    shape = shrunk(width, height, size)
    if shape != (width, height):
        image = image.resize(shape, Image.Resampling.BICUBIC, box=box)
    return np.asarray(image)


def shrunk(width: int, height: int, size: int) -> tuple[int, int]:
    """The (width, height) in pixels that `read_pixels` gives an image of `width` × `height`."""
    short = min(width, height)
    width, height = min(width, LONGEST * short), min(height, LONGEST * short)
    scale = min(1.0, size / short)
    return round(width * scale), round(height * scale)


def image_size(path: str | Path) -> tuple[int, int]:
    """Reads an image's upright (width, height) in pixels from its header, without decoding it.

    Raises:
        DataError: If the file is missing, too large or not an image.
    """
    try:
        with Image.open(path, formats=_FORMATS) as image:
            _refuse_bomb(image)
            width, height = image.size
            orientation = None
            with suppress(Exception):  # broken EXIF does not make the image unreadable
                orientation = image.getexif().get(_ORIENTATION_TAG)
            return (height, width) if orientation in _SIDEWAYS else (width, height)
    except Exception as exc:
        raise DataError(f"cannot read {path}: {_reason(exc)}") from exc


def reason_alone(exc: DataError, path: str | Path) -> str:
    """What an error says of a file, without its path: for a list in which the file is named already."""
    return str(exc).removeprefix(f"cannot read {path}: ").removeprefix(f"{path}: ")


def _refuse_bomb(image: Image.Image) -> None:
    """Raises ValueError if there are too many pixels, also where someone has reset the warning filters."""
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and image.width * image.height > limit:
        raise ValueError(f"{image.width}×{image.height} pixels, the limit is {limit}; shrink the file first")


def _upright(image: Image.Image) -> Image.Image:
    """Applies the EXIF orientation; broken EXIF counts as none."""
    with suppress(Exception):
        ImageOps.exif_transpose(image, in_place=True)
    return image


def _to_rgb(image: Image.Image) -> Image.Image:
    """Converts a decoded image of any mode to RGB."""
    if image.mode in _WIDE_GRAY:
        return Image.fromarray(_to_eight_bits(image)).convert("RGB")
    if "transparency" in image.info or image.mode in {"RGBA", "LA", "PA", "RGBa", "La"}:
        if image.mode == "La":
            image = image.convert("LA")  # Pillow has no way from La to RGBA
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, image).convert("RGB")
    # convert() copies an RGB image too, which detaches it from the file that is about to be closed
    return image.convert("RGB")


def _to_eight_bits(image: Image.Image) -> np.ndarray:
    """Scales gray of 16 or 32 bits, or floating point, to uint8.

    Values up to 65535 are taken as 16-bit; floats up to 1 as 0..1 and up to 255 as 0..255; anything larger is scaled
    by its maximum.
    """
    values = np.asarray(image, dtype=np.float64)
    peak = float(values.max(initial=0.0))
    steps = (1.0, 255.0) if image.mode == "F" else (65_535.0,)
    full = next((step for step in steps if peak <= step), peak)
    return np.asarray(np.rint(np.clip(values / full, 0, 1) * 255), dtype=np.uint8)


def _reason(exc: Exception) -> str:
    """One line on what is wrong with a file."""
    if isinstance(exc, FileNotFoundError):
        return "no such file"
    if isinstance(exc, OSError) and exc.strerror:
        return exc.strerror
    if type(exc).__name__ == "UnidentifiedImageError":
        return "not an image"
    return str(exc).splitlines()[0] if str(exc) else type(exc).__name__
