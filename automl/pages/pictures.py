"""Pictures as a page carries them."""

import base64
import io
from typing import Any

from PIL import Image


def encode_picture(picture: Image.Image, quality: int = 85, **options: Any) -> str:
    """Encodes a picture as a JPEG data URI; `options` are those of Pillow's JPEG writer."""
    out = io.BytesIO()
    picture.save(out, format="JPEG", quality=quality, **options)
    return f"data:image/jpeg;base64,{base64.b64encode(out.getvalue()).decode('ascii')}"
