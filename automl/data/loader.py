"""Batches for training and evaluation, out of the decode-once cache.

What a sample looks like in an epoch depends only on (seed, epoch, sample), and what a batch holds only on
(seed, step): a resumed run sees exactly the images it would have seen, however many processes load them.

A clip is one sample, whatever number of images its view makes of it: in training it shows one of them an epoch, each
once before any comes again; in evaluation it shows them all.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from automl.backbones.input import Preprocessing, evaluation_size
from automl.data.cache import Cache
from automl.data.dataset import Dataset as Samples
from automl.data.self_blend import self_blend
from automl.data.transforms import Pipeline, eval_transform, shown_part, train_transform
from automl.errors import DataError
from automl.processes import cpu_threads
from automl.recipe import Recipe

Batch = tuple[torch.Tensor, torch.Tensor]

_MEASURED = 2000  # samples that the channels' statistics are taken of
_KEPT_BYTES = 384 * 2**20  # of images at a recipe's size, in each process that loads them
_LEAST_STD = 1 / 255  # of pictures that are nearly all of one colour


@dataclass(frozen=True)
class ImageData:
    """The samples of a data set through a view, as `training.fit` wants them."""

    samples: Samples
    cache: Cache
    loaders: int = 0
    """Processes that decode and augment beside the training process; 0 on a CPU, which has no cores to spare."""

    @property
    def classes(self) -> int:
        """Number of classes."""
        return len(self.samples.classes)

    @property
    def positive(self) -> int:
        """Index of the positive class."""
        return self.samples.positive

    def rows(self, split: str) -> np.ndarray:
        """Returns the row numbers (int64) of the samples of a split; of `validation/2`, of every second one of a class.

        `train+validation` are those of both.

        To train on, samples need an image. To be scored, clips do not: whatever the view, all of them are.
        """
        split, _, every = split.partition("/")
        chosen = self.samples.samples["split"].isin(split.split("+")).to_numpy()
        if split.startswith("train") or self.samples.media == "image":
            chosen = chosen & self.cache.readable
        rows = np.flatnonzero(chosen)
        if not len(rows):
            raise DataError(f"no readable {self.samples.media} in the {split} split of {self.samples.root}")
        if every:
            labels = self.samples.samples["label"].to_numpy(np.int64)[rows]  # no class is left out, however small
            rows = np.sort(np.concatenate([rows[labels == label][:: int(every)] for label in np.unique(labels)]))
        return rows

    def counts(self, split: str) -> np.ndarray:
        """Returns how many images (int64) each of `rows(split)` has."""
        return np.asarray(self.cache.counts[self.rows(split)])

    def channel_statistics(self) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
        """Returns mean and deviation of each channel, in [0, 1]: of one image each of some training samples."""
        rows = self.rows("train")
        some = rows[:: max(1, len(rows) // _MEASURED)]
        sums = np.zeros((2, 3))
        for row in some:
            pixels = self.cache.image(int(row), int(self.cache.counts[row]) // 2) / 255.0
            sums += pixels.mean(axis=(0, 1)), (pixels**2).mean(axis=(0, 1))
        mean, square = sums / len(some)
        std = np.sqrt(np.maximum(square - mean**2, _LEAST_STD**2))
        return (float(mean[0]), float(mean[1]), float(mean[2])), (float(std[0]), float(std[1]), float(std[2]))

    def labels(self, split: str) -> np.ndarray:
        """Returns the labels (int64) of `rows(split)`."""
        return np.asarray(self.samples.samples["label"].to_numpy(np.int64)[self.rows(split)])

    def train_batches(
        self, recipe: Recipe, interpolation: str, first: int, last: int, share: slice = slice(None)
    ) -> Iterable[Batch]:
        """Yields the batches of optimizer steps `first` … `last - 1`, or the `share` of each that one process decodes.

        They are pairs of images (B, 3, S, S) uint8 and labels (B,) int64, B = `batch_size(recipe)`, or the share of it.
        """
        images = _TrainImages(self, recipe, interpolation)
        batches = _draw_batches(len(images), self.batch_size(recipe), recipe.seed, range(first, last), share)
        return DataLoader(images, batch_sampler=batches, **self._loader_options())

    def evaluation_batches(
        self, recipe: Recipe, preprocessing: Preprocessing, split: str, batch_size: int
    ) -> Iterable[Batch]:
        """Yields a split's images, in order, without augmentation, at `evaluation_size`; else as `train_batches`."""
        images = _EvaluationImages(self, recipe, preprocessing, split)
        return DataLoader(images, batch_size=batch_size, **self._loader_options())

    def batch_size(self, recipe: Recipe) -> int:
        """Returns the effective batch: the recipe's, or all there is."""
        return min(recipe.batch_size, len(self.rows("train")))

    def steps_per_epoch(self, recipe: Recipe) -> int:
        """Returns the steps of an epoch; a last, smaller batch is dropped (BatchNorm fails on a batch of 1)."""
        return len(self.rows("train")) // self.batch_size(recipe)

    def _loader_options(self) -> dict[str, Any]:
        """Returns how many processes load the images."""
        workers = min(self.loaders, cpu_threads())
        return {"num_workers": workers, "pin_memory": workers > 0}


