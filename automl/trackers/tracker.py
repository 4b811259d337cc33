"""What a tracker receives of a trial, and what every tracker can do with it."""

from dataclasses import dataclass, field
from typing import Any, Protocol

Value = str | int | float | bool


@dataclass(frozen=True)
class TrialLog:
    """What is logged of a trial.

    Attributes:
        number: The trial's.
        params: Its recipe, flat: `optimizer.name`, `optimizer.beta2`; empty until it is drawn.
        tags: `backbone`, `state` (`running`, `complete`, `pruned` or `failed`), `reason` and others.
        started: In seconds since 1970.
        ended: Likewise; None while it trains.
        curve: The metrics of each validation, by its number: eighths of the run, then folds.
        final: The metrics at its end; empty unless it is complete.
    """

    number: int
    params: dict[str, Value] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    started: float = 0.0
    ended: float | None = None
    curve: dict[int, dict[str, float]] = field(default_factory=dict)
    final: dict[str, float] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The name of its run."""
        return f"trial {self.number}"

    @property
    def last_step(self) -> int:
        """The number of its last validation; 0: none yet."""
        return max(self.curve, default=0)


class Tracker(Protocol):
    """Logs trials of one study, each as a run of its own."""

    def log_trial(self, trial: TrialLog, run: str, after: int) -> str:
        """Logs what is new of a trial, and ends its run if the trial has ended.

        Args:
            trial: All that is known of it now.
            run: What this returned of the same trial before, perhaps in another process; "" the first time.
            after: The last validation that was logged; 0: none.

        Returns:
            The run.
        """

    def mark_best(self, run: str, former: str) -> None:
        """Marks the run of the best trial, and takes the mark from the one that had it, if it can; "" is none."""

    def close(self) -> None:
        """Writes what is not written yet."""

    def describe(self) -> str:
        """Describes where the runs are, and how they are looked at, in a line."""


def flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Value]:
    """Flattens nested values: `{"optimizer": {"name": "sgd"}}` becomes `{"optimizer.name": "sgd"}`."""
    flat: dict[str, Value] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{name}.")
        elif value is not None:
            flat[f"{prefix}{name}"] = value if isinstance(value, str | int | float) else str(value)
    return flat
