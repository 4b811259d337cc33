"""What a training is given, and what it hands back."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

from torch import Tensor, nn

from automl.backbones.input import Preprocessing, read_preprocessing
from automl.recipe import Recipe
from automl.views.base import ClipView

if TYPE_CHECKING:
    import numpy as np

Color = tuple[float, float, float]


class Parked(Exception):  # noqa: N818 - not an error: the run stopped at a checkpoint and can go on
    """The run was asked to stop; its checkpoint is written."""


class Diverged(Exception):  # noqa: N818 - a result of the recipe, not an error of the program
    """The loss or the predictions are not finite."""


class Data(Protocol):
    """What the loop needs of a data set; `automl.data.loader.ImageData` is one.

    `labels` are those of samples, of which `counts` says how many images each has in evaluation; in training each
    shows one image an epoch. `channel_statistics` are mean and standard deviation of the training images, in [0, 1].
    """

    @property
    def classes(self) -> int: ...  # noqa: D102
    @property
    def positive(self) -> int: ...  # noqa: D102
    def labels(self, split: str) -> "np.ndarray[Any, Any]": ...  # noqa: D102
    def counts(self, split: str) -> "np.ndarray[Any, Any]": ...  # noqa: D102
    def channel_statistics(self) -> tuple[Color, Color]: ...  # noqa: D102
    def batch_size(self, recipe: Recipe) -> int: ...  # noqa: D102
    def steps_per_epoch(self, recipe: Recipe) -> int: ...  # noqa: D102
    def train_batches(  # noqa: D102
        self, recipe: Recipe, interpolation: str, first: int, last: int, share: slice = slice(None)
    ) -> Iterable[tuple[Tensor, Tensor]]: ...
    def evaluation_batches(  # noqa: D102
        self, recipe: Recipe, preprocessing: Preprocessing, split: str, batch_size: int
    ) -> Iterable[tuple[Tensor, Tensor]]: ...


def expected_input(model: nn.Module, recipe: Recipe, data: Data) -> Preprocessing:
    """Returns what a network learns to expect of its input: normalised as its weights were trained, or by the data."""
    own = read_preprocessing(model)
    if isinstance(recipe.view, ClipView) and recipe.view.normalize == "dataset":
        mean, std = data.channel_statistics()
        return replace(own, mean=mean, std=std)
    return own


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
    """A run at one of its eighths; the numbers are as in `Evaluation`."""

    eighth: int
    step: int
    epoch: float
    train_loss: float
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
