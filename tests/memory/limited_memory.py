"""An accelerator that has only so much memory, made of the CPU's."""

import weakref

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

__all__ = ["LimitedMemory"]


class LimitedMemory(TorchDispatchMode):
    """Counts the live bytes of the CPU storages that operators make while it is active, and refuses too many.

        with LimitedMemory(2**20) as memory:
            ...  # raises torch.OutOfMemoryError where the live bytes would exceed a mebibyte

    Storages that were there before do not count; one that was made inside counts until it dies, wherever that is.
    """

    def __init__(self, limit_bytes):
        super().__init__()
        self.limit_bytes = limit_bytes
        self.live_bytes = 0
        """Of the storages, without the neighbour's."""
        self.peak_bytes = 0
        self.taken_bytes = 0
        """By a neighbour."""
        self.refused = 0
        """How often memory ran out."""
        self._known = {}

    def take(self, size_bytes):
        """A neighbour takes memory away; a negative number gives it back."""
        self.taken_bytes += size_bytes

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        known = {tensor.untyped_storage()._cdata for tensor in _cpu_tensors((args, kwargs or {}))}
        result = func(*args, **(kwargs or {}))
        new = {tensor.untyped_storage()._cdata: tensor.untyped_storage() for tensor in _cpu_tensors(result)}
        new = {key: storage for key, storage in new.items() if key not in known and key not in self._known}
        wanted = sum(storage.nbytes() for storage in new.values())
        if wanted and self.live_bytes + self.taken_bytes + wanted > self.limit_bytes:
            self.refused += 1
            free = self.limit_bytes - self.live_bytes - self.taken_bytes
            # As an accelerator's: nothing was made, and the frames of the traceback hold what was.
            del result, new
            raise torch.cuda.OutOfMemoryError(f"tried to allocate {wanted} bytes of which {free} are free")
        for key, storage in new.items():
            self._count(key, storage)
        return result

    def _count(self, key, storage):
        size = storage.nbytes()

        def dies(_):
            del self._known[key]
            self.live_bytes -= size

        self._known[key] = weakref.ref(storage, dies)
        self.live_bytes += size
        self.peak_bytes = max(self.peak_bytes, self.live_bytes)


def _cpu_tensors(values):
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, torch.Tensor) and leaf.device.type == "cpu"]
