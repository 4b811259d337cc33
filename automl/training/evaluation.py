"""What a network sees of an image, and its probabilities for images and for a whole split."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from automl.devices import free_cached_memory
from automl.errors import MemoryBudgetError
from automl.training.out_of_memory import none_if_out_of_memory
from automl.training.precision import autocast
from automl.views.aggregate import score_clips

if TYPE_CHECKING:
    from automl.backbones.input import InputSpec, Preprocessing
    from automl.recipe import Numerics, Recipe
    from automl.training.types import Data


class Normalize:
    """(B, 3, S, S) uint8 images → what the network was made for: normalised float32 on its device."""

    def __init__(self, preprocessing: "Preprocessing | InputSpec", numerics: "Numerics", device: torch.device) -> None:
        scale = 255 * torch.tensor([preprocessing.mean, preprocessing.std], device=device)
        self._mean, self._std = scale.view(2, 3, 1, 1)
        self._device = device
        self.layout = torch.channels_last if numerics.memory_format == "channels_last" else torch.contiguous_format

    def __call__(self, images: Tensor) -> Tensor:
        """Normalises a batch."""
        pixels = images.to(self._device, non_blocking=True).float()
        return pixels.sub_(self._mean).div_(self._std).contiguous(memory_format=self.layout)


class Predictor:
    """A network that is asked for probabilities, with as many images at once as fit into the memory.

    Images that do not fit are repeated, half as many at once, and no more from then on.

    Attributes:
        device: Where the network is.
        batch_size: Images at once, at most; None: as many as are given.
    """

    def __init__(
        self,
        model: nn.Module,
        preprocessing: "Preprocessing | InputSpec",
        numerics: "Numerics",
        device: str | torch.device,
        *,
        batch_size: int | None = None,
        largest: int | None = None,
        on_smaller: Callable[[int, int], None] = lambda _tried, _smaller: None,
    ) -> None:
        """Moves the network to its device, in evaluation mode.

        Args:
            model: The network.
            preprocessing: What it expects of its input.
            numerics: Precision and memory format.
            device: Where to predict.
            batch_size: Images at once in the beginning; None: as many as are given.
            largest: Up to how many images `batch_size` is doubled after each batch that fits; None: it is not.
            on_smaller: Called when memory runs out with (images that did not fit, images that are tried next). What it
                raises ends the prediction.
        """
        self.device, self.batch_size = torch.device(device), batch_size
        self._largest, self._on_smaller, self._precision = largest or 0, on_smaller, numerics.precision
        self._normalize = Normalize(preprocessing, numerics, self.device)
        self._model = model.to(self.device).to(memory_format=self._normalize.layout).eval()

    @torch.inference_mode()
    def predict_batch(self, images: Tensor) -> Tensor:
        """Predicts images (B, 3, S, S) uint8, B at least 1.

        Returns:
            Probabilities (B, classes) float64, on the CPU.

        Raises:
            MemoryBudgetError: If the memory does not hold the network and one image.
        """
        parts: list[Tensor] = []
        while len(images):
            part = images[: self.batch_size]
            probabilities = none_if_out_of_memory(lambda part=part: self._predict_part(part))  # type: ignore[misc]
            if probabilities is None:
                self._shrink(len(part))
                continue
            parts.append(probabilities)
            images = images[len(part) :]
            if len(part) == self.batch_size:
                self.batch_size = max(self.batch_size, min(2 * self.batch_size, self._largest))
        return torch.cat(parts)

    def _predict_part(self, images: Tensor) -> Tensor:
        """Predicts images that may not fit."""
        with autocast(self.device, self._precision):
            logits: Tensor = self._model(self._normalize(images))
        return logits.double().softmax(dim=1).cpu()

    def _shrink(self, tried: int) -> None:
        """Halves the number of images at once after `tried` did not fit."""
        free_cached_memory(self.device)
        if tried == 1:
            raise MemoryBudgetError(
                f"the memory of {self.device} does not hold the network and one image; end what else uses it"
                + (", or choose --device cpu" if self.device.type == "cuda" else "")
            )
        self.batch_size = self._largest = -(-tried // 2)
        self._on_smaller(tried, self.batch_size)


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

    A sample without an image, such as a clip without sound, has the shares of the classes in training.

    The model is left on the device and in evaluation mode. Without `batch_size`, the recipe's micro-batch or batch is
    taken; `on_smaller` is as in `Predictor`.

    Returns:
        Probabilities (N, classes) float64, of each sample.

    Raises:
        MemoryBudgetError: If the memory does not hold the network and one image.
    """
    predictor = Predictor(model, preprocessing, recipe.numerics, device, on_smaller=on_smaller)
    size = batch_size or recipe.numerics.micro_batch_size or data.batch_size(recipe)
    counts = data.counts(split)
    probabilities = np.zeros((0, data.classes))
    if counts.any():  # else no clip of the split has an image for the view
        batches = data.evaluation_batches(recipe, preprocessing, split, size)
        probabilities = torch.cat([predictor.predict_batch(images) for images, _ in batches]).numpy()
    shares = np.bincount(data.labels("train"), minlength=data.classes) if (counts == 0).any() else np.zeros(0)
    prior = shares / max(1, shares.sum())
    return score_clips(recipe.aggregate, probabilities, counts, data.positive, prior)
