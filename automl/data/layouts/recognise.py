"""Recognising how a data set is laid out, and listing its samples.

Three layouts of images, videos or sounds: a *folder* (one folder per class, with or without train/val/test folders
around them), a *label file* (see `label_file`), and the competitions' *FFDI layout* (of videos: FFDV):

    trainset/  trainset_label.txt    valset/  valset_label.txt    testset/ (no labels: ignored)

Folders of classes are the stronger sign: a table beside them wins only if a flag asks for it, or if its labels cover
the files and say more, or other, than the folders do. What was read is reported, and so is what was not. Which samples
belong together (`groups.csv`) may stand beside any of them; see `automl.data.layouts.groups`.
"""

import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from automl.data.layouts.columns import COLUMN_OPTIONS, FORGED, GENUINE, flag_of, split_in
from automl.data.layouts.folders import are_classes, read_folders
from automl.data.layouts.groups import GROUPS_FILE, with_groups
from automl.data.layouts.label_file import LabelFile, Row, find_mentions, read_label_file
from automl.data.layouts.published import read_published
from automl.data.layouts.text_table import LABEL_NAMES, list_names
from automl.data.layouts.tree import LeftOut, Tree, last_part, walk_media
from automl.errors import DataError
from automl.files import is_there
from automl.media.kinds import ENDINGS, Medium, endings_for, find_medium_at, find_medium_within, is_media
from automl.spec import DataSpec

FFDI_SETS = {"trainset": "train", "valset": "validation", "testset": "holdout"}
"""The folders of the FFDI layout, and what automl calls these splits."""

_SHOWN = 5
_DOCUMENTS = re.compile(r"readme|licen[cs]e|changelog|requirements|notes?\b|sources|citation", re.IGNORECASE)
_COVERS = 0.8  # of the files: a table of labels, not one that mentions some of them


@dataclass(frozen=True, eq=False)
class Listing:
    """What lies on the disk, as in `automl.data.dataset.Dataset`.

    `table` has the text columns path, name, label, group, split and domain ("" where not given), and `kept`: tuples of
    the values of the columns that the spec names (`LabelledSpec.by`), empty where no label file was read.
    """

    root: Path
    format: str
    table: pd.DataFrame
    problems: tuple[str, ...]
    media: Medium
    remarks: tuple[str, ...]


def list_samples(spec: DataSpec) -> Listing:
    """Lists the labelled files of a data set, one row per file, sorted by path.

    Raises:
        DataError: If the layout cannot be recognised, or there are no labelled files, or a file has two labels.
    """
    root, layout, read, tree = _read_layout(spec)
    table, media = _make_table(root, read, layout)
    table["group"], ungrouped = with_groups(table, root, spec.groups)
    if layout == "ffdi" and media == "video":
        layout = "ffdv"
    problems = [*read.problems, *ungrouped, *(tree.left.list_warnings() if tree else [])]
    remarks = [*read.remarks, *_describe_unread(table, read, tree)]
    return Listing(root.resolve(), layout, table, tuple(problems), media, tuple(remarks))


def _read_layout(spec: DataSpec) -> tuple[Path, str, LabelFile, Tree | None]:
    """Returns the root, the layout, its rows, and all that lies below the root if that is a folder."""
    if spec.path is None or spec.format == "demo":
        from automl.data.demo import demo_dataset  # late: it draws the demo with scikit-image

        root = demo_dataset()
        return root, "demo", _read_tables_below(root, spec, Tree(root)), None
    root = Path(spec.path).expanduser()
    if not is_there(root):
        raise DataError(f"no such file or folder: {root}")
    if not root.is_dir():
        if spec.format not in ("auto", "table"):
            raise DataError(f"{root} is a file; --format {spec.format} needs a folder")
        if is_media(root.name):
            raise DataError(f"{root} is one file; give its folder, or a label file")
        return root, "table", read_label_file(root, spec, spec.files_folder), None
    if spec.files_folder:
        raise DataError(f"--files-folder is for a label file, whose files lie elsewhere, and {root} is a folder")
    tree = Tree(root)
    match spec.format:
        case "auto":
            layout, read = _recognise(root, spec, tree)
        case "ffdi" | "ffdv":
            layout, read = "ffdi", _read_ffdi(root, spec, tree)
        case "table":
            layout, read = "table", _read_tables_below(root, spec, tree)
        case "folder":
            layout, read = "folder", read_folders(tree)
    return root, layout, read, tree


