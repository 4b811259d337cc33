"""Replicates: recipes of a study trained again with fresh seeds, one after the other, on one device.

Confirming a study (`automl.study.confirm`) and joining its views (`automl.refit.fused_ensemble`) both train replicates
within a time budget and the study's memory budget, and score them. Each replicate has a folder of its own:

checkpoint.pt         while it trains
weights.safetensors   from its end until another recipe is chosen
predictions.npz       from its end; written last, so that where it is, the replicate is done
"""

import json
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.trial import FrozenTrial
from pydantic import BaseModel, ValidationError

from automl.backbones.weights import make_model
from automl.data.loader import ImageData
from automl.devices import find_devices, open_device
from automl.errors import DataError, RecipeError, StudyError, WeightsError, first_line
from automl.files import write_atomically
from automl.gpu.budget import decide_budget
from automl.gpu.probe import read_context_bytes
from automl.models.fused_ensemble import Scored
from automl.recipe import Recipe
from automl.reporter import STOPS_AT_CHECKPOINT, ConsoleReporter, Reporter, catch_interrupts
from automl.schema import describe_errors
from automl.spec import describe_split
from automl.study.folder import StudyFolder, hold_lock
from automl.study.pool import fit_within_memory
from automl.study.setup import StudySetup, StudyViews, load_setup
from automl.study.spaces import describe_view
from automl.study.storage import Patience, open_study
from automl.study.trial_record import best_first, read_spec, read_trial_record, recipe_of
from automl.training.checkpoint import weights_on_cpu
from automl.training.evaluation import split_probabilities
from automl.training.fit import fit
from automl.training.intervals import describe_methods, metric_interval
from automl.training.metrics import all_metrics, compute_metric
from automl.training.schedule import VALIDATION_SHARE
from automl.training.types import Diverged, Parked, expected_input
from automl.units import format_seconds, parse_memory, parse_seconds

if TYPE_CHECKING:
    from torch import nn

Floats = NDArray[np.float64]
Record = TypeVar("Record", bound=BaseModel)
Scores = TypeVar("Scores")

_MARGIN = 1.15
"""On predicted times: the next training of a recipe may be slower than its trial was."""


