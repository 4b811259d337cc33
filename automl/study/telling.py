"""What a running trial tells the storage, the pruner, and whoever watches."""

import time
from collections.abc import Callable
from typing import Any

import optuna
from optuna.trial import FrozenTrial, Trial

from automl.recipe import Recipe
from automl.study.rows import spent
from automl.training.out_of_memory import OutOfMemory
from automl.training.types import Evaluation
from automl.training.validation_schedule import EIGHTHS


class Telling:
    """The callbacks of `training.fit` for one trial."""

    def __init__(
        self,
        trial: Trial,
        frozen: FrozenTrial,
        recipe: Recipe,
        metric: str,
        on_progress: Callable[[dict[str, Any]], None],
    ) -> None:
        """`frozen` is what the storage knew when the trial was taken: what it holds is not told again."""
        self._trial, self._recipe, self._metric, self._on_progress = trial, recipe, metric, on_progress
        self._reported = set(frozen.intermediate_values)
        # With a handful of trials to compare, the pruner would be guessing: the first half of a recipe that is known
        # to be good is spared.
        self._spared = EIGHTHS // 2 if "known_good" in frozen.user_attrs else 1
        self._resumed_at = frozen.user_attrs.get("resumed_at", [])
        self._out_of_memory = frozen.user_attrs.get("out_of_memory", [])
        self._taken_up = "recipe" in frozen.user_attrs
        self._spent = spent(frozen.user_attrs)
        self._began = time.perf_counter() - self._spent.get("fit_seconds", 0.0)
        self._validation_seconds = 0.0
        self._value: float | None = None

    def on_evaluation(self, evaluation: Evaluation) -> None:
        """Reports a validation, once.

        Raises:
            optuna.TrialPruned: If the pruner says so.
        """
        trial, value = self._trial, evaluation.metrics[self._metric]
        self._value = value
        self._validation_seconds += evaluation.validation_seconds
        self._spent["epochs_done"] = round(evaluation.epoch, 3)
        self._spent["train_seconds"] = round(evaluation.train_seconds, 2)
        self._spent["validation_seconds"] = round(self._validation_seconds, 2)
        if evaluation.eighth in self._reported:
            return
        trial.report(value, evaluation.eighth)
        self.note_time()
        # Asked in any case: it is how the pruner learns what this trial's successors are compared with.
        behind = trial.should_prune()
        if behind and self._spared <= evaluation.eighth < EIGHTHS:
            length = f"{evaluation.epoch:.3g} of {self._recipe.epochs:.3g} epochs"
            raise optuna.TrialPruned(f"{self._metric} {value:.4f} after {length} is behind")

    def on_step(self, done: int, total: int) -> None:
        """Says where the trial is; notes where it went on, if it was taken up again."""
        epochs = self._recipe.epochs
        if self._taken_up:
            self._taken_up = False
            self._trial.set_user_attr("resumed_at", [*self._resumed_at, round(epochs * (done - 1) / total, 3)])
        progress = {"trial": self._trial.number, "step": done, "epoch": epochs * done / total, "value": self._value}
        self._on_progress(progress)

    def on_out_of_memory(self, event: OutOfMemory) -> None:
        """Notes that memory ran out, and with which micro-batches the trial goes on."""
        print(f"trial {self._trial.number}: {event.describe()}", flush=True)
        sizes = {"micro_batch_size": event.micro_batch_size, "next": event.next_micro_batch_size}
        self._out_of_memory = [*self._out_of_memory, {"step": event.step, "where": event.where} | sizes]
        self._trial.set_user_attr("out_of_memory", self._out_of_memory)
        if event.next_micro_batch_size is not None and event.where != "evaluation":
            numerics = self._recipe.numerics.model_copy(update={"micro_batch_size": event.next_micro_batch_size})
            self._recipe = self._recipe.model_copy(update={"numerics": numerics})
            self._trial.set_user_attr("recipe", self._recipe.model_dump_json())

    def note_time(self) -> None:
        """Stores what was spent so far, over all resumptions; as one attribute, because each one is a transaction."""
        self._spent["fit_seconds"] = round(time.perf_counter() - self._began, 2)
        self._trial.set_user_attr("spent", dict(self._spent))
