"""Recognising how a data set is laid out, and listing its samples.

Three layouts of images, videos or sounds: a *folder* (one folder per class, with or without train/val/test folders
around them), a *label file* (see `label_file`), and the competitions' *FFDI layout* (of videos: FFDV):

    trainset/  trainset_label.txt    valset/  valset_label.txt    testset/ (no labels: ignored)

Folders of classes are the stronger sign: a table beside them wins only if a flag asks for it, or if its labels cover
the files and say more, or other, than the folders do. What was taken is told, and so is what was not. Which samples
belong together (`groups.csv`) may stand beside any of them; see `automl.data.layouts.groups`.
"""

import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pandas as pd

from automl.data.layouts.columns import FORGED, GENUINE, LABEL_NAMES, SPLIT_NAMES
from automl.data.layouts.folders import are_classes, read_folders
from automl.data.layouts.groups import GROUPS_FILE, with_groups
from automl.data.layouts.label_file import LabelFile, Row, find_mentions, read_label_file
from automl.data.layouts.published import read_published
from automl.data.layouts.text_table import listing
from automl.data.layouts.tree import LeftOut, Tree, walk_media
from automl.errors import DataError
from automl.files import is_there
from automl.media.kinds import ENDINGS, Medium, endings_for, is_media, medium_at, medium_within
from automl.spec import DataSpec

FFDI_SETS = {"trainset": "train", "valset": "validation", "testset": "holdout"}
"""The folders of the FFDI layout, and what automl calls these splits."""

_SHOWN = 5
_DOCUMENTS = re.compile(r"readme|licen[cs]e|changelog|requirements|notes?\b|sources|citation", re.IGNORECASE)
_COLUMN_FLAGS = ("file_column", "label_column", "group_column", "split_column")
_COVERS = 0.8  # of the files: a table of labels, not one that mentions some of them


@dataclass(frozen=True, eq=False)
class Listing:
    """What lies on the disk: `table` has the text columns path, name, label, group and split ("" where not given)."""

    root: Path
    format: str
    table: pd.DataFrame
    problems: tuple[str, ...]
    media: Medium
    """What kind of files they all are."""
    told: tuple[str, ...] = field(default=())
    """What was read and what was not, one line each."""


def list_samples(spec: DataSpec) -> Listing:
    """Lists the labelled files of a data set.

    Args:
        spec: Where they are; `format` and the column flags override what is recognised.

    Returns:
        One row per file, sorted by path.

    Raises:
        DataError: If the layout cannot be told, or there are no labelled files, or a file has two labels.
    """
    root, layout, found, tree = _read(spec)
    table, media, problems = _checked(root, found, layout)
    table["group"], said = with_groups(table, root, spec.groups)
    if layout == "ffdi" and media == "video":
        layout = "ffdv"
    told = [*found.told, *_not_read(table, found, tree)]
    left = tree.left.warnings() if tree else []
    return Listing(root.resolve(), layout, table, (*found.problems, *problems, *said, *left), media, tuple(told))


def _read(spec: DataSpec) -> tuple[Path, str, LabelFile, Tree | None]:
    """The root, the layout, its rows, and all that lies below the root if that is a folder."""
    if spec.path is None or spec.format == "demo":
        from automl.data.demo import demo_dataset  # late: it draws the demo with scikit-image

        root = demo_dataset()
        return root, "demo", _from_table(root, spec, Tree(root)), None
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
        raise DataError(f"--files-folder says where the files of a label file lie, and {root} is a folder")
    tree = Tree(root)
    layout, found = _from_tree(root, spec, tree)
    return root, layout, found, tree


def _from_tree(root: Path, spec: DataSpec, tree: Tree) -> tuple[str, LabelFile]:
    """The layout of a folder, and its rows."""
    flag = next((name for name in _COLUMN_FLAGS if getattr(spec, name)), None)
    if spec.format in ("ffdi", "ffdv") or (spec.format == "auto" and _ffdi_level(tree) is not None):
        return "ffdi", _from_ffdi(root, spec, tree)
    if spec.format == "table":
        return "table", _from_table(root, spec, tree)
    if spec.format == "auto" and not flag:
        known = next(filter(None, (read_published(tree, level) for level in _levels(tree))), None)
        if known:
            return "folder", known
    folders = read_folders(tree)
    if spec.format == "folder":
        return "folder", folders
    files, unread = _label_files(root, tree, spec.file_column)
    strong = are_classes({row.label for row in folders.rows})
    if files and (not strong or flag):
        return "table", _read_tables(root, spec, files, tree)
    if flag and (meant := _meant(root, tree)):
        return "table", read_label_file(meant, spec, root, tree)  # its error says what is wrong
    if flag:
        raise DataError(f"{root}: --{flag.replace('_', '-')} is about a label file, and no table here names the files")
    if files:
        table, reason = LabelFile(()), ""
        try:
            table = _read_tables(root, spec, files, tree)
        except DataError as exc:
            reason = f": {exc}"
        if _says_more(table, folders, tree):
            return "table", table
        names = listing([os.path.relpath(file, root) for file in files])
        told = f"not read: {names}; folders of classes count (--format table reads a label file){reason}"
        folders = replace(folders, told=(*folders.told, told), tables=tuple(files))
    elif not strong and (meant := _meant(root, tree)):
        return "table", read_label_file(meant, spec, root, tree)  # its error says what is wrong
    elif not strong and len({row.label for row in folders.rows}) > 1:
        names = listing(sorted({f"{row.label}/" for row in folders.rows}))
        raise DataError(f"{root}: {names} hold no folders of classes, and no table names their files")
    return "folder", replace(folders, problems=(*folders.problems, *unread))


