"""What models predict for labelled samples."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from automl.errors import DataError, WeightsError
from automl.evaluation.samples import LabelledSamples
from automl.models.inputs import Item
from automl.models.predict import Model
from automl.reporter import Progress

Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True, eq=False)
class ModelScores:
    """What a model predicts for samples.

    Attributes:
        probabilities: (N, C) float64, in the order of the first model's classes; the training prior where a file cannot
            be read, or shows the model nothing.
        problems: Why, by the number of the sample.
    """

    probabilities: Floats
    problems: dict[int, str]


def name_models(paths: Sequence[Path]) -> list[str]:
    """Names models by their folders; by their whole paths where two folders are called the same."""
    names = [path.resolve().name for path in paths]
    return names if len(set(names)) == len(names) else [str(path) for path in paths]


def check_models(models: Sequence[Model]) -> None:
    """Checks that models have the same classes, so that they can be compared.

    Raises:
        WeightsError: If they have not; with the classes of both.
    """
    first = models[0]
    for other in models[1:]:
        if set(other.classes) != set(first.classes):
            raise WeightsError(
                f"models of different classes cannot be compared: {first.path} has {', '.join(first.classes)}, "
                f"{other.path} has {', '.join(other.classes)}"
            )


def check_media(models: Sequence[Model], samples: LabelledSamples) -> None:
    """Checks that each model looks at files of the samples' kind; raises DataError if not."""
    for model in models:
        if samples.media not in model.media:
            kinds = " or ".join(model.media)
            raise DataError(
                f"{model.path} was trained on {kinds} files, and {samples.root} holds {samples.media} files"
            )


def predict_samples(
    model: Model, classes: Sequence[str], samples: LabelledSamples, tta: str, progress: Progress
) -> ModelScores:
    """Predicts each sample; `classes` are in the order of the result, and `tta` is as for `Model.predict`."""
    columns = [model.classes.index(name) for name in classes]
    table = samples.table
    items = [Item(name, path) for name, path in zip(table["name"], table["path"], strict=True)]
    probabilities = np.zeros((len(items), len(classes)))
    problems: dict[int, str] = {}
    for row, score in enumerate(model.make_scorer(tta).score_files(items)):
        probabilities[row] = score.probabilities[columns]
        if score.problem:
            problems[row] = score.problem
        progress(row + 1, len(items))
    return ModelScores(probabilities, problems)
