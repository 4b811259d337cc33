"""Devices: which there are, and the memory of a process on one: kept within a budget, and given back.

A CUDA error that is not out of memory (an illegal access, a device-side assertion) leaves a context in which every
later call fails, until the process ends.
"""

import ctypes
import gc
import os
import sys
from typing import NoReturn, Protocol

from automl.errors import StudyError

POISONED = 75
"""Exit code of a worker that cannot use its device any more, and whose trial goes on in the next one."""
LEAKED = 76
"""Exit code of a worker that has lost memory from trial to trial."""


class DeviceLost(Exception):  # noqa: N818 - of the process, not of the trial
    """This process cannot use its device any more."""


class DeviceMemory(Protocol):
    """What a worker asks of its device."""

    def begin(self, budget_bytes: int | None, context_bytes: int) -> int | None:
        """Limits the process to a budget. Returns the bytes it may use; None: no limit is known."""

    def settle(self) -> int:
        """Gives back what no tensor uses, and returns the bytes that tensors use."""

    def lost(self, error: Exception) -> bool:
        """Whether the device cannot be used by this process any more after an error."""

    def leave(self, code: int) -> NoReturn:
        """Ends the process."""


class CpuMemory:
    """A computer's own memory, which has no limit here and no context."""

    def begin(self, budget_bytes: int | None, context_bytes: int) -> int | None:  # noqa: ARG002, D102 - as in DeviceMemory
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

    def begin(self, budget_bytes: int | None, context_bytes: int) -> int | None:  # noqa: D102
        import torch

        if budget_bytes is None:
            return int(torch.cuda.get_device_properties(self._device).total_memory)
        limit_process(self._device, budget_bytes, context_bytes)
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


def find_devices(wanted: str) -> tuple[str, ...]:
    """The devices to train on: the wanted one, or for `auto` and `cuda` every GPU, or the CPU.

    Raises:
        StudyError: If the wanted one is not there.
    """
    import torch

    count = torch.cuda.device_count()
    if wanted == "cpu" or (wanted == "auto" and count == 0):
        return ("cpu",)
    if wanted in ("auto", "cuda") and count:
        return tuple(f"cuda:{index}" for index in range(count))
    if wanted in [f"cuda:{index}" for index in range(count)]:
        return (wanted,)
    have = ", ".join(["cpu", *(f"cuda:{index}" for index in range(count))])
    raise StudyError(f"no device {wanted!r} here; there is: {have}")


def limit_process(device: str, budget_bytes: int, context_bytes: int) -> None:
    """Lets PyTorch's allocator take what a budget leaves beside the CUDA context; beyond it, it is out of memory.

    `set_per_process_memory_fraction` alone would leave the context out: a "16 GB" process would take 16.5.

    Args:
        device: `cuda` or `cuda:N`; on a CPU nothing is limited.
        budget_bytes: For the whole process.
        context_bytes: What the process takes beside the allocator (`automl.gpu.probe.context_bytes`). What libraries
            keep in the allocator is no part of it.
    """
    if not device.startswith("cuda"):
        return
    import torch

    total = torch.cuda.get_device_properties(device).total_memory
    share = max(0, budget_bytes - context_bytes) / total
    index = torch.device(device).index  # a device without one is refused here, and only here; None: the current one
    torch.cuda.set_per_process_memory_fraction(min(1.0, share), index)


# From glibc's malloc.h (mallopt(3)).
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX, _ARENA_MAX = -1, -2, -4, -8


def keep_freed_memory() -> bool:
    """Tells glibc to keep the memory a process frees.

    By default every activation larger than 32 MiB at most is mapped anew in each step, and the kernel zeroes each of
    its pages again: training mobilenetv2_100 at 192 px, batch 32, on two cores went from 21 to 34 images a second
    with this, and system time from 40 % to almost nothing (`studies/benchmarks/cpu_memory.py`). It costs nothing but
    memory that the next step wants anyway.

    Returns:
        Whether it was done; not where the C library is another one.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return False  # macOS, Windows, musl: their allocators have no such knobs
    knobs = ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, 2**31 - 1), (_TOP_PAD, 64 << 20), (_ARENA_MAX, 1))
    return all(mallopt(knob, value) == 1 for knob, value in knobs)


def give_freed_memory_back() -> None:
    """Returns what was kept to the system, once, where the C library can."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (OSError, AttributeError, TypeError):
        return
