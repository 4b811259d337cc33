"""What kind of media a file is, by the ending of its name."""

import os
from collections.abc import Collection
from typing import Literal

from automl.data.decode import EXTENSIONS
from automl.data.media.opening import SOUND_ENDINGS, VIDEO_ENDINGS

__all__ = ["ENDINGS", "Medium", "endings_for", "is_media", "medium_of"]

Medium = Literal["image", "video", "sound"]

ENDINGS: dict[Medium, frozenset[str]] = {"image": EXTENSIONS, "video": VIDEO_ENDINGS, "sound": SOUND_ENDINGS}
"""Endings of files of each kind, in lower case."""

_KINDS: dict[str, Medium] = {ending: medium for medium, endings in ENDINGS.items() for ending in endings}


def medium_of(name: str) -> Medium | None:
    """The kind of a file, None if its ending is of none; hidden files are none."""
    base = os.path.basename(name)  # noqa: PTH119 - ten times as fast as Path, for every file
    return None if base.startswith(".") else _KINDS.get(os.path.splitext(base)[1].lower())  # noqa: PTH122


def is_media(name: str, media: Collection[str] = tuple(ENDINGS)) -> bool:
    """Whether a name, not a hidden one, ends like a file of one of these kinds."""
    return medium_of(name) in media


def endings_for(media: Collection[Medium]) -> str:
    """Writes the endings of these kinds, for a message."""
    return ", ".join(sorted(ending for medium in media for ending in ENDINGS[medium]))