def _recognise(root: Path, spec: DataSpec, tree: Tree) -> tuple[str, LabelFile]:
    """Recognises the layout of a folder, and reads it."""
    if _find_ffdi(tree) is not None:
        return "ffdi", _read_ffdi(root, spec, tree)
    option = next((name for name in (*COLUMN_OPTIONS, "by") if getattr(spec, name, None)), None)
    if not option:
        known = next(filter(None, (read_published(tree, level) for level in tree.lone_folders())), None)
        if known:
            return "folder", known
    folders = read_folders(tree)
    files, unread = _find_label_files(root, tree, spec)
    labels = {row.label for row in folders.rows}
    strong = are_classes(labels)
    if files and (not strong or option):
        return "table", _read_tables(root, spec, files, tree)
    if (option or not (files or strong)) and (meant := _find_broken_label_file(root, tree)):
        return "table", read_label_file(meant, spec, root, tree)  # its error says what is wrong
    if option:
        raise DataError(f"{root}: {flag_of(option)} is for a label file, and no table here names the files")
    if files:
        table, reason = LabelFile(), ""
        try:
            table = _read_tables(root, spec, files, tree)
        except DataError as exc:
            reason = f": {exc}"
        if _says_more(table, folders, tree):
            return "table", table
        names = list_names([os.path.relpath(file, root) for file in files])
        folders.remarks.append(
            f"not read: {names}; the folders are taken as the classes (--format table reads a label file){reason}"
        )
        folders.tables = files
    elif not strong and len(labels) > 1:
        names = list_names([f"{label}/" for label in sorted(labels)])
        raise DataError(f"{root}: {names} hold no folders of classes, and no table names their files")
    folders.problems += unread
    return "folder", folders


def _says_more(table: LabelFile, folders: LabelFile, tree: Tree) -> bool:
    """Returns whether a table beside folders of classes is the label file, and not one that mentions the files."""
    if table.columns is None or not table.rows:
        return False
    by_folder = {row.path: row.label for row in folders.rows}
    pairs = {(by_folder[row.path], row.label) for row in table.rows if row.path in by_folder}
    agrees = len(pairs) == len({one for one, _ in pairs}) == len({two for _, two in pairs})
    named = {row.path for row in table.rows}
    covers = len(named) >= _COVERS * max(1, len(tree))
    if agrees and covers:
        given = {row.path: row.split for row in folders.rows}
        splits = any(row.split and not given.get(row.path) for row in table.rows)
        return table.columns.group is not None or splits or not named <= by_folder.keys()
    labels = {row.label.lower() for row in table.rows}
    sure = table.columns.label.lower() in LABEL_NAMES or bool(table.columns.one_hot) or labels <= GENUINE | FORGED
    return covers and sure


# --- the FFDI layout --------------------------------------------------------------------------------------------


def _find_ffdi(tree: Tree) -> Path | None:
    """Returns the folder that has trainset/ and its label file; None if none has."""
    folders = (tree.root / level for level in tree.lone_folders())
    return next((path for path in folders if _ffdi_labels(path, "trainset") and (path / "trainset").is_dir()), None)


def _read_ffdi(root: Path, spec: DataSpec, tree: Tree) -> LabelFile:
    """Reads the label file beside each set; a set without one has no labels and is left out."""
    folder = _find_ffdi(tree) or root
    whole = LabelFile()
    for name, split in FFDI_SETS.items():
        labels = _ffdi_labels(folder, name)
        if labels and (folder / name).is_dir():
            read = read_label_file(labels, spec, folder / name)
            read.rows = [replace(row, split="") if row.split else row for row in read.rows]
            whole.add_table(read, split)
        elif split == "train":
            raise DataError(f"{root}: the FFDI layout needs trainset/ and trainset_label.txt (or train_label.txt)")
        elif (folder / name).is_dir():
            whole.remarks.append(f"{name}/ has no label file and is not read")
    return whole


