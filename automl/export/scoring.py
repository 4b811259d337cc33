"""From a stream of files to a stream of probabilities, with bounded memory and the batch size that fits.

Threads decode ahead of the networks; at most two batches and a few images are held. Each file goes through the pixels
of training's evaluation: `data.decode.read_pixels`, then the crop of `export.tta`.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from automl.data.cache import cpu_threads, in_threads
from automl.data.decode import read_pixels
from automl.errors import AutomlError, DataError, SpecError, WeightsError
from automl.export.folder import Input, ModelFolder
from automl.export.inputs import Item
from automl.export.tta import TTA, Variants, variants
from automl.training.backoff import attempted
from automl.training.evaluate import Normalize
from automl.training.numerics import autocast

__all__ = ["Backoff", "Member", "Score", "Scorer"]

_GPU_BATCH, _LARGEST_GPU_BATCH, _CPU_BATCH = 64, 512, 32

Prepared = tuple[Item, "list[Tensor] | str"]


@dataclass(frozen=True)
class Score:
    """The prediction for one file."""

    item: Item
    probabilities: "np.ndarray[Any, Any]"
    """(classes,) float64; the training prior where the file could not be read."""
    problem: str = ""
    """Why it could not."""


class Backoff:
    """Runs a function on batches that fit into the memory.

    A batch that does not fit is halved, for good; until then, batches that do fit are doubled up to a limit.
    """

    def __init__(self, size: int, largest: int) -> None:
        """`size` images to begin with, never more than `largest`."""
        self.size, self._largest = size, max(size, largest)

    def __call__(self, function: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
        """Applies the function part by part.

        Args:
            function: From images (B, …) to results (B, …).
            images: Any number of them, at least 1.

        Returns:
            The results of all images, in order.

        Raises:
            AutomlError: If one image alone does not fit.
        """
        parts: list[Tensor] = []
        done = 0
        while done < len(images):
            part = images[done : done + self.size]
            found = attempted(partial(function, part))
            if found is not None:
                parts.append(found)
                done += len(part)
                if len(part) == self.size:
                    self.size = min(2 * self.size, self._largest)
            elif len(part) == 1:
                raise AutomlError(
                    "the GPU's memory does not hold the network and one image; "
                    "end what else uses the GPU, or predict with --device cpu"
                )
            else:
                torch.cuda.empty_cache()  # does nothing where CUDA was not used
                self.size = self._largest = len(part) // 2
        return torch.cat(parts)


class Member:
    """One loaded network, and what it wants of its input."""

    def __init__(self, folder: ModelFolder, weight: float, device: str) -> None:
        """Loads the weights of a model folder; `weight` is its share in the mean."""
        self.folder, self.weight, self.device = folder, weight, torch.device(device)
        numerics = folder.recipe.numerics
        # lower precisions were timed on the device that trained; on a CPU the answer shall not depend on which that was
        self._precision = numerics.precision if self.device.type == "cuda" else "fp32"
        self._normalize = Normalize(folder.input.preprocessing, numerics, self.device)
        network: nn.Module = folder.load().to(self.device, memory_format=self._normalize.layout)  # type: ignore[call-overload]
        self._network = network

    def variants(self, tta: str) -> Variants:
        """How its images are cut out of a decoded file."""
        inputs: Input = self.folder.input
        return variants(tta, self.folder.recipe.augmentation, inputs.image_size, inputs.interpolation)

    @torch.inference_mode()
    def probabilities(self, images: Tensor) -> Tensor:
        """From (B, 3, S, S) uint8 to (B, classes) float64 on the CPU."""
        with autocast(self.device, self._precision):
            logits = self._network(self._normalize(images))
        found: Tensor = logits.double().softmax(dim=1).cpu()
        return found


class Scorer:
    """Scores files with one network, or with the weighted mean of several."""

    def __init__(self, members: Sequence[Member], tta: str = "none", batch_size: int | None = None) -> None:
        """Prepares to score.

        Args:
            members: At least one; all on one device, with the same classes.
            tta: A key of `TTA`.
            batch_size: Images in a forward pass, at most; None: what fits.

        Raises:
            SpecError: If there is no such augmentation, or no such batch.
        """
        if batch_size is not None and batch_size < 1:
            raise SpecError(f"--batch-size is at least 1, got {batch_size}")
        found = [(member.folder.input.decode_size, member.variants(tta)) for member in members]
        self._sources = list(dict.fromkeys(found))  # members that see the same images share them
        self._members = [(member, self._sources.index(source)) for member, source in zip(members, found, strict=True)]
        self._images_per_file = TTA[tta]
        on_gpu = members[0].device.type == "cuda"
        size = batch_size or (_GPU_BATCH if on_gpu else _CPU_BATCH)
        self._backoff = Backoff(size, _LARGEST_GPU_BATCH if on_gpu and batch_size is None else size)
        priors = [member.weight * np.array(member.folder.labels.prior, dtype=np.float64) for member in members]
        self._prior: np.ndarray[Any, Any] = np.sum(priors, axis=0)

    def score(self, items: Iterable[Item]) -> Iterator[Score]:
        """Yields one score per item, in order; an item whose file cannot be read gets the training prior.

        Raises:
            WeightsError: If a network's outputs are not finite.
            AutomlError: If the GPU cannot hold one image.
        """
        ahead = 2 * self._files_per_batch() + 4 * cpu_threads()
        prepared = in_threads(self._prepare, items, ahead)
        with closing(prepared):  # type: ignore[type-var]
            while batch := list(islice(prepared, self._files_per_batch())):
                yield from self._score(batch)

    def _files_per_batch(self) -> int:
        return max(1, self._backoff.size // self._images_per_file)

    def _prepare(self, item: Item) -> Prepared:
        """Decodes one file and cuts the images of every source out of it, each (K, 3, S, S) uint8."""
        if not item.path:
            return item, "no such file"
        try:
            pixels = {size: read_pixels(item.path, size) for size in {size for size, _ in self._sources}}
        except DataError as exc:
            return item, str(exc).removeprefix(f"cannot read {item.path}: ")
        return item, [cut(pixels[size]) for size, cut in self._sources]

    def _score(self, batch: list[Prepared]) -> Iterator[Score]:
        """Scores what could be read, and puts the prior where nothing could."""
        readable = [images for _, images in batch if not isinstance(images, str)]
        means = iter(self._probabilities(readable)) if readable else iter(())
        for item, images in batch:
            if isinstance(images, str):
                yield Score(item, self._prior, images)
            else:
                yield Score(item, next(means))

    def _probabilities(self, files: list[list[Tensor]]) -> "np.ndarray[Any, Any]":
        """The weighted mean (N, classes) over members and images."""
        total: Tensor | None = None
        for member, source in self._members:
            images = torch.stack([file[source] for file in files])
            found = self._backoff(member.probabilities, images.flatten(0, 1))
            mean = member.weight * found.reshape(len(files), len(images[0]), -1).mean(dim=1)
            total = mean if total is None else total + mean
            if not bool(torch.isfinite(mean).all()):
                raise WeightsError(f"{member.folder.path}: the network's outputs are not finite; train it again")
        assert total is not None  # noqa: S101 - there is a member
        return total.numpy()
