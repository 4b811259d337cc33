"""Which precision and memory format is fastest for a backbone on a device, found by timing a few real steps.

The answer differs so much between backbones that no rule will do: bf16 with channels-last made resnet18 2.4 times
faster and tf_efficientnet_lite0 3 times slower on the same CPU. A candidate counts only if its logits agree with
fp32's. Timings are kept on disk by (device, threads, versions, backbone, image size, batch).
"""

import os
import platform
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from automl.backbones.heads import head_modules
from automl.backbones.weights import make_model
from automl.devices import is_gpu
from automl.files import CacheEntry
from automl.recipe import Numerics, Recipe
from automl.training.optimizer import make_optimizer

Precision = Literal["fp32", "bf16", "fp16"]
Layout = Literal["contiguous", "channels_last"]
Candidate = tuple[Precision, Layout]

_TOLERANCE = 0.05
"""Largest difference from fp32's logits, as a share of their largest value, that still counts as correct."""


@dataclass(frozen=True)
class Timing:
    """The fastest correct numerics of a backbone on a device, and how fast they are."""

    precision: Precision
    memory_format: Layout
    train_seconds: float
    """Per image of a training step."""
    evaluation_seconds: float
    """Per image of a forward pass without gradients."""
    image_size: int

    def numerics(self, micro_batch_size: int | None = None) -> Numerics:
        """Returns the numerics of a recipe."""
        return Numerics(precision=self.precision, memory_format=self.memory_format, micro_batch_size=micro_batch_size)

    def scale_to(self, image_size: int) -> "Timing":
        """Scales the times to another image size by the number of pixels."""
        factor = (image_size / self.image_size) ** 2
        return Timing(
            self.precision,
            self.memory_format,
            self.train_seconds * factor,
            self.evaluation_seconds * factor,
            image_size,
        )


def best_numerics(recipe: Recipe, classes: int, device: str, batch_size: int = 16) -> Timing:
    """Times the candidates, or recalls an earlier timing from the disk.

    Args:
        recipe: Gives backbone, image size and optimizer.
        classes: Outputs of the classifier.
        device: `cpu`, `cuda` or `cuda:N`.
        batch_size: Images in a timed step.

    Returns:
        The fastest correct candidate.

    Raises:
        RecipeError: If the backbone cannot be built at this image size.
    """
    cached = _find_cached_timing(recipe, device, batch_size)
    timing = cached.load_json(lambda values: Timing(**values))
    if timing is None:
        timing = _time_candidates(recipe, classes, torch.device(device), batch_size)
        cached.save_json(asdict(timing))
    return timing


def _time_candidates(recipe: Recipe, classes: int, device: torch.device, batch_size: int) -> Timing:
    torch.manual_seed(0)
    model = make_model(recipe, classes)
    for head in head_modules(model):  # a new head is zero, and zeros agree with anything
        for parameter in head.parameters():
            nn.init.normal_(parameter, std=0.05)
    model.to(device)
    images = torch.randn(batch_size, 3, recipe.image_size, recipe.image_size, device=device)
    labels = torch.arange(batch_size, device=device) % classes
    best: Timing | None = None
    for precision, layout, evaluation in _time_correct(model, images, list(_list_candidates(device))):
        _set_layout(model, layout)
        limit = best.train_seconds * batch_size if best else float("inf")
        train = _time_training(recipe, model, images, labels, precision, layout, limit)
        if best is None or train < limit:
            best = Timing(precision, layout, train / batch_size, evaluation / batch_size, recipe.image_size)
    assert best is not None  # noqa: S101 - the reference agrees with itself
    return best


def _time_correct(
    model: nn.Module, images: Tensor, candidates: "list[Candidate]"
) -> "list[tuple[Precision, Layout, float]]":
    """Times the candidates whose logits agree with the first one's, before any training step.

    A step would move the BatchNorm statistics, and with them the logits that are compared.
    """
    found: list[tuple[Precision, Layout, float]] = []
    reference: Tensor | None = None
    for precision, layout in candidates:
        _set_layout(model, layout)
        logits, seconds = _time_evaluation(model, images, precision, layout)
        reference = logits if reference is None else reference
        if _logits_agree(logits, reference):
            found.append((precision, layout, seconds))
    return found


