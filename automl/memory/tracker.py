"""Records when each storage is born and dies while a step is computed on tensors without data.

torch's own kernels of normalisations and GELU for such tensors are written in Python and take milliseconds: three
quarters of the time in which a convolutional network is traced. Those here return tensors of the same sizes and types.
"""

import weakref
from collections.abc import Callable, Iterable
from itertools import groupby
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from automl.memory.caching_allocator import Event


def workspace_bytes(name: str, args: tuple[Any, ...]) -> int:
    """Returns the bytes that a CUDA kernel allocates for itself and frees again, which no kernel for `meta` shows.

    In the backward pass of flash attention they are float32 gradients of the queries and one float32 per query
    (`flash_api.cpp`: `dq_accum`, `softmax_d`).
    """
    if name != "aten::_scaled_dot_product_flash_attention_backward":
        return 0
    query = args[1]
    return int(4 * query.numel() + 4 * query.numel() // query.shape[-1])


class Tracker(TorchDispatchMode):
    """Logs the births and deaths of the storages that operators return while the mode is active.

    A storage's death is seen through a weak reference, so it is logged at the very operator that drops it, also
    when autograd drops it in the middle of the backward pass.

    Attributes:
        born: How many storages were born; the next one's number.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._events: list[Event] = []
        self._known: dict[int, weakref.ref[torch.UntypedStorage]] = {}
        self.born = 0

    def add_storages(self, tensors: Iterable[Any]) -> None:
        """Logs the births of the storages of tensors that are not known yet; other values are passed over."""
        for tensor in tensors:
            if isinstance(tensor, torch.Tensor):
                self._add_storage(tensor.untyped_storage())

    def take_events(self) -> list[Event]:
        """Ends a stretch of the log and returns its events.

        Deaths that follow each other directly are ordered by birth: their order depends on hashes, and traces at two
        batch sizes must pair.
        """
        events, self._events = self._events, []
        ordered: list[Event] = []
        for are_deaths, stretch in groupby(events, key=lambda event: event.change_bytes < 0):
            in_order = list(stretch)
            ordered += sorted(in_order) if are_deaths else in_order
        return ordered

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = KERNELS.get(func, func)(*args, **(kwargs or {}))
        schema = getattr(func, "_schema", None)
        if schema is not None and (size_bytes := workspace_bytes(schema.name, args)):
            storage = self._log_birth(size_bytes)
            self._events.append(Event(storage, -size_bytes))
        self.add_storages(tree_leaves(result))
        return result

    def _log_birth(self, size_bytes: int) -> int:
        storage = self.born
        self.born += 1
        self._events.append(Event(storage, size_bytes))
        return storage

    def _add_storage(self, storage: torch.UntypedStorage) -> None:
        key, size_bytes = storage._cdata, storage.nbytes()
        if key in self._known or not size_bytes:
            return
        number = self._log_birth(size_bytes)

        def log_death(_: object) -> None:
            self._known.pop(key, None)
            self._events.append(Event(number, -size_bytes))

        self._known[key] = weakref.ref(storage, log_death)


# --- kernels that compute shapes alone ----------------------------------------------------------------------------

Gradients = tuple[Tensor | None, Tensor | None, Tensor | None]


def _batch_norm(images: Tensor, *arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Takes (images, weight, bias, running mean, running variance, training, momentum, eps)."""
    training = arguments[4]
    return (torch.empty_like(images), *_make_statistics(images, (images.shape[1] if training else 0,)))


def _batch_norm_backward(_: Tensor, images: Tensor, weight: Tensor | None, *arguments: Any) -> Gradients:
    """Takes (gradient, images, weight, …, which gradients are wanted)."""
    return _make_gradients(images, weight, weight, arguments[-1])


def _layer_norm(values: Tensor, shape: list[int], *_: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Takes (values, normalised shape, weight, bias, eps)."""
    outer = (*values.shape[: values.dim() - len(shape)], *(1 for _ in shape))
    normalised = torch.empty_like(values, memory_format=torch.contiguous_format)
    return (normalised, *_make_statistics(values, outer))


def _layer_norm_backward(_: Tensor, values: Tensor, *arguments: Any) -> Gradients:
    """Takes (gradient, values, normalised shape, mean, deviation, weight, bias, which gradients are wanted)."""
    return _make_gradients(values, *arguments[-3:])


def _like_the_last(*tensors: Any, **_: Any) -> Tensor:
    """Takes (values) or (gradient, values) and returns a result for each value."""
    return torch.empty_like(next(value for value in reversed(tensors) if isinstance(value, Tensor)))


def _make_statistics(values: Tensor, shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Makes mean and deviation; in float32 also of half precision."""
    dtype = torch.promote_types(values.dtype, torch.float32)
    return values.new_empty(shape, dtype=dtype), values.new_empty(shape, dtype=dtype)


def _make_gradients(values: Tensor, weight: Tensor | None, bias: Tensor | None, wanted: list[bool]) -> Gradients:
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
