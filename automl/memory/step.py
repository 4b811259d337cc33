"""What a step's memory depends on, and the disk cache of envelopes by it; imports no torch."""

from dataclasses import asdict, dataclass
from functools import cache
from importlib.metadata import version
from typing import Any, Literal

from automl.files import CacheEntry
from automl.memory.envelope import Envelope
from automl.recipe import Recipe
from automl.recipe.learning import Sgd
from automl.recipe.tuning import Head, LinearHead, Pooling, Tune, TuneAll, TuneHead

METHOD = 3
"""Raised whenever the prediction changes, so that older cache files are passed over."""


_ALL, _LINEAR = TuneAll(), LinearHead()


@dataclass(frozen=True)
class Step:
    """What the memory of one training step depends on, but for the batch size.

    Attributes:
        backbone: timm's architecture, without the tag of its weights.
        optimizer: A name of timm's; precision and memory format are named as in recipes.
        momentum: Whether SGD keeps a momentum buffer (true for the others).
        nesterov: Whether SGD's momentum is Nesterov's (false for the others).
        weight_decay: Whether weights decay (SGD and Adam then need a copy of the gradients).
        ema: Whether a moving average of the weights is kept.
        accumulates: Whether gradients of earlier micro-batches are there when the forward pass begins.
        kernel: How the optimizer's step is computed: `fused` needs no memory of its own, `foreach` needs copies of all
            gradients, `loop` of one at a time.
        grad_checkpointing: Whether activations are computed again in the backward pass.
        frozen: Whether the head alone learns.
        tune: How much is trained, `head` what makes the logits, `pooling` what it sees; all as recipes have them.
        training: Whether it is a training step; else a forward pass without gradients.
    """

    backbone: str
    image_size: int
    classes: int
    precision: str = "fp32"
    memory_format: str = "contiguous"
    optimizer: str = "adamw"
    momentum: bool = True
    nesterov: bool = False
    weight_decay: bool = True
    ema: bool = False
    drop_path: bool = False
    accumulates: bool = False
    kernel: Literal["fused", "foreach", "loop"] = "fused"
    grad_checkpointing: bool = False
    frozen: bool = False
    tune: Tune = _ALL
    head: Head = _LINEAR
    pooling: Pooling = "default"
    training: bool = True


def describe_step(recipe: Recipe, classes: int, accumulates: bool) -> Step:
    """Describes a recipe's training step."""
    optimizer = recipe.optimizer
    momentum = not isinstance(optimizer, Sgd) or optimizer.momentum > 0
    return Step(
        backbone=recipe.backbone.partition(".")[0],
        image_size=recipe.image_size,
        classes=classes,
        precision=recipe.numerics.precision,
        memory_format=recipe.numerics.memory_format,
        optimizer=optimizer.name,
        momentum=momentum,
        nesterov=isinstance(optimizer, Sgd) and optimizer.nesterov and momentum,
        weight_decay=recipe.weight_decay > 0,
        ema=recipe.ema_decay > 0,
        drop_path=recipe.drop_path > 0,
        accumulates=accumulates,
        kernel="fused" if optimizer.fused else "foreach",
        grad_checkpointing=recipe.numerics.grad_checkpointing,
        frozen=recipe.freeze_epochs >= recipe.epochs or isinstance(recipe.tune, TuneHead),
        # A frozen backbone's changes of low rank do not learn, and are still there.
        tune=_ALL if isinstance(recipe.tune, TuneHead) else recipe.tune,
        head=recipe.head,
        pooling=recipe.pooling,
    )


def find_cached_envelope(step: Step) -> CacheEntry:
    """Returns where the envelope of a step is kept, under this version of torch, timm and the method."""
    return CacheEntry("memory", {"method": METHOD, **_read_versions(), **list_values(step)})


def list_values(step: Step) -> dict[str, Any]:
    """Lists what a step's memory depends on as plain data, for the key of a cache."""
    return asdict(step) | {"tune": step.tune.model_dump(), "head": step.head.model_dump()}


def load_envelope(step: Step) -> Envelope | None:
    """Reads a step's envelope; None if it is not there, or the file is broken or another step's."""
    return find_cached_envelope(step).load_json(_parse_envelope)


def save_envelope(step: Step, envelope: Envelope) -> None:
    """Writes a step's envelope; a cache that cannot be written is no error."""
    cached = find_cached_envelope(step)
    cached.save_json({"key": cached.key, **asdict(envelope)})


@cache
def _read_versions() -> dict[str, str]:
    return {name: version(name) for name in ("torch", "timm")}


def _parse_envelope(content: dict[str, Any]) -> Envelope:
    lines, needed = (tuple((int(x), int(y)) for x, y in content[name]) for name in ("lines", "needed"))
    if not lines or not needed or "key" not in content:
        raise ValueError("an envelope has lines and what is needed at some batch sizes")
    return Envelope(lines, needed, int(content["smallest_batch"]))
