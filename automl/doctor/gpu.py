"""What `automl doctor` finds out about the GPUs, and what it says about each trouble with them."""

import os
from dataclasses import dataclass
from types import ModuleType

from automl.gpu.budget import who_uses
from automl.gpu.nvml import Gpu, Reading, find_gpu, read_nvml
from automl.units import format_bytes

_MUCH = 0.1
"""Share of a GPU's memory that is worth a sentence when others hold it."""


@dataclass(frozen=True)
class Finding:
    """A line of what is there: `GPU 0`, `Tesla T4, …`."""

    what: str
    said: str


@dataclass(frozen=True)
class Trouble:
    """What is wrong and what to do about it, in a sentence.

    Attributes:
        said: The sentence, without a full stop.
        fatal: Whether no search is possible before it is mended.
    """

    said: str
    fatal: bool = False


@dataclass(frozen=True)
class Checkup:
    """What was found."""

    findings: tuple[Finding, ...] = ()
    troubles: tuple[Trouble, ...] = ()

    @property
    def can_search(self) -> bool:
        """Whether nothing that was found makes a search impossible."""
        return not any(trouble.fatal for trouble in self.troubles)

    def __add__(self, other: "Checkup") -> "Checkup":
        return Checkup(self.findings + other.findings, self.troubles + other.troubles)


def examine_gpus(torch: ModuleType | None) -> Checkup:
    """Looks at the driver and every GPU.

    Args:
        torch: The imported module; None where it cannot be imported.
    """
    reading = read_nvml()
    cuda = f", runs CUDA {_dotted(reading.cuda)} and older" if reading.cuda else ""
    devices = _devices(torch)
    unknown = "version not told" if devices or reading.gpus else "none found"
    driver = Finding("driver", f"NVIDIA {reading.driver}{cuda}" if reading.driver else unknown)
    if not reading.gpus:
        return Checkup((driver,)) + _without_nvml(torch, devices, reading.trouble)
    names = {find_gpu(device, reading): device for device in devices}
    troubles = [f"{reading.trouble}; the prediction of memory is used there"] if reading.trouble else []
    if not devices:
        troubles += _why_unused(torch, reading)
    findings = [driver]
    for gpu in reading.gpus:
        device = names.get(gpu)
        findings.append(Finding(_named(gpu), _describe(gpu, device, torch)))
        if device is not None or not devices:
            troubles += _troubles(gpu)
        if device is not None and torch is not None and gpu.capability:
            troubles += _kernels(torch, _titled(gpu), gpu.capability)
    return Checkup(tuple(findings), tuple(map(Trouble, troubles)))


# --- each GPU ------------------------------------------------------------------------------------------------------


