"""Whether timm's families train: the smallest architecture of each of its model files, on the CPU, with real tensors.

    python studies/leaderboard/learning.py [--jobs N] [--only NAME …] [--out FILE]

Each is trained for six steps by `automl.training.fit` on pictures of two colours, and then asked: does the loss fall,
does every weight move, does a frozen backbone stay as it is, does the layer decay order the learning rates, does the
model folder give the same probabilities, does bf16 agree with fp32, do ONNX and torch.export agree with PyTorch, and is
the predicted memory of this very step what it takes. No weights are downloaded.

A line of CSV is written per architecture, a `no` with its reason; a run goes on where the last one was (a line that is
deleted is made again). Each has a process of its own, so that a crash or a hang is a line as well.

The prediction of memory is one for CUDA. What differs from it on a CPU and is known in advance is the kernel of the
attention: the step is traced with the CPU's, and `predicted_cuda` is what is predicted for CUDA.
"""

import argparse
import contextlib
import copy
import csv
import gc
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves

from automl.backbones.heads import find_logit_layers, freeze_backbone, head_modules
from automl.backbones.input import read_preprocessing
from automl.backbones.weights import make_model
from automl.memory import trace
from automl.memory.step import describe_step
from automl.recipe import Recipe
from automl.recipe.learning import StepLR
from automl.training.evaluation import Normalize
from automl.training.fit import fit
from automl.training.optimizer import make_optimizer
from automl.training.precision import autocast

CLASSES, STEPS, FROZEN_STEPS = 2, 6, 3
SIZES = (64, 96)
RATES = (1e-3, 1e-4)
"""Learning rates that are tried: one that does not learn with the first may need a smaller one."""
LAYER_DECAY = 0.75
UNUSED, SMALL, ZERO = "unused", "gradient too small for six steps", "gradient zero"
NO_EFFECT = "without effect"
"""Why a parameter has not moved."""
NO_GRADIENT = 1e-20
"""In float64; what is less comes from rounding."""
BF16_BOUND, BF16_FACTOR = 0.05, 4
"""Largest difference in a probability between bf16 and fp32; or, where that is more, this many times what it makes to
round the weights alone. A narrow network without trained weights may turn the last bit of one into a tenth."""
MEMORY_BOUND = 0.02
LEAST_SPREAD = 0.01
"""Between the probabilities of two images; below it, that a file gives the same ones says nothing."""
CHECK_SECONDS, SECONDS = 240, 600
"""Limits of one export and of one architecture."""
CHECKS = ("learns", "moves", "frozen", "layer_decay", "saves", "bf16", "torch", "memory", "onnx")


@dataclass(frozen=True)
class Row:
    """One architecture. The checks are `yes`, `no` or, where they were not reached, empty; memory is in bytes."""

    backbone: str
    family: str = ""
    params_m: float = 0.0
    image_size: int = 0
    batch: int = 0
    learns: str = ""
    learning_rate: float = 0.0
    first_loss: float = 0.0
    last_loss: float = 0.0
    moves: str = ""
    unmoved: int = 0
    moves_size: int = 0
    frozen: str = ""
    layer_decay: str = ""
    rates: int = 0
    saves: str = ""
    bf16: str = ""
    bf16_difference: float = 0.0
    bf16_weights: float = 0.0
    torch: str = ""
    torch_difference: float = 0.0
    onnx: str = ""
    onnx_difference: float = 0.0
    spread: float = 0.0
    memory: str = ""
    predicted: int = 0
    measured: int = 0
    activations: int = 0
    predicted_cuda: int = 0
    seconds: float = 0.0
    torch_version: str = ""
    timm_version: str = ""
    why: str = ""

    @property
    def memory_error(self) -> float:
        """How much more was predicted than measured, as a share of what was measured."""
        return self.predicted / self.measured - 1 if self.measured else math.nan


@dataclass(frozen=True)
class Found:
    """What a check found: whether all is well, its figures by the names of `Row`, and why it is not well."""

    ok: bool
    figures: dict[str, float]
    why: str = ""


# --- what is trained ----------------------------------------------------------------------------------------------


def smallest_architectures() -> list[str]:
    """Of each of timm's model files, the leaderboard's architecture with the fewest parameters, by name of the file.

    timm's `test_*` are made for tests of timm, and are passed over; the tests of this script train them.
    """
    from automl.backbones.table import load_table

    table = load_table()
    table = table[~table["model"].str.startswith("test_")].sort_values(["family", "params_m", "model"])
    return list(table.groupby("family", sort=True)["model"].first())


