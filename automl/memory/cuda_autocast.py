"""CUDA's automatic mixed precision on tensors without data.

A step is traced on tensors of the `meta` device, because a machine without a GPU has no CUDA ones. They belong to no
device that autocast knows, so the dispatcher treats them as a CPU's while a context lasts, and that key
gets CUDA's rules: the lists of `ATen/autocast_mode.h` (torch 2.15), which decide what is kept for the backward pass.
"""

import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch

HALF = (
    *("_convolution.deprecated", "_convolution", "conv1d", "conv2d", "conv3d", "conv_tbc", "conv_transpose1d"),
    *("conv_transpose2d.input", "conv_transpose3d.input", "convolution", "prelu", "addmm", "addmv", "addr", "matmul"),
    *("einsum", "mm", "mv", "linalg_vecdot", "linear", "addbmm", "baddbmm", "bmm", "chain_matmul", "linalg_multi_dot"),
    *("lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell"),
)
"""Cast to half precision (`lower_precision_fp`); attention is `automl.memory.cuda_attention`'s."""

FLOAT = (
    *("acos", "asin", "cosh", "erfinv", "exp", "expm1", "log", "log10", "log2", "log1p", "reciprocal", "rsqrt"),
    *("sinh", "tan", "pow.Tensor_Scalar", "pow.Tensor_Tensor", "pow.Scalar", "softplus", "layer_norm"),
    *("native_layer_norm", "rms_norm", "group_norm", "frobenius_norm.dim", "nuclear_norm", "nuclear_norm.dim"),
    *("cosine_similarity", "poisson_nll_loss", "cosine_embedding_loss", "nll_loss", "nll_loss2d", "kl_div"),
    *("hinge_embedding_loss", "l1_loss", "smooth_l1_loss", "huber_loss", "mse_loss", "margin_ranking_loss"),
    *("multilabel_margin_loss", "soft_margin_loss", "triplet_margin_loss", "multi_margin_loss"),
    *("binary_cross_entropy_with_logits", "dist", "cdist", "renorm", "logsumexp", "upsample_nearest1d"),
    *("_upsample_nearest_exact1d", "upsample_nearest2d", "_upsample_nearest_exact2d", "upsample_linear1d"),
    *("upsample_bilinear2d", "_upsample_bilinear2d_aa", "upsample_bicubic2d", "_upsample_bicubic2d_aa"),
)
"""Cast to float32 (`fp32`)."""

FLOAT_RESULT = (
    *("prod", "prod.dim_int", "cumprod", "cumsum", "linalg_vector_norm", "linalg_matrix_norm"),
    *("linalg_matrix_norm.str_ord", "sum", "sum.dim_IntList"),
)
"""Asked for a float32 result, with the input left as it is (`fp32_set_opt_dtype`)."""

SOFTMAX = (("softmax.int", "_softmax"), ("log_softmax.int", "_log_softmax"))
"""Asked for a float32 result as well: by a fused kernel for float16, by a cast for bfloat16."""

WIDEST = (
    *("addcdiv", "addcmul", "atan2", "bilinear", "cross", "dot", "vdot", "grid_sampler", "index_put", "tensordot"),
    *("scatter_add", "cat", "stack"),
)
"""Computed in the widest type among the inputs (`promote`)."""

Kernel = Callable[..., Any]
_KEY = torch._C.DispatchKey.AutocastCPU


@contextmanager
def cuda_autocast(dtype: torch.dtype | None) -> Iterator[Callable[[], AbstractContextManager[Any]]]:
    """Installs CUDA's rules for a forward and a backward pass, until the end; None: no autocast.

    The dispatcher's table is the process's: no other thread may use CPU autocast meanwhile.

    Yields:
        What to call for the context of the forward pass, as `torch.autocast` is. The backward pass stays outside of it;
        layers that compute themselves again there (gradient checkpointing) enter it by themselves.
    """
    if dtype is None:
        yield nullcontext
        return
    rules = _Rules(dtype)
    library = torch.library.Library("aten", "IMPL")  # type: ignore[no-untyped-call]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it says that kernels are overridden, which is the point
            kernels = dict(rules.make_kernels())
            for name in _find_cpu_rules() - kernels.keys():
                kernels[name] = torch.library.fallthrough_kernel
            for name, kernel in kernels.items():
                library.impl(name, kernel, "AutocastCPU")  # type: ignore[no-untyped-call]
        with torch._C._IncludeDispatchKeyGuard(_KEY):
            yield rules.enter
    finally:
        library._destroy()  # type: ignore[no-untyped-call]