def _ffdi_labels(root: Path, folder: str) -> Path | None:
    """Returns the label file of an FFDI set: trainset_label.txt or train_label.txt."""
    names = (f"{folder}_label.txt", f"{folder.removesuffix('set')}_label.txt")
    return next((root / name for name in names if (root / name).is_file()), None)


# --- tables -----------------------------------------------------------------------------------------------------


def _read_tables_below(root: Path, spec: DataSpec, tree: Tree) -> LabelFile:
    """Reads the label files of a folder, whatever else lies in it."""
    files = _find_label_files(root, tree, spec)[0] or list(filter(None, [_find_broken_label_file(root, tree)]))
    if not files:
        raise DataError(f"{root}: no label file (CSV, TSV, TXT or JSON) that names the files below it")
    return _read_tables(root, spec, files, tree)


def _read_tables(root: Path, spec: DataSpec, files: Sequence[Path], tree: Tree) -> LabelFile:
    """Reads one label file, or several as one set: one a split (train.csv, val.csv), one a part of the set."""
    if len(files) == 1:
        return read_label_file(files[0], spec, root, tree)
    if len({file.name.lower().count(".cm.") for file in files}) > 1:  # ASVspoof: the others are of speaker verification
        files = [file for file in files if ".cm." in file.name.lower()]
    splits = {file: _split_in(file, root) for file in files}
    remarks = []
    if {"train"} < set(splits.values()) - {""} and "" in splits.values():
        beside = [os.path.relpath(file, root) for file, split in splits.items() if not split]
        remarks = [f"not read beside those of the splits: {list_names(beside)}"]
        splits = {file: split for file, split in splits.items() if split}
    parts = len({file.name for file in splits}) == 1  # a table of the same name in each folder
    first = next((file for wanted in ("train", "") for file, split in splits.items() if split == wanted), None)
    twice = not parts and len(set(splits.values())) < len(splits)
    if first is None or twice or {"", "train"} <= set(splits.values()):
        shown = list_names([os.path.relpath(file, root) for file in splits])
        raise DataError(f"{root}: more than one label file: {shown}; give the one to read as the path")
    main = read_label_file(first, spec, root, tree)
    whole = LabelFile(columns=main.columns)
    for file, split in splits.items():
        whole.add_table(main if file == first else read_label_file(file, spec, root, tree, main.columns), split)
    whole.remarks += remarks
    return whole


def _find_label_files(root: Path, tree: Tree, spec: DataSpec) -> tuple[list[Path], list[str]]:
    """Finds the label files below a folder, and warns of those that may have been meant to be and cannot be read."""
    files, problems = [], []
    for name in tree.tables:
        file = root / name
        if "submission" in file.name.lower() or file.name.lower() == GROUPS_FILE:
            continue
        mentions = find_mentions(file, root, tree, spec)
        if mentions.of_labels or (mentions.rows and _split_in(file, root)):
            files.append(file)
        elif mentions.reason and not _DOCUMENTS.search(file.stem):
            problems.append(f"not read: {mentions.reason}")
    return files, problems[:_SHOWN]


def _find_broken_label_file(root: Path, tree: Tree) -> Path | None:
    """Finds a table in the folder that names no files but may have been meant to; a README was not."""
    for file in (root / name for name in tree.tables if "/" not in name or _split_in(root / name, root)):
        another = _DOCUMENTS.search(file.stem) or "submission" in file.name.lower() or file.name.lower() == GROUPS_FILE
        if not another and file.suffix.lower() != ".json":  # which may be of anything
            return file
    return None


def _split_in(file: Path, root: Path) -> str:
    """Returns the split in a label file's name, else in its folder's: `train` for train_labels.csv; "" for none."""
    return split_in(file.stem, *file.relative_to(root).parts[-2:-1])


# --- the table of samples ---------------------------------------------------------------------------------------


