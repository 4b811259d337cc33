"""`automl doctor`: what a search would find here, and for each trouble one sentence that says what to do."""

import importlib
import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType

from automl.backbones.weights import hub_reachable
from automl.doctor.gpu import Checkup, Finding, Trouble, cannot_compute, examine_gpus
from automl.doctor.machine import cpu_limit, disk, folder_bytes, ram, shared_memory
from automl.errors import StudyError, WeightsError
from automl.files import cache_dir
from automl.units import format_bytes

_LITTLE_DISK_BYTES = 10 * 10**9
_NO_DISK_BYTES = 500 * 10**6
_LITTLE_RAM_BYTES = 4 * 10**9
_LITTLE_SHARED_BYTES = 10**9
"""A batch of 256 images of 384 pixels is 450 MB, and each loader process has several under way."""


def examine(weights_dir: Path | None = None) -> Checkup:
    """Looks at packages, GPUs, machine, disk and weights; nothing is changed.

    Args:
        weights_dir: A folder of weights to look into as well.

    Raises:
        WeightsError: If there is no such folder.
    """
    if weights_dir is not None and not weights_dir.is_dir():
        raise WeightsError(f"--weights-dir {weights_dir} is not a folder; give one that holds safetensors files")
    packages, torch = _packages()
    gpus = examine_gpus(torch)
    return packages + gpus + _machine() + _storage() + _weights(weights_dir)


def refuse_hopeless(devices: tuple[str, ...], runs: Path) -> None:
    """Ends a search before it begins where nothing could be trained: `automl doctor` says the same, and more.

    Args:
        devices: What is to be trained on.
        runs: Where the studies go.

    Raises:
        StudyError: With one line for each reason, and what to do about it.
    """
    packages, torch = _packages()
    checkup = packages + _disk("cache", cache_dir(), "give another folder with AUTOML_CACHE=FOLDER")
    checkup += _disk("studies", runs, "give another folder with --runs")
    reasons = [trouble.said for trouble in checkup.troubles if trouble.fatal]
    if torch is not None:
        reasons += [reason for device in devices for reason in cannot_compute(torch, device)]
    if reasons:
        raise StudyError("\n".join(reasons))


def _packages() -> tuple[Checkup, ModuleType | None]:
    """Python and the libraries; torch, if it can be imported."""
    found = [
        Finding("automl", _version("automl-timm")),
        Finding("Python", f"{platform.python_version()} ({sys.executable}), {platform.system()} {platform.machine()}"),
    ]
    torch, torch_error = _imported("torch")
    built = ""
    if torch is not None:
        cuda, hip = torch.version.cuda, getattr(torch.version, "hip", None)
        built = f", built for CUDA {cuda}" if cuda else f", built for ROCm {hip}" if hip else ", built without CUDA"
    found.append(Finding("torch", _version("torch") + built))
    found += [Finding(name, _version(name)) for name in ("torchvision", "timm")]
    torchvision_error = _imported("torchvision")[1] if torch is not None else None
    timm_error = _imported("timm")[1] if torch is not None and not torchvision_error else None
    together = f"torchvision {_version('torchvision')} beside torch {_version('torch')}"
    troubles = [
        (torch_error, "torch cannot be imported", "install it again (https://pytorch.org/get-started)"),
        (
            torchvision_error,
            f"{together} cannot be imported",
            "install the two together, from one place: pip install --force-reinstall torch torchvision",
        ),
        (timm_error, "timm cannot be imported", "install it again: pip install --force-reinstall --no-deps timm"),
    ]
    said = tuple(Trouble(f"{what} ({error}); {fix}", fatal=True) for error, what, fix in troubles if error)
    return Checkup(tuple(found), said), torch


