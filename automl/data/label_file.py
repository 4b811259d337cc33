"""Label files: a CSV, TSV or TXT table with any column names that says which image has which label.

Read as people and programs write them: with or without a header, a byte order mark, quotes; comma, semicolon, tab, bar
or space between the columns; Windows line ends and backslashes. The file column is the one whose values are files; the
label column is the one that is left, or the one named so, or the only one with few distinct values.
"""

import csv
import difflib
import os
import re
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from automl.data.decode import EXTENSIONS
from automl.errors import DataError
from automl.spec import DataSpec

__all__ = ["SPLIT_NAMES", "LabelFile", "Row", "listing", "names_files", "printable", "read_label_file", "read_table"]

SPLIT_NAMES = {
    **dict.fromkeys(("train", "training", "trainset"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "valset", "validset", "dev"), "validation"),
    **dict.fromkeys(("test", "testing", "testset", "holdout"), "holdout"),
}
"""What people call the splits, in lower case, and what automl calls them."""

_SEPARATORS = "\t;,| "
_LABEL_NAMES = ("label", "labels", "target", "class", "class_name", "category", "y", "is_fake", "fake")
_GROUP_NAMES = ("group", "group_id", "groups")
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

    Without a header (a cell of the first line ends like an image file) the columns are called column_1, column_2, …

    Raises:
        DataError: If it cannot be read, has less than two columns, or a line has more or fewer cells than the first.
    """
    # not splitlines(): it also cuts at characters that occur in names, such as U+0085
    lines = [line for line in re.split(r"\r\n|\r|\n", _read_text(file)) if line.strip()]
    if not lines:
        raise DataError(f"{file}: the label file is empty")
    separator = _separator(lines[:50])
    try:
        rows = [[cell.strip() for cell in row] for row in csv.reader(lines, delimiter=separator, skipinitialspace=True)]
    except csv.Error as exc:
        raise DataError(f"{file}: not a table: {exc}") from exc
    if bad := next((cell for row in rows for cell in row if not printable(cell)), None):
        raise DataError(f"{file}: a cell has characters that cannot be printed: {bad[:80]!r}")
    if len(rows[0]) < 2:
        raise DataError(
            f"{file}: one column only; a label file has a file column and a label column: {lines[0][:80]!r}"
        )
    for number, row in enumerate(rows, start=1):
        if len(row) != len(rows[0]):
            raise DataError(
                f"{file}, row {number}: {len(row)} columns, the first row has {len(rows[0])}; "
                'put names that contain the separator in quotes ("a, b.jpg")'
            )
    if any(Path(cell).suffix.lower() in EXTENSIONS for cell in rows[0]):
        return [f"column_{i}" for i in range(1, len(rows[0]) + 1)], rows
    header = [cell or f"column_{i}" for i, cell in enumerate(rows[0], start=1)]
    if repeated := sorted({name for name in header if header.count(name) > 1}):
        raise DataError(f"{file}: more than one column is named {repeated[0]!r}; rename one")
    return header, rows[1:]


def read_label_file(file: Path, spec: DataSpec, folder: Path | None = None) -> LabelFile:
    """Understands a label file: which column is which, and where the files lie.

    Args:
        file: The label file.
        spec: Its column flags override what is recognised.
        folder: Where the images lie; None: the label file's folder or the folder in it that has most of them.

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
    group_column = _named(file, columns, spec.group_column, "--group-column", _GROUP_NAMES)
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


def printable(text: str) -> bool:
    """Whether a name can go to a terminal and a UTF-8 file: no control characters, no bytes that are not UTF-8."""
    return not re.search(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]", text)


def listing(names: Sequence[str]) -> str:
    """Writes up to five names, and how many more there are."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(map(repr, list(names)[:_SHOWN])) + more


def _read_text(file: Path) -> str:
    """Reads UTF-8 with or without a byte order mark, or UTF-16 with one."""
    try:
        content = file.read_bytes()
        wide = content.startswith((b"\xff\xfe", b"\xfe\xff"))
        return content.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as exc:
        raise DataError(f"{file}: not a UTF-8 text (byte {exc.start}); save it as UTF-8") from exc
    except OSError as exc:
        raise DataError(f"cannot read {file}: {exc.strerror or exc}") from exc


def _separator(lines: Sequence[str]) -> str:
    """The character that cuts all lines into the same number of columns, at least two; a comma if none does."""
    for separator in _SEPARATORS:
        try:
            counts = {len(row) for row in csv.reader(lines, delimiter=separator, skipinitialspace=True)}
        except csv.Error:
            continue
        if len(counts) == 1 and min(counts) > 1:
            return separator
    # one broken line must not turn a comma table into something else: the error then names the line
    return max(",;\t|", key=lambda separator: sum(separator in line for line in lines))


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
        found = [column for column in candidates if _names_images(columns[column])] or ([wanted] if wanted else [])
    if len(found) == 1:
        return found[0], max(bases, key=lambda base: hits[found[0], base])
    looked = ", ".join(str(base) for base in bases[:_SHOWN])
    what = f"columns {listing(found)} all name files" if found else f"no column names files that exist in {looked}"
    raise DataError(f"{file}: {what}; say which with --file-column (columns: {', '.join(columns)})")


def _label_column(file: Path, columns: dict[str, list[str]], spec: DataSpec, file_column: str) -> str:
    """Finds the column that holds the labels among those that are left."""
    if wanted := _named(file, columns, spec.label_column, "--label-column", ()):
        return wanted
    named = [column for column in columns if column.lower() in _LABEL_NAMES]
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


def _names_images(values: Sequence[str]) -> bool:
    """Whether most values end like image files."""
    return sum(Path(value).suffix.lower() in EXTENSIONS for value in values) > len(values) / 2


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


def _locate_all(file: Path, base: Path, names: Sequence[str]) -> tuple[list[str], list[str]]:
    """Finds every named file below `base`.

    Returns:
        A path for each name, empty where there is no file; and the names of those.

    Raises:
        DataError: If a name leaves the folder: absolute, with `..`, or through a symbolic link.
    """
    trusted = base.resolve()
    parents: dict[str, Path] = {}
    paths, missing, escaped = [], [], []
    for name in names:
        parts = name.replace("\\", "/").split("/")
        path = _find(base, name)
        if ".." in parts or (parts[0] == "" and name) or Path(name).is_absolute() or ":" in parts[0][1:2]:
            escaped.append(name)
        elif path is None:
            missing.append(name)
        elif not _stays(path, trusted, parents):
            escaped.append(name)
        paths.append(path or "")
    if escaped:
        raise DataError(
            f"{file}: {len(escaped)} names lead out of {base}: {listing(escaped)}; "
            "write names relative to that folder, without .. and links out of it"
        )
    return [os.path.abspath(path) if path else "" for path in paths], missing  # noqa: PTH100


def _stays(path: str, trusted: Path, parents: dict[str, Path]) -> bool:
    """Whether a file really lies below a folder; resolves each parent folder once."""
    parent = os.path.dirname(path)  # noqa: PTH120
    if parent not in parents:
        parents[parent] = Path(parent).resolve()
    if not parents[parent].is_relative_to(trusted):
        return False
    return not os.path.islink(path) or Path(path).resolve().is_relative_to(trusted)  # noqa: PTH114


def _splits(file: Path, values: Sequence[str]) -> list[str]:
    """Translates the values of the split column."""
    if unknown := sorted({value for value in values if value.lower() not in SPLIT_NAMES}):
        raise DataError(f"{file}: split {listing(unknown)} is none of: {', '.join(SPLIT_NAMES)}")
    return [SPLIT_NAMES[value.lower()] for value in values]