def _make_table(root: Path, read: LabelFile, layout: str) -> tuple[pd.DataFrame, Medium]:
    """Makes the table of samples: one row per file of one kind, labels in one spelling; `read` gets the problems."""
    table = pd.DataFrame([vars(row) for row in read.rows], columns=list(Row.__dataclass_fields__), dtype=str)
    table["kept"] = [row.kept for row in read.rows]
    table, media = _keep_one_kind(root, table, read.problems)
    labels = table["label"].unique()
    # names of folders are names: 001 stays 001; else `1`, `1.0` and `01` are one class
    if layout != "folder" and all(re.fullmatch(r"[+-]?\d+(\.0*)?", label) for label in labels):
        table["label"] = table["label"].map({label: str(int(label.partition(".")[0])) for label in labels})
    for column, what in (("label", "more than one label"), ("split", "more than one split")):
        kinds = table.groupby("path")[column].nunique()
        if bad := kinds.index[kinds > 1].tolist():
            names = [os.path.relpath(path, root if root.is_dir() else root.parent) for path in bad]
            raise DataError(f"{root}: {len(names)} files have {what}: {list_names(names)}; leave one row for each")
    repeated = table.duplicated("path")
    if repeated.any():
        shown = list_names(table["name"][repeated].tolist())
        read.problems.append(f"{repeated.sum()} duplicate rows are counted once: {shown}")
    return table[~repeated].sort_values("path", ignore_index=True), media


def _keep_one_kind(root: Path, table: pd.DataFrame, problems: list[str]) -> tuple[pd.DataFrame, Medium]:
    """Keeps the files of the kind that most are of; those of an unknown kind are left in: what they are shows later."""
    kinds = [find_medium_at(path) for path in table["path"]]
    counts = Counter(kind for kind in kinds if kind is not None)
    if not counts and root.is_file():
        raise DataError(f"{root}: no labelled images, videos or sounds; they end in {endings_for(tuple(ENDINGS))}")
    if not counts:
        raise DataError(
            f"{root}: no labelled images, videos or sounds; the folder holds {describe_contents(root)}. Give a folder "
            "of one folder per class, a label file, or the FFDI or FFDV layout (trainset/ with trainset_label.txt)"
        )
    media = max(counts, key=lambda kind: counts[kind])
    pairs = zip(kinds, table["path"], strict=True)
    kept = np.array([kind in (media, None) or find_medium_within(path) == media for kind, path in pairs])
    if not kept.all():
        names = table["name"][~kept].tolist()
        problems.append(f"{len(names)} files are no {media}s, as most are, and are left out: {list_names(names)}")
    return table[kept].reset_index(drop=True), media


def _describe_unread(table: pd.DataFrame, read: LabelFile, tree: Tree | None) -> list[str]:
    """Describes what lies beside the samples and is not read, one line each."""
    used = set(table["path"])
    if tree is not None:
        base = os.path.abspath(tree.root)  # noqa: PTH100
        groups = [name for name in tree.tables if last_part(name).lower() == GROUPS_FILE]
        lines = tree.left.list_remarks([*(file.name for file in read.tables), *groups[:1]])
        unnamed = [name for name in tree.files_below("") if f"{base}/{name}" not in used]
    else:
        lines, unnamed = [], []
        for folder in sorted({os.path.dirname(path) for path in used}):  # noqa: PTH120
            entries = walk_media(Path(folder), LeftOut(), deep=False)
            unnamed += [name for _, name in entries if f"{folder}/{name}" not in used]
    if unnamed and read.columns is not None:
        lines.insert(0, f"{len(unnamed)} more files lie there, and no row names them: {list_names(unnamed)}")
    return lines


def describe_contents(folder: Path) -> str:
    """Describes what kinds of files lie below a folder, and how many of each, for a message."""
    suffixes = Counter(path.suffix.lower() for path in folder.rglob("*") if path.is_file())
    kinds = ", ".join(f"{count} {suffix or 'without ending'}" for suffix, count in suffixes.most_common(_SHOWN))
    return kinds or "no files"
