"""The training loop: a recipe and data in, a trained network and its evaluations out. It knows nothing of Optuna.

Precision, accumulation, EMA, a learning rate per step, validation at fixed fractions of the run, and a checkpoint at
every validation and every epoch, from which a killed run goes on with the same data in the same order. A step for which
memory does not suffice is repeated with smaller micro-batches (`training.out_of_memory`). Under torchrun each process
trains on its share of every batch (`training.distributed`), and the first one validates and saves.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from automl.backbones.heads import freeze_backbone, hold_statistics
from automl.backbones.tuning import name_changed
from automl.backbones.weights import Weights, make_model
from automl.devices import free_cached_memory
from automl.errors import WeightsError
from automl.recipe import Recipe
from automl.training.checkpoint import load_checkpoint, save_checkpoint
from automl.training.distributed import current_process_group
from automl.training.evaluation import Normalize, split_probabilities
from automl.training.loss import make_loss, soft_targets
from automl.training.metrics import all_metrics
from automl.training.mixing import make_mixing
from automl.training.optimizer import make_optimizer
from automl.training.out_of_memory import BufferBackup, MicroBatches, OutOfMemory
from automl.training.precision import autocast
from automl.training.schedule import EIGHTHS, eighth_steps, evaluation_steps, lr_factor, set_learning_rates
from automl.training.thread_count import ThreadCount
from automl.training.types import Data, Diverged, Evaluation, Fit, Parked, Snapshot, expected_input

_LARGE_SPLIT = 200
"""Samples; a half of fewer is too noisy to prune by."""


def fit(
    recipe: Recipe,
    data: Data,
    *,
    weights: Weights | None = None,
    device: str = "cpu",
    checkpoint: Path | None = None,
    last_checkpoint: Callable[[Evaluation], Path | None] = lambda _: None,
    on_checkpoint: Callable[[Path], None] = lambda _: None,
    evaluate: str | None = "validation",
    on_evaluation: Callable[[Evaluation], None] = lambda _: None,
    on_step: Callable[[int, int], None] = lambda _step, _total: None,
    on_snapshot: Callable[[Snapshot], None] = lambda _: None,
    on_out_of_memory: Callable[[OutOfMemory], None] | None = None,
    should_stop: Callable[[bool], bool] = lambda _at_checkpoint: False,
) -> Fit:
    """Trains a recipe on data.

    In a group of processes (`distributed.join_process_group`) each calls this with the same arguments; the callbacks
    but `should_stop` are called in the first process alone, and the others return a Fit without history.

    Args:
        recipe: What to train.
        data: On what.
        weights: Where the pretrained weights are; None: random initialisation.
        device: Where to train.
        checkpoint: File to resume from, if it is there, and to write to.
        last_checkpoint: Called with the last validation; returns the file to write the finished run's state to, from
            which a longer run can go on. None: it is not kept.
        on_checkpoint: Called with each of these files when it is written.
        evaluate: The split to validate on; None: no validation, and the data need no other split than `train`.
        on_evaluation: Called after each validation, and for each that a resumed run has behind it. What it raises
            ends the run (a pruned trial).
        on_step: Called after each optimizer step with (steps done, steps in all).
        on_snapshot: Called after each validation (without validation: at each eighth), before the checkpoint: what it
            keeps on the disk is there when a killed run goes on from that checkpoint.
        on_out_of_memory: Called each time memory ran out. The step is then repeated with smaller micro-batches; where
            the optimizer may have changed half of the weights, the run goes back to its checkpoint (without one, to
            its beginning), and counts its steps from there. None, or several processes, of which none can change its
            micro-batch alone: running out of memory in a training step ends the run.
        should_stop: Called after each step, with whether a checkpoint is being written; True parks the run. Of several
            processes, all call it, and its result counts at checkpoints alone.

    Raises:
        Parked: If `should_stop` returned True.
        Diverged: If the loss or the predictions become NaN or infinite.
        MemoryBudgetError: If memory ran out three times, resumptions included, or with the smallest micro-batch.
        RecipeError: If the recipe does not fit the backbone.
        WeightsError: If weights or checkpoint cannot be read or written.
        torch.OutOfMemoryError: If the network itself does not fit, or without `on_out_of_memory`.
    """
    run = _Run(recipe, data, weights, device, evaluate, on_out_of_memory)
    run.load_checkpoint(checkpoint)
    reported = {evaluation.step for evaluation in run.history}
    for evaluation in run.history if run.group.is_first else ():
        on_evaluation(evaluation)
    eighths = run.plan_eighths()
    per_epoch = data.steps_per_epoch(recipe)

    def save(path: Path) -> None:
        run.save_checkpoint(path)
        if run.group.is_first:
            on_checkpoint(path)

    def after_step() -> None:
        """Validates, saves, reports and parks the run, where it is time to."""
        if run.group.is_first:
            on_step(run.step, run.total)
        eighth = eighths.get(run.step)
        snapshot = run.take_snapshot(eighth, run.step / per_epoch) if eighth else None
        if snapshot and run.group.is_first:
            on_snapshot(snapshot)
        at_checkpoint = eighth is not None or run.step % per_epoch == 0
        stop = should_stop(at_checkpoint)
        if run.group.size > 1:  # they agree at checkpoints alone, because it waits for a GPU
            stop = at_checkpoint and run.group.any_process(stop, run.device)
        if checkpoint is not None and run.step < run.total and (at_checkpoint or stop):
            save(checkpoint)
        if snapshot and snapshot.evaluation and run.step not in reported:
            reported.add(run.step)
            on_evaluation(snapshot.evaluation)
            if run.step == run.total and (last := last_checkpoint(snapshot.evaluation)) is not None:
                save(last)
        if stop and run.step < run.total:
            raise Parked

    try:
        while run.step < run.total:
            for batch, labels in run.load_batches():
                if not run.train_step(batch, labels):
                    run.go_back(checkpoint)
                    break
                after_step()
    finally:
        run.threads.restore()
    return Fit(run.evaluated_model, run.preprocessing, run.probabilities, run.history)


def total_steps(recipe: Recipe, data: Data) -> int:
    """Returns the optimizer steps of the whole run, at least 1."""
    return max(1, round(recipe.epochs * data.steps_per_epoch(recipe)))


class _Run:
    """Everything that changes during a run, and how one step and one evaluation change it."""

    def __init__(
        self,
        recipe: Recipe,
        data: Data,
        weights: Weights | None,
        device: str,
        evaluated: str | None,
        on_out_of_memory: Callable[[OutOfMemory], None] | None,
    ) -> None:
        self.recipe, self.data, self.weights = recipe, data, weights
        self.device, self.evaluated = torch.device(device), evaluated
        self.group = current_process_group()
        self.batch_size = data.batch_size(recipe)
        counts = np.bincount(data.labels("train"), minlength=data.classes).tolist()
        self.loss = make_loss(recipe.loss, counts).to(self.device)
        self.mix = make_mixing(recipe.mixing, data.classes, recipe.seed)
        self.total = total_steps(recipe, data)
        self.frozen_steps = min(self.total, round(recipe.freeze_epochs * data.steps_per_epoch(recipe)))
        self.threads = ThreadCount(self.device)
        self.make_state()
        shares = self.batch_size // self.group.size, -(-self.batch_size // self.group.size)
        callback = on_out_of_memory if self.group.size == 1 else None
        self.micro = MicroBatches(self.model, shares, recipe.numerics.micro_batch_size, callback)

    def make_state(self) -> None:
        """Makes everything that training changes."""
        recipe = self.recipe
        torch.manual_seed(recipe.seed)
        model = make_model(recipe, self.data.classes, self.weights)
        self.preprocessing = expected_input(model, recipe, self.data)
        self.normalize = Normalize(self.preprocessing, recipe.numerics, self.device)
        self.model = self.group.synchronise_batchnorms(model.to(self.device).to(memory_format=self.normalize.layout))
        self.kept = None if recipe.tune.name == "all" else name_changed(self.model)
        self.buffers = BufferBackup(self.model)
        self.optimizer = make_optimizer(recipe, self.model)
        self.ema: Any = None
        if recipe.ema_decay:
            from timm.utils.model_ema import ModelEmaV3

            # Without a warm-up the average of a short run would be its random beginning.
            self.ema = ModelEmaV3(self.model, decay=recipe.ema_decay, use_warmup=True)
        self.scaler = self._make_scaler()
        self.called = self.group.wrap_model(self.model, partly_frozen=self.frozen_steps > 0)
        self.step = 0
        self.train_seconds = 0.0
        self.loss_sum = torch.zeros((), device=self.device)
        self.loss_steps = 0
        self.history: list[Evaluation] = []
        self.probabilities = np.zeros((0, self.data.classes))

    def go_back(self, checkpoint: Path | None) -> None:
        """Goes back to the checkpoint, or to the beginning; of the state here the micro-batch alone is kept."""
        del self.model, self.called, self.buffers, self.optimizer, self.ema, self.scaler  # or there would be two
        free_cached_memory(self.device)
        self.make_state()
        self.load_checkpoint(checkpoint)

    def plan_eighths(self) -> dict[int, int]:
        """Returns the eighth by the step after which a snapshot is taken."""
        if self.evaluated is None:
            return eighth_steps(self.total)
        if self.recipe.restarts:
            return {self.total: EIGHTHS}  # the schedule has just begun anew: what is in between tells nothing
        images = len(self.data.labels("train")), int(self.data.counts(self.evaluated).sum())
        share = 0.5 if self._choose_early_split(self.evaluated) != self.evaluated else 1.0
        return evaluation_steps(self.total, self.recipe.epochs, *images, early_share=share)

    def load_batches(self) -> Iterable[tuple[Tensor, Tensor]]:
        """Loads what is left to train on: this process's share of each batch."""
        share = {} if self.group.size == 1 else {"share": self.group.share_of_batch(self.batch_size)}
        return self.data.train_batches(self.recipe, self.preprocessing.interpolation, self.step, self.total, **share)

    def train_step(self, images: Tensor, labels: Tensor) -> bool:
        """Does one optimizer step on a batch of (B, 3, S, S) uint8 images, in micro-batches.

        Returns:
            Whether it was done; if not, memory ran out while the weights were changed, and `go_back` must follow.
        """
        started = time.perf_counter()
        set_learning_rates(self.optimizer, lr_factor(self.recipe.schedule, self.step, self.total, self.recipe.restarts))
        self.buffers.save_buffers()
        loss = self.micro.retry_smaller(
            lambda: self._accumulate_gradients(images, labels), self._discard_gradients, self.step, self.device
        )
        if not self.micro.try_once(self._change_weights, self.step):
            return False
        self.loss_sum += loss
        self.step += 1
        self.loss_steps += 1
        # Reading the loss waits for the GPU: not at every step.
        if self.loss_steps % 10 == 0:
            self._check_loss()
        seconds = time.perf_counter() - started
        self.train_seconds += seconds
        self.threads.note_step(seconds)
        return True

    def _accumulate_gradients(self, images: Tensor, labels: Tensor) -> Tensor:
        """Accumulates a batch's gradients; returns its mean loss. May be repeated after `_discard_gradients`."""
        recipe, group = self.recipe, self.group
        # What dropout and drop path draw depends on (seed, step) alone: a resumed run draws the same.
        seeds = [recipe.seed % 2**32, self.step, *([group.rank] if group.rank else [])]
        torch.manual_seed(int(np.random.SeedSequence(seeds).generate_state(1)[0]))
        self.model.train()
        freeze_backbone(self.model, self.step < self.frozen_steps)
        if self.kept is not None:
            hold_statistics(self.model)
        targets = soft_targets(labels.to(self.device, non_blocking=True), self.data.classes)
        inputs, targets = self.mix(self.normalize(images), targets, self.step)
        loss_sum = torch.zeros((), device=self.device)
        parts = self.micro.split_batch(inputs, targets)
        for number, (part, part_targets) in enumerate(parts, start=1):
            with group.average_gradients(self.called, last=number == len(parts)):
                with autocast(self.device, recipe.numerics.precision):
                    logits = self.called(part)
                # Each part counts by its size, so that a smaller one, or a smaller share, does not weigh more;
                # times the processes, over which the gradients are averaged.
                loss = self.loss(logits.float(), part_targets) * (group.size * len(part) / self.batch_size)
                self.scaler.scale(loss).backward()
            loss_sum += loss.detach()
        if recipe.clip_norm:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.model.parameters(), recipe.clip_norm)
        return loss_sum

    def _discard_gradients(self) -> None:
        """Undoes `_accumulate_gradients`: gradients, BatchNorm's statistics, and that the scaler has unscaled."""
        self.model.zero_grad(set_to_none=True)
        self.buffers.restore_buffers()
        state = self.scaler.state_dict()
        self.scaler = self._make_scaler()
        self.scaler.load_state_dict(state)

    def _change_weights(self) -> Literal[True]:
        """Changes the weights by the gradients. It may not be repeated."""
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        if self.ema is not None:
            self.ema.update(self.model, self.step)
        return True

    def take_snapshot(self, eighth: int, epoch: float) -> Snapshot:
        """Validates, if the run does, and begins the next mean of the loss."""
        self._check_loss()
        loss = float(self.group.mean_over_processes(self.loss_sum)) / max(1, self.loss_steps)
        self.loss_sum.zero_()
        self.loss_steps = 0
        evaluation = None
        if self.evaluated is not None:
            split = self.evaluated if eighth == EIGHTHS else self._choose_early_split(self.evaluated)
            evaluation = self._evaluate(split, eighth, epoch, loss)
        return Snapshot(eighth, self.step, epoch, loss, self.train_seconds, self.evaluated_model, evaluation)

    def _choose_early_split(self, split: str) -> str:
        """Returns what a look before the end takes: half of a split that is large, to the pruner the same."""
        return f"{split}/2" if len(self.data.labels(split)) >= _LARGE_SPLIT else split

    def _evaluate(self, split: str, eighth: int, epoch: float, loss: float) -> Evaluation | None:
        """Validates in the first process, and appends to the history."""
        started = time.perf_counter()
        if self.group.is_first:
            self.probabilities = split_probabilities(
                self.evaluated_model,
                self.recipe,
                self.data,
                split,
                self.preprocessing,
                self.device,
                batch_size=self.micro.evaluation_size,
                on_smaller=lambda *sizes: self.micro.note_evaluation(self.step, *sizes),
            )
        if self.group.any_process(not np.isfinite(self.probabilities).all(), self.device):
            raise Diverged(f"the predictions are not finite after {epoch:.2f} epochs")
        if not self.group.is_first:
            return None
        metrics = all_metrics(self.data.labels(split), self.probabilities, self.data.positive)
        seconds = time.perf_counter() - started
        self.history.append(Evaluation(eighth, self.step, epoch, metrics, loss, self.train_seconds, seconds))
        return self.history[-1]

    @property
    def evaluated_model(self) -> nn.Module:
        """The EMA's weights where there is an EMA."""
        return self.ema.module if self.ema is not None else self.model

    def save_checkpoint(self, path: Path) -> None:
        """Writes everything `load_checkpoint` needs; the first process does."""
        loss_sum = float(self.group.mean_over_processes(self.loss_sum))
        if not self.group.is_first:
            return
        state = {
            "model": self._choose_kept(self.model),
            "optimizer": self.optimizer.state_dict(),
            "ema": self._choose_kept(self.ema.module) if self.ema is not None else None,
            "scaler": self.scaler.state_dict(),
            "progress": [self.step, self.train_seconds, loss_sum, self.loss_steps],
            "history": [asdict(evaluation) for evaluation in self.history],
            "micro_batches": self.micro.get_state(),
        }
        save_checkpoint(path, state)

    def load_checkpoint(self, path: Path | None) -> None:
        """Goes on from a checkpoint, if there is one."""
        if path is None or (state := load_checkpoint(path)) is None:
            return
        self.step, self.train_seconds, loss_sum, self.loss_steps = state["progress"]
        self.loss_sum.fill_(loss_sum)
        self._load_kept(self.model, state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if state["scaler"]:  # of a run in fp16 alone, and a run may go on with another precision on another card
            self.scaler.load_state_dict(state["scaler"])
        if self.ema is not None:
            self._load_kept(self.ema.module, state["ema"])
        self.history = [Evaluation(**values) for values in state["history"]]
        self.micro.restore_state(state.get("micro_batches", self.micro.get_state()))

    def _choose_kept(self, model: nn.Module) -> dict[str, Tensor]:
        """Returns what of a network's state is saved: all that training changes, and not what the weights' file has."""
        state = model.state_dict()
        return state if self.kept is None else {name: state[name] for name in state if name in self.kept}

    def _load_kept(self, model: nn.Module, state: dict[str, Tensor]) -> None:
        """Loads what `_choose_kept` returned; the rest is in the network already."""
        if self.kept is None:
            model.load_state_dict(state)
        elif model.load_state_dict(state, strict=False).unexpected_keys:
            raise WeightsError("the checkpoint is of another network than the recipe's")

    def _make_scaler(self) -> torch.amp.GradScaler:
        """Makes the loss scaler, which does something in fp16 alone."""
        return torch.amp.GradScaler(self.device.type, enabled=self.recipe.numerics.precision == "fp16")

    def _check_loss(self) -> None:
        """Raises Diverged if the loss is not finite."""
        if not bool(torch.isfinite(self.group.mean_over_processes(self.loss_sum))):
            raise Diverged(f"the loss is not finite after {self.step} steps")