def image_size_for(backbone: str) -> int:
    """The smaller of 64 and 96 px at which an architecture runs, or else the size of its weights."""
    from automl.backbones.capabilities import find_capabilities

    found = find_capabilities(backbone, SIZES)
    return min((size for size in SIZES if size in found.runs), default=found.weights_size)


def own_size(backbone: str) -> int:
    """The image size of an architecture's weights."""
    from automl.backbones.capabilities import find_capabilities

    return find_capabilities(backbone, SIZES).weights_size


def recipe_for(backbone: str, image_size: int, **values: Any) -> Recipe:
    """Six steps of AdamW at a constant rate; without weight decay, which would move weights that learn nothing."""
    fixed: dict[str, Any] = {"pretrained": False, "epochs": 1, "learning_rate": RATES[0], "weight_decay": 0}
    fixed["batch_size"] = 8 if image_size <= max(SIZES) else 4
    fixed["schedule"] = StepLR(warmup=0, every=1)
    return Recipe(backbone=backbone, image_size=image_size, **(fixed | values))


class Toy:
    """The same batch of pictures of two colours at each step; a `training.fit.Data`.

    To a frozen backbone it shows three of one colour to one of the other: with as many of both, and features that
    differ little without trained weights, the gradient of the head's bias may be exactly zero.
    """

    classes, positive = CLASSES, 1

    def __init__(self, recipe: Recipe, steps: int = STEPS) -> None:
        generator = torch.Generator().manual_seed(0)
        shape = (recipe.batch_size, 3, recipe.image_size, recipe.image_size)
        colours = torch.tensor([[170, 110, 80], [80, 110, 170]])
        self.targets = torch.arange(recipe.batch_size) % CLASSES
        if recipe.freeze_epochs:
            self.targets = (torch.arange(recipe.batch_size) % 4 > 0).long()
        noise = torch.randint(-60, 61, shape, generator=generator)
        self.images = (colours[self.targets].view(-1, 3, 1, 1) + noise).to(torch.uint8)
        self._steps = steps

    def labels(self, split: str) -> "np.ndarray[Any, Any]":  # noqa: ARG002, D102
        return self.targets.numpy()

    def counts(self, split: str) -> "np.ndarray[Any, Any]":  # noqa: D102
        return np.ones_like(self.labels(split))

    def channel_statistics(self) -> tuple[tuple[float, float, float], tuple[float, float, float]]:  # noqa: D102
        return (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)

    def batch_size(self, recipe: Recipe) -> int:  # noqa: D102
        return recipe.batch_size

    def steps_per_epoch(self, recipe: Recipe) -> int:  # noqa: ARG002, D102
        return self._steps

    def train_batches(  # noqa: D102
        self,
        recipe: Recipe,  # noqa: ARG002
        interpolation: str,  # noqa: ARG002
        first: int,
        last: int,
        share: slice = slice(None),
    ) -> Iterable[tuple[Tensor, Tensor]]:
        return ((self.images[share], self.targets[share]) for _ in range(first, last))

    def evaluation_batches(self, *_: Any) -> Iterable[tuple[Tensor, Tensor]]:  # noqa: D102
        raise NotImplementedError("nothing is evaluated")


@dataclass
class Trained:
    """A network after its steps."""

    recipe: Recipe
    data: Toy
    start: dict[str, Tensor]
    """Its state before the first of them."""
    model: nn.Module
    losses: list[float]

    def inputs(self) -> Tensor:
        """The pictures as the network sees them, and as many of noise."""
        generator = torch.Generator().manual_seed(1)
        noise = torch.randint(0, 256, self.data.images.shape, generator=generator, dtype=torch.uint8)
        normalize = Normalize(read_preprocessing(self.model), self.recipe.numerics, torch.device("cpu"))
        return normalize(torch.cat([self.data.images, noise]))


def train(recipe: Recipe, steps: int = STEPS) -> Trained:
    """Trains by `fit`, which draws the same first weights as are noted here."""
    data, losses = Toy(recipe, steps), list[float]()
    torch.manual_seed(recipe.seed)
    start = {name: tensor.clone() for name, tensor in make_model(recipe, CLASSES).state_dict().items()}
    found = fit(recipe, data, evaluate=None, on_snapshot=lambda snapshot: losses.append(snapshot.train_loss))
    return Trained(recipe, data, start, found.model, losses)


