"""From a stream of files to a stream of probabilities, with bounded memory and the batch size that fits.

Files are decoded ahead of the networks (`automl.media.decoding`); at most two batches and a few files are held. Each
file goes through what training's evaluation does: `data.decode.read_pixels` or its view, then the crop of `export.tta`,
and the aggregate.
"""

import operator
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from automl.errors import AutomlError, DataError, SpecError, WeightsError
from automl.media.decoding import decode_files, decode_one
from automl.media.images import read_pixels, reason_alone
from automl.media.kinds import Medium
from automl.models.folder import ModelFolder
from automl.models.inputs import Item
from automl.models.tta import TTA, Variants, variants
from automl.processes import cpu_threads, in_threads
from automl.training.evaluation import Normalize
from automl.training.out_of_memory import attempted
from automl.training.precision import autocast
from automl.views.aggregate import aggregate
from automl.views.base import Pixels, ViewImages
from automl.views.parameters import ClipView, View
from automl.views.registry import view_images

_GPU_BATCH, _LARGEST_GPU_BATCH, _CPU_BATCH = 64, 512, 32

Prepared = tuple[Item, "list[Tensor | str]"]


@dataclass(frozen=True)
class Score:
    """The prediction for one file."""

    item: Item
    probabilities: "np.ndarray[Any, Any]"
    """(classes,) float64; the training prior where the file shows nothing."""
    problem: str = ""
    """Why it shows nothing."""


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

    @torch.inference_mode()
    def probabilities(self, images: Tensor) -> Tensor:
        """From (B, 3, S, S) uint8 to (B, classes) float64 on the CPU."""
        with autocast(self.device, self._precision):
            logits = self._network(self._normalize(images))
        found: Tensor = logits.double().softmax(dim=1).cpu()
        return found

    def score(self, probabilities: "np.ndarray[Any, Any]") -> "np.ndarray[Any, Any]":
        """The score (classes,) of a file, by those of its images (K, classes)."""
        return aggregate(self.folder.recipe.aggregate, probabilities, self.folder.labels.positive)


@dataclass(frozen=True)
class Source:
    """How a file becomes the images a network sees; equal ones give equal images."""

    view: View
    decode_size: int
    variants: Variants

    @classmethod
    def of(cls, model: ModelFolder, tta: str) -> "Source":
        """What a model wants, with test-time augmentation (`TTA`).

        Raises:
            SpecError: If there is no such augmentation.
        """
        recipe, inputs = model.recipe, model.input
        cut = variants(tta, recipe.augmentation, inputs.image_size, inputs.interpolation)
        return cls(recipe.view, inputs.decode_size, cut)

    @property
    def images(self) -> int:
        """Images of a file, about."""
        return TTA[self.variants.tta] * getattr(self.view, "count", 1)

    def __call__(self, path: str | Path) -> tuple[Tensor, "np.ndarray[Any, Any]"]:
        """Reads a file.

        Returns:
            Its images through the view and their variants, (K, V, 3, S, S) uint8; and the time of each of the K in
            seconds, 0 for an image file.

        Raises:
            DataError: If it cannot be read, or shows nothing.
        """
        found = decode_one(self.reader, Path(path))
        return self.cut(found), found.times_seconds if isinstance(found, ViewImages) else np.zeros(1)

    @property
    def reader(self) -> Callable[[Path], ViewImages | Pixels]:
        """What reads a file, by its path; called by a decoder (`automl.media.decoding`), in which there is no torch."""
        if isinstance(self.view, ClipView):
            return partial(view_images, self.view, size=self.decode_size)
        return partial(read_pixels, size=self.decode_size)

    def cut(self, decoded: "ViewImages | Pixels") -> Tensor:
        """From what `reader` gives to the variants of the K images of a file, (K, V, 3, S, S) uint8."""
        images = decoded.pixels if isinstance(decoded, ViewImages) else decoded[None]
        return torch.stack([self.variants(pixels) for pixels in images])


def media_of(views: Iterable[View]) -> tuple[Medium, ...]:
    """The kinds of files that a model looks at, by the views of its members: sound is in videos, too."""
    wanted = {view.media for view in views}
    return ("sound", "video") if wanted == {"sound"} else tuple(sorted(wanted - {"sound"}))