@dataclass(frozen=True)
class Replicate:
    """A trial's recipe with one seed, in its folder."""

    trial: int
    recipe: Recipe
    """With the seed of this training."""
    folder: Path
    seconds: float = 0.0
    """That it is predicted to take; 0: not known."""

    @property
    def predictions(self) -> Path:
        """The file of validation probabilities."""
        return self.folder / "predictions.npz"

    @property
    def checkpoint(self) -> Path:
        """What an interrupted training goes on from."""
        return self.folder / "checkpoint.pt"

    @property
    def weights(self) -> Path:
        """The trained weights; absent when another recipe was chosen."""
        return self.folder / "weights.safetensors"

    @property
    def label(self) -> str:
        """Trial, backbone and seed, for a person."""
        view = f", view {self.recipe.view.name}" if self.recipe.view.media != "image" else ""
        return f"trial {self.trial}{view}, {self.recipe.backbone}, seed {self.recipe.seed}"

    def read_validation(self, labels: NDArray[np.int64]) -> Floats | None:
        """Reads the validation probabilities (N, C), if they are of this recipe on samples with these labels (N,)."""
        try:
            with self.predictions.open("rb") as handle, np.load(handle, allow_pickle=False) as file:
                same = is_same_training(self.recipe, json.loads(str(file["recipe"])))
                same = same and np.array_equal(file["labels"], labels)
                probabilities: Floats = file["validation"]
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):  # none, or a damaged one: train again
            return None
        return probabilities if same and len(probabilities) == len(labels) else None

    def train(self, data: ImageData, **how: Any) -> None:
        """Trains to the end, from a checkpoint if there is one, and writes weights and predictions; see `fit`."""
        from safetensors.torch import save_file

        # Where memory runs out, the training goes on with smaller micro-batches.
        done = fit(self.recipe, data, checkpoint=self.checkpoint, on_out_of_memory=lambda _: None, **how)
        try:
            with write_atomically(self.weights) as temporary:
                save_file(weights_on_cpu(done.model), temporary)
            with write_atomically(self.predictions) as temporary, temporary.open("wb") as file:
                arrays = {"validation": done.probabilities, "labels": data.labels("validation")}
                np.savez(file, recipe=self.recipe.model_dump_json(), **arrays)  # type: ignore[arg-type]
        except OSError as exc:
            raise WeightsError(f"cannot write to {self.folder}: {exc.strerror or exc}; is the disk full?") from exc
        self.checkpoint.unlink(missing_ok=True)

    def load_network(self, classes: int) -> "nn.Module":
        """Builds the network and loads the trained weights."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        model = make_model(self.recipe, classes)
        try:
            model.load_state_dict(load_file(self.weights))
        except (RuntimeError, SafetensorError, OSError) as exc:
            raise WeightsError(f"cannot load {self.weights}: {first_line(exc)}") from exc
        return model

    def predict_split(self, data: ImageData, split: str, device: str) -> Floats:
        """Predicts the probabilities (N, C) of a split with the trained weights; errors as `load_network`."""
        model = self.load_network(data.classes)
        expected = expected_input(model, self.recipe, data)
        return np.asarray(split_probabilities(model, self.recipe, data, split, expected, device))


@dataclass
class ReplicateRunner:
    """Trains replicates of a study on one device, and scores them."""

    study: optuna.Study
    folder: StudyFolder
    device: str
    deadline: float
    """In seconds since 1970."""
    reporter: Reporter
    setup: StudySetup
    memory_bytes: int | None
    trust_pool: bool
    """Whether the memory budget is the study's."""
    views: StudyViews = field(init=False)
    data: ImageData = field(init=False)
    """The samples through the best trial's view. All views score the same samples."""
    stopping: bool = False
    pace: float = 1.0
    """Seconds that the last training took, by those predicted."""

    def __post_init__(self) -> None:
        self.views, self.print_line = StudyViews(self.setup, self.device), self.reporter.print_line

    @classmethod
    @contextmanager
    def open_study(
        cls,
        folder: StudyFolder,
        timeout: str | float | None,
        gpu_mem: str | int | None,
        device: str,
        reporter: Reporter | None,
    ) -> Iterator[Self]:
        """Holds a study to train replicates of it, given what the user gave: no other process does meanwhile."""
        deadline = float("inf") if timeout is None else time.time() + parse_seconds(timeout)
        reporter = reporter or ConsoleReporter()
        study = open_study(folder, patience=Patience(print_line=reporter.print_line))
        read_spec(study)
        device = find_devices(device)[0]
        with hold_lock(folder.path / "confirm.lock", wait=False) as held:
            if not held:
                raise StudyError(
                    f"the recipes of study {folder.name} are being trained again by another process (automl confirm "
                    "or automl ensemble); wait until it ends"
                )
            setup = load_setup(study, folder)
            memory_bytes = resolve_budget(gpu_mem, [device], setup.memory_bytes, reporter)
            runner = cls(study, folder, device, deadline, reporter, setup, memory_bytes, gpu_mem is None)
            with stay_within(memory_bytes, device), catch_interrupts(runner.stop):
                yield runner

    def stop(self) -> None:
        """Stops at the next checkpoint."""
        self.stopping = True
        self.reporter.show_stop(STOPS_AT_CHECKPOINT)

    # --- what to train ----------------------------------------------------------------------------------------------

    def best_trials(self, kind: Callable[[Recipe], str], most: int | None = None) -> list[FrozenTrial]:
        """Finds the best complete trial of each kind of recipe, best first; decodes what their views show.

        A trial that is a better one's beginning is a part of it, not a recipe of its own.
        """
        best: dict[str, FrozenTrial] = {}
        beginnings: set[int | None] = set()
        for trial in best_first(self.study):
            if trial.number not in beginnings:
                best.setdefault(kind(recipe_of(trial)), trial)
            beginnings.add(read_trial_record(trial).continues)
        if not best:
            raise StudyError(f"study {self.folder.name} has no complete trial; continue it with automl search")
        trials = list(best.values())[:most]
        views = [recipe_of(trial).view for trial in trials]
        for view in views:
            with self.reporter.show_progress(f"decoding {describe_view(view)}") as progress:
                self.views.open_view(view, progress)
        self.data = self.views.open_view(views[0])
        return trials

    def make_replicate(self, trial: FrozenTrial, number: int) -> Replicate:
        """Takes the trial's recipe with a fresh seed, the first (0) or a later one, split to fit the memory.

        Fresh are the seeds after the search's own, which won among many: it is not what the recipe is worth.
        """
        seed = (read_spec(self.study).seed + 1 + number) % 2**32
        recipe = recipe_of(trial).model_copy(update={"seed": seed})
        entry = self.setup.pool.find_entry(recipe.backbone)
        classes = len(self.setup.dataset.classes)
        recipe = fit_within_memory(recipe, entry, classes, self.memory_bytes, trust_pool=self.trust_pool)
        seconds = read_trial_record(trial).spent.get("fit_seconds", 0.0)
        if not seconds and entry is not None:  # as its backbone was timed
            images = recipe.epochs * len(self.data.labels("train"))
            seconds = images * entry.timing.scale_to_recipe(recipe).train_seconds * (1 + VALIDATION_SHARE)
        return Replicate(trial.number, recipe, self.folder.replicate_folder(trial.number, seed), seconds)

    def needed_seconds(self, replicate: Replicate) -> float:
        """Predicts, with a margin, the seconds that a replicate still needs: none if it is done."""
        return 0.0 if self.is_done(replicate) else _MARGIN * replicate.seconds

    @property
    def seconds_left(self) -> float:
        """Seconds until the deadline."""
        return max(0.0, self.deadline - time.time())

    # --- training ---------------------------------------------------------------------------------------------------

    def is_done(self, replicate: Replicate) -> bool:
        """Reports whether all is there that is needed of a replicate."""
        return replicate.read_validation(self.data.labels("validation")) is not None

    def train_all(self, planned: Sequence[Replicate], command: str) -> list[Replicate]:
        """Trains one replicate after the other, until all are done, the time is up or Ctrl-C.

        Returns:
            The replicates that are done, without recipes that diverged; none when it was stopped: then it is reported
            that the command goes on where this stopped.
        """
        labels, done, diverged = self.data.labels("validation"), list[Replicate](), set[int]()
        for number, replicate in enumerate(planned, start=1):
            label = f"{number} of {len(planned)}: {replicate.label}"
            if replicate.trial in diverged:
                continue
            if not self.is_done(replicate):
                if done and self.pace * replicate.seconds > self.seconds_left:
                    self.print_line(f"{label}: no time left for it")
                    break
                try:
                    self.train_one(replicate, label)
                except Parked:
                    self.print_line(f"{label}: stopped at a checkpoint")
                    break
                except Diverged as exc:
                    self.print_line(f"{label}: {exc}; this recipe is left out")
                    diverged.add(replicate.trial)
                    continue
            done.append(replicate)
            value = compute_metric(self.setup.metric, labels, self.read_validation(replicate), self.data.positive)
            self.print_line(f"{label}: validation {self.setup.metric} {value:.4f}")
        if not self.stopping and diverged >= {replicate.trial for replicate in planned}:
            raise StudyError(
                "every recipe diverged with a fresh seed; lower the learning rates of the search space and search anew"
            )
        done = [replicate for replicate in done if replicate.trial not in diverged]
        if done and not self.stopping:
            return done
        self.print_line(f"stopped before the end; {self.folder.command_line(command)} goes on where this stopped")
        return []

    def train_one(self, replicate: Replicate, label: str) -> None:
        """Trains a replicate, which a label names for the reporter, to the end.

        Raises:
            Parked: If the time is up, or it was asked to stop.
            Diverged: If the loss is not finite.
        """
        self.print_line(f"{label}: about {format_seconds(self.pace * replicate.seconds)}")
        entry = self.setup.pool.find_entry(replicate.recipe.backbone)
        started, resumes = time.monotonic(), replicate.checkpoint.exists()
        with self.reporter.show_progress(label) as progress:
            replicate.train(
                self.views.open_view(replicate.recipe.view),
                weights=entry.locate_weights() if entry else None,
                device=self.device,
                on_step=progress,
                should_stop=lambda _at_checkpoint: self.stopping or time.time() > self.deadline,
            )
        if replicate.seconds and not resumes:  # what was resumed took less than the whole
            self.pace = max(0.5, (time.monotonic() - started) / replicate.seconds)

    # --- scoring ----------------------------------------------------------------------------------------------------

    def read_validation(self, replicate: Replicate) -> Floats:
        """Reads the validation probabilities (N, C) of a replicate that is done."""
        probabilities = replicate.read_validation(self.data.labels("validation"))
        if probabilities is None:
            raise StudyError(f"cannot read {replicate.predictions} again; is the disk full?")
        return probabilities

    def score_split(self, split: str, models: Sequence[Any]) -> Scored:
        """Measures models on a split, given their probabilities (N, C): the metric, its interval, and all metrics.

        Raises:
            DataError: If the split has one class only, and the metric compares classes.
        """
        labels, positive = self.data.labels(split), self.data.positive
        every = [all_metrics(labels, probabilities, positive) for probabilities in models]
        means = {name: float(np.mean([metrics[name] for metrics in every])) for name in every[0]}
        interval = metric_interval(self.setup.metric, labels, models, positive, self.split_groups(split))
        return Scored(interval=interval, metrics=means)

    def score_holdout(self, score: Callable[[], Scores]) -> tuple[Scores | None, str]:
        """Calls what scores the holdout; returns its result or, where there can be none, None and what is missing."""
        if not self.holdout_samples:
            return None, "holdout: no readable sample was set aside (--holdout-fraction of automl search)"
        try:
            return score(), ""
        except DataError as exc:
            return None, f"score on the holdout: {exc}"

    def warn_of_holdout(self, times_scored: int) -> None:
        """Warns if the holdout was scored before."""
        if times_scored and self.holdout_samples:
            self.print_line(
                "warning: the holdout was scored before: it is no longer unseen, and its score may be a little too good"
            )

    def describe_scoring(self, times_scored: int, holdout_note: str) -> dict[str, Any]:
        """Returns the fields of `SplitScores`, given how often the holdout was scored before and why it is not now."""
        scored = not holdout_note
        splits = ("validation", "holdout") if scored else ("validation",)
        return {
            "metric": self.setup.metric,
            "interval_method": describe_methods({name: self.split_groups(name) for name in splits}),
            "validation_samples": len(self.data.rows("validation")),
            "holdout_samples": self.holdout_samples,
            "holdout_note": holdout_note,
            "validation_kind": describe_split(read_spec(self.study)),
            "times_scored": times_scored + scored,
        }

    def split_groups(self, split: str) -> NDArray[Any]:
        """Lists the group of each sample of a split, (N,)."""
        groups: NDArray[Any] = self.setup.dataset.samples["group"].to_numpy()[self.data.rows(split)]
        return groups

    @property
    def holdout_samples(self) -> int:
        """Samples that were set aside, and can be read."""
        try:
            return len(self.data.rows("holdout"))
        except DataError:
            return 0


