"""When a run is validated: at fixed fractions of its length, so that runs of different lengths can be compared."""

EIGHTHS = 8
"""A run is reported in eighths of its length: a pruner compares runs at the same point of their learning-rate
schedules, and successive halving with a factor of 2 has its rungs at 1, 2 and 4, however long the run."""

VALIDATION_SHARE = 0.15
"""Of the training time; what validating at all eighths would take beyond it is saved by validating less often."""

_CHOICES: tuple[tuple[int, ...], ...] = ((1, 2, 3, 4, 5, 6, 7, 8), (1, 2, 4, 8), (1, 4, 8), (4, 8), (8,))
"""From all eighths to the end alone. Each is a part of the one before, so that whatever is reported can be compared;
the rungs of successive halving go last, and of them the half of the run, at which all but one in eight are to be
pruned."""

_TRAINING_FACTOR = 3
"""A training step costs about three forward passes."""


def evaluation_steps(total_steps: int, epochs: float, train_images: int, validation_images: int) -> dict[int, int]:
    """After which optimizer steps to validate: at each eighth, or at fewer where that would cost too much.

    Args:
        total_steps: Optimizer steps of the run.
        epochs: Its epochs.
        train_images: Images in an epoch.
        validation_images: Images in a validation.

    Returns:
        The eighth (1 … 8) by the number of steps done; the last step is always in it. It depends on counts only,
        never on the clock.
    """
    affordable = VALIDATION_SHARE * epochs * _TRAINING_FACTOR * train_images / validation_images
    eighths = next(chosen for chosen in _CHOICES if affordable >= len(chosen) or len(chosen) == 1)
    return eighth_steps(total_steps, eighths)


def eighth_steps(total_steps: int, eighths: tuple[int, ...] = _CHOICES[0]) -> dict[int, int]:
    """The eighth (1 … 8) by the number of steps done; of a run of fewer steps than eighths, the later one counts."""
    return {max(1, round(total_steps * eighth / EIGHTHS)): eighth for eighth in eighths}
