"""Learning-rate schedules as pure functions of the optimizer step.

Why neither timm's nor torch's schedulers: torch's are stateful (a resumed trial must restore them, and its OneCycleLR
refuses runs of a step or two), timm's are nearly what is needed (`step_update(step)`), but have no one-cycle, got WSD
only in 2026 while we support older ones, and log a warning for runs of one step. A factor of (schedule, step, total)
is resumed by its step alone. The one-cycle is tested against torch's, step and cosine against timm's.
"""

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch.optim import Optimizer

    from automl.recipe.schedule import Cosine, OneCycle, StepLR, Wsd

_ONE_CYCLE_START = 1 / 25
"""Where one-cycle's warm-up starts: torch.optim.lr_scheduler.OneCycleLR's `div_factor`."""
_ONE_CYCLE_END = _ONE_CYCLE_START / 1e4
"""Where it ends: `final_div_factor`."""


def lr_factor(schedule: "StepLR | Cosine | OneCycle | Wsd", step: int, total_steps: int) -> float:
    """What the base learning rate is multiplied by in one optimizer step.

    The first step never has factor 0, and the last one only nearly, so that none is wasted.

    Args:
        schedule: The recipe's `schedule`.
        step: Index of the optimizer step, from 0; beyond the last step the last one's factor holds.
        total_steps: Optimizer steps in the whole run.

    Returns:
        A factor in [0, 1].

    Raises:
        ValueError: If `step` is negative or `total_steps` below 1.
    """
    if step < 0 or total_steps < 1:
        raise ValueError(f"a step is 0 or more of 1 or more steps, got {step=}, {total_steps=}")
    step = min(step, total_steps - 1)
    if schedule.name == "one_cycle":
        return _one_cycle(schedule.warmup, step, total_steps)
    warm_steps = round(schedule.warmup * total_steps)
    if step < warm_steps:
        return (step + 1) / warm_steps
    if schedule.name == "step":
        # The tiny addend keeps 0.3 / 0.1 from falling a hair short of 3.
        return schedule.gamma ** math.floor(step / total_steps / schedule.every + 1e-9)
    if schedule.name == "cosine":
        return _half_cosine((step - warm_steps) / (total_steps - warm_steps))
    # Hu et al. 2024, eq. 1, with the linear fall of Hägele et al. 2024.
    decay_steps = min(max(1, round(schedule.decay * total_steps)), total_steps - warm_steps)
    return min(1.0, (total_steps - step) / (decay_steps + 1))


def set_learning_rates(optimizer: "Optimizer", factor: float) -> None:
    """Sets every parameter group's learning rate to `factor` times its own initial one."""
    for group in optimizer.param_groups:
        group["lr"] = factor * group["initial_lr"]


def _one_cycle(warmup: float, step: int, total_steps: int) -> float:
    """Half a cosine up to the peak, half a cosine down, as torch's OneCycleLR places them."""
    peak = max(0.0, warmup * total_steps - 1)
    if step < peak:
        return 1 - (1 - _ONE_CYCLE_START) * _half_cosine(step / peak)
    if total_steps - 1 <= peak:
        return 1.0
    return _ONE_CYCLE_END + (1 - _ONE_CYCLE_END) * _half_cosine((step - peak) / (total_steps - 1 - peak))


def _half_cosine(progress: float) -> float:
    """Falls from 1 to 0 as `progress` goes from 0 to 1."""
    return (1 + math.cos(math.pi * progress)) / 2
