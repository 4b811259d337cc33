"""Losses on soft targets, so that Mixup and CutMix work with each of them.

AutoGluon's Mixup silently replaces focal loss, and timm's turns cross entropy into another class: here a loss takes
soft targets (B, C) always, and a hard label is a soft target with a single 1 (`soft_targets`).
Every loss is the mean over the batch, so that accumulating equal micro-batches gives the whole batch's gradient.

A loss's class takes the training samples of each class, and the fields of the recipe's loss by their names. The script
that `automl export` writes holds a copy of the class.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from automl.errors import RecipeError
from automl.recipe.choices import find_entry
from automl.recipe.learning import CrossEntropy, Focal, Loss
from automl.schema import Part


def make_loss(loss: Loss, class_counts: Sequence[int]) -> nn.Module:
    """Makes the loss of a recipe from the training samples of each class, in class order (C,).

    Returns:
        A module whose `forward(logits, targets)` takes logits (B, C) of any float dtype and soft targets (B, C), and
        returns the mean loss as an fp32 scalar. Move it to the logits' device: class weights are a buffer.

    Raises:
        RecipeError: If there are fewer than two classes, or no samples; if there is no such loss.
    """
    counts = list(class_counts)
    if len(counts) < 2 or sum(counts) < 1 or min(counts) < 0:
        raise RecipeError(f"a loss needs samples of two classes or more, got {counts} samples a class")
    kind = find_entry("training", "loss", loss, LOSSES)
    return kind(torch.tensor(counts), **loss.model_dump(exclude={"name"}))


def soft_targets(labels: Tensor, classes: int) -> Tensor:
    """Turns labels (B,) int64 into soft targets (B, C) fp32 with a single 1 a row."""
    return nn.functional.one_hot(labels, classes).float()


class CrossEntropyLoss(nn.Module):
    """Cross entropy on soft targets: mean over the batch of -Σ wₖ·tₖ·log pₖ.

    Class weights do not enter the mean's denominator (torch's do, for hard labels): the balanced ones average 1 over
    the training samples, and a denominator that varies between micro-batches would break accumulation.
    """

    weights: Tensor | None

    def __init__(self, class_counts: Tensor, smoothing: float, class_weights: str) -> None:
        super().__init__()
        self.smoothing = smoothing
        self.register_buffer("weights", balanced_weights(class_counts) if class_weights == "balanced" else None)

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Computes the mean loss (fp32 scalar) of logits (B, C) against soft targets (B, C)."""
        return nn.functional.cross_entropy(
            logits.float(), targets.float(), weight=self.weights, label_smoothing=self.smoothing
        )


class FocalLoss(nn.Module):
    """Focal loss (Lin et al. 2017, eq. 5), its sum extended to soft targets: -Σ wₖ·tₖ·(1 - pₖ)^γ·log pₖ.

    With hard targets it is the paper's; with γ = 0 and no weights it is cross entropy. `alpha` goes from no weights to
    balanced ones.
    """

    weights: Tensor | None

    def __init__(self, class_counts: Tensor, gamma: float, alpha: float, smoothing: float) -> None:
        super().__init__()
        self.gamma, self.smoothing = gamma, smoothing
        self.register_buffer("weights", (1 - alpha) + alpha * balanced_weights(class_counts) if alpha else None)

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Computes the mean loss (fp32 scalar) of logits (B, C) against soft targets (B, C)."""
        log_p = nn.functional.log_softmax(logits.float(), dim=1)  # (B, C)
        targets = targets.float() * (1 - self.smoothing) + self.smoothing / logits.shape[1]
        # expm1 keeps 1 - p exact near p = 1; below the clamp the slope of x^γ with γ < 1 is infinite, times log p = 0.
        others = (-torch.expm1(log_p)).clamp(min=1e-12)
        loss = -targets * others**self.gamma * log_p
        if self.weights is not None:
            loss = loss * self.weights
        return loss.sum(dim=1).mean()


def balanced_weights(class_counts: Tensor) -> Tensor:
    """Returns weights n / (C·count) (C,) fp32, scikit-learn's "balanced"; 0 for a class without samples."""
    counts = class_counts.double()
    weights = counts.sum() / (len(counts) * counts.clamp(min=1))
    return torch.where(counts > 0, weights, 0.0).float()


LOSSES: dict[type[Part], type[nn.Module]] = {CrossEntropy: CrossEntropyLoss, Focal: FocalLoss}
"""The class that computes each loss of a recipe."""
