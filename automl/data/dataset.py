"""What a data set is to the rest of automl: a table of samples with labels, groups and splits."""

import re
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import pandas as pd

from automl.data.layouts.columns import FORGED, GENUINE, flag_of
from automl.data.layouts.recognise import list_samples
from automl.data.layouts.text_table import list_names
from automl.data.splits import check_counts, draw_folds, redraw_validation, shuffle_labels, split_samples
from automl.errors import DataError, SpecError, shorten
from automl.media.kinds import Medium
from automl.spec import DataSpec

SPLITS = ("train", "validation", "holdout")
Label = TypeVar("Label", int, int | None)

_POSITIVE = FORGED | {"1", "synthetic", "generated", "attack", "positive", "true", "yes"}


@dataclass(frozen=True, eq=False)
class Dataset:
    """Labelled samples, read from a folder or a label file, and split; nothing is decoded yet.

    Attributes:
        root: The folder or the label file that was read.
        format: How it was understood: `folder`, `table`, `ffdi`, `ffdv` or `demo`.
        samples: One row per media file, index 0..n-1 sorted by path, with the columns path (str, absolute), name (str,
            as in the label file, or relative to the root), label (int, index into `classes`), group (str; a sample
            that belongs to no group is its own, named by its path), split (`train`, `validation`, `holdout`), domain
            (str; what is validated on as a whole, "" for nothing).
        classes: Names of the classes, in the order of their labels.
        real_class: Label of the genuine samples, which self-blending may forge; None if no class is known to be.
        positive: Label of the class whose probability is predicted, when there are two classes.
        problems: Warnings, one line each.
        name: A short name for the study's folder.
        media: What kind of files the samples are: `image`, `video` or `sound`.
        remarks: What was read and what was not, one line each.
    """

    root: Path
    format: str
    samples: pd.DataFrame
    classes: tuple[str, ...]
    real_class: int | None
    positive: int
    problems: tuple[str, ...]
    name: str
    media: Medium = "image"
    remarks: tuple[str, ...] = ()

    @property
    def real_class_name(self) -> str | None:
        """Name of the class of genuine samples, None if unknown."""
        return None if self.real_class is None else self.classes[self.real_class]

    @property
    def positive_class_name(self) -> str | None:
        """Name of the class whose probability is predicted; None with more than two classes."""
        return self.classes[self.positive] if len(self.classes) == 2 else None

    @property
    def grouped(self) -> bool:
        """Whether some samples belong together."""
        return bool((self.samples["group"] != self.samples["path"]).any())


def open_dataset(spec: DataSpec, seed: int) -> Dataset:
    """Understands a data set, checks it and splits it; nothing is decoded.

    The same seed gives the same splits, where the data does not come with them.

    Raises:
        DataError: If it cannot be understood or used: no media files, missing ones, one class only, too few samples.
        SpecError: If a flag names a class that does not exist.
    """
    if spec.face_model is not None and not spec.face_model.expanduser().is_file():
        raise SpecError(f"--face-model {spec.face_model} is not a file; give YuNet's ONNX file, or leave it out")
    listing = list_samples(spec)
    table, left_out = _without_small_classes(listing.table, spec.min_class_samples)
    names = set(table["label"])
    are_numbers = all(re.fullmatch(r"[+-]?\d+", name) for name in names)  # sorted by value
    classes = tuple(sorted(names, key=int if are_numbers else None))
    table["label"] = table["label"].map({name: i for i, name in enumerate(classes)}).astype(int)
    table["group"] = table["group"].where(table["group"] != "", table["path"])
    table["split"], problems = split_samples(table, spec, seed)
    try:
        check_counts(table, classes)
    except DataError as exc:  # what was left out may be the reason
        raise DataError("\n".join([str(exc), *(f"  {line}" for line in (*listing.problems, *left_out))])) from exc
    if spec.shuffle_labels:
        table["label"] = shuffle_labels(table, seed)
    # the competition documents target 1 = fake; elsewhere 0 may be anything
    is_competition = listing.format in ("ffdi", "ffdv") and classes == ("0", "1")
    real = _find_class(classes, spec, "real_class", GENUINE, 0 if is_competition else None)
    last = 1 - real if len(classes) == 2 and real is not None else len(classes) - 1
    positive = _find_class(classes, spec, "positive_class", _POSITIVE, last)
    folder = listing.root.parent if listing.root.is_file() else listing.root
    short_name = re.sub(r"[^A-Za-z0-9._-]+", "-", folder.name).strip("-._") or "data"  # that any file system takes
    return Dataset(
        root=listing.root,
        format=listing.format,
        samples=table[["path", "name", "label", "group", "split", "domain"]],
        classes=classes,
        real_class=real,
        positive=positive,
        problems=(*listing.problems, *left_out, *problems),
        name="demo" if listing.format == "demo" else short_name,
        media=listing.media,
        remarks=listing.remarks,
    )