# --- the checks of a training -------------------------------------------------------------------------------------


def learns(recipe: Recipe) -> tuple[Trained, Found]:
    """Trains with the first of `RATES` with which the loss falls, or the last."""
    tried = []
    for rate in RATES:
        trained = train(recipe.model_copy(update={"learning_rate": rate}))
        found = loss_falls(trained)
        if found.ok:
            break
        tried.append(found.why)
    return trained, Found(found.ok, found.figures, "; ".join(tried))


def loss_falls(trained: Trained) -> Found:
    """Whether the mean loss of the last two steps is below the first, which is log(2), and finite."""
    losses = trained.losses
    last = (losses[-2] + losses[-1]) / 2
    figures = {"first_loss": losses[0], "last_loss": last, "learning_rate": trained.recipe.learning_rate}
    ok = len(losses) == STEPS and all(map(math.isfinite, losses)) and last < min(losses[0], math.log(CLASSES))
    told = " ".join(f"{loss:.3g}" for loss in losses)
    return Found(ok, figures, "" if ok else f"at {trained.recipe.learning_rate:g} the losses are {told}")


def moves(trained: Trained) -> Found:
    """Whether every parameter that learns has moved, at the size trained at or at that of the weights.

    Where the last stage of a small image is one place, its attention is 1 whatever the position biases are.
    """
    found, size = all_move(trained), trained.recipe.image_size
    own = own_size(trained.recipe.backbone)
    if (ZERO not in found.why and NO_EFFECT not in found.why) or own <= size:
        return Found(found.ok, found.figures | {"moves_size": size if found.ok else 0}, found.why)
    larger = all_move(train(recipe_for(trained.recipe.backbone, own)))
    why = f"at {size} px {found.why}; at {own} px {larger.why or 'all move'}"
    return Found(larger.ok, found.figures | {"moves_size": own if larger.ok else 0}, why)


def all_move(trained: Trained) -> Found:
    """Whether every parameter that learns has moved, but for those that had a reason not to.

    Adam's step is lost where the gradient is far below its epsilon of 1e-8, as behind a layer scale of 1e-6. Whether
    there is one at all is asked in float64, in which rounding makes next to none of nothing. Where there is none, all
    such parameters are changed at once: what moves no output then has no effect (a bias before a softmax or a norm),
    while a network that is dead, as one whose head's layers all start from zero, comes to life.
    """
    still = [name for name, moved in _moved(trained).items() if not moved]
    if not still:
        return Found(True, {"unmoved": 0})
    model = copy.deepcopy(trained.model).double().train()
    images = trained.inputs()[: len(trained.data.targets)].double()
    model.zero_grad(set_to_none=True)
    F.cross_entropy(model(images), trained.data.targets).backward()
    parameters, kinds = dict(model.named_parameters()), dict[str, list[str]]()
    for name in still:
        gradient = parameters[name].grad
        largest = 0.0 if gradient is None else float(gradient.abs().max())
        kind = UNUSED if gradient is None else SMALL if largest > NO_GRADIENT else ZERO
        kinds.setdefault(kind, []).append(name)
    if ZERO in kinds and _have_no_effect(model, images, [parameters[name] for name in kinds[ZERO]]):
        kinds[NO_EFFECT] = kinds.pop(ZERO)
    told = "; ".join(f"{kind}: {_some(names)}" for kind, names in kinds.items())
    return Found(kinds.keys() <= {SMALL, NO_EFFECT}, {"unmoved": len(still)}, told)


def _have_no_effect(model: nn.Module, images: Tensor, parameters: Iterable[Tensor]) -> bool:
    """Whether the outputs stay what they are when all these parameters are others."""
    with torch.no_grad():
        torch.manual_seed(0)
        before = model(images)
        for parameter in parameters:
            parameter.add_(torch.randn_like(parameter))
        torch.manual_seed(0)
        return bool((model(images) - before).abs().max() <= 1e-9 * before.abs().max())


def frozen(recipe: Recipe) -> Found:
    """Whether only the head learns while the backbone is frozen, and everything that learnt before afterwards."""
    found = stays(train(recipe.model_copy(update={"freeze_epochs": recipe.epochs}), FROZEN_STEPS))
    if not found.ok:
        return found
    model = make_model(recipe, CLASSES)
    before = _learning(model)
    freeze_backbone(model, True)
    during = _learning(model)
    freeze_backbone(model, False)
    ok = during < before == _learning(model)
    return Found(ok, {}, "" if ok else "thawing does not give back what learnt before")


