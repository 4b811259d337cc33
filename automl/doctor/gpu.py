"""The check of the GPUs: driver, each GPU with its users, and what to do about each problem with them."""

import os
from types import ModuleType

from automl.devices import is_gpu
from automl.doctor.environment import import_library
from automl.doctor.report import Fact, Options, Report, make_report
from automl.errors import first_line
from automl.gpu.budget import describe_users
from automl.gpu.nvml import Gpu, NvmlSnapshot, find_gpu, read_nvml
from automl.units import format_bytes

_MUCH = 0.1
"""Share of a GPU's memory that is worth a sentence when others hold it."""


def check_gpus(_: Options) -> Report:
    """Reports the driver and every GPU."""
    return examine_gpus(import_library("torch")[0])


def examine_gpus(torch: ModuleType | None) -> Report:
    """Looks at the driver and every GPU.

    Args:
        torch: The imported module; None where it cannot be imported.
    """
    reading = read_nvml()
    cuda = f", runs CUDA {_format_version(reading.cuda)} and older" if reading.cuda else ""
    devices = _list_devices(torch)
    unknown = "version not known" if devices or reading.gpus else "none found"
    driver = Fact("driver", f"NVIDIA {reading.driver}{cuda}" if reading.driver else unknown)
    if not reading.gpus:
        return Report((driver,)) + _without_nvml(torch, devices, reading.problem)
    names = {find_gpu(device, reading): device for device in devices}
    problems = [f"{reading.problem}; the prediction of memory is used there"] if reading.problem else []
    if not devices:
        problems += _why_unused(torch, reading)
    findings = [driver]
    for gpu in reading.gpus:
        device = names.get(gpu)
        findings.append(Fact(_number_of(gpu), _describe_gpu(gpu, device, torch)))
        if device is not None or not devices:
            problems += _list_problems(gpu)
        if device is not None and torch is not None and gpu.capability:
            problems += _list_missing_kernels(torch, _title_of(gpu), gpu.capability)
    return make_report(findings, problems)


# --- each GPU ------------------------------------------------------------------------------------------------------


def _describe_gpu(gpu: Gpu, device: str | None, torch: ModuleType | None) -> str:
    """Describes a GPU in one line: name, memory, users, what it computes, what torch calls it."""
    parts = [
        gpu.name,
        f"{format_bytes(gpu.total_bytes)} in all, {format_bytes(gpu.free_bytes)} free, "
        f"{format_bytes(gpu.used_bytes)} used",
    ]
    if gpu.processes:
        held = (
            f"{process.name} (pid {process.pid})"
            + (f" {format_bytes(process.used_bytes)}" if process.used_bytes else "")
            for process in gpu.processes
        )
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


def _list_problems(gpu: Gpu) -> list[str]:
    """Lists the problems of one GPU."""
    problems = []
    if gpu.mig and not _is_instance(gpu):
        index = gpu.index
        return [
            f"{_title_of(gpu)} is in MIG mode and has no instance, so that nothing can use it: make one "
            f"(nvidia-smi mig -i {index} -cgi 0 -C), or leave the mode (nvidia-smi -i {index} -mig 0)"
        ]
    if gpu.used_bytes > _MUCH * gpu.total_bytes:
        hold = "holds" if gpu.processes and len(gpu.processes) == 1 else "hold"
        problems.append(
            f"{describe_users(gpu)} {hold} {format_bytes(gpu.used_bytes)} of {_title_of(gpu)}: end what is not needed, "
            "or search within the rest (--gpu-mem auto)"
        )
    if gpu.mig:
        problems.append(
            f"{_title_of(gpu)} is a MIG instance, of which NVML may not show what a process takes: "
            "where it does not, the prediction is used"
        )
    elif gpu.processes is None:
        problems.append(
            f"NVML does not show the processes on {_title_of(gpu)}, as in most containers: what a training step takes "
            "cannot be read there, and the prediction is used (docker run --pid=host shows them)"
        )
    return problems


def check_kernels(torch: ModuleType, device: str) -> list[str]:
    """Lists why this build of torch cannot compute on a device, and what to do about it; mostly nothing.

    Args:
        torch: The module.
        device: `cpu` or `cuda:N`.
    """
    if not is_gpu(device):
        return []
    properties = torch.cuda.get_device_properties(device)
    return _list_missing_kernels(torch, f"{device} ({properties.name})", (int(properties.major), int(properties.minor)))


