"""What the winner of a study predicts of its validation samples, as an evaluation that has figures."""

import zipfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from automl.errors import DataError, StudyError
from automl.evaluation.calibration import measure_calibration
from automl.evaluation.details import count_confusion, describe_classes, list_mistakes, trace_roc
from automl.evaluation.evaluation import Evaluation, ModelFigures
from automl.evaluation.measures import TPR_AT, Measured, Value
from automl.evaluation.samples import LabelledSamples
from automl.reports.study_summary import StudySummary
from automl.study.validation import read_predictions
from automl.training.metrics import compute_metric, metric_sign

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class WinnerPredictions:
    """Predictions of the winner for samples that it was not trained on.

    Attributes:
        evaluation: A model for each seed that it was trained with; one where it was not confirmed.
        middle: Which of them has the middle score: what can be shown of one alone is shown of this one.
        source: Whose predictions they are, for a person.
    """

    evaluation: Evaluation
    middle: int
    source: str
    seed: int | None = None
    """Of the middle one; None of a trial's own predictions."""


def read_winner(summary: StudySummary) -> WinnerPredictions:
    """Reads what the winner predicts: its replicates' where it was confirmed, else its trial's.

    Raises:
        StudyError: If there is no winner, or none of its predictions is kept; the message says why.
    """
    if summary.winner is None:
        raise StudyError("no trial is complete")
    number = summary.winner.row.number
    own: tuple[NDArray[np.int64], Floats] | None = None
    problem = ""
    samples, classes = len(summary.setup.dataset.samples), len(summary.setup.dataset.classes)
    try:
        own = read_predictions(summary.folder.predictions_file(number), samples, classes)
    except StudyError as exc:
        problem = str(exc)
    if summary.confirmation is not None:
        candidate = summary.confirmation.best
        paths = [summary.folder.path / name for name in candidate.predictions if ".." not in Path(name).parts]
        read = [_read_replicate(path, summary, own[0] if own else None) for path in paths]
        known = [(f"seed {seed}", one) for seed, one in zip(candidate.seeds, read, strict=False) if one is not None]
        if known:
            rows = known[0][1][0]
            same = [(name, probabilities) for name, (other, probabilities) in known if np.array_equal(rows, other)]
            seeds = "its seed" if len(same) == 1 else f"its {len(same)} seeds"
            source = f"trial {number} trained again with fresh seeds ({seeds})"
            winner = _evaluate(summary, rows, same, source)
            return replace(winner, seed=int(same[winner.middle][0].removeprefix("seed ")))
    if own is None:
        raise StudyError(problem)
    return _evaluate(summary, own[0], [(f"trial {number}", own[1])], f"trial {number}")


def _read_replicate(
    path: Path, summary: StudySummary, rows: NDArray[np.int64] | None
) -> tuple[NDArray[np.int64], Floats] | None:
    """Reads a replicate's validation predictions, and of which samples they are; None where that cannot be known."""
    samples = summary.setup.dataset.samples
    truth = samples["label"].to_numpy(np.int64)
    try:
        with path.open("rb") as handle, np.load(handle, allow_pickle=False) as file:
            labels, probabilities = file["labels"], np.asarray(file["validation"], dtype=np.float64)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    if probabilities.shape != (len(labels), len(summary.setup.dataset.classes)) or not np.isfinite(probabilities).all():
        return None
    # those that can be read: all of the split or, where some cannot, what the trial itself was validated on
    for candidate in (np.flatnonzero(samples["split"] == "validation"), rows):
        if candidate is not None and np.array_equal(truth[candidate], labels):
            return candidate, probabilities
    return None


def _evaluate(
    summary: StudySummary, rows: NDArray[np.int64], models: list[tuple[str, Floats]], source: str
) -> WinnerPredictions:
    """Computes what the figures show."""
    dataset = summary.setup.dataset
    table = dataset.samples.iloc[rows][["path", "name", "label", "group"]].reset_index(drop=True)
    samples = LabelledSamples(
        dataset.root, dataset.media, table, pd.DataFrame(index=table.index), {}, notes=(), problems=()
    )
    metric = summary.setup.metric
    figures = [_describe_model(summary, samples, name, probabilities) for name, probabilities in models]
    values = [model.measured.values.get(metric, Value(0.0)).value for model in figures]
    order = sorted(range(len(values)), key=lambda k: metric_sign(metric) * values[k])
    evaluation = Evaluation(
        samples=samples, classes=dataset.classes, positive=dataset.positive, metric=metric, models=tuple(figures),
        comparisons=(), columns={}, groups=None, robustness=None, unreadable={}, notes=(), warnings=(),
        interval_method="",
    )  # fmt: skip
    return WinnerPredictions(evaluation, order[(len(order) - 1) // 2], source)


def _describe_model(summary: StudySummary, samples: LabelledSamples, name: str, probabilities: Floats) -> ModelFigures:
    """Computes the figures of one model, without intervals: they take seconds, and the confirmation has them."""
    dataset, labels = summary.setup.dataset, samples.labels
    positive, classes = dataset.positive, dataset.classes
    values, missing = dict[str, Value](), dict[str, str]()
    wanted: dict[str, dict[str, Any]] = {"accuracy": {}, summary.setup.metric: {}}
    for metric in wanted:
        try:
            values[metric] = Value(compute_metric(metric, labels, probabilities, positive))
        except DataError as exc:
            missing[metric] = str(exc)
    two = len(classes) == 2
    curve = trace_roc(labels == positive, probabilities[:, positive]) if two else None
    if curve is not None:
        for metric, fpr in TPR_AT.items():
            values[metric] = Value(compute_metric("tpr_at_fpr", labels, probabilities, positive, fpr=fpr))
    return ModelFigures(
        name,
        summary.folder.path,
        (summary.winner.row.backbone,) if summary.winner else (),
        probabilities,
        Measured(values, missing),
        describe_classes(labels, probabilities, classes),
        count_confusion(labels, probabilities),
        curve,
        measure_calibration(labels, probabilities),
        None,
        list_mistakes(labels, probabilities, classes, samples.table["path"].tolist()),
        {},
    )
