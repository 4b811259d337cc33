"""Traces one training step on tensors without data: no images, no arithmetic, no GPU.

What a step allocates falls into three stretches: before it (weights, the optimizer's state), the forward and backward
pass, which depends on the batch and the precision, and the optimizer's step, which does not. Each is traced once, and
stitched to the others.
"""

import contextlib
import threading
import warnings
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import nn

from automl.backbones.freezing import freeze_backbone
from automl.backbones.timm_model import check_backbone
from automl.errors import RecipeError
from automl.memory.caching_allocator import Event
from automl.memory.cuda_attention import cuda_kernels
from automl.memory.cuda_autocast import cuda_autocast
from automl.memory.envelope import KNOTS, Envelope, build_envelope
from automl.memory.meta_model import build_shapes, drop_data
from automl.memory.step import Step
from automl.memory.tracker import Tracker

TRACED_BATCHES = (2, 3)
"""Next to each other, so that bytes per image are whole; from 2 on, because a dimension of 1 is laid out apart."""

DTYPES = {"fp32": None, "fp16": torch.float16, "bf16": torch.bfloat16}
FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}

_alone = threading.Lock()  # autocast's table and the random state are the process's


def trace_envelope(step: Step) -> Envelope:
    """The memory of a step by batch size; afterwards torch is as it was, its random state included.

    Raises:
        RecipeError: If timm has no such backbone, or cannot build or train it at this image size.
    """
    return trace_envelopes(step, (step.precision,))[step.precision]


def trace_envelopes(step: Step, precisions: Sequence[str]) -> dict[str, Envelope]:
    """The memory of a step in several precisions, for little more than the time of one; see `trace_envelope`."""
    with built(step) as model:
        return envelopes_of(model, step, precisions)


@contextlib.contextmanager
def built(step: Step) -> Iterator[nn.Module]:
    """The model of a step, for `envelopes_of`; no other thread may trace meanwhile.

    Raises:
        RecipeError: If timm has no such backbone or cannot build it, or the body of the `with` raises anything.
    """
    check_backbone(step.backbone)
    try:
        with _alone, torch.random.fork_rng(devices=[]):
            model = build_shapes(step.backbone, step.classes, step.image_size, 0.1 if step.drop_path else 0)
            if step.grad_checkpointing:
                model.set_grad_checkpointing(True)  # type: ignore[operator]
            yield model
    except (Exception, SystemExit) as exc:  # a model's code may raise anything for a size it cannot take
        reason = (str(exc).strip().splitlines() or [""])[0]
        raise RecipeError(
            f"backbone {step.backbone} cannot be built and trained at an image size of {step.image_size} px: "
            f"{reason or type(exc).__name__}; choose another image size or another backbone"
        ) from exc


def envelopes_of(
    model: nn.Module, step: Step, precisions: Sequence[str], knots: Sequence[int] = KNOTS
) -> dict[str, Envelope]:
    """The memory of a step of a model that is `built`, by precision; exact at the batch sizes `knots`."""
    traces = _trace(model, step, TRACED_BATCHES, precisions)
    normalised = any(isinstance(m, nn.modules.batchnorm._BatchNorm) and m.training for m in model.modules())
    smallest = 2 if normalised else 1
    return {
        name: build_envelope(first, second, TRACED_BATCHES, smallest, knots) for name, (first, second) in traces.items()
    }


def trace_model(model: nn.Module, step: Step, batches: Sequence[int]) -> list[list[Event]]:
    """Traces the step of a model at several batch sizes.

    Args:
        model: The model, whose tensors lose their data.
        step: The facts of the step.
        batches: Images per (micro-)batch.

    Returns:
        The births and deaths of storages at each batch size; those of the same storage have the same number in all.
    """
    return _trace(model, step, batches, (step.precision,))[step.precision]


def _trace(
    model: nn.Module, step: Step, batches: Sequence[int], precisions: Sequence[str]
) -> dict[str, list[list[Event]]]:
    drop_data(model, FORMATS[step.memory_format])
    model.train(step.training)
    tracker = Tracker()
    weights = [*model.parameters(), *model.buffers()]
    tracker.add(weights)
    with warnings.catch_warnings(), tracker:
        warnings.simplefilter("ignore")  # warnings of models are no news here
        average = [torch.empty_like(tensor) for tensor in weights] if step.ema else []
        optimizer = _warm_optimizer(model, step) if step.training else None
        before = _lasting(tracker.take())
        passes, seen = _passes(model, step, batches, precisions, optimizer, tracker)
        if any(len({_order(part) for part in parts}) > 1 for parts in passes.values()):
            # A first pass left something behind that later ones find: the indices of ConViT, in evaluation the biases
            # of LeViT. The passes are made again, as the steps after the first are.
            before = _lasting([*before, *seen, *_without_gradients(optimizer, step, tracker)])
            passes, _ = _passes(model, step, batches, precisions, optimizer, tracker)
        first = tracker.born
        if optimizer is not None and step.kernel != "fused":
            optimizer.step()
        after = tracker.take()
    del average
    return {name: [_stitched(before, part, after, first) for part in parts] for name, parts in passes.items()}