def _list_missing_kernels(torch: ModuleType, title: str, capability: tuple[int, int]) -> list[str]:
    """Lists why this build of torch cannot compute on a GPU; mostly nothing."""
    built = [_parse_architecture(name) for name in torch.cuda.get_arch_list()]
    runs = [
        capability >= version if kind == "compute" else capability[0] == version[0] and capability[1] >= version[1]
        for kind, version in built
    ]
    if any(runs) or not built:
        return []
    older = capability < min(version for _, version in built)
    fix = "an older GPU needs a torch built for CUDA 12.6 or older" if older else "it needs a newer torch"
    return [
        f"torch {torch.__version__} cannot compute on {title}, compute capability {_format_version(capability)}: {fix} "
        "(https://pytorch.org/get-started); until then give --device cpu or another GPU"
    ]


def _parse_architecture(name: str) -> tuple[str, tuple[int, int]]:
    """Parses `sm_90a` to (`sm`, (9, 0))."""
    kind, _, digits = name.partition("_")
    number = int("".join(filter(str.isdigit, digits)) or 0)
    return kind, divmod(number, 10)


# --- no GPU, or none that can be used ------------------------------------------------------------------------------


def _without_nvml(torch: ModuleType | None, devices: list[str], problem: str | None) -> Report:
    """Reports the GPUs where NVML shows none: torch may have some all the same."""
    why = problem or "the NVIDIA driver finds no GPU"
    if torch is None or not devices:
        text = f"no GPU can be used ({why}), so training runs on the CPU: {_advise_without_gpu(problem)}"
        return make_report([Fact("GPU", "none")], [text])
    findings, problems = [], []
    for index, device in enumerate(devices):
        properties = torch.cuda.get_device_properties(device)
        computing = _describe_computing((int(properties.major), int(properties.minor)))
        memory = format_bytes(properties.total_memory)
        findings.append(Fact(f"GPU {index}", f"{properties.name}; {memory} in all; {computing}; {device}"))
        problems += check_kernels(torch, device)
    problems.append(
        f"{why}: CUDA is asked how much memory is free, and for what a training step takes the prediction is used "
        "(in a container, NVIDIA_DRIVER_CAPABILITIES=compute,utility brings NVML)"
    )
    return make_report(findings, problems)


def _advise_without_gpu(problem: str | None) -> str:
    """Says what to do where there is no GPU."""
    if problem and "older version is still loaded" in problem:
        return "restart the machine"
    if problem and "permission" in problem:
        return "let this user read /dev/nvidia* (often: the group video)"
    return "if there is an NVIDIA GPU, install its driver, or in a container pass it on (docker run --gpus all)"


def _why_unused(torch: ModuleType | None, reading: NvmlSnapshot) -> list[str]:
    """Explains why torch does not see the GPUs that NVML shows."""
    if torch is None or all(gpu.mig and not _is_instance(gpu) for gpu in reading.gpus):
        return []  # reported elsewhere
    build, driver = torch.version.cuda, reading.cuda
    newest = f"CUDA {_format_version(driver)} or older" if driver else "CUDA"
    get = f"torch and torchvision built for {newest} (https://pytorch.org/get-started)"
    if not build:
        return [f"torch {torch.__version__} is built without CUDA and leaves the GPU unused: install {get}"]
    if driver and int(build.split(".")[0]) > driver[0]:
        return [
            f"the driver {reading.driver} is too old for torch {torch.__version__}, which is built for CUDA {build}: "
            f"update the driver, or install {get}"
        ]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None and find_gpu("cuda:0", reading) is None:
        return [f"CUDA_VISIBLE_DEVICES={visible!r} hides every GPU: unset it, or name one that is there, such as 0"]
    return [f"torch cannot use the GPU ({_cuda_error(torch)}): update the driver, or restart the machine"]


def _cuda_error(torch: ModuleType) -> str:
    """Starts CUDA and returns its error."""
    try:
        torch.cuda.init()
    except (RuntimeError, AssertionError) as exc:
        return first_line(exc)
    return "CUDA starts, and finds none"


def _list_devices(torch: ModuleType | None) -> list[str]:
    if torch is None or not torch.cuda.is_available():
        return []
    return [f"cuda:{index}" for index in range(torch.cuda.device_count())]


# --- words ---------------------------------------------------------------------------------------------------------


def _number_of(gpu: Gpu) -> str:
    return f"GPU {gpu.index}"


def _title_of(gpu: Gpu) -> str:
    return f"{_number_of(gpu)} ({gpu.name})"


def _format_version(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"


def _describe_computing(capability: tuple[int, int]) -> str:
    """Describes the precisions: GPUs since Ampere compute in bf16; older ones emulate it, slowly."""
    native = "native" if capability >= (8, 0) else "not native"
    return f"compute capability {_format_version(capability)}, bf16 {native}"


def _is_instance(gpu: Gpu) -> bool:
    return gpu.uuid.startswith("MIG-")
