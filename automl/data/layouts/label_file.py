"""Label files: a table with any column names that says which file has which label.

`columns` recognises the columns, `names` finds the files. Several tables (train.csv, test.csv) are understood as
one set: the label column of the training table is that of all, and a table without it has no labels.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from automl.data.layouts.columns import (
    PROBE_ROWS,
    Columns,
    find_columns,
    find_file_column,
    find_kept_columns,
    split_values,
)
from automl.data.layouts.names import Finder, describe_difference, describe_rivals, outside_error
from automl.data.layouts.text_table import list_names, open_table
from automl.data.layouts.tree import Tree
from automl.errors import DataError
from automl.spec import DataSpec

_MOST = 0.5  # of the rows of a table of labels name files
_COVERS = 0.8  # of the files, or a table of labels names so many
_LARGEST_JSON = 64 << 20  # bytes; it is read whole, and labels of a million files are that large


@dataclass(frozen=True)
class Row:
    """One labelled file; empty strings where group, split or domain is not given."""

    path: str
    name: str
    label: str
    group: str
    split: str
    domain: str = ""
    kept: tuple[str, ...] = ()
    """The values of the columns that the spec names (`LabelledSpec.by`)."""


@dataclass
class LabelFile:
    """What was read of a label file, or of a whole layout; problems and remarks as in `data.dataset.Dataset`."""

    rows: list[Row] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    columns: Columns | None = None
    tables: list[Path] = field(default_factory=list)

    def add_table(self, other: "LabelFile", split: str = "") -> None:
        """Adds another label file of the set; `split` is that of its rows that have none."""
        self.rows += [replace(row, split=row.split or split) for row in other.rows] if split else other.rows
        self.problems += other.problems
        self.remarks += other.remarks
        self.tables += other.tables
        self.columns = self.columns or other.columns


def read_label_file(
    file: Path, spec: DataSpec, root: Path | None = None, tree: Tree | None = None, like: Columns | None = None
) -> LabelFile:
    """Understands a label file: which column is which, and where the files lie.

    No name may lead out of `root` (None: the label file's folder), and `tree` is what lies below it, if that is known.
    `like` are the columns of another table of the same set; without its label column, no rows are returned.

    Raises:
        DataError: If a column cannot be recognised (with columns and flag), if names leave the folder, or if all
            files are missing.
    """
    finder = Finder(file, root, tree)
    table, columns = find_columns(open_table(file), finder, spec, like)
    used = (columns.files.name, columns.label, columns.group, columns.split, columns.domain)
    if several := [name for name in used if name in table.repeated]:
        raise DataError(f"{file}: more than one column is named {several[0]!r}; rename one")
    rows = list(table.read_rows())
    read = LabelFile(columns=columns, tables=[file])
    if not columns.label and not columns.one_hot:
        wanted = like.label if like and like.label else "the label columns"
        read.remarks = [f"{file.name} has no column {wanted!r}: its {len(rows)} rows have no labels and are not used"]
        return read
    name_of = columns.files.name_reader(table)
    names = [name_of(row) for row in rows]
    _refuse_unclear_names(finder, file, names, rows)
    paths = [finder.locate_file(columns.files.names, name) for name in names]
    if outside := [name for name, path in zip(names, paths, strict=True) if path is None]:
        raise outside_error(file, finder.root, outside)
    index = {name: i for i, name in enumerate(table.header)}
    splits, meaning = [""] * len(rows), ""
    if columns.split:
        splits, meaning = split_values(file, columns.split, [row[index[columns.split]] for row in rows])
    if columns.label:
        labels = [_without_nan(row[index[columns.label]]) for row in rows]
    else:
        labels = [next((name for name in columns.one_hot if float(row[index[name]] or 0) == 1), "") for row in rows]
    groups = [""] * len(rows)
    if columns.group:
        groups = [_without_nan(row[index[columns.group]]) for row in rows]
        sources = set(groups) & set(names)  # where a group is another file of the table, that file is of it as well
        groups = [group or (name if name in sources else "") for group, name in zip(groups, names, strict=True)]
    domains = [""] * len(rows)
    if columns.domain:
        domains = [_without_nan(row[index[columns.domain]]) for row in rows]
    asked_for = find_kept_columns(file, index, spec)
    kept = [tuple(_without_nan(row[index[name]]) for name in asked_for) for row in rows]
    fields = zip(paths, names, labels, groups, splits, domains, kept, strict=True)
    existing = [Row(path, *rest) for path, *rest in fields if path]
    missing = [name for name, path in zip(names, paths, strict=True) if not path]
    near = finder.nearest_name(missing[0]) if missing else ""
    shown = list_names(missing) + (f" (there is {near!r})" if near else "")
    if not existing:
        raise DataError(f"{file}: none of its {len(names)} files exist in {columns.files.names.base}: {shown}")
    if table.title:
        read.problems.append(f"{file.name}: the line above the table is skipped: {table.title[:80]!r}")
    if missing:
        read.problems.append(f"{file.name}: {len(missing)} of {len(names)} files are missing: {shown}")
    if unlabelled := [row.name for row in existing if not row.label]:
        shown = list_names(unlabelled)
        read.problems.append(f"{file.name}: {len(unlabelled)} rows have no label and are left out: {shown}")
    read.remarks = [columns.describe(table)]
    if meaning:
        read.remarks.append(f"{file.name}: of {columns.split}, {meaning}")
    read.remarks += describe_rivals(file, finder, columns.files.names)
    if difference := describe_difference(finder, ((row.name, row.path) for row in existing)):
        read.remarks.append(f"{file.name}: names are not those of the files and were matched: {difference}")
    read.rows = [row for row in existing if row.label]
    return read


@dataclass(frozen=True)
class Mentions:
    """How much of the files below a folder a table names."""

    rows: float = 0.0  # which share of its rows, by a few of them, names files
    files: float = 0.0  # which share of the files it names, about
    reason: str = ""  # why it cannot be read; "" if it can, or names no files at all

    @property
    def of_labels(self) -> bool:
        """Whether the table may be one of labels: one row a file, though many of the files may not be there."""
        return self.rows >= _MOST or (self.rows > 0 and self.files >= _COVERS)


def find_mentions(file: Path, root: Path, tree: Tree, spec: DataSpec) -> Mentions:
    """Looks whether a table, or its column `spec.file_column`, names files below a folder; nothing is raised."""
    if file.suffix.lower() in (".json", ".jsonl") and file.stat().st_size > _LARGEST_JSON:
        return Mentions(reason=f"{file}: too large to be looked into; give it as the path if it is the label file")
    try:
        table = open_table(file)
        count = sum(1 for _ in table.read_rows())  # every row can be read
    except DataError as exc:
        return Mentions(reason=str(exc))
    try:
        read, column = find_file_column(table, Finder(file, root, tree), spec)
    except DataError:
        return Mentions()
    count += table.headed and not read.headed
    tried = min(count, 2 * PROBE_ROWS)
    share = min(1.0, column.names.hits / max(1, tried if count <= PROBE_ROWS else PROBE_ROWS))
    return Mentions(share, share * count / max(1, len(tree)))


def _refuse_unclear_names(finder: Finder, file: Path, names: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Raises DataError if a name comes in rows that differ, and several files are called so."""
    if len(set(names)) == len(names):
        return
    rows_of: dict[str, set[tuple[str, ...]]] = {}
    for name, row in zip(names, rows, strict=True):
        rows_of.setdefault(name, set()).add(tuple(row))
    for name in (name for name, different in rows_of.items() if len(different) > 1 and name and "/" not in name):
        if len(files := finder.list_copies(name)) > 1:
            raise DataError(
                f"{file}: {name!r} comes in {len(rows_of[name])} different rows and may be {list_names(files)}; write "
                "the names with their folders, or name the column that has these with --file-column"
            )


def _without_nan(cell: str) -> str:
    """Returns a label or a group; "" for `NaN`, which programs write where there is none."""
    return "" if cell.lower() in ("nan", "<na>") else cell