def _passes(
    model: nn.Module,
    step: Step,
    batches: Sequence[int],
    precisions: Sequence[str],
    optimizer: torch.optim.Optimizer | None,
    tracker: Tracker,
) -> tuple[dict[str, list[list[Event]]], list[Event]]:
    """The events of a pass for each precision and batch size, renumbered; and all events, as they were logged."""
    passes: dict[str, list[list[Event]]] = {}
    seen: list[Event] = []
    for precision in precisions:
        for batch in batches:
            seen += _without_gradients(optimizer, step, tracker)
            first = tracker.born
            _pass(model, step, batch, DTYPES[precision])
            events = tracker.take()
            seen += events
            passes.setdefault(precision, []).append(_renumbered(events, first))
    return passes, seen


def _without_gradients(optimizer: torch.optim.Optimizer | None, step: Step, tracker: Tracker) -> list[Event]:
    """Drops the last pass's gradients, unless they are accumulated; what happens then."""
    if optimizer is not None and not step.accumulates:
        optimizer.zero_grad(set_to_none=True)
    return tracker.take()


_PASS, _AFTER = 10**7, 10**8
"""First numbers of the storages of a pass and of the optimizer's step: the same in every pass."""


def _lasting(events: list[Event]) -> list[Event]:
    """Without the storages that died again: what the optimizer's first step needs is seen in a later one."""
    dead = {storage for storage, change in events if change < 0}
    return [event for event in events if event.storage not in dead]


def _order(events: list[Event]) -> tuple[tuple[int, bool], ...]:
    """What the traces of a step at two batch sizes have in common: everything but the sizes."""
    return tuple((storage, change > 0) for storage, change in events)


def _renumbered(events: list[Event], first: int) -> list[Event]:
    """The events of a pass with numbers that do not depend on what was traced before."""
    return [Event(s if s < first else s - first + _PASS, change) for s, change in events]


def _stitched(before: list[Event], part: list[Event], after: list[Event], first: int) -> list[Event]:
    return [*before, *part, *(Event(s - first + _AFTER, change) for s, change in after if s >= first)]


def _pass(model: nn.Module, step: Step, batch: int, dtype: torch.dtype | None) -> None:
    """One forward pass and, in training, the backward pass."""
    images = torch.empty(batch, 3, step.image_size, step.image_size, device="meta")
    images = images.contiguous(memory_format=FORMATS[step.memory_format])
    rules = cuda_autocast(dtype)
    with rules as autocast, cuda_kernels(), torch.device("meta"), torch.set_grad_enabled(step.training):
        with autocast():
            logits = model(images)
            while isinstance(logits, tuple | list):  # a distilled model's first head
                logits = logits[0]
            if step.training:
                loss = F.cross_entropy(logits, torch.empty(len(logits), dtype=torch.long))
        del logits
        if step.training:
            loss.backward()  # type: ignore[no-untyped-call]


def _warm_optimizer(model: nn.Module, step: Step) -> torch.optim.Optimizer:
    """The optimizer after one step; the gradients are still there if they are accumulated."""
    from timm.optim import create_optimizer_v2  # type: ignore[attr-defined]

    if step.frozen:
        freeze_backbone(model, True)
    plain_sgd = step.optimizer == "sgd" and not step.nesterov
    optimizer: torch.optim.Optimizer = create_optimizer_v2(
        model,
        opt="momentum" if plain_sgd else step.optimizer,
        lr=1e-3,
        weight_decay=1e-2 if step.weight_decay else 0.0,
        momentum=0.9 if step.momentum else 0.0,
        foreach=step.kernel != "loop",  # a fused step leaves the same state, and no device can do it without data
    )
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.empty_like(parameter)
    optimizer.step()
    if not step.accumulates:
        optimizer.zero_grad(set_to_none=True)
    return optimizer
