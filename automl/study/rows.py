"""Trials as rows: what the live table, `automl best`, and `trials.csv` show."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from optuna.trial import FrozenTrial, TrialState

if TYPE_CHECKING:
    import optuna
    import pandas as pd

    from automl.space.space import Space

_SPENT = ("epochs_done", "train_seconds", "validation_seconds", "fit_seconds")
"""What the attribute `spent` of a trial holds; studies of earlier versions hold each as an attribute of its own."""


@dataclass(frozen=True)
class TrialRow:
    """A trial, for people."""

    number: int
    state: str
    """`complete`, `pruned`, `failed`, `running` or `unfinished`."""
    backbone: str
    image_size: int | None
    epochs: float | None
    """Of the whole recipe."""
    epochs_done: float
    value: float | None
    """The metric at its end or, if it did not get there, at its last validation."""
    best_value: float | None
    """The best of its validations."""
    seconds: float | None
    """From its start to its end, pauses included."""
    reason: str
    known_good: str
    view: str = "image"
    out_of_memory: int = 0
    """How often memory ran out; up to two times the trial goes on with smaller micro-batches."""


_STATES = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
}


def trial_rows(trials: "list[FrozenTrial]", maximize: bool = True, running: str = "running") -> list[TrialRow]:
    """One row for each trial that has begun, by number.

    Args:
        trials: Of one study.
        maximize: Whether a larger metric is better.
        running: What to call a trial that has not ended; where no worker is left, it is `unfinished`.
    """
    states = _STATES | {TrialState.RUNNING: running}
    return [
        _row(trial, maximize, states[trial.state])
        for trial in sorted(trials, key=lambda t: t.number)
        if trial.state in _STATES
    ]


def _row(trial: FrozenTrial, maximize: bool, state: str) -> TrialRow:
    values = [trial.intermediate_values[step] for step in sorted(trial.intermediate_values)]
    attrs = trial.user_attrs
    value = trial.value if trial.state == TrialState.COMPLETE else (values[-1] if values else None)
    return TrialRow(
        number=trial.number,
        state=state,
        backbone=attrs.get("backbone", ""),
        image_size=attrs.get("image_size"),
        epochs=attrs.get("epochs"),
        epochs_done=spent(attrs).get("epochs_done", 0.0),
        value=value,
        best_value=(max if maximize else min)(values) if values else value,
        seconds=trial.duration.total_seconds() if trial.duration else None,
        reason=attrs.get("error") or attrs.get("reason") or "",
        known_good=attrs.get("known_good", ""),
        view=attrs.get("view", "image"),
        out_of_memory=len(attrs.get("out_of_memory", ())),
    )


def spent(attributes: Mapping[str, Any]) -> dict[str, float]:
    """What a trial has spent up to its last validation or, once it ended, in all.

    Args:
        attributes: The trial's user attributes.

    Returns:
        `epochs_done`, the seconds of training steps (`train_seconds`) and of validations (`validation_seconds`), and
        all seconds inside `fit`, resumptions included (`fit_seconds`); nothing of what is not known yet.
    """
    found = dict(attributes) | attributes.get("spent", {})
    return {name: float(found[name]) for name in _SPENT if name in found}


def trials_table(study: "optuna.Study", space: "Space") -> "pd.DataFrame":
    """All trials with their parameters and metrics, as `trials.csv` holds them.

    Returns:
        A row a trial: what `TrialRow` has, the recipe's drop path (0 where the backbone has none), then `metric.*`,
        then `param.*` (as a recipe has them, not as indexes).
    """
    import pandas as pd

    trials = {trial.number: trial for trial in study.get_trials(deepcopy=False)}
    rows: list[dict[str, Any]] = []
    for row in trial_rows(list(trials.values()), study.direction.name == "MAXIMIZE"):
        trial = trials[row.number]
        metrics = trial.user_attrs.get("metrics", {})
        params = space.decode(trial.params)
        recipe = json.loads(trial.user_attrs.get("recipe", "{}"))
        rows.append(
            vars(row)
            | {"drop_path": recipe.get("drop_path")}
            | {f"metric.{name}": value for name, value in metrics.items()}
            | {f"param.{name}": value for name, value in params.items()}
        )
    return pd.DataFrame(rows)
