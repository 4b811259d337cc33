"""Tables (CSV, TSV, TXT, JSON) as people and programs write them, read row by row.

A million rows of text need no more memory than one. With or without a header, a byte order mark, quotes, comments, a
title, Excel's `sep=` line; comma, semicolon, tab, bar or space between the columns; line ends of any system. JSON is
an object of names and what is known of them (as DFDC's metadata.json), a list of objects, or a line for each.
"""

import csv
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

from automl.data.kinds import is_media
from automl.errors import DataError

__all__ = ["TABLES", "Table", "listing", "open_table", "printable"]

TABLES = (".csv", ".tsv", ".txt", ".json", ".jsonl")
"""Endings of tables, in lower case."""

_SEPARATORS = "\t;,| "
_HEAD = 50  # lines looked at to recognise the separator
_MOST_TITLES = 3  # lines above a table that are no part of it
_SHOWN = 5  # names listed in a message
_ODD = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")

# what people give for a table, by how it begins; what is not here is read as text, whatever its ending
_BINARY = {
    b"PK\x03\x04": "a zip archive; unpack it first",
    b"\x1f\x8b": "a gzip archive; unpack it first",
    b"BZh": "a bzip2 archive; unpack it first",
    b"\xfd7zXZ": "an xz archive; unpack it first",
    b"7z\xbc\xaf": "a 7z archive; unpack it first",
    b"Rar!": "a rar archive; unpack it first",
    b"PAR1": "Parquet; write its columns as CSV",
    b"ARROW1": "Arrow; write its columns as CSV",
    b"\x89HDF": "HDF5; write its columns as CSV and its images as files",
    b"\x93NUMPY": "a NumPy array; save its images as files",
    b"SQLite format": "a SQLite database; write its columns as CSV",
    b"%PDF": "a PDF",
    b"\xd0\xcf\x11\xe0": "an old Excel sheet; save it as CSV",
    b"\x89PNG": "a PNG image",
    b"\xff\xd8\xff": "a JPEG image",
    b"GIF8": "a GIF image",
    b"RIFF": "a RIFF file (WAV, AVI or WebP)",
    b"OggS": "an Ogg file",
    b"fLaC": "a FLAC file",
    b"ID3": "an MP3 file",
    b"\x1aE\xdf\xa3": "a Matroska or WebM file",
    b"\x00\x00\x00": "a media file (MP4, MOV, AVIF or the like)",
}


@dataclass(frozen=True)
class Table:
    """A table that was understood; its rows are read when they are asked for, as often as they are."""

    file: Path
    header: tuple[str, ...]
    """Names of the columns, all different; column_1, column_2, … in a table without a header."""
    headed: bool
    """Whether its first row is a header."""
    encoding: str = "utf-8"
    separator: str = ","
    skipped: int = 0
    """Lines above the table that are no part of it: comments, a title, `sep=;`."""
    title: str = ""
    """The first of these lines that is neither a comment nor `sep=`; a user should know that it was skipped."""
    records: tuple[tuple[str, ...], ...] | None = field(default=None, repr=False)
    """The rows of a JSON file."""

    def rows(self) -> Iterator[list[str]]:
        """Yields the rows below the header as lists of stripped cells, one per column.

        Raises:
            DataError: If the text cannot be read or parsed, or a row has more or fewer cells than the first.
        """
        if self.records is not None:
            yield from map(list, self.records)
            return
        width = len(self.header)
        for number, row in enumerate(self._parse(), start=1):
            if len(row) > width and not any(row[width:]):
                row = row[:width]  # a comma too many at the end, as some spreadsheets write it
            if len(row) != width:
                raise DataError(
                    f"{self.file}, row {number}: {len(row)} columns, the first row has {width}; "
                    'put names that contain the separator in quotes ("a, b.jpg")'
                )
            if number > 1 or not self.headed:
                yield row

    def one_column(self) -> "Table":
        """The same file read as one column: its names may hold what looks like a separator."""
        return _headed(replace(self, separator="\t"), is_media)

    def with_header(self, headed: bool) -> "Table":
        """The same table, its first row taken as a header or as data.

        Raises:
            DataError: If two columns would have one name.
        """
        if headed == self.headed or self.records is not None:
            return self
        return _headed(self, lambda _: not headed)

    def _parse(self) -> Iterator[list[str]]:
        """Yields every row, the header too."""
        lines = islice(_lines(self.file, self.encoding), self.skipped, None)
        try:
            for row in csv.reader(lines, delimiter=self.separator, skipinitialspace=True):
                cells = [cell.strip() for cell in row]
                if bad := next((cell for cell in cells if not printable(cell)), None):
                    raise DataError(f"{self.file}: a cell has characters that cannot be printed: {bad[:80]!r}")
                yield cells
        except csv.Error as exc:
            raise DataError(f"{self.file}: not a table: {exc}") from exc


