"""Recognising how a data set is laid out, and listing its samples.

Three layouts of images, videos or sounds: a *folder* (one folder per class, with or without train/val/test folders
around them), a *label file* (see `automl.data.label_file`), and the competitions' *FFDI layout* (of videos: FFDV):

    trainset/  trainset_label.txt    valset/  valset_label.txt    testset/ (no labels: ignored)

Which samples belong together (`groups.csv`) may stand beside any of them; see `automl.data.groups`.
"""

import os
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from automl.data.groups import GROUPS_FILE, with_groups
from automl.data.kinds import ENDINGS, Medium, endings_for, is_media, medium_of
from automl.data.label_file import SPLIT_NAMES, LabelFile, Row, listing, names_files, read_label_file
from automl.data.table import TABLES, printable
from automl.errors import DataError
from automl.spec import DataSpec

__all__ = ["FFDI_SETS", "Listing", "contents", "list_samples"]

FFDI_SETS = {"trainset": "train", "valset": "validation", "testset": "holdout"}
"""The folders of the FFDI layout, and what automl calls these splits."""

_SHOWN = 5


@dataclass(frozen=True, eq=False)
class Listing:
    """What lies on the disk: `table` has the text columns path, name, label, group and split ("" where not given)."""

    root: Path
    format: str
    table: pd.DataFrame
    problems: tuple[str, ...]
    media: Medium
    """What kind of files they all are."""


def list_samples(spec: DataSpec) -> Listing:
    """Lists the labelled files of a data set.

    Args:
        spec: Where they are; `format` and the column flags override what is recognised.

    Returns:
        One row per file, sorted by path.

    Raises:
        DataError: If the layout cannot be told, or there are no labelled files, or a file has two labels.
    """
    if spec.path is None or spec.format == "demo":
        from automl.data.demo import demo_dataset  # late: it draws the demo with scikit-image

        root, layout = demo_dataset(), "demo"
        found = _from_table(root, spec)
    else:
        root = Path(spec.path).expanduser()
        if not root.exists():
            raise DataError(f"no such file or folder: {root}")
        layout = _recognise(root, spec)
        found = _READERS[layout](root, spec)
    table, media, problems = _checked(root, found)
    table["group"], said = with_groups(table, root, spec.groups)
    if layout == "ffdi" and media == "video":
        layout = "ffdv"
    return Listing(root.resolve(), layout, table, (*found.problems, *problems, *said), media)


def _recognise(root: Path, spec: DataSpec) -> str:
    """Names the layout of a folder or file: `table`, `ffdi` or `folder`."""
    if root.is_file():
        if spec.format not in ("auto", "table"):
            raise DataError(f"{root} is a file; --format {spec.format} needs a folder")
        return "table"
    if spec.format != "auto":
        return "ffdi" if spec.format == "ffdv" else spec.format
    if _ffdi_label_file(root, "trainset") and (root / "trainset").is_dir():
        return "ffdi"
    files = _label_files(root)
    # without class folders, a label file that names nothing is still what was meant: its error says what is wrong
    if any(names_files(file) for file in files) or (files and not any(any(_media_files(f)) for f in _folders(root))):
        return "table"
    return "folder"


def _from_ffdi(root: Path, spec: DataSpec) -> LabelFile:
    """Reads the label file beside each set; a set without one has no labels and is left out."""
    rows: list[Row] = []
    problems: list[str] = []
    for folder, split in FFDI_SETS.items():
        labels = _ffdi_label_file(root, folder)
        if labels and (root / folder).is_dir():
            found = read_label_file(labels, spec, root / folder)
            rows += [Row(row.path, row.name, row.label, row.group, split) for row in found.rows]
            problems += found.problems
        elif split == "train":
            raise DataError(f"{root}: the FFDI layout needs trainset/ and trainset_label.txt (or train_label.txt)")
    return LabelFile(tuple(rows), tuple(problems))


