"""Which parameters matter in a study: PED-ANOVA, with what chance alone would give.

PED-ANOVA (Watanabe, Bansal & Hutter 2023, "PED-ANOVA: Efficiently quantifying hyperparameter importance in arbitrary
subspaces", IJCAI, arXiv 2304.10255) compares how the best trials are spread over a parameter with how all of them are.
Only the order of trials counts, so a pruned trial may take part with its last value, and a parameter of one branch is
compared within that branch. Of few trials and many parameters some differ much by chance: the values are dealt out to
the trials anew several times, and the most that any parameter then reaches is the level of chance.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.importance import PedAnovaImportanceEvaluator
from optuna.trial import FrozenTrial, TrialState, create_trial

from automl.reports.study_summary import StudySummary, TrialSummary, value_of

LEAST_TRIALS = 8
"""Below so many nothing can be told apart."""
_MOST_TRIALS = 500
"""More make it slower, and no different; the sample is spread evenly over the study."""
LEAST_WITH = 6
"""Trials that a parameter must be drawn in."""
_TOP = 0.25
"""Share of the trials that count as the best: at least two of eight."""
_DEALS = 6
"""How often values are dealt out anew."""


@dataclass(frozen=True)
class Importance:
    """How much parameters matter.

    Attributes:
        shares: By Optuna name, the most important first; they add up to 1.
        chance: The largest share that any parameter reached by chance alone, in several deals.
        trials: How many trials it rests on.
        pruned: How many of them are pruned ones with their last value.
        left_out: Parameters that too few trials drew.
        sampled_of: Trials that there are, where not all are used.
    """

    shares: dict[str, float]
    chance: float
    trials: int
    pruned: int
    left_out: int
    sampled_of: int | None = None

    @property
    def above_chance(self) -> list[str]:
        """The parameters whose share is above the level of chance."""
        return [name for name, share in self.shares.items() if share > self.chance]


def measure_importance(summary: StudySummary) -> Importance | None:
    """Measures how much each parameter matters; None of fewer than eight trials, or without anything that varies."""
    scored = [trial for trial in summary.scored if trial.row.value is not None and trial.frozen.params]
    if len(scored) < LEAST_TRIALS:
        return None
    used = scored
    if len(scored) > _MOST_TRIALS:
        used = [scored[row] for row in np.linspace(0, len(scored) - 1, _MOST_TRIALS).astype(int)]
    names = [name for name in _count_params(used) if _varies(name, used)]
    kept = [name for name in names if sum(name in trial.frozen.params for trial in used) >= LEAST_WITH]
    if not kept:
        return None
    # the evaluator looks for low values
    values = np.array([value_of(trial) * (-1 if summary.maximize else 1) for trial in used])
    study = _copy_study([trial.frozen for trial in used])
    raw = _evaluate(study, kept, values)
    total = sum(raw.values()) or 1.0
    random = np.random.default_rng(0)
    dealt = [share for _ in range(_DEALS) for share in _evaluate(study, kept, random.permutation(values)).values()]
    return Importance(
        {name: raw[name] / total for name in sorted(raw, key=lambda name: -raw[name])},
        max(dealt) / total,
        len(used),
        sum(trial.row.state == "pruned" for trial in used),
        len(names) - len(kept),
        len(scored) if len(used) < len(scored) else None,
    )


def _count_params(trials: Sequence[TrialSummary]) -> list[str]:
    """Lists every parameter that a trial has."""
    return list(dict.fromkeys(name for trial in trials for name in trial.frozen.params))


def _varies(name: str, trials: Sequence[TrialSummary]) -> bool:
    """Returns whether trials differ in a parameter."""
    return len({trial.frozen.params[name] for trial in trials if name in trial.frozen.params}) > 1


def _copy_study(trials: Sequence[FrozenTrial]) -> optuna.Study:
    """Copies trials into a study in memory, complete, each with its position as its value."""
    study = optuna.create_study()
    study.add_trials(
        [
            create_trial(
                state=TrialState.COMPLETE, value=position, params=trial.params, distributions=trial.distributions
            )
            for position, trial in enumerate(trials)
        ]
    )
    return study


def _evaluate(study: optuna.Study, names: Sequence[str], values: NDArray[np.float64]) -> dict[str, float]:
    """Evaluates each parameter by itself; `values` (N,) are by position, and the low ones are the best."""
    # before Optuna 5 the share of best trials had another name
    known = PedAnovaImportanceEvaluator.__init__.__kwdefaults__ or {}
    quantile: dict[str, Any] = {"target_quantile" if "target_quantile" in known else "baseline_quantile": _TOP}
    evaluator = PedAnovaImportanceEvaluator(**quantile)

    def read_value(trial: FrozenTrial) -> float:
        return float(values[trial.number])

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that low values are looked for, and that branches have few trials
        return {name: evaluator.evaluate(study, params=[name], target=read_value)[name] for name in names}
