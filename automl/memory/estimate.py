"""The memory that a recipe needs on a CUDA device."""

from automl.memory.envelope import Envelope
from automl.memory.step import describe_step, load_envelope, save_envelope
from automl.recipe import Recipe

CONTEXT_BYTES = 2200 * 2**20
"""What a process takes on the device beside its tensors: CUDA context, library kernels, workspaces of libraries.

From timm's record of which batch sizes fitted an RTX 3090: about 2,200 MiB of its nominal 24 GiB could not be used for
tensors (torch 1.12, CUDA 11.3, cuDNN's benchmark mode on). Newer CUDA loads kernels lazily and needs less: 758 MiB were
measured on an H200 (torch 2.11, CUDA 13.0), beside which cuBLAS keeps 64.
"""

BARE_CONTEXT_BYTES = CONTEXT_BYTES - 2 * 32 * 2**20
"""Of `CONTEXT_BYTES`, what is beside PyTorch's allocator too: all but the workspaces of cuBLAS.

PyTorch takes these from its own allocator, one for each thread that multiplies, forward and backward, and keeps them:
32 MiB each on Hopper and Blackwell, 8.1 MiB on others (`ATen/cuda/CublasHandlePool.cpp`; `CUBLAS_WORKSPACE_CONFIG`).
"""


def predict_envelope(recipe: Recipe, classes: int, *, accumulates: bool = False) -> Envelope:
    """Predicts the memory of a training step by micro-batch, without `CONTEXT_BYTES`, or reads it from the cache.

    `accumulates`: whether gradients are accumulated over several micro-batches.

    Raises:
        RecipeError: If timm has no such backbone, or cannot build or train it at this image size.
    """
    step = describe_step(recipe, classes, accumulates)
    envelope = load_envelope(step)
    if envelope is None:
        from automl.memory.trace import trace_envelope  # imports torch

        envelope = trace_envelope(step)
        save_envelope(step, envelope)
    return envelope


def estimate_training(
    recipe: Recipe, classes: int, *, batch_size: int | None = None, context_bytes: int = CONTEXT_BYTES
) -> int:
    """Predicts the peak memory of one training step on a CUDA device in bytes, the CUDA context included.

    Counted are weights, gradients, the optimizer's state, the moving average, activations, the images of the whole
    batch, and what fragmentation adds to them in PyTorch's caching allocator. `nvidia-smi` may show up to a fifth more
    where there is more: the allocator keeps what it does not use until memory is short.

    Args:
        recipe: A backbone that is frozen to the end (`freeze_epochs`) keeps no activations.
        classes: Outputs of the head.
        batch_size: Images per micro-batch, in place of the recipe's own (or, if it has none, its batch size).
            Below the recipe's batch size gradients are accumulated.
        context_bytes: What the process takes beside the allocator; `automl.gpu.probe` measures it on a GPU.
    """
    micro = batch_size or recipe.numerics.micro_batch_size or recipe.batch_size
    waiting = max(0, recipe.batch_size - micro)
    pixels = waiting * 3 * 4 * recipe.image_size**2  # of the other micro-batches, normalised in float32
    return context_bytes + pixels + predict_envelope(recipe, classes, accumulates=waiting > 0).needed_bytes(micro)


def largest_micro_batch(recipe: Recipe, classes: int, limit_bytes: int, *, context_bytes: int = CONTEXT_BYTES) -> int:
    """Finds the most images per micro-batch whose `estimate_training` fits a budget, the CUDA context included.

    Returns:
        A divisor of the recipe's batch size, so that every micro-batch of a step has the same weight; 0 if not even
        one image fits (two, for a backbone with batch normalisation).
    """
    whole = recipe.batch_size
    smallest = predict_envelope(recipe, classes).smallest_batch
    fitting = (
        batch
        for batch in range(whole, smallest - 1, -1)
        if whole % batch == 0
        and estimate_training(recipe, classes, batch_size=batch, context_bytes=context_bytes) <= limit_bytes
    )
    return next(fitting, 0)


def limit_for_prediction(budget_bytes: int, context_bytes: int, factor: float) -> int:
    """Returns the limit for predictions that stands for a budget of the whole process and what was measured.

    Measured were the context with what libraries keep in the allocator, in place of `CONTEXT_BYTES`, and the memory of
    tensors as a multiple (`factor`) of the predicted. It is compared with what `estimate_training` returns.
    """
    return CONTEXT_BYTES + int((budget_bytes - context_bytes) / factor)
