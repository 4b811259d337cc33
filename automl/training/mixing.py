"""Mixup and CutMix of a batch, from torchvision.

torchvision v2's MixUp and CutMix take soft targets and odd batches. timm's Mixup needs an even batch, in all but its
newest versions integer labels, and draws from numpy's global generator. torchvision draws from torch's: it is seeded by
(seed, step) inside a fork, so a resumed trial mixes as it would have, and the global state stays as it was.
"""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor

from automl.recipe.choices import choice_classes, unknown_choice
from automl.recipe.mixing import CutMix, Mixing, Mixup, NoMixing

Mix = Callable[[Tensor, Tensor, int], tuple[Tensor, Tensor]]
"""Images (B, C, H, W) float, soft targets (B, C) and the step → the same two, mixed."""


def make_mixing(mixing: Mixing, classes: int, seed: int) -> Mix:
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

    Raises:
        RecipeError: If there is no such mixing.
    """
    from torchvision.transforms import v2

    match mixing:
        case NoMixing():
            return lambda images, targets, _step: (images, targets)
        case Mixup():
            kind: type[v2.Transform] = v2.MixUp
        case CutMix():
            kind = v2.CutMix
        case _:
            raise unknown_choice("training", "mixing", mixing, choice_classes(Mixing))
    return partial(mix_sometimes, kind(alpha=mixing.alpha, num_classes=classes), mixing.probability, seed)


def mix_sometimes(
    transform: Callable[..., tuple[Tensor, Tensor]],
    probability: float,
    seed: int,
    images: Tensor,
    targets: Tensor,
    step: int,
) -> tuple[Tensor, Tensor]:
    """Mixes a batch or leaves it as it is, by (seed, step) alone."""
    # One generator seed for both, without the collisions that a sum has.
    state = np.random.SeedSequence([seed % 2**63, step]).generate_state(1, np.uint64)[0]
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(int(state >> np.uint64(1)))
        if torch.rand(()).item() >= probability:
            return images, targets
        return transform(images, targets)
