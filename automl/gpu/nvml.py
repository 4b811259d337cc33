"""Reads the GPUs with NVIDIA's management library (NVML): memory, who uses it, MIG; imports no torch.

NVML needs no CUDA context, so reading costs no GPU memory. What it cannot read (no driver, no permission, a container
that hides processes) is None and a plain sentence, never an exception.
"""

import os
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

_UNSEEN_BYTES = 128 * 2**20
"""More used than this and no process listed: the processes are hidden, as in a container without the host's pids."""

_UNSEEN_BYTES_V1 = 2**30
"""The same where NVML counts the driver's own reserve (up to 0.7 GiB) among the used bytes."""


@dataclass(frozen=True)
class GpuProcess:
    """A process that holds memory of a GPU.

    Attributes:
        pid: As the driver counts; a container may count otherwise.
        name: The program's file name, or `a process` where it is not known.
        used_bytes: What it holds; None where NVML does not say.
    """

    pid: int
    name: str
    used_bytes: int | None


@dataclass(frozen=True)
class Gpu:
    """A GPU, or one MIG instance of a GPU, as NVML sees it.

    Attributes:
        index: NVML's, by PCI bus; an instance has its GPU's. `find_gpu` goes from torch's index to this.
        name: Such as `Tesla P100-PCIE-16GB`.
        uuid: `GPU-…`, or `MIG-…` for an instance.
        total_bytes: All there is.
        free_bytes: What can be taken now.
        used_bytes: What processes hold; total less free less what the driver keeps for itself, where NVML tells apart.
        processes: Who holds it, the largest first; None where that is hidden.
        mig: Whether it is a MIG instance, or a GPU in MIG mode without any instance, which CUDA cannot use.
        capability: CUDA's compute capability, such as (8, 6).
    """

    index: int
    name: str
    uuid: str
    total_bytes: int
    free_bytes: int
    used_bytes: int
    processes: tuple[GpuProcess, ...] | None
    mig: bool
    capability: tuple[int, int] | None = None


@dataclass(frozen=True)
class NvmlSnapshot:
    """What NVML read at one moment.

    Attributes:
        gpus: By index; in place of a GPU in MIG mode its instances.
        driver: The driver's version, such as `550.54.14`.
        problem: A plain sentence where NVML, or one of the GPUs, cannot be read; it begins in lower case and has no
            full stop, so that it fits into others.
        cuda: The newest CUDA that the driver runs, such as (12, 4).
    """

    gpus: tuple[Gpu, ...]
    driver: str | None
    problem: str | None
    cuda: tuple[int, int] | None = None


def read_nvml() -> NvmlSnapshot:
    """Asks NVML about every GPU; never raises for a missing library, driver or permission."""
    try:
        import pynvml
    except ImportError:
        return NvmlSnapshot((), None, "NVML cannot be read: the package nvidia-ml-py is not installed")
    try:
        pynvml.nvmlInit()
        try:
            return _read_snapshot(pynvml)
        finally:
            with suppress(pynvml.NVMLError):
                pynvml.nvmlShutdown()
    except pynvml.NVMLError as exc:
        return NvmlSnapshot((), None, _explain_error(pynvml, exc))


def find_gpu(device: str, snapshot: NvmlSnapshot | None = None) -> Gpu | None:
    """Finds the GPU that torch calls `cuda` (the first) or `cuda:1`.

    CUDA counts what `CUDA_VISIBLE_DEVICES` names (indices, or beginnings of UUIDs, of MIG instances too) and, unless
    `CUDA_DEVICE_ORDER=PCI_BUS_ID`, counts the fastest kind first, where NVML counts by PCI bus. So a process that uses
    CUDA already asks it for the device's UUID; for one that does not, unlike GPUs may be confused with each other.

    Returns:
        None where NVML does not say, and for a device that is no GPU.
    """
    kind, _, number = device.partition(":")
    if kind != "cuda" or not (number or "0").isdigit():
        return None
    gpus = (snapshot or read_nvml()).gpus
    uuid = _read_cuda_uuid(device)
    for gpu in gpus:
        if uuid is not None and gpu.uuid.removeprefix("GPU-").removeprefix("MIG-") == uuid:
            return gpu
    return dict(enumerate(_list_visible(gpus))).get(int(number or 0))


def _list_visible(gpus: tuple[Gpu, ...]) -> list[Gpu]:
    """Lists the GPUs in the order of `CUDA_VISIBLE_DEVICES`; as in CUDA, what it cannot mean ends the list."""
    counted: dict[int, Gpu] = {}
    for gpu in gpus:
        if not (gpu.mig and gpu.uuid.startswith("GPU-")):
            counted.setdefault(gpu.index, gpu)  # of a GPU in MIG mode, CUDA counts one instance
    names = os.environ.get("CUDA_VISIBLE_DEVICES")
    if names is None:
        return list(counted.values())
    chosen: list[Gpu] = []
    for name in (part.strip() for part in names.split(",")):
        if name.isdigit():
            matches = [counted[int(name)]] if int(name) in counted else []
        else:
            matches = [gpu for gpu in gpus if name.startswith(("GPU-", "MIG-")) and gpu.uuid.startswith(name)]
        if len(matches) != 1:
            break
        if matches[0] in chosen:  # CUDA sees no GPU at all when one is named twice
            return []
        chosen.append(matches[0])
    return chosen


