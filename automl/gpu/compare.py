"""What backbones need of a GPU, predicted and, where there is one, measured: the rows of `automl probe`."""

from collections.abc import Iterable
from dataclasses import dataclass

from automl.errors import PoolError
from automl.gpu.probe import CannotProbe, StepMemory, measured_recipe, probe
from automl.memory.estimate import CONTEXT_BYTES, envelope_of, largest_micro_batch
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


def compare(recipe: Recipe, classes: int, device: str, budget_bytes: int | None, *, choose: bool = False) -> Comparison:
    """Predicts a recipe's training step and, on a GPU, measures it.

    Args:
        recipe: What is trained.
        classes: Outputs of the head.
        device: `cpu`, `cuda` or `cuda:N`.
        budget_bytes: For the process, the CUDA context included; None: no limit, and nothing is measured.
        choose: Whether the fastest correct numerics are chosen, where something is measured.

    Raises:
        RecipeError: If the backbone cannot be built or trained at this image size.
    """
    step, micro, context, base = None, None, CONTEXT_BYTES, CONTEXT_BYTES
    why: str | None = "there is no GPU here" if device == "cpu" else "nothing tells how much memory the GPU has"
    if budget_bytes is not None:
        try:
            timed = recipe.image_size if choose else None
            found = probe(recipe, classes, device, budget_bytes, timed_image_size=timed)
            recipe, context, base = measured_recipe(recipe, found), found.context_bytes, found.base_bytes
            why, step, micro = None, found.largest, found.micro_batch
        except CannotProbe as exc:
            why = str(exc)
    if micro is None:
        micro = recipe.batch_size
        if budget_bytes is not None:
            micro = largest_micro_batch(recipe, classes, budget_bytes, context_bytes=base)
    shown = micro or envelope_of(recipe, classes).smallest_batch
    predicted = base + _of_tensors(recipe, classes, shown, live=step is not None)
    whole = base + _of_tensors(recipe, classes, recipe.batch_size, live=False)
    return Comparison(recipe, budget_bytes, context, whole, micro, predicted, step, why)


def _of_tensors(recipe: Recipe, classes: int, batch: int, *, live: bool) -> int:
    """Live tensors, as they are measured, or the segments that the allocator needs for them."""
    envelope = envelope_of(recipe, classes, accumulates=batch < recipe.batch_size)
    return envelope.live_at(batch) if live else envelope.at(batch)


def find_backbones(names: Iterable[str]) -> list[str]:
    """The backbones that names mean: timm's own, or the leaderboard's that match a wildcard; each once.

    Raises:
        RecipeError: If timm has no such backbone, with the nearest names.
        PoolError: If no backbone of the leaderboard matches a wildcard.
    """
    from automl.backbones.selection import emptied_by, filters, select
    from automl.backbones.table import load_table
    from automl.backbones.timm_model import check_backbone

    found: dict[str, None] = {}
    for name in names:
        if not set(name) & set("*?["):
            check_backbone(name)
            found[name] = None
            continue
        table = load_table()
        if why := emptied_by(table, filters(table, [name])):
            raise PoolError(why)
        found |= dict.fromkeys(select(table, [name])["model"])
    return list(found)


def native_size(backbone: str) -> int:
    """Pixels per side at which the backbone's weights were trained; 224 where timm does not say."""
    from timm.models import get_pretrained_cfg

    size = getattr(get_pretrained_cfg(backbone, allow_unregistered=True), "input_size", None)
    return int(size[-1]) if size else 224
