"""With what a study is created: versions of the libraries, and the machine."""

import os
import platform
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from automl.devices import is_gpu
from automl.doctor.machine import read_memory
from automl.gpu.nvml import find_gpu, read_nvml
from automl.units import format_bytes

_PACKAGES = {"automl": "automl-timm", **{name: name for name in ("torch", "torchvision", "timm", "optuna")}}


def describe_environment(devices: Sequence[str]) -> dict[str, str]:
    """Describes versions and machine, by names for people; `devices` are those that train."""
    described = {name: find_version(package) for name, package in _PACKAGES.items()}
    described |= {"Python": platform.python_version(), "system": f"{platform.system()} {platform.machine()}"}
    described["processor"] = f"{_name_processor()}, {os.cpu_count() or 1} cores"
    if total := read_memory()[0]:
        described["memory"] = format_bytes(total)
    gpus = [device for device in devices if is_gpu(device)]
    snapshot = read_nvml() if gpus else None
    for device in gpus:
        gpu = find_gpu(device, snapshot)
        described[device] = f"{gpu.name}, {format_bytes(gpu.total_bytes)}" if gpu else "a GPU that NVML does not name"
    return described


def find_version(package: str) -> str:
    """Returns the version of an installed distribution."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _name_processor() -> str:
    """Returns the processor's name, as Linux or else Python names it."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown"
