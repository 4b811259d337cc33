"""One trial: parameters → recipe → fit → reports, in a form that another worker can take up again."""

import socket
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import optuna
import torch
from optuna.trial import FrozenTrial, Trial, TrialState

from automl.data.loader import ImageData
from automl.devices import DeviceLost
from automl.errors import AutomlError, DataError, MemoryBudgetError
from automl.files import write_text
from automl.memory.estimate import largest_micro_batch
from automl.recipe import Recipe
from automl.space.space import Space
from automl.spec import StudySpec
from automl.study.folder import StudyFolder
from automl.study.pool import Pool, PoolEntry
from automl.study.storage import StorageLost
from automl.study.study import recipe_of
from automl.study.telling import Telling
from automl.study.views import Views, describe_view, with_face_model
from automl.training.fit import fit
from automl.training.types import Diverged, Fit, Parked
from automl.training.validation_schedule import VALIDATION_SHARE
from automl.units import format_bytes

_LEAST_EPOCHS = 0.05


@dataclass(frozen=True)
class Outcome:
    """How a trial ended, as the storage is told."""

    state: TrialState
    value: float | None = None
    reason: str = ""


@dataclass(frozen=True)
class Objective:
    """Trains one trial at a time."""

    spec: StudySpec
    metric: str
    space: Space
    pool: Pool
    views: Views
    folder: StudyFolder
    device: str
    memory_bytes: int | None
    trial_seconds: float | None
    should_stop: Callable[[bool], bool]
    on_progress: Callable[[dict[str, Any]], None]
    seconds_left: Callable[[], float]
    lost: Callable[[Exception], bool]
    """Whether the device cannot be used any more after an error."""

    def __call__(self, trial: Trial, frozen: FrozenTrial) -> Outcome:
        """Trains a new trial, or one that another worker left behind.

        Args:
            trial: The trial, running.
            frozen: What the storage knew of it when it was taken.

        Raises:
            Parked: If it was told to stop; the trial stays running, to be taken up again.
            StorageLost: If its storage does not answer any more; the trial stays running as well.
            DeviceLost: If this process cannot use its device any more; the trial stays running as well.
        """
        try:
            recipe, entry, data = self._recipe(trial, frozen)
            result = self._fit(trial, frozen, recipe, entry, data)
        except (Parked, StorageLost, KeyboardInterrupt):
            raise
        except optuna.TrialPruned as exc:
            return Outcome(TrialState.PRUNED, reason=str(exc))
        except Diverged as exc:
            return Outcome(TrialState.PRUNED, reason=f"diverged: {exc}")
        except MemoryBudgetError as exc:
            return Outcome(TrialState.PRUNED, reason=str(exc))
        except torch.cuda.OutOfMemoryError as exc:  # of a step it would have been survived
            return Outcome(TrialState.PRUNED, reason=f"the network itself does not fit: {_first_line(exc)}")
        except Exception as exc:
            name = "" if isinstance(exc, AutomlError) else f"{type(exc).__name__}: "
            if self.lost(exc):
                raise DeviceLost(f"{name}{_first_line(exc)}") from exc
            write_text(self.folder.trial(trial.number) / "error.txt", traceback.format_exc())
            return Outcome(TrialState.FAIL, reason=f"{name}{_first_line(exc)}")
        metrics = result.history[-1].metrics
        trial.set_user_attr("metrics", {name: round(value, 6) for name, value in metrics.items()})
        return Outcome(TrialState.COMPLETE, metrics[self.metric])

    # --- the recipe ---------------------------------------------------------------------------------------------

    def _recipe(self, trial: Trial, frozen: FrozenTrial) -> tuple[Recipe, PoolEntry, ImageData]:
        """Draws the recipe, or recalls it when the trial is taken up again; and the samples through its view."""
        if "recipe" in frozen.user_attrs:
            recipe = recipe_of(frozen)
            known = next(e for e in self.pool.entries if e.backbone == recipe.backbone)
            return recipe, known, self._data(trial, recipe)
        values = self.space.suggest(
            trial,
            backbones=len(self.pool.entries),
            self_blend=self.views.dataset.real_class is not None,
            restriction_of=lambda chosen: self.pool.chosen(chosen).restriction,
        )
        entry = self.pool.chosen(values["backbone"])
        trial.set_user_attr("backbone", entry.backbone)
        trial.set_user_attr("host", socket.gethostname())
        given = {"backbone": entry.backbone, "pretrained": entry.weights is not None, "seed": self.spec.seed}
        recipe = Recipe.from_mapping(values | given, f"trial {trial.number}")
        view = with_face_model(recipe.view, self.spec.data.face_model)
        recipe = recipe.model_copy(update={"view": view})
        trial.set_user_attr("view", view.name)
        data = self._data(trial, recipe)
        recipe = self._within_time(recipe, entry, data)
        recipe = recipe.model_copy(update={"numerics": entry.timing.numerics()})
        recipe = self._within_memory(recipe, entry)
        trial.set_user_attr("recipe", recipe.model_dump_json())
        trial.set_user_attr("image_size", recipe.image_size)
        trial.set_user_attr("epochs", recipe.epochs)
        return recipe, entry, data

    def _data(self, trial: Trial, recipe: Recipe) -> ImageData:
        """The samples through the recipe's view, decoded first where no trial had that view before.

        Raises:
            optuna.TrialPruned: If the view shows too little to train on.
            Parked: If it was told to stop meanwhile.
        """

        def progress(done: int, total: int) -> None:
            what = f"decoding {describe_view(recipe.view)}, {done} of {total}"
            self.on_progress({"trial": trial.number, "epoch": 0.0, "doing": what})
            if self.should_stop(True):
                raise Parked

        try:
            return self.views.data(recipe.view, progress)
        except DataError as exc:
            raise optuna.TrialPruned(f"view {recipe.view.name}: {_first_line(exc)}") from exc

    def _within_time(self, recipe: Recipe, entry: PoolEntry, data: ImageData) -> Recipe:
        """Shortens a recipe that would take longer than a trial may, or than there is time left."""
        limit = min(self.trial_seconds or float("inf"), 0.9 * self.seconds_left())
        timing = entry.timing.at(recipe.image_size)
        epoch = len(data.labels("train")) * timing.train_seconds
        validation = int(data.counts("validation").sum()) * timing.evaluation_seconds
        # Validations take a share of the training time, but at least one of them is made.
        epochs = min(limit / (epoch * (1 + VALIDATION_SHARE)), (limit - validation) / epoch)
        if epochs >= recipe.epochs:
            return recipe
        epochs = max(_LEAST_EPOCHS, float(f"{epochs:.2g}"))
        return recipe.model_copy(update={"epochs": epochs, "freeze_epochs": min(recipe.freeze_epochs, epochs / 4)})

    def _within_memory(self, recipe: Recipe, entry: PoolEntry) -> Recipe:
        """Splits the batch so that a micro-batch fits the memory budget.

        Raises:
            MemoryBudgetError: If not even the smallest micro-batch fits.
        """
        if self.memory_bytes is None or entry.fits_all:
            return recipe
        micro = largest_micro_batch(recipe, len(self.views.dataset.classes), entry.limit_for(self.memory_bytes))
        if micro == 0:
            limit = format_bytes(self.memory_bytes)
            raise MemoryBudgetError(
                f"{recipe.backbone} at {recipe.image_size} px does not fit {limit} at any batch size"
            )
        if micro >= recipe.batch_size:
            return recipe
        numerics = recipe.numerics.model_copy(update={"micro_batch_size": micro})
        return recipe.model_copy(update={"numerics": numerics})

    # --- training -----------------------------------------------------------------------------------------------

    def _fit(self, trial: Trial, frozen: FrozenTrial, recipe: Recipe, entry: PoolEntry, data: ImageData) -> Fit:
        """Trains, telling how it goes."""
        telling = Telling(trial, frozen, recipe, self.metric, self.on_progress)
        try:
            return fit(
                recipe,
                data,
                weights=entry.find(),
                device=self.device,
                checkpoint=self.folder.trial(trial.number) / "checkpoint.pt",
                on_evaluation=telling.on_evaluation,
                on_step=telling.on_step,
                on_out_of_memory=telling.on_out_of_memory,
                should_stop=self.should_stop,
            )
        finally:
            telling.note_time()


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else ""