def _describe(gpu: Gpu, device: str | None, torch: ModuleType | None) -> str:
    """One line: name, memory, users, what it computes, what torch calls it."""
    said = [
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
        said.append(f"by {', '.join(held)}")
    elif gpu.processes is None:
        said.append("by processes that are hidden from here")
    if gpu.mig:
        said.append("MIG instance" if _is_instance(gpu) else "in MIG mode, no instance")
    if gpu.capability:
        said.append(_computes(gpu.capability))
    if torch is not None:
        said.append(device or "not used by torch")
    return "; ".join(said)


def _troubles(gpu: Gpu) -> list[str]:
    """What is wrong with one GPU."""
    troubles = []
    if gpu.mig and not _is_instance(gpu):
        index = gpu.index
        return [
            f"{_titled(gpu)} is in MIG mode and has no instance, so that nothing can use it: make one "
            f"(nvidia-smi mig -i {index} -cgi 0 -C), or leave the mode (nvidia-smi -i {index} -mig 0)"
        ]
    if gpu.used_bytes > _MUCH * gpu.total_bytes:
        hold = "holds" if gpu.processes and len(gpu.processes) == 1 else "hold"
        troubles.append(
            f"{who_uses(gpu)} {hold} {format_bytes(gpu.used_bytes)} of {_titled(gpu)}: end what is not needed, or "
            "search within the rest (--gpu-mem auto)"
        )
    if gpu.mig:
        troubles.append(
            f"{_titled(gpu)} is a MIG instance, of which NVML may not tell what a process takes: "
            "where it does not, the prediction is used"
        )
    elif gpu.processes is None:
        troubles.append(
            f"NVML does not show the processes on {_titled(gpu)}, as in most containers: what a training step takes "
            "cannot be read there, and the prediction is used (docker run --pid=host shows them)"
        )
    return troubles


def cannot_compute(torch: ModuleType, device: str) -> list[str]:
    """Says why this build of torch cannot compute on a device, and what to do about it; mostly nothing.

    Args:
        torch: The module.
        device: `cpu` or `cuda:N`.
    """
    if not device.startswith("cuda"):
        return []
    properties = torch.cuda.get_device_properties(device)
    return _kernels(torch, f"{device} ({properties.name})", (int(properties.major), int(properties.minor)))


def _kernels(torch: ModuleType, title: str, capability: tuple[int, int]) -> list[str]:
    """Whether this build of torch can compute on the GPU."""
    built = [_architecture(name) for name in torch.cuda.get_arch_list()]
    runs = [
        capability >= version if kind == "compute" else capability[0] == version[0] and capability[1] >= version[1]
        for kind, version in built
    ]
    if any(runs) or not built:
        return []
    older = capability < min(version for _, version in built)
    fix = "an older GPU needs a torch built for CUDA 12.6 or older" if older else "it needs a newer torch"
    return [
        f"torch {torch.__version__} cannot compute on {title}, compute capability {_dotted(capability)}: {fix} "
        "(https://pytorch.org/get-started); until then give --device cpu or another GPU"
    ]


def _architecture(name: str) -> tuple[str, tuple[int, int]]:
    """`sm_90a` → (`sm`, (9, 0))."""
    kind, _, digits = name.partition("_")
    number = int("".join(filter(str.isdigit, digits)) or 0)
    return kind, divmod(number, 10)


# --- no GPU, or none that can be used ------------------------------------------------------------------------------


def _without_nvml(torch: ModuleType | None, devices: list[str], trouble: str | None) -> Checkup:
    """NVML shows no GPU: torch may have some all the same."""
    why = trouble or "the NVIDIA driver finds no GPU"
    if torch is None or not devices:
        said = f"no GPU can be used ({why}), so training runs on the CPU: {_advice(trouble)}"
        return Checkup((Finding("GPU", "none"),), (Trouble(said),))
    findings, troubles = [], []
    for index, device in enumerate(devices):
        properties = torch.cuda.get_device_properties(device)
        capability = (int(properties.major), int(properties.minor))
        said = f"{properties.name}; {format_bytes(properties.total_memory)} in all; {_computes(capability)}; {device}"
        findings.append(Finding(f"GPU {index}", said))
        troubles += _kernels(torch, f"{device} ({properties.name})", capability)
    troubles.append(
        f"{why}: CUDA is asked how much memory is free, and for what a training step takes the prediction is used "
        "(in a container, NVIDIA_DRIVER_CAPABILITIES=compute,utility brings NVML)"
    )
    return Checkup(tuple(findings), tuple(map(Trouble, troubles)))


def _advice(trouble: str | None) -> str:
    """What to do where there is no GPU."""
    if trouble and "older version is still loaded" in trouble:
        return "restart the machine"
    if trouble and "permission" in trouble:
        return "let this user read /dev/nvidia* (often: the group video)"
    return "if there is an NVIDIA GPU, install its driver, or in a container pass it on (docker run --gpus all)"


def _why_unused(torch: ModuleType | None, reading: Reading) -> list[str]:
    """NVML shows GPUs that torch does not see."""
    if torch is None or all(gpu.mig and not _is_instance(gpu) for gpu in reading.gpus):
        return []  # said elsewhere
    build, driver = torch.version.cuda, reading.cuda
    newest = f"CUDA {_dotted(driver)} or older" if driver else "CUDA"
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
    """What CUDA says when it is started."""
    try:
        torch.cuda.init()
    except (RuntimeError, AssertionError) as exc:
        return str(exc).strip().partition("\n")[0] or type(exc).__name__
    return "CUDA starts, and finds none"


def _devices(torch: ModuleType | None) -> list[str]:
    if torch is None or not torch.cuda.is_available():
        return []
    return [f"cuda:{index}" for index in range(torch.cuda.device_count())]


# --- words ---------------------------------------------------------------------------------------------------------


def _named(gpu: Gpu) -> str:
    return f"GPU {gpu.index}"


def _titled(gpu: Gpu) -> str:
    return f"{_named(gpu)} ({gpu.name})"


def _dotted(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"


def _computes(capability: tuple[int, int]) -> str:
    """GPUs since Ampere compute in bf16; older ones emulate it, slowly."""
    return f"compute capability {_dotted(capability)}, bf16 {'native' if capability >= (8, 0) else 'not native'}"


def _is_instance(gpu: Gpu) -> bool:
    return gpu.uuid.startswith("MIG-")
