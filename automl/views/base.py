"""What all views share: their parameters, their images, and cutting squares.

A view turns a media file into a few uint8 images. Each view is a class in a module of its own: its fields are its
parameters, by which a recipe and a search space name it, and `make_images` makes the images. The same file and
parameters give the same images each time. No view imports torch: files are decoded in processes without it.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image
from pydantic import Field

from automl.errors import DataError
from automl.media.images import read_pixels
from automl.media.info import VideoStream, probe_media
from automl.schema import Part

Pixels = npt.NDArray[np.uint8]


class NothingToSee(DataError):  # noqa: N818 - a name of the project's words
    """A clip that can be read has nothing for this view: no sound, no pictures, no face. Silence is not nothing."""


@dataclass(frozen=True, eq=False)
class ViewImages:
    """The images a view makes of one file.

    Attributes:
        pixels: Shape (K, size, size, 3), dtype uint8, RGB; at least one image.
        times_seconds: Shape (K,), ascending: the time of each image from the beginning of the file; of a picture of
            sound, the middle of what it shows.
        notes: What a person should know, such as "no face found in 3 of 8 frames".
    """

    pixels: Pixels
    times_seconds: npt.NDArray[np.float64]
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.pixels)


class BaseView(Part):
    """A view's parameters, and how it makes images.

    Attributes:
        media: What a file must hold for this view: an image, pictures that move, or sound.
        version: Raised when the same file and parameters give other pixels; part of the cache's key.
        needs: Packages that it imports when it makes images.
    """

    media: ClassVar[Literal["image", "video", "sound"]]
    version: ClassVar[int] = 1
    needs: ClassVar[tuple[str, ...]] = ()
    name: str

    def make_images(self, path: Path, size: int) -> ViewImages:
        """Makes at least one image of a file, `size` pixels on each side (of an image file: see `read_pixels`).

        Raises:
            NothingToSee: If the file holds nothing for this view.
            DataError: If the file cannot be read.
        """
        raise NotImplementedError(f"the view {self.name} makes no images")

    @property
    def key(self) -> str:
        """All parameters that decide the pixels, in one line, the same in every process: part of the cache's name."""
        return json.dumps({"version": self.version, **self._pixel_parameters()}, sort_keys=True)

    def _pixel_parameters(self) -> dict[str, object]:
        """Returns the parameters that decide the pixels, as JSON has them."""
        return self.model_dump(mode="json", exclude={"normalize"})


class WholeImage(BaseView):
    """An image file is one image, itself."""

    media: ClassVar[Literal["image", "video", "sound"]] = "image"
    name: Literal["image"] = "image"

    def make_images(self, path: Path, size: int) -> ViewImages:
        """Reads the image, whole: shape (1, height, width, 3)."""
        return stack_images([read_pixels(path, size)], [0.0], [])


class ClipView(BaseView):
    """A view of a video or a sound.

    Attributes:
        count: Images of a clip at most.
        normalize: Mean and standard deviation that a channel is normalised with: `pretraining`, those of the
            backbone's weights; `dataset`, those of the training images, which suits images unlike photographs.
    """

    needs: ClassVar[tuple[str, ...]] = ("av",)
    count: Annotated[int, Field(ge=1, le=64)] = 8
    normalize: Literal["pretraining", "dataset"] = "pretraining"


def probe_video(path: Path) -> VideoStream:
    """Describes the video track of a file; without one there is nothing to see (NothingToSee)."""
    video = probe_media(path).video
    if video is None:
        raise NothingToSee(f"{path}: it has no video track")
    return video


def cut_square(pixels: Pixels, size: int) -> Pixels:
    """Cuts the middle square out of a picture (height, width, 3) uint8 and resizes it (bicubic, antialiased) to `size`.

    Nothing is added at the edges; smaller pictures are enlarged.
    """
    height, width = pixels.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    middle = np.ascontiguousarray(pixels[top : top + side, left : left + side])
    if side == size:
        return middle
    return np.asarray(Image.fromarray(middle).resize((size, size), Image.Resampling.BICUBIC))


def stack_images(images: Sequence[Pixels], times_seconds: Sequence[float], notes: Sequence[str]) -> ViewImages:
    """Puts images and their times together."""
    return ViewImages(np.stack(images), np.asarray(times_seconds, dtype=np.float64), tuple(notes))
