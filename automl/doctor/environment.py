"""Checks of the software around a search: Python, the libraries, and pretrained weights within reach."""

import importlib
import os
import platform
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType

from automl.backbones.encoders import load_backbones
from automl.backbones.weights import hub_reachable
from automl.doctor.machine import folder_bytes
from automl.doctor.report import Fact, Options, Problem
from automl.errors import first_line
from automl.units import format_bytes


def check_packages(_: Options) -> Iterator[Fact | Problem]:
    """Reports Python and the libraries, and which of these cannot be imported."""
    torch, error = import_library("torch")
    built = ""
    if torch is not None:
        cuda, hip = torch.version.cuda, getattr(torch.version, "hip", None)
        built = f", built for CUDA {cuda}" if cuda else f", built for ROCm {hip}" if hip else ", built without CUDA"
    versions = {name: _find_version(name) for name in ("torch", "torchvision", "timm")}
    yield Fact("automl", _find_version("automl-timm"))
    yield Fact("Python", f"{platform.python_version()} ({sys.executable}), {platform.system()} {platform.machine()}")
    yield Fact("torch", versions["torch"] + built)
    yield Fact("torchvision", versions["torchvision"])
    yield Fact("timm", versions["timm"])
    remedies = {
        "torch": "install it again (https://pytorch.org/get-started)",
        "torchvision": "install the two together, from one place: pip install --force-reinstall torch torchvision",
        "timm": "install it again: pip install --force-reinstall --no-deps timm",
    }
    for name, remedy in remedies.items():
        error = error or import_library(name)[1]
        if error:
            both = f" {versions['torchvision']} beside torch {versions['torch']}" if name == "torchvision" else ""
            yield Problem(f"{name}{both} cannot be imported ({error}); {remedy}", fatal=True)
            return  # the next ones need this one


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


def check_weights(options: Options) -> Iterator[Fact | Problem]:
    """Reports pretrained weights within reach: the hub's cache, the hub, a folder."""
    from huggingface_hub.constants import HF_HUB_CACHE

    hub_cache, folder, named = Path(HF_HUB_CACHE), options.weights_dir, 0
    cached = {path.parents[2] for path in hub_cache.glob("models--timm--*/snapshots/*/model.safetensors")}
    size = sum(folder_bytes(path / "blobs") for path in cached)
    held = f"{len(cached)} of timm's, {format_bytes(size)}," if cached else "none of timm's"
    yield Fact("weights cached", f"{held} in {hub_cache}")
    reachable = hub_reachable()
    offline = ", as HF_HUB_OFFLINE says" if os.environ.get("HF_HUB_OFFLINE") and not reachable else ""
    address = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    yield Fact("weights hub", f"{address} {'answers' if reachable else 'is out of reach' + offline}")
    if folder is not None:
        stems = [path.stem for path in folder.glob("*.safetensors")]
        models = set(load_backbones()["model"])
        models |= {name.partition(".")[0] for name in models}
        files, named = len(stems), sum(stem in models for stem in stems)
        yield Fact("weights folder", f"{named} of timm's architectures in {folder}")
        if named < files:
            yield Problem(
                f"{files - named} of {files} safetensors files in {folder} are named like no timm architecture "
                "and will not be found: name them like resnet50.safetensors or resnet50.a1_in1k.safetensors"
            )
    if not (cached or reachable or named):
        yield Problem(
            "no pretrained weights are within reach, and training from scratch needs far more data and time: give "
            "--weights-dir FOLDER with safetensors files named by timm architecture, or let this machine reach the hub"
        )