def stays(trained: Trained) -> Found:
    """Whether all of the head has moved, and nothing else: no weight and no statistic."""
    moved = _moved(trained, everything=True)
    head = {id(parameter) for module in head_modules(trained.model) for parameter in module.parameters()}
    wanted = {name for name, parameter in trained.model.named_parameters() if id(parameter) in head}
    of_head = {id(part) for module in head_modules(trained.model) for part in module.buffers()}
    free = {name for name, buffer in trained.model.named_buffers() if id(buffer) in of_head}
    wrong = sorted(name for name, did in moved.items() if did != (name in wanted) and name not in free)
    return Found(
        bool(wanted) and not wrong, {}, f"moved or not against what is wanted: {_some(wrong)}" if wrong else ""
    )


def layer_decay(recipe: Recipe) -> Found:
    """Whether layer decay makes several learning rates, the head's the largest, and no parameter is left out."""
    model = make_model(recipe, CLASSES)
    return ordered(model, make_optimizer(recipe.model_copy(update={"layer_decay": LAYER_DECAY}), model))


def ordered(model: nn.Module, optimizer: torch.optim.Optimizer) -> Found:
    """Whether an optimizer's learning rates are several, and the head's the largest."""
    scales = {id(p): group["lr_scale"] for group in optimizer.param_groups for p in group["params"]}
    count = sum(len(group["params"]) for group in optimizer.param_groups)
    head = {id(p) for module in head_modules(model) for p in module.parameters()}
    heads = {scales.get(i) for i in head}
    figures = {"rates": len(set(scales.values()))}
    if count != len(scales) or scales.keys() != {id(p) for p in model.parameters() if p.requires_grad}:
        return Found(False, figures, "the groups do not hold each parameter once")
    if len(set(scales.values())) < 2:
        return Found(False, figures, "all layers have the same rate")
    if heads != {max(scales.values())}:
        return Found(False, figures, f"the head's rates are {sorted(heads)} of up to {max(scales.values()):.3g}")
    return Found(True, figures)


def _learning(model: nn.Module) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def _moved(trained: Trained, *, everything: bool = False) -> dict[str, bool]:
    """Whether each parameter that learns (or each tensor of the state) is another than before."""
    now = trained.model.state_dict()
    names = [*now] if everything else [name for name in now if name in _learning(trained.model)]
    return {name: not torch.equal(now[name], trained.start[name]) for name in names}


# --- the checks of a trained network ------------------------------------------------------------------------------


def settle(trained: Trained) -> float:
    """Makes the network what a longer training would: BatchNorm knows its statistics, and no probability is 0 or 1.

    After six steps the running statistics are still half the initial ones, and probabilities of 0 and 1 would agree
    however wrong the logits are.

    Returns:
        The largest difference between two images' probabilities: where it is 0, nothing can be told.
    """
    model, images = trained.model, trained.inputs()
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]
    momenta = [norm.momentum for norm in norms]
    with torch.no_grad():
        if norms:
            for norm in norms:
                norm.reset_running_stats()
                norm.momentum = None  # the mean of all batches
            model.train()
            model(images)
            for norm, momentum in zip(norms, momenta, strict=True):
                norm.momentum = momentum
        logits = model.eval()(images)
        largest = float((logits[:, 1] - logits[:, 0]).abs().max())
        if math.isfinite(largest) and largest > 0:
            for layer in (layer for head in head_modules(model) for layer in find_logit_layers(head, CLASSES)):
                layer.weight.mul_(2 / largest)
                if layer.bias is not None:
                    layer.bias.mul_(2 / largest)
        found = _probabilities(model, images)[:, 1]
    return float(found.max() - found.min())


def write_folder(trained: Trained, path: Path) -> Any:
    """Writes the model folder that `automl train` would."""
    from automl.backbones.input import InputSpec
    from automl.models.folder import Labels, write_model

    own, size = read_preprocessing(trained.model), trained.recipe.image_size
    inputs = InputSpec(size, size, own.mean, own.std, own.interpolation)
    labels = Labels(("first", "second"), 1, (0.5, 0.5))
    return write_model(path, trained.model, trained.recipe, inputs, labels, {}, "")


