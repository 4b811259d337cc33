"""Devices: which there are, and the memory of this process on one: kept within a budget, and given back.

A CUDA error that is not out of memory (an illegal access, a device-side assertion) leaves a context in which every
later call fails, until the process ends.
"""

import ctypes
import gc
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, NoReturn

from automl.errors import StudyError

if TYPE_CHECKING:
    import torch

POISONED = 75
"""Exit code of a worker that cannot use its device any more, and whose trial goes on in the next one."""
LEAKED = 76
"""Exit code of a worker that has lost memory from trial to trial."""


class DeviceLost(Exception):  # noqa: N818 - of the process, not of the trial
    """This process cannot use its device any more."""


def find_devices(wanted: str) -> tuple[str, ...]:
    """Finds the devices to train on, one for each worker.

    Args:
        wanted: A device, or several with commas between: `cuda:0,cuda:1`; one that is given twice has two workers.
            `auto` and `cuda` are every GPU; `auto` is the CPU where there is none.

    Raises:
        StudyError: If a wanted one is not there.
    """
    import torch

    if "," in wanted:
        if not all(name.strip() for name in wanted.split(",")):
            raise StudyError(f"--device {wanted} names an empty device; give names with commas between: cuda:0,cuda:1")
        return tuple(device for name in wanted.split(",") for device in find_devices(name.strip()))

    gpus = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    if wanted in ("auto", "cuda") and gpus:
        return tuple(gpus)
    if wanted in ("auto", "cpu"):
        return ("cpu",)
    if wanted in gpus:
        return (wanted,)
    raise StudyError(f"no device {wanted!r} here; there is: {', '.join(['cpu', *gpus])}")


def label_workers(devices: Sequence[str]) -> list[str]:
    """Names the worker on each device: by the device, with a number where several share it."""
    earlier = [list(devices[:k]).count(device) for k, device in enumerate(devices)]
    shared = {device for device in devices if list(devices).count(device) > 1}
    return [f"{name}-{k}" if name in shared else name for name, k in zip(devices, earlier, strict=True)]


def is_gpu(device: str) -> bool:
    """Returns whether a device is a GPU: `cuda` or `cuda:N`, where the CPU is `cpu`."""
    return device.startswith("cuda")


class DeviceProcess:
    """What a worker's process does with its device; this one is for a CPU, whose memory has no limit here."""

    def limit_memory(self, budget_bytes: int | None, context_bytes: int) -> int | None:  # noqa: ARG002
        """Limits the process to a budget (None: all of the device). Returns the bytes it may use; None: not known."""
        keep_freed_memory()
        return None

    def release_memory(self) -> int:
        """Gives back what no tensor uses, and returns the bytes that tensors use."""
        give_freed_memory_back()  # pieces that fit one trial's layers do not fit the next one's: it would add up
        return 0

    def reset_peak(self) -> None:
        """Begins to measure the memory for `read_peak`."""

    def read_peak(self) -> int | None:
        """Returns the most bytes that the process took of the device since `reset_peak`; None: nobody counts them."""
        return None

    def is_lost(self, error: Exception) -> bool:  # noqa: ARG002
        """Returns whether this process cannot use the device any more after an error."""
        return False

    def exit_process(self, code: int) -> NoReturn:
        """Ends the process."""
        sys.exit(code)


class CudaProcess(DeviceProcess):
    """A worker's process on a GPU."""

    def __init__(self, device: str) -> None:
        self._device, self._context_bytes = device, 0

    def limit_memory(self, budget_bytes: int | None, context_bytes: int) -> int | None:
        """Limits PyTorch's allocator."""
        import torch

        self._context_bytes = context_bytes
        if budget_bytes is None:
            return int(torch.cuda.get_device_properties(self._device).total_memory)
        limit_process(self._device, budget_bytes, context_bytes)
        return budget_bytes

    def release_memory(self) -> int:
        """Empties the allocator's cache; what cuBLAS keeps, up to 64 MiB, is given back as well and is no leak."""
        import torch

        torch._C._cuda_clearCublasWorkspaces()
        free_cached_memory(self._device)
        return torch.cuda.memory_allocated(self._device)

    def reset_peak(self) -> None:
        """Resets the peak of PyTorch's allocator."""
        import torch

        torch.cuda.reset_peak_memory_stats(self._device)

    def read_peak(self) -> int:
        """Reads the peak of what PyTorch's allocator took, and adds the CUDA context."""
        import torch

        return self._context_bytes + torch.cuda.max_memory_reserved(self._device)

    def is_lost(self, error: Exception) -> bool:
        """Looks at its type, and whether the device answers: libraries and older torch raise any RuntimeError."""
        import torch

        if not isinstance(error, RuntimeError) or isinstance(error, torch.cuda.OutOfMemoryError):
            return False
        if isinstance(error, getattr(torch, "AcceleratorError", ())):
            return True
        try:
            torch.cuda.synchronize(self._device)
        except RuntimeError:
            return True
        return False

    def exit_process(self, code: int) -> NoReturn:
        """Ends it at once: what Python and CUDA do at the end may hang or abort in a poisoned context."""
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def open_device(device: str) -> DeviceProcess:
    """Returns what this process can do with its device."""
    return CudaProcess(device) if is_gpu(device) else DeviceProcess()


def free_cached_memory(device: "torch.device | str") -> None:
    """Gives memory that no tensor uses back to the device, in whole, so that fragments do not count."""
    gc.collect()
    if is_gpu(str(device)):
        import torch

        torch.cuda.empty_cache()


def limit_process(device: str, budget_bytes: int, context_bytes: int) -> None:
    """Lets PyTorch's allocator take what a budget leaves beside the CUDA context; beyond it, it is out of memory.

    `set_per_process_memory_fraction` alone would leave the context out: a "16 GB" process would take 16.5. The context
    is what the process takes beside the allocator (`automl.gpu.probe.read_context_bytes`), without the workspaces that
    libraries keep in it.
    """
    import torch

    total = torch.cuda.get_device_properties(device).total_memory
    share = max(0, budget_bytes - context_bytes) / total
    index = torch.device(device).index  # a device without one is refused here, and only here; None: the current one
    torch.cuda.set_per_process_memory_fraction(min(1.0, share), index)


# From glibc's malloc.h (mallopt(3)).
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX, _ARENA_MAX = -1, -2, -4, -8


def keep_freed_memory() -> bool:
    """Makes glibc keep the memory that this process frees.

    By default every activation larger than 32 MiB at most is mapped anew in each step, and the kernel zeroes each of
    its pages again: training mobilenetv2_100 at 192 px, batch 32, on two cores went from 21 to 34 images a second
    with this, and system time from 40 % to almost nothing (`studies/benchmarks/cpu_memory.py`). It costs nothing but
    memory that the next step wants anyway. Returns whether it was done; not where the C library is another one.
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
