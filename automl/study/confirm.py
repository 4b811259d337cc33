"""Confirming a search: the best recipes again with fresh seeds, then one look at the holdout.

The best of many noisy scores is too good (the winner's curse; Cawley & Talbot 2010, "On over-fitting in model
selection", JMLR 11). So the best trials' recipes are trained again with seeds the search did not use, the choice is
made by the mean of their validation scores, and the chosen one alone is scored on the holdout, which chose nothing.

The result lies in the study's folder: the recipe in `confirmed.yaml`, the scores in `confirm.json`.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from shutil import rmtree
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from optuna.trial import FrozenTrial
from pydantic import Field, model_validator

from automl.data.drop_copies import find_copies
from automl.errors import DataError, SpecError
from automl.files import write_text
from automl.models.fused_ensemble import Record, SplitScores
from automl.recipe import Numerics, Recipe
from automl.reporter import Reporter
from automl.study.folder import StudyFolder, find_study
from automl.study.replicate import Replicate, ReplicateRunner, read_record
from automl.study.robustness import TrainedNetwork, plan_samples, score_robustness
from automl.study.setup import ROBUST
from automl.study.trial_record import read_spec, read_trial_record, recipe_of
from automl.training.intervals import Interval
from automl.training.metrics import compute_metric, metric_sign
from automl.training.types import Parked, expected_input
from automl.units import format_seconds


class Candidate(Record):
    """A recipe that was trained again, once with each seed."""

    trial: int
    """The trial it comes from."""
    search_value: float
    """The metric on the validation split in that trial: the best of many, so it is too good."""
    seeds: tuple[int, ...]
    validation: tuple[float, ...]
    """The metric on the validation split with each seed."""
    mean: float
    """Over the seeds."""
    robust: tuple[float, ...] = ()
    """The mean AUC on degraded copies with each seed; empty where the search looked at no such copies."""
    recipe: Recipe
    """As the trial trained it, with the trial's seed."""
    predictions: tuple[str, ...]
    """For each seed, the file with the validation probabilities, relative to the study's folder: an `.npz` with
    `validation` (N, C) float64, `labels` (N,) int64 and the recipe with its seed as JSON."""


