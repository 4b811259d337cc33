"""Checks of the software around a search: Python, the libraries, and pretrained weights within reach."""

import importlib
import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType

from automl.backbones.table import load_table
from automl.doctor.machine import folder_bytes
from automl.doctor.report import Fact, Options, Problem, Report, make_report
from automl.errors import first_line
from automl.units import format_bytes


def check_packages(_: Options) -> Report:
    """Reports Python and the libraries, and which of these cannot be imported."""
    torch, torch_error = import_library("torch")
    built = ""
    if torch is not None:
        cuda, hip = torch.version.cuda, getattr(torch.version, "hip", None)
        built = f", built for CUDA {cuda}" if cuda else f", built for ROCm {hip}" if hip else ", built without CUDA"
    torchvision_error = import_library("torchvision")[1] if torch is not None else None
    timm_error = import_library("timm")[1] if torch is not None and not torchvision_error else None
    together = f"torchvision {_find_version('torchvision')} beside torch {_find_version('torch')}"
    failures = (
        (torch_error, "torch cannot be imported", "install it again (https://pytorch.org/get-started)"),
        (
            torchvision_error,
            f"{together} cannot be imported",
            "install the two together, from one place: pip install --force-reinstall torch torchvision",
        ),
        (timm_error, "timm cannot be imported", "install it again: pip install --force-reinstall --no-deps timm"),
    )
    findings = (
        Fact("automl", _find_version("automl-timm")),
        Fact("Python", f"{platform.python_version()} ({sys.executable}), {platform.system()} {platform.machine()}"),
        Fact("torch", _find_version("torch") + built),
        *(Fact(name, _find_version(name)) for name in ("torchvision", "timm")),
    )
    problems = (Problem(f"{what} ({error}); {fix}", fatal=True) for error, what, fix in failures if error)
    return Report(findings, tuple(problems))


def import_library(name: str) -> tuple[ModuleType | None, str | None]:
    """Imports a library; returns it, or why it cannot be imported."""
    try:
        return importlib.import_module(name), None
    except Exception as exc:  # a library built for another torch raises anything
        return None, f"{type(exc).__name__}: {first_line(exc)}"


def _find_version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def check_weights(options: Options) -> Report:
    """Reports pretrained weights within reach: the hub's cache, the hub, a folder."""
    from huggingface_hub.constants import HF_HUB_CACHE

    from automl.backbones.weights import hub_reachable  # late: it imports torch, which may be what is broken

    hub_cache, folder = Path(HF_HUB_CACHE), options.weights_dir
    cached = {path.parents[2] for path in hub_cache.glob("models--timm--*/snapshots/*/model.safetensors")}
    size = sum(folder_bytes(path / "blobs") for path in cached)
    held = f"{len(cached)} of timm's, {format_bytes(size)}," if cached else "none of timm's"
    reachable = hub_reachable()
    offline = ", as HF_HUB_OFFLINE says" if os.environ.get("HF_HUB_OFFLINE") and not reachable else ""
    address = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    findings = [
        Fact("weights cached", f"{held} in {hub_cache}"),
        Fact("weights hub", f"{address} {'answers' if reachable else 'is out of reach' + offline}"),
    ]
    problems, named = [], 0
    if folder is not None:
        files, named = _count_weights(folder)
        findings.append(Fact("weights folder", f"{named} of timm's architectures in {folder}"))
        if named < files:
            problems.append(
                f"{files - named} of {files} safetensors files in {folder} are named like no timm architecture "
                "and will not be found: name them like resnet50.safetensors or resnet50.a1_in1k.safetensors"
            )
    if not (cached or reachable or named):
        problems.append(
            "no pretrained weights are within reach, and training from scratch needs far more data and time: give "
            "--weights-dir FOLDER with safetensors files named by timm architecture, or let this machine reach the hub"
        )
    return make_report(findings, problems)


def _count_weights(folder: Path) -> tuple[int, int]:
    """Counts safetensors files, and those that are named by an architecture of the leaderboard."""
    models = set(load_table()["model"])
    models |= {name.partition(".")[0] for name in models}
    stems = [path.stem for path in folder.glob("*.safetensors")]
    return len(stems), sum(stem in models for stem in stems)
