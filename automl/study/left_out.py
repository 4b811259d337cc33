"""What a machine leaves to others of a study: backbones that its card cannot hold, or whose weights it has not.

The pool is frozen, and the sampler's distributions with it. So a machine that cannot train some backbones takes no
trial of them, and of new ones draws another rank: what is recorded is what is trained.
"""

from collections.abc import Sequence
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from automl.errors import RecipeError
from automl.study.setup import StudySetup
from automl.study.trial_record import read_trial_record

_BACKBONE = "backbone"
"""The parameter: a rank of the pool, or a name that the space gives."""


def is_left_to_others(trial: FrozenTrial, setup: StudySetup | None) -> bool:
    """Returns whether this machine cannot train a trial; one that has drawn nothing yet, it can."""
    local = setup.local if setup else None
    if setup is None or local is None:
        return False
    too_small = read_trial_record(trial).too_small_bytes
    if too_small is not None and setup.memory_bytes is not None and setup.memory_bytes <= too_small:
        return True
    drawn = trial.params.get(_BACKBONE, trial.system_attrs.get("fixed_params", {}).get(_BACKBONE))
    return drawn is not None and _is_unusable(setup, drawn)


def restrict_sampler(sampler: BaseSampler, setup: StudySetup) -> BaseSampler:
    """Has a sampler draw no backbone that this machine cannot train."""
    return _Restricted(sampler, setup) if setup.local and setup.local.unusable else sampler


def _is_unusable(setup: StudySetup, drawn: Any) -> bool:
    """Returns whether a value of the parameter means a backbone that this machine cannot train."""
    assert setup.local is not None  # noqa: S101 - else nobody asks
    try:
        return setup.pool.entry_of(drawn).backbone in setup.local.unusable
    except (RecipeError, IndexError):  # of another study, by somebody's hand: its trial fails with a message
        return False


class _Restricted(BaseSampler):
    """A sampler; in place of a backbone that cannot be trained here, the nearest one that can."""

    def __init__(self, sampler: BaseSampler, setup: StudySetup) -> None:
        self._sampler, self._setup = sampler, setup

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Asks the sampler."""
        return self._sampler.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Asks the sampler, and changes the backbone where it must."""
        drawn = self._sampler.sample_relative(study, trial, search_space)
        return {name: self._replace(name, value, search_space[name]) for name, value in drawn.items()}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Asks the sampler, and changes the backbone where it must."""
        drawn = self._sampler.sample_independent(study, trial, param_name, param_distribution)
        return self._replace(param_name, drawn, param_distribution)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Asks the sampler."""
        self._sampler.before_trial(study, trial)

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        """Asks the sampler."""
        self._sampler.after_trial(study, trial, state, values)

    def reseed_rng(self) -> None:
        """Asks the sampler."""
        self._sampler.reseed_rng()

    def _replace(self, name: str, drawn: Any, distribution: BaseDistribution) -> Any:
        if name != _BACKBONE or not _is_unusable(self._setup, drawn):
            return drawn
        values: list[Any] = list(range(len(self._setup.pool.entries)))
        if isinstance(distribution, CategoricalDistribution):
            values = list(distribution.choices)
        usable = [k for k, value in enumerate(values) if not _is_unusable(self._setup, value)]
        position = values.index(drawn)
        return values[min(usable, key=lambda k: abs(k - position))] if usable else drawn