def saves(trained: Trained, folder: Any) -> Found:
    """Whether the model folder gives the very same probabilities."""
    images = trained.inputs()
    difference = float((_probabilities(folder.load(), images) - _probabilities(trained.model, images)).abs().max())
    return Found(difference == 0, {}, "" if difference == 0 else f"probabilities differ by {difference:.2g}")


def bf16(trained: Trained) -> Found:
    """Whether bf16 gives the probabilities of fp32, as far as `BF16_BOUND` and `BF16_FACTOR` want it."""
    model, images = trained.model, trained.inputs()
    exact = _probabilities(model, images)
    difference = float((_probabilities(model, images, "bf16") - exact).abs().max())
    rounded = float((_probabilities(_with_bf16_weights(model), images) - exact).abs().max())
    ok = difference <= max(BF16_BOUND, BF16_FACTOR * rounded)
    why = "" if ok else f"probabilities differ by {difference:.2g}, and by {rounded:.2g} with weights that are rounded"
    return Found(ok, {"bf16_difference": difference, "bf16_weights": rounded}, why)


def _with_bf16_weights(model: nn.Module) -> nn.Module:
    """A copy whose matrices and kernels, which autocast casts, are rounded; computed in fp32."""
    rounded = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in rounded.parameters():
            if parameter.dim() > 1:
                parameter.copy_(parameter.bfloat16())
    return rounded


def exports(folder: Any, kind: str) -> Found:
    """Whether a graph, `onnx` or `torch`, gives the network's probabilities (`automl.exporters.graph.TOLERANCE`)."""
    from automl.exporters.graph import export_onnx, export_torch

    write = {"onnx": export_onnx, "torch": export_torch}[kind]
    with time_limit(CHECK_SECONDS):
        return Found(True, {f"{kind}_difference": write(folder, folder.path / f"graph.{kind}").difference})


def _probabilities(model: nn.Module, images: Tensor, precision: str = "fp32") -> Tensor:
    model.eval()
    with torch.no_grad(), autocast(torch.device("cpu"), precision):
        return torch.softmax(model(images).float(), 1)


# --- memory -------------------------------------------------------------------------------------------------------


class Live(TorchDispatchMode):
    """Counts the live bytes of the storages that operators make while it is active, until they die."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = self.peak = 0
        self._known: dict[int, weakref.ref[torch.UntypedStorage]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Computes, and counts what is new."""
        given = {tensor.untyped_storage()._cdata for tensor in _tensors((args, kwargs or {}))}
        result = func(*args, **(kwargs or {}))
        for tensor in _tensors(result):
            storage = tensor.untyped_storage()
            if storage._cdata not in given and storage._cdata not in self._known:
                self._count(storage._cdata, storage)
        return result

    def _count(self, key: int, storage: torch.UntypedStorage) -> None:
        size = storage.nbytes()

        def dies(_: object) -> None:
            del self._known[key]
            self.bytes -= size

        self._known[key] = weakref.ref(storage, dies)
        self.bytes += size
        self.peak = max(self.peak, self.bytes)


def _tensors(values: Any) -> Iterator[Tensor]:
    return (leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor) and leaf.device.type == "cpu")


def memory(recipe: Recipe) -> Found:
    """Whether the predicted peak of live tensors, with the CPU's attention, is the measured one."""
    step, batch = describe_step(recipe, CLASSES, accumulates=False), recipe.batch_size
    for_cuda = trace.trace_envelope(step).live_bytes(batch)
    with mock.patch.object(trace, "cuda_kernels", cpu_kernels):
        predicted = trace.trace_envelope(step)
    activations = max((a + k * batch, k * batch) for a, k in predicted.lines)[1]
    found, why = agrees(predicted.live_bytes(batch), measured_peak(recipe)), ""
    if not found.ok:  # recurrent layers are unrolled in the trace, and one kernel of oneDNN
        with torch.backends.mkldnn.flags(enabled=False):
            unrolled = agrees(predicted.live_bytes(batch), measured_peak(recipe))
        why = f"; without oneDNN {unrolled.why or f'within {MEMORY_BOUND:.0%}'}"
    figures = found.figures | {"activations": activations, "predicted_cuda": for_cuda}
    return Found(found.ok, figures, found.why + why)


