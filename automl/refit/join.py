"""Joining the views of a study: the best recipe of each, and a fusion of their scores.

Each view's best recipe is trained once more on the training split, with the first seed that `automl confirm` takes. The
weights of the fusion are learned from the predictions of the validation split (`search.fusion`); then all is scored
once on the holdout, which chose and taught nothing.
"""

import time
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from optuna.trial import FrozenTrial, TrialState

from automl.devices import find_devices
from automl.errors import DataError, SpecError, StudyError
from automl.files import write_text
from automl.models.fusion import Fusion, fit_fusion
from automl.models.view_ensemble import Scored, ViewEnsemble, ViewMember
from automl.reporter import ConsoleReporter, Reporter, interrupts
from automl.study.confirmation import load_found
from automl.study.folder import StudyFolder, lock
from automl.study.retrainer import Planned, Retrainer
from automl.study.retraining import Retraining
from automl.study.storage import Patience
from automl.study.study import open_study, recipe_of, stored_spec
from automl.training.intervals import describe_method
from automl.training.metrics import direction
from automl.units import format_seconds

Floats = NDArray[np.float64]
Joined = dict[str, Retraining]
"""What is joined, by the name of its view."""

_MARGIN = 1.15
"""On predicted times: the next training of a recipe may be slower than its trial was."""


def join_views(
    folder: StudyFolder,
    *,
    timeout: float | None = None,
    device: str = "auto",
    reporter: Reporter | None = None,
) -> ViewEnsemble | None:
    """Trains the best recipe of each view again, and learns how to join their scores.

    What `automl confirm` trained is not trained again. Killed or interrupted it goes on where it was when it is called
    again; while the best trials are the same ones, it looks at the holdout once. Of several GPUs, the first is used.

    Args:
        folder: The study's.
        timeout: Seconds it may take. Views that are predicted not to fit are left out, the best ones last.
        device: `auto`, `cpu`, `cuda` or `cuda:1`.
        reporter: Is told what is done; None: lines are printed.

    Returns:
        What was found, also when it was found before; None when it was interrupted or there was no time: the
        reporter was told.

    Raises:
        StudyError: If there is no such study, it has no complete trial, or another process trains its recipes again.
        SpecError: If there are more than two classes.
        AutomlError: If a recipe cannot be trained.
    """
    study = open_study(folder, patience=Patience(print_line=(reporter or ConsoleReporter()).print_line))
    stored_spec(study)
    deadline = float("inf") if timeout is None else time.time() + timeout
    joining = _Joining(study, folder, find_devices(device)[0], deadline, reporter or ConsoleReporter())
    if len(joining.facts.dataset.classes) != 2:
        raise SpecError(
            f"views are joined by the log-odds of two classes, and study {folder.name} has "
            f"{len(joining.facts.dataset.classes)}; automl train {folder.name} --ensemble K joins models of any number"
        )
    with lock(folder.path / "confirm.lock", wait=False) as held:
        if not held:
            raise StudyError(f"study {folder.name} is being confirmed or joined by another process")
        with interrupts(joining.stop):
            return joining.join()


