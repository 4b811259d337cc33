"""Features of several layers of a timm model, pooled over positions.

Which layer of a frozen network tells classes apart best depends on the task: traces of a forgery are seen in the middle
layers, objects in the last ones. So up to six layers are read in one forward pass, by timm's `forward_intermediates`,
which every architecture of timm 1.0.31 has that was looked at. Where it is missing or fails, the output of
`forward_features` is the only layer.

Of each layer: the class token where there is one, the mean over positions and their standard deviation (the second
moments are what style and texture are told by: Gatys et al. 2016; Huang & Belongie 2017, arXiv:1703.06868). At the end
stand the network's own pooled features, the input of its classifier (`pre_logits`).
"""

import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from automl.devices import free_cached_memory
from automl.errors import MemoryBudgetError, RecipeError
from automl.training.evaluation import Normalize
from automl.training.out_of_memory import none_if_out_of_memory
from automl.training.precision import autocast

if TYPE_CHECKING:
    from automl.backbones.input import Preprocessing
    from automl.recipe import Numerics

PRE_LOGITS = "pre_logits"
"""The name of the last layer: the network's own pooled features."""

_MOST_LAYERS = 6
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
        most_layers: int = _MOST_LAYERS,
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
        self._has_class_token = getattr(model, "cls_token", None) is not None
        self._indices: list[int] | None = None  # all, of this image alone, to see how many there are
        empty = torch.zeros(1, 3, image_size, image_size, dtype=torch.uint8)
        depth = self._count_intermediates(empty)
        self._indices = spread_evenly(depth, most_layers)
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
            parts = self._list_layers(self._normalize(images))
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

    def _list_layers(self, x: Tensor) -> list[tuple[str, Tensor]]:
        """Lists the layers' features (B, D) float32 by name, from normalised images."""
        final, outputs = self._run_network(x)
        layers = [(name, self._pool_layer(output)) for name, output in outputs]
        pooled = self._model.forward_head(final, pre_logits=True)
        branches = pooled if isinstance(pooled, list | tuple) else [pooled]  # CrossViT has one for each scale
        return [*layers, (PRE_LOGITS, torch.cat([branch.flatten(1).float() for branch in branches], dim=1))]

    @torch.inference_mode()
    def _count_intermediates(self, image: Tensor) -> int:
        """Returns how many intermediates the network gives; 0 if it cannot."""
        try:
            with autocast(self.device, self._precision):
                return len(self._run_with_intermediates(self._normalize(image))[1])
        except (MemoryError, torch.OutOfMemoryError):
            raise
        except Exception:  # a model's code may raise anything for what it cannot do
            return 0

    def _run_network(self, x: Tensor) -> tuple[Any, list[tuple[str, Any]]]:
        """Returns what the head is given, and the outputs of layers by name."""
        if self._indices:
            final, outputs = self._run_with_intermediates(x)
            return final, list(zip(self._name_layers(), outputs, strict=True))
        final = self._model.forward_features(x)
        return final, [("features", self._split_tokens(final))] if isinstance(final, Tensor) else []

    def _run_with_intermediates(self, x: Tensor) -> tuple[Any, list[Any]]:
        """Returns what the head is given, and the outputs of the chosen layers."""
        final, outputs = self._model.forward_intermediates(x, indices=self._indices, **self._tokens_wanted())
        return final, list(outputs)

    def _tokens_wanted(self) -> dict[str, bool]:
        """Returns the argument that gives the class token beside the patches, where there is one to be had."""
        # Without a class token, timm's VisionTransformerRelPos fails when it is asked for one.
        known = inspect.signature(self._model.forward_intermediates).parameters
        return {"return_prefix_tokens": True} if self._has_class_token and "return_prefix_tokens" in known else {}

    def _name_layers(self) -> list[str]:
        """Returns timm's names of the modules that give the outputs, where they name one each."""
        modules = [info["module"] for info in getattr(self._model, "feature_info", [])]
        names = {index: name for index, name in enumerate(modules) if modules.count(name) == 1}
        return [names.get(index, f"layer {index}") for index in self._indices or ()]

    def _split_tokens(self, final: Tensor) -> Any:
        """Brings the output of `forward_features` into the shape of an intermediate: (B, C, …), or that and tokens."""
        if final.ndim == 4:
            return final.movedim(-1, 1) if str(getattr(self._model, "output_fmt", "NCHW")).endswith("NHWC") else final
        if final.ndim != 3:
            return final[:, :, None]
        prefix = getattr(self._model, "num_prefix_tokens", 0)
        patches = final[:, prefix:].transpose(1, 2)
        return (patches, final[:, :prefix]) if self._has_class_token and prefix else patches

    def _pool_layer(self, output: Any) -> Tensor:
        """Pools an intermediate, (B, C, …) or that with tokens (B, T, C): class token, mean and deviation (B, D)."""
        patches, tokens = output if isinstance(output, tuple) else (output, None)
        positions = patches.float().flatten(2)  # (B, C, P)
        parts = [positions.mean(2), positions.std(2, correction=0)]
        if tokens is not None:
            parts.insert(0, tokens[:, 0].float())  # the others are registers, or a distilled model's second one
        return torch.cat(parts, dim=1)

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


def spread_evenly(count: int, most: int) -> list[int]:
    """Chooses up to `most` of the numbers 0 … `count - 1`, evenly spread, the last one always among them."""
    chosen = min(count, most)
    return [(number + 1) * count // chosen - 1 for number in range(chosen)]
