"""A stand-in for the module `pynvml`, for tests without a GPU.

    nvml = FakeNvml(FakeGpu("Tesla P100-PCIE-16GB", 16 * GB, processes=[FakeProcess(4711, "python", GB)]))
    nvml.install(monkeypatch)

Everything can be changed afterwards: `nvml.gpus[0].processes.append(…)` is a neighbour that comes.
"""

import sys
from dataclasses import dataclass, field
from types import SimpleNamespace

import pynvml as real

GB = 10**9
GIB = 2**30


@dataclass
class FakeProcess:
    """`used_bytes` None: NVML does not say (it still counts nothing towards the GPU's used memory)."""

    pid: int
    name: str
    used_bytes: int | None
    draws: bool = False


@dataclass
class FakeGpu:
    """Used memory: what its processes hold, and `unlisted_bytes`. Errors: numbers of `NVML_ERROR_…`, by function."""

    name: str = "Tesla T4"
    total_bytes: int = 16 * GB
    processes: list[FakeProcess] = field(default_factory=list)
    unlisted_bytes: int = 0
    reserved_bytes: int = 0
    uuid: str | None = None
    capability: tuple[int, int] = (7, 5)
    mig: "list[FakeGpu] | None" = None
    """Its instances; None: not in MIG mode."""
    errors: dict[str, int] = field(default_factory=dict)
    hides_processes: bool = False
    """Lists none, as in a container."""

    @property
    def used_bytes(self) -> int:
        return self.unlisted_bytes + sum(process.used_bytes or 0 for process in self.processes)


class FakeNvml:
    """Has the functions that `automl.memory.nvml` calls, and the errors of the real module."""

    def __init__(
        self,
        *gpus: FakeGpu,
        driver="550.54.14",
        cuda=12_040,
        init_error: int | None = None,
        errors: dict[str, int] | None = None,
        names_as_bytes=False,
        counts_reserve_apart=True,
    ):
        self.gpus = list(gpus)
        self.driver, self.cuda, self.init_error = driver, cuda, init_error
        self.errors = errors or {}
        self.names_as_bytes, self.counts_reserve_apart = names_as_bytes, counts_reserve_apart
        self.open = 0
        for index, gpu in enumerate(self.gpus):
            gpu.uuid = gpu.uuid or f"GPU-{index:08x}-1111-2222-3333-444444444444"
            for place, instance in enumerate(gpu.mig or ()):
                instance.uuid = instance.uuid or f"MIG-{index:04x}{place:04x}-1111-2222-3333-444444444444"

    def install(self, monkeypatch):
        """Puts it in the place of `pynvml`, and clears what decides how CUDA counts."""
        monkeypatch.setitem(sys.modules, "pynvml", self)
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        monkeypatch.delenv("CUDA_DEVICE_ORDER", raising=False)
        return self

    def __getattr__(self, name):
        if name.startswith(("NVML_", "NVMLError", "nvmlMemory_v2")):
            return getattr(real, name)
        raise AttributeError(name)

    def _check(self, function, gpu=None):
        if not self.open:
            raise real.NVMLError(real.NVML_ERROR_UNINITIALIZED)
        for errors in (self.errors, gpu.errors if gpu else {}):
            if function in errors:
                raise real.NVMLError(errors[function])

    def _text(self, text):
        return text.encode() if self.names_as_bytes else text

    def nvmlInit(self):  # noqa: N802 - NVML's own names
        if self.init_error is not None:
            raise real.NVMLError(self.init_error)
        self.open += 1

    def nvmlShutdown(self):  # noqa: N802
        self._check("nvmlShutdown")
        self.open -= 1

    def nvmlSystemGetDriverVersion(self):  # noqa: N802
        self._check("nvmlSystemGetDriverVersion")
        return self._text(self.driver)

    def nvmlSystemGetCudaDriverVersion(self):  # noqa: N802
        self._check("nvmlSystemGetCudaDriverVersion")
        return self.cuda

    def nvmlSystemGetProcessName(self, pid):  # noqa: N802
        self._check("nvmlSystemGetProcessName")
        for gpu in self._all():
            for process in gpu.processes:
                if process.pid == pid:
                    return self._text(process.name)
        raise real.NVMLError(real.NVML_ERROR_NOT_FOUND)

    def _all(self):
        return [*self.gpus, *(instance for gpu in self.gpus for instance in gpu.mig or ())]

    def nvmlDeviceGetCount(self):  # noqa: N802
        self._check("nvmlDeviceGetCount")
        return len(self.gpus)

    def nvmlDeviceGetHandleByIndex(self, index):  # noqa: N802
        self._check("nvmlDeviceGetHandleByIndex", self.gpus[index])
        return self.gpus[index]

    def nvmlDeviceGetName(self, gpu):  # noqa: N802
        self._check("nvmlDeviceGetName", gpu)
        return self._text(gpu.name)

    def nvmlDeviceGetUUID(self, gpu):  # noqa: N802
        self._check("nvmlDeviceGetUUID", gpu)
        return self._text(gpu.uuid)

    def nvmlDeviceGetCudaComputeCapability(self, gpu):  # noqa: N802
        self._check("nvmlDeviceGetCudaComputeCapability", gpu)
        return gpu.capability

    def nvmlDeviceGetMemoryInfo(self, gpu, version=None):  # noqa: N802
        self._check("nvmlDeviceGetMemoryInfo", gpu)
        free = gpu.total_bytes - gpu.used_bytes - gpu.reserved_bytes
        if version is None:
            return SimpleNamespace(total=gpu.total_bytes, free=free, used=gpu.total_bytes - free)
        if not self.counts_reserve_apart:
            raise real.NVMLError(real.NVML_ERROR_FUNCTION_NOT_FOUND)
        return SimpleNamespace(
            version=version, total=gpu.total_bytes, reserved=gpu.reserved_bytes, free=free, used=gpu.used_bytes
        )

    def nvmlDeviceGetComputeRunningProcesses(self, gpu):  # noqa: N802
        self._check("nvmlDeviceGetComputeRunningProcesses", gpu)
        return self._listed(gpu, draws=False)

    def nvmlDeviceGetGraphicsRunningProcesses(self, gpu):  # noqa: N802
        self._check("nvmlDeviceGetGraphicsRunningProcesses", gpu)
        return self._listed(gpu, draws=True)

    def _listed(self, gpu, draws):
        shown = [] if gpu.hides_processes else gpu.processes
        return [SimpleNamespace(pid=p.pid, usedGpuMemory=p.used_bytes) for p in shown if p.draws == draws]

    def nvmlDeviceGetMigMode(self, gpu):  # noqa: N802
        self._check("nvmlDeviceGetMigMode", gpu)
        if gpu.capability < (8, 0):
            raise real.NVMLError(real.NVML_ERROR_NOT_SUPPORTED)
        return [int(gpu.mig is not None)] * 2

    def nvmlDeviceGetMaxMigDeviceCount(self, gpu):  # noqa: N802
        self._check("nvmlDeviceGetMaxMigDeviceCount", gpu)
        return 7

    def nvmlDeviceGetMigDeviceHandleByIndex(self, gpu, place):  # noqa: N802
        self._check("nvmlDeviceGetMigDeviceHandleByIndex", gpu)
        if place >= len(gpu.mig or ()):
            raise real.NVMLError(real.NVML_ERROR_NOT_FOUND)
        return gpu.mig[place]
