"""One honest training loop: a recipe and data in, evaluations out. It knows nothing of Optuna.

Precision, accumulation, EMA, a learning rate per step, validation at fixed fractions of the run, and a checkpoint at
every validation and every epoch, from which a killed run goes on with the same data in the same order.
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
from automl.training.cadence import evaluation_steps
from automl.training.checkpoint import load_checkpoint, save_checkpoint
from automl.training.losses import make_loss, soft_targets
from automl.training.metrics import all_metrics
from automl.training.mixing import make_mixing
from automl.training.model import Preprocessing, Weights, make_model, preprocessing
from automl.training.numerics import autocast
from automl.training.optimizers import freeze_backbone, make_optimizer
from automl.training.schedules import lr_factor, set_learning_rates

__all__ = ["Data", "Diverged", "Evaluation", "Fit", "Parked", "fit", "total_steps"]


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
        self, recipe: Recipe, interpolation: str, first: int, last: int
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


@dataclass
class Fit:
    """What a finished run leaves behind."""

    model: nn.Module
    """With the weights that were evaluated last (the EMA's, if the recipe has one)."""
    preprocessing: Preprocessing
    probabilities: "np.ndarray[Any, Any]"
    """Of the validation split, (N, classes) float64."""
    history: list[Evaluation] = field(default_factory=list)


def fit(
    recipe: Recipe,
    data: Data,
    *,
    weights: Weights | None = None,
    device: str = "cpu",
    checkpoint: Path | None = None,
    on_evaluation: Callable[[Evaluation], None] = lambda _: None,
    on_step: Callable[[int, int], None] = lambda _step, _total: None,
    should_stop: Callable[[bool], bool] = lambda _at_checkpoint: False,
) -> Fit:
    """Trains a recipe.

    Args:
        recipe: What to train.
        data: On what.
        weights: Where the pretrained weights are; None: random initialisation.
        device: `cpu`, `cuda` or `cuda:N`.
        checkpoint: File to resume from, if it is there, and to write to.
        on_evaluation: Called after each validation, and once for each validation a resumed run has behind it. What
            it raises ends the run (a pruned trial).
        on_step: Called after each optimizer step with (steps done, steps in all).
        should_stop: Asked after each step, with whether a checkpoint was just written; True parks the run.

    Returns:
        The trained model, the validation probabilities and the history.

    Raises:
        Parked: If `should_stop` said so.
        Diverged: If the loss or the predictions become NaN or infinite.
        RecipeError: If the recipe does not fit the backbone.
        WeightsError: If weights or checkpoint cannot be read or written.
    """
    run = _Run(recipe, data, weights, device)
    run.resume(checkpoint)
    for evaluation in run.history:
        on_evaluation(evaluation)
    images = [len(data.labels(split)) for split in ("train", "validation")]
    evaluations = evaluation_steps(run.total, recipe.epochs, *images)
    per_epoch = data.steps_per_epoch(recipe)
    batches = data.train_batches(recipe, run.preprocessing.interpolation, run.step, run.total)
    for batch, labels in batches:
        run.train_step(batch, labels)
        on_step(run.step, run.total)
        eighth = evaluations.get(run.step)
        if eighth:
            run.evaluate(eighth, run.step / per_epoch)
        at_checkpoint = eighth is not None or run.step % per_epoch == 0
        stop = should_stop(at_checkpoint)
        if checkpoint is not None and run.step < run.total and (at_checkpoint or stop):
            run.save(checkpoint)
        if eighth:
            on_evaluation(run.history[-1])
        if stop and run.step < run.total:
            raise Parked
    return Fit(run.evaluated_model(), run.preprocessing, run.probabilities, run.history)


def total_steps(recipe: Recipe, data: Data) -> int:
    """Optimizer steps of the whole run, at least 1."""
    return max(1, round(recipe.epochs * data.steps_per_epoch(recipe)))


class _Run:
    """Everything that changes during a run, and how one step and one evaluation change it."""

    def __init__(self, recipe: Recipe, data: Data, weights: Weights | None, device: str) -> None:
        torch.manual_seed(recipe.seed)
        self.recipe, self.data, self.device = recipe, data, torch.device(device)
        numerics = recipe.numerics
        self.layout = torch.channels_last if numerics.memory_format == "channels_last" else torch.contiguous_format
        model = make_model(recipe, data.classes, weights)
        self.preprocessing = preprocessing(model)
        self.model = model.to(self.device).to(memory_format=self.layout)
        self.optimizer = make_optimizer(recipe, self.model)
        self.ema = self._make_ema()
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=numerics.precision == "fp16")
        counts = np.bincount(data.labels("train"), minlength=data.classes).tolist()
        self.loss = make_loss(recipe.loss, counts).to(self.device)
        self.mix = make_mixing(recipe.mixing, data.classes, recipe.seed)
        self.total = total_steps(recipe, data)
        self.frozen_steps = min(self.total, round(recipe.freeze_epochs * data.steps_per_epoch(recipe)))
        scale = 255 * torch.tensor([self.preprocessing.mean, self.preprocessing.std], device=self.device)
        self.mean, self.std = scale.view(2, 3, 1, 1)
        self.step = 0
        self.train_seconds = 0.0
        self.loss_sum = torch.zeros((), device=self.device)
        self.loss_steps = 0
        self.history: list[Evaluation] = []
        self.probabilities = np.zeros((0, data.classes))

    def train_step(self, images: Tensor, labels: Tensor) -> None:
        """One optimizer step on a batch of (B, 3, S, S) uint8 images, in micro-batches."""
        started = time.perf_counter()
        recipe = self.recipe
        # What dropout and drop path draw depends on (seed, step) alone: a resumed run draws the same.
        torch.manual_seed(int(np.random.SeedSequence([recipe.seed % 2**32, self.step]).generate_state(1)[0]))
        self.model.train()
        freeze_backbone(self.model, self.step < self.frozen_steps)
        set_learning_rates(self.optimizer, lr_factor(recipe.schedule, self.step, self.total))
        targets = soft_targets(labels.to(self.device, non_blocking=True), self.data.classes)
        inputs, targets = self.mix(self._inputs(images), targets, self.step)
        micro = recipe.numerics.micro_batch_size or len(inputs)
        for part, wanted in zip(torch.split(inputs, micro), torch.split(targets, micro), strict=True):
            with autocast(self.device, self.recipe.numerics.precision):
                logits = self.model(part)
            # Each part counts by its size, so that a short last part does not weigh more.
            loss = self.loss(logits.float(), wanted) * (len(part) / len(inputs))
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

    def evaluate(self, eighth: int, epoch: float) -> None:
        """Validates, and appends to the history."""
        self._check_loss()
        started = time.perf_counter()
        self.probabilities = self._predict("validation")
        if not np.isfinite(self.probabilities).all():
            raise Diverged(f"the predictions are not finite after {epoch:.2f} epochs")
        metrics = all_metrics(self.data.labels("validation"), self.probabilities, self.data.positive)
        seconds = time.perf_counter() - started
        loss = float(self.loss_sum) / max(1, self.loss_steps)
        self.loss_sum.zero_()
        self.loss_steps = 0
        self.history.append(Evaluation(eighth, self.step, epoch, metrics, loss, self.train_seconds, seconds))

    def evaluated_model(self) -> nn.Module:
        """The EMA's weights where there is an EMA."""
        if self.ema is None:
            return self.model
        module: nn.Module = self.ema.module
        return module

    def save(self, path: Path) -> None:
        """Writes everything `resume` needs."""
        state = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "ema": self.ema.module.state_dict() if self.ema is not None else None,
            "scaler": self.scaler.state_dict(),
            "progress": [self.step, self.train_seconds, float(self.loss_sum), self.loss_steps],
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

    def _inputs(self, images: Tensor) -> Tensor:
        """(B, 3, S, S) uint8 → normalised float32 on the device."""
        pixels = images.to(self.device, non_blocking=True).float()
        return pixels.sub_(self.mean).div_(self.std).contiguous(memory_format=self.layout)

    @torch.inference_mode()
    def _predict(self, split: str) -> "np.ndarray[Any, Any]":
        """Probabilities (N, classes) float64 of a split."""
        model = self.evaluated_model().eval()
        size = self.recipe.numerics.micro_batch_size or self.data.batch_size(self.recipe)
        parts = []
        loaded = self.data.evaluation_batches(self.recipe, self.preprocessing, split, size)
        for images, _ in loaded:
            with autocast(self.device, self.recipe.numerics.precision):
                logits = model(self._inputs(images))
            parts.append(logits.double().softmax(dim=1).cpu())
        return torch.cat(parts).numpy()

    def _check_loss(self) -> None:
        if not bool(torch.isfinite(self.loss_sum)):
            raise Diverged(f"the loss is not finite after {self.step} steps")
