"""Decides how much GPU memory a study may take, by what is asked for and what the GPUs have free; imports no torch.

Ask before anything of the study is on a GPU, so that all memory in use is others'.
"""

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from automl.devices import is_gpu
from automl.errors import SpecError, shorten
from automl.gpu.nvml import Gpu, find_gpu, read_nvml
from automl.units import Share, format_bytes

_ASK_CUDA = """
import sys, torch
free, total = torch.cuda.mem_get_info(sys.argv[1])
print(free, total, torch.cuda.get_device_name(sys.argv[1]))
"""


@dataclass(frozen=True)
class MemoryBudget:
    """The GPU memory that a training process may take.

    Attributes:
        bytes: The CUDA context included; None: no limit.
        notes: Lines for the user that explain it.
    """

    bytes: int | None
    notes: tuple[str, ...]


def decide_budget(wanted: int | Share | Literal["auto"] | None, devices: Sequence[str]) -> MemoryBudget:
    """Decides how much GPU memory each training process may take.

    Args:
        wanted: A size, which is taken as it is if the GPU has so much, whether or not it is free now; a share of what
            is free; `auto`: all that is free. None: `auto` where there is a GPU, and no limit without one.
        devices: What the study trains on, a process on each: the GPU with the least memory decides. One that stands
            there several times is shared.

    Raises:
        SpecError: If a part of the free memory is asked for, and there is no GPU or its free memory cannot be read.
    """
    gpus = {device: gpu for device, gpu in _read_gpus(devices).items() if gpu is not None}
    if not gpus:
        if wanted is None or isinstance(wanted, int):
            return MemoryBudget(wanted, ())
        why = "what is free cannot be read here" if any(map(is_gpu, devices)) else "there is no GPU here"
        raise SpecError(f"--gpu-mem {wanted} is a part of the free memory, but {why}; give a size like 16GB")
    budgets = {device: _decide_for_gpu(gpu, wanted, list(devices).count(device)) for device, gpu in gpus.items()}
    least = min(budgets, key=lambda device: budgets[device].bytes or 0)
    notes = budgets[least].notes
    sizes = {device: format_bytes(budget.bytes or 0) for device, budget in budgets.items()}
    if len(set(sizes.values())) > 1:
        each = ", ".join(f"{device} {size}" for device, size in sizes.items())
        notes = (*notes, f"GPU memory: the budget of {least}, the smallest, is used on all: {each}")
    return MemoryBudget(budgets[least].bytes, notes)


def describe_users(gpu: Gpu) -> str:
    """Names the processes that hold a GPU's memory: `python (pid 4711), Xorg (pid 1)`."""
    if gpu.processes is None:
        return "processes that are hidden from here"
    if not gpu.processes:
        return "the driver"
    names = [
        "this process" if process.pid == os.getpid() else f"{process.name} (pid {process.pid})"
        for process in gpu.processes
    ]
    return shorten(names, 3)


def _decide_for_gpu(gpu: Gpu, wanted: int | Share | Literal["auto"] | None, workers: int) -> MemoryBudget:
    """Decides the budget of each of the workers on one GPU."""
    budget = _decide_for_all(gpu, wanted if not isinstance(wanted, int) else wanted * workers)
    if workers == 1 or budget.bytes is None:
        return budget
    each = budget.bytes // workers
    shared = f"GPU memory: {workers} workers share {gpu.name}, {format_bytes(each)} for each"
    return MemoryBudget(each, (*budget.notes, shared))


def _decide_for_all(gpu: Gpu, wanted: int | Share | Literal["auto"] | None) -> MemoryBudget:
    """Decides the budget of all that trains on one GPU."""
    # What the driver keeps for itself cannot be taken.
    usable = gpu.free_bytes + gpu.used_bytes
    free = max(1, gpu.free_bytes)
    size, uses = format_bytes(free), f"{format_bytes(gpu.used_bytes)} used by {describe_users(gpu)}"
    # A hundredth is below what is shown, and is taken by the driver of any GPU.
    calculation = f"{format_bytes(usable)} of {gpu.name}" + (f", less {uses}" if gpu.used_bytes > usable / 100 else "")
    if isinstance(wanted, Share):
        part = max(1, int(free * wanted.percent / 100))
        note = f"GPU memory: {wanted} is {format_bytes(part)}, of {size} that is free: {calculation}"
        return MemoryBudget(part, (note,))
    if not isinstance(wanted, int):
        begin = "auto is " if wanted == "auto" else ""
        return MemoryBudget(free, (f"GPU memory: {begin}{size}: {calculation}",))
    asked = format_bytes(wanted)
    if wanted > usable:
        return MemoryBudget(free, (f"GPU memory: {asked} is more than there is; the budget is {size}: {calculation}",))
    warning = f"warning: GPU memory: {asked} is given, but only {size} is free: {calculation}; "
    notes = (warning + "end what uses it, or give --gpu-mem auto",) if wanted > gpu.free_bytes else ()
    return MemoryBudget(wanted, notes)


def _read_gpus(devices: Sequence[str]) -> dict[str, Gpu | None]:
    """Reads the memory of each GPU from NVML or else from CUDA; without the CPU."""
    snapshot = read_nvml() if any(map(is_gpu, devices)) else None
    return {device: find_gpu(device, snapshot) or _ask_cuda(device) for device in filter(is_gpu, devices)}


def _ask_cuda(device: str) -> Gpu | None:
    """Asks CUDA for free and total memory; None if it does not answer.

    That makes a CUDA context of some hundred MB, which only the end of the process gives back; so a child asks.
    """
    try:
        answer = subprocess.run(
            [sys.executable, "-c", _ASK_CUDA, device], capture_output=True, text=True, check=True, timeout=120
        ).stdout
        free, total, name = answer.strip().splitlines()[-1].split(" ", 2)
        return Gpu(0, name, "", int(total), int(free), int(total) - int(free), None, mig=False)
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return None
