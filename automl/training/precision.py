"""Which precision and memory format is fastest for a backbone on a device, by timing a few real steps.

The answer differs so much between backbones that no rule will do: bf16 with channels-last made resnet18 2.4 times
faster and tf_efficientnet_lite0 3 times slower on the same CPU. A candidate counts only if its logits agree with
fp32's. Timings are kept on disk by (device, threads, versions, backbone, image size, batch). One that was taken on a
CPU while other programs used it is taken again the next time, and the faster of the two is kept.
"""

import platform
import time
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from itertools import product
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from automl.backbones.heads import head_modules
from automl.backbones.weights import make_model
from automl.devices import is_gpu
from automl.files import CacheEntry
from automl.processes import usable_cores
from automl.recipe import Numerics, Recipe
from automl.recipe.tuning import TuneHead, TuneLast, TuneNorms
from automl.schema import Part
from automl.training.optimizer import make_optimizer

Precision = Literal["fp32", "bf16", "fp16"]
Layout = Literal["contiguous", "channels_last"]
Candidate = tuple[Precision, Layout]

_FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}

_PATIENCE_SECONDS = 2.0
"""A backbone, or a machine, so slow that trying further candidates would take longer is not kept waiting for."""

_TOLERANCE = 0.05
"""Largest difference from fp32's logits, as a share of their largest value, that still counts as correct."""

_STEADY = 0.8
"""Of the time of a timing on a CPU, what its thread must have run for; less, and other programs were in its way."""

BACKWARD_SHARES: dict[type[Part], float] = {TuneHead: 0.05, TuneNorms: 0.95, TuneLast: 0.3}
"""What the backward pass takes where a part of a network is trained, of what it takes for all. Nothing is computed for
frozen layers in front; behind the first that learns nearly all is: mobilenetv2_100 took 17 s for all, 16 for norms and
for LoRA, 5 for the last block and for the head (docs/figures.md)."""


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
    measured: bool = True
    """Whether steps were timed; else the times are predicted from the size of the network."""

    def numerics(self, micro_batch_size: int | None = None) -> Numerics:
        """Returns the numerics of a recipe."""
        return Numerics(precision=self.precision, memory_format=self.memory_format, micro_batch_size=micro_batch_size)

    def scale_to(self, image_size: int) -> "Timing":
        """Scales the times to another image size by the number of pixels."""
        factor = (image_size / self.image_size) ** 2
        train, evaluation = self.train_seconds * factor, self.evaluation_seconds * factor
        return replace(self, train_seconds=train, evaluation_seconds=evaluation, image_size=image_size)

    def scale_to_recipe(self, recipe: Recipe) -> "Timing":
        """Scales the times to a recipe's image size, and to how much of the network it trains."""
        scaled = self.scale_to(recipe.image_size)
        share = BACKWARD_SHARES.get(type(recipe.tune), 1.0)
        backward = max(0.0, scaled.train_seconds - scaled.evaluation_seconds)
        return replace(scaled, train_seconds=scaled.evaluation_seconds + share * backward)


def best_numerics(recipe: Recipe, classes: int, device: str, batch_size: int | None = None) -> Timing:
    """Times the candidates in about a second, or recalls an earlier timing from the disk.

    `batch_size`: by default 16 on a GPU; on a CPU 8, of which an image takes about as long as of 16.

    Raises:
        RecipeError: If the backbone cannot be built at this image size.
    """
    batch_size = batch_size or _usual_batch(device)
    cached = _find_cached(recipe, device, batch_size)
    known = cached.load_json(_parse_timing)
    if known is not None and known[1]:
        return known[0]
    timing, steady = _time_candidates(recipe, classes, torch.device(device), batch_size)
    if known is not None and not steady and known[0].train_seconds < timing.train_seconds:
        timing = known[0]
    cached.save_json(asdict(timing) | {"steady": steady})
    return timing


def is_timed(recipe: Recipe, device: str) -> bool:
    """Returns whether `best_numerics` would recall an earlier timing."""
    known = _find_cached(recipe, device, _usual_batch(device)).load_json(_parse_timing)
    return known is not None and known[1]


def is_native(precision: str, device: str) -> bool:
    """Returns whether a device computes in a precision without emulating it."""
    return precision in {native for native, _ in _list_candidates(torch.device(device))}


def _parse_timing(values: dict[str, Any]) -> tuple[Timing, bool]:
    """Reads a timing from the disk, and whether it was steady; one of an earlier version is taken again once."""
    return Timing(**{name: value for name, value in values.items() if name != "steady"}), bool(values.get("steady"))


def _usual_batch(device: str) -> int:
    return 16 if is_gpu(device) else 8