def agrees(predicted: int, measured: int) -> Found:
    """Whether a prediction is within `MEMORY_BOUND`."""
    error = predicted / measured - 1
    ok = abs(error) <= MEMORY_BOUND
    return Found(ok, {"predicted": predicted, "measured": measured}, "" if ok else f"predicted {error:+.1%}")


def measured_peak(recipe: Recipe) -> int:
    """The CPU's own peak of live tensors in a step of `fit`, once the optimizer has its state."""
    data = Toy(recipe, 2)
    gc.collect()
    with Live() as live:

        def on_step(step: int, _: int) -> None:
            if step == 1:
                live.peak = live.bytes

        fit(recipe, data, evaluate=None, on_step=on_step)
    return live.peak


@contextlib.contextmanager
def cpu_kernels() -> Iterator[None]:
    """In place of `automl.memory.cuda_attention.cuda_kernels`: attention as a CPU dispatches it."""
    with mock.patch.object(F, "scaled_dot_product_attention", cpu_attention):
        yield


def cpu_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """`F.scaled_dot_product_attention` for tensors without data, with the kernel that the CPU chooses for such."""

    def real(tensor: Tensor | None) -> Tensor | None:
        if tensor is None:
            return None
        empty = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="cpu")
        return empty.requires_grad_(tensor.requires_grad)

    with _disable_current_modes():
        asked = [real(tensor) for tensor in (query, key, value, attn_mask)]
        choice = torch._fused_sdp_choice(*asked, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa)
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        attn_mask = torch.zeros_like(attn_mask, dtype=query.dtype).masked_fill(~attn_mask, float("-inf"))
    if choice == torch.nn.attention.SDPBackend.FLASH_ATTENTION.value:
        flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
        return flash(query, key, value, dropout_p, is_causal, attn_mask=attn_mask, scale=scale)[0]
    plain = torch.ops.aten._scaled_dot_product_attention_math
    more = {"scale": scale, "enable_gqa": enable_gqa}
    return plain(query, key, value, attn_mask, dropout_p, is_causal, None, **more)[0]


# --- one architecture ---------------------------------------------------------------------------------------------


def check(backbone: str, told: Callable[[dict[str, Any]], None] = lambda _: None) -> Row:
    """Makes all checks of an architecture, in this process.

    Args:
        backbone: A timm name.
        told: Is handed the cells of the row as they become known.
    """
    cells: dict[str, Any] = {"backbone": backbone}
    began, whys = time.monotonic(), list[str]()

    def note(**more: Any) -> None:
        cells.update(more)
        told(more)

    def tried(name: str, function: Callable[[], Found]) -> None:
        note(stage=name)
        try:
            found = function()
        except Exception as exc:  # a model's code may raise anything, and each check is made
            found = Found(False, {}, _line(exc))
        if found.why:
            whys.append(f"{name}: {found.why}")
        rounded = {
            key: float(f"{value:.4g}") if isinstance(value, float) else value for key, value in found.figures.items()
        }
        note(**{name: "yes" if found.ok else "no"}, **rounded, why=" | ".join(whys))

    note(**_facts(backbone))
    recipe = recipe_for(backbone, image_size_for(backbone))
    note(image_size=recipe.image_size, batch=recipe.batch_size)
    trained: Trained | None = None

    def first() -> Found:
        nonlocal trained
        trained, found = learns(recipe)
        return found

    tried("learns", first)
    if trained is not None:
        tried("moves", lambda: moves(trained))
        tried("frozen", lambda: frozen(recipe))
        tried("layer_decay", lambda: layer_decay(recipe))
        spread = settle(trained)
        note(spread=float(f"{spread:.4g}"))
        if not spread > LEAST_SPREAD:
            whys.append(f"spread: probabilities differ by {spread:.2g} between images, which compares nothing")
        with tempfile.TemporaryDirectory() as place:
            folder = write_folder(trained, Path(place) / "model")
            tried("saves", lambda: saves(trained, folder))
            tried("bf16", lambda: bf16(trained))
            trained = None
            tried("torch", lambda: exports(folder, "torch"))
            tried("memory", lambda: memory(recipe))
            tried("onnx", lambda: exports(folder, "onnx"))
    note(seconds=round(time.monotonic() - began, 1))
    del cells["stage"]
    return Row(**cells)


