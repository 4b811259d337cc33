"""One trial: parameters → recipe → fit → reports, in a form that another worker can take up again."""

import socket
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import torch
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, Trial, TrialState

from automl.backbones.capabilities import correct_tuning
from automl.data.loader import ImageData
from automl.devices import DeviceLost, DeviceProcess
from automl.errors import AutomlError, DataError, DiskFull, MemoryBudgetError, first_line, is_disk_full
from automl.features.head_training import fit_on_features, trains_on_features
from automl.files import write_text
from automl.recipe import Recipe
from automl.spec import StudySpec
from automl.study.artifacts import Artifacts
from automl.study.continuation import last_checkpoint
from automl.study.pool import PoolEntry, fit_within_memory
from automl.study.robustness import TrainedNetwork, plan_samples, score_robustness
from automl.study.setup import ROBUST, StudySetup, StudyViews
from automl.study.spaces import describe_view
from automl.study.storage import StorageLost, read_trials_once
from automl.study.trial_record import best_trial, read_trial_record, recipe_of, write_trial_record
from automl.study.validation import FoldResult, split_for_trial, write_predictions
from automl.training.fit import fit
from automl.training.metrics import metric_sign
from automl.training.out_of_memory import OutOfMemory
from automl.training.precision import best_numerics, is_native
from automl.training.schedule import EIGHTHS, VALIDATION_SHARE
from automl.training.types import Diverged, Evaluation, Fit, Parked

_LEAST_EPOCHS = 0.05

OnProgress = Callable[[dict[str, Any]], None]
"""Called with what a trial does now: `trial`, `epoch`, and `step` and `value`, or `doing` in words."""


class Stop:
    """Whether to stop, and when: at once, after this epoch, or at a moment in time."""

    def __init__(self, deadline: float | None = None) -> None:
        """Sets the deadline, in seconds since 1970 (`time.time()`); None: none."""
        self.deadline = deadline
        self.soon = threading.Event()
        self.must_abandon: Callable[[], bool] = lambda: False
        """Whether the trial that is trained is not this worker's any more."""

    def watch_stream(self, stream: Any) -> None:
        """Stops soon when the stream holds a line or ends: the supervisor asked, or has ended."""

        def wait_for_line() -> None:
            stream.readline()
            self.soon.set()

        threading.Thread(target=wait_for_line, daemon=True).start()

    def seconds_left(self) -> float:
        """Returns the seconds to the deadline; infinite without one."""
        return float("inf") if self.deadline is None else self.deadline - time.time()

    def __call__(self, at_checkpoint: bool = True) -> bool:
        """Returns whether to stop now."""
        return self.must_abandon() or self.seconds_left() <= 0 or (at_checkpoint and self.soon.is_set())


@dataclass(frozen=True)
class TrialResult:
    """How a trial ended, as the storage records it."""

    state: TrialState
    value: float | None = None
    reason: str = ""


