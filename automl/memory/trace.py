"""Traces one training step on tensors without data: no images, no arithmetic, no GPU.

What a step allocates falls into three stretches: before it (weights, the optimizer's state), the forward and backward
pass, which depends on the batch and the precision, and the optimizer's step, which does not. Each is traced once, and
stitched to the others.
"""

import contextlib
import threading
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from automl.backbones.classifier import put_head
from automl.backbones.heads import freeze_backbone, hold_statistics
from automl.backbones.timm_model import build_on_meta, check_backbone
from automl.backbones.tuning import choose_trained
from automl.errors import RecipeError, first_line
from automl.memory.caching_allocator import Event
from automl.memory.cuda_attention import cuda_kernels
from automl.memory.cuda_autocast import cuda_autocast
from automl.memory.envelope import KNOTS, Envelope, build_envelope
from automl.memory.step import Step
from automl.memory.tracker import Tracker
from automl.recipe import Recipe

TRACED_BATCHES = (2, 3)
"""Next to each other, so that bytes per image are whole; from 2 on, because a dimension of 1 is laid out apart."""

DTYPES = {"fp32": None, "fp16": torch.float16, "bf16": torch.bfloat16}
FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}

_alone = threading.Lock()  # autocast's table and the random state are the process's


def trace_envelope(step: Step) -> Envelope:
    """Traces the memory of a step by batch size; afterwards torch is as it was, its random state included."""
    with build_meta_model(step) as model:
        return trace_model_envelopes(model, step, (step.precision,))[step.precision]


@contextlib.contextmanager
def build_meta_model(step: Step) -> Iterator[nn.Module]:
    """Builds the model of a step, for `trace_model_envelopes`; no other thread may trace meanwhile.

    Raises:
        RecipeError: If timm has no such backbone or cannot build it, or the body of the `with` raises anything.
    """
    check_backbone(step.backbone)
    try:
        with _alone, torch.random.fork_rng(devices=[]):
            wanted = {"img_size": step.image_size, "drop_path_rate": 0.1 if step.drop_path else 0}
            model, _ = build_on_meta(step.backbone, wanted, num_classes=step.classes)
            parts = {"tune": step.tune, "head": step.head, "pooling": step.pooling}
            recipe = Recipe(backbone=step.backbone, image_size=step.image_size, **parts)
            with torch.device(next(model.parameters()).device):
                model = put_head(model, recipe, step.classes)
                choose_trained(model, recipe)
            if step.grad_checkpointing:
                model.set_grad_checkpointing(True)  # type: ignore[operator]
            yield model
    except (Exception, SystemExit) as exc:  # a model's code may raise anything for a size it cannot take
        raise RecipeError(
            f"backbone {step.backbone} cannot be built and trained at an image size of {step.image_size} px: "
            f"{first_line(exc)}; choose another image size or another backbone"
        ) from exc


def trace_model_envelopes(
    model: nn.Module, step: Step, precisions: Sequence[str], knots: Sequence[int] = KNOTS
) -> dict[str, Envelope]:
    """Traces the step of a model of `build_meta_model`, by precision; exact at the batch sizes `knots`."""
    traces = trace_model(model, step, TRACED_BATCHES, precisions)
    normalised = any(isinstance(m, nn.modules.batchnorm._BatchNorm) and m.training for m in model.modules())
    smallest = 2 if normalised else 1
    return {name: build_envelope(one, two, TRACED_BATCHES, smallest, knots) for name, (one, two) in traces.items()}


def trace_model(
    model: nn.Module, step: Step, batches: Sequence[int], precisions: Sequence[str]
) -> dict[str, list[list[Event]]]:
    """Traces the step of a model at several batch sizes, in several precisions for little more than the time of one.

    The model's tensors lose their data; `precisions` are fp32, bf16 or fp16, whatever `step` says.

    Returns:
        By precision, the births and deaths of storages at each batch size; those of the same storage have the same
        number in all.
    """
    drop_data(model, FORMATS[step.memory_format])
    model.train(step.training)
    tracker = Tracker()
    weights = [*model.parameters(), *model.buffers()]
    tracker.add_storages(weights)
    with warnings.catch_warnings(), tracker:
        warnings.simplefilter("ignore")  # warnings of models are no news here
        average = [torch.empty_like(tensor) for tensor in weights] if step.ema else []
        optimizer = _warm_up_optimizer(model, step) if step.training else None
        before = _keep_lasting(tracker.take_events())
        passes, seen = _trace_passes(model, step, batches, precisions, optimizer, tracker)
        if any(len({_describe_order(part) for part in parts}) > 1 for parts in passes.values()):
            # A first pass left something behind that later ones find: the indices of ConViT, in evaluation the biases
            # of LeViT. The passes are made again, as the steps after the first are.
            before = _keep_lasting([*before, *seen, *_drop_gradients(optimizer, step, tracker)])
            passes, _ = _trace_passes(model, step, batches, precisions, optimizer, tracker)
        first = tracker.born
        if optimizer is not None and step.kernel != "fused":
            optimizer.step()
        after = tracker.take_events()
    del average
    last = [Event(storage - first + _AFTER, change) for storage, change in after if storage >= first]
    return {name: [[*before, *part, *last] for part in parts] for name, parts in passes.items()}


