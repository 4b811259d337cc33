"""Opening image files with Pillow: which decoders may see them, and one clear line for what goes wrong.

A file is read as what its content is, whatever its name, and what is no pixel loses no pixel: where text, profiles or
tags are too large for Pillow or broken, the file is read without them.
"""

import importlib
import re
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, TypeVar

from PIL import Image, ImageFile
from PIL.JpegImagePlugin import JpegImageFile

from automl.errors import DataError, first_line

FORMATS = {
    "JPEG": ".jpg .jpeg .jpe .jfif .jfi .pjpeg .pjp .mpo .jps",
    "PNG": ".png .apng",
    "WEBP": ".webp",
    "GIF": ".gif",
    "TIFF": ".tif .tiff",
    "AVIF": ".avif .avifs",
    "JPEG2000": ".jp2 .j2k .jpx .jpf .jpc .j2c",
    "HEIF": ".heic .heif .hif",
    **{name: f".{name.lower()}" for name in ("PSD", "DDS", "QOI")},
    "SUN": ".ras",
    **{name: f".{name.lower()}" for name in ("BLP", "ICNS", "FITS", "DCX", "XPM", "BMP")},
    "PPM": ".ppm .pgm .pbm .pnm .pfm",
    **{name: f".{name.lower()}" for name in ("TGA", "SGI", "PCX", "ICO", "CUR", "DIB", "XBM")},
}
"""The decoders that may see a file, in this order, and the endings of a folder's listing.

Left out is what starts another program (EPS, WMF), holds other files of any kind (IPTC), is not decoded at all (BUFR,
GRIB, HDF5, MPEG) or cannot be told from anything else.
"""
_SURE = tuple(FORMATS)[: tuple(FORMATS).index("BMP")]  # told from anything else by their first bytes
_LIKELY = re.compile(
    rb"BM.{4}\x00{4}|P[1-6f]\s(#|\s*\d+\s+\d)|\x01\xda[\x00\x01][\x01\x02]|\x00\x00\x01\x00[\x01-\x20]\x00|.{4}ftyphe[iv]",
    re.DOTALL,
)  # BMP, PPM, SGI, ICO by more than Pillow looks at; HEIC, which may not be installed
_HEIC = re.compile(rb".{4}ftyp.*(hei[cxms]|hev[cx])", re.DOTALL)  # brands of ISO/IEC 23008-12

HEIF_ENDINGS = tuple(FORMATS["HEIF"].split())  # of what is read only with pillow_heif
EXTENSIONS = frozenset(" ".join(FORMATS.values()).split())  # of image files, in lower case

_PNG_MAGIC, _JPEG_MAGIC = b"\x89PNG\r\n\x1a\n", b"\xff\xd8"
_PNG_PIXELS = frozenset({b"IHDR", b"PLTE", b"IDAT", b"IEND"})
_PNG_LOOKS = frozenset({b"tRNS", b"eXIf"})

# what Pillow warns of (tags, sizes, frames) either loses no pixel or is checked here; `error` filters would lose it
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning, module=r"PIL\.")

_T = TypeVar("_T")
_Accept = Callable[[bytes], bool | str]  # whether a file may be of a format; a text says why it cannot be read here


def read_image(path: str | Path, read: Callable[[ImageFile.ImageFile], _T]) -> _T:
    """Opens an image file and has it read; if that fails, once more without whatever is no pixel in the file.

    `read` is given the opened image, of which only the header has been read; what it returns must not need the file.

    Raises:
        DataError: If the file is missing, not an image, or `read` fails; the cause is chained.
    """
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - a tenth of the time to an image's size
            try:
                return read(_identify_format(file, path))
            except DataError:
                raise
            except Exception:
                if not (bare := _strip_metadata(file)):
                    raise
            return read(_identify_format(bare, path))
    except DataError:
        raise
    except Exception as exc:  # a broken file makes Pillow raise nearly anything: OSError, SyntaxError, struct.error
        raise DataError(f"cannot read {path}: {_describe_error(exc)}") from exc


