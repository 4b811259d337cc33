"""A greedy ensemble: which of the models that confirmed a study are averaged, and how much each counts."""

import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from automl.errors import StudyError
from automl.models.combine import choose_weights
from automl.recipe import Recipe
from automl.study.confirm import load_confirmation
from automl.study.folder import StudyFolder
from automl.study.search import open_result

Members = dict[str, tuple[Recipe, float]]
"""The recipe, with its seed, and the weight of each member, by the name of its folder."""


def choose_members(folder: StudyFolder, size: int) -> tuple[Members, bool]:
    """Chooses among the models that confirmed a study (each recipe with each seed) by their validation predictions.

    Args:
        folder: The study's.
        size: Different members at most.

    Returns:
        The members, and whether the study was scored on its holdout, so that they may learn from it.

    Raises:
        StudyError: If the study is not confirmed, or predictions are missing.
    """
    confirmation = load_confirmation(folder)
    if confirmation is None:
        raise StudyError(f"study {folder.name} is not confirmed; run first: {folder.command_line('confirm')}")
    recipes: list[tuple[str, Recipe]] = []
    predictions, labels = [], np.zeros(0, dtype=np.int64)
    for candidate in confirmation.candidates:
        for seed, file in zip(candidate.seeds, candidate.predictions, strict=True):
            recipe = candidate.recipe.model_copy(update={"seed": seed})
            recipes.append((f"{candidate.trial:04d}-{seed}", recipe))
            probabilities, labels = _read_predictions(folder.path / file)
            predictions.append(probabilities)
    positive = open_result(folder).setup.dataset.positive
    weights = choose_weights(predictions, labels, confirmation.metric, positive)
    heaviest = sorted(range(len(recipes)), key=lambda k: -weights[k])[:size]
    if sum(weight > 0 for weight in weights) > size:  # weigh the heaviest again, without the others
        again = choose_weights([predictions[k] for k in heaviest], labels, confirmation.metric, positive)
        weights = [again[heaviest.index(k)] if k in heaviest else 0.0 for k in range(len(recipes))]
    members = {name: (recipe, weight) for (name, recipe), weight in zip(recipes, weights, strict=True) if weight > 0}
    return members, confirmation.holdout is not None


def _read_predictions(path: Path) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Reads the validation probabilities (N, C) and labels (N,) of a model that confirmed."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return file["validation"], file["labels"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as exc:
        raise StudyError(f"cannot read the predictions {path}: {exc}; run automl confirm again") from exc