class _TrainImages(Dataset[Batch]):
    """Augmented training images; an item is named by (epoch, position)."""

    def __init__(self, data: ImageData, recipe: Recipe, interpolation: str) -> None:
        self._cache, self._seed = data.cache, recipe.seed
        self._rows, self._labels = data.rows("train"), data.labels("train")
        self._real, self._fake = data.samples.real_class, data.samples.positive
        self._crop = recipe.augmentation.crop
        self._blend = recipe.augmentation.self_blend if self._real is not None else 0.0
        self._transform = train_transform(recipe.augmentation, recipe.image_size, interpolation)
        self._cut = _CutImages(data.cache, self._transform)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitems__(self, items: list[tuple[int, int]]) -> list[Batch]:
        """Returns a whole batch, with torch's random state saved and restored around it."""
        state = torch.get_rng_state()
        try:
            return [self._load_sample(epoch, position) for epoch, position in items]
        finally:
            torch.set_rng_state(state)

    def _load_sample(self, epoch: int, position: int) -> Batch:
        """Returns a sample as an epoch shows it."""
        seeds = np.random.SeedSequence([self._seed, epoch, position])
        # Not torch.manual_seed, which would reseed the GPU as well.
        torch.default_generator.manual_seed(int(seeds.generate_state(1)[0]))
        row, label = int(self._rows[position]), int(self._labels[position])
        count = int(self._cache.counts[row])
        rounds, number = divmod(epoch, count)
        if count > 1:  # each of its images once before any comes again, in another order in each round
            number = int(np.random.default_rng([self._seed, position, rounds]).permutation(count)[number])
        if self._blend and label == self._real:
            random = np.random.default_rng(seeds)
            if random.random() < self._blend:
                blended = self_blend(shown_part(self._cache.image(row, number), self._crop), random)
                return self._transform(blended), torch.tensor(self._fake)
        return self._transform.finish(self._cut.load(row, number)), torch.tensor(label)


class _CutImages:
    """Loads images at a recipe's size, and keeps those that are cut the same each time: most of a plain recipe's work.

    On one thread, with flips alone, eight times as many images as from a pipeline that decodes in each epoch
    (`studies/benchmarks/pipeline.py`).
    """

    def __init__(self, cache: Cache, transform: Pipeline) -> None:
        self._cache, self._transform = cache, transform
        self._kept: dict[tuple[int, int], torch.Tensor] = {}
        self._room = _KEPT_BYTES if transform.cuts_alike else 0

    def load(self, row: int, number: int) -> torch.Tensor:
        """Returns an image (3, S, S) uint8 before any augmentation; it may not be changed."""
        image = self._kept.get((row, number))
        if image is None:
            image = self._transform.cut(self._cache.image(row, number))
            if image.nbytes <= self._room:
                self._room -= image.nbytes
                image = self._kept[row, number] = image.contiguous()
        return image


class _EvaluationImages(Dataset[Batch]):
    """All images of a split, in order, without augmentation."""

    def __init__(self, data: ImageData, recipe: Recipe, preprocessing: Preprocessing, split: str) -> None:
        self._cache, counts = data.cache, data.counts(split)
        self._rows, self._labels = np.repeat(data.rows(split), counts), np.repeat(data.labels(split), counts)
        self._numbers = np.concatenate([np.arange(count) for count in counts])
        size = evaluation_size(recipe, preprocessing, data.cache.size)
        self._transform = eval_transform(recipe.augmentation, size, preprocessing.interpolation)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, position: int) -> Batch:
        image = self._transform(self._cache.image(int(self._rows[position]), int(self._numbers[position])))
        return image, torch.tensor(int(self._labels[position]))


def _draw_batches(
    samples: int, batch_size: int, seed: int, steps: range, share: slice
) -> Iterator[list[tuple[int, int]]]:
    """Yields the (epoch, position) pairs that each optimizer step sees: a new permutation every epoch."""
    shuffled, order = -1, np.arange(samples)
    for step in steps:
        epoch, batch = divmod(step, samples // batch_size)
        if epoch != shuffled:
            shuffled, order = epoch, np.random.default_rng([seed, epoch]).permutation(samples)
        chosen = order[batch * batch_size : (batch + 1) * batch_size][share]
        yield [(epoch, int(i)) for i in chosen]
