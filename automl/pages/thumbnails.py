"""Small pictures of images, and of the first frames of videos, as text for a page."""

import base64
import io
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from automl.errors import DataError
from automl.media.decoding import decode_files
from automl.media.images import read_rgb
from automl.media.kinds import find_medium
from automl.media.video import read_frames

_SIDE = 160  # pixels of the long side
_MOST_BYTES = 4_500_000
"""Of all pictures of a page, which is then below 5 MB."""


def make_thumbnails(paths: Sequence[str]) -> dict[str, str]:
    """Makes a JPEG data URI of each image or video that can be read, until there are 4.5 MB of them, by path."""
    wanted, made, total = list(dict.fromkeys(paths)), dict[str, str](), 0
    for path, data in zip(wanted, decode_files(encode_thumbnail, map(Path, wanted), 16), strict=True):
        if isinstance(data, DataError):
            continue
        text = base64.b64encode(data).decode("ascii")
        total += len(text)
        if total > _MOST_BYTES:
            break
        made[path] = f"data:image/jpeg;base64,{text}"
    return made


def encode_thumbnail(path: Path) -> bytes:
    """Reads an image, or the first frame of a video, and encodes a small JPEG of it; called by a decoder."""
    if find_medium(path.name) == "video":
        image = Image.fromarray(read_frames(path, times_seconds=[0.0], size=_SIDE).pixels[0])
    else:
        image = read_rgb(path, short_side=_SIDE)
    image.thumbnail((_SIDE, _SIDE), Image.Resampling.BICUBIC)
    out = io.BytesIO()
    image.save(out, format="JPEG", quality=80)
    return out.getvalue()