class _Joining(Retrainer):
    """One call of `join_views`."""

    def join(self) -> ViewEnsemble | None:
        trials = self._best()
        if not trials:
            raise StudyError(f"study {self.folder.name} has no complete trial to join; continue it: automl search")
        self.open(trials)
        planned = self._plan(trials)
        if not planned:
            return None
        values = {trial.number: trial.value or 0.0 for trial in trials}
        earlier = load_view_ensemble(self.folder)
        if earlier is not None and self._is_of(earlier, planned):
            return earlier
        if earlier is not None and earlier.times_scored:
            self.reporter.print_line(
                "warning: the holdout was looked at before; it is no longer unseen, and its score flatters a little"
            )
        with self.memory():
            done = {str(again.recipe.view.name): again for again in self.train_all(planned)}
        if not done or self.stopping:
            self.reporter.print_line(
                f"nothing was joined yet; {self.folder.command('ensemble')} goes on where this stopped"
            )
            return None
        return self._conclude(done, values, earlier.times_scored if earlier else 0)

    # --- what to train ----------------------------------------------------------------------------------------------

    def _best(self) -> list[FrozenTrial]:
        """The best complete trial of each view, best first."""
        sign = -1 if direction(self.facts.metric) == "maximize" else 1
        complete = self.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        found: dict[str, FrozenTrial] = {}
        for trial in sorted(complete, key=lambda trial: (sign * (trial.value or 0.0), trial.number)):
            found.setdefault(recipe_of(trial).view.name, trial)
        return list(found.values())

    def _plan(self, trials: Iterable[FrozenTrial]) -> list[Planned]:
        """What there is time for, with the seconds predicted."""
        seed = (stored_spec(self.study).seed + 1) % 2**32
        planned, left, total = list[Planned](), self.seconds_left, 0.0
        for trial in trials:
            again, seconds = self.retraining(trial, seed), self.seconds(trial)
            cost = 0.0 if self.is_done(again) else _MARGIN * seconds
            if cost > left - total:
                self.reporter.print_line(
                    f"view {again.recipe.view.name} is left out: training it again takes about {format_seconds(cost)}, "
                    f"and {format_seconds(left - total)} are left; {self.folder.command('ensemble')} has no limit"
                )
                continue
            total += cost
            planned.append((again, seconds))
        if planned:
            views = ", ".join(again.recipe.view.name for again, _ in planned)
            about = f"about {format_seconds(total)} of training" if total else "all are trained"
            self.reporter.print_line(
                f"joining the views of study {self.folder.name} on {self.device}: {views}; {about}"
            )
        return planned

    def is_done(self, again: Retraining) -> bool:
        """Predictions, and the weights they are from: a confirmation drops those of recipes it does not choose."""
        return super().is_done(again) and again.weights.is_file()

    def _is_of(self, earlier: ViewEnsemble, planned: Iterable[Planned]) -> bool:
        """Whether an ensemble is what training these would give, and its weights are there."""
        wanted = [(again.trial, again.recipe) for again, _ in planned]
        same = wanted == [(member.trial, member.recipe) for member in earlier.members]
        return same and all(self.is_done(again) for again, _ in planned)

    # --- joining ----------------------------------------------------------------------------------------------------

    def _conclude(self, done: Joined, values: dict[int, float], times_scored: int) -> ViewEnsemble:
        """Learns the weights, scores, and writes."""
        labels, positive = self.data.labels("validation"), self.data.positive
        priors = {view: float((self._taught(again) == positive).mean()) for view, again in done.items()}
        fusion = fit_fusion(self._scores("validation", done), labels, priors, positive)
        validation, fused = self._scored("validation", fusion, done)
        holdout, note = self._holdout(fusion, done)
        alone, joined = holdout or ({}, None)
        found = ViewEnsemble(
            metric=self.facts.metric,
            members=tuple(
                self._member(again, values[again.trial], validation[view], alone.get(view))
                for view, again in done.items()
            ),
            fusion=fusion,
            validation=fused,
            holdout=joined,
            samples=len(self.facts.dataset.samples),
            validation_samples=len(labels),
            holdout_samples=self.holdout_rows(),
            holdout_note=note,
            interval_method=describe_method(self.groups("holdout" if holdout else "validation")),
            times_scored=times_scored + (holdout is not None),
        )
        store_view_ensemble(self.folder, found)
        self.reporter.print_line(f"written: {self.folder.ensemble}")
        return found

    def _member(self, again: Retraining, value: float, validation: Scored, holdout: Scored | None) -> ViewMember:
        return ViewMember(
            view=again.recipe.view.name,
            trial=again.trial,
            search_value=value,
            recipe=again.recipe,
            seen=int(self.views.data(again.recipe.view).cache.readable.sum()),
            train_samples=len(self._taught(again)),
            validation=validation,
            holdout=holdout,
        )

    def _holdout(self, fusion: Fusion, done: Joined) -> tuple[tuple[dict[str, Scored], Scored] | None, str]:
        """The scores on the holdout, or why there are none."""
        if not self.holdout_rows():
            return None, "holdout: no readable sample was set aside (--holdout-fraction of automl search)"
        try:
            return self._scored("holdout", fusion, done), ""
        except DataError as exc:
            return None, f"score on the holdout: {exc}"

    def _scored(self, split: str, fusion: Fusion, done: Joined) -> tuple[dict[str, Scored], Scored]:
        """Each view on a split, and all joined; the shares of the classes in training stand for what nobody sees."""
        scores = self._scores(split, done)
        shares = {view: np.bincount(self._taught(again), minlength=2) for view, again in done.items()}
        shares = {view: counts / counts.sum() for view, counts in shares.items()}
        blind = sum(share * shares[view] for view, share in fusion.shares().items())
        seen = ~np.all([np.isnan(found) for found in scores.values()], axis=0)  # (N, 2)
        alone = {
            view: self._score(split, np.where(np.isnan(found), shares[view], found)) for view, found in scores.items()
        }
        return alone, self._score(split, np.where(seen, fusion.score(scores, self.data.positive), blind))

    def _score(self, split: str, probabilities: Floats) -> Scored:
        interval, metrics = self.score(split, [probabilities])
        return Scored(interval=interval, metrics=metrics)

    def _scores(self, split: str, done: Joined) -> dict[str, Floats]:
        """Each view's scores (N, 2) of a split; NaN where it sees nothing of a sample."""
        found = {}
        for view, again in done.items():
            data = self.views.data(again.recipe.view)
            stored = again.validation(data.labels(split)) if split == "validation" else None
            scores = again.predict(data, split, self.device) if stored is None else stored
            found[view] = np.where(data.counts(split)[:, None] > 0, scores, np.nan)
        return found

    def _taught(self, again: Retraining) -> NDArray[np.int64]:
        """The labels of what a view was trained on."""
        return self.views.data(again.recipe.view).labels("train")


def load_view_ensemble(folder: StudyFolder) -> ViewEnsemble | None:
    """Reads `ensemble.json`; None if the study's views were not joined.

    Raises:
        StudyError: If the file is damaged.
    """
    return load_found(folder.ensemble, ViewEnsemble, "join the views again")


def store_view_ensemble(folder: StudyFolder, ensemble: ViewEnsemble) -> None:
    """Writes `ensemble.json`."""
    write_text(folder.ensemble, ensemble.model_dump_json(indent=2) + "\n")
