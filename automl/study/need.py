"""What a backbone needs of a GPU's memory: predicted, and measured where a GPU is at hand."""

from dataclasses import dataclass, replace

from automl.gpu.probe import Measurement, measured_recipe, memory_factor, probe
from automl.memory.estimate import CONTEXT_BYTES, estimate
from automl.recipe import Numerics, Recipe
from automl.training.precision import Timing


@dataclass(frozen=True)
class Limits:
    """What a backbone must fit."""

    memory_bytes: int | None
    """For one training step; None: no limit."""
    trial_seconds: float | None
    """For one trial; None: no limit."""
    min_epochs: float
    """Epochs of the shortest trial the space can draw."""
    image_sizes: tuple[int, ...]
    """What the space can draw, in pixels, ascending."""
    reference_image_size: int
    """Where backbones are timed, and compared."""
    max_batch_size: int
    train_images: int

    @property
    def min_image_size(self) -> int:
        """The smallest image size."""
        return self.image_sizes[0]

    @property
    def max_image_size(self) -> int:
        """The largest image size."""
        return self.image_sizes[-1]

    def at_sizes(self, image_sizes: tuple[int, ...]) -> "Limits":
        """Narrows them to the image sizes of one backbone, ascending."""
        if image_sizes == self.image_sizes:
            return self
        reference = min(image_sizes, key=lambda size: abs(size - self.reference_image_size))
        return replace(self, image_sizes=image_sizes, reference_image_size=reference)


@dataclass(frozen=True)
class Need:
    """What a backbone needs, in the words of `PoolEntry`."""

    peak_bytes: int
    fits_all: bool
    timing: Timing | None = None
    """None: not timed yet."""
    measured: bool = False
    predicted_bytes: int | None = None
    micro_batch: int | None = None
    accumulation: int | None = None
    memory_factor: float = 1.0
    context_bytes: int = CONTEXT_BYTES
    """What the process takes beside its tensors."""


def largest_step(backbone: str, limits: Limits) -> Recipe:
    """The step that needs most memory."""
    size, batch = limits.max_image_size, limits.max_batch_size
    return Recipe(backbone=backbone, image_size=size, batch_size=batch, ema_decay=0.99)


def smallest_step(backbone: str, limits: Limits, numerics: Numerics | None = None) -> Recipe:
    """The step that needs least memory."""
    numerics = numerics or Numerics()
    return Recipe(backbone=backbone, image_size=limits.min_image_size, batch_size=2, numerics=numerics)


def measure_need(backbone: str, limits: Limits, memory_bytes: int, classes: int, device: str) -> Need | None:
    """Measures the largest step of a study on its GPU and, where no part of that fits, the smallest.

    Args:
        backbone: A timm name.
        limits: The sizes of the steps.
        memory_bytes: The budget, the CUDA context included.
        classes: Outputs of the head.
        device: `cuda` or `cuda:N`.

    Returns:
        The need, or None if not even the smallest step fits.

    Raises:
        CannotProbe: If nothing can be measured here.
        RecipeError: If a step fails for another reason than memory.
    """
    recipe = largest_step(backbone, limits)
    found = probe(recipe, classes, device, memory_bytes, timed_image_size=limits.reference_image_size)
    recipe = measured_recipe(recipe, found)
    timing, micro = found.timing, found.micro_batch
    if micro == 0:
        recipe = smallest_step(backbone, limits, recipe.numerics)
        found = probe(recipe, classes, device, memory_bytes)
    if found.micro_batch == 0:
        return None
    factor = max(1.0, memory_factor(recipe, classes, found))
    fits_all = micro >= limits.max_batch_size
    told = recipe if fits_all else smallest_step(backbone, limits, recipe.numerics)
    predicted = estimate(told, classes)
    return Need(
        peak_bytes=_peak(told, found, predicted, factor),
        fits_all=fits_all,
        timing=timing,
        measured=True,
        predicted_bytes=predicted,
        micro_batch=micro,
        accumulation=-(-limits.max_batch_size // micro) if micro else 0,
        memory_factor=factor,
        context_bytes=found.base_bytes,
    )


def _peak(told: Recipe, found: Measurement, predicted_bytes: int, factor: float) -> int:
    """The measured peak of the step that is told or, where another one was measured, its prediction corrected."""
    step = found.largest
    if step is not None and found.image_size == told.image_size and step.batch == told.batch_size:
        return found.context_bytes + step.allocated  # the workspace is a part of this
    return found.base_bytes + int(factor * (predicted_bytes - CONTEXT_BYTES))
