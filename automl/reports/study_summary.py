"""A study, read once into what its pages show."""

import json
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate
from typing import Any

from optuna.study import StudyDirection
from optuna.trial import FrozenTrial

from automl.errors import AutomlError, RecipeError, StudyError, first_line
from automl.recipe import Recipe
from automl.reports.peak_memory import predict_peak
from automl.spec import StudySpec, describe_validation
from automl.study.artifacts import fetch_predictions
from automl.study.confirm import Confirmation
from automl.study.folder import StudyFolder
from automl.study.search import SearchResult
from automl.study.setup import StudySetup
from automl.study.trial_record import (
    StudyRecord,
    TrialRow,
    best_first,
    read_spec,
    read_study_record,
    read_trial_record,
    recipe_of,
    trial_rows,
)
from automl.training.schedule import EIGHTHS
from automl.units import format_count


@dataclass(frozen=True, eq=False)
class TrialSummary:
    """A trial that has begun.

    Attributes:
        row: What tables of trials show; `row.value` is the objective of a complete trial, else the metric at the last
            validation.
        frozen: As Optuna stores it.
        started: Seconds since 1970.
        ended: The same; None while it runs.
        curve: (epochs, metric) of each validation, of the first fold where there are several.
        params: The drawn parameters, by their Optuna names, as a recipe has them; the backbone by name.
        host: The machine that it trained on.
        peak_bytes: What it took of a GPU or, on a CPU, is predicted for its training step, the CUDA context included;
            None where nothing is known.
        measured: Whether it was measured.
        images_per_second: Of its training steps; None where it did not get so far.
    """

    row: TrialRow
    frozen: FrozenTrial
    started: float
    ended: float | None
    curve: tuple[tuple[float, float], ...]
    params: dict[str, Any]
    host: str
    peak_bytes: int | None
    measured: bool
    images_per_second: float | None

    @property
    def complete(self) -> bool:
        """Whether it ended well."""
        return self.row.state == "complete" and self.row.value is not None

    @property
    def label(self) -> str:
        """Names it for a person."""
        return f"trial {self.row.number}"


@dataclass(frozen=True, eq=False)
class StudySummary:
    """Everything that the pages show of a study.

    Attributes:
        folder: Its folder.
        setup: Data, space and pool.
        spec: As it is now.
        record: What is stored of it beside its trials.
        maximize: Whether a larger value is better.
        trials: Those that have begun, by number.
        confirmation: None if there is none, or it cannot be read.
        problems: What could not be read or shown, one line each.
    """

    folder: StudyFolder
    setup: StudySetup
    spec: StudySpec
    record: StudyRecord
    maximize: bool
    trials: tuple[TrialSummary, ...]
    confirmation: Confirmation | None
    problems: tuple[str, ...] = field(default=())

    @property
    def name(self) -> str:
        """The study's name."""
        return self.folder.name

    @property
    def metric(self) -> str:
        """What the value of a complete trial is of."""
        return self.setup.objective

    @property
    def kind(self) -> str:
        """What it was scored on: `validation, mean of 3 folds`."""
        return describe_validation(self.spec)

    @cached_property
    def complete(self) -> list[TrialSummary]:
        """The complete trials, the best first; of equal ones the earlier."""
        sign = -1 if self.maximize else 1
        chosen = [trial for trial in self.trials if trial.complete]
        return sorted(chosen, key=lambda trial: (sign * value_of(trial), trial.row.number))

    @cached_property
    def scored(self) -> list[TrialSummary]:
        """Trials whose values can be compared: complete and, where the objective is measured on the way, pruned."""
        return [each for each in self.trials if each.complete or (self.has_last_values and each.row.state == "pruned")]

    @property
    def has_last_values(self) -> bool:
        """Whether the last validation of a pruned trial is of the objective: not so of `robust_auc`."""
        return not self.setup.robust

    @property
    def best(self) -> TrialSummary | None:
        """The best complete trial."""
        return next(iter(self.complete), None)

    @property
    def winner(self) -> TrialSummary | None:
        """The confirmed trial or, without a confirmation, the best."""
        if self.confirmation is not None:
            number = self.confirmation.best.trial
            return next((trial for trial in self.trials if trial.row.number == number), self.best)
        return self.best

    @cached_property
    def winner_recipe(self) -> Recipe | None:
        """Its recipe."""
        if self.confirmation is not None:
            return self.confirmation.best.recipe
        return recipe_of(self.best.frozen) if self.best else None

    @cached_property
    def ended(self) -> list[TrialSummary]:
        """The trials that have ended, in the order they ended."""
        return sorted((trial for trial in self.trials if trial.ended is not None), key=lambda trial: trial.ended or 0.0)

    @cached_property
    def clock(self) -> "Clock":
        """What turns moments into time spent."""
        last = max((trial.ended or trial.started for trial in self.trials), default=0.0)
        return Clock.of_spans((trial.started, trial.ended or last) for trial in self.trials)

    def is_better(self, value: float, other: float) -> bool:
        """Compares two values of the objective."""
        return value > other if self.maximize else value < other

    def trace_best(self) -> list[tuple[int, float, float, TrialSummary]]:
        """Traces the best value: trials that had ended, seconds spent, value, and its trial, at each improvement."""
        steps: list[tuple[int, float, float, TrialSummary]] = []
        for number, trial in enumerate(self.ended, 1):
            if trial.complete and (not steps or self.is_better(value_of(trial), steps[-1][2])):
                steps.append((number, self.clock.spent(trial.ended or 0.0), value_of(trial), trial))
        return steps


