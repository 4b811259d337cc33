"""The check of the GPUs: driver, each GPU with its users, and what to do about each problem with them."""

import os
from collections.abc import Iterator
from types import ModuleType

from automl.devices import is_gpu
from automl.doctor.environment import import_library
from automl.doctor.report import Fact, Options, Problem
from automl.errors import first_line
from automl.gpu.budget import describe_users
from automl.gpu.nvml import Gpu, NvmlSnapshot, find_gpu, read_nvml
from automl.units import format_bytes

_MUCH = 0.1
"""Share of a GPU's memory that is worth a sentence when others hold it."""


def check_gpus(_: Options) -> Iterator[Fact | Problem]:
    """Reports the driver and every GPU."""
    yield from examine_gpus(import_library("torch")[0])


def examine_gpus(torch: ModuleType | None) -> Iterator[Fact | Problem]:
    """Looks at the driver and every GPU, given the imported torch; None where it cannot be imported."""
    reading = read_nvml()
    cuda = f", runs CUDA {_format_version(reading.cuda)} and older" if reading.cuda else ""
    usable = torch is not None and torch.cuda.is_available()
    devices = [f"cuda:{index}" for index in range(torch.cuda.device_count())] if torch is not None and usable else []
    unknown = "version not known" if devices or reading.gpus else "none found"
    yield Fact("driver", f"NVIDIA {reading.driver}{cuda}" if reading.driver else unknown)
    if not reading.gpus:
        yield from _examine_without_nvml(torch, devices, reading.problem)
        return
    if reading.problem:
        yield Problem(f"{reading.problem}; the prediction of memory is used there")
    if not devices and (reason := _explain_unused(torch, reading)):
        yield Problem(reason)
    names = {find_gpu(device, reading): device for device in devices}
    for gpu in reading.gpus:
        device, title = names.get(gpu), f"GPU {gpu.index} ({gpu.name})"
        yield Fact(f"GPU {gpu.index}", _describe_gpu(gpu, device, torch))
        if device is not None or not devices:
            yield from _list_problems(gpu, title)
        if device is not None and torch is not None and gpu.capability:
            yield from _list_missing_kernels(torch, title, gpu.capability)


# --- each GPU ------------------------------------------------------------------------------------------------------


def _describe_gpu(gpu: Gpu, device: str | None, torch: ModuleType | None) -> str:
    """Describes a GPU in one line: name, memory, users, what it computes, what torch calls it."""
    parts = [
        gpu.name,
        f"{format_bytes(gpu.total_bytes)} in all, {format_bytes(gpu.free_bytes)} free, "
        f"{format_bytes(gpu.used_bytes)} used",
    ]
    if gpu.processes:
        sizes = [f" {format_bytes(process.used_bytes)}" if process.used_bytes else "" for process in gpu.processes]
        held = [f"{one.name} (pid {one.pid}){size}" for one, size in zip(gpu.processes, sizes, strict=True)]
        parts.append(f"by {', '.join(held)}")
    elif gpu.processes is None:
        parts.append("by processes that are hidden from here")
    if gpu.mig:
        parts.append("MIG instance" if _is_instance(gpu) else "in MIG mode, no instance")
    if gpu.capability:
        parts.append(_describe_computing(gpu.capability))
    if torch is not None:
        parts.append(device or "not used by torch")
    return "; ".join(parts)


def _list_problems(gpu: Gpu, title: str) -> Iterator[Problem]:
    """Lists the problems of one GPU."""
    if gpu.mig and not _is_instance(gpu):
        yield Problem(
            f"{title} is in MIG mode and has no instance, so that nothing can use it: make one "
            f"(nvidia-smi mig -i {gpu.index} -cgi 0 -C), or leave the mode (nvidia-smi -i {gpu.index} -mig 0)"
        )
        return
    if gpu.used_bytes > _MUCH * gpu.total_bytes:
        hold = "holds" if gpu.processes and len(gpu.processes) == 1 else "hold"
        yield Problem(
            f"{describe_users(gpu)} {hold} {format_bytes(gpu.used_bytes)} of {title}: end what is not needed, "
            "or search within the rest (--gpu-mem auto)"
        )
    if gpu.mig:
        yield Problem(
            f"{title} is a MIG instance, of which NVML may not show what a process takes: "
            "where it does not, the prediction is used"
        )
    elif gpu.processes is None:
        yield Problem(
            f"NVML does not show the processes on {title}, as in most containers: what a training step takes "
            "cannot be read there, and the prediction is used (docker run --pid=host shows them)"
        )


def check_kernels(torch: ModuleType, device: str) -> Iterator[Problem]:
    """Reports whether this build of torch cannot compute on a device, `cpu` or `cuda:N`, and what to do about it."""
    if not is_gpu(device):
        return
    gpu = find_gpu(device)
    if gpu is not None and gpu.capability:  # by NVML: this process needs no CUDA then
        yield from _list_missing_kernels(torch, f"{device} ({gpu.name})", gpu.capability)
        return
    try:
        properties = torch.cuda.get_device_properties(device)
    except (RuntimeError, AssertionError) as exc:  # CUDA does not start
        yield Problem(
            f"torch cannot use {device} ({first_line(exc)}): update the driver, or restart the machine; "
            "until then give --device cpu"
        )
        return
    capability = int(properties.major), int(properties.minor)
    yield from _list_missing_kernels(torch, f"{device} ({properties.name})", capability)


