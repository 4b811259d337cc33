"""Label files: a table with any column names that says which file has which label.

`columns` recognises the columns, `names` finds the files. Several tables (train.csv, test.csv) are understood as
one set: the label column of the training table is that of all, and a table without it has no labels.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from automl.data.layouts.columns import PROBE_ROWS, Columns, find_columns, find_file_column, split_values
from automl.data.layouts.names import Finder, Names, describe_difference, leads_out
from automl.data.layouts.text_table import Table, listing, open_table
from automl.data.layouts.tree import Tree
from automl.errors import DataError
from automl.spec import DataSpec

_MOST = 0.5  # of the rows of a table of labels name files
_COVERS = 0.8  # of the files, or a table of labels names so many
_SHOWN = 5
_LARGEST_JSON = 64 << 20  # bytes; it is read whole, and labels of a million files are that large


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
    used = (columns.files.name, columns.label, columns.group, columns.split)
    if several := [name for name in used if name in table.repeated]:
        raise DataError(f"{file}: more than one column is named {several[0]!r}; rename one")
    rows = list(table.rows())
    if not columns.label and not columns.one_hot:
        wanted = like.label if like and like.label else "the label columns"
        line = f"{file.name} has no column {wanted!r}: its {len(rows)} rows have no labels and are not used"
        return LabelFile((), told=(line,), columns=columns, tables=(file,))
    written = columns.files.written(table)
    names = [written(row) for row in rows]
    _refuse_unclear(finder, file, names, rows)
    paths = [finder.locate(columns.files.names, name) for name in names]
    if escaped := [name for name, path in zip(names, paths, strict=True) if path is None]:
        raise leads_out(file, finder.root, escaped)
    labels = _labels(index, columns, rows)
    groups = _groups(table, columns, rows, names)
    splits, meant = [""] * len(rows), ""
    if columns.split:
        splits, meant = split_values(file, columns.split, [row[index[columns.split]] for row in rows])
    fields = zip(paths, names, labels, groups, splits, strict=True)
    found = [Row(path, *rest) for path, *rest in fields if path]
    missing = [name for name, path in zip(names, paths, strict=True) if not path]
    if not found:
        raise DataError(
            f"{file}: none of its {len(names)} files exist in {columns.files.names.base}: {_missed(finder, missing)}"
        )
    problems = []
    if table.title:
        problems.append(f"{file.name}: the line above the table is skipped: {table.title[:80]!r}")
    if missing:
        problems.append(f"{file.name}: {len(missing)} of {len(names)} files are missing: {_missed(finder, missing)}")
    if unlabelled := [row.name for row in found if not row.label]:
        problems.append(f"{file.name}: {len(unlabelled)} rows have no label and are left out: {listing(unlabelled)}")
    told = [columns.describe(table)]
    if meant:
        told.append(f"{file.name}: of {columns.split}, {meant}")
    told += rival_folders(file, finder, columns.files.names)
    if differs := describe_difference(finder, ((row.name, row.path) for row in found)):
        told.append(f"{file.name}: names are not those of the files and were matched: {differs}")
    labelled = tuple(row for row in found if row.label)
    return LabelFile(labelled, tuple(problems), tuple(told), columns, (file,))


@dataclass(frozen=True)
class Mentions:
    """What a table says of the files below a folder.

    Attributes:
        rows: Which share of its rows, by a few of them, names files.
        files: Which share of the files it names, about.
        reason: Why it cannot be read; "" if it can, or names no files at all.
    """

    rows: float = 0.0
    files: float = 0.0
    reason: str = ""

    @property
    def of_labels(self) -> bool:
        """Whether the table may be one of labels: one row a file, though many of the files may not be there."""
        return self.rows >= _MOST or (self.rows > 0 and self.files >= _COVERS)


def find_mentions(file: Path, root: Path, tree: Tree, file_column: str | None = None) -> Mentions:
    """Looks whether a table, or one column of it, names files below a folder; nothing is raised."""
    if file.suffix.lower() in (".json", ".jsonl") and file.stat().st_size > _LARGEST_JSON:
        return Mentions(reason=f"{file}: too large to be looked into; give it as the path if it is the label file")
    try:
        table = open_table(file)
        count = sum(1 for _ in table.rows())  # every row can be read
    except DataError as exc:
        return Mentions(reason=str(exc))
    try:
        read, column = find_file_column(table, Finder(file, root, tree), DataSpec(file_column=file_column))
    except DataError:
        return Mentions()
    count += table.headed and not read.headed
    tried = min(count, 2 * PROBE_ROWS)
    share = min(1.0, column.names.hits / max(1, tried if count <= PROBE_ROWS else PROBE_ROWS))
    return Mentions(share, share * count / max(1, len(tree)))


def rival_folders(file: Path, finder: Finder, names: Names) -> list[str]:
    """One line if a table's names are those of files in other folders as well; else none."""
    if not names.rivals:
        return []
    taken = os.path.relpath(names.base, finder.root)
    others = ", ".join(f"{folder or '.'}/" for folder in names.rivals[:_SHOWN])
    return [f"{file.name}: its names are files of {taken}/ and of {others}; those of {taken}/ are taken"]


def _refuse_unclear(finder: Finder, file: Path, names: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Raises DataError if a name comes in rows that differ, and several files are called so."""
    if len(set(names)) == len(names):
        return
    of_name: dict[str, set[tuple[str, ...]]] = {}
    for name, row in zip(names, rows, strict=True):
        of_name.setdefault(name, set()).add(tuple(row))
    for name in (name for name, found in of_name.items() if len(found) > 1 and name and "/" not in name):
        if len(files := finder.copies(name)) > 1:
            raise DataError(
                f"{file}: {name!r} comes in {len(of_name[name])} different rows and may be {listing(files)}; write the "
                "names with their folders, or name the column that has these with --file-column"
            )


def _labels(index: Mapping[str, int], columns: Columns, rows: Sequence[Sequence[str]]) -> list[str]:
    """The label of each row; `index` says where the columns are."""
    if columns.label:
        return [_said(row[index[columns.label]]) for row in rows]
    return [next((name for name in columns.one_hot if float(row[index[name]] or 0) == 1), "") for row in rows]


def _groups(table: Table, columns: Columns, rows: Sequence[Sequence[str]], names: Sequence[str]) -> list[str]:
    """The group of each row; where it is another file of the table, that file is of the group as well."""
    if not columns.group:
        return [""] * len(rows)
    position = table.header.index(columns.group)
    groups = [_said(row[position]) for row in rows]
    sources = set(groups) & set(names)
    return [group or (name if name in sources else "") for group, name in zip(groups, names, strict=True)]


def _said(cell: str) -> str:
    """A label or a group; "" for `NaN`, which programs write where there is none."""
    return "" if cell.lower() in ("nan", "<na>") else cell


def _missed(finder: Finder, missing: Sequence[str]) -> str:
    """Names that are no files, and what the first might mean."""
    near = finder.nearest(missing[0])
    return listing(missing) + (f" (there is {near!r})" if near else "")