@dataclass(frozen=True)
class Objective:
    """Trains one trial at a time."""

    setup: StudySetup
    spec: StudySpec
    views: StudyViews
    artifacts: Artifacts
    device: str
    process: DeviceProcess
    stop: Stop
    on_progress: OnProgress

    def __call__(self, trial: Trial, frozen: FrozenTrial) -> TrialResult:
        """Trains a new trial, or one that another worker left behind, given what the storage knew of it when taken.

        Raises:
            Parked: If it was asked to stop; the trial stays running, to be taken up again.
            StorageLost: If its storage does not answer any more; the trial stays running as well.
            UpdateFinishedTrialError: If another worker, which was taken for dead, has ended it after all.
            DiskFull: If there is no room for what it writes; the trial stays running as well.
            DeviceLost: If this process cannot use its device any more; the trial stays running as well.
        """
        try:
            recipe, entry, data = self._prepare(trial, frozen)
            metrics = self._train_all(trial, frozen, recipe, entry, data)
        except (Parked, StorageLost, UpdateFinishedTrialError, KeyboardInterrupt):
            raise
        except (optuna.TrialPruned, MemoryBudgetError) as exc:
            return TrialResult(TrialState.PRUNED, reason=str(exc))
        except Diverged as exc:
            return TrialResult(TrialState.PRUNED, reason=f"diverged: {exc}")
        except torch.cuda.OutOfMemoryError as exc:  # of a step it would have been survived
            return TrialResult(TrialState.PRUNED, reason=f"the network itself does not fit: {first_line(exc)}")
        except Exception as exc:
            reason = f"{'' if isinstance(exc, AutomlError) else f'{type(exc).__name__}: '}{first_line(exc)}"
            if self.process.is_lost(exc):
                raise DeviceLost(reason) from exc
            if is_disk_full(exc):
                raise DiskFull(reason) from exc
            file = self.artifacts.folder.trial_folder(trial.number) / "error.txt"
            write_text(file, traceback.format_exc())
            self.artifacts.upload(file)
            return TrialResult(TrialState.FAIL, reason=reason)
        write_trial_record(trial, metrics={name: round(value, 6) for name, value in metrics.items()})
        return TrialResult(TrialState.COMPLETE, metrics[self.setup.objective])

    # --- the recipe ---------------------------------------------------------------------------------------------

    def _prepare(self, trial: Trial, frozen: FrozenTrial) -> tuple[Recipe, PoolEntry, list[ImageData]]:
        """Draws the recipe, or recalls it when the trial is taken up again; and opens the samples through its view.

        The samples are split as this trial sees them, once for each fold.
        """
        pool = self.setup.pool
        if read_trial_record(frozen).recipe:
            recipe = recipe_of(frozen)
            entry, data = pool.entry_of(recipe.backbone), self._open_data(trial, recipe)
            recipe = self._adapt_numerics(trial, recipe, entry, data.classes)
            self._fetch_state(trial.number)
            return recipe, entry, split_for_trial(data, self.spec, trial.number)
        with read_trials_once(trial.study):
            values = self.setup.space.suggest_recipe(
                trial,
                backbones=len(pool.entries),
                self_blend=self.setup.dataset.real_class is not None,
                restriction_of=lambda drawn: pool.entry_of(drawn).restriction,
            )
        entry = pool.entry_of(values["backbone"])
        write_trial_record(trial, backbone=entry.backbone, host=socket.gethostname())
        given = {"backbone": entry.backbone, "pretrained": entry.weights is not None, "seed": self.spec.seed}
        recipe, _ = correct_tuning(Recipe.from_mapping(values | given, f"trial {trial.number}"))
        write_trial_record(trial, view=recipe.view.name)
        data = self._open_data(trial, recipe)
        entry = self._time_steps(entry, recipe, data.classes)
        parts = split_for_trial(data, self.spec, trial.number)
        recipe = self._fit_within_time(recipe, entry, parts[0])
        recipe = recipe.model_copy(update={"numerics": entry.timing.numerics()})
        recipe = self._fit_within_memory(trial, recipe, entry, data.classes)
        write_trial_record(trial, recipe=recipe.model_dump_json(), image_size=recipe.image_size, epochs=recipe.epochs)
        if trained := recipe.describe_trained():
            write_trial_record(trial, trained=trained)
        return recipe, entry, parts

    def _adapt_numerics(self, trial: Trial, recipe: Recipe, entry: PoolEntry, classes: int) -> Recipe:
        """Adapts a recipe that another machine drew to this one's card; what it computes and fits stays as it is."""
        adapted = recipe
        if not is_native(recipe.numerics.precision, self.device):
            numerics = self._time_steps(entry, recipe, classes).timing.numerics(recipe.numerics.micro_batch_size)
            adapted = recipe.model_copy(update={"numerics": numerics})
        adapted = self._fit_within_memory(trial, adapted, entry, classes)
        if adapted != recipe:
            write_trial_record(trial, recipe=adapted.model_dump_json())
        if read_trial_record(trial).host != socket.gethostname():
            write_trial_record(trial, host=socket.gethostname())
        return adapted

    def _fit_within_memory(self, trial: Trial, recipe: Recipe, entry: PoolEntry, classes: int) -> Recipe:
        """Splits a batch that the memory budget does not hold.

        Raises:
            MemoryBudgetError: If no step fits.
            Parked: If no step fits this machine, and others may have more memory.
        """
        limit_bytes, local = self.setup.memory_bytes, self.setup.local
        try:
            return fit_within_memory(recipe, entry, classes, limit_bytes)
        except MemoryBudgetError:
            if local is None or local.memory_bytes is None:
                raise
            write_trial_record(trial, too_small_bytes=limit_bytes)
            raise Parked from None

    def _fetch_state(self, number: int) -> None:
        """Copies here how far another machine came with a trial.

        Raises:
            Parked: If it was asked to stop while the artifacts were away.
        """
        folder, folds = self.artifacts.folder.trial_folder(number), self.setup.folds
        for part in [""] if folds == 1 else [f"-{fold}" for fold in range(folds)]:
            if not part or not self.artifacts.fetch(folder / f"fold{part}.npz", self.stop):
                self.artifacts.fetch_checkpoint(folder / f"checkpoint{part}.pt", self.stop)
                break  # the next folds have not begun
        if self.stop():
            raise Parked

    def _open_data(self, trial: Trial, recipe: Recipe) -> ImageData:
        """Opens the samples through the recipe's view, decoded first where no trial had that view before.

        Raises:
            optuna.TrialPruned: If the view shows too little to train on.
            Parked: If it was asked to stop meanwhile.
        """

        def on_file(done: int, total: int) -> None:
            doing = f"decoding {describe_view(recipe.view)}, {done} of {total}"
            self.on_progress({"trial": trial.number, "epoch": 0.0, "doing": doing})
            if self.stop(True):
                raise Parked

        try:
            return self.views.open_view(recipe.view, on_file)
        except DataError as exc:
            if is_disk_full(exc):
                raise
            raise optuna.TrialPruned(f"view {recipe.view.name}: {first_line(exc)}") from exc

    def _time_steps(self, entry: PoolEntry, recipe: Recipe, classes: int) -> PoolEntry:
        """Times a backbone's steps now, if there was no time to before the first trial."""
        if entry.timing.measured:
            return entry
        size = entry.restriction.nearest_size(entry.timing.image_size)
        timed = Recipe(backbone=recipe.backbone, image_size=size)
        return replace(entry, timing=best_numerics(timed, classes, self.device))

    def _fit_within_time(self, recipe: Recipe, entry: PoolEntry, data: ImageData) -> Recipe:
        """Shortens a recipe that would take longer than a trial may, or than there is time left."""
        left = 0.9 * self.stop.seconds_left() / self.setup.folds
        limit = min(self.setup.training_seconds or float("inf"), left)
        timing = entry.timing.scale_to_recipe(recipe)
        epoch = len(data.labels("train")) * timing.train_seconds
        validation = int(data.counts("validation").sum()) * timing.evaluation_seconds
        # Validations take a share of the training time, but at least one of them is made.
        epochs = min(limit / (epoch * (1 + VALIDATION_SHARE)), (limit - validation) / epoch)
        if epochs >= recipe.epochs:
            return recipe
        epochs = max(_LEAST_EPOCHS, float(f"{epochs:.2g}"))
        return recipe.model_copy(update={"epochs": epochs, "freeze_epochs": min(recipe.freeze_epochs, epochs / 4)})

    # --- training -----------------------------------------------------------------------------------------------

    def _train_all(
        self, trial: Trial, frozen: FrozenTrial, recipe: Recipe, entry: PoolEntry, parts: list[ImageData]
    ) -> dict[str, float]:
        """Trains once for each fold, and reports to storage and pruner; returns the means of the metrics."""
        self.process.reset_peak()
        callbacks = TrialCallbacks(
            trial, frozen, recipe, self.setup.metric, self.on_progress, len(parts), self.process.read_peak
        )
        if len(parts) == 1:
            results = [self._train_split(trial, callbacks, recipe, entry, parts[0], "")]
        else:
            results = self._train_folds(trial, callbacks, recipe, entry, parts)
        labels = parts[0].samples.samples["label"].to_numpy(np.int64)
        write_predictions(self.artifacts.folder.predictions_file(trial.number), results, labels)
        self.artifacts.upload(self.artifacts.folder.predictions_file(trial.number))
        return {name: float(np.mean([one.metrics[name] for one in results])) for name in results[0].metrics}

    def _train_folds(
        self, trial: Trial, callbacks: "TrialCallbacks", recipe: Recipe, entry: PoolEntry, parts: list[ImageData]
    ) -> list[FoldResult]:
        """Trains once for each fold, but for those that are done."""
        results: list[FoldResult] = []
        for fold, data in enumerate(parts):
            path = self.artifacts.folder.trial_folder(trial.number) / f"fold-{fold}.npz"
            result = FoldResult.load(path)  # of a trial that was taken up again
            callbacks.begin_fold(fold)
            if result is None:
                result = self._train_split(trial, callbacks, recipe, entry, data, f"-{fold}")
                result.save(path)
                self.artifacts.upload(path)
            results.append(result)
            callbacks.end_fold([one.metrics[self.setup.metric] for one in results])
        return results

    def _train_split(
        self, trial: Trial, callbacks: "TrialCallbacks", recipe: Recipe, entry: PoolEntry, data: ImageData, part: str
    ) -> FoldResult:
        """Trains on one split, and scores the network on degraded copies where that is the objective."""
        fitted = self._train(trial, callbacks, recipe, entry, data, part)
        metrics = dict(fitted.history[-1].metrics)
        if self.setup.robust:
            started = time.perf_counter()
            samples = plan_samples(self.setup, recipe.view) // self.setup.folds
            report = partial(self._report_doing, trial, "degraded copies, {} of {}")
            trained = TrainedNetwork(fitted.model, fitted.preprocessing)
            scores = score_robustness(trained, recipe, data, fitted.probabilities, self.device, samples, report)
            metrics[ROBUST] = float(np.mean(list(scores.values())))
            write_trial_record(trial, degraded={name: round(score, 6) for name, score in scores.items()})
            callbacks.write_robust_time(time.perf_counter() - started)
        return FoldResult(metrics, fitted.probabilities, data.rows("validation"))

    def _train(
        self, trial: Trial, callbacks: "TrialCallbacks", recipe: Recipe, entry: PoolEntry, data: ImageData, part: str
    ) -> Fit:
        """Trains on one split; `part` names it among several, "" is the only one."""
        weights, redrawn = entry.locate_weights(), bool(part) or self.spec.resplit
        compared = not redrawn and not self.setup.robust  # by what the best trial's value is of
        try:
            if weights is not None and trains_on_features(recipe):
                report = partial(self._report_doing, trial, "features, {} of {} images")
                how: dict[str, Any] = {"on_evaluation": callbacks.on_evaluation, "on_step": callbacks.on_step}
                how |= {"progress": report, "shared": redrawn}
                if (result := fit_on_features(recipe, data, weights, self.device, **how)) is not None:
                    return result
            return fit(
                recipe,
                data,
                weights=weights,
                device=self.device,
                checkpoint=self.artifacts.folder.trial_folder(trial.number) / f"checkpoint{part}.pt",
                # on another split, what it validates on would be known to the network
                last_checkpoint=partial(self._keep_checkpoint, trial) if compared else lambda _: None,
                on_checkpoint=self.artifacts.upload,
                on_evaluation=callbacks.on_evaluation,
                on_step=callbacks.on_step,
                on_out_of_memory=callbacks.on_out_of_memory,
                should_stop=self.stop,
            )
        finally:
            callbacks.write_time()

    def _report_doing(self, trial: Trial, what: str, done: int, total: int) -> None:
        """Reports what is done beside training, and how much of it; raises Parked if it was asked to stop."""
        self.on_progress({"trial": trial.number, "epoch": 0.0, "doing": what.format(done, total)})
        if self.stop(True):
            raise Parked

    def _keep_checkpoint(self, trial: Trial, evaluation: Evaluation) -> Path | None:
        """Returns where to keep the state in which a trial ends: if it is the best, it may be continued."""
        best, value = best_trial(trial.study), evaluation.metrics[self.setup.metric]
        sign = metric_sign(self.setup.metric)
        if best is not None and best.value is not None and sign * best.value >= sign * value:
            return None
        return last_checkpoint(self.artifacts.folder, trial.number)


