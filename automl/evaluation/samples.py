"""Labelled samples to evaluate on, and how their labels are matched to the classes of a model.

Any layout that the project understands is read, all of it, whatever its splits, unless one is asked for. Labels are
matched by name, case and all. Where no name fits there is one more rule: words that surely mean genuine and forged
(`automl.data.layouts.columns`) are matched to a model whose genuine class is known, and so are 0 and 1 of the FFDI
layout, whose documents say that 1 is forged. Anything else that 0 and 1 may mean is not guessed.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from automl.data.layouts.columns import FORGED, GENUINE, SPLIT_NAMES
from automl.data.layouts.recognise import Listing, list_samples
from automl.errors import DataError, SpecError, shorten, suggest_name
from automl.media.kinds import Medium
from automl.models.folder import Labels
from automl.spec import LabelledSpec

_SHOWN = 10  # labels that a message lists
_MOST_VALUES = 200  # of a column to compare by


@dataclass(frozen=True, eq=False)
class LabelledSamples:
    """Samples whose labels are classes of a model.

    Attributes:
        root: The folder or label file that was read.
        media: What kind of files they are.
        table: A row a sample: path (str, absolute), name (str), label (int, index into the model's classes), group
            (str; a sample of no group is its own, named by its path).
        by: The columns of the label file that were asked for, text, with the rows of `table`.
        unknown: How many samples of each class that the model has not seen were left out.
        notes: What was read and how labels were matched, one line each.
        problems: Warnings, one line each.
    """

    root: Path
    media: Medium
    table: pd.DataFrame
    by: pd.DataFrame
    unknown: dict[str, int]
    notes: tuple[str, ...]
    problems: tuple[str, ...]

    @property
    def labels(self) -> NDArray[np.int64]:
        """True classes (N,)."""
        return np.asarray(self.table["label"].to_numpy(np.int64))

    @property
    def groups(self) -> NDArray[Any] | None:
        """The group of each sample (N,); None where each sample is its own."""
        grouped = (self.table["group"] != self.table["path"]).any()
        return self.table["group"].to_numpy(str) if grouped else None

    def take_rows(self, rows: NDArray[Any]) -> "LabelledSamples":
        """Returns some of the samples, by numbers or by a mask."""
        chosen = np.arange(len(self.table))[rows]
        parts = {name: getattr(self, name).iloc[chosen].reset_index(drop=True) for name in ("table", "by")}
        return replace(self, **parts)


def open_samples(
    spec: LabelledSpec,
    model: Labels,
    *,
    split: str | None = None,
    renamed: Mapping[str, str] | None = None,
    ignore_unknown: bool = False,
) -> LabelledSamples:
    """Lists the labelled samples of a data set, with the model's classes as labels.

    Args:
        spec: Where they are, and the columns to compare by.
        model: What the outputs of the model mean.
        split: Only this split (train, validation, holdout, or what people call them); None: all there is.
        renamed: Classes of the model by what the data call them.
        ignore_unknown: Leave out samples of classes that the model has not seen.

    Raises:
        DataError: If the data set cannot be understood, or its labels do not match, or there is no such split.
        SpecError: If a label that is renamed, or what it is renamed to, does not exist.
    """
    listing = list_samples(spec)
    table, notes = listing.table.copy(), list(listing.remarks)
    if split is not None:
        table, note = _take_split(table, split, listing)
        notes.append(note)
    elif given := [name for name in ("train", "validation", "holdout") if (table["split"] == name).any()]:
        notes.append(f"all {len(table)} samples are taken, of {', '.join(given)}; --split takes one split")
    counts = {str(name): int(count) for name, count in table["label"].value_counts().items()}
    class_of, note = match_labels(list(counts), model, listing.format, renamed or {})
    notes += [note] if note else []
    unknown = {name: count for name, count in counts.items() if name not in class_of}
    if not class_of or (unknown and not ignore_unknown):
        raise DataError(_describe_mismatch(listing.root, counts, class_of, model.classes))
    table = table[table["label"].isin(list(class_of))].reset_index(drop=True)
    by = {name: _read_column(table, listing.root, name, position) for position, name in enumerate(spec.by)}
    table["label"] = table["label"].map({name: model.classes.index(one) for name, one in class_of.items()}).astype(int)
    table["group"] = table["group"].where(table["group"] != "", table["path"])
    problems = list(listing.problems)
    if unknown:
        problems.append(
            f"{sum(unknown.values())} samples of {len(unknown)} classes that the model has not seen are left out: "
            f"{_list_counts(unknown)}"
        )
    return LabelledSamples(
        listing.root,
        listing.media,
        table[["path", "name", "label", "group"]],
        pd.DataFrame(by, index=table.index),
        unknown,
        tuple(notes),
        tuple(problems),
    )


def match_labels(
    given: Sequence[str], model: Labels, layout: str, renamed: Mapping[str, str]
) -> tuple[dict[str, str], str]:
    """Matches the labels of a data set to the classes of a model.

    Args:
        given: The labels of the data set.
        model: What the outputs of the model mean.
        layout: How the data set was understood (`automl.data.layouts.recognise.Listing.format`).
        renamed: Classes of the model by what the data call them.

    Returns:
        The class of each label that has one, and how they were matched if it was not by name.

    Raises:
        SpecError: If a label that is renamed is not in the data, or not renamed to a class of the model.
    """
    for old, new in renamed.items():
        for name, known, where in ((old, given, "a label of the data"), (new, model.classes, "a class of the model")):
            if name not in known:
                near = suggest_name(name, known)
                raise SpecError(f"--rename-label {old}={new}: {name!r} is not {where}: {_list_names(known)}{near}")
    class_of = {name: renamed.get(name, name) for name in given if renamed.get(name, name) in model.classes}
    genuine = _find_genuine(model)
    if class_of or genuine is None:
        return class_of, ""
    forged = model.classes[1 - model.classes.index(genuine)]
    if layout in ("ffdi", "ffdv") and set(given) <= {"0", "1"}:
        meanings, why = {"0": genuine, "1": forged}, "the FFDI layout"
    else:
        words = {name: genuine for name in given if name.lower() in GENUINE}
        meanings, why = words | {name: forged for name in given if name.lower() in FORGED}, "what the words mean"
        if len(set(meanings.values())) != len(meanings):  # `fake` and `spoof`: two classes of the data, or one?
            return {}, ""
    pairs = ", ".join(f"{name} is class {meanings[name]}" for name in sorted(meanings))
    return meanings, f"labels are matched by {why}: {pairs}" if meanings else ""


def _find_genuine(model: Labels) -> str | None:
    """Finds the genuine class of a model of two classes, if it is known."""
    if len(model.classes) != 2:
        return None
    if model.real_class is not None:
        return model.classes[model.real_class]
    named = [name for name in model.classes if name.lower() in GENUINE]
    return named[0] if len(named) == 1 else None


def _take_split(table: pd.DataFrame, split: str, listing: Listing) -> tuple[pd.DataFrame, str]:
    """Returns the samples of a split, and a line about it."""
    wanted = SPLIT_NAMES.get(split.lower(), split.lower())
    counts = table["split"].replace("", "none").value_counts()
    if wanted not in counts.index:
        named = ", ".join(f"{name} ({count})" for name, count in counts.items() if name != "none")
        known = f"its splits are {named}" if named else "the data name no splits; leave out --split"
        drawn = "; what automl search sets aside stands in RUNS/STUDY/samples.csv" if wanted == "holdout" else ""
        raise DataError(f"{listing.root}: no split {split!r}; {known}{drawn}")
    return table[table["split"] == wanted], f"split {wanted}: {counts[wanted]} of {len(table)} samples"


def _read_column(table: pd.DataFrame, root: Path, name: str, position: int) -> "pd.Series[str]":
    """Returns the values of a column to compare by."""
    if not all(table["kept"]):
        raise DataError(f"--by {name}: {root} was read as folders of classes, and --by is for a label file")
    values = table["kept"].str[position]
    if values.nunique() > _MOST_VALUES:
        count = values.nunique()
        raise DataError(f"--by {name}: it has {count} different values; name a column of at most {_MOST_VALUES}")
    return values.astype(str)


def _describe_mismatch(
    root: Path, counts: Mapping[str, int], class_of: Mapping[str, str], classes: Collection[str]
) -> str:
    """Writes why labels and classes do not fit, with both sides and what would be right."""
    unknown = {name: count for name, count in counts.items() if name not in class_of}
    lower = {name.lower(): name for name in classes}
    examples = [f"{name}={lower.get(name.lower(), next(iter(classes)))}" for name in unknown]
    rename = f"--rename-label {examples[0]}" if examples else "--rename-label OLD=NEW"
    if not class_of:
        return (
            f"{root}: its labels are {_list_counts(counts)}, the model's classes are {_list_names(classes)}, and "
            f"none is the same; say which is which, such as {rename}"
        )
    return (
        f"{root}: {sum(unknown.values())} samples are of {len(unknown)} classes that the model has not seen: "
        f"{_list_counts(unknown)}; the model's classes are {_list_names(classes)}. --ignore-unknown-classes leaves "
        f"these samples out; {rename} gives a class another name"
    )


def _list_counts(counts: Mapping[str, int]) -> str:
    """Lists labels with their numbers of samples."""
    return shorten([f"{name!r} ({count})" for name, count in counts.items()], _SHOWN)


def _list_names(names: Collection[str]) -> str:
    """Lists names in quotes."""
    return shorten([repr(name) for name in names], _SHOWN)
