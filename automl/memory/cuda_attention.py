"""Scaled dot-product attention with the kernels that CUDA would choose, for tensors without data.

On the CPU PyTorch composes attention differently from a CUDA device, which changes what is kept for the backward
pass. The choice here follows `aten/src/ATen/native/transformers/cuda/sdp_utils.cpp`: flash attention for half
precision without a mask, the memory-efficient kernel for everything else it supports, plain mathematics for the rest.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F

aten = torch.ops.aten

FUSED_HEAD_WIDTH = 256
"""The widest head that the fused kernels take."""


def cuda_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> torch.Tensor:
    """Computes `F.scaled_dot_product_attention` as a CUDA device dispatches it; `enable_gqa` without a fused kernel."""
    if torch.is_autocast_enabled("cpu"):
        dtype = torch.get_autocast_dtype("cpu")
        query, key, value = query.to(dtype), key.to(dtype), value.to(dtype)
        if attn_mask is not None and attn_mask.is_floating_point():
            attn_mask = attn_mask.to(dtype)
    width = query.shape[-1]
    if query.dim() != 4 or enable_gqa or width > FUSED_HEAD_WIDTH or value.shape[-1] != width:
        return _attend_plainly(query, key, value)
    scale = width**-0.5 if scale is None else scale
    if padding := -width % 8:
        query, key, value = (F.pad(tensor, (0, padding)) for tensor in (query, key, value))
    if attn_mask is None and query.dtype in (torch.float16, torch.bfloat16):
        flash = aten._scaled_dot_product_flash_attention
        result = flash(query, key, value, dropout_p, is_causal, False, scale=scale)[0]
    else:
        bias = _expand_mask(attn_mask, query, key)
        keep_logsumexp = query.requires_grad or key.requires_grad or value.requires_grad
        efficient = aten._scaled_dot_product_efficient_attention
        result = efficient(query, key, value, bias, keep_logsumexp, dropout_p, is_causal, scale=scale)[0]
    attended: torch.Tensor = result[..., :width] if padding else result
    return attended


def _attend_plainly(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    repeats = query.shape[-3] // key.shape[-3] if query.dim() > 2 else 1
    if repeats > 1:
        key, value = key.repeat_interleave(repeats, -3), value.repeat_interleave(repeats, -3)
    weights = query @ key.transpose(-2, -1)
    return weights.softmax(-1).to(value.dtype) @ value


def _expand_mask(mask: torch.Tensor | None, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor | None:
    """Makes a mask additive and expands it over batch and heads, as the memory-efficient kernel wants it."""
    if mask is None:
        return None
    if mask.dtype == torch.bool:
        mask = torch.zeros_like(mask, dtype=query.dtype).masked_fill(~mask, float("-inf"))
    return mask.expand(query.shape[0], query.shape[1], query.shape[2], key.shape[2])


@contextmanager
def cuda_kernels() -> Iterator[None]:
    """Puts `cuda_attention` in the place of `F.scaled_dot_product_attention` while active, in every thread.

    A `TorchFunctionMode` would not do: it is put aside while autograd computes layers again (gradient checkpointing).
    """
    own = F.scaled_dot_product_attention
    F.scaled_dot_product_attention = cuda_attention
    try:
        yield
    finally:
        F.scaled_dot_product_attention = own
