"""Test-time augmentation: a file is scored as several images, and its probabilities are their mean.

| name | images | what they are |
|---|---|---|
| `none` | 1 | the middle (squashed: all), exactly as in training's evaluation (`data.augment.eval_transform`) |
| `flip` | 2 | that, and its mirror image |
| `5crop` | 5 | four corners and the middle (Krizhevsky et al. 2012, section 4.1, without their mirror images) |

The side of the five windows is 87.5 % of the decoded image's short side (timm's usual `crop_pct`), and each is resized
to the image size: what resizing the whole to image size / .875 first would show, with one resampling less. Of an image
that is squashed, the windows have 87.5 % of each side. For native crops nothing is resized: the windows have the image
size, or, in an image that is smaller, its short side, and only those are resized, as in the evaluation.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from automl.data.transforms import INTERPOLATIONS, Pixels, eval_transform, shown_part
from automl.errors import SpecError
from automl.recipe.augmentation import Augmentation

Tta = Literal["none", "flip", "5crop"]

TTA: dict[str, int] = {"none": 1, "flip": 2, "5crop": 5}
"""The names of the ways, and the images each makes of a file."""

_CROP_SHARE = 0.875


@dataclass(frozen=True)
class Variants:
    """Makes the images of one file that a network sees; equal ones make equal images."""

    tta: str
    augmentation: Augmentation
    """Only its crop counts."""
    image_size: int
    interpolation: str

    def __call__(self, image: Pixels) -> torch.Tensor:
        """From (H, W, 3) uint8 to (K, 3, image_size, image_size) uint8, K = `TTA[self.tta]`."""
        if self.tta == "5crop":
            return self._five(image)
        middle = eval_transform(self.augmentation, self.image_size, self.interpolation)(image)
        if self.tta == "flip":
            return torch.stack([middle, F.horizontal_flip(middle)])
        return middle[None]

    def _five(self, image: Pixels) -> torch.Tensor:
        crop = self.augmentation.crop
        x = torch.from_numpy(np.array(shown_part(image, crop))).permute(2, 0, 1)
        sides = list(x.shape[1:]) if crop.name == "squash" else [min(x.shape[1:])] * 2
        if crop.name == "native":
            sides = [min(side, self.image_size) for side in sides]
        else:
            sides = [max(1, round(_CROP_SHARE * side)) for side in sides]
        windows = torch.stack(v2.FiveCrop(sides)(x))
        size = [self.image_size, self.image_size]
        if sides != size:
            windows = F.resize(windows, size, interpolation=INTERPOLATIONS[self.interpolation], antialias=True)
        return windows.contiguous()


def variants(tta: str, augmentation: Augmentation, image_size: int, interpolation: str) -> Variants:
    """Chooses how the images of a file are made.

    Args:
        tta: A key of `TTA`.
        augmentation: The one the network was trained with; only its crop counts.
        image_size: Pixels per side of what the network sees.
        interpolation: Of the resizing, as timm names it.

    Raises:
        SpecError: If there is no such way.
        RecipeError: If the interpolation is unknown.
    """
    if tta not in TTA:
        raise SpecError(f"unknown test-time augmentation {tta!r}: use one of {', '.join(TTA)}")
    eval_transform(augmentation, image_size, interpolation)  # a mistake shows now, not in a thread at the first file
    plain = Augmentation(crop=augmentation.crop)  # what does not count shall not make two of them differ
    return Variants(tta, plain, image_size, interpolation)
