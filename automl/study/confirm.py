"""Confirming a search: the best recipes again with fresh seeds, then one look at the holdout.

The best of many noisy scores is too good (the winner's curse; Cawley & Talbot 2010, "On over-fitting in model
selection", JMLR 11). So the best trials' recipes are trained again with seeds the search did not use, the choice is
made by the mean of their validation scores, and the chosen one alone is scored on the holdout, which chose nothing.
"""

import time
from collections.abc import Sequence
from shutil import rmtree
from typing import Any

import numpy as np
from optuna.trial import FrozenTrial, TrialState

from automl.devices import find_devices
from automl.errors import DataError, SpecError, StudyError
from automl.recipe import Numerics, Recipe
from automl.reporter import ConsoleReporter, Reporter, interrupts
from automl.study.confirmation import Candidate, Confirmation, load_confirmation, store_confirmation
from automl.study.folder import StudyFolder, lock
from automl.study.retrainer import Planned, Retrainer
from automl.study.retraining import Retraining
from automl.study.storage import Patience
from automl.study.study import open_study, recipe_of, stored_spec
from automl.training.intervals import Interval, describe_method
from automl.training.metrics import compute, direction
from automl.training.types import Parked
from automl.units import format_seconds

_MARGIN = 1.15
"""On predicted times: the next training of a recipe may be slower than its trial was."""


def confirm(
    folder: StudyFolder,
    *,
    top: int = 3,
    seeds: int = 3,
    timeout: float | None = None,
    deadline: float | None = None,
    device: str = "auto",
    again: bool = False,
    reporter: Reporter | None = None,
) -> Confirmation | None:
    """Trains the best recipes of a study again, chooses one, and scores it on the holdout.

    Killed or interrupted it goes on where it was when it is called again. Of several GPUs, the first is used.

    Args:
        folder: The study's.
        top: How many recipes; those that differ in seed and numerics alone count as one.
        seeds: Trainings of each, with as many seeds.
        timeout: Seconds it may take. What is predicted not to fit is cut: seeds first, down to two, then recipes.
        deadline: When it ends at the latest, in seconds since 1970.
        device: `auto`, `cpu`, `cuda` or `cuda:1`.
        again: Confirm anew a study that is confirmed; its holdout is then no longer unseen.
        reporter: Is told what is done; None: lines are printed.

    Returns:
        What was found, also when it was found before; None when it was interrupted or there was no time: the
        reporter was told.

    Raises:
        StudyError: If there is no such study, it has no complete trial, or it is being confirmed by another process.
        SpecError: If `top` or `seeds` is less than 1.
        AutomlError: If a recipe cannot be trained.
    """
    if top < 1 or seeds < 1:
        raise SpecError(f"top and seeds are at least 1, got {top} and {seeds}")
    ends = [end for end in (deadline, None if timeout is None else time.time() + timeout) if end is not None]
    study = open_study(folder, patience=Patience(print_line=(reporter or ConsoleReporter()).print_line))
    stored_spec(study)
    chosen_device = find_devices(device)[0]
    with lock(folder.path / "confirm.lock", wait=False) as held:
        if not held:
            raise StudyError(f"study {folder.name} is being confirmed by another process")
        work = _Confirming(study, folder, chosen_device, min(ends, default=float("inf")), reporter or ConsoleReporter())
        earlier = load_confirmation(folder)
        if earlier is not None and not again:
            work.reporter.print_line(
                f"study {folder.name} is confirmed already; --again looks at the holdout once more"
            )
            return earlier
        with interrupts(work.stop):
            return work.confirm(top, seeds, earlier.times_scored if earlier else 0)


def what_fits(seconds: Sequence[Sequence[float]], seconds_left: float) -> tuple[int, int]:
    """How many recipes with how many seeds there is time for: fewer seeds first, at least two, then fewer recipes.

    Args:
        seconds: Of each training that is left to do, by recipe (best first) and seed; 0 for those that are done.
        seconds_left: For all of them.

    Returns:
        Recipes and seeds of each; one recipe with one seed if no more fits, (0, 0) if not even that does.
    """
    most = len(seconds[0])
    options = [(top, n) for top in range(len(seconds), 0, -1) for n in range(most, min(2, most) - 1, -1)]
    for top, n in [*options, (1, 1)]:
        if sum(sum(row[:n]) for row in seconds[:top]) <= seconds_left:
            return top, n
    return 0, 0