def open_table(file: Path, least: int = 2) -> Table:
    """Recognises encoding, separator and header of a table.

    Without a header (a cell of the first line ends like a media file) the columns are called column_1, column_2, …

    Args:
        file: The table.
        least: Columns that it must have.

    Raises:
        DataError: If it cannot be read, is no table, is empty, has too few columns, or two columns of one name.
    """
    encoding = _encoding(file)
    head = list(islice(_lines(file, encoding), _HEAD))
    if not head:
        raise DataError(f"{file}: the label file is empty")
    if file.suffix.lower() in (".json", ".jsonl") or head[0].lstrip().startswith(('{"', "[{")) or head[0] in "{[":
        return _from_json(file, encoding)
    table = _headed(_plan(file, encoding, head, titled=least > 1), is_media)
    if len(table.header) < least:
        raise DataError(
            f"{file}: one column only; a label file has a file column and a label column, with a comma or tab between "
            f"them: {head[0][:80]!r}"
        )
    return table


def printable(text: str) -> bool:
    """Whether a name can go to a terminal and a UTF-8 file: no control characters, no bytes that are not UTF-8."""
    return text.isprintable() or not _ODD.search(text)  # the first is quick, and strict about spaces


def listing(names: Sequence[str]) -> str:
    """Writes up to five names, and how many more there are; what cannot be printed is escaped."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    shown = [repr(name) if printable(name) else ascii(name) for name in list(names)[:_SHOWN]]
    return ", ".join(shown) + more


# --- text -------------------------------------------------------------------------------------------------------


def _plan(file: Path, encoding: str, head: Sequence[str], titled: bool) -> Table:
    """Where the table begins in a text, and what separates its columns."""
    skipped, title = 0, ""
    if found := re.fullmatch(r"sep=(.)", head[0].strip(), re.IGNORECASE):  # Excel's own way to name the separator
        return Table(file, (), True, encoding, found[1], 1)
    while skipped < len(head) - 1 and head[skipped].startswith("#"):
        skipped += 1
    rest = head[skipped:]
    separator = _separator(rest)
    if skipped and separator and len(_cells(head[skipped - 1], separator)) == len(_cells(rest[0], separator)) > 1:
        skipped -= 1  # `# file,label`: a header
        rest = head[skipped:]
    for lines in range(1, min(_MOST_TITLES, len(rest) - 2) + 1) if titled and separator is None else ():
        # a title has no columns; a broken first row has some
        if all(len(_cells(line, sign)) == 1 for line in rest[:lines] for sign in _SEPARATORS[:-1]) and (
            separator := _separator(rest[lines:])
        ):
            skipped, title = skipped + lines, rest[0].strip()
            break
    if separator is None:
        # one broken line must not turn a comma table into something else: the error then names the line
        separator = max(",;\t|", key=lambda sign: sum(sign in line for line in rest))
    return Table(file, (), True, encoding, separator, skipped, title)


def _headed(table: Table, is_file: Callable[[str], bool]) -> Table:
    """Fills in the names of the columns from the first row, which is no header if a cell in it is a file."""
    first = next(table._parse())
    while len(first) > 2 and not first[-1]:
        first = first[:-1]  # a comma too many at the end
    if any(map(is_file, first)):
        return replace(table, header=tuple(f"column_{i}" for i in range(1, len(first) + 1)), headed=False)
    header = [(cell.lstrip("# ") if i == 1 else cell) or f"column_{i}" for i, cell in enumerate(first, start=1)]
    if repeated := sorted({name for name in header if header.count(name) > 1}):
        raise DataError(f"{table.file}: more than one column is named {repeated[0]!r}; rename one")
    return replace(table, header=tuple(header), headed=True)


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
    """UTF-8 with or without a byte order mark, or UTF-16 with one; DataError for what is no text."""
    try:
        with file.open("rb") as handle:
            head = handle.read(16)
    except OSError as exc:
        raise DataError(f"cannot read {file}: {exc.strerror or exc}") from exc
    what = next((what for magic, what in _BINARY.items() if head.startswith(magic)), None)
    if what and file.suffix.lower() in (".xlsx", ".xlsm", ".ods"):
        what = "a spreadsheet; save it as CSV"
    if what is not None:
        raise DataError(f"{file} is {what}; a label file is a CSV, TSV, TXT or JSON table")
    return "utf-16" if head[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"


def _separator(lines: Sequence[str]) -> str | None:
    """The character that cuts all lines into the same number of columns, at least two; None if none does."""
    for separator in _SEPARATORS:
        try:
            counts = {len(_trimmed(row)) for row in csv.reader(lines, delimiter=separator, skipinitialspace=True)}
        except csv.Error:
            continue
        if len(counts) == 1 and min(counts) > 1:
            return separator
    return None


def _trimmed(row: list[str]) -> list[str]:
    """A row without one empty cell at its end, if more than two are left."""
    return row[:-1] if len(row) > 2 and not row[-1].strip() else row


def _cells(line: str, separator: str) -> list[str]:
    try:
        return next(csv.reader([line], delimiter=separator, skipinitialspace=True))
    except csv.Error:
        return [line]


# --- JSON -------------------------------------------------------------------------------------------------------


def _from_json(file: Path, encoding: str) -> Table:
    """A table of a JSON file; cells that hold more than one value are left out.

    Raises:
        DataError: If it is no JSON, or none of a record for each file.
    """
    records = _records(file, _load_json(file, encoding))
    header: dict[str, None] = {}
    for record in records:
        header.update(dict.fromkeys(record))
    plain = [name for name in header if not any(isinstance(record.get(name), dict | list) for record in records)]
    if len(plain) < 2:
        raise DataError(f"{file}: its records have no two values each; a label file names a file and its label")
    rows = tuple(tuple(_cell(record.get(name)) for name in plain) for record in records)
    if bad := next((cell for row in (plain, *rows) for cell in row if not printable(cell)), None):
        raise DataError(f"{file}: a value has characters that cannot be printed: {bad[:80]!r}")
    return Table(file, tuple(plain), True, records=rows)


def _load_json(file: Path, encoding: str) -> Any:
    """What a JSON file holds; of JSON Lines, a list."""
    try:
        text = file.read_text(encoding=encoding)
        if file.suffix.lower() == ".jsonl":
            return [json.loads(line) for line in text.splitlines() if line.strip()]
        return json.loads(text)
    except UnicodeDecodeError as exc:
        raise DataError(f"{file}: not a UTF-8 text; save it as UTF-8") from exc
    except (ValueError, RecursionError) as exc:
        raise DataError(f"{file}: not JSON: {exc}") from exc
    except OSError as exc:
        raise DataError(f"cannot read {file}: {exc.strerror or exc}") from exc


def _records(file: Path, found: Any) -> list[dict[str, Any]]:
    """Records with the same keys, of an object of names or a list of records."""
    if isinstance(found, dict) and found:
        if all(isinstance(value, dict) for value in found.values()):
            return [{"file": name, **value} for name, value in found.items()]
        if not any(isinstance(value, dict | list) for value in found.values()):
            return [{"file": name, "label": value} for name, value in found.items()]
    elif isinstance(found, list) and found and all(isinstance(record, dict) for record in found):
        return found
    raise DataError(
        f"{file}: JSON of another kind; a label file is a CSV, TSV or TXT table, or JSON with one record for each "
        'file: {"a.mp4": {"label": "FAKE"}, …}'
    )


def _cell(value: Any) -> str:
    """A JSON value as a table would have it."""
    return "" if value is None else str(value).strip()