def is_same_training(recipe: Recipe, other: dict[str, Any]) -> bool:
    """Compares a recipe with another one's plain data: the same but for the micro-batch, which a budget decides.

    Fields that the other one lacks, as of an earlier version, stand at their defaults.
    """
    try:
        written = Recipe.from_mapping(other)
    except RecipeError:
        return False
    return recipe.with_numerics(micro_batch_size=None) == written.with_numerics(micro_batch_size=None)


def resolve_budget(
    gpu_mem: str | int | None, devices: Sequence[str], otherwise: int | None, reporter: Reporter
) -> int | None:
    """Decides how many bytes of GPU memory a process may take, the CUDA context included; None: no limit."""
    if gpu_mem is None:
        return otherwise
    budget = decide_budget(parse_memory(gpu_mem), devices)
    for line in budget.notes:
        reporter.print_line(line)
    return budget.bytes


@contextmanager
def stay_within(memory_bytes: int | None, device: str) -> Iterator[None]:
    """Keeps this process within a memory budget on a device while the block runs; gives back what it kept."""
    process = open_device(device)
    process.limit_memory(memory_bytes, read_context_bytes(device))
    try:
        yield
    finally:
        process.release_memory()
        if memory_bytes is not None and (total_bytes := process.limit_memory(None, 0)) is not None:
            process.limit_memory(total_bytes, 0)  # a caller's own work afterwards has all of the device again


def read_record(path: Path, kind: type[Record], remedy: str) -> Record | None:
    """Reads a JSON file of a study's folder; None if there is none, and the remedy in the error if it is damaged."""
    try:
        return kind.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise StudyError(f"cannot read {path}: {exc.strerror}") from exc
    except ValidationError as exc:
        raise StudyError(
            f"{describe_errors(exc, str(path), model=kind)}\nit is damaged: delete it and {remedy}"
        ) from exc