class _Rules:
    """The kernels of one context, and the weights they have cast."""

    def __init__(self, dtype: torch.dtype) -> None:
        self._dtype = dtype
        self._cache: dict[int, tuple[torch.Tensor, torch.Tensor]] | None = None

    @contextmanager
    def enter(self) -> Iterator[None]:
        """Switches autocast on; a weight is cast once, and its cast lives to the end."""
        self._cache = {}
        try:
            with torch.autocast("cpu", dtype=self._dtype):
                yield
        finally:
            self._cache = None

    def make_kernels(self) -> Iterator[tuple[str, Kernel]]:
        for name in HALF:
            yield name, self._make_casting(_find_operator(name), self._dtype)
        for name in FLOAT:
            yield name, self._make_casting(_find_operator(name), torch.float32)
        for name in FLOAT_RESULT:
            yield name, _make_float_result(_find_operator(name))
        for name, fused in SOFTMAX:
            yield name, _make_softmax(_find_operator(name), _find_operator(fused))
        for name in WIDEST:
            yield name, self._make_widening(_find_operator(name))

    def _make_casting(self, operator: Kernel, dtype: torch.dtype) -> Kernel:
        def kernel(*args: Any, **kwargs: Any) -> Any:
            with _without_autocast():
                casted = {name: self._cast_value(value, dtype) for name, value in kwargs.items()}
                return operator(*[self._cast_value(value, dtype) for value in args], **casted)

        return kernel

    def _make_widening(self, operator: Kernel) -> Kernel:
        widened = self._make_casting(operator, torch.float32)

        def kernel(*args: Any, **kwargs: Any) -> Any:
            if any(tensor.dtype is torch.float32 for tensor in _find_castable((*args, *kwargs.values()))):
                return widened(*args, **kwargs)
            with _without_autocast():
                return operator(*args, **kwargs)

        return kernel

    def _cast_value(self, value: Any, dtype: torch.dtype) -> Any:
        if isinstance(value, list | tuple):
            return type(value)(self._cast_value(item, dtype) for item in value)
        if not isinstance(value, torch.Tensor) or value.dtype is dtype or not _is_castable(value):
            return value
        weight = value.is_leaf and value.requires_grad and value.dtype is torch.float32
        if self._cache is None or not weight or dtype is not self._dtype:
            return value.to(dtype)
        if id(value) not in self._cache:
            self._cache[id(value)] = (value, value.to(dtype))  # the weight is held, so that its id stays its own
        return self._cache[id(value)][1]


def _find_cpu_rules() -> set[str]:
    """Lists operators with rules of CPU autocast, some of which would hide CUDA's rules for what they are made of."""
    names: list[str] = torch._C._dispatch_get_registrations_for_dispatch_key("AutocastCPU")
    return {name.removeprefix("aten::") for name in names if name.startswith("aten::")}


def _find_operator(name: str) -> Kernel:
    packet, _, overload = name.partition(".")
    operator: Kernel = getattr(getattr(torch.ops.aten, packet), overload or "default")
    return operator


def _without_autocast() -> Any:
    return torch._C._ExcludeDispatchKeyGuard(torch._C.DispatchKeySet(_KEY))


def _is_castable(tensor: torch.Tensor) -> bool:
    """Returns whether a tensor would be CUDA's; a model's constants on the CPU stay as they are."""
    return tensor.is_meta and tensor.is_floating_point() and tensor.dtype is not torch.float64


def _find_castable(values: tuple[Any, ...]) -> Iterator[torch.Tensor]:
    for value in values:
        for item in value if isinstance(value, list | tuple) else (value,):
            if isinstance(item, torch.Tensor) and _is_castable(item):
                yield item


def _is_half(tensor: torch.Tensor) -> bool:
    return tensor.is_meta and tensor.dtype in (torch.float16, torch.bfloat16)


def _make_float_result(operator: Kernel) -> Kernel:
    def kernel(tensor: torch.Tensor, *args: Any, dtype: torch.dtype | None = None, **kwargs: Any) -> Any:
        wanted = torch.float32 if dtype is None and _is_half(tensor) else dtype
        with _without_autocast():
            return operator(tensor, *args, dtype=wanted, **kwargs)

    return kernel


def _make_softmax(operator: Kernel, fused: Kernel) -> Kernel:
    def kernel(tensor: torch.Tensor, dim: int, dtype: torch.dtype | None = None) -> Any:
        with _without_autocast():
            if dtype is None and tensor.is_meta and tensor.dtype is torch.float16:
                return fused(tensor, dim, True)
            return operator(tensor, dim, torch.float32 if dtype is None and _is_half(tensor) else dtype)

    return kernel
