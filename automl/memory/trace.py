"""Traces one training step on fake tensors: no data, no arithmetic, no GPU."""

import contextlib
import logging
import threading
import warnings
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from automl.errors import RecipeError
from automl.memory.allocator import Event
from automl.memory.attention import CudaAttention
from automl.memory.autocast import cuda_autocast
from automl.memory.cache import Step
from automl.memory.envelope import Envelope, build_envelope
from automl.memory.fake import build_shapes, make_fake
from automl.memory.tracker import Tracker
from automl.training.model import check_backbone

__all__ = ["TRACED_BATCHES", "trace_envelope", "trace_model", "trace_step"]

TRACED_BATCHES = (2, 3)
"""Next to each other, so that bytes per image are whole; from 2 on, because a dimension of 1 is laid out apart."""

DTYPES = {"fp32": None, "fp16": torch.float16, "bf16": torch.bfloat16}
FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}

_alone = threading.Lock()  # autocast's table and the random state are the process's


def trace_envelope(step: Step) -> Envelope:
    """Traces a step at two batch sizes; afterwards torch is as it was, its random state included.

    Raises:
        RecipeError: If timm has no such backbone, or cannot build or train it at this image size.
    """
    check_backbone(step.backbone)
    try:
        with _alone, torch.random.fork_rng(devices=[]), _silent_log():
            model = build_shapes(step.backbone, step.classes, step.image_size, 0.1 if step.drop_path else 0)
            first, second = trace_model(model, step, TRACED_BATCHES)
    except (Exception, SystemExit) as exc:  # a model's code may raise anything for a size it cannot take
        reason = (str(exc).strip().splitlines() or [""])[0]
        raise RecipeError(
            f"backbone {step.backbone} cannot be built and trained at an image size of {step.image_size} px: "
            f"{reason or type(exc).__name__}; choose another image size or another backbone"
        ) from exc
    normalised = any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in model.modules())
    return build_envelope(first, second, TRACED_BATCHES, smallest_batch=2 if normalised else 1)


@contextlib.contextmanager
def _silent_log() -> Iterator[None]:
    """Keeps torch from printing the traceback of what is raised anyway."""
    log = logging.getLogger("torch._subclasses.fake_tensor")
    before, log.disabled = log.disabled, True
    try:
        yield
    finally:
        log.disabled = before


def trace_model(model: nn.Module, step: Step, batches: Sequence[int]) -> list[list[Event]]:
    """Traces the training step of a model at several batch sizes.

    Args:
        model: The model, whose tensors are replaced by fake ones.
        step: The facts of the step.
        batches: Images per (micro-)batch.

    Returns:
        The births and deaths of storages at each batch size.
    """
    with FakeTensorMode(allow_non_fake_inputs=True):
        make_fake(model, FORMATS[step.memory_format])
        model.train()
        return [trace_step(model, step, batch) for batch in batches]


def trace_step(model: nn.Module, step: Step, batch: int) -> list[Event]:
    """Traces a step in the steady state: the optimizer's state exists when the forward pass begins.

    Args:
        model: The model, of fake tensors. Call this in their `FakeTensorMode`.
        step: The facts of the step.
        batch: Images per (micro-)batch.
    """
    for parameter in model.parameters():
        parameter.grad = None
    tracker = Tracker()
    weights = [*model.parameters(), *model.buffers()]
    tracker.add(weights)
    with warnings.catch_warnings(), tracker:
        warnings.simplefilter("ignore")  # warnings of models are no news here
        average = [torch.empty_like(tensor) for tensor in weights] if step.ema else []
        optimizer = _warm_optimizer(model, step)
        if not step.accumulates:
            optimizer.zero_grad(set_to_none=True)
        images = torch.empty(batch, 3, step.image_size, step.image_size)
        images = images.contiguous(memory_format=FORMATS[step.memory_format])
        _loss(model, images, DTYPES[step.precision]).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        events = tracker.close()
    del average, images
    return events


def _loss(model: nn.Module, images: torch.Tensor, dtype: torch.dtype | None) -> torch.Tensor:
    with cuda_autocast(dtype), CudaAttention():
        logits = model(images)
        while isinstance(logits, tuple | list):  # a distilled model's first head
            logits = logits[0]
        return F.cross_entropy(logits, torch.empty(len(logits), dtype=torch.long))


def _warm_optimizer(model: nn.Module, step: Step) -> torch.optim.Optimizer:
    """The optimizer after one step, with the gradients still there, as CUDA runs it (`foreach`)."""
    from timm.optim import create_optimizer_v2  # type: ignore[attr-defined]

    plain_sgd = step.optimizer == "sgd" and not step.nesterov
    optimizer: torch.optim.Optimizer = create_optimizer_v2(
        model,
        opt="momentum" if plain_sgd else step.optimizer,
        lr=1e-3,
        weight_decay=1e-2 if step.weight_decay else 0.0,
        momentum=0.9 if step.momentum else 0.0,
        foreach=True,
    )
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.empty_like(parameter)
    optimizer.step()
    return optimizer
