"""Samplers and pruners: which recipe is tried next, and which trial ends before its time.

Optuna stores neither with a study, so the spec is stored. The sampler is seeded afresh for each trial by (seed, trial
number): a worker that is killed and replaced goes on as the first one would have.

The pruners compare runs at equal fractions of their lengths. Steps are eighths of a run.
"""

import math
import warnings
from typing import Any

import optuna
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner
from optuna.samplers import BaseSampler, GPSampler, QMCSampler, RandomSampler, TPESampler
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from automl.errors import SpecError
from automl.spec import StudySpec
from automl.training.schedule import EIGHTHS

_FACTOR = 2
"""Of successive halving: half of the trials go on at each rung, for twice as long."""


def make_sampler(spec: StudySpec, number: int, known_good: int) -> BaseSampler:
    """Makes the sampler for one trial of a study with so many trials, and so many that were enqueued."""
    seed = (spec.seed * 1_000_003 + number) % 2**32
    # A few good recipes are a better start than many random ones: what is drawn next is drawn around them.
    startup = known_good or min(8, max(2, spec.budget.trials // 5))
    with warnings.catch_warnings(action="ignore", category=optuna.exceptions.ExperimentalWarning):
        match spec.sampler:
            case "tpe":
                # `group` lets multivariate TPE model parameters that exist in one branch only.
                return TPESampler(
                    seed=seed, n_startup_trials=startup, multivariate=True, group=True, constant_liar=True
                )
            case "gp":
                return GPSampler(seed=seed, n_startup_trials=startup, deterministic_objective=False)
            case "qmc":
                # One sequence for the whole study: its points are counted in the storage.
                # Choices are no part of it; drawn with the sequence's seed they would be the same in every trial.
                choices = RandomSampler(seed=seed)
                return QMCSampler(
                    seed=spec.seed, scramble=True, independent_sampler=choices, warn_independent_sampling=False
                )
            case "random":
                return RandomSampler(seed=seed)


def make_pruner(spec: StudySpec) -> BasePruner:
    """Makes the pruner; steps are eighths of a run."""
    match spec.pruner:
        case "halving":
            return Halving(folds=spec.folds)
        case "hyperband":
            return Hyperband()
        case "median":
            # The first report is of step 1: it is too early to judge, the next one is not.
            return MedianPruner(n_startup_trials=4, n_warmup_steps=2)
        case "wilcoxon":
            # Its test needs at least four reports in common before it can prune at all, and independent ones; a run
            # of a few epochs makes one to three before its end, and all are of one learning curve.
            raise SpecError("pruner wilcoxon no longer exists: it cannot judge learning curves; give halving or median")
        case "none":
            return NopPruner()


class Halving(BasePruner):
    """Asynchronous successive halving (Li et al. 2020, https://arxiv.org/abs/1810.05934) over fractions of a run.

    Optuna's gives a rung whatever value a trial reported last: one that reports at 1/8 and 4/8 enters the rung of 2/8
    with its value of 4/8, and one that reports less often is judged less often. Here a value is compared only with
    values at the same eighth, and a rung keeps the same share of all trials whether they came through the rungs before
    it or did not report there: of the trials that got to a rung or were pruned on the way, the best half at the first,
    the best quarter at the second, and so on.

    Nothing is stored. Trials that failed do not count: one that is tried again as a new trial would count twice.
    """

    def __init__(self, first: int = 1, folds: int = 1) -> None:
        """Sets the rungs; `first` is the eighth of the first one, the next ones are at twice, four times … as many.

        Of several folds, the end of the first one is a rung, too: the best quarter of all goes on to the others.
        """
        rungs = int(math.log2(EIGHTHS // first))
        # One trial in how many goes on, by the eighths of the rungs.
        self._shares: dict[int, int] = {first * _FACTOR**rung: _FACTOR ** (rung + 1) for rung in range(rungs)}
        if folds > 1:
            self._shares[EIGHTHS] = _FACTOR**2

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        """Returns whether the trial is behind at the eighth that it reported last; only a rung judges."""
        eighth = trial.last_step
        if eighth is None or eighth not in self._shares:
            return False
        value = trial.intermediate_values[eighth]
        if math.isnan(value):
            return True
        others = [other for other in study.get_trials(deepcopy=False) if other.number != trial.number]
        took_part = [other.intermediate_values for other in others if other.state != TrialState.FAIL]
        rivals = [values[eighth] for values in took_part if eighth in values]
        lost = sum(_was_pruned_before(other, eighth) for other in others)
        sign = 1 if study.direction == StudyDirection.MAXIMIZE else -1
        ahead = sum(sign * rival > sign * value for rival in rivals)
        # Rounded up: while there are few, the best so far goes on.
        return ahead >= math.ceil((1 + len(rivals) + lost) / self._shares[eighth])


class Hyperband(HyperbandPruner):
    """Optuna's Hyperband with the halving of this module: brackets whose first rungs are at 1, 2, 4 and 8 eighths."""

    def __init__(self) -> None:
        super().__init__(min_resource=1, max_resource=EIGHTHS, reduction_factor=_FACTOR)

    def _try_initialization(self, study: Study) -> None:
        super()._try_initialization(study)
        ours: Any = [Halving(_FACTOR**bracket) for bracket in range(len(self._pruners))]
        self._pruners = ours


def _was_pruned_before(trial: FrozenTrial, eighth: int) -> bool:
    """Returns whether it was pruned after it had been compared, and before this eighth."""
    return trial.state == TrialState.PRUNED and trial.last_step is not None and trial.last_step < eighth
