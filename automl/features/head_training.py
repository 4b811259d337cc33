"""Trains the head of a frozen network on features that were computed once, in seconds.

What a recipe's head is given does not change while the backbone is frozen, but for augmentation. So of each image a few
looks are computed, once for all trials, and every epoch takes the next one. The loss, the optimizer, the schedule and
what is reported are those of `automl.training.fit`, which trains such a recipe as well: more slowly, and with another
look in every epoch.
"""

import math
import time
from collections.abc import Callable
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from automl.backbones.classifier import CosineClassifier
from automl.backbones.layers import PRE_LOGITS, LayersClassifier
from automl.backbones.weights import Weights, make_model
from automl.data.loader import ImageData
from automl.features.feature_cache import Features, build_features
from automl.recipe import Recipe
from automl.recipe.learning import NoMixing
from automl.recipe.tuning import AttentionHead, TuneHead
from automl.reporter import Progress
from automl.training.evaluation import Predictor
from automl.training.fit import total_steps
from automl.training.loss import make_loss, soft_targets
from automl.training.metrics import all_metrics
from automl.training.optimizer import make_optimizer
from automl.training.schedule import eighth_steps, lr_factor, set_learning_rates
from automl.training.types import Diverged, Evaluation, Fit, expected_input
from automl.views.aggregate import score_clips

LOOKS = 4
"""Of each training image, where the recipe augments: more would take more of the disk than they give."""


_CHECKED = 4
"""Images that the whole network is shown in the end."""

_TOLERANCE = 0.02
"""Of a probability: features are kept in half precision."""


def trains_on_features(recipe: Recipe) -> bool:
    """Returns whether a recipe's head can be trained on features: nothing else learns, and images are not mixed."""
    return (
        isinstance(recipe.tune, TuneHead)
        and isinstance(recipe.mixing, NoMixing)
        and not isinstance(recipe.head, AttentionHead)
        and recipe.pooling == "default"
        and not recipe.augmentation.self_blend
        and not recipe.restarts
    )


def fit_on_features(
    recipe: Recipe,
    data: ImageData,
    weights: Weights | None,
    device: str,
    *,
    on_evaluation: Callable[[Evaluation], None] = lambda _: None,
    on_step: Callable[[int, int], None] = lambda _step, _total: None,
    progress: Progress = lambda _done, _total: None,
    shared: bool = False,
) -> Fit | None:
    """Trains a recipe's head on the features of its frozen backbone; see `trains_on_features`.

    Args:
        recipe: What to train.
        data: On what; its validation split is scored.
        weights: Where the pretrained weights are.
        device: Where features are computed; the head is trained on the CPU.
        on_evaluation: Called after each eighth of the run. What it raises ends the run (a pruned trial).
        on_step: Called after each optimizer step of the head with (steps done, steps in all).
        progress: Called while features are computed, with (images done, images in all); what it raises ends that, and
            what was computed is kept.
        shared: Compute the features of both splits as one, for trials that are split in another way.

    Returns:
        What `fit` returns, with the whole network; None where its head is given something else than these features, as
        the probabilities of some images show.

    Raises:
        Diverged: If the loss becomes NaN or infinite.
        AutomlError: As `build_features` raises.
    """
    torch.manual_seed(recipe.seed)
    network = make_model(recipe, data.classes, weights)
    head = _find_head(network)
    if head is None or weights is None:
        return None
    preprocessing = expected_input(network, recipe, data)
    looks = LOOKS if _is_random(recipe) else 1
    if shared:
        both = build_features(
            recipe, weights, data, "train+validation", device, looks=looks, seed=recipe.seed, progress=progress
        )
        train, validation = (both.select_rows(data.rows(split)) for split in ("train", "validation"))
    else:
        train, validation = (
            build_features(recipe, weights, data, split, device, looks=count, seed=recipe.seed, progress=progress)
            for split, count in (("train", looks), ("validation", 1))
        )
    columns = slice(None)
    if not isinstance(network, LayersClassifier):
        columns = next(layer.columns for layer in train.layers if layer.name == PRE_LOGITS)
    run = _HeadRun(recipe, data, network, head, train, validation, columns)
    probabilities = run.train(on_evaluation, on_step)
    images, _ = next(iter(data.evaluation_batches(recipe, preprocessing, "validation", _CHECKED)))
    own = run.predict_images()[: len(images)]  # before the network goes to its device, and its head with it
    whole = Predictor(network, preprocessing, recipe.numerics, device).predict_batch(images).numpy()
    if np.abs(whole - own).max() > _TOLERANCE:
        return None
    return Fit(network, preprocessing, probabilities, run.history)