def explain_unused_gpus(torch: ModuleType) -> str | None:
    """Explains why torch uses none of the GPUs that NVML shows, and what to do; None where NVML shows none."""
    reading = read_nvml()
    if not reading.gpus:
        return None
    return _explain_unused(torch, reading) or next(_list_problems(reading.gpus[0], "GPU 0")).text


def _list_missing_kernels(torch: ModuleType, title: str, capability: tuple[int, int]) -> Iterator[Problem]:
    """Reports whether this build of torch cannot compute on a GPU."""
    built = [_parse_architecture(name) for name in torch.cuda.get_arch_list()]
    runs = [
        capability >= version if kind == "compute" else capability[0] == version[0] and capability[1] >= version[1]
        for kind, version in built
    ]
    if built and not any(runs):
        older = capability < min(version for _, version in built)
        fix = "an older GPU needs a torch built for CUDA 12.6 or older" if older else "it needs a newer torch"
        yield Problem(
            f"torch {torch.__version__} cannot compute on {title}, compute capability {_format_version(capability)}: "
            f"{fix} (https://pytorch.org/get-started); until then give --device cpu or another GPU"
        )


def _parse_architecture(name: str) -> tuple[str, tuple[int, int]]:
    """Parses `sm_90a` to (`sm`, (9, 0))."""
    kind, _, digits = name.partition("_")
    number = int("".join(filter(str.isdigit, digits)) or 0)
    return kind, divmod(number, 10)


# --- no GPU, or none that can be used ------------------------------------------------------------------------------


def _examine_without_nvml(
    torch: ModuleType | None, devices: list[str], problem: str | None
) -> Iterator[Fact | Problem]:
    """Looks at the GPUs where NVML shows none: torch may have some all the same."""
    why = problem or "the NVIDIA driver finds no GPU"
    if torch is None or not devices:
        yield Fact("GPU", "none")
        yield Problem(f"no GPU can be used ({why}), so training runs on the CPU: {_advise_without_gpu(problem)}")
        return
    for index, device in enumerate(devices):
        properties = torch.cuda.get_device_properties(device)
        computing = _describe_computing((int(properties.major), int(properties.minor)))
        memory = format_bytes(properties.total_memory)
        yield Fact(f"GPU {index}", f"{properties.name}; {memory} in all; {computing}; {device}")
        yield from check_kernels(torch, device)
    yield Problem(
        f"{why}: CUDA is asked how much memory is free, and for what a training step takes the prediction is used "
        "(in a container, NVIDIA_DRIVER_CAPABILITIES=compute,utility brings NVML)"
    )


def _advise_without_gpu(problem: str | None) -> str:
    """Advises what to do where there is no GPU."""
    if problem and "older version is still loaded" in problem:
        return "restart the machine"
    if problem and "permission" in problem:
        return "let this user read /dev/nvidia* (often: the group video)"
    return "if there is an NVIDIA GPU, install its driver, or in a container pass it on (docker run --gpus all)"


def _explain_unused(torch: ModuleType | None, reading: NvmlSnapshot) -> str | None:
    """Explains why torch does not see the GPUs that NVML shows; None where another problem explains it."""
    if torch is None or all(gpu.mig and not _is_instance(gpu) for gpu in reading.gpus):
        return None
    build, driver = torch.version.cuda, reading.cuda
    newest = f"CUDA {_format_version(driver)} or older" if driver else "CUDA"
    get = f"torch and torchvision built for {newest} (https://pytorch.org/get-started)"
    if not build:
        return f"torch {torch.__version__} is built without CUDA and leaves the GPU unused: install {get}"
    if driver and int(build.split(".")[0]) > driver[0]:
        return (
            f"the driver {reading.driver} is too old for torch {torch.__version__}, which is built for CUDA {build}: "
            f"update the driver, or install {get}"
        )
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None and find_gpu("cuda:0", reading) is None:
        return f"CUDA_VISIBLE_DEVICES={visible!r} hides every GPU: unset it, or name one that is there, such as 0"
    error = "CUDA starts, and finds none"
    try:
        torch.cuda.init()
    except (RuntimeError, AssertionError) as exc:
        error = first_line(exc)
    return f"torch cannot use the GPU ({error}): update the driver, or restart the machine"


# --- words ---------------------------------------------------------------------------------------------------------


def _format_version(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"


def _describe_computing(capability: tuple[int, int]) -> str:
    """Describes the precisions: GPUs since Ampere compute in bf16; older ones emulate it, slowly."""
    native = "native" if capability >= (8, 0) else "not native"
    return f"compute capability {_format_version(capability)}, bf16 {native}"


def _is_instance(gpu: Gpu) -> bool:
    return gpu.uuid.startswith("MIG-")
