"""Pruners that compare runs at equal fractions of their lengths. Steps are eighths of a run."""

import math
from typing import Any

from optuna.pruners import BasePruner, HyperbandPruner
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from automl.training.validation_schedule import EIGHTHS

_FACTOR = 2
"""Of successive halving: half of the trials go on at each rung, for twice as long."""


class Halving(BasePruner):
    """Asynchronous successive halving (Li et al. 2020, https://arxiv.org/abs/1810.05934) over fractions of a run.

    Optuna's gives a rung whatever value a trial reported last: one that reports at 1/8 and 4/8 enters the rung of 2/8
    with its value of 4/8, and one that reports less often is judged less often. Here a value is compared only with
    values at the same eighth, and a rung keeps the same share of all trials whether they came through the rungs before
    it or did not report there: of the trials that got to a rung or were pruned on the way, the best half at the first,
    the best quarter at the second, and so on.

    Nothing is stored. Trials that failed do not count: one that is tried again as a new trial would count twice.
    """

    def __init__(self, first: int = 1) -> None:
        """`first` is the eighth of the first rung; the next ones are at twice, four times … as many."""
        self._first = first

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        """Whether the trial is behind at the eighth that it reported last; only a rung judges."""
        eighth = trial.last_step
        if eighth is None or eighth not in self._shares():
            return False
        value = trial.intermediate_values[eighth]
        if math.isnan(value):
            return True
        others = [other for other in study.get_trials(deepcopy=False) if other.number != trial.number]
        there = [other.intermediate_values[eighth] for other in others if _takes_part(other, eighth)]
        lost = sum(_lost_before(other, eighth) for other in others)
        sign = 1 if study.direction == StudyDirection.MAXIMIZE else -1
        ahead = sum(sign * other > sign * value for other in there)
        # Rounded up: while there are few, the best so far goes on.
        return ahead >= math.ceil((1 + len(there) + lost) / self._shares()[eighth])

    def _shares(self) -> dict[int, int]:
        """One trial in how many goes on, by the eighths of the rungs."""
        rungs = int(math.log2(EIGHTHS // self._first))
        return {self._first * _FACTOR**rung: _FACTOR ** (rung + 1) for rung in range(rungs)}


class Hyperband(HyperbandPruner):
    """Optuna's Hyperband with the halving of this module: brackets whose first rungs are at 1, 2, 4 and 8 eighths."""

    def __init__(self) -> None:
        super().__init__(min_resource=1, max_resource=EIGHTHS, reduction_factor=_FACTOR)

    def _try_initialization(self, study: Study) -> None:
        super()._try_initialization(study)
        ours: Any = [Halving(_FACTOR**bracket) for bracket in range(len(self._pruners))]
        self._pruners = ours


def _takes_part(trial: FrozenTrial, eighth: int) -> bool:
    return trial.state != TrialState.FAIL and eighth in trial.intermediate_values


def _lost_before(trial: FrozenTrial, eighth: int) -> bool:
    """Whether it was pruned after it had been compared, and before this eighth."""
    return trial.state == TrialState.PRUNED and trial.last_step is not None and trial.last_step < eighth
