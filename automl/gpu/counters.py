"""What a measurement asks of a device: its counters, its limit. CUDA's is here; the tests have one for the CPU."""

import gc
import os
from typing import Protocol

import torch

from automl.devices import limit_process
from automl.gpu.nvml import Gpu, find_gpu, read_nvml
from automl.memory.estimate import BARE_CONTEXT_BYTES

_LEAST_CONTEXT_BYTES = 64 * 2**20
"""No CUDA context is smaller: a figure below it is other processes' memory that was freed at the same moment."""


class Memory(Protocol):
    """One process's memory on one device; all sizes are bytes."""

    name: str
    """Of the device."""

    def context_bytes(self) -> int:
        """What the process takes beside the allocator; asked again after a step, it counts the kernels loaded since."""

    def workspace_bytes(self) -> int:
        """What libraries keep in the allocator; asked while there is no tensor, before the first step and after it."""

    def limit(self, budget_bytes: int, context_bytes: int) -> None:
        """From now on an allocation that takes the process beyond the budget raises `torch.OutOfMemoryError`."""

    def free_bytes(self) -> int | None:
        """What nobody uses now, this process's cache included; None: not known."""

    def reset_peaks(self) -> None:
        """Begins new peaks."""

    def allocated(self) -> int:
        """Peak of live tensors since `reset_peaks`, the workspace included."""

    def reserved(self) -> int:
        """Peak of the allocator's segments since `reset_peaks`."""

    def process_bytes(self) -> int | None:
        """What the driver says that the process takes now; None: it does not."""

    def synchronize(self) -> None:
        """Waits until the device is done."""

    def release(self) -> None:
        """Gives back what no tensor uses."""


class CudaMemory:
    """A CUDA device. Make it before anything else uses CUDA in this process: it notes what others use.

    Raises:
        RuntimeError: If CUDA cannot be used.
    """

    def __init__(self, device: str) -> None:
        # Of all GPUs: which of them torch means is certain only once this process uses CUDA.
        self._used_before = {gpu.uuid: gpu.used_bytes for gpu in read_nvml().gpus}
        self._asked, self._device = device, torch.device(device)
        _use_libraries(self._device)
        self.name = torch.cuda.get_device_name(self._device)

    def context_bytes(self) -> int:  # noqa: D102 - as in Memory
        used = self.process_bytes()
        if used is None:
            return BARE_CONTEXT_BYTES
        context = used - torch.cuda.memory_reserved(self._device)
        return context if context >= _LEAST_CONTEXT_BYTES else BARE_CONTEXT_BYTES

    def workspace_bytes(self) -> int:  # noqa: D102
        return torch.cuda.memory_allocated(self._device)

    def limit(self, budget_bytes: int, context_bytes: int) -> None:  # noqa: D102
        limit_process(self._asked, budget_bytes, context_bytes)

    def free_bytes(self) -> int | None:  # noqa: D102
        free, _ = torch.cuda.mem_get_info(self._device)
        return free + torch.cuda.memory_reserved(self._device)

    def reset_peaks(self) -> None:  # noqa: D102
        torch.cuda.reset_peak_memory_stats(self._device)

    def allocated(self) -> int:  # noqa: D102
        return torch.cuda.max_memory_allocated(self._device)

    def reserved(self) -> int:  # noqa: D102
        return torch.cuda.max_memory_reserved(self._device)

    def process_bytes(self) -> int | None:  # noqa: D102
        gpu = find_gpu(self._asked)
        return None if gpu is None else _of_this_process(gpu, self._used_before.get(gpu.uuid))

    def synchronize(self) -> None:  # noqa: D102
        torch.cuda.synchronize(self._device)

    def release(self) -> None:  # noqa: D102
        gc.collect()
        torch.cuda.empty_cache()


def _of_this_process(gpu: Gpu, used_before: int | None) -> int | None:
    """NVML's figure or, where it hides the processes (in most containers), how much more of the device is used."""
    for process in gpu.processes or ():
        if process.pid == os.getpid() and process.used_bytes is not None:
            return process.used_bytes
    return None if used_before is None else max(0, gpu.used_bytes - used_before)


def _use_libraries(device: torch.device) -> None:
    """Makes CUDA, cuBLAS and cuDNN take what they take once: a tiny convolution, a product, and back."""
    images = torch.ones(2, 8, 8, 8, device=device, requires_grad=True)
    kernel = torch.ones(8, 8, 3, 3, device=device)
    features = torch.nn.functional.conv2d(images, kernel, padding=1).flatten(1)
    (features @ features.T).sum().backward()  # type: ignore[no-untyped-call]
    torch.cuda.synchronize(device)
