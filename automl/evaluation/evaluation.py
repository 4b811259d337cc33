"""The result of an evaluation: every figure, and the same as plain data and as a table of predictions."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from automl.evaluation.breakdown import GroupMeans, Part
from automl.evaluation.calibration import Calibration
from automl.evaluation.comparison import Difference
from automl.evaluation.details import ClassFigures, Curve, Mistake
from automl.evaluation.measures import Measured
from automl.evaluation.robustness import Robustness
from automl.evaluation.samples import LabelledSamples
from automl.evaluation.thresholds import Threshold

Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True, eq=False)
class ModelFigures:
    """Everything that was measured of one model.

    Attributes:
        name: What it is called in tables: its folder's name.
        path: Its folder.
        backbones: Its networks.
        probabilities: (N, C) float64, in the order of the evaluation's classes.
        measured: The metrics.
        classes: Each class.
        confusion: Samples by true class (rows) and predicted class.
        roc: The ROC curve of the positive class; None of one class, or of more than two.
        calibration: How well probabilities and accuracy agree.
        threshold: Chosen on its own validation samples; None where there are none.
        mistakes: The most confident ones.
        unseen: Why it sees nothing of a sample, by the sample's number: it then has the training prior.
    """

    name: str
    path: Path
    backbones: tuple[str, ...]
    probabilities: Floats
    measured: Measured
    classes: list[ClassFigures]
    confusion: list[list[int]]
    roc: Curve | None
    calibration: Calibration
    threshold: Threshold | None
    mistakes: list[Mistake]
    unseen: dict[int, str]


@dataclass(frozen=True)
class Comparison:
    """Two models by one metric."""

    one: str
    other: str
    metric: str
    difference: Difference
    """Of `one` less `other`."""
    corrected_p: float | None
    """For the number of pairs of models; None where there is one pair."""


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Everything that `automl.evaluate` measures.

    Attributes:
        samples: The samples that were measured.
        classes: Names of the classes, in the order of the probabilities.
        positive: Index of the positive class, where there are two.
        metric: The main metric.
        models: The figures of each model.
        comparisons: Each pair of models by each metric; empty for one model.
        columns: The parts of the samples, by column of the label file.
        groups: Of the groups' means; None where there are no groups.
        robustness: Of degraded copies; None where they were not asked for.
        unreadable: Files that were left out, and why.
        notes: What was read, matched, left out and not computed, one line each.
        warnings: What may be wrong, one line each.
        interval_method: How intervals were computed, and the papers; "" where there are none.
        folder: What was written to; None if nothing was.
    """

    samples: LabelledSamples
    classes: tuple[str, ...]
    positive: int
    metric: str
    models: tuple[ModelFigures, ...]
    comparisons: tuple[Comparison, ...]
    columns: dict[str, list[Part]]
    groups: GroupMeans | None
    robustness: Robustness | None
    unreadable: dict[str, str]
    notes: tuple[str, ...]
    warnings: tuple[str, ...]
    interval_method: str
    folder: Path | None = None

    @property
    def binary(self) -> bool:
        """Whether there are two classes, one of which is the positive one."""
        return len(self.classes) == 2

    @property
    def predictions(self) -> pd.DataFrame:
        """A row a sample: name, label, group, the columns compared by, and what each model predicts.

        Of two classes a model has one column, the probability of the positive class; of more, one for each class and
        `predicted`. A column that would be called like an earlier one gets `_2` behind its name.
        """
        table, columns = self.samples.table, dict[str, Any]()

        def add_column(name: str, values: Any) -> None:
            free = next(each for k in range(1, 10_000) if (each := name if k == 1 else f"{name}_{k}") not in columns)
            columns[free] = values

        add_column("name", table["name"])
        add_column("label", [self.classes[label] for label in table["label"]])
        if self.samples.groups is not None:
            add_column("group", table["group"].where(table["group"] != table["path"], ""))
        for name in self.samples.by:
            add_column(str(name), self.samples.by[name])
        for model in self.models:
            if self.binary:
                add_column(model.name, model.probabilities[:, self.positive])
                continue
            for k, name in enumerate(self.classes):
                add_column(f"{model.name}: {name}", model.probabilities[:, k])
            add_column(f"{model.name}: predicted", [self.classes[k] for k in model.probabilities.argmax(axis=1)])
        return pd.DataFrame(columns)

    def to_json(self) -> dict[str, Any]:
        """Returns what `metrics.json` holds, as plain data; its keys are described in docs/evaluate.md."""
        counts = np.bincount(self.samples.labels, minlength=len(self.classes))
        return {
            "data": {
                "path": str(self.samples.root),
                "media": self.samples.media,
                "samples": len(self.samples.table),
                "classes": {name: int(count) for name, count in zip(self.classes, counts, strict=True)},
                "unknown_classes": self.samples.unknown,
                "unreadable": self.unreadable,
            },
            "positive": self.classes[self.positive] if self.binary else None,
            "metric": self.metric,
            "interval_method": self.interval_method or None,
            "models": {model.name: self._describe_model(model) for model in self.models},
            "groups": _plain(self.groups),
            "by": {name: _plain(parts) for name, parts in self.columns.items()},
            "comparisons": _plain(self.comparisons),
            "robustness": _plain(self.robustness),
            "notes": list(self.notes),
            "warnings": list(self.warnings),
        }

    def _describe_model(self, model: ModelFigures) -> dict[str, Any]:
        return {
            "path": str(model.path),
            "backbones": list(model.backbones),
            "metrics": {name: asdict(value) for name, value in model.measured.values.items()},
            "not_computed": model.measured.missing,
            "classes": _plain(model.classes),
            "confusion": model.confusion,
            "roc": _plain(model.roc),
            "calibration": _plain(model.calibration),
            "threshold": _plain(model.threshold),
            "mistakes": _plain(model.mistakes),
            "unseen": len(model.unseen),
        }


def _plain(value: Any) -> Any:
    """Returns a dataclass, or several, as plain data."""
    if isinstance(value, list | tuple):
        return [asdict(each) for each in value]
    return None if value is None else asdict(value)
