"""What a data set is to the rest of automl: a table of samples with labels, groups and splits."""

import re
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from automl.data.layouts.columns import FORGED, GENUINE
from automl.data.layouts.recognise import list_samples
from automl.data.layouts.text_table import listing
from automl.data.splits import check_counts, shuffle_labels, split_samples
from automl.errors import DataError, SpecError
from automl.media.kinds import Medium
from automl.spec import DataSpec

SPLITS = ("train", "validation", "holdout")

_POSITIVE = FORGED | {"1", "synthetic", "generated", "attack", "positive", "true", "yes"}


@dataclass(frozen=True, eq=False)
class Dataset:
    """Labelled samples, read from a folder or a label file, and split; nothing is decoded yet.

    Attributes:
        root: The folder or the label file that was read.
        format: How it was understood: `folder`, `table`, `ffdi`, `ffdv` or `demo`.
        samples: One row per media file, index 0..n-1 sorted by path, with the columns path (str, absolute), name (str,
            as in the label file, or relative to the root), label (int, index into `classes`), group (str; a sample
            that belongs to no group is its own, named by its path), split (`train`, `validation`, `holdout`).
        classes: Names of the classes, in the order of their labels.
        real_class: Label of the genuine samples, which self-blending may forge; None if no class is known to be.
        positive: Label of the class whose probability is predicted, when there are two classes.
        problems: Warnings, one line each.
        name: A short name for the study's folder.
        media: What kind of files the samples are: `image`, `video` or `sound`.
        told: What was read and what was not, one line each.
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
    told: tuple[str, ...] = ()

    @property
    def grouped(self) -> bool:
        """Whether some samples belong together."""
        return bool((self.samples["group"] != self.samples["path"]).any())


def open_dataset(spec: DataSpec, seed: int) -> Dataset:
    """Understands a data set, checks it and splits it; nothing is decoded.

    Args:
        spec: Where it is; flags override what is recognised.
        seed: Chooses the splits that the data does not come with; the same seed gives the same splits.

    Returns:
        The samples.

    Raises:
        DataError: If it cannot be understood or used: no media files, missing ones, one class only, too few samples.
        SpecError: If a flag names a class that does not exist.
    """
    found = list_samples(spec)
    table, left_out = _without_small_classes(found.table, spec.min_class_samples)
    classes = _ordered(set(table["label"]))
    table["label"] = table["label"].map({name: i for i, name in enumerate(classes)}).astype(int)
    table["group"] = table["group"].where(table["group"] != "", table["path"])
    table["split"], problems = split_samples(table, spec, seed)
    try:
        check_counts(table, classes)
    except DataError as exc:  # what was left out may be the reason
        raise DataError("\n".join([str(exc), *(f"  {line}" for line in (*found.problems, *left_out))])) from exc
    if spec.shuffle_labels:
        table["label"] = shuffle_labels(table, seed)
    real = _real_class(classes, spec, found.format)
    return Dataset(
        root=found.root,
        format=found.format,
        samples=table[["path", "name", "label", "group", "split"]],
        classes=classes,
        real_class=real,
        positive=_positive(classes, spec, real),
        problems=(*found.problems, *left_out, *problems),
        name="demo" if found.format == "demo" else _short_name(found.root),
        media=found.media,
        told=found.told,
    )


def train_on(dataset: Dataset, splits: Collection[str]) -> Dataset:
    """The same samples in the same order, those of some splits moved to the training split.

    Args:
        dataset: The samples; it stays as it is.
        splits: Of `SPLITS`; what is not among them and not `train` stays where it was.
    """
    samples = dataset.samples.copy()
    samples.loc[samples["split"].isin(list(splits)), "split"] = "train"
    return replace(dataset, samples=samples)


def _without_small_classes(table: pd.DataFrame, least: int) -> tuple[pd.DataFrame, list[str]]:
    """Leaves out classes that nothing can be trained on, and those that are smaller than asked for.

    Returns:
        The samples that are left, and warnings, one line each.
    """
    trained = table["label"][~table["split"].isin(["validation", "holdout"])].value_counts()
    validated = set(table["label"][table["split"] == "validation"])
    names = sorted(set(table["label"]))
    unknown = [name for name in names if name not in trained and name not in validated]
    small = [
        name
        for name in names
        if name not in unknown and least and (trained.get(name, 0) < least or (validated and name not in validated))
    ]
    problems = []
    if unknown and len(unknown) < len(names):
        count = int(table["label"].isin(unknown).sum())
        problems.append(f"{count} samples of classes that occur in the test set only are left out: {listing(unknown)}")
    if small:
        count = int(table["label"].isin(small).sum())
        problems.append(f"{count} samples of {len(small)} classes of fewer than {least} are left out: {listing(small)}")
    gone = [*(unknown if len(unknown) < len(names) else []), *small]
    if len(gone) == len(names):
        raise DataError(f"--min-class-samples {least} leaves no class; the largest has {trained.max()} samples")
    return table[~table["label"].isin(gone)].reset_index(drop=True), problems


def _ordered(names: set[str]) -> tuple[str, ...]:
    """Sorts class names, whole numbers by value."""
    if all(re.fullmatch(r"[+-]?\d+", name) for name in names):
        return tuple(sorted(names, key=int))
    return tuple(sorted(names))


def _class_index(classes: tuple[str, ...], name: str, flag: str) -> int:
    """The label of a class that a flag names."""
    if name not in classes:
        raise SpecError(f"{flag} {name!r} is not a class of the data; the classes are {', '.join(classes[:20])}")
    return classes.index(name)


def _real_class(classes: tuple[str, ...], spec: DataSpec, layout: str) -> int | None:
    """The label of the genuine samples, None if unknown."""
    if spec.real_class is not None:
        return _class_index(classes, spec.real_class, "--real-class")
    named = [i for i, name in enumerate(classes) if name.lower() in GENUINE]
    if len(named) == 1:
        return named[0]
    # the competition documents target 1 = fake; elsewhere 0 may be anything
    return 0 if layout in ("ffdi", "ffdv") and classes == ("0", "1") else None


def _positive(classes: tuple[str, ...], spec: DataSpec, real: int | None) -> int:
    """The label of the class whose probability is predicted: the forged one where that can be told."""
    if spec.positive_class is not None:
        return _class_index(classes, spec.positive_class, "--positive-class")
    named = [i for i, name in enumerate(classes) if name.lower() in _POSITIVE]
    if len(named) == 1:
        return named[0]
    return 1 - real if len(classes) == 2 and real is not None else len(classes) - 1


def _short_name(root: Path) -> str:
    """A name for files and studies: the folder's, in letters that any file system takes."""
    folder = root.parent if root.is_file() else root
    return re.sub(r"[^A-Za-z0-9._-]+", "-", folder.name).strip("-._") or "data"
