"""timm models whose tensors have shapes and no data."""

from typing import Any

import torch
from torch import nn

from automl.backbones.timm_model import build_on_meta


def build_shapes(backbone: str, classes: int, image_size: int, drop_path: float = 0) -> nn.Module:
    """Builds a timm model whose tensors need not hold anything.

    Args:
        backbone: timm's name of the architecture.
        classes: Outputs of its head.
        image_size: Pixels; passed on to architectures that are built for one size.
        drop_path: Share of dropped residual branches; passed on to architectures that have it.

    Raises:
        Exception: Whatever timm raises for a combination it cannot build.
    """
    wanted = {"img_size": image_size, "drop_path_rate": drop_path}
    return build_on_meta(backbone, wanted, num_classes=classes)[0]


def drop_data(model: nn.Module, memory_format: torch.memory_format = torch.contiguous_format) -> None:
    """Replaces a model's parameters, buffers and other tensors in place by `meta` tensors of the same shapes.

    Tensors that modules share stay shared.

    Args:
        model: The model, on any device.
        memory_format: How its four-dimensional tensors lie in memory.
    """
    known: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}  # the original is held, so that its id stays its own

    def dropped(tensor: torch.Tensor) -> torch.Tensor:
        if id(tensor) not in known:
            known[id(tensor)] = (_empty(tensor, memory_format), tensor)
        return known[id(tensor)][0]

    def replace(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return dropped(value)
        if type(value) in (list, tuple):
            return type(value)(replace(item) for item in value)
        if type(value) is dict:
            return {name: replace(item) for name, item in value.items()}
        return value

    for module in model.modules():
        for registered in (module._parameters, module._buffers):
            for name, tensor in registered.items():
                if tensor is not None:
                    registered[name] = dropped(tensor)  # type: ignore[assignment]
        for name, value in list(vars(module).items()):
            if not name.startswith("_") and isinstance(value, torch.Tensor | list | tuple | dict):
                vars(module)[name] = replace(value)


def _empty(tensor: torch.Tensor, memory_format: torch.memory_format) -> torch.Tensor:
    if tensor.dim() == 4 and memory_format is torch.channels_last:
        data = torch.empty(tensor.shape, dtype=tensor.dtype, device="meta", memory_format=memory_format)
    else:
        data = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="meta")
    return nn.Parameter(data, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else data
