"""Measures one backbone on a GPU: context, peak memory and seconds of real steps, the largest micro-batch that fits.

It is run in a process of its own (`python -m automl.gpu.probe_worker`, by `automl.gpu.probe`): a CUDA error poisons
its process, and the memory of a context goes back to the device with the process alone. The request comes as JSON on
the standard input; the answer is the last line of the standard output.
"""

import json
import os
import sys
import time
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from automl.backbones.input import Preprocessing
from automl.errors import first_line
from automl.gpu.counters import CudaCounters
from automl.gpu.probe import Measurement, Request, StepMemory
from automl.memory.estimate import largest_micro_batch, predict_envelope
from automl.recipe import Recipe
from automl.training.fit import fit
from automl.training.out_of_memory import none_if_out_of_memory
from automl.training.precision import Timing, best_numerics

_MEASURED_STEPS = 3
_WARM_STEPS = 1
"""The first step makes the optimizer's state, and cuDNN choose its kernels."""
_FP16_WARM_STEPS = 8
"""The scaler of fp16 starts too high and skips its first steps, which then make no state of the optimizer."""

_SLACK_BYTES = 256 * 2**20
"""By which CUDA and NVML may differ about what is free, without anyone else having taken it."""


def measure_request(request: Request, counters: CudaCounters) -> Measurement:
    """Measures what a request asks for; the micro-batch is 0 if not even the smallest one fits."""
    context, workspace, budget = counters.read_context(), counters.read_workspace(), request.budget_bytes
    counters.limit_memory(budget, context)
    free = counters.read_free()
    shared = free is not None and free + _SLACK_BYTES < budget - context
    recipe, timing = request.recipe, None
    if request.timed_image_size is not None:
        timing = _choose_numerics(request, counters)
        if timing is not None:
            recipe = recipe.with_numerics(precision=timing.precision, memory_format=timing.memory_format)
    steps: dict[int, StepMemory] = {}

    def fits(batch: int) -> bool:
        if batch not in steps:
            step = none_if_out_of_memory(lambda: measure_step(recipe, batch, request.classes, request.device, counters))
            counters.release_memory()
            steps.update({batch: step} if step is not None else {})
        return batch in steps

    micro = 0
    envelope, whole = predict_envelope(recipe, request.classes), recipe.batch_size
    sizes = [size for size in range(envelope.smallest_batch, whole + 1) if whole % size == 0]
    if fits(sizes[0]):
        # Now with what the kernels of this backbone need.
        context, workspace = max(context, counters.read_context()), max(workspace, counters.read_workspace())
        counters.limit_memory(budget, context)
        guess = largest_micro_batch(recipe, request.classes, budget, context_bytes=context + workspace)
        micro = find_largest_fitting(sizes, guess, fits)
    return Measurement(
        device_name=counters.name,
        context_bytes=context,
        budget_bytes=budget,
        shared=shared,
        image_size=recipe.image_size,
        precision=recipe.numerics.precision,
        memory_format=recipe.numerics.memory_format,
        steps=tuple(steps[size] for size in sorted(steps)),
        micro_batch=micro,
        accumulation=-(-whole // micro) if micro else 0,
        timing=timing,
        workspace_bytes=workspace,
    )


def find_largest_fitting(sizes: Sequence[int], first: int, fits: Callable[[int], bool]) -> int:
    """Finds the largest size that fits, with few tries where the first guess is good.

    Upwards from a size that fits it goes step by step, because a guess is seldom far too low; downwards by halves,
    and then between. Of the ascending `sizes`, all below one that fits do; `first` is the guess. 0: none fits.
    """
    fitting, failing = -1, len(sizes)
    at = max(0, bisect_right(sizes, first) - 1)
    while failing - fitting > 1:
        if fits(sizes[at]):
            fitting = at
        else:
            failing = at
        if failing == len(sizes):
            at = fitting + 1
        elif fitting < 0:
            at = max(0, bisect_right(sizes, sizes[failing] // 2) - 1)
        else:
            at = (fitting + failing) // 2
    return sizes[fitting] if fitting >= 0 else 0


def measure_step(recipe: Recipe, batch: int, classes: int, device: str, counters: CudaCounters) -> StepMemory:
    """Measures the training step at a micro-batch size in images: `automl.training.fit`'s own, on noise.

    Below the recipe's batch size, gradients are accumulated.

    Raises:
        torch.OutOfMemoryError: If the step does not fit.
    """
    # Two micro-batches are enough: in the second, the gradients of the first are there.
    whole = min(recipe.batch_size, max(2, 2 * batch))
    # With next to no learning rate the weights stay what they are, and so finite.
    still = {"epochs": 1, "freeze_epochs": 0, "learning_rate": 1e-12, "pretrained": False}
    recipe = recipe.model_copy(update=still | {"batch_size": whole}).with_numerics(micro_batch_size=batch)
    warm = _FP16_WARM_STEPS if recipe.numerics.precision == "fp16" else _WARM_STEPS
    times: list[float] = []

    def on_step(step: int, _total: int) -> None:
        counters.wait_for_device()
        if step == warm:
            counters.reset_peaks()
        if step >= warm:
            times.append(time.perf_counter())

    fit(recipe, _Noise(classes, warm + _MEASURED_STEPS), device=device, evaluate=None, on_step=on_step)
    seconds = min(after - before for before, after in pairwise(times))
    allocated, reserved, process = counters.read_allocated(), counters.read_reserved(), counters.read_process()
    return StepMemory(batch, allocated, reserved, process, seconds / whole)


class _Noise:
    """As many batches of random pixels as are asked for; a `training.fit.Data`."""

    positive = 0

    def __init__(self, classes: int, steps: int) -> None:
        self.classes, self._steps = classes, steps

    def labels(self, split: str) -> "np.ndarray[Any, Any]":  # noqa: ARG002
        return np.arange(self.classes)

    def counts(self, split: str) -> "np.ndarray[Any, Any]":
        return np.ones_like(self.labels(split))

    def channel_statistics(self) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
        return (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)

    def batch_size(self, recipe: Recipe) -> int:
        return recipe.batch_size

    def steps_per_epoch(self, recipe: Recipe) -> int:  # noqa: ARG002
        return self._steps

    def train_batches(
        self,
        recipe: Recipe,
        interpolation: str,  # noqa: ARG002
        first: int,
        last: int,
        share: slice = slice(None),  # noqa: ARG002
    ) -> Iterable[tuple[Tensor, Tensor]]:
        shape = (recipe.batch_size, 3, recipe.image_size, recipe.image_size)
        images = torch.randint(0, 256, shape, dtype=torch.uint8)
        labels = torch.arange(recipe.batch_size) % self.classes
        return ((images, labels) for _ in range(first, last))

    def evaluation_batches(
        self, recipe: Recipe, preprocessing: Preprocessing, split: str, batch_size: int
    ) -> Iterable[tuple[Tensor, Tensor]]:
        raise NotImplementedError("nothing is evaluated")


def _choose_numerics(request: Request, counters: CudaCounters) -> Timing | None:
    """Times the numerics at the size asked for and returns the fastest; None if not even two images fit."""
    timed = request.recipe.model_copy(update={"image_size": request.timed_image_size})
    for batch in (16, 8, 4, 2):
        try:
            return best_numerics(timed, request.classes, request.device, batch)
        except torch.OutOfMemoryError:
            pass
        finally:
            counters.release_memory()
    return None


def _answer_request(request: Request) -> dict[str, Any]:
    """Returns the measurement, or the error that a step met and when."""
    stage = "start"
    try:
        counters = CudaCounters(request.device)
        stage = "step"
        return {"measurement": asdict(measure_request(request, counters))}
    except (Exception, SystemExit) as exc:  # a model's code may raise anything; the parent reports it
        poisoned = isinstance(exc, getattr(torch, "AcceleratorError", ()))
        return {"error": {"stage": stage, "type": type(exc).__name__, "message": first_line(exc), "poisoned": poisoned}}


def main() -> None:
    """Reads the request, measures, writes the answer."""
    # What models and libraries print goes to the standard error, so that the answer stands alone.
    answer = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    request = Request.from_json(json.load(sys.stdin))
    answer.write(json.dumps(_answer_request(request)) + "\n")
    answer.close()


if __name__ == "__main__":
    main()
