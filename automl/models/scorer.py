"""From a stream of files to a stream of probabilities, with bounded memory and the batch size that fits.

Files are decoded ahead of the networks (`automl.media.decoding`); at most two batches and a few files are held. Each
file goes through what training's evaluation does: it is decoded, by its view if it is a clip, then cropped
(`automl.models.tta`), and the scores of its images are aggregated.
"""

import operator
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from automl.errors import DataError, SpecError, WeightsError
from automl.media.decoding import decode_files, decode_one
from automl.media.images import describe_alone
from automl.media.kinds import Medium
from automl.models.combine import Combiner
from automl.models.folder import ModelFolder
from automl.models.inputs import Item
from automl.models.tta import TTA, Variants
from automl.processes import cpu_threads, in_threads
from automl.training.evaluation import Predictor
from automl.views.aggregate import aggregate_scores
from automl.views.base import ViewImages
from automl.views.registry import View, make_images

_GPU_BATCH, _LARGEST_GPU_BATCH, _CPU_BATCH = 64, 512, 32

Floats = npt.NDArray[np.float64]

_Read = tuple[Item, "list[Tensor | str]"]
"""A file, and by source its images (K, V, 3, S, S) uint8, or why there are none."""


@dataclass(frozen=True)
class Score:
    """The prediction for one file."""

    item: Item
    probabilities: Floats
    """(classes,) float64; the training prior where the file shows nothing."""
    problem: str = ""
    """Why it shows nothing."""


class Member:
    """A loaded network, and what it wants of its input."""

    def __init__(self, folder: ModelFolder, weight: float, device: str) -> None:
        """Loads the weights of a model folder; `weight` is its share in the mean."""
        self.folder, self.weight, self.device = folder, weight, torch.device(device)
        self.network = folder.load(device)

    def make_predictor(self, batch_size: int, largest: int | None = None) -> Predictor:
        """Makes what predicts images in batches; arguments as of `Predictor`."""
        recipe = self.folder.recipe
        if self.device.type != "cuda":  # lower precisions were timed on the GPU that trained; elsewhere they are slower
            recipe = recipe.with_numerics(precision="fp32")
        return Predictor(
            self.network, self.folder.input, recipe.numerics, self.device, batch_size=batch_size, largest=largest
        )

    def predict_files(self, predictor: Predictor, files: Sequence[Tensor]) -> list[Floats]:
        """Predicts the images of files, each (K, V, 3, S, S) uint8: probabilities (K, classes), means over V."""
        probabilities = predictor.predict_batch(torch.cat([images.flatten(0, 1) for images in files]))
        if not bool(torch.isfinite(probabilities).all()):
            raise WeightsError(f"{self.folder.path}: the network's outputs are not finite; train it again")
        parts = torch.split(probabilities, [len(images) * images.shape[1] for images in files])
        return [
            np.asarray(part.reshape(*images.shape[:2], -1).mean(dim=1).numpy(), dtype=np.float64)
            for part, images in zip(parts, files, strict=True)
        ]

    def aggregate_images(self, probabilities: Floats) -> Floats:
        """Makes the score (classes,) of a file from those of its images (K, classes)."""
        return aggregate_scores(self.folder.recipe.aggregate, probabilities, self.folder.labels.positive)


@dataclass(frozen=True)
class ImageSource:
    """How a file becomes the images a network sees; equal ones give equal images."""

    view: View
    decode_size: int
    variants: Variants

    @classmethod
    def for_model(cls, model: ModelFolder, tta: str) -> "ImageSource":
        """Describes what a model wants, with test-time augmentation (`TTA`)."""
        recipe, inputs = model.recipe, model.input
        variants = Variants(tta, recipe.augmentation.crop, inputs.image_size, inputs.interpolation)
        return cls(recipe.view, inputs.decode_size, variants)

    @property
    def images(self) -> int:
        """Images of a file, about."""
        return TTA[self.variants.tta] * getattr(self.view, "count", 1)

    def read_file(self, path: str | Path) -> tuple[Tensor, Floats]:
        """Reads a file: its images and their variants, (K, V, 3, S, S) uint8, and K times in seconds (an image's: 0).

        Raises:
            DataError: If it cannot be read, or shows nothing.
        """
        decoded = decode_one(self.reader, Path(path))
        return self.make_variants(decoded), decoded.times_seconds

    @property
    def reader(self) -> Callable[[Path], ViewImages]:
        """What reads a file, by its path; called by a decoder (`automl.media.decoding`), in which there is no torch."""
        return partial(make_images, self.view, size=self.decode_size)

    def make_variants(self, decoded: ViewImages) -> Tensor:
        """Makes the variants of the K images of a file, (K, V, 3, S, S) uint8, from what `reader` gives."""
        return torch.stack([self.variants(pixels) for pixels in decoded.pixels])