class _HeadRun:
    """Everything that changes during a run."""

    def __init__(
        self,
        recipe: Recipe,
        data: ImageData,
        network: nn.Module,
        head: nn.Module,
        train: Features,
        validation: Features,
        columns: slice,
    ) -> None:
        self.recipe, self.data, self.head = recipe, data, head
        self.looks = [torch.from_numpy(np.array(look[:, columns], np.float32)) for look in train.looks]
        self.validated = torch.from_numpy(np.array(validation.looks[0][:, columns], np.float32))
        self.firsts, self.counts = _find_images(train.images.rows)
        self.labels = torch.from_numpy(train.images.labels[self.firsts])
        counts = np.bincount(self.labels.numpy(), minlength=data.classes).tolist()
        self.loss = make_loss(recipe.loss, counts)
        self.optimizer = make_optimizer(recipe, network)
        self.average = None
        if recipe.ema_decay:
            from timm.utils.model_ema import ModelEmaV3

            self.average = ModelEmaV3(head, decay=recipe.ema_decay, use_warmup=True)
        self.history: list[Evaluation] = []

    def train(
        self, on_evaluation: Callable[[Evaluation], None], on_step: Callable[[int, int], None]
    ) -> NDArray[np.float64]:
        """Trains to the end; returns the probabilities of the validation split (N, classes)."""
        recipe, total = self.recipe, total_steps(self.recipe, self.data)
        batch_size, per_epoch = self.data.batch_size(recipe), self.data.steps_per_epoch(recipe)
        eighths, losses = eighth_steps(total), torch.zeros(())
        order = torch.empty(0, dtype=torch.long)
        counted, train_seconds, probabilities = 0, 0.0, np.zeros((0, self.data.classes))
        for step in range(total):
            started = time.perf_counter()
            epoch, position = divmod(step, per_epoch)
            if position == 0:
                order = torch.randperm(
                    len(self.firsts), generator=torch.Generator().manual_seed(recipe.seed + 7919 * epoch)
                )
            chosen = order[position * batch_size : (position + 1) * batch_size]
            losses += self._step(chosen, epoch, lr_factor(recipe.schedule, step, total, recipe.restarts))
            counted += 1
            train_seconds += time.perf_counter() - started
            on_step(step + 1, total)
            if (eighth := eighths.get(step + 1)) is None:
                continue
            if not math.isfinite(float(losses)):
                raise Diverged(f"the loss is not finite after {step + 1} steps")
            started = time.perf_counter()
            probabilities = self._predict()
            metrics = all_metrics(self.data.labels("validation"), probabilities, self.data.positive)
            seconds, loss = time.perf_counter() - started, float(losses) / counted
            moment = Evaluation(eighth, step + 1, (step + 1) / per_epoch, metrics, loss, train_seconds, seconds)
            self.history.append(moment)
            losses, counted = torch.zeros(()), 0
            on_evaluation(moment)
        if self.average is not None:
            self.head.load_state_dict(self.average.module.state_dict())
        return probabilities

    def _step(self, chosen: Tensor, epoch: int, factor: float) -> Tensor:
        """Does one optimizer step on samples; of a clip each epoch takes the next image."""
        set_learning_rates(self.optimizer, factor)
        rows = torch.from_numpy(self.firsts + epoch % self.counts)[chosen]
        features = self.looks[(epoch + 1) % len(self.looks)][rows]
        self.head.train()
        targets = soft_targets(self.labels[chosen], self.data.classes)
        loss: Tensor = self.loss(self.head(features), targets)
        loss.backward()  # type: ignore[no-untyped-call]
        if self.recipe.clip_norm:
            nn.utils.clip_grad_norm_(self.head.parameters(), self.recipe.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.average is not None:
            self.average.update(self.head)
        return loss.detach()

    @torch.inference_mode()
    def predict_images(self) -> NDArray[np.float64]:
        """Predicts the images of the validation split: probabilities (N, classes)."""
        head: nn.Module = self.average.module if self.average is not None else self.head
        return np.asarray(head.eval()(self.validated).double().softmax(dim=1).numpy())

    def _predict(self) -> NDArray[np.float64]:
        """Predicts the samples of the validation split from the probabilities of their images."""
        probabilities = self.predict_images()
        counts = self.data.counts("validation")
        shares = np.bincount(self.data.labels("train"), minlength=self.data.classes)
        return score_clips(
            self.recipe.aggregate, probabilities, counts, self.data.positive, shares / max(1, shares.sum())
        )


def _find_images(rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Finds the first image of each sample among all, and how many each has."""
    _, firsts, counts = np.unique(rows, return_index=True, return_counts=True)
    return firsts.astype(np.int64), counts.astype(np.int64)


def _find_head(network: nn.Module) -> nn.Module | None:
    """Finds what maps features to logits; None where that is more than one module."""
    head = network.get_classifier()  # type: ignore[operator]
    if isinstance(network, LayersClassifier) or isinstance(head, nn.Linear | CosineClassifier | nn.Sequential):
        return cast(nn.Module, head)
    return None


def _is_random(recipe: Recipe) -> bool:
    """Returns whether training images are augmented."""
    plain = recipe.augmentation.model_copy(update={"horizontal_flip": 0.0})
    default = type(plain)(crop=plain.crop, horizontal_flip=0.0)
    crops_alike = plain.crop.name == "squash"
    return bool(recipe.augmentation.horizontal_flip) or plain != default or not crops_alike
