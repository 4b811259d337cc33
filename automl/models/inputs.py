"""What to predict: the files of a kind below a folder, or those that a label file or a sample submission names.

A first pass counts and checks, a second one yields, and neither keeps what it has seen: a million files need no more
memory than a thousand. Even the names of a folder are sorted on the disk.
"""

import os
import re
import sqlite3
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from automl.data.layouts.columns import find_file_column
from automl.data.layouts.names import Finder, describe_difference, describe_rivals, outside_error
from automl.data.layouts.recognise import FFDI_SETS, describe_contents
from automl.data.layouts.text_table import LABEL_NAMES, Table, is_printable, list_names, open_table
from automl.data.layouts.tree import LeftOut, walk_media
from automl.errors import DataError
from automl.files import is_there
from automl.media.kinds import Medium, endings_for, is_media
from automl.models.folder import Labels
from automl.spec import DataSpec

_PREDICTION_COLUMN = "y_pred"
_IMAGES: tuple[Medium, ...] = ("image",)
_SHOWN = 5  # names kept for a message


class Item(NamedTuple):
    """One row to predict."""

    name: str
    """What the prediction calls it: as in the label file, or relative to the folder."""
    path: str
    """Absolute; "" where there is no such file."""


@dataclass(frozen=True)
class Inputs:
    """The rows to predict, in order, as often as they are asked for."""

    source: Path
    """The folder or the label file that the names are relative to, or come from."""
    file_column: str
    prediction_column: str
    """For two classes: the sample submission's own name for it, else `y_pred`."""
    count: int
    problems: tuple[str, ...]
    """Warnings, one line each."""
    _items: Callable[[], Iterator[Item]] = field(repr=False)
    notes: tuple[str, ...] = ()
    """What was read and what was not, one line each."""

    def __iter__(self) -> Iterator[Item]:
        return self._items()

    def __len__(self) -> int:
        return self.count


@contextmanager
def open_inputs(
    path: Path, labels: Labels, file_column: str | None = None, media: Collection[Medium] = _IMAGES
) -> Iterator[Inputs]:
    """Understands what is to be predicted, counts it and checks every name.

    `path` is a folder of files (names relative to it, sorted), the FFDI root (its testset/), or a label file, with
    labels, which do not count, or without (the file's order, duplicates too). `labels` are the model's: they name the
    file column of a folder, and separate labels from placeholders. `file_column` is that of the names; for a folder,
    what it is to be called (None: recognised, or as in training). A label file may name files of other kinds than
    `media`, which then cannot be read.
    """
    path = path.expanduser()
    if not is_there(path):
        raise DataError(f"no such file or folder: {path}")
    default_column = labels.file_column or ("img_name" if "image" in media else "file_name")
    if path.is_dir():
        root, problems = _choose_folder(path)
        left = LeftOut()
        with _sorted_on_disk(_list_names_below(root, media, left)) as (count, names):
            if not count:
                what, endings = f"{' or '.join(media)} files", endings_for(media)
                raise DataError(f"no {what} in {root}; it holds {describe_contents(root)}, and they end in {endings}")
            base = os.path.abspath(root)  # noqa: PTH100
            yield Inputs(
                root,
                file_column or default_column,
                _PREDICTION_COLUMN,
                count,
                (*problems, *left.list_warnings()),
                lambda: (Item(name, f"{base}/{name}") for name in names()),
                tuple(left.list_remarks()),
            )
    elif path.is_file():
        if is_media(path.name):
            raise DataError(f"{path} is one file; give its folder, or a label file that names what to predict")
        yield _read_label_file(_open_label_file(path), labels, default_column, file_column)
    else:
        raise DataError(f"{path} is neither a file nor a folder")


# --- folders ----------------------------------------------------------------------------------------------------


def _choose_folder(path: Path) -> tuple[Path, tuple[str, ...]]:
    """Returns the folder itself, or the testset/ of an FFDI root, with a warning about what is left out."""
    sets = [name for name in FFDI_SETS if (path / name).is_dir()]
    if not sets:
        return path, ()
    if "testset" not in sets:
        choices = " or ".join(str(path / name) for name in sets)
        raise DataError(f"{path} has {' and '.join(sets)} but no testset/; choose one: --data {choices}")
    others = [f"{name}/" for name in sets if name != "testset"]
    return path / "testset", (f"only testset/ of {path} is predicted{', not ' if others else ''}{', '.join(others)}",)


def _list_names_below(root: Path, media: Collection[Medium], left: LeftOut) -> Iterator[str]:
    """Yields the files of some kinds below a folder, relative to it, unsorted; `left` counts what is left out."""
    odd: list[str] = []
    for folder, name in walk_media(root, left, media, strict=True):
        file = f"{folder}/{name}" if folder else name
        if is_printable(file):
            yield file
        else:
            odd.append(file)
    if odd:
        raise DataError(f"{root}: {len(odd)} names are not printable; rename the files: {list_names(odd)}")