def is_image(head: bytes) -> bool:
    """Returns whether the first 16 bytes or more of a file, of whatever name, are surely those of an image."""
    formats = _list_factories()
    sure = (formats[name][1] for name in _SURE if name in formats)
    return bool(_LIKELY.match(head)) or any(_accept_start(accept, head, "") for accept in sure)


@cache
def _list_factories() -> dict[str, tuple[Callable[..., ImageFile.ImageFile], _Accept | None]]:
    """Returns how to open each format that the installed Pillow has, and how to tell it by the first bytes."""
    Image.init()
    with suppress(ImportError):
        importlib.import_module("pillow_heif").register_heif_opener()
    formats = {name: Image.OPEN[name] for name in FORMATS if name in Image.OPEN}
    # Pillow would look for further pictures in a JPEG (MPO), and lose it if their table is broken; the first counts
    formats["JPEG"] = (JpegImageFile, formats["JPEG"][1])
    return formats


def _identify_format(file: BinaryIO, path: str | Path) -> ImageFile.ImageFile:
    """Reads a file's header as the format that its content is of; it stays open.

    This is `Image.open`, but for its check of the size before a JPEG can be drafted, and for the reason why a file of a
    known format cannot be read, which it hides behind "cannot identify".
    """
    if not (head := file.read(64)):
        raise ValueError("the file is empty")
    failure: Exception | None = None
    for factory, accept in _list_factories().values():
        if _accept_start(accept, head, str(path)):
            file.seek(0)
            try:
                return factory(file, str(path))
            except Exception as exc:
                failure = failure or exc
    if _HEIC.match(head):
        raise ValueError("HEIC: pip install pillow-heif") from failure
    raise failure or ValueError("not an image")


def _accept_start(accept: _Accept | None, head: bytes, path: str) -> bool:
    """Returns whether a file may be of a format; TGA has no magic number, and goes by the ending."""
    return path.lower().endswith(".tga") if accept is None else accept(head[:16].ljust(16, b"\0")) is True


def _strip_metadata(file: BinaryIO) -> BytesIO | None:
    """Returns a PNG or JPEG without text, profiles and tags; None of anything else."""
    file.seek(0)
    head = file.read(len(_PNG_MAGIC))
    pixels = _png_pixels if head == _PNG_MAGIC else _jpeg_pixels if head.startswith(_JPEG_MAGIC) else None
    return BytesIO(b"".join(pixels(head + file.read()))) if pixels else None


def _png_pixels(data: bytes) -> Iterator[bytes]:
    """Yields the chunks of a PNG (RFC 2083, 3.2: length, name, contents, checksum) that make the picture."""
    yield _PNG_MAGIC
    offset = len(_PNG_MAGIC)
    while offset + 8 <= len(data):
        name, end = data[offset + 4 : offset + 8], offset + 12 + int.from_bytes(data[offset : offset + 4], "big")
        whole = zlib.crc32(data[offset + 4 : end - 4]) == int.from_bytes(data[end - 4 : end], "big")
        if name in _PNG_PIXELS or (name in _PNG_LOOKS and whole):
            yield data[offset:end]
        offset = end


def _jpeg_pixels(data: bytes) -> Iterator[bytes]:
    """Yields the segments of a JPEG (ITU-T T.81, B.1) that make the picture; of Adobe's, what the colours are."""
    yield _JPEG_MAGIC
    offset = len(_JPEG_MAGIC)
    while offset + 4 <= len(data) and data[offset] == 0xFF and (marker := data[offset + 1]) != 0xDA:  # then: pixels
        end = offset + 2 + int.from_bytes(data[offset + 2 : offset + 4], "big")
        if not (0xE0 <= marker <= 0xEF or marker == 0xFE) or (marker == 0xEE and end - offset >= 14):
            yield data[offset:end]
        offset = end
    yield data[offset:]


def _describe_error(exc: Exception) -> str:
    """Returns one line on what is wrong with a file."""
    if isinstance(exc, FileNotFoundError):
        return "no such file"
    if isinstance(exc, OSError) and exc.strerror:
        return exc.strerror
    if isinstance(exc, SyntaxError) and exc.__cause__:  # Pillow's word for whatever it met in a header
        return "its header is damaged or of an unknown kind"
    return first_line(exc)
