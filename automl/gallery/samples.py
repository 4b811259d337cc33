"""The few samples that a gallery shows: chosen from all classes in turn, and no other file is decoded."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice, zip_longest
from pathlib import Path

import numpy as np

from automl.data.cache import Cache, ImageMaker
from automl.data.dataset import Dataset
from automl.data.loader import ImageData
from automl.errors import DataError
from automl.gallery.pictures import Pixels
from automl.media.images import describe_alone
from automl.reporter import Progress
from automl.views.base import BaseView


class HeldImages(Cache):
    """The images of a few samples, in memory."""

    def __init__(self, images: Sequence[Pixels], size: int) -> None:  # no file to open, as a cache has
        self._images, self.folder, self.size, self.unreadable = images, Path(), size, []
        self.counts = np.array([len(each) for each in images], np.int64)

    def __len__(self) -> int:
        return len(self._images)

    def image(self, row: int, number: int = 0) -> Pixels:
        """Returns one of the images of a sample, (height, width, 3) uint8, as `Cache.image` does."""
        image: Pixels = self._images[row][number]
        return image


@dataclass(frozen=True)
class Shown:
    """The samples that are shown through a view."""

    data: ImageData
    """These alone, all of the training split."""
    unreadable: tuple[tuple[str, str], ...]
    """Name and reason of each that was to be shown and gave no image."""

    def __len__(self) -> int:
        return len(self.data.samples.samples)

    def name_class(self, row: int) -> str:
        """Returns the class of a sample."""
        return self.data.samples.classes[int(self.data.samples.samples["label"].iloc[row])]

    def middle_image(self, row: int) -> Pixels:
        """Returns the image of a sample, of a clip the middle one."""
        return self.data.cache.image(row, int(self.data.cache.counts[row]) // 2)

    def choose_subjects(self) -> list[int]:
        """Chooses two samples, of two classes where there are; the genuine ones first where they are known."""
        labels, real = self.data.samples.samples["label"].tolist(), self.data.samples.real_class
        order = sorted(range(len(labels)), key=lambda row: (labels[row] != real, labels[row], row))
        first = order[0]
        others = [row for row in order if labels[row] != labels[first]] or order[1:]
        return [first, *others[:1]]


def decode_some(dataset: Dataset, view: BaseView, size: int, wanted: int, seed: int, progress: Progress) -> Shown:
    """Decodes samples of the training split, from all classes in turn, until there are `wanted` or no more.

    Args:
        dataset: All samples.
        view: What makes images of them.
        size: Pixels of the short side that they are decoded to.
        wanted: How many.
        seed: Decides which.
        progress: Called with the number that is there, and `wanted`.

    Raises:
        DataError: If no file gives an image; with the reasons of the first ones.
    """
    rows, images, kept = list(_draw_rows(dataset, seed)), list[Pixels](), list[int]()
    names, paths = dataset.samples["name"].tolist(), dataset.samples["path"].tolist()
    unreadable: list[tuple[str, str]] = []
    maker, left = ImageMaker(view, size), iter(rows)
    while len(kept) < wanted and (some := list(islice(left, wanted - len(kept)))):
        for row, result in zip(some, maker.decode([paths[row] for row in some]), strict=True):
            if isinstance(result, DataError):
                unreadable.append((names[row], describe_alone(result, paths[row])))
            else:
                kept.append(row)
                images.append(result)
            progress(len(kept), wanted)
    if not kept:
        shown = "; ".join(f"{name}: {reason}" for name, reason in unreadable[:3])
        what = "can be read" if view.media == "image" else f"has anything for the view {view.name}"
        raise DataError(f"none of the {len(rows)} {dataset.media}s to train on in {dataset.root} {what}: {shown}")
    chosen = replace(dataset, samples=dataset.samples.iloc[kept].assign(split="train").reset_index(drop=True))
    return Shown(ImageData(chosen, HeldImages(images, size)), tuple(unreadable))


def _draw_rows(dataset: Dataset, seed: int) -> Iterator[int]:
    """Yields the rows of the training split in an order in which the classes take turns."""
    random = np.random.default_rng(seed)
    labels = dataset.samples["label"].to_numpy()
    trained = (dataset.samples["split"] == "train").to_numpy()
    by_class = [random.permutation(np.flatnonzero(trained & (labels == label))) for label in np.unique(labels)]
    for turn in zip_longest(*by_class):
        yield from (int(row) for row in turn if row is not None)