def _facts(backbone: str) -> dict[str, Any]:
    from automl.backbones.table import load_table

    table = load_table()
    rows = table[(table["model"] == backbone) | (table["model"].str.partition(".")[0] == backbone)]
    known = {} if rows.empty else {"family": rows["family"].iloc[0], "params_m": float(rows["params_m"].iloc[0])}
    return {**known, "torch_version": version("torch"), "timm_version": version("timm")}


def _line(exc: BaseException) -> str:
    """An error on one line: what it was at the beginning, because exporters wrap it in advice."""
    while exc.__cause__ is not None:
        exc = exc.__cause__
    lines = str(exc).strip().splitlines()
    return f"{type(exc).__name__}: {lines[0] if lines else ''}"[:300]


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raises TimeoutError in the main thread of the process when the time is over."""

    def ring(*_: Any) -> None:
        raise TimeoutError(f"not done within {seconds:g} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


# --- all of them --------------------------------------------------------------------------------------------------


def check_apart(backbone: str, seconds: float = SECONDS) -> Row:
    """Makes the checks in a process of its own; a crash or a hang keeps what was found before."""
    command = [sys.executable, __file__, "--child", backbone]
    environment = os.environ | {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
    began = time.monotonic()
    with tempfile.TemporaryFile("w+") as said, tempfile.TemporaryFile("w+") as errors:
        try:
            code = subprocess.run(command, stdout=said, stderr=errors, env=environment, timeout=seconds).returncode
            trouble = f"the process ended with {code}" if code else ""
        except subprocess.TimeoutExpired:
            trouble = f"not done within {seconds:g} s"
        said.seek(0)
        errors.seek(0)
        cells: dict[str, Any] = {"backbone": backbone}
        for line in said:
            with contextlib.suppress(ValueError):
                cells.update(json.loads(line))
        last = next(reversed(errors.read().strip().splitlines()), "")
    stage = cells.pop("stage", "the start")
    if trouble:
        told = f"{stage}: {trouble}" + (f" ({last[:200]})" if last and "ended" in trouble else "")
        cells |= {"why": " | ".join(filter(None, [cells.get("why", ""), told]))}
        cells |= {"seconds": round(time.monotonic() - began, 1)}
        if stage in CHECKS:
            cells.setdefault(stage, "no")
    return Row(**cells)


def read_rows(path: Path) -> list[Row]:
    """Reads what was found before; nothing, if there is no file."""
    if not path.exists():
        return []
    types: dict[str, Any] = {field.name: field.type for field in fields(Row)}
    with path.open(encoding="utf-8", newline="") as file:
        return [Row(**{name: types[name](value) for name, value in line.items()}) for line in csv.DictReader(file)]


def append(path: Path, row: Row) -> None:
    """Adds a row to a file, with the header if it is new."""
    new = not path.exists()
    with path.open("a", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Row)], lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerow(asdict(row))


def summary(rows: Sequence[Row]) -> list[str]:
    """Lines: how many architectures pass each check, and why those do not that do not."""
    lines = [f"{len(rows)} architectures"]
    for name in CHECKS:
        answers = [getattr(row, name) for row in rows]
        rest = len(answers) - answers.count("yes") - answers.count("no")
        lines.append(
            f"  {name:<12} {answers.count('yes'):>3} yes {answers.count('no'):>3} no"
            + f" {rest:>3} not reached" * bool(rest)
        )
    return lines + [f"  {row.backbone}: {row.why}" for row in rows if row.why]


def main(arguments: Sequence[str] | None = None) -> None:
    """Checks what was not checked yet, and summarises."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=1, help="processes at once")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these backbones instead")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("learning.csv"))
    parser.add_argument("--child", metavar="NAME", help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.child:
        answer = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)  # what models and libraries print is no answer
        check(given.child, lambda cells: print(json.dumps(cells), file=answer, flush=True))
        return
    done = {row.backbone for row in read_rows(given.out)}
    wanted = [name for name in given.only or smallest_architectures() if name not in done]
    with ThreadPoolExecutor(given.jobs) as pool:
        for done_one in as_completed([pool.submit(check_apart, name) for name in wanted]):
            row = done_one.result()
            append(given.out, row)
            answers = " ".join(f"{name} {getattr(row, name) or '-'}" for name in CHECKS)
            print(f"{row.backbone} {row.image_size} px, {row.seconds:.0f} s: {answers}; {row.why}", flush=True)
    print("\n".join(summary(read_rows(given.out))))


if __name__ == "__main__":
    main()