class TrialCallbacks:
    """The callbacks of `training.fit` for one trial: they report to the storage, the pruner, and whoever watches."""

    def __init__(
        self,
        trial: Trial,
        frozen: FrozenTrial,
        recipe: Recipe,
        metric: str,
        on_progress: OnProgress,
        folds: int = 1,
        read_peak: Callable[[], int | None] = lambda: None,
    ) -> None:
        """Prepares them; `frozen` is what the storage held when the trial was taken, which is not reported again."""
        self._read_peak = read_peak
        self._fold, self._folds = 0, folds
        self._trial, self._recipe, self._metric, self._on_progress = trial, recipe, metric, on_progress
        self._record = record = read_trial_record(frozen)
        self._reported = set(frozen.intermediate_values)
        # With a handful of trials to compare, the pruner would be guessing: the first half of a recipe that is known
        # to be good is spared.
        self._spared = EIGHTHS // 2 if record.known_good else 1
        if record.continues is not None:  # chosen because it is the best, and its schedule has begun anew
            self._spared = EIGHTHS
        self._taken_up = bool(record.recipe)
        self._spent, self._out_of_memory = record.spent, record.out_of_memory
        self._started = time.perf_counter() - self._spent.get("fit_seconds", 0.0)
        self._validation_seconds, self._before = 0.0, 0.0
        self._value: float | None = None

    def on_evaluation(self, evaluation: Evaluation) -> None:
        """Reports a validation, once; raises `optuna.TrialPruned` if the pruner says so."""
        trial, value = self._trial, evaluation.metrics[self._metric]
        self._value = value
        self._validation_seconds += evaluation.validation_seconds
        self._spent["epochs_done"] = round(evaluation.epoch, 3)
        self._spent["train_seconds"] = round(self._before + evaluation.train_seconds, 2)
        self._spent["validation_seconds"] = round(self._validation_seconds, 2)
        if evaluation.eighth in self._reported or self._fold:
            return  # of the other folds, the end alone is reported
        trial.report(value, evaluation.eighth)
        self.write_time()
        # Asked in any case: it is how the pruner learns what this trial's successors are compared with.
        behind = trial.should_prune()
        if behind and self._spared <= evaluation.eighth < EIGHTHS:
            length = f"{evaluation.epoch:.3g} of {self._recipe.epochs:.3g} epochs"
            raise optuna.TrialPruned(f"{self._metric} {value:.4f} after {length} is behind")

    def begin_fold(self, fold: int) -> None:
        """Counts what follows as another fold's."""
        self._fold, self._before = fold, self._spent.get("train_seconds", 0.0)

    def end_fold(self, values: list[float]) -> None:
        """Reports the mean over the folds so far; raises `optuna.TrialPruned` if the pruner says so.

        The first fold has reported its eighths, so that the next folds are the steps after them.
        """
        trial, step, mean = self._trial, EIGHTHS + self._fold, float(np.mean(values))
        if self._fold and step not in self._reported:
            trial.report(mean, step)
        self.write_time()
        behind = trial.should_prune()
        if behind and len(values) < self._folds:
            raise optuna.TrialPruned(f"{self._metric} {mean:.4f} after {len(values)} of {self._folds} folds is behind")

    def on_step(self, done: int, total: int) -> None:
        """Reports where the trial is; writes where it went on, if it was taken up again."""
        epochs = self._recipe.epochs
        if self._taken_up:
            self._taken_up = False
            resumed_at = round(epochs * (done - 1) / total, 3)
            write_trial_record(self._trial, resumed_at=[*self._record.resumed_at, resumed_at])
        epoch = epochs * done / total
        doing = {"doing": f"fold {self._fold + 1} of {self._folds}"} if self._folds > 1 else {}
        self._on_progress({"trial": self._trial.number, "step": done, "epoch": epoch, "value": self._value} | doing)

    def on_out_of_memory(self, event: OutOfMemory) -> None:
        """Writes that memory ran out, and with which micro-batches the trial goes on."""
        print(f"trial {self._trial.number}: {event.describe()}", flush=True)
        sizes = {"micro_batch_size": event.micro_batch_size, "next": event.next_micro_batch_size}
        self._out_of_memory = [*self._out_of_memory, {"step": event.step, "where": event.where} | sizes]
        write_trial_record(self._trial, out_of_memory=self._out_of_memory)
        if event.next_micro_batch_size is not None and event.where != "evaluation":
            self._recipe = self._recipe.with_numerics(micro_batch_size=event.next_micro_batch_size)
            write_trial_record(self._trial, recipe=self._recipe.model_dump_json())

    def write_robust_time(self, seconds: float) -> None:
        """Writes the seconds that scoring degraded copies took, added to those of other folds."""
        self._spent["robust_seconds"] = round(self._spent.get("robust_seconds", 0.0) + seconds, 2)
        write_trial_record(self._trial, spent=dict(self._spent))

    def write_time(self) -> None:
        """Writes what was spent so far, over all resumptions; as one attribute, because each one is a transaction."""
        self._spent["fit_seconds"] = round(time.perf_counter() - self._started, 2)
        if peak := self._read_peak():
            self._spent["peak_bytes"] = max(peak, self._spent.get("peak_bytes", 0))
        write_trial_record(self._trial, spent=dict(self._spent))