def _read_cuda_uuid(device: str) -> str | None:
    """Reads CUDA's UUID of the device, without NVML's prefix; None where this process does not use CUDA yet."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return None
    try:
        return str(torch.cuda.get_device_properties(device).uuid)
    except (AttributeError, AssertionError, RuntimeError):  # an older torch, or no such device
        return None


# --- asking NVML ---------------------------------------------------------------------------------------------------


def _read_snapshot(nvml: ModuleType) -> NvmlSnapshot:
    gpus: list[Gpu] = []
    problems: list[str] = []
    for index in range(nvml.nvmlDeviceGetCount()):
        try:
            gpus += _read_gpus(nvml, index)
        except nvml.NVMLError as exc:  # one lost GPU hides no other
            problems.append(f"GPU {index} cannot be read by NVML: {exc}")
    cuda = _call_nvml(nvml, "nvmlSystemGetCudaDriverVersion")
    return NvmlSnapshot(
        gpus=tuple(gpus),
        driver=_decode_text(_call_nvml(nvml, "nvmlSystemGetDriverVersion")),
        problem="; ".join(problems) or None,
        cuda=(cuda // 1000, cuda % 1000 // 10) if cuda else None,
    )


def _read_gpus(nvml: ModuleType, index: int) -> list[Gpu]:
    """Reads the GPU of this index or, in MIG mode, its instances."""
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    capability = _call_nvml(nvml, "nvmlDeviceGetCudaComputeCapability", handle)
    mode = _call_nvml(nvml, "nvmlDeviceGetMigMode", handle)  # current and pending; None: this GPU has no MIG
    if not mode or not mode[0]:
        return [_read_gpu(nvml, handle, index, capability, mig=False)]
    instances = []
    for slot in range(_call_nvml(nvml, "nvmlDeviceGetMaxMigDeviceCount", handle) or 0):
        instance = _call_nvml(nvml, "nvmlDeviceGetMigDeviceHandleByIndex", handle, slot)
        if instance is not None:  # slots may be empty
            instances.append(_read_gpu(nvml, instance, index, capability, mig=True))
    return instances or [_read_gpu(nvml, handle, index, capability, mig=True)]


def _read_gpu(nvml: ModuleType, handle: Any, index: int, capability: Any, *, mig: bool) -> Gpu:
    """Reads one GPU or instance; an NVMLError if its memory cannot be read, while the rest may be missing."""
    try:
        memory, unseen = nvml.nvmlDeviceGetMemoryInfo(handle, version=nvml.nvmlMemory_v2), _UNSEEN_BYTES
    except nvml.NVMLError:  # drivers before 510 do not count the reserve apart
        memory, unseen = nvml.nvmlDeviceGetMemoryInfo(handle), _UNSEEN_BYTES_V1
    total, free, used = (int(getattr(memory, name)) for name in ("total", "free", "used"))
    processes = _read_processes(nvml, handle)
    return Gpu(
        index=index,
        name=_decode_text(_call_nvml(nvml, "nvmlDeviceGetName", handle)) or "NVIDIA GPU",
        uuid=_decode_text(_call_nvml(nvml, "nvmlDeviceGetUUID", handle)) or "",
        total_bytes=total,
        free_bytes=free,
        used_bytes=used,
        processes=None if not processes and used > unseen else processes,
        mig=mig,
        capability=None if capability is None else (int(capability[0]), int(capability[1])),
    )


def _read_processes(nvml: ModuleType, handle: Any) -> tuple[GpuProcess, ...] | None:
    """Lists processes that compute and those that draw, the largest first; None if NVML does not list them."""
    used: dict[int, int | None] = {}
    for kind in ("Compute", "Graphics"):
        listed = _call_nvml(nvml, f"nvmlDeviceGet{kind}RunningProcesses", handle)
        if listed is None and kind == "Compute":
            return None
        for process in listed or ():  # one that does both is in both lists, with the same figure
            used[process.pid] = process.usedGpuMemory
    processes = (GpuProcess(pid, _read_process_name(nvml, pid), size) for pid, size in used.items())
    return tuple(sorted(processes, key=lambda process: (-(process.used_bytes or 0), process.pid)))


def _read_process_name(nvml: ModuleType, pid: int) -> str:
    """Reads the program's file name from NVML, else from /proc, which knows no process of another container."""
    name = _decode_text(_call_nvml(nvml, "nvmlSystemGetProcessName", pid))
    if not name:
        with suppress(OSError):
            name = Path(f"/proc/{pid}/comm").read_text(encoding="utf-8", errors="replace")
    program = (name or "").strip().split(" ")[0]  # some drivers give the whole command line
    return program.replace("\\", "/").rstrip("/").rpartition("/")[2] or "a process"


def _call_nvml(nvml: ModuleType, function: str, *arguments: Any) -> Any:
    """Calls a function of NVML; None where this GPU, driver or user does not have it."""
    try:
        return getattr(nvml, function)(*arguments)
    except nvml.NVMLError:
        return None


def _decode_text(value: str | bytes | None) -> str | None:
    """Decodes names, which were bytes before nvidia-ml-py 12."""
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def _explain_error(nvml: ModuleType, error: Any) -> str:
    """Explains why NVML cannot be read, as a sentence."""
    reasons = {
        nvml.NVML_ERROR_LIBRARY_NOT_FOUND: "the library of the NVIDIA driver, libnvidia-ml, is missing",
        nvml.NVML_ERROR_DRIVER_NOT_LOADED: "the NVIDIA driver is installed but not loaded, or there is no NVIDIA GPU",
        nvml.NVML_ERROR_NO_PERMISSION: "this user has no permission to ask the NVIDIA driver",
        nvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH: "the NVIDIA driver was updated and its older version is still loaded",
    }
    return reasons.get(error.value, f"NVML cannot be read: {error}")