def _says_more(table: LabelFile, folders: LabelFile, tree: Tree) -> bool:
    """Whether a table beside folders of classes is the label file, and not one that mentions the files."""
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


def _levels(tree: Tree) -> Iterator[str]:
    """Yields the folder, and the ones in it as long as all files lie in one of them."""
    level = ""
    yield level
    while not tree.directly(level) and len(tree.folders(level)) == 1:
        (level,) = tree.folders(level)
        yield level


def _ffdi_level(tree: Tree) -> str | None:
    """The folder that has trainset/ and its label file, relative to the root; None if none has."""
    for level in _levels(tree):
        folder = tree.root / level
        if _ffdi_label_file(folder, "trainset") and (folder / "trainset").is_dir():
            return level
    return None


def _from_ffdi(root: Path, spec: DataSpec, tree: Tree) -> LabelFile:
    """Reads the label file beside each set; a set without one has no labels and is left out."""
    folder = root / (_ffdi_level(tree) or "")
    found: list[LabelFile] = []
    for name, split in FFDI_SETS.items():
        labels = _ffdi_label_file(folder, name)
        if labels and (folder / name).is_dir():
            one = read_label_file(labels, spec, folder / name)
            rows = tuple(Row(row.path, row.name, row.label, row.group, split) for row in one.rows)
            found.append(LabelFile(rows, one.problems, one.told, one.columns, one.tables))
        elif split == "train":
            raise DataError(f"{root}: the FFDI layout needs trainset/ and trainset_label.txt (or train_label.txt)")
        elif (folder / name).is_dir():
            found.append(LabelFile((), told=(f"{name}/ has no label file and is not read",)))
    return _together(found)


def _ffdi_label_file(root: Path, folder: str) -> Path | None:
    """The label file of an FFDI set: trainset_label.txt or train_label.txt."""
    names = (f"{folder}_label.txt", f"{folder.removesuffix('set')}_label.txt")
    return next((root / name for name in names if (root / name).is_file()), None)


# --- tables -----------------------------------------------------------------------------------------------------


def _from_table(root: Path, spec: DataSpec, tree: Tree) -> LabelFile:
    """Reads the label files of a folder, whatever else lies in it."""
    files = _label_files(root, tree, spec.file_column)[0] or list(filter(None, [_meant(root, tree)]))
    if not files:
        raise DataError(f"{root}: no label file (CSV, TSV, TXT or JSON) that names the files below it")
    return _read_tables(root, spec, files, tree)


def _read_tables(root: Path, spec: DataSpec, files: Sequence[Path], tree: Tree) -> LabelFile:
    """Reads one label file, or several as one set: one a split (train.csv, val.csv), one a part of the set."""
    if len(files) == 1:
        return read_label_file(files[0], spec, root, tree)
    if len({file.name.lower().count(".cm.") for file in files}) > 1:  # ASVspoof: the others are of speaker verification
        files = [file for file in files if ".cm." in file.name.lower()]
    splits = {file: _split_of(file, root) for file in files}
    told = []
    if {"train"} < set(splits.values()) - {""} and "" in splits.values():
        beside = [os.path.relpath(file, root) for file, split in splits.items() if not split]
        told = [f"not read beside those of the splits: {listing(beside)}"]
        splits = {file: split for file, split in splits.items() if split}
    parts = len({file.name for file in splits}) == 1  # a table of the same name in each folder
    first = next((file for wanted in ("train", "") for file, split in splits.items() if split == wanted), None)
    if (
        first is None
        or (not parts and len(set(splits.values())) < len(splits))
        or {"", "train"} <= set(splits.values())
    ):
        shown = listing([os.path.relpath(file, root) for file in splits])
        raise DataError(f"{root}: more than one label file: {shown}; give the one to read as the path")
    main = read_label_file(first, spec, root, tree)
    found = []
    for file, split in splits.items():
        one = main if file == first else read_label_file(file, spec, root, tree, like=main.columns)
        rows = tuple(Row(row.path, row.name, row.label, row.group, row.split or split) for row in one.rows)
        found.append(replace(one, rows=rows, columns=main.columns))
    whole = _together(found)
    return replace(whole, told=(*whole.told, *told))


