"""What a gallery holds: pictures with captions, in rows, in sections."""

import os
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture (H, W, 3) uint8, RGB, what stands below it, and what it shows for who cannot see it."""

    pixels: Pixels
    caption: str
    description: str


@dataclass(frozen=True)
class Row:
    """Pictures under one title, each line of them of one sample."""

    title: str
    text: str
    lines: tuple[tuple[Picture, ...], ...]


@dataclass(frozen=True)
class Section:
    """A part of the gallery."""

    title: str
    text: str
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class ViewGallery:
    """All that is shown of the data through one view."""

    view: str
    sections: tuple[Section, ...]
    notes: tuple[str, ...]
    """What is not shown, and why; one line each."""


def name_label(class_name: str) -> str:
    """Writes a class below a picture: `real`, and `class 0` where the name alone is a number."""
    return f"class {class_name}" if class_name.lstrip("+-").isdecimal() else class_name


def decode_name(name: str) -> str:
    """Writes a name of a file or folder as text; bytes in it that are not UTF-8 become replacement characters."""
    return os.fsencode(name).decode("utf-8", errors="replace")
