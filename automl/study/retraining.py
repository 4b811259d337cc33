"""One retraining of a recipe for a confirmation: resumable, and its predictions and weights on the disk.

checkpoint.pt         while it trains
weights.safetensors   from its end until another recipe is chosen
predictions.npz       from its end; written last, so that where it is, the retraining is done
"""

import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from automl.backbones.weights import Weights, make_model
from automl.data.loader import ImageData
from automl.errors import WeightsError
from automl.files import write_atomically
from automl.recipe import Recipe
from automl.training.checkpoint import weights_on_cpu
from automl.training.evaluation import split_probabilities
from automl.training.fit import fit
from automl.training.types import expected_input

if TYPE_CHECKING:
    from torch import nn

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Retraining:
    """A recipe with one seed, in its folder."""

    trial: int
    recipe: Recipe
    """With the seed of this retraining."""
    folder: Path

    @property
    def predictions(self) -> Path:
        """The validation probabilities."""
        return self.folder / "predictions.npz"

    @property
    def begun(self) -> bool:
        """Whether a checkpoint is there to go on from."""
        return self._checkpoint.exists()

    @property
    def _checkpoint(self) -> Path:
        return self.folder / "checkpoint.pt"

    @property
    def weights(self) -> Path:
        """The trained weights; absent when another recipe was chosen."""
        return self.folder / "weights.safetensors"

    def validation(self, labels: NDArray[np.int64]) -> Floats | None:
        """The validation probabilities (N, C), if they are there and of this recipe on these samples."""
        try:
            with self.predictions.open("rb") as handle, np.load(handle, allow_pickle=False) as file:
                same = str(file["recipe"]) == self.recipe.model_dump_json() and np.array_equal(file["labels"], labels)
                found: Floats = file["validation"]
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):  # none, or a damaged one: train again
            return None
        return found if same and len(found) == len(labels) else None

    def train(
        self,
        data: ImageData,
        pretrained: Weights | None,
        device: str,
        on_step: Callable[[int, int], None],
        should_stop: Callable[[bool], bool],
    ) -> None:
        """Trains, or goes on training, to the end.

        Raises:
            Parked: If `should_stop` said so.
            Diverged: If the loss or the predictions become NaN or infinite.
            AutomlError: As `fit`.
        """
        from safetensors.torch import save_file

        done = fit(
            self.recipe,
            data,
            weights=pretrained,
            device=device,
            checkpoint=self._checkpoint,
            on_step=on_step,
            on_out_of_memory=lambda _: None,  # it goes on: nobody waits to hear of it
            should_stop=should_stop,
        )
        try:
            with write_atomically(self.weights) as temporary:
                save_file(weights_on_cpu(done.model), temporary)
            with write_atomically(self.predictions) as temporary, temporary.open("wb") as file:
                arrays = {"validation": done.probabilities, "labels": data.labels("validation")}
                np.savez(file, recipe=self.recipe.model_dump_json(), **arrays)  # type: ignore[arg-type]
        except OSError as exc:
            raise WeightsError(f"cannot write to {self.folder}: {exc.strerror or exc}; is the disk full?") from exc
        self._checkpoint.unlink(missing_ok=True)

    def load(self, classes: int) -> "nn.Module":
        """The network with the trained weights.

        Raises:
            WeightsError: If the weights are gone or do not fit.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        model = make_model(self.recipe, classes)
        try:
            model.load_state_dict(load_file(self.weights))
        except (RuntimeError, SafetensorError, OSError) as exc:
            raise WeightsError(f"cannot load {self.weights}: {str(exc).strip().splitlines()[0]}") from exc
        return model

    def predict(self, data: ImageData, split: str, device: str) -> Floats:
        """Probabilities (N, C) of a split by the trained weights.

        Raises:
            WeightsError: If the weights are gone or do not fit.
        """
        model = self.load(data.classes)
        found: Floats = split_probabilities(
            model, self.recipe, data, split, expected_input(model, self.recipe, data), device
        )
        return found
