"""Features of several layers of a timm model for batches of images, on its device (`automl.backbones.layers`)."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from automl.backbones.layers import MOST_LAYERS, LayerReader
from automl.devices import free_cached_memory
from automl.errors import MemoryBudgetError, RecipeError
from automl.training.evaluation import Normalize
from automl.training.out_of_memory import none_if_out_of_memory
from automl.training.precision import autocast

if TYPE_CHECKING:
    from automl.backbones.input import Preprocessing
    from automl.recipe import Numerics

_BATCH = 32


@dataclass(frozen=True)
class FeatureLayer:
    """Where the features of a layer stand among all: columns `start` … `stop - 1`."""

    name: str
    start: int
    stop: int

    @property
    def columns(self) -> slice:
        """The columns."""
        return slice(self.start, self.stop)


class FeatureExtractor:
    """A network that is asked for the features of its layers, with as many images at once as fit into the memory.

    Attributes:
        layers: Which columns of the features are of which layer, first layer first; the last one is `PRE_LOGITS`.
        device: Where the network is.
        batch_size: Images at once, at most; halved when memory runs out.
    """

    def __init__(
        self,
        model: nn.Module,
        preprocessing: "Preprocessing",
        numerics: "Numerics",
        device: str | torch.device,
        image_size: int,
        *,
        most_layers: int = MOST_LAYERS,
    ) -> None:
        """Moves a timm model to its device, in evaluation mode, and looks at the layers with one empty image.

        Args:
            model: As timm makes it, with its own classifier or none.
            preprocessing: What it expects of its input.
            numerics: Precision, memory format, and images at once.
            device: Where it runs.
            image_size: Pixels per side of the images.
            most_layers: Layers at most, beside `PRE_LOGITS`; evenly spread in depth, the last one always among them.

        Raises:
            RecipeError: If its features are not finite.
            MemoryBudgetError: If the memory does not hold the network and one image.
        """
        self.device, self.batch_size = torch.device(device), numerics.micro_batch_size or _BATCH
        self._normalize = Normalize(preprocessing, numerics, self.device)
        self._model: Any = model.to(self.device).to(memory_format=self._normalize.layout).eval()
        self._precision = numerics.precision
        self._reader = LayerReader(self._model, image_size, most_layers)
        empty = torch.zeros(1, 3, image_size, image_size, dtype=torch.uint8)
        self.layers: tuple[FeatureLayer, ...] = ()
        self.extract_batch(empty)

    @property
    def width(self) -> int:
        """Number of features of an image."""
        return self.layers[-1].stop

    @torch.inference_mode()
    def extract_batch(self, images: Tensor) -> Tensor:
        """Extracts the features of images (B, 3, S, S) uint8, B at least 1.

        Returns:
            Features (B, `width`) float32, on the CPU.

        Raises:
            RecipeError: If a feature is NaN or infinite.
            MemoryBudgetError: If the memory does not hold the network and one image.
        """
        parts: list[Tensor] = []
        while len(images):
            part = images[: self.batch_size]
            features = none_if_out_of_memory(lambda part=part: self._extract_part(part))  # type: ignore[misc]
            if features is None:
                self._shrink(len(part))
                continue
            parts.append(features)
            images = images[len(part) :]
        return torch.cat(parts)

    def _extract_part(self, images: Tensor) -> Tensor:
        """Extracts the features of images that may not fit."""
        with autocast(self.device, self._precision):
            parts = self._reader.read_layers(self._normalize(images))
        if not self.layers:
            ends = torch.tensor([part.shape[1] for _, part in parts]).cumsum(0).tolist()
            starts = [0, *ends[:-1]]
            names = [name for name, _ in parts]
            self.layers = tuple(map(FeatureLayer, names, starts, ends))
        features = torch.cat([part for _, part in parts], dim=1)
        if not torch.isfinite(features).all():
            fix = "its weights may be damaged" if self._precision == "fp32" else "set numerics.precision to fp32"
            raise RecipeError(f"features of {type(self._model).__name__} are not finite in {self._precision}; {fix}")
        return features.cpu()

    def _shrink(self, tried: int) -> None:
        """Halves the number of images at once after `tried` did not fit."""
        free_cached_memory(self.device)
        if tried == 1:
            raise MemoryBudgetError(
                f"the memory of {self.device} does not hold the network and one image; end what else uses it"
            )
        self.batch_size = -(-tried // 2)


def to_half(features: Tensor) -> Tensor:
    """Returns features as float16, of which the largest is 65504, on the disk and in memory half of float32."""
    largest = torch.finfo(torch.float16).max
    return features.clamp(-largest, largest).half()
