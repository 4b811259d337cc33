"""The memory that a recipe needs on a CUDA device."""

from automl.memory.cache import load_envelope, save_envelope, step_of
from automl.memory.envelope import Envelope
from automl.recipe import Recipe

__all__ = ["CONTEXT_BYTES", "envelope_of", "estimate", "largest_micro_batch"]

CONTEXT_BYTES = 2200 * 2**20
"""What a process takes on the device beside PyTorch's allocator: CUDA context, library kernels, cuDNN's workspace.

From timm's record of which batch sizes fitted an RTX 3090: about 2,200 MiB of its nominal 24 GiB could not be used by
the allocator (torch 1.12, CUDA 11.3, cuDNN's benchmark mode on). Newer CUDA loads kernels lazily and needs less.
"""


def envelope_of(recipe: Recipe, classes: int, *, accumulates: bool = False) -> Envelope:
    """The memory of a recipe's training step by micro-batch, without `CONTEXT_BYTES`; from the cache if it is there.

    Args:
        recipe: What is trained.
        classes: Outputs of the head.
        accumulates: Whether gradients are accumulated over several micro-batches.

    Raises:
        RecipeError: If timm has no such backbone, or cannot build or train it at this image size.
    """
    step = step_of(recipe, classes, accumulates)
    envelope = load_envelope(step)
    if envelope is None:
        from automl.memory.trace import trace_envelope  # imports torch

        envelope = trace_envelope(step)
        save_envelope(step, envelope)
    return envelope


def estimate(recipe: Recipe, classes: int, *, batch_size: int | None = None) -> int:
    """Predicts the peak memory of one training step on a CUDA device, the CUDA context included.

    Counted are weights, gradients, the optimizer's state, the moving average, activations, and what fragmentation adds
    to them in PyTorch's caching allocator. `nvidia-smi` may show up to a fifth more where there is more: the allocator
    keeps what it does not use until memory is short.

    Args:
        recipe: What is trained.
        classes: Outputs of the head.
        batch_size: Images per micro-batch, in place of the recipe's own (or, if it has none, its batch size).
            Below the recipe's batch size gradients are accumulated.

    Returns:
        Bytes.

    Raises:
        RecipeError: If timm has no such backbone, or cannot build or train it at this image size.
    """
    batch = batch_size or recipe.numerics.micro_batch_size or recipe.batch_size
    return CONTEXT_BYTES + envelope_of(recipe, classes, accumulates=batch < recipe.batch_size).at(batch)


def largest_micro_batch(recipe: Recipe, classes: int, limit_bytes: int) -> int:
    """The most images per micro-batch whose training step is predicted to fit a budget.

    Args:
        recipe: What is trained.
        classes: Outputs of the head.
        limit_bytes: The budget, the CUDA context included.

    Returns:
        A divisor of the recipe's batch size, so that every micro-batch of a step has the same weight; 0 if not even
        one image fits (two, for a backbone with batch normalisation).

    Raises:
        RecipeError: If timm has no such backbone, or cannot build or train it at this image size.
    """
    whole = recipe.batch_size
    smallest = envelope_of(recipe, classes).smallest_batch
    for batch in range(whole, smallest - 1, -1):
        if whole % batch == 0 and estimate(recipe, classes, batch_size=batch) <= limit_bytes:
            return batch
    return 0