def _from_table(root: Path, spec: DataSpec) -> LabelFile:
    """Reads one label file, or one per split when they are called so (train.csv, val.csv)."""
    files = [root] if root.is_file() else _label_files(root)
    files = [file for file in files if names_files(file)] or files
    if not files:
        raise DataError(f"{root}: no label file (CSV, TSV or TXT)")
    if len(files) == 1:
        return read_label_file(files[0], spec)
    by_split = {_split_of(file): file for file in files}
    if "" in by_split or len(by_split) < len(files) or "train" not in by_split:
        shown = ", ".join(file.name for file in files)
        raise DataError(f"{root}: more than one label file: {shown}; give the one to read as the path")
    rows: list[Row] = []
    problems: list[str] = []
    for split, file in by_split.items():
        found = read_label_file(file, spec)
        rows += [Row(row.path, row.name, row.label, row.group, row.split or split) for row in found.rows]
        problems += found.problems
    return LabelFile(tuple(rows), tuple(problems))


def _from_folder(root: Path, spec: DataSpec) -> LabelFile:  # noqa: ARG001 - every reader has these arguments
    """Reads one folder per class, with or without folders for the splits around them."""
    folders = _folders(root)
    splits = [folder for folder in folders if folder.name.lower() in SPLIT_NAMES]
    # a class may be called "test", but not when there is a train folder beside it, or nothing but such folders
    if not any(SPLIT_NAMES[folder.name.lower()] == "train" for folder in splits) and len(splits) < len(folders):
        found, warned = _class_folders(root, root, "")
        return LabelFile(tuple(found), tuple(warned))
    rows: list[Row] = []
    problems: list[str] = []
    for folder in splits:
        found, warned = _class_folders(root, folder, SPLIT_NAMES[folder.name.lower()])
        rows, problems = rows + found, problems + warned
    other = [folder.name for folder in folders if folder not in splits and any(_media_files(folder))]
    problems += [f"{name}/ is no split and is left out" for name in other]
    return LabelFile(tuple(rows), tuple(problems))


_READERS = {"ffdi": _from_ffdi, "table": _from_table, "folder": _from_folder}


def _class_folders(root: Path, parent: Path, split: str) -> tuple[list[Row], list[str]]:
    """Lists the files below each class folder of `parent`."""
    rows: list[Row] = []
    problems: list[str] = []
    for folder in _folders(parent):
        every = list(_media_files(folder))
        paths = [path for path in every if printable(os.path.relpath(path, root))]
        if odd := [ascii(os.path.relpath(path, root)) for path in sorted(set(every) - set(paths))]:
            problems.append(f"{len(odd)} names are not printable and are left out, rename them: {listing(odd)}")
        if not every:
            problems.append(f"{folder.relative_to(root)}/ holds no images, videos or sounds")
        for path in paths:
            rows.append(Row(os.path.abspath(path), os.path.relpath(path, root), folder.name, "", split))  # noqa: PTH100
    if loose := [path.name for path in parent.iterdir() if path.is_file() and is_media(path.name)]:
        problems.append(
            f"{len(loose)} files of {parent.name}/ lie in no class folder and are left out: {listing(loose)}"
        )
    return rows, problems


def _media_files(folder: Path) -> Iterable[str]:
    """Yields the images, videos and sounds below a folder; hidden files and folders are none."""
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (os.path.join(parent, name) for name in sorted(files) if is_media(name))  # noqa: PTH118


def _folders(parent: Path) -> list[Path]:
    """The folders in a folder, without hidden ones, sorted."""
    return sorted(path for path in parent.iterdir() if path.is_dir() and not path.name.startswith((".", "__MACOSX")))


def _ffdi_label_file(root: Path, folder: str) -> Path | None:
    """The label file of an FFDI set: trainset_label.txt or train_label.txt."""
    names = (f"{folder}_label.txt", f"{folder.removesuffix('set')}_label.txt")
    return next((root / name for name in names if (root / name).is_file()), None)


