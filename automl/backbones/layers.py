"""Features of several layers of a timm model, pooled over positions, and a head that looks at all of them.

Which layer of a frozen network tells classes apart best depends on the task: traces of a forgery are seen in the middle
layers, objects in the last ones. So up to six layers are read in one forward pass, by timm's `forward_intermediates`,
which every architecture of timm 1.0.31 has that was looked at. Where it is missing or fails, the output of
`forward_features` is the only layer.

Of each layer: the class token where there is one, the mean over positions and their standard deviation (the second
moments are what style and texture are told by: Gatys et al. 2016; Huang & Belongie 2017, arXiv:1703.06868). At the end
stand the network's own pooled features, the input of its classifier (`pre_logits`).
"""

import inspect
from typing import Any

import torch
from torch import Tensor, nn

from automl.backbones.headed import HeadedBackbone, is_channels_last

PRE_LOGITS = "pre_logits"
"""The name of the last layer: the network's own pooled features."""

MOST_LAYERS = 6
_STABLE = 1e-6
"""Added to variances: of a feature that is the same everywhere, a deviation of 0 has no gradient."""


class LayerReader:
    """Reads the pooled features of a timm model's layers."""

    def __init__(self, model: nn.Module, image_size: int, most_layers: int = MOST_LAYERS) -> None:
        """Counts the layers of a model, with one empty image.

        Args:
            model: As timm makes it, with its own classifier or none, in whatever mode.
            image_size: Pixels per side of the images.
            most_layers: Layers at most, beside `PRE_LOGITS`; evenly spread in depth, the last one always among them.
        """
        self._model: Any = model
        self._has_class_token = getattr(model, "cls_token", None) is not None
        self._indices: list[int] | None = None  # all, of this image alone, to see how many there are
        self._indices = spread_evenly(self._count_intermediates(image_size), most_layers)

    def read_layers(self, x: Tensor) -> list[tuple[str, Tensor]]:
        """Reads the layers' features (B, D) float32 by name, from normalised images (B, 3, S, S); last `PRE_LOGITS`."""
        final, outputs = self._run_network(x)
        layers = [(name, self._pool_layer(output)) for name, output in outputs]
        pooled = self._model.forward_head(final, pre_logits=True)
        branches = pooled if isinstance(pooled, list | tuple) else [pooled]  # CrossViT has one for each scale
        return [*layers, (PRE_LOGITS, torch.cat([branch.flatten(1).float() for branch in branches], dim=1))]

    def _count_intermediates(self, image_size: int) -> int:
        """Returns how many intermediates the network gives; 0 if it cannot."""
        was_training = self._model.training
        image = torch.zeros(1, 3, image_size, image_size, device=next(self._model.parameters()).device)
        self._model.eval()  # the statistics of a BatchNorm shall not see it
        try:
            with torch.no_grad():
                return len(self._run_with_intermediates(image)[1])
        except (MemoryError, torch.OutOfMemoryError):
            raise
        except Exception:  # a model's code may raise anything for what it cannot do
            return 0
        finally:
            self._model.train(was_training)

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
            return final.movedim(-1, 1) if is_channels_last(self._model) else final
        if final.ndim != 3:
            return final[:, :, None]
        prefix = getattr(self._model, "num_prefix_tokens", 0)
        patches = final[:, prefix:].transpose(1, 2)
        return (patches, final[:, :prefix]) if self._has_class_token and prefix else patches

    def _pool_layer(self, output: Any) -> Tensor:
        """Pools an intermediate, (B, C, …) or that with tokens (B, T, C): class token, mean and deviation (B, D)."""
        patches, tokens = output if isinstance(output, tuple) else (output, None)
        positions = patches.float().flatten(2)  # (B, C, P)
        deviation = (positions.var(2, correction=0) + _STABLE).sqrt()
        parts = [positions.mean(2), deviation]
        if tokens is not None:
            parts.insert(0, tokens[:, 0].float())  # the others are registers, or a distilled model's second one
        return torch.cat(parts, dim=1)


class LayersClassifier(HeadedBackbone):
    """A backbone of timm's with a linear layer on the standardised features of several of its layers."""

    def __init__(self, backbone: nn.Module, image_size: int, classes: int) -> None:
        super().__init__()
        backbone.reset_classifier(0)  # type: ignore[operator]
        self.backbone = backbone
        self._reader = LayerReader(backbone, image_size)
        device = next(backbone.parameters()).device
        was_training = backbone.training
        backbone.eval()
        with torch.no_grad():
            width = self.read_features(torch.zeros(1, 3, image_size, image_size, device=device)).shape[1]
        backbone.train(was_training)
        # Features of layers differ in size by orders of magnitude; a BatchNorm without weights, as MAE's linear probe
        # has it (He et al. 2022, arXiv:2111.06377).
        self.head = nn.Sequential(nn.BatchNorm1d(width, affine=False), nn.Linear(width, classes))

    def read_features(self, images: Tensor) -> Tensor:
        """Reads the features (B, D) float32 of normalised images."""
        return torch.cat([features for _, features in self._reader.read_layers(images)], dim=1)

    def forward(self, images: Tensor) -> Tensor:
        """Maps normalised images (B, 3, S, S) to logits (B, classes)."""
        logits: Tensor = self.head(self.read_features(images))
        return logits

    def get_classifier(self) -> nn.Module:
        """Returns what is new."""
        return self.head


def spread_evenly(count: int, most: int) -> list[int]:
    """Chooses up to `most` of the numbers 0 … `count - 1`, evenly spread, the last one always among them."""
    chosen = min(count, most)
    return [(number + 1) * count // chosen - 1 for number in range(chosen)]