def _trace_passes(
    model: nn.Module,
    step: Step,
    batches: Sequence[int],
    precisions: Sequence[str],
    optimizer: torch.optim.Optimizer | None,
    tracker: Tracker,
) -> tuple[dict[str, list[list[Event]]], list[Event]]:
    """Traces a pass for each precision and batch size; returns them renumbered, and all events as they were logged."""
    passes: dict[str, list[list[Event]]] = {}
    seen: list[Event] = []
    for precision in precisions:
        for batch in batches:
            seen += _drop_gradients(optimizer, step, tracker)
            first = tracker.born
            _run_pass(model, step, batch, DTYPES[precision])
            events = tracker.take_events()
            seen += events
            passes.setdefault(precision, []).append(_renumber_events(events, first))
    return passes, seen


def _drop_gradients(optimizer: torch.optim.Optimizer | None, step: Step, tracker: Tracker) -> list[Event]:
    """Drops the last pass's gradients, unless they are accumulated; returns the events of that."""
    if optimizer is not None and not step.accumulates:
        optimizer.zero_grad(set_to_none=True)
    return tracker.take_events()


_PASS, _AFTER = 10**7, 10**8
"""First numbers of the storages of a pass and of the optimizer's step: the same in every pass."""


def _keep_lasting(events: list[Event]) -> list[Event]:
    """Leaves out storages that died again: what the optimizer's first step needs is seen in a later one."""
    dead = {storage for storage, change in events if change < 0}
    return [event for event in events if event.storage not in dead]


def _describe_order(events: list[Event]) -> tuple[tuple[int, bool], ...]:
    """Returns what the traces of a step at two batch sizes have in common: everything but the sizes."""
    return tuple((storage, change > 0) for storage, change in events)


def _renumber_events(events: list[Event], first: int) -> list[Event]:
    """Numbers the events of a pass independently of what was traced before."""
    return [Event(s if s < first else s - first + _PASS, change) for s, change in events]


def _run_pass(model: nn.Module, step: Step, batch: int, dtype: torch.dtype | None) -> None:
    """Runs one forward pass and, in training, the backward pass."""
    images = torch.empty(batch, 3, step.image_size, step.image_size, device="meta")
    images = images.contiguous(memory_format=FORMATS[step.memory_format])
    with cuda_autocast(dtype) as autocast, cuda_kernels(), torch.device("meta"), torch.set_grad_enabled(step.training):
        with autocast():
            logits = model(images)
            while isinstance(logits, tuple | list):  # a distilled model's first head
                logits = logits[0]
            if step.training:
                loss = F.cross_entropy(logits, torch.empty(len(logits), dtype=torch.long))
        del logits
        if step.training:
            loss.backward()  # type: ignore[no-untyped-call]


def _warm_up_optimizer(model: nn.Module, step: Step) -> torch.optim.Optimizer:
    """Returns the optimizer after one step; the gradients are still there if they are accumulated."""
    from timm.optim import create_optimizer_v2  # type: ignore[attr-defined]

    if step.frozen:
        freeze_backbone(model, True)
    hold_statistics(model)
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


def drop_data(model: nn.Module, memory_format: torch.memory_format = torch.contiguous_format) -> None:
    """Replaces a model's parameters, buffers and other tensors in place by `meta` tensors of the same shapes.

    Tensors that modules share stay shared.
    """
    known: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}  # the original is held, so that its id stays its own

    def drop_tensor(tensor: torch.Tensor) -> torch.Tensor:
        if id(tensor) not in known:
            known[id(tensor)] = (_empty_like(tensor, memory_format), tensor)
        return known[id(tensor)][0]

    def drop_nested(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return drop_tensor(value)
        if type(value) in (list, tuple):
            return type(value)(drop_nested(item) for item in value)
        if type(value) is dict:
            return {name: drop_nested(item) for name, item in value.items()}
        return value

    for module in model.modules():
        for registered in (module._parameters, module._buffers):
            for name, tensor in registered.items():
                if tensor is not None:
                    registered[name] = drop_tensor(tensor)  # type: ignore[assignment]
        for name, value in list(vars(module).items()):
            if not name.startswith("_") and isinstance(value, torch.Tensor | list | tuple | dict):
                vars(module)[name] = drop_nested(value)


def _empty_like(tensor: torch.Tensor, memory_format: torch.memory_format) -> torch.Tensor:
    if tensor.dim() == 4 and memory_format is torch.channels_last:
        data = torch.empty(tensor.shape, dtype=tensor.dtype, device="meta", memory_format=memory_format)
    else:
        data = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="meta")
    return nn.Parameter(data, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else data
