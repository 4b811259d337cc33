"""CUDA's automatic mixed precision on CPU tensors.

A step is traced on fake *CPU* tensors, because a machine without a GPU cannot differentiate CUDA ones. CPU autocast
casts other operators than CUDA autocast does, which changes the size of what is kept for the backward pass. Here its
dispatch key gets CUDA's lists (`aten/src/ATen/autocast_mode.h`) for as long as a context lasts.
"""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

__all__ = ["cuda_autocast"]

HALF = ("prelu", "conv_transpose1d", "conv_transpose2d.input", "conv_transpose3d.input", "addmv", "mv", "einsum")
"""Cast to half precision by CUDA, and not (in every supported version of PyTorch) by the CPU."""

FLOAT = (
    *("acos", "asin", "cosh", "erfinv", "exp", "expm1", "log", "log10", "log2", "log1p", "reciprocal", "rsqrt"),
    *("sinh", "tan", "pow.Tensor_Scalar", "pow.Tensor_Tensor", "pow.Scalar", "softplus", "layer_norm"),
    *("native_layer_norm", "rms_norm", "group_norm", "cosine_similarity", "nll_loss", "nll_loss2d", "l1_loss"),
    *("smooth_l1_loss", "huber_loss", "mse_loss", "binary_cross_entropy_with_logits", "dist", "cdist", "logsumexp"),
    *("upsample_nearest2d", "upsample_bilinear2d", "_upsample_bilinear2d_aa", "upsample_bicubic2d"),
    "_upsample_bicubic2d_aa",
)
"""Cast to float32."""

FLOAT_RESULT = ("prod", "cumprod", "cumsum", "linalg_vector_norm", "sum", "sum.dim_IntList")
"""Asked for a float32 result, with the input left as it is."""

SOFTMAX = (("softmax.int", "_softmax"), ("log_softmax.int", "_log_softmax"))
"""Turned to float32 by a fused kernel for float16, by a cast for bfloat16."""

Kernel = Callable[..., Any]


@contextmanager
def cuda_autocast(dtype: torch.dtype | None) -> Iterator[None]:
    """Runs CPU operators under CUDA's autocast rules; everything is undone at the end.

    The dispatcher's table is the process's: no other thread may use CPU autocast meanwhile.

    Args:
        dtype: `torch.float16` or `torch.bfloat16`; None: no autocast.
    """
    if dtype is None:
        yield
        return
    library = torch.library.Library("aten", "IMPL")  # type: ignore[no-untyped-call]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it says that kernels are overridden, which is the point
            for name, kernel in _kernels():
                library.impl(name, kernel, "AutocastCPU")  # type: ignore[no-untyped-call]
        with torch.autocast("cpu", dtype=dtype):
            yield
    finally:
        library._destroy()  # type: ignore[no-untyped-call]


def _kernels() -> Iterator[tuple[str, Kernel]]:
    for name in HALF:
        yield name, _casting(_operator(name), to_half=True)
    for name in FLOAT:
        yield name, _casting(_operator(name), to_half=False)
    for name in FLOAT_RESULT:
        yield name, _asking_float(_operator(name))
    for name, fused in SOFTMAX:
        yield name, _fused_softmax(_operator(name), _operator(fused))


def _operator(name: str) -> Kernel:
    packet, _, overload = name.partition(".")
    operator: Kernel = getattr(getattr(torch.ops.aten, packet), overload or "default")
    return operator


def _without_autocast() -> Any:
    keys = torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastCPU)
    return torch._C._ExcludeDispatchKeyGuard(keys)


def _cast(value: Any, dtype: torch.dtype) -> Any:
    if isinstance(value, torch.Tensor):
        castable = value.is_floating_point() and value.dtype is not torch.float64
        return value.to(dtype) if castable else value
    if isinstance(value, list | tuple):
        return type(value)(_cast(item, dtype) for item in value)
    return value


def _casting(operator: Kernel, to_half: bool) -> Kernel:
    def kernel(*args: Any, **kwargs: Any) -> Any:
        dtype = torch.get_autocast_dtype("cpu") if to_half else torch.float32
        with _without_autocast():
            casted = {name: _cast(value, dtype) for name, value in kwargs.items()}
            return operator(*_cast(args, dtype), **casted)

    return kernel


def _is_half(tensor: torch.Tensor) -> bool:
    return tensor.dtype in (torch.float16, torch.bfloat16)


def _asking_float(operator: Kernel) -> Kernel:
    def kernel(tensor: torch.Tensor, *args: Any, dtype: torch.dtype | None = None, **kwargs: Any) -> Any:
        wanted = torch.float32 if dtype is None and _is_half(tensor) else dtype
        with _without_autocast():
            return operator(tensor, *args, dtype=wanted, **kwargs)

    return kernel


def _fused_softmax(operator: Kernel, fused: Kernel) -> Kernel:
    def kernel(tensor: torch.Tensor, dim: int, dtype: torch.dtype | None = None) -> Any:
        with _without_autocast():
            if dtype is None and tensor.dtype is torch.float16:
                return fused(tensor, dim, True)
            return operator(tensor, dim, torch.float32 if dtype is None and _is_half(tensor) else dtype)

    return kernel