def list_media(views: Iterable[View]) -> tuple[Medium, ...]:
    """Lists the kinds of files that a model looks at, by the views of its members: sound is in videos, too."""
    wanted = {view.media for view in views}
    return ("sound", "video") if wanted == {"sound"} else tuple(sorted(wanted - {"sound"}))


class Scorer:
    """Scores files with one network, or with several."""

    def __init__(
        self, members: Sequence[Member], combine: Combiner, tta: str = "none", batch_size: int | None = None
    ) -> None:
        """Prepares to score; at most `batch_size` images are in a forward pass (None: what fits).

        `members` are on one device and have the same classes; `combine` makes one score of theirs.
        """
        if batch_size is not None and batch_size < 1:
            raise SpecError(f"--batch-size is at least 1, got {batch_size}")
        sources = [ImageSource.for_model(member.folder, tta) for member in members]
        self._members, self._sources = members, list(dict.fromkeys(sources))  # members that see the same share it
        self._positions = [self._sources.index(source) for source in sources]
        self._images_per_file = max(source.images for source in sources)
        on_gpu = members[0].device.type == "cuda"
        size = batch_size or (_GPU_BATCH if on_gpu else _CPU_BATCH)
        largest = _LARGEST_GPU_BATCH if on_gpu and batch_size is None else None
        self._predictors = [member.make_predictor(size, largest) for member in members]
        self._combine = combine
        priors = [member.weight * np.array(member.folder.labels.prior, dtype=np.float64) for member in members]
        self._prior: Floats = np.sum(priors, axis=0)

    def score_files(self, items: Iterable[Item]) -> Iterator[Score]:
        """Yields one score per item, in order; an item that no member sees anything in gets the training prior."""
        with closing(self._read_images(items)) as read:  # type: ignore[type-var]
            while batch := list(islice(read, self._files_per_batch())):
                yield from self._score_batch(batch)

    def _files_per_batch(self) -> int:
        sizes = (predictor.batch_size for predictor in self._predictors)
        return max(1, min(size for size in sizes if size is not None) // self._images_per_file)

    def _read_images(self, items: Iterable[Item]) -> Iterator[_Read]:
        """Reads files as each source wants them."""
        batch, sources = self._files_per_batch(), len(self._sources)
        asked: deque[tuple[Item, ImageSource]] = deque()

        def make_readers() -> Iterator[Callable[[], ViewImages]]:
            for item in items:
                for source in self._sources:
                    asked.append((item, source))
                    yield partial(source.reader, Path(item.path))

        decoded = decode_files(operator.call, make_readers(), (batch + 4 * cpu_threads()) * sources)
        made = in_threads(_make_images, ((*asked.popleft(), each) for each in decoded), batch * sources)
        while file := list(islice(made, sources)):
            yield file[0][0], [images for _, images in file]

    def _score_batch(self, batch: list[_Read]) -> Iterator[Score]:
        """Yields the scores of what shows something, and gives the prior to what shows nothing."""
        columns = [[images[source] for _, images in batch] for source in range(len(self._sources))]
        members = zip(self._members, self._predictors, self._positions, strict=True)
        scores = np.stack([_score_member(one, predictor, columns[source]) for one, predictor, source in members])
        seen = np.asarray(~np.isnan(scores).all(axis=(0, 2)))  # of (M, N, classes)
        combined = iter(self._combine(scores[:, seen])) if seen.any() else iter(())
        for (item, images), sees in zip(batch, seen, strict=True):
            if sees:
                yield Score(item, next(combined))
            else:
                yield Score(item, self._prior, next(why for why in images if isinstance(why, str)))


def _score_member(member: Member, predictor: Predictor, files: Sequence[Tensor | str]) -> Floats:
    """Computes a member's scores of a batch of files, (N, classes); NaN where a file shows it nothing."""
    scores = np.full((len(files), len(member.folder.labels.classes)), np.nan)
    readable = {row: images for row, images in enumerate(files) if not isinstance(images, str)}
    if readable:
        for row, probabilities in zip(readable, member.predict_files(predictor, [*readable.values()]), strict=True):
            scores[row] = member.aggregate_images(probabilities)
    return scores


def _make_images(read: tuple[Item, ImageSource, ViewImages | DataError]) -> tuple[Item, "Tensor | str"]:
    """Makes the images of a file as one source wants them, or says why there are none."""
    item, source, decoded = read
    if not item.path:
        return item, "no such file"
    if isinstance(decoded, DataError):
        return item, describe_alone(decoded, Path(item.path))
    return item, source.make_variants(decoded)
