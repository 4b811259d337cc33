"""What all views of clips share: their images, what they say of a clip with nothing for them, and cutting squares."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from automl.errors import DataError
from automl.media.info import AudioStream, VideoStream, probe_media

Pixels = npt.NDArray[np.uint8]


class NothingToSee(DataError):  # noqa: N818 - a name of the project's words
    """A clip that can be read has nothing for this view: no sound, no pictures, no face. Silence is not nothing."""


@dataclass(frozen=True, eq=False)
class ViewImages:
    """The images a view makes of one file.

    Attributes:
        pixels: Shape (K, size, size, 3), dtype uint8, RGB; at least one image.
        times_seconds: Shape (K,), dtype float64, ascending: the time of each image from the beginning of the file; of a
            picture of sound, the middle of what it shows.
        notes: What a person should know, such as "no face found in 3 of 8 frames".
    """

    pixels: Pixels
    times_seconds: npt.NDArray[np.float64]
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.pixels)


def probe_video(path: Path) -> VideoStream:
    """Describes the video track of a file.

    Raises:
        NothingToSee: If it has none.
        DataError: If the file cannot be read.
    """
    video = probe_media(path).video
    if video is None:
        raise NothingToSee(f"{path}: it has no video track")
    return video


def probe_sound(path: Path) -> AudioStream:
    """Describes the sound track of a file.

    Raises:
        NothingToSee: If it has none.
        DataError: If the file cannot be read.
    """
    audio = probe_media(path).audio
    if audio is None:
        raise NothingToSee(f"{path}: it has no sound track")
    return audio


def square(pixels: Pixels, size: int) -> Pixels:
    """Cuts the middle square out of a picture and resizes it (bicubic, antialiased): nothing is added at the edges.

    Args:
        pixels: Shape (height, width, 3), dtype uint8.
        size: Pixels of each side of the result; smaller pictures are enlarged.

    Returns:
        Shape (size, size, 3), dtype uint8.
    """
    height, width = pixels.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    middle = np.ascontiguousarray(pixels[top : top + side, left : left + side])
    if side == size:
        return middle
    return np.asarray(Image.fromarray(middle).resize((size, size), Image.Resampling.BICUBIC))


def stacked(images: Sequence[Pixels], times_seconds: Sequence[float], notes: Sequence[str]) -> ViewImages:
    """Puts images and their times together."""
    return ViewImages(np.stack(images), np.asarray(times_seconds, dtype=np.float64), tuple(notes))
