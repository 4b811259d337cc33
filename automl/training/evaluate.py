"""What a network sees of an image, and what it says about a whole split."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from automl.training.numerics import autocast

if TYPE_CHECKING:
    import numpy as np

    from automl.recipe import Numerics
    from automl.training.model import Preprocessing

__all__ = ["Normalize", "probabilities"]


class Normalize:
    """(B, 3, S, S) uint8 images → what the network was made for: normalised float32 on its device."""

    def __init__(self, preprocessing: "Preprocessing", numerics: "Numerics", device: torch.device) -> None:
        scale = 255 * torch.tensor([preprocessing.mean, preprocessing.std], device=device)
        self._mean, self._std = scale.view(2, 3, 1, 1)
        self._device = device
        self.layout = torch.channels_last if numerics.memory_format == "channels_last" else torch.contiguous_format

    def __call__(self, images: Tensor) -> Tensor:
        """Normalises a batch."""
        pixels = images.to(self._device, non_blocking=True).float()
        return pixels.sub_(self._mean).div_(self._std).contiguous(memory_format=self.layout)


@torch.inference_mode()
def probabilities(
    model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], normalize: Normalize, precision: Any
) -> "np.ndarray[Any, Any]":
    """Predicts batch after batch.

    Args:
        model: On its device; it is left in evaluation mode.
        batches: Pairs of images (B, 3, S, S) uint8 and labels, which are not looked at.
        normalize: Makes images the network's input.
        precision: Of the arithmetic, as in `Numerics`.

    Returns:
        Probabilities (N, classes) float64.
    """
    model.eval()
    device = next(model.parameters()).device
    parts = []
    for images, _ in batches:
        with autocast(device, precision):
            logits = model(normalize(images))
        parts.append(logits.double().softmax(dim=1).cpu())
    return torch.cat(parts).numpy()