def _label_files(root: Path) -> list[Path]:
    """The files of a folder that may be label files; a competition's sample submission is none, nor are the groups."""
    files = [path for path in root.iterdir() if path.suffix.lower() in TABLES and path.is_file()]
    named = [path for path in files if not path.name.startswith(".") and "submission" not in path.name.lower()]
    return sorted(path for path in named if path.name.lower() != GROUPS_FILE)


def _split_of(file: Path) -> str:
    """The split that a label file's name says: `train` for train_labels.csv; "" for none."""
    words = re.split(r"[^a-z]+", file.stem.lower())
    return next((SPLIT_NAMES[word] for word in words if word in SPLIT_NAMES), "")


def _checked(root: Path, found: LabelFile) -> tuple[pd.DataFrame, Medium, list[str]]:
    """Makes the table of samples: one row per file of one kind, labels in one spelling; raises where that cannot be."""
    table = pd.DataFrame([vars(row) for row in found.rows], columns=list(Row.__dataclass_fields__), dtype=str)
    table, media, problems = _of_one_kind(root, table)
    table["label"] = _one_spelling(table["label"])
    for column, what in (("label", "more than one label"), ("split", "more than one split")):
        kinds = table.groupby("path")[column].nunique()
        if bad := kinds.index[kinds > 1].tolist():
            names = [os.path.relpath(path, root if root.is_dir() else root.parent) for path in bad]
            raise DataError(f"{root}: {len(names)} files have {what}: {listing(names)}; leave one row for each")
    unique = table.drop_duplicates("path")
    if repeated := len(table) - len(unique):
        problems.append(
            f"{repeated} duplicate rows are counted once: {listing(table['name'][table.duplicated('path')].tolist())}"
        )
    return unique.sort_values("path", ignore_index=True), media, problems


def _of_one_kind(root: Path, table: pd.DataFrame) -> tuple[pd.DataFrame, Medium, list[str]]:
    """Keeps the files of the kind that most are of; those of unknown endings are left in: what they are shows later.

    Raises:
        DataError: If none is of a known kind.
    """
    kinds = [medium_of(path) for path in table["path"]]
    counts = Counter(kind for kind in kinds if kind is not None)
    if not counts:
        raise DataError(f"{root}: no labelled images, videos or sounds{_what_else(root)}")
    media = max(counts, key=lambda kind: counts[kind])
    others = [kind is not None and kind != media for kind in kinds]
    if not any(others):
        return table, media, []
    names = table["name"][others].tolist()
    said = f"{len(names)} files are no {media}s, as most are, and are left out: {listing(names)}"
    return table[[not other for other in others]].reset_index(drop=True), media, [said]


def _one_spelling(labels: "pd.Series[str]") -> "pd.Series[str]":
    """Writes labels that are all whole numbers alike: `1`, `1.0` and `01` are one class."""
    if all(re.fullmatch(r"[+-]?\d+(\.0*)?", label) for label in labels.unique()):
        return labels.map({label: str(int(label.partition(".")[0])) for label in labels.unique()})
    return labels


def _what_else(root: Path) -> str:
    """What lies in a folder that has no media files, for the message."""
    if root.is_file():
        return f"; they end in {endings_for(tuple(ENDINGS))}"
    return (
        f"; the folder holds {contents(root)}. Give a folder of one folder per class, a label file, "
        "or the FFDI or FFDV layout (trainset/ with trainset_label.txt)"
    )


def contents(folder: Path) -> str:
    """What kinds of files lie below a folder, and how many of each, for a message."""
    suffixes = Counter(path.suffix.lower() for path in folder.rglob("*") if path.is_file())
    kinds = ", ".join(f"{count} {suffix or 'without ending'}" for suffix, count in suffixes.most_common(_SHOWN))
    return kinds or "no files"