@dataclass(frozen=True)
class Clock:
    """Time in which at least one trial ran: pauses between two sessions of a search do not count."""

    starts: tuple[float, ...]
    """Of each stretch, in seconds since 1970."""
    ends: tuple[float, ...]
    before: tuple[float, ...]
    """Seconds of the stretches before it."""

    @classmethod
    def of_spans(cls, spans: Iterable[tuple[float, float]]) -> "Clock":
        """Joins the spans of trials, which may overlap where several workers train."""
        merged: list[tuple[float, float]] = []
        for start, end in sorted(spans):
            if merged and start <= merged[-1][1]:
                merged[-1] = (merged[-1][0], max(merged[-1][1], end))
            else:
                merged.append((start, end))
        lengths = accumulate((end - start for start, end in merged), initial=0.0)
        return cls(tuple(start for start, _ in merged), tuple(end for _, end in merged), tuple(lengths))

    def spent(self, moment: float) -> float:
        """Returns the seconds that were spent until a moment."""
        number = bisect_right(self.starts, moment) - 1
        return 0.0 if number < 0 else self.before[number] + min(moment, self.ends[number]) - self.starts[number]

    @property
    def total(self) -> float:
        """All seconds that were spent."""
        return self.before[-1]


def value_of(trial: TrialSummary) -> float:
    """Returns the value of a trial that has one."""
    return 0.0 if trial.row.value is None else trial.row.value


def summarise_study(result: SearchResult) -> StudySummary:
    """Reads a study; what is damaged and not needed becomes a problem of the summary."""
    study, setup, problems = result.study, result.setup, list[str]()
    fetch_predictions(study, result.folder, [trial.number for trial in best_first(study)[:1]])
    maximize = study.direction == StudyDirection.MAXIMIZE
    frozen = {trial.number: trial for trial in study.get_trials(deepcopy=False)}
    try:
        confirmation = result.confirmation
    except AutomlError as exc:
        confirmation = None
        problems.append(first_line(exc))
    reader = _TrialReader(setup, len(setup.dataset.classes), _count_train_images(setup))
    rows = trial_rows(list(frozen.values()), maximize, running="unfinished")
    trials = tuple(reader.summarise(row, frozen[row.number]) for row in rows)
    if reader.unread:
        problems.append(
            f"the recipes of {format_count(reader.unread, 'trial')} cannot be read: no memory is shown for them"
        )
    return StudySummary(
        result.folder,
        setup,
        read_spec(study),
        read_study_record(study),
        maximize,
        trials,
        confirmation,
        tuple(problems),
    )


def _count_train_images(setup: StudySetup) -> float:
    """Counts the samples of one epoch, in all trainings of a trial."""
    splits = setup.dataset.samples["split"]
    train = int((splits == "train").sum())
    if setup.folds == 1:
        return train
    return (train + int((splits == "validation").sum())) * (setup.folds - 1)


class _TrialReader:
    """Summarises trials; counts the recipes that cannot be read."""

    def __init__(self, setup: StudySetup, classes: int, train_images: float) -> None:
        self.setup, self.classes, self.train_images, self.unread = setup, classes, train_images, 0

    def summarise(self, row: TrialRow, trial: FrozenTrial) -> TrialSummary:
        record = read_trial_record(trial)
        started = trial.datetime_start.timestamp() if trial.datetime_start else 0.0
        measured = int(record.spent.get("peak_bytes", 0))
        return TrialSummary(
            row,
            trial,
            started,
            trial.datetime_complete.timestamp() if trial.datetime_complete else None,
            self._trace_curve(row, trial),
            self._read_params(trial),
            record.host,
            measured or self._predict_peak(record.recipe, trial.number),
            bool(measured),
            self._measure_speed(row, record.spent),
        )

    def _trace_curve(self, row: TrialRow, trial: FrozenTrial) -> tuple[tuple[float, float], ...]:
        steps = sorted(step for step in trial.intermediate_values if step <= EIGHTHS)
        return tuple((step / EIGHTHS * (row.epochs or 1.0), trial.intermediate_values[step]) for step in steps)

    def _read_params(self, trial: FrozenTrial) -> dict[str, Any]:
        params, entries = self.setup.space.decode_params(trial.params), self.setup.pool.entries
        rank = params.get("backbone")
        if isinstance(rank, int) and rank < len(entries):
            params["backbone"] = entries[rank].backbone
        return params

    def _predict_peak(self, text: str, number: int) -> int | None:
        if not text:
            return None
        try:
            recipe = Recipe.from_mapping(json.loads(text), f"trial {number}")
        except (RecipeError, ValueError):
            self.unread += 1
            return None
        return predict_peak(recipe, self.setup.pool.find_entry(recipe.backbone), self.classes)

    def _measure_speed(self, row: TrialRow, spent: dict[str, float]) -> float | None:
        """Divides the images that were trained on by the seconds of training steps."""
        seconds, epochs = spent.get("train_seconds", 0.0), spent.get("epochs_done", 0.0)
        if not seconds or not epochs or (self.setup.folds > 1 and row.state != "complete") or row.continues is not None:
            return None
        return epochs * self.train_images / seconds


def check_same_metric(summaries: Sequence[StudySummary]) -> None:
    """Refuses studies whose values cannot stand on one axis.

    Raises:
        StudyError: If their metrics differ; with the metric of each.
    """
    metrics = {summary.metric for summary in summaries}
    if len(metrics) > 1:
        named = ", ".join(f"{summary.name} has {summary.metric}" for summary in summaries)
        raise StudyError(f"studies of different metrics cannot be compared: {named}")
