"""Compares the GPU memory that backbones need as predicted and, where there is a GPU, as measured: `automl probe`."""

from dataclasses import dataclass

from automl.devices import is_gpu
from automl.gpu.probe import CannotProbe, StepMemory, probe_backbone
from automl.memory.estimate import CONTEXT_BYTES, largest_micro_batch, predict_envelope
from automl.recipe import Recipe


@dataclass(frozen=True)
class Comparison:
    """A recipe's training step; sizes are bytes, the CUDA context included.

    Attributes:
        recipe: With the numerics that were chosen.
        budget_bytes: For the process; None: no limit.
        context_bytes: The CUDA context, measured (without what libraries keep in the allocator) or assumed.
        whole_bytes: Predicted for the undivided batch.
        micro_batch: Images at once within the budget, a divisor of the batch; 0: not even the fewest fit.
        predicted_bytes: Predicted for that micro-batch; for the fewest images where none fit.
        step: Measured, at that micro-batch; None: nothing was measured.
        why_predicted: Why nothing was measured.
    """

    recipe: Recipe
    budget_bytes: int | None
    context_bytes: int
    whole_bytes: int
    micro_batch: int
    predicted_bytes: int
    step: StepMemory | None = None
    why_predicted: str | None = None

    @property
    def peak_bytes(self) -> int:
        """Measured or, where nothing was, predicted: the context, the workspaces and the peak of live tensors."""
        return self.predicted_bytes if self.step is None else self.context_bytes + self.step.allocated

    @property
    def margin_bytes(self) -> int | None:
        """What the budget leaves; negative where the step does not fit, None without a budget."""
        return None if self.budget_bytes is None else self.budget_bytes - self.peak_bytes

    @property
    def error_percent(self) -> float | None:
        """By how much the prediction is above (+) or below (-) what was measured."""
        return None if self.step is None else 100 * (self.predicted_bytes / self.peak_bytes - 1)


def compare_memory(
    recipe: Recipe, classes: int, device: str, budget_bytes: int | None, *, choose: bool = False
) -> Comparison:
    """Predicts a recipe's training step and, on a GPU with a known budget, measures it with `probe_backbone`.

    `choose`: whether the fastest correct numerics are chosen, where something is measured.

    Raises:
        RecipeError: If the backbone cannot be built or trained at this image size.
    """
    step, micro, context, base = None, recipe.batch_size, CONTEXT_BYTES, CONTEXT_BYTES
    why: str | None = "how much memory the GPU has is not known" if is_gpu(device) else "there is no GPU here"
    if budget_bytes is not None:
        try:
            timed = recipe.image_size if choose else None
            measured = probe_backbone(recipe, classes, device, budget_bytes, timed_image_size=timed)
            recipe, context, base = measured.apply_numerics(recipe), measured.context_bytes, measured.base_bytes
            why, step, micro = None, measured.largest, measured.micro_batch
        except CannotProbe as exc:
            why, micro = str(exc), largest_micro_batch(recipe, classes, budget_bytes)
    shown = micro or predict_envelope(recipe, classes).smallest_batch
    predicted = base + _predict_tensors(recipe, classes, shown, live=step is not None)
    whole = base + _predict_tensors(recipe, classes, recipe.batch_size, live=False)
    return Comparison(recipe, budget_bytes, context, whole, micro, predicted, step, why)


def _predict_tensors(recipe: Recipe, classes: int, batch: int, *, live: bool) -> int:
    """Predicts live tensors, as they are measured, or the segments that the allocator needs for them."""
    envelope = predict_envelope(recipe, classes, accumulates=batch < recipe.batch_size)
    return envelope.live_bytes(batch) if live else envelope.needed_bytes(batch)