def _find_cached(recipe: Recipe, device: str, batch_size: int) -> CacheEntry:
    """Returns where the timing of a backbone is kept."""
    key = [
        torch.cuda.get_device_name(device) if is_gpu(device) else f"{platform.machine()} {platform.processor()}",
        torch.get_num_threads(),
        usable_cores(),
        version("torch"),
        version("timm"),
        recipe.backbone.partition(".")[0],  # weights do not decide how long a step takes
        recipe.image_size,
        recipe.optimizer.name,
        batch_size,
    ]
    return CacheEntry("timings", key, digits=16)


def _time_candidates(recipe: Recipe, classes: int, device: torch.device, batch_size: int) -> tuple[Timing, bool]:
    """Times the candidates with random weights; returns the best, and whether no other program was in the way."""
    torch.manual_seed(0)
    model = make_model(recipe, classes)
    for head in head_modules(model):  # a new head is zero, and zeros agree with anything
        for parameter in head.parameters():
            nn.init.normal_(parameter, std=0.05)
    model.to(device)
    images = torch.randn(batch_size, 3, recipe.image_size, recipe.image_size, device=device)
    labels = torch.arange(batch_size, device=device) % classes
    # All of these before a training step, which would move BatchNorm's statistics, and with them the logits.
    started, worked = time.perf_counter(), time.thread_time()
    evaluated = list[tuple[Precision, Layout, Tensor, float]]()
    for kind in _list_candidates(device):
        evaluated.append((*kind, *_time_evaluation(model, images, *kind)))
        if time.perf_counter() - started > _PATIENCE_SECONDS:
            break
    reference, best, limit = evaluated[0][2], None, float("inf")
    tolerance = _TOLERANCE * reference.abs().max().clamp_min(1e-6)
    for precision, layout, logits, evaluation in evaluated:
        if (logits - reference).abs().max() <= tolerance:  # not so where a logit is NaN or infinite
            train = _time_training(recipe, model, images, labels, precision, layout, limit)
            if train < limit:
                limit = train
                best = Timing(precision, layout, train / batch_size, evaluation / batch_size, recipe.image_size)
        if time.perf_counter() - started > 3 * _PATIENCE_SECONDS:
            break
    assert best is not None  # noqa: S101 - the reference agrees with itself
    waits = device.type != "cpu"  # a thread that waits for a GPU does not run either
    return best, waits or _is_steady(time.perf_counter() - started, time.thread_time() - worked)


def _is_steady(seconds: float, worked_seconds: float) -> bool:
    """Returns whether a thread ran for nearly all of some time."""
    return worked_seconds >= _STEADY * seconds


def _list_candidates(device: torch.device) -> list[Candidate]:
    """Lists fp32 in both formats first, the reference; then what the device computes natively."""
    precisions: list[Precision] = ["fp32"]
    if device.type == "cuda":
        precisions += ["fp16", "bf16"] if torch.cuda.is_bf16_supported(including_emulation=False) else ["fp16"]
    elif _cpu_flags() & {"avx512_bf16", "amx_bf16", "bf16"}:
        precisions.append("bf16")  # without these instructions a CPU emulates it, many times slower than fp32
    layouts: tuple[Layout, ...] = ("contiguous", "channels_last")
    return list(product(precisions, layouts))


def _time_evaluation(model: nn.Module, images: Tensor, precision: str, layout: str) -> tuple[Tensor, float]:
    """Returns the logits in fp32, and the least seconds of a forward pass."""
    model.eval().to(memory_format=_FORMATS[layout])
    images = images.contiguous(memory_format=_FORMATS[layout])
    seconds = []
    with torch.inference_mode(), autocast(images.device, precision):
        for _ in range(2):
            started = _read_clock(images.device)
            logits = model(images).float()
            seconds.append(_read_clock(images.device) - started)
    return logits, min(seconds)


def _time_training(
    recipe: Recipe, model: nn.Module, images: Tensor, labels: Tensor, precision: str, layout: str, limit: float
) -> float:
    """Returns the least seconds of a training step; stops early when one is far over `limit`."""
    model.train().to(memory_format=_FORMATS[layout])
    images = images.contiguous(memory_format=_FORMATS[layout])
    # A learning rate of zero: the optimizer works as ever, and the weights stay for the next candidate.
    optimizer = make_optimizer(recipe.model_copy(update={"learning_rate": 1e-12}), model)
    seconds = []
    for step in range(3):
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


def autocast(device: torch.device, precision: str) -> Any:
    """Returns the context in which a forward pass runs in a precision; for fp32, none."""
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, torch.bfloat16 if precision == "bf16" else torch.float16)


def _read_clock(device: torch.device) -> float:
    """Returns the time in seconds at which the device has nothing left to do."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _cpu_flags() -> set[str]:
    """Reads the instruction sets of the CPU; none where the system does not list them."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return set()
    lines = (line for line in text.splitlines() if line.lower().startswith(("flags", "features")))
    return set(next(lines, "").split())
