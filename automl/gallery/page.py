"""The gallery as one HTML file that opens without a network; `page.html.jinja` escapes every name."""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from automl.gallery.pictures import Pixels, ViewGallery
from automl.pages.pictures import encode_picture
from automl.pages.templates import render_template

_MOST_BYTES = 4_500_000
"""Of all pictures of a page, which is then below 5 MB."""
_SIDES = (256, 224, 192, 160, 128, 96, 72, 48)
"""Pixels of the longer side of a picture at most; the first at which all of them have room is taken."""
_QUALITY = 88


def render_page(galleries: Sequence[ViewGallery], name: str, lines: Sequence[str]) -> str:
    """Makes the text of the page; `lines` say what is shown."""
    pictures = [
        picture
        for one in galleries
        for part in one.sections
        for row in part.rows
        for line in row.lines
        for picture in line
    ]
    encoded = _encode_pictures([picture.pixels for picture in pictures])
    return render_template(
        Path(__file__).with_name("page.html.jinja"),
        galleries=galleries,
        name=name,
        lines=lines,
        images={id(picture): image for picture, image in zip(pictures, encoded, strict=True)},
        id=id,
    )


def _encode_pictures(pictures: Sequence[Pixels]) -> list[str]:
    """Encodes pictures as JPEG in base64, as large as all of them together may be; the same one once."""
    for side in _SIDES:
        encoded, total = dict[bytes, str](), 0
        keys = []
        for pixels in pictures:
            key = pixels.shape[0].to_bytes(4) + pixels.tobytes()
            if key not in encoded:
                encoded[key] = _encode_jpeg(pixels, side)
            total += len(encoded[key])
            if total > _MOST_BYTES and side != _SIDES[-1]:
                break
            keys.append(key)
        else:
            break
    return [encoded[key] for key in keys]


def _encode_jpeg(pixels: Pixels, side: int) -> str:
    """Encodes a picture, with its colours at full size: what an augmentation did to them shall be seen."""
    image = Image.fromarray(pixels)
    image.thumbnail((side, side), Image.Resampling.BICUBIC)
    return encode_picture(image, _QUALITY, subsampling=0)
