"""What depends on the optimizer step alone: the learning rate's factor, and when a run is validated.

Why neither timm's nor torch's schedulers: torch's are stateful (a resumed trial must restore them, and its OneCycleLR
refuses runs of a step or two), timm's are nearly what is needed (`step_update(step)`), but have no one-cycle, got WSD
only in 2026 while we support older ones, and log a warning for runs of one step. A factor of (schedule, step, total)
is resumed by its step alone. The one-cycle is tested against torch's, step and cosine against timm's.

A schedule's function takes the step, the steps of the run, and the fields of the recipe's schedule by their names. The
script that `automl export` writes holds a copy of the function.
"""

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from automl.recipe.choices import find_entry
from automl.recipe.learning import Cosine, OneCycle, Schedule, StepLR, Wsd
from automl.schema import Part

if TYPE_CHECKING:
    from torch.optim import Optimizer

_ONE_CYCLE_START = 1 / 25  # where the warm-up starts: torch.optim.lr_scheduler.OneCycleLR's `div_factor`
_ONE_CYCLE_END = _ONE_CYCLE_START / 1e4  # its `final_div_factor`

EIGHTHS = 8
"""A run is reported in eighths of its length: a pruner compares runs at the same point of their learning-rate
schedules, and successive halving with a factor of 2 has its rungs at 1, 2 and 4, however long the run."""

VALIDATION_SHARE = 0.1
"""Of the training time; what validating at all eighths would take beyond it is saved by validating less often."""

_EIGHTHS_CHOICES: tuple[tuple[int, ...], ...] = ((1, 2, 3, 4, 5, 6, 7, 8), (1, 2, 4, 8), (1, 4, 8), (4, 8), (8,))
"""From all eighths to the end alone. Each is a part of the one before, so that whatever is reported can be compared;
the rungs of successive halving go last, and of them the half of the run, at which all but one in eight are to be
pruned."""

_TRAINING_FACTOR = 3
"""A training step costs about three forward passes."""


RESTART_SCALE = 0.5
"""Of the learning rate, after a restart: the network is nearly there. Measured in `studies/benchmarks/recipes/`."""


def lr_factor(schedule: Schedule, step: int, total_steps: int, restarts: Sequence[float] = ()) -> float:
    """Computes what the base learning rate is multiplied by in one optimizer step, in [0, 1].

    The first step never has factor 0, and the last one only nearly, so that none is wasted.

    Steps count from 0; beyond the last of `total_steps` the last one's factor holds. At each of `restarts`, fractions
    of the run, the schedule begins anew, `RESTART_SCALE` times as high, for what is left until the next one.

    Raises:
        ValueError: If `step` is negative or `total_steps` below 1.
        RecipeError: If there is no such schedule.
    """
    if step < 0 or total_steps < 1:
        raise ValueError(f"a step is 0 or more of 1 or more steps, got {step=}, {total_steps=}")
    function = find_entry("training", "schedule", schedule, SCHEDULES)
    step, steps, scale = restart_schedule(min(step, total_steps - 1), total_steps, restarts, RESTART_SCALE)
    return scale * function(step, steps, **schedule.model_dump(exclude={"name"}))


def restart_schedule(step: int, steps: int, restarts: Sequence[float], scale: float) -> tuple[int, int, float]:
    """Returns the step within the part of the run that began at the last restart, that part's steps, and its scale."""
    bounds = [0, *(round(share * steps) for share in restarts), steps]
    part = max(number for number, first in enumerate(bounds[:-1]) if first <= step)
    return step - bounds[part], bounds[part + 1] - bounds[part], scale if part else 1.0


def set_learning_rates(optimizer: "Optimizer", factor: float) -> None:
    """Sets every parameter group's learning rate to `factor` times its own initial one."""
    for group in optimizer.param_groups:
        group["lr"] = factor * group["initial_lr"]


def step_factor(step: int, steps: int, warmup: float, every: float, gamma: float) -> float:
    """Multiplies by `gamma` after each `every` of the run."""
    warm_steps = round(warmup * steps)
    if step < warm_steps:
        return (step + 1) / warm_steps
    # The tiny addend keeps 0.3 / 0.1 from falling a hair short of 3.
    return float(gamma ** math.floor(step / steps / every + 1e-9))


def cosine_factor(step: int, steps: int, warmup: float) -> float:
    """Falls by half a cosine after the warm-up (Loshchilov & Hutter 2017)."""
    warm_steps = round(warmup * steps)
    if step < warm_steps:
        return (step + 1) / warm_steps
    return _half_cosine((step - warm_steps) / (steps - warm_steps))


def wsd_factor(step: int, steps: int, warmup: float, decay: float) -> float:
    """Stays constant, then falls linearly (Hu et al. 2024, eq. 1, with the linear fall of Hägele et al. 2024)."""
    warm_steps = round(warmup * steps)
    if step < warm_steps:
        return (step + 1) / warm_steps
    decay_steps = min(max(1, round(decay * steps)), steps - warm_steps)
    return min(1.0, (steps - step) / (decay_steps + 1))


def one_cycle_factor(step: int, steps: int, warmup: float) -> float:
    """Rises by half a cosine and falls by half a cosine (Smith & Topin 2018), as torch's OneCycleLR does."""
    peak = max(0.0, warmup * steps - 1)
    if step < peak:
        return 1 - (1 - _ONE_CYCLE_START) * _half_cosine(step / peak)
    if steps - 1 <= peak:
        return 1.0
    return _ONE_CYCLE_END + (1 - _ONE_CYCLE_END) * _half_cosine((step - peak) / (steps - 1 - peak))


def _half_cosine(progress: float) -> float:
    """Falls from 1 to 0 as `progress` goes from 0 to 1."""
    return (1 + math.cos(math.pi * progress)) / 2


SCHEDULES: dict[type[Part], Callable[..., float]] = {
    StepLR: step_factor,
    Cosine: cosine_factor,
    OneCycle: one_cycle_factor,
    Wsd: wsd_factor,
}
"""The function that computes each schedule of a recipe: of 0 <= step < steps, and the schedule's fields."""


def evaluation_steps(
    total_steps: int, epochs: float, train_images: int, validation_images: int, early_share: float = 1.0
) -> dict[int, int]:
    """Chooses after which optimizer steps to validate: at each eighth, or at fewer where that would cost too much.

    All but the last look take `early_share` of the validation images.

    Returns:
        The eighth (1 … 8) by the number of steps done; the last step is always in it. It depends on counts only,
        never on the clock.
    """
    affordable = VALIDATION_SHARE * epochs * _TRAINING_FACTOR * train_images / validation_images
    eighths = next(
        chosen for chosen in _EIGHTHS_CHOICES if affordable >= 1 + early_share * (len(chosen) - 1) or len(chosen) == 1
    )
    return eighth_steps(total_steps, eighths)


def eighth_steps(total_steps: int, eighths: tuple[int, ...] = _EIGHTHS_CHOICES[0]) -> dict[int, int]:
    """Returns the eighth (1 … 8) by the steps done; of a run of fewer steps than eighths, the later eighth counts."""
    return {max(1, round(total_steps * eighth / EIGHTHS)): eighth for eighth in eighths}
