"""The peak memory of a trial's training step, predicted without tracing anything: a page is made in seconds."""

from functools import lru_cache

from automl.memory.envelope import Envelope
from automl.memory.estimate import CONTEXT_BYTES
from automl.memory.step import Step, describe_step, load_envelope
from automl.memory.table import Kind, find_nearest
from automl.recipe import Recipe
from automl.study.pool import PoolEntry

_PART_KINDS: dict[str, Kind] = {"head": "frozen", "norms": "norms"}
_BYTES_PER_PIXEL = 3 * 4
"""Of an image that waits for its micro-batch, in float32."""


def predict_peak(recipe: Recipe, entry: PoolEntry | None, classes: int) -> int | None:
    """Predicts the peak bytes of a training step on a GPU, the CUDA context included.

    From the trace of this very step, where an earlier run kept one; else from the shipped table at the nearest image
    size. Where the backbone was measured on the study's GPU, the prediction is corrected by that.

    Returns:
        Bytes; None where neither knows the backbone.
    """
    micro = recipe.numerics.micro_batch_size or recipe.batch_size
    waiting = max(0, recipe.batch_size - micro)
    envelope = _load(describe_step(recipe, classes, accumulates=waiting > 0))
    tensors = envelope.needed_bytes(micro) if envelope is not None else _look_up(recipe, micro)
    if tensors is None:
        return None
    factor, context = (
        (1.0, CONTEXT_BYTES) if entry is None else (entry.memory.memory_factor, entry.memory.context_bytes)
    )
    return context + int(factor * (tensors + waiting * _BYTES_PER_PIXEL * recipe.image_size**2))


@lru_cache(maxsize=4096)
def _load(step: Step) -> Envelope | None:
    """Reads the trace of a step, once."""
    return load_envelope(step)


def _look_up(recipe: Recipe, micro: int) -> int | None:
    """Looks a step up in the shipped table."""
    row = find_nearest(recipe.backbone.partition(".")[0], recipe.image_size)
    if row is None:
        return None
    whole: Kind = "fp32" if recipe.numerics.precision == "fp32" else "fp16"
    part = _PART_KINDS.get(recipe.tune.name)
    return row.needed_bytes_at(part if part in row.mib else whole, micro, recipe.image_size)
