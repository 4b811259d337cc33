"""How long the pictures of a data set are, and how much of them is lost to a network that sees only their middle."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from automl.data.dataset import Dataset
from automl.errors import DataError
from automl.media.decoding import decode_files
from automl.media.images import image_size
from automl.views.base import probe_video

_LONG = 1.4
"""Long side over short side of a long picture: clearly more than the 4:3 of cameras. Pages (1.41) are long, and
photographs of 3:2, of which seeing all is about as good as seeing the middle: a logistic regression on the features of
tf_efficientnet_lite0, of 153 photographs of ants and bees (hymenoptera's validation): accuracy .954 and .948, AUC .984
and .993; of the 61 long ones .934 and .918, .984 and .991."""

_FEW = 0.1  # share of long pictures that is not worth a line
_IMAGES, _CLIPS = 256, 16  # headers that are read at most: 0.2 ms an image, 0.1 s a clip
_Size = tuple[int, int]


def picture_sizes(dataset: Dataset) -> list[_Size]:
    """Reads the (width, height) in pixels, upright, of some pictures of a data set, evenly spread, from their headers.

    They are up to 256 images, or frames of 16 videos, without those that cannot be read; sounds have none.
    """
    if dataset.media == "sound":
        return []
    paths = [str(path) for path in dataset.samples["path"]]
    most = _IMAGES if dataset.media == "image" else _CLIPS
    some = paths[:: -(-len(paths) // most) or 1]
    sizes = decode_files(image_size if dataset.media == "image" else _frame_size, some, ahead=len(some))
    return [size for size in sizes if not isinstance(size, DataError)]


def mostly_long(sizes: Sequence[_Size]) -> bool:
    """Returns whether the median picture is clearly longer than 4:3, so that a network should be shown all of it."""
    return bool(sizes) and float(np.median(_side_ratios(sizes))) > _LONG


def cut_off_note(sizes: Sequence[_Size], what: str = "images") -> str | None:
    """Says in one line how much of the pictures lies outside of their middle squares; None if not one in ten is long.

    Such as "38 of 40 images are longer than 7:5; their middle square leaves out 83 % of them": the median of these.
    """
    ratios = _side_ratios(sizes)
    long = ratios[ratios > _LONG]
    if len(long) <= _FEW * len(ratios):
        return None
    lost = 100 * (1 - 1 / np.median(long))
    return (
        f"{len(long)} of {len(ratios)} {what} are longer than 7:5; their middle square leaves out {lost:.0f} % of them"
    )


def _side_ratios(sizes: Sequence[_Size]) -> np.ndarray:
    """Returns long side over short side of each picture."""
    sides = np.asarray(sizes, dtype=np.float64).reshape(-1, 2)
    return np.asarray(sides.max(axis=1) / sides.min(axis=1))


def _frame_size(path: str) -> _Size:
    """Reads the (width, height) of a video's frames; DataError if it has none."""
    video = probe_video(Path(path))
    return video.width, video.height
