"""Label files: a CSV, TSV or TXT table with any column names that says which file has which label.

The file column is the one whose values are files (Windows' backslashes are understood); the label column is the one
that is left, or the one named so, or the only one with few distinct values.
"""

import difflib
import os
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from automl.data.kinds import is_media
from automl.data.table import Table, open_table
from automl.errors import DataError
from automl.spec import DataSpec

__all__ = [
    "GROUP_NAMES",
    "LABEL_NAMES",
    "SPLIT_NAMES",
    "Below",
    "LabelFile",
    "Row",
    "find_files",
    "leads_out",
    "listing",
    "names_files",
    "read_label_file",
    "read_table",
]

SPLIT_NAMES = {
    **dict.fromkeys(("train", "training", "trainset"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "valset", "validset", "dev"), "validation"),
    **dict.fromkeys(("test", "testing", "testset", "holdout"), "holdout"),
}
"""What people call the splits, in lower case, and what automl calls them."""

LABEL_NAMES = ("label", "labels", "target", "class", "class_name", "category", "y", "is_fake", "fake")
"""What people call the label column, in lower case."""

GROUP_NAMES = ("group", "group_id", "groups")
"""What people call the column of what stays together, in lower case."""

_SPLIT_COLUMNS = ("split", "subset")
_PROBE_ROWS = 200  # rows looked at to recognise the file column
_SHOWN = 5  # names listed in a message


@dataclass(frozen=True)
class Row:
    """One line of a label file, with the file found; empty strings where the table says nothing."""

    path: str
    name: str
    label: str
    group: str
    split: str


@dataclass(frozen=True)
class LabelFile:
    """A label file that was understood; `problems` are warnings, one line each."""

    rows: tuple[Row, ...]
    problems: tuple[str, ...]


def read_table(file: Path) -> tuple[list[str], list[list[str]]]:
    """Parses a label file into column names and rows of stripped strings.

    Raises:
        DataError: As `open_table` and `Table.rows`.
    """
    table = open_table(file)
    return list(table.header), list(table.rows())


def find_files(table: Table, file_column: str | None = None) -> tuple[str, Path]:
    """Finds out which column of a table names files, and which folder they are relative to; keeps a few rows only.

    Args:
        table: Any table.
        file_column: The column, where the user says it.

    Raises:
        DataError: If the column cannot be told, with the columns and the flag.
    """
    some = _spread(table.rows(), _PROBE_ROWS)
    columns = {name: [row[i] for row in some] for i, name in enumerate(table.header)}
    return _file_column(table.file, columns, _bases(table.file), DataSpec(file_column=file_column))


def read_label_file(file: Path, spec: DataSpec, folder: Path | None = None) -> LabelFile:
    """Understands a label file: which column is which, and where the files lie.

    Args:
        file: The label file.
        spec: Its column flags override what is recognised.
        folder: Where the files lie; None: the label file's folder or the folder in it that has most of them.

    Returns:
        The rows whose file exists and that have a label.

    Raises:
        DataError: If a column cannot be told (with the columns and the flag), if names leave the folder, or if all
            files are missing.
    """
    header, rows = read_table(file)
    if not rows:
        raise DataError(f"{file}: a header and no rows")
    columns = {name: [row[i] for row in rows] for i, name in enumerate(header)}
    bases = [folder] if folder else _bases(file)
    file_column, base = _file_column(file, columns, bases, spec)
    split_column = _named(file, columns, spec.split_column, "--split-column", _SPLIT_COLUMNS)
    group_column = _named(file, columns, spec.group_column, "--group-column", GROUP_NAMES)
    taken = (file_column, split_column, group_column)
    label_column = _label_column(file, {k: v for k, v in columns.items() if k not in taken}, spec, file_column)
    names = columns[file_column]
    paths, missing = _locate_all(file, base, names)
    empty = [""] * len(names)
    groups = columns[group_column] if group_column else empty
    splits = _splits(file, columns[split_column]) if split_column else empty
    fields = zip(paths, names, columns[label_column], groups, splits, strict=True)
    found = [Row(path, *rest) for path, *rest in fields if path]
    if not found:
        raise DataError(f"{file}: none of its {len(names)} files exist in {base}: {listing(missing)}")
    labelled = tuple(row for row in found if row.label)
    problems = []
    if missing:
        problems.append(f"{file.name}: {len(missing)} of {len(names)} files are missing: {listing(missing)}")
    if unlabelled := [row.name for row in found if not row.label]:
        problems.append(f"{file.name}: {len(unlabelled)} rows have no label and are left out: {listing(unlabelled)}")
    return LabelFile(labelled, tuple(problems))


