"""Mixup and CutMix of a batch, from torchvision.

torchvision v2's MixUp and CutMix take soft targets and odd batches. timm's Mixup needs an even batch, in all but its
newest versions integer labels, and draws from numpy's global generator. torchvision draws from torch's: it is seeded by
(seed, step) inside a fork, so a resumed trial mixes as it would have, and the global state stays as it was.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from automl.recipe.choices import find_entry
from automl.recipe.learning import CutMix, Mixing, Mixup, NoMixing
from automl.schema import Part

Mix = Callable[[Tensor, Tensor, int], tuple[Tensor, Tensor]]
"""Images (B, C, H, W) float, soft targets (B, C) and the step → the same two, mixed."""

TORCHVISION_NAMES: dict[type[Part], str] = {NoMixing: "", Mixup: "MixUp", CutMix: "CutMix"}
"""torchvision's class for each mixing of a recipe; none for none."""


def make_mixing(mixing: Mixing, classes: int, seed: int) -> Mix:
    """Makes the mixing of a recipe.

    Each image is mixed with its neighbour in the batch (the batch is shuffled), in one proportion for the whole batch.

    Returns:
        A function of images (B, 3, H, W) float, soft targets (B, C) fp32 and a step index, which should differ
        between micro-batches. The result depends on nothing but these and the seed; the inputs are not changed. A
        batch of one comes back as it was.

    Raises:
        RecipeError: If there is no such mixing.
    """
    name = find_entry("training", "mixing", mixing, TORCHVISION_NAMES)
    if isinstance(mixing, NoMixing):
        return lambda images, targets, _step: (images, targets)
    from torchvision.transforms import v2

    transform = getattr(v2, name)(alpha=mixing.alpha, num_classes=classes)
    return partial(mix_sometimes, transform, mixing.probability, seed)


def mix_sometimes(
    transform: Callable[..., Any], probability: float, seed: int, images: Tensor, targets: Tensor, step: int
) -> tuple[Tensor, Tensor]:
    """Mixes a batch or leaves it as it is, by (seed, step) alone."""
    # One generator seed for both, without the collisions that a sum has.
    state = np.random.SeedSequence([seed % 2**63, step]).generate_state(1, np.uint64)[0]
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(int(state >> np.uint64(1)))
        if torch.rand(()).item() >= probability:
            return images, targets
        images, targets = transform(images, targets)
    return images, targets
