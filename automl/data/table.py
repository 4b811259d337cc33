"""Text tables (CSV, TSV, TXT) as people and programs write them, read row by row.

A million rows need no more memory than one. With or without a header, a byte order mark, quotes; comma, semicolon, tab,
bar or space between the columns; line ends of any system.
"""

import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from automl.data.kinds import is_media
from automl.errors import DataError

__all__ = ["TABLES", "Table", "open_table", "printable"]

TABLES = (".csv", ".tsv", ".txt")
"""Endings of text tables, in lower case."""

_SEPARATORS = "\t;,| "
_HEAD = 50  # lines looked at to recognise the separator


@dataclass(frozen=True)
class Table:
    """A text table that was understood; its rows are read when they are asked for, as often as they are."""

    file: Path
    header: tuple[str, ...]
    """Names of the columns, all different; column_1, column_2, … in a table without a header."""
    headed: bool
    """Whether its first row is a header."""
    encoding: str
    separator: str

    def rows(self) -> Iterator[list[str]]:
        """Yields the rows below the header as lists of stripped cells, one per column.

        Raises:
            DataError: If the text cannot be read or parsed, or a row has more or fewer cells than the first.
        """
        for number, row in enumerate(_parse(self.file, self.encoding, self.separator), start=1):
            if len(row) != len(self.header):
                raise DataError(
                    f"{self.file}, row {number}: {len(row)} columns, the first row has {len(self.header)}; "
                    'put names that contain the separator in quotes ("a, b.jpg")'
                )
            if number > 1 or not self.headed:
                yield row

    def one_column(self) -> "Table":
        """The same file read as one column: its names may hold what looks like a separator."""
        return _headed(replace(self, separator="\t"))


def open_table(file: Path, least: int = 2) -> Table:
    """Recognises encoding, separator and header of a text table.

    Without a header (a cell of the first line ends like a media file) the columns are called column_1, column_2, …

    Args:
        file: The table.
        least: Columns that it must have.

    Raises:
        DataError: If it cannot be read, is empty, has too few columns, or two columns of one name.
    """
    encoding = _encoding(file)
    head = list(islice(_lines(file, encoding), _HEAD))
    if not head:
        raise DataError(f"{file}: the label file is empty")
    table = _headed(Table(file, (), True, encoding, _separator(head)))
    if len(table.header) < least:
        raise DataError(f"{file}: one column only; a label file has a file column and a label column: {head[0][:80]!r}")
    return table


def printable(text: str) -> bool:
    """Whether a name can go to a terminal and a UTF-8 file: no control characters, no bytes that are not UTF-8."""
    return not re.search(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]", text)


def _headed(table: Table) -> Table:
    """Fills in the names of the columns from the first row."""
    first = next(_parse(table.file, table.encoding, table.separator))
    if any(map(is_media, first)):
        return replace(table, header=tuple(f"column_{i}" for i in range(1, len(first) + 1)), headed=False)
    header = [cell or f"column_{i}" for i, cell in enumerate(first, start=1)]
    if repeated := sorted({name for name in header if header.count(name) > 1}):
        raise DataError(f"{table.file}: more than one column is named {repeated[0]!r}; rename one")
    return replace(table, header=tuple(header), headed=True)


def _parse(file: Path, encoding: str, separator: str) -> Iterator[list[str]]:
    """Yields every row, the header too."""
    try:
        for row in csv.reader(_lines(file, encoding), delimiter=separator, skipinitialspace=True):
            cells = [cell.strip() for cell in row]
            if bad := next((cell for cell in cells if not printable(cell)), None):
                raise DataError(f"{file}: a cell has characters that cannot be printed: {bad[:80]!r}")
            yield cells
    except csv.Error as exc:
        raise DataError(f"{file}: not a table: {exc}") from exc


def _lines(file: Path, encoding: str) -> Iterator[str]:
    """Yields the lines that are not blank, without their ends, of whatever system they are."""
    # not splitlines(): it also cuts at characters that occur in names, such as U+0085
    try:
        with file.open(encoding=encoding) as handle:
            for line in handle:
                if line.strip():
                    yield line.removesuffix("\n")
    except UnicodeDecodeError as exc:
        bad = exc.object[exc.start : exc.start + 1]
        raise DataError(f"{file}: not a UTF-8 text (byte {bad!r}); save it as UTF-8") from exc
    except OSError as exc:
        raise DataError(f"cannot read {file}: {exc.strerror or exc}") from exc


def _encoding(file: Path) -> str:
    """UTF-8 with or without a byte order mark, or UTF-16 with one."""
    try:
        with file.open("rb") as handle:
            wide = handle.read(2) in (b"\xff\xfe", b"\xfe\xff")
    except OSError as exc:
        raise DataError(f"cannot read {file}: {exc.strerror or exc}") from exc
    return "utf-16" if wide else "utf-8-sig"


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
