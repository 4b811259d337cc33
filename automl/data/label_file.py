"""Label files: a table with any column names that says which file has which label.

`automl.data.columns` recognises the columns, `automl.data.names` finds the files. Several tables (train.csv, test.csv)
are understood as one set: the label column of the training table is that of all, and a table without it has no labels.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from automl.data.columns import Columns, find_columns, find_file_column, split_values
from automl.data.names import Finder, describe_difference, leads_out
from automl.data.table import Table, listing, open_table
from automl.data.tree import Tree
from automl.errors import DataError
from automl.spec import DataSpec

__all__ = ["LabelFile", "Row", "named_share", "read_label_file", "read_table"]


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
    """A label file, or a whole layout, that was understood.

    Attributes:
        rows: The labelled files.
        problems: Warnings, one line each.
        told: What was read and what was not, one line each.
        columns: Which is which; None of a layout without a table.
        tables: The tables that were read.
    """

    rows: tuple[Row, ...]
    problems: tuple[str, ...] = ()
    told: tuple[str, ...] = ()
    columns: Columns | None = None
    tables: tuple[Path, ...] = field(default=())


def read_table(file: Path) -> tuple[list[str], list[list[str]]]:
    """Parses a table into column names and rows of stripped strings.

    Raises:
        DataError: As `open_table` and `Table.rows`.
    """
    table = open_table(file)
    return list(table.header), list(table.rows())


def read_label_file(
    file: Path,
    spec: DataSpec,
    root: Path | None = None,
    tree: Tree | None = None,
    like: Columns | None = None,
) -> LabelFile:
    """Understands a label file: which column is which, and where the files lie.

    Args:
        file: The label file.
        spec: Its column flags override what is recognised.
        root: No name leads out of this folder; None: the label file's.
        tree: What lies below `root`, if that is known.
        like: The columns of another table of the same set.

    Returns:
        The rows whose file exists and that have a label; none if the table has not the label column of `like`.

    Raises:
        DataError: If a column cannot be told (with the columns and the flag), if names leave the folder, or if all
            files are missing.
    """
    finder = Finder(file, root, tree)
    table, columns = find_columns(open_table(file), finder, spec, like)
    index = {name: i for i, name in enumerate(table.header)}
    rows = list(table.rows())
    if not columns.label and not columns.one_hot:
        wanted = like.label if like and like.label else "the label columns"
        line = f"{file.name} has no column {wanted!r}: its {len(rows)} rows have no labels and are not used"
        return LabelFile((), told=(line,), columns=columns, tables=(file,))
    names = [row[index[columns.file]] for row in rows]
    paths = [finder.locate(columns.names, name) for name in names]
    if escaped := [name for name, path in zip(names, paths, strict=True) if path is None]:
        raise leads_out(file, finder.root, escaped)
    labels = _labels(table, columns, rows)
    groups = _groups(table, columns, rows, names)
    splits = [""] * len(rows)
    if columns.split:
        splits = split_values(file, columns.split, [row[index[columns.split]] for row in rows])
    fields = zip(paths, names, labels, groups, splits, strict=True)
    found = [Row(path, *rest) for path, *rest in fields if path]
    missing = [name for name, path in zip(names, paths, strict=True) if not path]
    if not found:
        raise DataError(
            f"{file}: none of its {len(names)} files exist in {columns.names.base}: {_missed(finder, missing)}"
        )
    problems = []
    if table.title:
        problems.append(f"{file.name}: the line above the table is skipped: {table.title[:80]!r}")
    if missing:
        problems.append(f"{file.name}: {len(missing)} of {len(names)} files are missing: {_missed(finder, missing)}")
    if unlabelled := [row.name for row in found if not row.label]:
        problems.append(f"{file.name}: {len(unlabelled)} rows have no label and are left out: {listing(unlabelled)}")
    told = [columns.describe(table)]
    if differs := describe_difference(finder, ((row.name, row.path) for row in found)):
        told.append(f"{file.name}: names are not those of the files and were matched: {differs}")
    labelled = tuple(row for row in found if row.label)
    return LabelFile(labelled, tuple(problems), tuple(told), columns, (file,))


def named_share(file: Path, root: Path, tree: Tree) -> float:
    """Which share of a table's rows, by a few of them, names files below a folder; 0 for what is no table."""
    try:
        table = open_table(file)
        _, _, names = find_file_column(table, Finder(file, root, tree), DataSpec())
        count = sum(1 for _, row in zip(range(200), table.rows(), strict=False) if any(row))
    except DataError:
        return 0.0
    return min(1.0, names.hits / max(1, min(count, 200)))


def _labels(table: Table, columns: Columns, rows: Sequence[Sequence[str]]) -> list[str]:
    """The label of each row."""
    index = {name: i for i, name in enumerate(table.header)}
    if columns.label:
        return [row[index[columns.label]] for row in rows]
    return [next((name for name in columns.one_hot if float(row[index[name]] or 0) == 1), "") for row in rows]


def _groups(table: Table, columns: Columns, rows: Sequence[Sequence[str]], names: Sequence[str]) -> list[str]:
    """The group of each row; where it is another file of the table, that file is of the group as well."""
    if not columns.group:
        return [""] * len(rows)
    position = table.header.index(columns.group)
    groups = [row[position] for row in rows]
    sources = set(groups) & set(names)
    return [group or (name if name in sources else "") for group, name in zip(groups, names, strict=True)]


def _missed(finder: Finder, missing: Sequence[str]) -> str:
    """Names that are no files, and what the first might mean."""
    near = finder.nearest(missing[0])
    return listing(missing) + (f" (there is {near!r})" if near else "")