def _imported(name: str) -> tuple[ModuleType | None, str | None]:
    """A module, or why it cannot be imported."""
    try:
        return importlib.import_module(name), None
    except Exception as exc:  # a library built for another torch raises anything
        return None, f"{type(exc).__name__}: {str(exc).strip().partition(chr(10))[0]}"


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _machine() -> Checkup:
    """Cores, memory and shared memory."""
    cores, limit = cpu_limit()
    everything = os.cpu_count() or cores
    said = f"{cores}" if cores == everything else f"{cores} of {everything}"
    findings, troubles = [], []
    if limit < cores:
        said += f", with the time of {limit:.3g}"
        troubles.append(
            f"the container gives the time of {limit:.3g} of {cores} cores, and threads for all of them get in each "
            f"other's way: start it with --cpuset-cpus in place of --cpus, or set OMP_NUM_THREADS={max(1, int(limit))}"
        )
    findings.append(Finding("cores", said))
    total, available = ram()
    if total:
        findings.append(Finding("memory", f"{format_bytes(total)}, {format_bytes(available)} available"))
        if available < _LITTLE_RAM_BYTES:
            troubles.append(
                f"only {format_bytes(available)} of memory is available; a search takes about 4GB for each device: "
                "end other programs, or give the container more (docker run --memory)"
            )
    shared = shared_memory()
    if shared is not None:
        findings.append(Finding("shared memory", format_bytes(shared)))
        if shared < _LITTLE_SHARED_BYTES:
            troubles.append(
                f"the shared memory (/dev/shm) has only {format_bytes(shared)}, and the processes that load images "
                "hand over batches there: start the container with docker run --shm-size=8g, or with --ipc=host"
            )
    return Checkup(tuple(findings), tuple(map(Trouble, troubles)))


def _storage() -> Checkup:
    """The cache by kind, and the disk space for it and for studies."""
    cache = cache_dir()
    kinds = sorted(path for path in cache.glob("*") if path.is_dir() and not path.name.startswith("."))
    held = ", ".join(f"{path.name} {format_bytes(folder_bytes(path))}" for path in kinds) or "empty"
    checkup = Checkup((Finding("cache", f"{cache}: {held}"),))
    checkup += _disk("cache", cache, "give another folder with AUTOML_CACHE=FOLDER")
    here = disk(Path.cwd())
    if here.writable and here.device == disk(cache).device:
        return checkup
    return checkup + _disk("studies", Path.cwd(), "give another folder with --runs")


def _disk(what: str, folder: Path, instead: str) -> Checkup:
    """The room for the cache or for studies."""
    free = disk(folder).free_bytes
    finding = Finding(f"disk for {what}", f"{format_bytes(free)} free at {folder}")
    if not disk(folder).writable:
        trouble = Trouble(f"{folder} cannot be written, and the {what} would go there: {instead}", fatal=True)
    elif free < _LITTLE_DISK_BYTES:
        trouble = Trouble(
            f"only {format_bytes(free)} of disk is free at {folder}, where the {what} would go: delete something, or "
            f"{instead}",
            fatal=free < _NO_DISK_BYTES,
        )
    else:
        return Checkup((finding,))
    return Checkup((finding,), (trouble,))


def _weights(weights_dir: Path | None) -> Checkup:
    """Pretrained weights within reach: the hub's cache, the hub, a folder."""
    from huggingface_hub.constants import HF_HUB_CACHE

    hub_cache = Path(HF_HUB_CACHE)
    cached = {path.parents[2] for path in hub_cache.glob("models--timm--*/snapshots/*/model.safetensors")}
    size = sum(folder_bytes(path / "blobs") for path in cached)
    held = f"{len(cached)} of timm's, {format_bytes(size)}," if cached else "none of timm's"
    findings = [Finding("weights cached", f"{held} in {hub_cache}")]
    reachable = hub_reachable()
    offline = ", as HF_HUB_OFFLINE says" if os.environ.get("HF_HUB_OFFLINE") and not reachable else ""
    address = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    findings.append(Finding("weights hub", f"{address} {'answers' if reachable else 'is out of reach' + offline}"))
    troubles = []
    named = 0
    if weights_dir is not None:
        files, named = _in_folder(weights_dir)
        findings.append(Finding("weights folder", f"{named} of timm's architectures in {weights_dir}"))
        if named < files:
            troubles.append(
                f"{files - named} of {files} safetensors files in {weights_dir} are named like no timm architecture "
                "and will not be found: name them like resnet50.safetensors or resnet50.a1_in1k.safetensors"
            )
    if not (cached or reachable or named):
        troubles.append(
            "no pretrained weights are within reach, and training from scratch needs far more data and time: give "
            "--weights-dir FOLDER with safetensors files named by timm architecture, or let this machine reach the hub"
        )
    return Checkup(tuple(findings), tuple(map(Trouble, troubles)))


def _in_folder(folder: Path) -> tuple[int, int]:
    """How many safetensors files there are, and how many are named by an architecture of the leaderboard."""
    from automl.backbones.table import load_table

    models = set(load_table()["model"])
    models |= {name.partition(".")[0] for name in models}
    stems = [path.stem for path in folder.glob("*.safetensors")]
    return len(stems), sum(stem in models for stem in stems)
