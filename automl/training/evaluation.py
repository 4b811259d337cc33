"""What a network sees of an image, and what it says about a whole split."""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from automl.errors import MemoryBudgetError
from automl.training.out_of_memory import attempted, give_back
from automl.training.precision import autocast
from automl.views.aggregate import clip_scores

if TYPE_CHECKING:
    from automl.backbones.weights import Preprocessing
    from automl.recipe import Numerics, Recipe
    from automl.training.types import Data


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


def split_probabilities(
    model: nn.Module,
    recipe: "Recipe",
    data: "Data",
    split: str,
    preprocessing: "Preprocessing",
    device: str | torch.device,
    *,
    batch_size: int | None = None,
    on_smaller: Callable[[int, int], None] = lambda _tried, _smaller: None,
) -> "np.ndarray[Any, Any]":
    """Predicts a whole split: its images, and from them its samples by the recipe's aggregate.

    Where memory runs out, the images that did not fit are repeated, half as many at once. A sample without an image,
    such as a clip without sound, has the shares of the classes in training.

    Args:
        model: Is moved to the device, and left in evaluation mode.
        recipe: Gives the numerics.
        data: Has the split.
        split: Its name.
        preprocessing: What the model wants of its input.
        device: Where to predict.
        batch_size: Images at once; None: the recipe's micro-batch, or its batch.
        on_smaller: Told each time (images that did not fit, images that are tried next). What it raises ends it.

    Returns:
        Probabilities (N, classes) float64, of each sample.

    Raises:
        MemoryBudgetError: If the memory does not hold the network and one image.
    """
    numerics = recipe.numerics
    normalize = Normalize(preprocessing, numerics, torch.device(device))
    model = model.to(device).to(memory_format=normalize.layout)
    size = batch_size or numerics.micro_batch_size or data.batch_size(recipe)
    counts = data.counts(split)
    found = np.zeros((0, data.classes))
    if counts.any():  # else no clip of the split shows the view anything
        batches = data.evaluation_batches(recipe, preprocessing, split, size)
        found = _probabilities(model, batches, normalize, numerics.precision, on_smaller)
    shares = np.bincount(data.labels("train"), minlength=data.classes) if (counts == 0).any() else np.zeros(0)
    prior = shares / max(1, shares.sum())
    return clip_scores(recipe.aggregate, found, counts, data.positive, prior)


@torch.inference_mode()
def _probabilities(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    normalize: Normalize,
    precision: str,
    on_smaller: Callable[[int, int], None],
) -> "np.ndarray[Any, Any]":
    """Predicts batch after batch; the labels are not looked at."""
    model.eval()
    device = next(model.parameters()).device

    def predict(images: Tensor) -> Tensor:
        with autocast(device, precision):
            logits = model(normalize(images))
        found: Tensor = logits.double().softmax(dim=1).cpu()
        return found

    parts: list[Tensor] = []
    fits: int | None = None
    for images, _ in batches:
        left = images
        while len(left):
            part = left[:fits]
            found = attempted(lambda part=part: predict(part))  # type: ignore[misc]
            if found is not None:
                parts.append(found)
                left = left[len(part) :]
                continue
            give_back(device)
            if len(part) == 1:
                raise MemoryBudgetError(
                    "the device's memory does not hold the network and one image; end what else uses it"
                )
            fits = -(-len(part) // 2)
            on_smaller(len(part), fits)
    return torch.cat(parts).numpy()
