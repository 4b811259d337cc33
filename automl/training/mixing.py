"""Mixup and CutMix of a batch, from torchvision.

torchvision v2's MixUp and CutMix take soft targets and odd batches. timm's Mixup needs an even batch, in all but its
newest versions integer labels, and draws from numpy's global generator. torchvision draws from torch's: it is seeded by
(seed, step) inside a fork, so a resumed trial mixes as it would have, and the global state stays as it was.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from automl.recipe.mixing import CutMix, Mixup, NoMixing

Mix = Callable[[Tensor, Tensor, int], tuple[Tensor, Tensor]]
"""Images (B, C, H, W) float, soft targets (B, C) and the step → the same two, mixed."""


def make_mixing(mixing: "NoMixing | Mixup | CutMix", classes: int, seed: int) -> Mix:
    """Makes the mixing of a recipe.

    Each image is mixed with its neighbour in the batch (the batch is shuffled), in one proportion for the whole batch.

    Args:
        mixing: The recipe's `mixing`.
        classes: Number of classes, C.
        seed: Of the training run.

    Returns:
        A function of images (B, 3, H, W) float, soft targets (B, C) fp32 and a step index, which should differ
        between micro-batches. The result depends on nothing but these and the seed; the inputs are not changed. A
        batch of one comes back as it was.
    """
    if mixing.name == "none":
        return _unmixed
    from torchvision.transforms import v2

    kind = {"mixup": v2.MixUp, "cutmix": v2.CutMix}[mixing.name]
    transform = kind(alpha=mixing.alpha, num_classes=classes)
    probability = mixing.probability

    def mix(images: Tensor, targets: Tensor, step: int) -> tuple[Tensor, Tensor]:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(_step_seed(seed, step))
            if torch.rand(()).item() >= probability:
                return images, targets
            mixed: tuple[Tensor, Tensor] = transform(images, targets)
            return mixed

    return mix


def _unmixed(images: Tensor, targets: Tensor, _step: int) -> tuple[Tensor, Tensor]:
    """Leaves the batch as it is."""
    return images, targets


def _step_seed(seed: int, step: int) -> int:
    """One generator seed for (seed, step), without the collisions that a sum has."""
    import numpy as np

    return int(np.random.SeedSequence([seed % 2**63, step]).generate_state(1, np.uint64)[0] >> np.uint64(1))
