"""Training recipes of a study again, one after the other, until all are done, the time is up, or somebody says stop.

What confirming a study (`search.confirm`) and joining its views (`search.join`) have in common.
"""

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import optuna
from optuna.trial import FrozenTrial

from automl.data.loader import ImageData
from automl.devices import give_freed_memory_back, keep_freed_memory
from automl.errors import DataError, StudyError
from automl.reporter import Reporter
from automl.study.folder import StudyFolder
from automl.study.retraining import Retraining
from automl.study.rows import spent
from automl.study.setup import Facts, load_facts
from automl.study.study import recipe_of
from automl.study.views import Views, describe_view
from automl.training.intervals import Interval, metric_interval
from automl.training.metrics import all_metrics, compute
from automl.training.types import Diverged, Parked
from automl.training.validation_schedule import VALIDATION_SHARE
from automl.units import format_seconds

Planned = tuple[Retraining, float]
"""A retraining, and the seconds it is predicted to take."""


@dataclass
class Retrainer:
    """Trains again on one device, and scores."""

    study: optuna.Study
    folder: StudyFolder
    device: str
    deadline: float
    reporter: Reporter
    facts: Facts = field(init=False)
    views: Views = field(init=False)
    data: ImageData = field(init=False)
    """Through the best trial's view. All views score the same samples."""
    stopping: bool = False
    pace: float = 1.0
    """Seconds the trainings took, by those predicted."""

    def __post_init__(self) -> None:
        self.facts = load_facts(self.study, self.folder)
        self.views = Views(self.facts, self.device)

    @property
    def seconds_left(self) -> float:
        """Until the deadline."""
        return max(0.0, self.deadline - time.time())

    def stop(self) -> None:
        """What Ctrl-C does: first a wish, then an order."""
        if self.stopping:
            raise KeyboardInterrupt
        self.stopping = True

    def open(self, trials: Iterable[FrozenTrial]) -> None:
        """Decodes what the trials look at, where it is not decoded yet; the first one's view is `data`."""
        seen = [recipe_of(trial).view for trial in trials]
        for view in seen:
            with self.reporter.show_progress(f"decoding {describe_view(view)}") as progress:
                self.views.data(view, progress)
        self.data = self.views.data(seen[0])

    @contextmanager
    def memory(self) -> Iterator[None]:
        """Keeps freed memory between the trainings, where that makes them faster."""
        if self.device != "cpu":
            yield
            return
        keep_freed_memory()
        try:
            yield
        finally:
            give_freed_memory_back()

    # --- training ---------------------------------------------------------------------------------------------------

    def retraining(self, trial: FrozenTrial, seed: int) -> Retraining:
        """The trial's recipe with another seed."""
        recipe = recipe_of(trial).model_copy(update={"seed": seed})
        return Retraining(trial.number, recipe, self.folder.retraining(trial.number, seed))

    def seconds(self, trial: FrozenTrial) -> float:
        """How long the trial trained or, where that was not noted, how long the backbone's timing says."""
        if noted := spent(trial.user_attrs).get("fit_seconds"):
            return noted
        recipe = recipe_of(trial)
        entry = self.facts.pool.named(recipe.backbone)
        if entry is None:
            return 0.0
        images = recipe.epochs * len(self.data.labels("train"))
        return images * entry.timing.at(recipe.image_size).train_seconds * (1 + VALIDATION_SHARE)

    def is_done(self, again: Retraining) -> bool:
        """Whether all is there that is needed of a retraining."""
        return again.validation(self.data.labels("validation")) is not None

    def train_all(self, planned: Sequence[Planned]) -> list[Retraining]:
        """Trains one after the other; returns those that are done, without recipes that diverged.

        Raises:
            StudyError: If every recipe diverged.
            AutomlError: If one cannot be trained.
        """
        labels, done, broken = self.data.labels("validation"), list[Retraining](), set[int]()
        for number, (again, seconds) in enumerate(planned, start=1):
            what = f"{number} of {len(planned)}: {_named(again)}"
            if again.trial in broken:
                continue
            if not self.is_done(again):
                if done and self.pace * seconds > self.deadline - time.time():
                    self.reporter.print_line(f"{what}: no time left for it")
                    break
                try:
                    self.train_one(again, seconds, what)
                except Parked:
                    self.reporter.print_line(f"{what}: parked")
                    break
                except Diverged as exc:
                    self.reporter.print_line(f"{what}: {exc}; the recipe is out")
                    broken.add(again.trial)
                    continue
            done.append(again)
            found = again.validation(labels)
            if found is None:
                raise StudyError(f"cannot read {again.predictions} again; is the disk full?")
            value = compute(self.facts.metric, labels, found, self.data.positive)
            self.reporter.print_line(f"{what}: validation {self.facts.metric} {value:.4f}")
        if not self.stopping and planned and broken >= {again.trial for again, _ in planned}:
            raise StudyError(
                "every recipe diverged with a fresh seed; lower the learning rates of the search space and search anew"
            )
        return [again for again in done if again.trial not in broken]

    def train_one(self, again: Retraining, seconds: float, what: str) -> None:
        """Trains, or goes on training, to the end.

        Args:
            again: What to train.
            seconds: It is predicted to take; 0: not known.
            what: It is, for the reporter.

        Raises:
            Parked: If the time is up, or it was asked to stop.
            Diverged: If the loss is not finite.
        """
        self.reporter.print_line(f"{what}: about {format_seconds(self.pace * seconds)}")
        entry = self.facts.pool.named(again.recipe.backbone)
        began, anew = time.monotonic(), not again.begun
        with self.reporter.show_progress(what) as progress:
            again.train(
                self.views.data(again.recipe.view),
                entry.find() if entry else None,
                self.device,
                progress,
                self._should_stop,
            )
        if seconds and anew:  # what was resumed took less than the whole
            self.pace = max(0.5, (time.monotonic() - began) / seconds)

    def _should_stop(self, _at_checkpoint: bool) -> bool:
        return self.stopping or time.time() > self.deadline

    # --- scoring ----------------------------------------------------------------------------------------------------

    def score(self, split: str, models: Sequence[Any]) -> tuple[Interval, dict[str, float]]:
        """The metric of a split with its interval, and all metrics: means over models, of (N, C) probabilities each.

        Raises:
            DataError: If the split has one class only, and the metric compares classes.
        """
        labels, positive = self.data.labels(split), self.data.positive
        every = [all_metrics(labels, probabilities, positive) for probabilities in models]
        means = {name: float(np.mean([metrics[name] for metrics in every])) for name in every[0]}
        return metric_interval(self.facts.metric, labels, models, positive, self.groups(split)), means

    def groups(self, split: str) -> Any:
        """What each sample of a split belongs to, (N,)."""
        return self.facts.dataset.samples["group"].to_numpy()[self.data.rows(split)]

    def holdout_rows(self) -> int:
        """Samples that were set aside, and can be read."""
        if not (self.facts.dataset.samples["split"] == "holdout").any():
            return 0
        try:
            return len(self.data.rows("holdout"))
        except DataError:  # none of them can be read
            return 0


def _named(again: Retraining) -> str:
    view = f", view {again.recipe.view.name}" if again.recipe.view.media != "image" else ""
    return f"trial {again.trial}{view}, {again.recipe.backbone}, seed {again.recipe.seed}"
