"""Records when each storage is born and dies while a step is computed on tensors without data."""

import weakref
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from automl.memory.caching_allocator import Event
from automl.memory.shape_kernels import KERNELS


def workspace_bytes(name: str, args: tuple[Any, ...]) -> int:
    """Bytes that a CUDA kernel allocates for itself and frees again, which no kernel for `meta` shows.

    Args:
        name: The operator's schema name.
        args: Its arguments.

    Returns:
        For the backward pass of flash attention, float32 gradients of the queries and one float32 per query
        (`flash_api.cpp`: `dq_accum`, `softmax_d`); 0 for everything else.
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

    def add(self, tensors: Iterable[Any]) -> None:
        """Logs the births of the storages of tensors that are not known yet; other values are passed over."""
        for tensor in tensors:
            if isinstance(tensor, torch.Tensor):
                self._add_storage(tensor.untyped_storage())

    def take(self) -> list[Event]:
        """Ends a stretch of the log, and begins the next one.

        Returns:
            The stretch's events. Deaths that follow each other directly are ordered by birth: their order depends on
            hashes, and traces at two batch sizes must pair.
        """
        events, self._events = self._events, []
        ordered: list[Event] = []
        deaths: list[Event] = []
        for event in events:
            if event.change_bytes < 0:
                deaths.append(event)
                continue
            ordered += sorted(deaths)
            deaths.clear()
            ordered.append(event)
        return ordered + sorted(deaths)

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        result = KERNELS.get(func, func)(*args, **(kwargs or {}))
        schema = getattr(func, "_schema", None)
        if schema is not None and (size_bytes := workspace_bytes(schema.name, args)):
            storage = self._log_birth(size_bytes)
            self._events.append(Event(storage, -size_bytes))
        self.add(tree_leaves(result))
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

        def dies(_: object) -> None:
            self._known.pop(key, None)
            self._events.append(Event(number, -size_bytes))

        self._known[key] = weakref.ref(storage, dies)
