"""Properties of an image file that its header says; no pixel is decoded.

It runs in the decoders (`automl.media.decoding`): it must stay small.
"""

import hashlib
from contextlib import suppress
from pathlib import Path
from typing import Any

from PIL import Image, ImageFile
from PIL.ExifTags import Base
from PIL.JpegImagePlugin import JpegImageFile, get_sampling

from automl.audit.properties import Value, Values
from automl.media.image_file import read_image

_LONGEST_TEXT = 60
_SIDEWAYS = frozenset({5, 6, 7, 8})
_SAMPLINGS = {0: "4:4:4", 1: "4:2:2", 2: "4:2:0"}
_LUMINANCE_SUM = 3688  # of table K.1 of ITU-T T.81, which libjpeg scales by the quality


def read_image_properties(path: str) -> Values:
    """Reads the properties of an image file from its header.

    Raises:
        DataError: If the file is missing or not an image.
    """
    return read_image(path, lambda image: _describe_image(image, path))


def estimate_quality(tables: dict[int, Any]) -> float | None:
    """Estimates the quality, 1 to 100, that libjpeg's user chose, from the quantisation tables of a JPEG.

    libjpeg multiplies the tables of ITU-T T.81, annex K, by 5000 / quality percent below 50 and by 200 - 2 · quality
    percent above (jcparam.c, `jpeg_quality_scaling`); this is undone with the sum of the luminance table. Other
    programs have tables of their own: for them it is the quality of libjpeg that quantises about as much.
    """
    if not tables:
        return None
    total = sum(tables[min(tables)])
    if total <= 64:  # nothing but ones
        return 100.0
    percent = 100 * total / _LUMINANCE_SUM
    return float(round(5000 / percent if percent > 100 else (200 - percent) / 2))


def _describe_image(image: ImageFile.ImageFile, path: str) -> Values:
    """Returns the properties of an opened image."""
    info, exif = image.info, _read_exif(image)
    width, height = image.size
    if exif.get(Base.Orientation) in _SIDEWAYS:
        width, height = height, width
    values: Values = {
        "container": image.format,
        "ending": Path(path).suffix.lower() or None,
        "encoder": _find_encoder(info, exif),
        "pixel_format": image.mode,
        "colour": _describe_colour(info),
        "width": width,
        "height": height,
        "aspect": round(width / height, 3),
        "exif": "yes" if info.get("exif") else "no",
        "icc": "yes" if info.get("icc_profile") else "no",
        "density": _describe_density(info),
        "bytes_per_pixel": round(Path(path).stat().st_size / (width * height), 4),
    }
    if isinstance(image, JpegImageFile):
        tables = image.quantization
        packed = repr(sorted((key, list(table)) for key, table in tables.items())).encode()
        values |= {
            "quantisation": hashlib.blake2b(packed, digest_size=4).hexdigest(),
            "quality": estimate_quality(tables),
            "subsampling": _SAMPLINGS.get(get_sampling(image), "other"),
            "progressive": "yes" if info.get("progressive") else "no",
        }
    return values


def _read_exif(image: ImageFile.ImageFile) -> Image.Exif:
    """Reads the EXIF tags of an opened image from its header; broken ones count as none."""
    exif = Image.Exif()
    with suppress(Exception):  # Pillow raises nearly anything
        exif.load(image.info.get("exif") or b"")
    return exif


def _find_encoder(info: dict[Any, Any], exif: Image.Exif) -> Value:
    """Returns the name of the program that wrote the file, or its comment."""
    for text in (exif.get(Base.Software), info.get("Software"), info.get("software"), info.get("comment")):
        if isinstance(text, bytes):
            text = text.decode("latin-1")
        if isinstance(text, str) and (plain := " ".join(text.replace("\0", " ").split())):
            return plain[:_LONGEST_TEXT]
    return None


def _describe_colour(info: dict[Any, Any]) -> Value:
    """Returns which tags of a PNG say what its colours mean."""
    names = [name for name in ("srgb", "gamma", "chromaticity", "transparency") if name in info]
    return " ".join(names) or None


def _describe_density(info: dict[Any, Any]) -> Value:
    """Returns the pixels per inch, or what else the file says of its resolution."""
    density = info.get("dpi") or info.get("jfif_density")
    return None if density is None else "×".join(f"{float(side):.0f}" for side in density)
