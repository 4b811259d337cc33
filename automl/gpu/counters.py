"""The memory counters of a CUDA device, as a measurement reads them. The tests have counters of the CPU."""

import os

import torch

from automl.devices import free_cached_memory, limit_process
from automl.gpu.nvml import Gpu, find_gpu, read_nvml
from automl.memory.estimate import BARE_CONTEXT_BYTES

_LEAST_CONTEXT_BYTES = 64 * 2**20
"""No CUDA context is smaller: a figure below it is other processes' memory that was freed at the same moment."""


class CudaCounters:
    """This process's memory on a CUDA device; all sizes are bytes.

    Make it before anything else uses CUDA in this process: it notes what others use.

    Attributes:
        name: Of the device.

    Raises:
        RuntimeError: If CUDA cannot be used.
    """

    def __init__(self, device: str) -> None:
        # Of all GPUs: which of them torch means is certain only once this process uses CUDA.
        self._used_before = {gpu.uuid: gpu.used_bytes for gpu in read_nvml().gpus}
        self._asked, self._device = device, torch.device(device)
        _use_libraries(self._device)
        self.name = torch.cuda.get_device_name(self._device)

    def read_context(self) -> int:
        """Reads what the process takes beside the allocator; after a step, with the kernels loaded since."""
        context = (self.read_process() or 0) - torch.cuda.memory_reserved(self._device)
        return context if context >= _LEAST_CONTEXT_BYTES else BARE_CONTEXT_BYTES

    def read_workspace(self) -> int:
        """Reads what libraries keep in the allocator; only while there is no tensor: before a step and after it."""
        return torch.cuda.memory_allocated(self._device)

    def limit_memory(self, budget_bytes: int, context_bytes: int) -> None:
        """Makes allocations that take the process beyond the budget raise `torch.OutOfMemoryError`."""
        limit_process(self._asked, budget_bytes, context_bytes)

    def read_free(self) -> int | None:
        """Reads what nobody uses now, this process's cache included; None: not known."""
        free, _ = torch.cuda.mem_get_info(self._device)
        return free + torch.cuda.memory_reserved(self._device)

    def reset_peaks(self) -> None:
        """Starts new peaks."""
        torch.cuda.reset_peak_memory_stats(self._device)

    def read_allocated(self) -> int:
        """Reads the peak of live tensors since `reset_peaks`, the workspace included."""
        return torch.cuda.max_memory_allocated(self._device)

    def read_reserved(self) -> int:
        """Reads the peak of the allocator's segments since `reset_peaks`."""
        return torch.cuda.max_memory_reserved(self._device)

    def read_process(self) -> int | None:
        """Reads what the process takes now by the driver's count; None where NVML does not say."""
        gpu = find_gpu(self._asked)
        return None if gpu is None else _read_process(gpu, self._used_before.get(gpu.uuid))

    def wait_for_device(self) -> None:
        """Waits until the device is done."""
        torch.cuda.synchronize(self._device)

    def release_memory(self) -> None:
        """Gives back what no tensor uses."""
        free_cached_memory(self._device)


def _read_process(gpu: Gpu, used_before: int | None) -> int | None:
    """Returns NVML's figure or, where it hides processes (in most containers), how much more of the device is used."""
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
