"""The images of a split as a network sees them: under the evaluation's cut, or augmented as the recipe says."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset, Subset

from automl.backbones.input import Preprocessing, evaluation_size
from automl.data.loader import ImageData
from automl.data.transforms import eval_transform, train_transform
from automl.processes import cpu_threads
from automl.recipe import Recipe

_BATCH = 64


@dataclass(frozen=True, eq=False)
class SplitImages:
    """The images of a split in order; of a clip all that its view makes.

    Attributes:
        rows: Of the data set's samples, (N,) int64.
        numbers: Which of its sample's images each is, (N,) int64; of image files 0.
        labels: (N,) int64.
        groups: What its sample belongs to, (N,) str; images of one clip are of one group.
    """

    rows: NDArray[np.int64]
    numbers: NDArray[np.int64]
    labels: NDArray[np.int64]
    groups: NDArray[np.str_]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, chosen: NDArray[np.int64]) -> "SplitImages":
        return SplitImages(self.rows[chosen], self.numbers[chosen], self.labels[chosen], self.groups[chosen])


def list_images(data: ImageData, split: str) -> SplitImages:
    """Lists the images of a split; raises DataError if there is none."""
    counts = data.counts(split)
    rows = np.repeat(data.rows(split), counts)
    numbers = np.concatenate([np.arange(count) for count in counts])
    groups = data.samples.samples["group"].to_numpy(str)[rows]
    return SplitImages(rows, numbers, np.repeat(data.labels(split), counts), groups)


class LookImages(Dataset[torch.Tensor]):
    """The images of a split under a look; an item is (3, S, S) uint8.

    Look 0 is what is seen in evaluation. The others are augmented, each image by random numbers of its own that depend
    on the seed and the look alone. Self-blending, which changes labels, is left out.
    """

    def __init__(
        self, data: ImageData, recipe: Recipe, preprocessing: Preprocessing, split: str, look: int = 0, seed: int = 0
    ) -> None:
        """Lists the images; raises DataError if there is none."""
        self._cache, self._look, self._seed = data.cache, look, seed
        self._loaders = min(data.loaders, cpu_threads())
        self._images = list_images(data, split)
        if look:
            self._transform = train_transform(recipe.augmentation, recipe.image_size, preprocessing.interpolation)
        else:
            size = evaluation_size(recipe, preprocessing, data.cache.size)
            self._transform = eval_transform(recipe.augmentation, size, preprocessing.interpolation)

    @property
    def image_size(self) -> int:
        """Pixels per side."""
        return self._transform.image_size

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, position: int) -> torch.Tensor:
        image = self._cache.image(int(self._images.rows[position]), int(self._images.numbers[position]))
        if not self._look:
            return self._transform(image)
        state = torch.get_rng_state()
        try:
            seeds = np.random.SeedSequence([self._seed, self._look, position])
            # Not torch.manual_seed, which would reseed the GPU as well.
            torch.default_generator.manual_seed(int(seeds.generate_state(1)[0]))
            return self._transform(image)
        finally:
            torch.set_rng_state(state)

    def load_batches(self, positions: Sequence[int], batch_size: int = _BATCH) -> Iterable[torch.Tensor]:
        """Yields the images at some positions, (B, 3, S, S) uint8."""
        options: dict[str, Any] = {"num_workers": self._loaders, "pin_memory": self._loaders > 0}
        return DataLoader(Subset(self, positions), batch_size=batch_size, **options)