def train_on(dataset: Dataset, splits: Collection[str]) -> Dataset:
    """Returns the same samples in the same order, those of some splits moved to the training split."""
    samples = dataset.samples.copy()
    samples.loc[samples["split"].isin(list(splits)), "split"] = "train"
    return replace(dataset, samples=samples)


def draw_split(dataset: Dataset, seed: int) -> Dataset:
    """Returns the same samples with another validation split of the same size; see `redraw_validation`."""
    return replace(dataset, samples=dataset.samples.assign(split=redraw_validation(dataset.samples, seed)))


def list_folds(dataset: Dataset, folds: int, seed: int) -> list[Dataset]:
    """Returns the same samples once for each fold, which is then the validation split; see `draw_folds`."""
    fold_of = draw_folds(dataset.samples, folds, seed)
    return [
        replace(
            dataset,
            samples=dataset.samples.assign(
                split=np.select([fold_of < 0, fold_of == fold], ["holdout", "validation"], "train")
            ),
        )
        for fold in range(folds)
    ]


def _without_small_classes(table: pd.DataFrame, least: int) -> tuple[pd.DataFrame, list[str]]:
    """Leaves out classes that nothing can be trained on or of fewer samples than `least`; returns warnings as well."""
    trained = table["label"][~table["split"].isin(["validation", "holdout"])].value_counts()
    validated = set(table["label"][table["split"] == "validation"])
    names = sorted(set(table["label"]))
    unknown = [name for name in names if name not in trained and name not in validated]
    unknown = unknown if len(unknown) < len(names) else []
    small = [
        name
        for name in names
        if name not in unknown and least and (trained.get(name, 0) < least or (validated and name not in validated))
    ]
    if least and len(unknown) + len(small) == len(names):
        raise DataError(f"--min-class-samples {least} leaves no class; the largest has {trained.max()} samples")
    problems = []
    for left_out, which in (
        (unknown, "classes that occur in the test set only"),
        (small, f"{len(small)} classes of fewer than {least}"),
    ):
        if left_out:
            count = int(table["label"].isin(left_out).sum())
            problems.append(f"{count} samples of {which} are left out: {list_names(left_out)}")
    return table[~table["label"].isin([*unknown, *small])].reset_index(drop=True), problems


def _find_class(
    classes: tuple[str, ...], spec: DataSpec, option: str, usual: Collection[str], otherwise: Label
) -> Label:
    """Returns the label of the class that an option names, or the only one with a usual name, or another."""
    wanted = getattr(spec, option)
    if wanted is not None:
        if wanted not in classes:
            known = shorten(classes, 20)
            raise SpecError(f"{flag_of(option)} {wanted!r} is not a class of the data; the classes are {known}")
        return classes.index(wanted)
    named = [i for i, name in enumerate(classes) if name.lower() in usual]
    return named[0] if len(named) == 1 else otherwise