class _Confirming(Retrainer):
    """One call of `confirm`."""

    def confirm(self, top: int, seeds: int, times_scored: int) -> Confirmation | None:
        print_line = self.reporter.print_line
        trials = self._best(top)
        if not trials:
            raise StudyError(f"study {self.folder.name} has no complete trial to confirm; continue it: automl search")
        self.open(trials)
        planned = self._plan(trials, seeds)
        if not planned:
            return None
        if times_scored and self.holdout_rows():
            print_line(
                "warning: the holdout was looked at before; it is no longer unseen, and its score flatters a little"
            )
        try:
            with self.memory():
                candidates = self._evidence(trials, self.train_all(planned))
                if not candidates or self.stopping:
                    print_line(f"nothing was chosen yet; {self.folder.command('confirm')} goes on where this stopped")
                    return None
                return self._conclude(candidates, times_scored)
        except Parked:
            print_line(f"stopped; {self.folder.command('confirm')} goes on where this stopped")
            return None

    # --- what to train ----------------------------------------------------------------------------------------------

    def _best(self, top: int) -> list[FrozenTrial]:
        """The best complete trials, best first, of recipes that differ."""
        sign = -1 if direction(self.facts.metric) == "maximize" else 1
        complete = self.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        found: dict[str, FrozenTrial] = {}
        for trial in sorted(complete, key=lambda trial: (sign * (trial.value or 0.0), trial.number)):
            found.setdefault(_without_luck(recipe_of(trial)), trial)
        return list(found.values())[:top]

    def _plan(self, trials: list[FrozenTrial], seeds: int) -> list[Planned]:
        """What there is time for, with the seconds predicted: one seed of every recipe, then the next."""
        first = stored_spec(self.study).seed + 1  # the search's own seed won; that is not held for the recipe's merit
        rows = [[self.retraining(trial, (first + k) % 2**32) for k in range(seeds)] for trial in trials]
        predicted = [self.seconds(trial) for trial in trials]
        costs = [
            [0.0 if self.is_done(again) else _MARGIN * seconds for again in row]
            for row, seconds in zip(rows, predicted, strict=True)
        ]
        left = self.seconds_left
        recipes, each = what_fits(costs, left)
        if (recipes, each) == (0, 0):
            self.reporter.print_line(
                f"not confirmed: training one recipe again takes about {format_seconds(costs[0][0])}, and "
                f"{format_seconds(left)} are left; {self.folder.command('confirm')} does it without a limit"
            )
            return []
        cut = "" if (recipes, each) == (len(trials), seeds) else f" (cut from {len(trials)} and {seeds}: no more fit)"
        total = sum(sum(row[:each]) for row in costs[:recipes])
        self.reporter.print_line(
            f"confirming study {self.folder.name} on {self.device}: {_count(recipes, 'recipe')}, "
            f"{_count(each, 'fresh seed')} each{cut}; "
            f"about {format_seconds(total)} of training"
        )
        return [(rows[i][k], predicted[i]) for k in range(each) for i in range(recipes)]

    # --- choosing ---------------------------------------------------------------------------------------------------

    def _evidence(self, trials: list[FrozenTrial], done: list[Retraining]) -> list[tuple[Candidate, list[Retraining]]]:
        """What is known of each recipe, by as many seeds of each as all of them were trained with."""
        rows = {trial.number: [again for again in done if again.trial == trial.number] for trial in trials}
        seeds = min((len(row) for row in rows.values() if row), default=0)
        return [
            (self._candidate(trial, rows[trial.number][:seeds]), rows[trial.number][:seeds])
            for trial in trials
            if rows[trial.number]
        ]

    def _candidate(self, trial: FrozenTrial, row: list[Retraining]) -> Candidate:
        values = [compute(self.facts.metric, *self._validation(again), self.data.positive) for again in row]
        return Candidate(
            trial=trial.number,
            search_value=trial.value or 0.0,
            seeds=tuple(again.recipe.seed for again in row),
            validation=tuple(values),
            mean=float(np.mean(values)),
            recipe=recipe_of(trial),
            predictions=tuple(str(again.predictions.relative_to(self.folder.path)) for again in row),
        )

    def _validation(self, again: Retraining) -> tuple[Any, Any]:
        labels = self.data.labels("validation")
        return labels, again.validation(labels)

    def _conclude(self, candidates: list[tuple[Candidate, list[Retraining]]], times_scored: int) -> Confirmation:
        """Chooses, scores the chosen recipe on the holdout, writes, and drops the others' weights."""
        sign = 1 if direction(self.facts.metric) == "maximize" else -1
        chosen = max(range(len(candidates)), key=lambda i: (sign * candidates[i][0].mean, -i))
        candidate, row = candidates[chosen]
        validation, validation_metrics = self.score("validation", [self._validation(again)[1] for again in row])
        holdout, holdout_metrics, note = self._holdout(row)
        better = (lambda value: sign * (value - holdout.value)) if holdout else lambda _: None
        confirmation = Confirmation(
            metric=self.facts.metric,
            chosen=chosen,
            validation=validation,
            holdout=holdout,
            validation_metrics=validation_metrics,
            holdout_metrics=holdout_metrics,
            search_value=candidate.search_value,
            optimism=better(candidate.search_value),
            validation_optimism=better(candidate.mean),
            interval_method=describe_method(self.groups("holdout" if holdout else "validation")),
            validation_samples=len(self.data.rows("validation")),
            holdout_samples=self.holdout_rows(),
            holdout_note=note,
            times_scored=times_scored + (holdout is not None),
            candidates=tuple(candidate for candidate, _ in candidates),
        )
        store_confirmation(self.folder, confirmation)
        for path in (self.folder.path / "confirm").glob("*/weights.safetensors"):
            if path.parent not in [again.folder for again in row]:
                path.unlink(missing_ok=True)
        return confirmation

    def _holdout(self, row: list[Retraining]) -> tuple[Interval | None, dict[str, float], str]:
        """The chosen recipe's score on the holdout, or why there is none."""
        if not self.holdout_rows():
            return None, {}, "holdout: no readable sample was set aside (--holdout-fraction of automl search)"
        for again in row:
            if not again.weights.is_file():  # another recipe was chosen before, and these were dropped
                rmtree(again.folder)
                self.train_one(again, 0.0, f"the weights of trial {again.trial}, seed {again.recipe.seed}, again")
        try:
            models = [again.predict(self.views.data(again.recipe.view), "holdout", self.device) for again in row]
            return *self.score("holdout", models), ""
        except DataError as exc:
            return None, {}, f"score on the holdout: {exc}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number > 1)}"


def _without_luck(recipe: Recipe) -> str:
    """What makes two recipes the same: all but their seed and the numerics."""
    return recipe.model_copy(update={"seed": 0, "numerics": Numerics()}).model_dump_json()
