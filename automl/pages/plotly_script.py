"""Plotly's JavaScript, as a page carries it: compressed, or it alone would be 5 MB."""

import base64
import gzip
from functools import cache

from automl.media.opening import require


@cache
def compress_plotly() -> str:
    """Compresses Plotly's JavaScript: gzip in base64, 2 MB, which a browser unpacks (`figures.html.jinja`)."""
    return base64.b64encode(gzip.compress(require("plotly.offline").get_plotlyjs().encode(), mtime=0)).decode("ascii")