@contextmanager
def _sorted_on_disk(names: Iterable[str]) -> Iterator[tuple[int, Callable[[], Iterator[str]]]]:
    """Yields how many names there are, and a function that yields them sorted by code point."""
    # "" is a database in a temporary file that SQLite itself makes and removes
    with closing(sqlite3.connect("", isolation_level=None)) as database:
        try:
            database.execute("PRAGMA journal_mode = OFF")
            database.execute("CREATE TABLE names (name TEXT PRIMARY KEY) WITHOUT ROWID")
            database.execute("BEGIN")
            database.executemany("INSERT INTO names VALUES (?)", ((name,) for name in names))
            database.execute("COMMIT")
            ((count,),) = database.execute("SELECT count(*) FROM names")
        except sqlite3.Error as exc:
            raise DataError(f"cannot sort the names on the disk: {exc}; SQLITE_TMPDIR names a larger one") from exc
        yield count, lambda: (name for (name,) in database.execute("SELECT name FROM names ORDER BY name"))


# --- label files ------------------------------------------------------------------------------------------------


def _open_label_file(file: Path) -> Table:
    """Opens a table of one or more columns."""
    table = open_table(file, least=1)
    if table.records is not None:
        return table
    whole = table.one_column()
    with suppress(DataError):
        finder = Finder(file)
        whole, files = find_file_column(whole, finder, DataSpec())
        read_name = files.name_reader(whole)
        # its names hold a separator: read as one column they are files, which the lines of a real table are not
        first_rows = islice(whole.read_rows(), _SHOWN)
        if any(finder.locate_file(files.names, read_name(row)) for row in first_rows):
            return whole
    return table


def _read_label_file(table: Table, labels: Labels, default_column: str, file_column: str | None) -> Inputs:
    """Counts the rows of a label file and checks their names."""
    finder = Finder(table.file)
    table, files = find_file_column(table, finder, DataSpec(file_column=file_column))
    column, names, read_name = files.name, files.names, files.name_reader(table)
    if column in table.repeated:
        raise DataError(f"{table.file}: more than one column is named {column!r}; rename one")
    index, other = table.header.index(column), _find_label_position(table, column)
    cells = _LabelColumn(labels.classes)
    count = existing = 0
    missing: list[str] = []
    notes, differing = tuple(describe_rivals(table.file, finder, names)), ""
    for row in table.read_rows():
        path = finder.locate_file(names, read_name(row))
        if path is None:
            raise outside_error(table.file, finder.root, [row[index]])
        if path and not differing and (differing := describe_difference(finder, iter([(read_name(row), path)]))):
            notes = (*notes, f"{table.file.name}: names are not those of the files and were matched: {differing}")
        count += 1
        existing += bool(path)
        if not path and len(missing) < _SHOWN:
            missing.append(row[index])
        if other is not None:
            cells.add_cell(row[other])
    if not count:
        raise DataError(f"{table.file}: a header and no rows")
    if not existing:
        raise DataError(f"{table.file}: none of its {count} files exist in {names.base}: {list_names(missing)}")

    def yield_items() -> Iterator[Item]:
        for row in table.read_rows():
            yield Item(row[index], finder.locate_file(names, read_name(row)) or "")

    submission = "submission" in table.file.name.lower()
    prediction = _PREDICTION_COLUMN
    if other is not None and len(table.header) == 2 and table.headed:
        name = table.header[other]
        if submission or cells.placeholders or (not cells.several and name.lower() not in LABEL_NAMES):
            prediction = name
    problems: tuple[str, ...] = ()
    if other is not None and cells.unknown_classes and not submission:
        problems = (
            f"{table.file.name}: column {table.header[other]} holds {list_names(cells.foreign)}, and the model "
            f"knows the classes {list_names(labels.classes)}; the column is not used for the prediction",
        )
    return Inputs(
        table.file, column if table.headed else default_column, prediction, count, problems, yield_items, notes
    )


def _find_label_position(table: Table, file_column: str) -> int | None:
    """Returns the position of the column that may hold labels: the other of two, or the one with such a name."""
    others = [i for i, name in enumerate(table.header) if name != file_column]
    named = [i for i in others if table.header[i].lower() in LABEL_NAMES]
    return next((positions[0] for positions in (others, named) if len(positions) == 1), None)


class _LabelColumn:
    """The cells of a label column: the model's classes, other classes, or a sample submission's placeholders."""

    def __init__(self, classes: tuple[str, ...]) -> None:
        self._classes = frozenset(_normalise_label(name) for name in classes)
        self._first: str | None = None
        self.several = False
        self._named = False
        self.foreign: list[str] = []
        """The first few values that are no class of the model."""

    def add_cell(self, value: str) -> None:
        """Takes in one cell."""
        spelled = _normalise_label(value)
        self._first = spelled if self._first is None else self._first
        self.several |= spelled != self._first
        if spelled in self._classes:
            return
        self._named |= not _is_placeholder(value)
        if value not in self.foreign and len(self.foreign) < _SHOWN:
            self.foreign.append(value)

    @property
    def placeholders(self) -> bool:
        """Whether these are no labels: fractions, empty cells, or one value for all that is no class of the model."""
        return bool(self.foreign) and not self.unknown_classes

    @property
    def unknown_classes(self) -> bool:
        """Whether these look like labels of other classes: several values, and not fractions."""
        return self.several and self._named


def _normalise_label(label: str) -> str:
    """Writes whole numbers alike, as a data set's labels are: `1`, `1.0` and `01` are one class."""
    return str(int(label.partition(".")[0])) if re.fullmatch(r"[+-]?\d{1,99}(\.0*)?", label) else label


def _is_placeholder(value: str) -> bool:
    """Returns whether a cell is empty or a fraction such as .5."""
    try:
        return not value or not float(value).is_integer()
    except ValueError:
        return False
