"""Test-time augmentation: a file is scored as several images, and its probabilities are their mean.

| name | images | what they are |
|---|---|---|
| `none` | 1 | the middle (squashed: all), as in training's evaluation (`automl.data.transforms.eval_transform`) |
| `flip` | 2 | that, and its mirror image |
| `5crop` | 5 | four corners and the middle (Krizhevsky et al. 2012, section 4.1, without their mirror images) |

The side of the five windows is 87.5 % of the decoded image's short side (timm's usual `crop_pct`), and each is resized
to the image size: what resizing the whole to image size / .875 first would show, with one resampling less. Of an image
that is squashed, the windows have 87.5 % of each side. For native crops nothing is resized: the windows have the image
size, or, in an image that is smaller, its short side, and only those are resized, as in the evaluation.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from automl.data.transforms import INTERPOLATIONS, Pixels, eval_transform, shown_part
from automl.errors import SpecError
from automl.recipe.augmentation import Augmentation, Crop

TTA: dict[str, int] = {"none": 1, "flip": 2, "5crop": 5}
"""The names of test-time augmentations, and the images each makes of a file."""

_CROP_SHARE = 0.875


@dataclass(frozen=True)
class Variants:
    """Makes the images of one file that a network sees; equal ones make equal images.

    `tta` is a key of `TTA`, `crop` the one the network was trained with, `image_size` the pixels per side of what the
    network sees, and `interpolation` that of the resizing, as timm names it.
    """

    tta: str
    crop: Crop
    image_size: int
    interpolation: str

    def __post_init__(self) -> None:
        """Refuses an unknown augmentation (SpecError) or interpolation (RecipeError) before the first file."""
        if self.tta not in TTA:
            raise SpecError(f"unknown test-time augmentation {self.tta!r}: use one of {', '.join(TTA)}")
        self._crop_middle(np.zeros((1, 1, 3), dtype=np.uint8))

    def __call__(self, image: Pixels) -> torch.Tensor:
        """Makes (K, 3, image_size, image_size) uint8 of (H, W, 3) uint8; K is `TTA[self.tta]`."""
        if self.tta == "5crop":
            return self._crop_five(image)
        middle = self._crop_middle(image)
        return torch.stack([middle, F.horizontal_flip(middle)]) if self.tta == "flip" else middle[None]

    def _crop_middle(self, image: Pixels) -> torch.Tensor:
        """Makes the image that training's evaluation sees."""
        return eval_transform(Augmentation(crop=self.crop), self.image_size, self.interpolation)(image)

    def _crop_five(self, image: Pixels) -> torch.Tensor:
        """Makes images of the four corners and the middle."""
        crop = self.crop
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
