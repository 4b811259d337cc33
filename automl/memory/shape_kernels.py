"""What normalisations and GELU return, as shapes alone.

torch's own kernels of them for tensors without data are written in Python and take milliseconds: three quarters of the
time in which a convolutional network is traced. These return tensors of the same sizes and types.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Gradients = tuple[Tensor | None, Tensor | None, Tensor | None]


def _batch_norm(images: Tensor, *arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Of (images, weight, bias, running mean, running variance, training, momentum, eps)."""
    training = arguments[4]
    return (torch.empty_like(images), *_statistics(images, (images.shape[1] if training else 0,)))


def _batch_norm_backward(_: Tensor, images: Tensor, weight: Tensor | None, *arguments: Any) -> Gradients:
    """Of (gradient, images, weight, …, which gradients are wanted)."""
    return _gradients(images, weight, weight, arguments[-1])


def _layer_norm(values: Tensor, shape: list[int], *_: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Of (values, normalised shape, weight, bias, eps)."""
    outer = (*values.shape[: values.dim() - len(shape)], *(1 for _ in shape))
    normalised = torch.empty_like(values, memory_format=torch.contiguous_format)
    return (normalised, *_statistics(values, outer))


def _layer_norm_backward(_: Tensor, values: Tensor, *arguments: Any) -> Gradients:
    """Of (gradient, values, normalised shape, mean, deviation, weight, bias, which gradients are wanted)."""
    return _gradients(values, *arguments[-3:])


def _like_the_last(*tensors: Any, **_: Any) -> Tensor:
    """Of (values) or (gradient, values): a result for each value."""
    return torch.empty_like(next(value for value in reversed(tensors) if isinstance(value, Tensor)))


def _statistics(values: Tensor, shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Mean and deviation; in float32 also of half precision."""
    dtype = torch.promote_types(values.dtype, torch.float32)
    return values.new_empty(shape, dtype=dtype), values.new_empty(shape, dtype=dtype)


def _gradients(values: Tensor, weight: Tensor | None, bias: Tensor | None, wanted: list[bool]) -> Gradients:
    of_values, of_weight, of_bias = (
        None if tensor is None or not flag else torch.empty_like(tensor)
        for tensor, flag in zip((values, weight, bias), wanted, strict=True)
    )
    return of_values, of_weight, of_bias


KERNELS: dict[Any, Callable[..., Any]] = {
    torch.ops.aten.native_batch_norm.default: _batch_norm,
    torch.ops.aten.native_batch_norm_backward.default: _batch_norm_backward,
    torch.ops.aten.native_layer_norm.default: _layer_norm,
    torch.ops.aten.native_layer_norm_backward.default: _layer_norm_backward,
    torch.ops.aten.gelu.default: _like_the_last,
    torch.ops.aten.gelu_backward.default: _like_the_last,
}