class Confirmation(SplitScores):
    """The recipes of a study that were trained again, and the scores of the one that was chosen."""

    chosen: Annotated[int, Field(ge=0)]
    """Index of the candidate with the best mean."""
    validation: Interval
    """Of the chosen recipe: the metric, mean over the seeds, with its interval over samples."""
    holdout: Interval | None
    """The same on samples that no trial saw and that chose nothing; None where none were set aside."""
    validation_metrics: dict[str, float]
    """Every metric, mean over the seeds."""
    holdout_metrics: dict[str, float]
    validation_copies: int = 0
    """Samples of the validation split that are near copies of training samples; 0 where they were dropped."""
    without_copies: float | None = None
    """The metric without them, mean over the seeds; None where there are none, or what is left has one class only."""
    search_value: float
    """The chosen recipe's, in its trial."""
    optimism: float | None
    """How much better the search's value looks than the holdout's; positive is too good, whatever the metric."""
    validation_optimism: float | None
    """How much better the mean validation of the fresh seeds looks than the holdout."""
    candidates: Annotated[tuple[Candidate, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _check_chosen(self) -> "Confirmation":
        if self.chosen >= len(self.candidates):
            raise ValueError(f"chosen is {self.chosen}, but there are {len(self.candidates)} candidates")
        return self

    @property
    def best(self) -> Candidate:
        """The chosen candidate."""
        return self.candidates[self.chosen]

    def describe_copies(self) -> str:
        """Writes what validation scores without near copies of training samples; "" where it holds none."""
        if not self.validation_copies:
            return ""
        score = f"validation {self.metric} {self.validation.value:.4f}"
        copies = f"near cop{'y' if self.validation_copies == 1 else 'ies'} of training samples"
        if self.without_copies is None:
            return f"{score}; {self.validation_copies} {copies} are in it, and no score can be had without them"
        return f"{score}; without {self.validation_copies} {copies} {self.without_copies:.4f}"

    def describe(self) -> str:
        """Writes the scores in three lines, without the recipe; in a fourth what near copies make of them."""
        seeds = len(self.best.seeds)
        trained = f"Trial {self.best.trial}, trained again with {seeds} fresh seed{'s' * (seeds > 1)}"
        scores = f"validation {self.metric} {_format_interval(self.validation)}"
        holdout = f"holdout {self.metric} {_format_interval(self.holdout)}" if self.holdout else ""
        lines = [f"{trained}: {scores}", holdout or f"no {self.holdout_note}", self.interval_method]
        return "\n".join([*lines, *filter(None, [self.describe_copies()])])


def load_confirmation(folder: StudyFolder) -> Confirmation | None:
    """Reads `confirm.json`; None if the study was not confirmed."""
    return read_record(folder.confirmation, Confirmation, "confirm again")


def store_confirmation(folder: StudyFolder, confirmation: Confirmation) -> None:
    """Writes `confirmed.yaml` and, last, `confirm.json`: where that is, both are."""
    header = f"Study {folder.name}, confirmed.\n{confirmation.describe()}"
    confirmation.best.recipe.save(folder.confirmed, header)
    write_text(folder.confirmation, confirmation.model_dump_json(indent=2) + "\n")


def confirm(
    study: str | None = None,
    *,
    top: int = 3,
    seeds: int = 3,
    timeout: str | float | None = None,
    gpu_mem: str | int | None = None,
    device: str = "auto",
    again: bool = False,
    runs: str | Path = "runs",
    reporter: Reporter | None = None,
) -> Confirmation | None:
    """Trains the best recipes of a study again with fresh seeds, chooses one, and scores it on the holdout.

    Killed or interrupted, the same call goes on where it was. Of several GPUs, the first is used.

        scores = automl.confirm("photos", top=2, timeout="1h")
        scores.best.recipe     # the chosen recipe
        scores.holdout         # its score on samples that nothing was chosen by, with an interval

    Args:
        study: Name of the study; None: the latest.
        top: How many recipes; those that differ in seed and numerics alone count as one.
        seeds: Trainings of each, with as many seeds.
        timeout: How long it may take, such as `1h`; None: as long as it needs. What is predicted not to fit is cut:
            seeds first, down to two, then recipes.
        gpu_mem: GPU memory that training may take: `16GB`, `90%` of what is free, or `auto`; None: the study's budget.
        device: `auto`, `cpu`, `cuda` or `cuda:1`.
        again: Confirm anew a study that is confirmed; its holdout is then no longer unseen.
        runs: The folder that holds the studies.
        reporter: Receives what is done; None: lines are printed.

    Returns:
        The scores, also when the study was confirmed before; None when it was interrupted or there was no time, which
        the reporter received.

    Raises:
        StudyError: If there is no such study, it has no complete trial, or another process trains its recipes again.
        SpecError: If `top` or `seeds` is less than 1, or `timeout` or `gpu_mem` cannot be read.
        MemoryBudgetError: If a recipe fits the memory budget at no micro-batch.
        AutomlError: If a recipe cannot be trained.
    """
    if top < 1 or seeds < 1:
        raise SpecError(f"top and seeds are at least 1, got {top} and {seeds}")
    folder = find_study(Path(runs), study)
    with _ConfirmRunner.open_study(folder, timeout, gpu_mem, device, reporter) as runner:
        earlier = load_confirmation(folder)
        if earlier is None or again:
            return runner.confirm_best(top, seeds, earlier.times_scored if earlier else 0)
        runner.reporter.print_line(f"study {folder.name} is confirmed already; --again scores the holdout once more")
        return earlier


def cut_to_time(seconds: Sequence[Sequence[float]], seconds_left: float) -> tuple[int, int]:
    """Decides how many recipes with how many seeds fit in time: fewer seeds first, at least two, then fewer recipes.

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


class _ConfirmRunner(ReplicateRunner):
    """Trains replicates of the best recipes, and chooses one."""

    def confirm_best(self, top: int, seeds: int, times_scored: int) -> Confirmation | None:
        """Trains, chooses, scores and writes; see `confirm`."""
        trials = self.best_trials(_describe_kind, top)
        planned = self._plan_replicates(trials, seeds)
        if not planned:
            return None
        self.warn_of_holdout(times_scored)
        done = self.train_all(planned, "confirm")
        rows = [[replicate for replicate in done if replicate.trial == trial.number] for trial in trials]
        if not any(rows):
            return None
        each = min(len(row) for row in rows if row)  # as many seeds of each as all of them were trained with
        candidates = [
            (self._make_candidate(trial, row[:each]), row[:each])
            for trial, row in zip(trials, rows, strict=True)
            if row
        ]
        try:
            return self._conclude(candidates, times_scored)
        except Parked:
            self.print_line(f"stopped; {self.folder.command_line('confirm')} goes on where this stopped")
            return None

    def _plan_replicates(self, trials: list[FrozenTrial], seeds: int) -> list[Replicate]:
        """Plans what there is time for: one seed of every recipe, then the next."""
        rows = [[self.make_replicate(trial, number) for number in range(seeds)] for trial in trials]
        costs = [[self.needed_seconds(replicate) for replicate in row] for row in rows]
        left = self.seconds_left
        recipes, each = cut_to_time(costs, left)
        if not recipes:
            self.print_line(
                f"not confirmed: training one recipe again takes about {format_seconds(costs[0][0])}, and "
                f"{format_seconds(left)} are left; {self.folder.command_line('confirm')} does it without a limit"
            )
            return []
        cut = "" if (recipes, each) == (len(trials), seeds) else f" (cut from {len(trials)} and {seeds}: no more fit)"
        total = sum(sum(row[:each]) for row in costs[:recipes])
        self.print_line(
            f"confirming study {self.folder.name} on {self.device}: {recipes} recipe{'s' * (recipes > 1)}, "
            f"{each} fresh seed{'s' * (each > 1)} each{cut}; about {format_seconds(total)} of training"
        )
        return [rows[i][k] for k in range(each) for i in range(recipes)]

    def _make_candidate(self, trial: FrozenTrial, row: list[Replicate]) -> Candidate:
        labels, positive = self.data.labels("validation"), self.data.positive
        scores = [compute_metric(self.setup.metric, labels, self.read_validation(one), positive) for one in row]
        return Candidate(
            trial=trial.number,
            search_value=self._read_search_value(trial),
            seeds=tuple(replicate.recipe.seed for replicate in row),
            validation=tuple(scores),
            mean=float(np.mean(scores)),
            robust=tuple(map(self._score_robustness, row)) if self.setup.robust else (),
            recipe=recipe_of(trial),
            predictions=tuple(str(one.predictions.relative_to(self.folder.path)) for one in row),
        )

    def _conclude(self, candidates: list[tuple[Candidate, list[Replicate]]], times_scored: int) -> Confirmation:
        """Chooses, scores the chosen recipe on the holdout, writes, and drops the others' weights."""
        sign = metric_sign(self.setup.metric)
        chosen = max(range(len(candidates)), key=lambda i: (rank_candidate(candidates[i][0], sign), -i))
        candidate, row = candidates[chosen]
        predictions = [self.read_validation(one) for one in row]
        validation = self.score_split("validation", predictions)
        copies, without_copies = self._score_without_copies(predictions)
        scored, note = self.score_holdout(lambda: self.score_split("holdout", self._predict_holdout(row)))
        holdout = scored.interval if scored else None
        confirmation = Confirmation(
            **self.describe_scoring(times_scored, note),
            chosen=chosen,
            validation=validation.interval,
            holdout=holdout,
            validation_metrics=validation.metrics,
            holdout_metrics=scored.metrics if scored else {},
            validation_copies=copies,
            without_copies=without_copies,
            search_value=candidate.search_value,
            optimism=sign * (candidate.search_value - holdout.value) if holdout else None,
            validation_optimism=sign * (candidate.mean - holdout.value) if holdout else None,
            candidates=tuple(candidate for candidate, _ in candidates),
        )
        store_confirmation(self.folder, confirmation)
        for path in (self.folder.path / "confirm").glob("*/weights.safetensors"):
            if path.parent not in [replicate.folder for replicate in row]:
                path.unlink(missing_ok=True)
        return confirmation

    def _score_without_copies(self, predictions: list[NDArray[np.float64]]) -> tuple[int, float | None]:
        """Counts the near copies of training samples in validation, and scores what is left, mean over the seeds."""
        if read_spec(self.study).data.drop_copies:
            return 0, None
        with self.reporter.show_progress("looking for copies of training samples") as progress:

            def report(done: int, total: int) -> None:
                if self.stopping:
                    raise Parked
                progress(done, total)

            copied = list(find_copies(self.setup.dataset, report, self.data.cache))
        copies = np.isin(self.data.rows("validation"), copied)
        if not copies.any():
            return 0, None
        labels, positive = self.data.labels("validation")[~copies], self.data.positive
        try:
            scores = [compute_metric(self.setup.metric, labels, each[~copies], positive) for each in predictions]
        except DataError:
            return int(copies.sum()), None
        return int(copies.sum()), float(np.mean(scores))

    def _read_search_value(self, trial: FrozenTrial) -> float:
        """Reads the metric of a trial, which is not its value where that is of degraded copies."""
        value = read_trial_record(trial).metrics.get(self.setup.metric) if self.setup.robust else trial.value
        return value or 0.0

    def _score_robustness(self, one: Replicate) -> float:
        """Scores a replicate on degraded copies of validation samples, once."""
        path = one.folder / "robust.json"
        known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
        if isinstance(known, float):
            return known
        self._restore_weights(one)
        data = self.views.open_view(one.recipe.view)
        model = one.load_network(data.classes)
        trained = TrainedNetwork(model, expected_input(model, one.recipe, data))
        samples = plan_samples(self.setup, one.recipe.view)
        with self.reporter.show_progress("degraded copies") as progress:
            clean = self.read_validation(one)
            scores = score_robustness(trained, one.recipe, data, clean, self.device, samples, progress)
        value = float(np.mean(list(scores.values())))
        self.print_line(f"{one.label}: {ROBUST} {value:.4f}")
        write_text(path, json.dumps(value))
        return value

    def _restore_weights(self, one: Replicate) -> None:
        """Trains a replicate again whose weights were dropped, because another recipe was chosen."""
        if not one.weights.is_file():
            rmtree(one.folder)
            self.train_one(one, f"the weights of trial {one.trial}, seed {one.recipe.seed}, again")

    def _predict_holdout(self, row: list[Replicate]) -> list[NDArray[np.float64]]:
        """Predicts the holdout with each replicate of the chosen recipe."""
        for one in row:
            self._restore_weights(one)
        return [one.predict_split(self.views.open_view(one.recipe.view), "holdout", self.device) for one in row]


def rank_candidate(candidate: Candidate, sign: int) -> float:
    """Returns what candidates are chosen by, larger is better: robustness where it was measured, else the metric."""
    return float(np.mean(candidate.robust)) if candidate.robust else sign * candidate.mean


def _describe_kind(recipe: Recipe) -> str:
    """Writes what makes two recipes the same: all but their seed and the numerics."""
    return recipe.model_copy(update={"seed": 0, "numerics": Numerics()}).model_dump_json()


def _format_interval(interval: Interval) -> str:
    return f"{interval.value:.4f} [{interval.low:.4f}, {interval.high:.4f}]"
