"""The memory of a worker's device: kept within the budget, empty again between trials, and when to leave it.

A CUDA error that is not out of memory (an illegal access, a device-side assertion) leaves a context in which every
later call fails, until the process ends.
"""

import gc
import os
import sys
from typing import NoReturn, Protocol

from automl.training.allocator import give_freed_memory_back, keep_freed_memory

__all__ = ["LEAKED", "POISONED", "CpuMemory", "CudaMemory", "DeviceLost", "DeviceMemory", "device_memory"]

POISONED = 75
"""Exit code of a worker that cannot use its device any more, and whose trial goes on in the next one."""
LEAKED = 76
"""Exit code of a worker that has lost memory from trial to trial."""


class DeviceLost(Exception):  # noqa: N818 - of the process, not of the trial
    """This process cannot use its device any more."""


class DeviceMemory(Protocol):
    """What a worker asks of its device."""

    def begin(self, budget_bytes: int | None) -> int | None:
        """Limits the process to a budget. Returns the bytes it may use; None: no limit is known."""

    def settle(self) -> int:
        """Gives back what no tensor uses, and returns the bytes that tensors use."""

    def lost(self, error: Exception) -> bool:
        """Whether the device cannot be used by this process any more after an error."""

    def leave(self, code: int) -> NoReturn:
        """Ends the process."""


class CpuMemory:
    """A computer's own memory, which has no limit here and no context."""

    def begin(self, budget_bytes: int | None) -> int | None:  # noqa: ARG002, D102 - as in DeviceMemory
        keep_freed_memory()
        return None

    def settle(self) -> int:  # noqa: D102
        give_freed_memory_back()  # pieces that fit one trial's layers do not fit the next one's: it would add up
        return 0

    def lost(self, error: Exception) -> bool:  # noqa: ARG002, D102
        return False

    def leave(self, code: int) -> NoReturn:  # noqa: D102
        sys.exit(code)


class CudaMemory:
    """A GPU's memory."""

    def __init__(self, device: str) -> None:
        self._device = device

    def begin(self, budget_bytes: int | None) -> int | None:  # noqa: D102
        import torch

        if budget_bytes is None:
            return int(torch.cuda.get_device_properties(self._device).total_memory)
        from automl.memory.limit import limit_process

        limit_process(self._device, budget_bytes)
        return budget_bytes

    def settle(self) -> int:  # noqa: D102
        import torch

        gc.collect()
        torch._C._cuda_clearCublasWorkspaces()  # up to 64 MiB, kept by the library rather than lost
        torch.cuda.empty_cache()
        return torch.cuda.memory_allocated(self._device)

    def lost(self, error: Exception) -> bool:
        """By its type, or because the device does not answer: libraries and older torch raise any RuntimeError."""
        import torch

        if not isinstance(error, RuntimeError) or isinstance(error, torch.cuda.OutOfMemoryError):
            return False
        return isinstance(error, getattr(torch, "AcceleratorError", ())) or not self._answers()

    def leave(self, code: int) -> NoReturn:
        """At once: what Python and CUDA do at the end of a process may hang or abort in a poisoned context."""
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)

    def _answers(self) -> bool:
        import torch

        try:
            torch.cuda.synchronize(self._device)
        except RuntimeError:
            return False
        return True


def device_memory(device: str) -> DeviceMemory:
    """The memory of a device."""
    return CudaMemory(device) if device.startswith("cuda") else CpuMemory()