def _label_files(root: Path, tree: Tree, file_column: str | None) -> tuple[list[Path], list[str]]:
    """The tables below a folder that are label files; a sample submission is none.

    Args:
        root: The folder.
        tree: What lies below it.
        file_column: The column that names files, if the user says it.

    Returns:
        The files, and warnings of those that may have been meant to be and cannot be read.
    """
    found, problems = [], []
    for name in tree.tables:
        file = root / name
        if "submission" in file.name.lower() or file.name.lower() == GROUPS_FILE:
            continue
        mentions = find_mentions(file, root, tree, file_column)
        if mentions.of_labels or (mentions.rows and _split_of(file, root)):
            found.append(file)
        elif mentions.reason and not _DOCUMENTS.search(file.stem):
            problems.append(f"not read: {mentions.reason}")
    return found, problems[:_SHOWN]


def _meant(root: Path, tree: Tree) -> Path | None:
    """A table in the folder that names no files but may have been meant to; a README was not."""
    files = [root / name for name in tree.tables if "/" not in name or _split_of(root / name, root)]
    files = [file for file in files if not _DOCUMENTS.search(file.stem) and "submission" not in file.name.lower()]
    files = [file for file in files if file.suffix.lower() != ".json"]  # which may be of anything
    return next((file for file in files if file.name.lower() != GROUPS_FILE), None)


def _split_of(file: Path, root: Path) -> str:
    """The split that a label file's name says, else its folder's: `train` for train_labels.csv; "" for none."""
    names = [file.stem, *(part for part in file.relative_to(root).parts[-2:-1])]
    words = [word for name in names for word in re.split(r"[^a-z]+", name.lower())]
    return next((SPLIT_NAMES[word] for word in words if word in SPLIT_NAMES), "")


def _together(found: Sequence[LabelFile]) -> LabelFile:
    """Several label files as one."""
    return LabelFile(
        tuple(row for one in found for row in one.rows),
        tuple(problem for one in found for problem in one.problems),
        tuple(line for one in found for line in one.told),
        found[0].columns,
        tuple(file for one in found for file in one.tables),
    )


# --- the table of samples ---------------------------------------------------------------------------------------


def _checked(root: Path, found: LabelFile, layout: str) -> tuple[pd.DataFrame, Medium, list[str]]:
    """Makes the table of samples: one row per file of one kind, labels in one spelling; raises where that cannot be."""
    table = pd.DataFrame([vars(row) for row in found.rows], columns=list(Row.__dataclass_fields__), dtype=str)
    table, media, problems = _of_one_kind(root, table)
    if layout != "folder":  # names of folders are names: 001 stays 001
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
    """Keeps the files of the kind that most are of; those of an unknown kind are left in: what they are shows later.

    Raises:
        DataError: If none is of a known kind.
    """
    kinds = [medium_at(path) for path in table["path"]]
    counts = Counter(kind for kind in kinds if kind is not None)
    if not counts:
        raise DataError(f"{root}: no labelled images, videos or sounds{_what_else(root)}")
    media = max(counts, key=lambda kind: counts[kind])
    others = [
        kind not in (media, None) and medium_within(path) != media
        for kind, path in zip(kinds, table["path"], strict=True)
    ]
    if not any(others):
        return table, media, []
    names = table["name"][others].tolist()
    said = f"{len(names)} files are no {media}s, as most are, and are left out: {listing(names)}"
    return table[[not other for other in others]].reset_index(drop=True), media, [said]


def _not_read(table: pd.DataFrame, found: LabelFile, tree: Tree | None) -> list[str]:
    """What lies beside the samples and is not read, one line each."""
    used = set(table["path"])
    if tree is not None:
        base = os.path.abspath(tree.root)  # noqa: PTH100
        groups = [name for name in tree.tables if name.rpartition("/")[2].lower() == GROUPS_FILE]
        lines = tree.left.notes([*(file.name for file in found.tables), *groups[:1]])
        unnamed = [name for name in tree.below("") if f"{base}/{name}" not in used]
    else:
        lines, left = [], LeftOut()
        unnamed = []
        for folder in sorted({os.path.dirname(path) for path in used}):  # noqa: PTH120
            entries = walk_media(Path(folder), left, deep=False)
            unnamed += [name for _, name in entries if f"{folder}/{name}" not in used]
    if unnamed and found.columns is not None:
        lines.insert(0, f"{len(unnamed)} more files lie there, and no row names them: {listing(unnamed)}")
    return lines


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