class Scorer:
    """Scores files with one network, or with several."""

    def __init__(
        self,
        members: Sequence[Member],
        tta: str = "none",
        batch_size: int | None = None,
        join: "Join | None" = None,
    ) -> None:
        """Prepares to score.

        Args:
            members: At least one; all on one device, with the same classes.
            tta: A key of `TTA`.
            batch_size: Images in a forward pass, at most; None: what fits.
            join: Makes one score of the members'; None: their weighted mean, of those that see something in a file.

        Raises:
            SpecError: If there is no such augmentation, or no such batch.
        """
        if batch_size is not None and batch_size < 1:
            raise SpecError(f"--batch-size is at least 1, got {batch_size}")
        found = [Source.of(member.folder, tta) for member in members]
        self._sources = list(dict.fromkeys(found))  # members that see the same images share them
        self._members = [(member, self._sources.index(source)) for member, source in zip(members, found, strict=True)]
        self._images_per_file = max(source.images for source in self._sources)
        on_gpu = members[0].device.type == "cuda"
        size = batch_size or (_GPU_BATCH if on_gpu else _CPU_BATCH)
        self._backoff = Backoff(size, _LARGEST_GPU_BATCH if on_gpu and batch_size is None else size)
        weights = np.array([member.weight for member in members])
        self._join = join or (lambda scores: weighted_mean(scores, weights))
        priors = [member.weight * np.array(member.folder.labels.prior, dtype=np.float64) for member in members]
        self._prior: np.ndarray[Any, Any] = np.sum(priors, axis=0)

    def score(self, items: Iterable[Item]) -> Iterator[Score]:
        """Yields one score per item, in order; an item that no member sees anything in gets the training prior.

        Raises:
            WeightsError: If a network's outputs are not finite.
            AutomlError: If the GPU cannot hold one image.
        """
        with closing(self._prepare(items)) as prepared:  # type: ignore[type-var]
            while batch := list(islice(prepared, self._files_per_batch())):
                yield from self._score(batch)

    def _files_per_batch(self) -> int:
        return max(1, self._backoff.size // self._images_per_file)

    def _prepare(self, items: Iterable[Item]) -> Iterator[Prepared]:
        """Reads files as each source wants them: the images (K, V, 3, S, S) uint8, or why there are none."""
        batch, sources = self._files_per_batch(), len(self._sources)
        asked: deque[tuple[Item, Source]] = deque()

        def readings() -> Iterator[Callable[[], ViewImages | Pixels]]:
            for item in items:
                for source in self._sources:
                    asked.append((item, source))
                    yield partial(source.reader, Path(item.path))

        decoded = decode_files(operator.call, readings(), (batch + 4 * cpu_threads()) * sources)
        cut = in_threads(_cut, ((*asked.popleft(), found) for found in decoded), batch * sources)
        while found := list(islice(cut, sources)):
            yield found[0][0], [images for _, images in found]

    def _score(self, batch: list[Prepared]) -> Iterator[Score]:
        """Scores what shows something, and puts the prior where nothing does."""
        scores = np.stack([self._scores(member, batch, source) for member, source in self._members])  # (M, N, classes)
        seen = ~np.isnan(scores).all(axis=(0, 2))
        joined = iter(self._join(scores[:, seen])) if seen.any() else iter(())
        for (item, images), shown in zip(batch, seen, strict=True):
            if shown:
                yield Score(item, next(joined))
            else:
                yield Score(item, self._prior, next(why for why in images if isinstance(why, str)))

    def _scores(self, member: Member, batch: list[Prepared], source: int) -> "np.ndarray[Any, Any]":
        """A member's scores (N, classes) of a batch of files; NaN where a file shows it nothing."""
        files = [images[source] for _, images in batch]
        readable = [images for images in files if not isinstance(images, str)]
        found = np.full((len(files), len(member.folder.labels.classes)), np.nan)
        if not readable:
            return found
        flat = torch.cat([images.flatten(0, 1) for images in readable])
        probabilities = self._backoff(member.probabilities, flat)
        if not bool(torch.isfinite(probabilities).all()):
            raise WeightsError(f"{member.folder.path}: the network's outputs are not finite; train it again")
        parts = iter(torch.split(probabilities, [len(images) * images.shape[1] for images in readable]))
        for row, images in enumerate(files):
            if not isinstance(images, str):
                variants = next(parts).reshape(len(images), images.shape[1], -1)
                found[row] = member.score(variants.mean(dim=1).numpy())
        return found


def _cut(read: tuple[Item, Source, "ViewImages | Pixels | DataError"]) -> tuple[Item, "Tensor | str"]:
    """The images of a file as one source wants them, or why there are none."""
    item, source, found = read
    if not item.path:
        return item, "no such file"
    if isinstance(found, DataError):
        return item, reason_alone(found, Path(item.path))
    return item, source.cut(found)


Join = Callable[["np.ndarray[Any, Any]"], "np.ndarray[Any, Any]"]
"""From the scores of M members for N files, (M, N, classes), NaN where a member sees nothing, to (N, classes)."""


def weighted_mean(scores: "np.ndarray[Any, Any]", weights: "np.ndarray[Any, Any]") -> "np.ndarray[Any, Any]":
    """The mean over the members that see something in a file; a `Join` for given weights (M,)."""
    sees = ~np.isnan(scores[..., 0])  # (M, N)
    shares = np.where(sees, weights[:, None], 0.0)
    shares = np.where(shares.sum(axis=0) > 0, shares, sees)  # only members that count nothing see something
    mean: np.ndarray[Any, Any] = np.einsum("mn,mnc->nc", shares, np.nan_to_num(scores)) / shares.sum(axis=0)[:, None]
    return mean
