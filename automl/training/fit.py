"""One honest training loop: a recipe and data in, evaluations out. It knows nothing of Optuna.

Precision, accumulation, EMA, a learning rate per step, validation at fixed fractions of the run, and a checkpoint at
every validation and every epoch, from which a killed run goes on with the same data in the same order. Under torchrun
each process trains on its share of every batch (`training.distributed`), and the first one validates and saves.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from automl.recipe import Recipe
from automl.training.cadence import eighth_steps, evaluation_steps
from automl.training.checkpoint import load_checkpoint, save_checkpoint
from automl.training.distributed import current_team
from automl.training.evaluate import Normalize, probabilities
from automl.training.losses import make_loss, soft_targets
from automl.training.metrics import all_metrics
from automl.training.mixing import make_mixing
from automl.training.model import Preprocessing, Weights, make_model, preprocessing
from automl.training.numerics import autocast
from automl.training.optimizers import freeze_backbone, make_optimizer
from automl.training.schedules import lr_factor, set_learning_rates

__all__ = ["Data", "Diverged", "Evaluation", "Fit", "Parked", "Snapshot", "fit", "total_steps"]


class Parked(Exception):  # noqa: N818 - not an error: the run stopped at a checkpoint and can go on
    """The run was asked to stop; its checkpoint is written."""


class Diverged(Exception):  # noqa: N818 - a result of the recipe, not an error of the program
    """The loss or the predictions are not finite."""


class Data(Protocol):
    """What the loop needs of a data set; `automl.data.loader.ImageData` is one."""

    @property
    def classes(self) -> int: ...  # noqa: D102
    @property
    def positive(self) -> int: ...  # noqa: D102
    def labels(self, split: str) -> "np.ndarray[Any, Any]": ...  # noqa: D102
    def batch_size(self, recipe: Recipe) -> int: ...  # noqa: D102
    def steps_per_epoch(self, recipe: Recipe) -> int: ...  # noqa: D102
    def train_batches(  # noqa: D102
        self, recipe: Recipe, interpolation: str, first: int, last: int, share: slice = slice(None)
    ) -> Iterable[tuple[Tensor, Tensor]]: ...
    def evaluation_batches(  # noqa: D102
        self, recipe: Recipe, preprocessing: Preprocessing, split: str, batch_size: int
    ) -> Iterable[tuple[Tensor, Tensor]]: ...


@dataclass(frozen=True)
class Evaluation:
    """One validation during a run."""

    eighth: int
    """Eighths of the run that are done, 1 … 8."""
    step: int
    """Optimizer steps that are done."""
    epoch: float
    """Epochs that are done."""
    metrics: dict[str, float]
    train_loss: float
    """Mean over the steps since the last evaluation."""
    train_seconds: float
    """Spent in training steps so far, over all resumptions."""
    validation_seconds: float


@dataclass(frozen=True)
class Snapshot:
    """A run at one of its eighths."""

    eighth: int
    """Eighths of the run that are done, 1 … 8."""
    step: int
    epoch: float
    train_loss: float
    """Mean over the steps since the last snapshot."""
    train_seconds: float
    model: nn.Module
    """With the weights that are evaluated (the EMA's, if the recipe has one); they change with the next step."""
    evaluation: Evaluation | None
    """Of this moment, if the run evaluates."""


@dataclass
class Fit:
    """What a finished run leaves behind."""

    model: nn.Module
    """With the weights that were evaluated last (the EMA's, if the recipe has one)."""
    preprocessing: Preprocessing
    probabilities: "np.ndarray[Any, Any]"
    """Of the evaluated split, (N, classes) float64; empty where none is."""
    history: list[Evaluation] = field(default_factory=list)


def fit(
    recipe: Recipe,
    data: Data,
    *,
    weights: Weights | None = None,
    device: str = "cpu",
    checkpoint: Path | None = None,
    evaluate: str | None = "validation",
    on_evaluation: Callable[[Evaluation], None] = lambda _: None,
    on_step: Callable[[int, int], None] = lambda _step, _total: None,
    on_snapshot: Callable[[Snapshot], None] = lambda _: None,
    should_stop: Callable[[bool], bool] = lambda _at_checkpoint: False,
) -> Fit:
    """Trains a recipe.

    In a group of processes (`distributed.joined`) each calls this with the same arguments; the callbacks but
    `should_stop` are called in the first process alone, and the others return a Fit without history.

    Args:
        recipe: What to train.
        data: On what.
        weights: Where the pretrained weights are; None: random initialisation.
        device: `cpu`, `cuda` or `cuda:N`.
        checkpoint: File to resume from, if it is there, and to write to.
        evaluate: The split to validate on; None: no validation, and the data need no other split than `train`.
        on_evaluation: Called after each validation, and once for each validation a resumed run has behind it. What
            it raises ends the run (a pruned trial).
        on_step: Called after each optimizer step with (steps done, steps in all).
        on_snapshot: Called after each validation (without validation: at each eighth), before the checkpoint: what it
            keeps on the disk is there when a killed run goes on from that checkpoint.
        should_stop: Asked after each step, with whether a checkpoint is being written; True parks the run. Of several
            processes, all are asked, and listened to at checkpoints alone.

    Returns:
        The trained model, the probabilities of the evaluated split and the history.

    Raises:
        Parked: If `should_stop` said so.
        Diverged: If the loss or the predictions become NaN or infinite.
        RecipeError: If the recipe does not fit the backbone.
        WeightsError: If weights or checkpoint cannot be read or written.
    """
    run = _Run(recipe, data, weights, device, evaluate)
    run.resume(checkpoint)
    for evaluation in run.history if run.team.leads else ():
        on_evaluation(evaluation)
    eighths = run.eighths()
    per_epoch = data.steps_per_epoch(recipe)
    for batch, labels in run.batches():
        run.train_step(batch, labels)
        if run.team.leads:
            on_step(run.step, run.total)
        eighth = eighths.get(run.step)
        if eighth:
            snapshot = run.look(eighth, run.step / per_epoch)
            if run.team.leads:
                on_snapshot(snapshot)
        at_checkpoint = eighth is not None or run.step % per_epoch == 0
        stop = run.agrees(should_stop(at_checkpoint), at_checkpoint)
        if checkpoint is not None and run.step < run.total and (at_checkpoint or stop):
            run.save(checkpoint)
        if eighth and snapshot.evaluation:
            on_evaluation(snapshot.evaluation)
        if stop and run.step < run.total:
            raise Parked
    return Fit(run.evaluated_model(), run.preprocessing, run.probabilities, run.history)


def total_steps(recipe: Recipe, data: Data) -> int:
    """Optimizer steps of the whole run, at least 1."""
    return max(1, round(recipe.epochs * data.steps_per_epoch(recipe)))


class _Run:
    """Everything that changes during a run, and how one step and one evaluation change it."""

    def __init__(self, recipe: Recipe, data: Data, weights: Weights | None, device: str, evaluated: str | None) -> None:
        torch.manual_seed(recipe.seed)
        self.recipe, self.data, self.device, self.evaluated = recipe, data, torch.device(device), evaluated
        self.team = current_team()
        self.batch_size = data.batch_size(recipe)
        model = make_model(recipe, data.classes, weights)
        self.preprocessing = preprocessing(model)
        self.normalize = Normalize(self.preprocessing, recipe.numerics, self.device)
        self.model = self.team.synchronised(model.to(self.device).to(memory_format=self.normalize.layout))
        self.optimizer = make_optimizer(recipe, self.model)
        self.ema = self._make_ema()
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=recipe.numerics.precision == "fp16")
        counts = np.bincount(data.labels("train"), minlength=data.classes).tolist()
        self.loss = make_loss(recipe.loss, counts).to(self.device)
        self.mix = make_mixing(recipe.mixing, data.classes, recipe.seed)
        self.total = total_steps(recipe, data)
        self.frozen_steps = min(self.total, round(recipe.freeze_epochs * data.steps_per_epoch(recipe)))
        self.called = self.team.wrap(self.model, partly_frozen=self.frozen_steps > 0)
        self.step = 0
        self.train_seconds = 0.0
        self.loss_sum = torch.zeros((), device=self.device)
        self.loss_steps = 0
        self.history: list[Evaluation] = []
        self.probabilities = np.zeros((0, data.classes))

    def eighths(self) -> dict[int, int]:
        """The eighth by the step at which the run is looked at."""
        if self.evaluated is None:
            return eighth_steps(self.total)
        images = [len(self.data.labels(split)) for split in ("train", self.evaluated)]
        return evaluation_steps(self.total, self.recipe.epochs, *images)

    def batches(self) -> Iterable[tuple[Tensor, Tensor]]:
        """What is left to train on: this process's share of each batch."""
        what = (self.recipe, self.preprocessing.interpolation, self.step, self.total)
        if self.team.size == 1:
            return self.data.train_batches(*what)
        return self.data.train_batches(*what, share=self.team.share(self.batch_size))

    def train_step(self, images: Tensor, labels: Tensor) -> None:
        """One optimizer step on a batch of (B, 3, S, S) uint8 images, in micro-batches."""
        started = time.perf_counter()
        recipe, team = self.recipe, self.team
        # What dropout and drop path draw depends on (seed, step) alone: a resumed run draws the same.
        drawn = [recipe.seed % 2**32, self.step, *([team.rank] if team.rank else [])]
        torch.manual_seed(int(np.random.SeedSequence(drawn).generate_state(1)[0]))
        self.model.train()
        freeze_backbone(self.model, self.step < self.frozen_steps)
        set_learning_rates(self.optimizer, lr_factor(recipe.schedule, self.step, self.total))
        targets = soft_targets(labels.to(self.device, non_blocking=True), self.data.classes)
        inputs, targets = self.mix(self.normalize(images), targets, self.step)
        micro = recipe.numerics.micro_batch_size or len(inputs)
        parts = list(zip(torch.split(inputs, micro), torch.split(targets, micro), strict=True))
        for number, (part, wanted) in enumerate(parts, start=1):
            with team.waits(self.called, last=number == len(parts)):
                with autocast(self.device, recipe.numerics.precision):
                    logits = self.called(part)
                # Each part counts by its size, so that a short last part, or a smaller share, does not weigh more;
                # times the processes, over which the gradients are averaged.
                loss = self.loss(logits.float(), wanted) * (team.size * len(part) / self.batch_size)
                self.scaler.scale(loss).backward()
            self.loss_sum += loss.detach()
        if recipe.clip_norm:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.model.parameters(), recipe.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        if self.ema is not None:
            self.ema.update(self.model, self.step)
        self.step += 1
        self.loss_steps += 1
        # Looking at the loss waits for the GPU: not at every step.
        if self.loss_steps % 10 == 0:
            self._check_loss()
        self.train_seconds += time.perf_counter() - started

    def look(self, eighth: int, epoch: float) -> Snapshot:
        """Validates, if the run does, and begins the next mean of the loss."""
        self._check_loss()
        loss = float(self.team.mean(self.loss_sum)) / max(1, self.loss_steps)
        self.loss_sum.zero_()
        self.loss_steps = 0
        evaluation = None
        if self.evaluated is not None:
            evaluation = self._evaluate(self.evaluated, eighth, epoch, loss)
        model = self.evaluated_model()
        return Snapshot(eighth, self.step, epoch, loss, self.train_seconds, model, evaluation)

    def _evaluate(self, split: str, eighth: int, epoch: float, loss: float) -> Evaluation | None:
        """Validates in the first process, and appends to the history."""
        started = time.perf_counter()
        if self.team.leads:
            size = self.recipe.numerics.micro_batch_size or self.batch_size
            batches = self.data.evaluation_batches(self.recipe, self.preprocessing, split, size)
            precision = self.recipe.numerics.precision
            self.probabilities = probabilities(self.evaluated_model(), batches, self.normalize, precision)
        if self.team.any(not np.isfinite(self.probabilities).all(), self.device):
            raise Diverged(f"the predictions are not finite after {epoch:.2f} epochs")
        if not self.team.leads:
            return None
        metrics = all_metrics(self.data.labels(split), self.probabilities, self.data.positive)
        seconds = time.perf_counter() - started
        self.history.append(Evaluation(eighth, self.step, epoch, metrics, loss, self.train_seconds, seconds))
        return self.history[-1]

    def agrees(self, stop: bool, at_checkpoint: bool) -> bool:
        """Whether to stop; several processes ask each other at checkpoints alone, because asking waits for a GPU."""
        if self.team.size == 1:
            return stop
        return at_checkpoint and self.team.any(stop, self.device)

    def evaluated_model(self) -> nn.Module:
        """The EMA's weights where there is an EMA."""
        if self.ema is None:
            return self.model
        module: nn.Module = self.ema.module
        return module

    def save(self, path: Path) -> None:
        """Writes everything `resume` needs; the first process does."""
        loss_sum = float(self.team.mean(self.loss_sum))
        if not self.team.leads:
            return
        state = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "ema": self.ema.module.state_dict() if self.ema is not None else None,
            "scaler": self.scaler.state_dict(),
            "progress": [self.step, self.train_seconds, loss_sum, self.loss_steps],
            "history": [asdict(evaluation) for evaluation in self.history],
        }
        save_checkpoint(path, state)

    def resume(self, path: Path | None) -> None:
        """Goes on from a checkpoint, if there is one."""
        state = load_checkpoint(path) if path is not None else None
        if state is None:
            return
        self.step, self.train_seconds, loss_sum, self.loss_steps = state["progress"]
        self.loss_sum.fill_(loss_sum)
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        if self.ema is not None:
            self.ema.module.load_state_dict(state["ema"])
        self.history = [Evaluation(**values) for values in state["history"]]

    def _make_ema(self) -> Any:
        if not self.recipe.ema_decay:
            return None
        from timm.utils.model_ema import ModelEmaV3

        # Without a warm-up the average of a short run would be its random beginning.
        return ModelEmaV3(self.model, decay=self.recipe.ema_decay, use_warmup=True)

    def _check_loss(self) -> None:
        if not bool(torch.isfinite(self.team.mean(self.loss_sum))):
            raise Diverged(f"the loss is not finite after {self.step} steps")
