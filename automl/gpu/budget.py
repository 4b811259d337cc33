"""How much GPU memory a study may take: what is asked for, and what the GPUs have free; imports no torch.

It is asked before anything of the study is on a GPU, so that all that is used then is others'.
"""

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from automl.errors import SpecError
from automl.gpu.nvml import Gpu, find_gpu, read_nvml
from automl.units import Share, format_bytes

_NAMED = 3
"""Processes named in one sentence."""

_ASK_CUDA = """
import sys, torch
free, total = torch.cuda.mem_get_info(sys.argv[1])
print(free, total, torch.cuda.get_device_name(sys.argv[1]))
"""


@dataclass(frozen=True)
class MemoryBudget:
    """A decision.

    Attributes:
        bytes: Of GPU memory a training process may take, its CUDA context included; None: no limit.
        said: What a person should know about it, one line each.
    """

    bytes: int | None
    said: tuple[str, ...]


def budget_bytes(wanted: int | Share | Literal["auto"] | None, devices: Sequence[str]) -> MemoryBudget:
    """Decides how much GPU memory each training process may take.

    Args:
        wanted: A size, which is taken as it is if the GPU has so much, whether or not it is free now; a share of what
            is free; `auto`: all that is free. None: `auto` where there is a GPU, and no limit without one.
        devices: What the study trains on, a process on each: the GPU with the least decides.

    Raises:
        SpecError: If what is free is asked for and there is no GPU, or nothing tells.
    """
    gpus = {device: gpu for device, gpu in _gpus(devices).items() if gpu is not None}
    if not gpus:
        if wanted is None or isinstance(wanted, int):
            return MemoryBudget(wanted, ())
        lacks = "tells how much is free" if any(device != "cpu" for device in devices) else "is a GPU"
        raise SpecError(
            f"--gpu-mem {wanted} is a part of what is free, and nothing here {lacks}; give a size like 16GB"
        )
    budgets = {device: _on(gpu, wanted) for device, gpu in gpus.items()}
    least = min(budgets, key=lambda device: budgets[device].bytes or 0)
    said = budgets[least].said
    sizes = {device: format_bytes(budget.bytes or 0) for device, budget in budgets.items()}
    if len(set(sizes.values())) > 1:
        each = ", ".join(f"{device} {size}" for device, size in sizes.items())
        said = (*said, f"GPU memory: {least} has the least and decides for all: {each}")
    return MemoryBudget(budgets[least].bytes, said)


def who_uses(gpu: Gpu) -> str:
    """Who holds a GPU's memory: `python (pid 4711) and Xorg (pid 1)`."""
    if gpu.processes is None:
        return "processes that are hidden from here"
    if not gpu.processes:
        return "the driver"
    names = [
        "this process" if process.pid == os.getpid() else f"{process.name} (pid {process.pid})"
        for process in gpu.processes
    ]
    if len(names) > _NAMED:
        names[_NAMED - 1 :] = [f"{len(names) - _NAMED + 1} more processes"]
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def _on(gpu: Gpu, wanted: int | Share | Literal["auto"] | None) -> MemoryBudget:
    """The budget on one GPU, in bytes."""
    # What the driver keeps for itself is no one's to take.
    usable = gpu.free_bytes + gpu.used_bytes
    free = max(1, gpu.free_bytes)
    size, uses = format_bytes(free), f"{format_bytes(gpu.used_bytes)} that {who_uses(gpu)} {_verb(gpu)}"
    # A hundredth is below what is shown, and is taken by the driver of any GPU.
    calculation = f"{format_bytes(usable)} of {gpu.name}" + (f", less {uses}" if gpu.used_bytes > usable / 100 else "")
    if isinstance(wanted, Share):
        part = max(1, int(free * wanted.percent / 100))
        said = f"GPU memory: {wanted} is {format_bytes(part)}, of {size} that is free: {calculation}"
        return MemoryBudget(part, (said,))
    if not isinstance(wanted, int):
        begins = "auto is " if wanted == "auto" else ""
        return MemoryBudget(free, (f"GPU memory: {begins}{size}: {calculation}",))
    asked = format_bytes(wanted)
    if wanted > usable:
        return MemoryBudget(free, (f"GPU memory: {asked} is more than there is; the budget is {size}: {calculation}",))
    if wanted > gpu.free_bytes:
        told = f"warning: GPU memory: {asked} is given, but only {size} is free: {calculation}; "
        return MemoryBudget(wanted, (told + "end what uses it, or give --gpu-mem auto",))
    return MemoryBudget(wanted, ())


def _verb(gpu: Gpu) -> str:
    """Of the processes, or of the one."""
    if gpu.processes is not None and not gpu.processes:
        return "keeps"
    return "uses" if gpu.processes is not None and len(gpu.processes) == 1 else "use"


def _gpus(devices: Sequence[str]) -> dict[str, Gpu | None]:
    """What is known of each GPU, by NVML or else by CUDA; without the CPU."""
    wanted = [device for device in devices if device != "cpu"]
    if not wanted:
        return {}
    reading = read_nvml()
    return {device: find_gpu(device, reading) or _ask_cuda(device) for device in wanted}


def _ask_cuda(device: str) -> Gpu | None:
    """Free and total memory as CUDA tells them; None if it does not.

    Asking makes a CUDA context of some hundred MB, which only the end of the process gives back; so a child asks.
    """
    try:
        answer = subprocess.run(
            [sys.executable, "-c", _ASK_CUDA, device], capture_output=True, text=True, check=True, timeout=120
        ).stdout
        free, total, name = answer.strip().splitlines()[-1].split(" ", 2)
        return Gpu(0, name, "", int(total), int(free), int(total) - int(free), None, mig=False)
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return None