def _set_layout(model: nn.Module, layout: str) -> None:
    model.to(memory_format=torch.channels_last if layout == "channels_last" else torch.contiguous_format)


def _list_candidates(device: torch.device) -> "Iterator[Candidate]":
    """Yields fp32 in both formats first, the reference; then what the device computes natively."""
    yield "fp32", "contiguous"
    yield "fp32", "channels_last"
    if device.type == "cuda":
        low = ["fp16"] + (["bf16"] if torch.cuda.is_bf16_supported(including_emulation=False) else [])
    else:
        # Without these instructions a CPU emulates bf16, many times slower than fp32.
        flags = _cpu_flags()
        low = ["bf16"] if flags & {"avx512_bf16", "amx_bf16", "bf16"} else []
    for precision in low:
        yield precision, "contiguous"  # type: ignore[misc]
        yield precision, "channels_last"  # type: ignore[misc]


@torch.inference_mode()
def _time_evaluation(model: nn.Module, images: Tensor, precision: str, layout: str) -> tuple[Tensor, float]:
    model.eval()
    images = _with_layout(images, layout)
    with autocast(images.device, precision):
        seconds = []
        for _ in range(3):
            started = _read_clock(images.device)
            logits = model(images).float()
            seconds.append(_read_clock(images.device) - started)
    return logits, min(seconds)


def _time_training(
    recipe: Recipe, model: nn.Module, images: Tensor, labels: Tensor, precision: str, layout: str, limit: float
) -> float:
    """Returns the least seconds of a training step; stops early when one is far over `limit`."""
    model.train()
    images = _with_layout(images, layout)
    # A learning rate of zero: the optimizer works as ever, and the weights stay for the next candidate.
    optimizer = make_optimizer(recipe.model_copy(update={"learning_rate": 1e-12}), model)
    seconds = []
    for step in range(5):
        started = _read_clock(images.device)
        with autocast(images.device, precision):
            logits = model(images)
        nn.functional.cross_entropy(logits.float(), labels).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        seconds.append(_read_clock(images.device) - started)
        if step == 1 and seconds[1] > 1.5 * limit:
            break
    return min(seconds[1:])


def _logits_agree(logits: Tensor, reference: Tensor) -> bool:
    scale = float(reference.abs().max().clamp_min(1e-6))
    return bool(torch.isfinite(logits).all()) and float((logits - reference).abs().max()) <= _TOLERANCE * scale


def _with_layout(images: Tensor, layout: str) -> Tensor:
    return images.contiguous(
        memory_format=torch.channels_last if layout == "channels_last" else torch.contiguous_format
    )


def autocast(device: torch.device, precision: str) -> Any:
    """Returns the context in which a forward pass runs in a precision; for fp32, none."""
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, torch.bfloat16 if precision == "bf16" else torch.float16)


def _read_clock(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _cpu_flags() -> set[str]:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return set()
    lines = (line for line in text.splitlines() if line.lower().startswith(("flags", "features")))
    return set(next(lines, "").split())


def _find_cached_timing(recipe: Recipe, device: str, batch_size: int) -> CacheEntry:
    """Returns where a timing is kept: by machine, versions, backbone, image size, optimizer and batch."""
    key = [
        torch.cuda.get_device_name(device) if is_gpu(device) else f"{platform.machine()} {platform.processor()}",
        torch.get_num_threads(),
        os.cpu_count(),
        version("torch"),
        version("timm"),
        recipe.backbone.partition(".")[0],  # weights do not decide how long a step takes
        recipe.image_size,
        recipe.optimizer.name,
        batch_size,
    ]
    return CacheEntry("timings", key, digits=16)
