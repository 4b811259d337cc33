"""What is in one file of a data set, found by reading all of it.

It runs in the decoders (`automl.media.decoding`), which import this module alone: it must stay small.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from automl.errors import DataError
from automl.media.images import probe_image
from automl.media.info import MediaInfo, probe_media


@dataclass(frozen=True)
class FileContent:
    """What one file turned out to be."""

    digest: bytes = b""  # of its bytes
    size: tuple[int, int] | None = None  # (width, height) in pixels; None of a sound
    media: MediaInfo | None = None  # None of an image
    notes: tuple[str, ...] = ()  # what a person should know, in words that are the same for all files of a kind
    reason: str = ""  # why it cannot be read, and nothing else is known


def image_content(path: str) -> FileContent:
    """Reads an image, which has to decode to its end; DataError if it cannot be read."""
    digest = digest_file(path)
    info = probe_image(path)
    return FileContent(digest, (info.width, info.height), notes=(info.scaling,) if info.scaling else ())


def clip_content(path: str) -> FileContent:
    """Reads a video or sound; DataError if it cannot be read."""
    digest = digest_file(path)
    media = probe_media(path)
    return FileContent(digest, (media.video.width, media.video.height) if media.video else None, media)


def digest_file(path: str) -> bytes:
    """Computes a digest of a file's bytes; DataError if it cannot be read."""
    try:
        with Path(path).open("rb") as handle:
            return hashlib.file_digest(handle, lambda: hashlib.blake2b(digest_size=16)).digest()
    except OSError as exc:
        raise DataError(f"cannot read {path}: {exc.strerror or exc}") from exc