def names_files(file: Path) -> bool:
    """Whether a text file is a label file: a table in which some column names files that exist."""
    try:
        header, rows = read_table(file)
    except DataError:
        return False
    some = rows[:: max(1, len(rows) // _PROBE_ROWS)]
    return any(_find(base, row[i]) for base in _bases(file) for i in range(len(header)) for row in some)


def listing(names: Sequence[str]) -> str:
    """Writes up to five names, and how many more there are."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(map(repr, list(names)[:_SHOWN])) + more


def leads_out(file: Path, base: Path, names: Sequence[str]) -> DataError:
    """The error for names of a label file that lead out of the folder they are relative to."""
    return DataError(
        f"{file}: {len(names)} names lead out of {base}: {listing(names)}; "
        "write names relative to that folder, without .. and links out of it"
    )


class Below:
    """The files below a folder, by name; no name leads out of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._trusted = folder.resolve()
        self._resolve = lru_cache(1024)(lambda parent: Path(parent).resolve())

    def locate(self, name: str) -> str | None:
        """Finds a file.

        Args:
            name: Relative to the folder, as a label file has it.

        Returns:
            Its absolute path, "" if there is no such file, None if the name leads out of the folder: absolute, with
            `..`, or through a symbolic link.
        """
        parts = name.replace("\\", "/").split("/")
        if ".." in parts or (parts[0] == "" and name) or Path(name).is_absolute() or ":" in parts[0][1:2]:
            return None
        path = _find(self.folder, name)
        if path is None:
            return ""
        return os.path.abspath(path) if self._holds(path) else None  # noqa: PTH100

    def _holds(self, path: str) -> bool:
        """Whether a file really lies below the folder."""
        if not self._resolve(os.path.dirname(path)).is_relative_to(self._trusted):  # noqa: PTH120
            return False
        return not os.path.islink(path) or Path(path).resolve().is_relative_to(self._trusted)  # noqa: PTH114


def _spread(rows: Iterable[list[str]], wanted: int) -> list[list[str]]:
    """Some rows, evenly spread over all of them: between `wanted` and twice as many."""
    some: list[list[str]] = []
    step = 1
    for number, row in enumerate(rows):
        if number % step == 0:
            some.append(row)
        if len(some) == 2 * wanted:
            some, step = some[::2], 2 * step
    return some


def _bases(file: Path) -> list[Path]:
    """Folders the names may be relative to, the likeliest first."""
    stem = file.stem.lower()
    folders = sorted(path for path in file.parent.iterdir() if path.is_dir() and not path.name.startswith("."))
    return [file.parent, *sorted(folders, key=lambda path: not stem.startswith(path.name.lower()))]


def _file_column(file: Path, columns: dict[str, list[str]], bases: list[Path], spec: DataSpec) -> tuple[str, Path]:
    """Finds the column that names files, and the folder they are relative to."""
    wanted = _named(file, columns, spec.file_column, "--file-column", ())
    candidates = [wanted] if wanted else list(columns)
    hits = {}
    for column in candidates:
        values = columns[column][:: max(1, len(columns[column]) // _PROBE_ROWS)]
        for base in bases:
            hits[column, base] = sum(_find(base, value) is not None for value in values)
    found = [column for column in candidates if any(hits[column, base] for base in bases)]
    if not found:  # then the message is about missing files, not about the column
        found = [column for column in candidates if _names_media(columns[column])] or ([wanted] if wanted else [])
    if len(found) == 1:
        return found[0], max(bases, key=lambda base: hits[found[0], base])
    looked = ", ".join(str(base) for base in bases[:_SHOWN])
    what = f"columns {listing(found)} all name files" if found else f"no column names files that exist in {looked}"
    raise DataError(f"{file}: {what}; say which with --file-column (columns: {', '.join(columns)})")


def _label_column(file: Path, columns: dict[str, list[str]], spec: DataSpec, file_column: str) -> str:
    """Finds the column that holds the labels among those that are left."""
    if wanted := _named(file, columns, spec.label_column, "--label-column", ()):
        return wanted
    named = [column for column in columns if column.lower() in LABEL_NAMES]
    few = [column for column, values in columns.items() if 2 <= len(set(values)) <= max(20, len(values) ** 0.5)]
    for candidates in (list(columns), named, few):
        if len(candidates) == 1:
            return candidates[0]
    if not columns:
        raise DataError(f"{file}: no column is left for the label beside {file_column!r}")
    raise DataError(
        f"{file}: cannot tell the label column among {', '.join(columns)}; say which with --label-column "
        "(and --group-column for what must stay together)"
    )


def _named(file: Path, columns: Iterable[str], wanted: str | None, flag: str, known: Sequence[str]) -> str | None:
    """The column a flag names, else the one with a known name, else None."""
    names = list(columns)
    if wanted is None:
        return next((name for name in names if name.lower() in known), None)
    if wanted in names:
        return wanted
    close = difflib.get_close_matches(wanted, names, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    raise DataError(f"{file}: {flag} {wanted!r} is not one of its columns: {', '.join(names)}{hint}")


def _names_media(values: Sequence[str]) -> bool:
    """Whether most values end like media files."""
    return sum(map(is_media, values)) > len(values) / 2


def _find(base: Path, name: str) -> str | None:
    """The path of a file named in a label file, None if there is none; Windows' backslashes are understood."""
    spellings = (name, name.replace("\\", "/")) if "\\" in name else (name,)
    for spelling in spellings:
        path = os.path.join(base, spelling)  # noqa: PTH118 - ten times as fast as Path, for every row
        try:
            if spelling and stat.S_ISREG(os.stat(path).st_mode):  # noqa: PTH116
                return path
        except (OSError, ValueError):  # ValueError: a NUL in the name
            continue
    return None


def _locate_all(file: Path, base: Path, names: list[str]) -> tuple[list[str], list[str]]:
    """Finds every named file below `base`.

    Returns:
        A path for each name, empty where there is no file; and the names of those.

    Raises:
        DataError: If a name leads out of the folder.
    """
    below = Below(base)
    paths = [below.locate(name) for name in names]
    if escaped := [name for name, path in zip(names, paths, strict=True) if path is None]:
        raise leads_out(file, base, escaped)
    found = [path or "" for path in paths]
    return found, [name for name, path in zip(names, found, strict=True) if not path]


def _splits(file: Path, values: Sequence[str]) -> list[str]:
    """Translates the values of the split column."""
    if unknown := sorted({value for value in values if value.lower() not in SPLIT_NAMES}):
        raise DataError(f"{file}: split {listing(unknown)} is none of: {', '.join(SPLIT_NAMES)}")
    return [SPLIT_NAMES[value.lower()] for value in values]
