"""What a data set is to the rest of automl: a table of samples with labels, groups and splits."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

__all__ = ["SPLITS", "Dataset"]

SPLITS = ("train", "validation", "holdout")


@dataclass(frozen=True, eq=False)
class Dataset:
    """Labelled samples, read from a folder or a label file, and split; nothing is decoded yet.

    Attributes:
        root: The folder that was read.
        format: How it was understood: `folder`, `table`, `ffdi` or `demo`.
        samples: One row per media file, index 0..n-1, with the columns path (str, absolute), name (str, as in the
            label file), label (int, index into `classes`), group (str), split (`train`, `validation`, `holdout`).
        classes: Names of the classes, in the order of their labels.
        real_class: Label of the genuine images, which self-blending may forge; None if no class is known to be.
        positive: Label of the class whose probability is predicted, when there are two classes.
        problems: Warnings, one line each.
        name: A short name for the study's folder.
    """

    root: Path
    format: str
    samples: pd.DataFrame
    classes: tuple[str, ...]
    real_class: int | None
    positive: int
    problems: tuple[str, ...]
    name: str
