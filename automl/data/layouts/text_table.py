"""Tables (CSV, TSV, TXT, JSON) as people and programs write them, read row by row.

A million rows of text need no more memory than one. With or without a header, a byte order mark, quotes, comments, a
title, Excel's `sep=` line; comma, semicolon, tab, bar or space between the columns; line ends of any system. JSON is
an object of names and what is known of them (as DFDC's metadata.json), a list of objects, or a line for each.
"""

import csv
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

from automl.errors import DataError, shorten
from automl.media.kinds import is_media

FILE_NAMES = (
    *("file", "filename", "file_name", "filepath", "file_path", "path", "image", "image_name", "image_id"),
    *("image_path", "img_name", "img", "id_code", "id", "video", "audio", "clip", "name"),
)
"""What people call the column of file names, in lower case."""

LABEL_NAMES = (
    *("label", "labels", "target", "class", "class_name", "category", "y", "is_fake", "fake"),
    *("dx", "diagnosis", "breed", "species"),
)
"""What people call the label column, in lower case, the surest first."""

TABLES = (".csv", ".tsv", ".txt", ".json", ".jsonl")
"""Endings of tables, in lower case."""

_SEPARATORS = "\t;,| "
_HEAD = 50  # lines looked at to recognise the separator
_MOST_TITLES = 3  # lines above a table that are no part of it
_SHOWN = 5  # names listed in a message
_START = 4096  # characters looked at to recognise JSON
_FOREIGN_JSON = re.compile(r'\s*\{\s*("(?:[^"\\]|\\.)*"\s*:\s*\[|"(info|licenses)"\s*:\s*\{)')
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
    """Names of the columns, all different; column_1, column_2, … in a table without a header; the second of two
    columns called `note` is note_2."""
    headed: bool  # whether its first row is a header
    encoding: str = "utf-8"
    separator: str = ","
    skipped: int = 0  # lines above the table that are no part of it: comments, a title, `sep=;`
    title: str = ""  # the first of these that is neither a comment nor `sep=`; a user should know that it was skipped
    repeated: tuple[str, ...] = ()  # names that more than one column has; the first of them keeps it
    indexed: bool = False
    """Whether the header has no name for the first column, as R and CelebA write it; that is column_1, then."""
    whole: bool = False  # whether every line is one cell, whatever is in it
    records: tuple[tuple[str, ...], ...] | None = field(default=None, repr=False)  # of a JSON file

    def read_rows(self) -> Iterator[list[str]]:
        """Yields the rows below the header as lists of stripped cells, one per column.

        Raises:
            DataError: If the text cannot be read or parsed, or a row has more or fewer cells than the first.
        """
        if self.records is not None:
            yield from map(list, self.records)
            return
        width = len(self.header)
        rows = enumerate(self._parse_rows(), start=1)
        if self.headed:
            next(rows)
        for number, row in rows:
            if len(row) > width and not any(row[width:]):
                row = row[:width]  # a comma too many at the end, as some spreadsheets write it
            if len(row) != width:
                raise DataError(
                    f"{self.file}, row {number}: {len(row)} columns, the first row has {width}; "
                    'put names that contain the separator in quotes ("a, b.jpg")'
                )
            yield row

    def one_column(self) -> "Table":
        """Reads the same file as one column: its names may hold what looks like a separator."""
        return _with_columns(replace(self, whole=True, indexed=False), is_media)

    def with_header(self, headed: bool) -> "Table":
        """Takes the first row as a header or as data."""
        if headed == self.headed or self.indexed or self.records is not None:
            return self
        return _with_columns(self, lambda _: not headed)

    def _parse_rows(self) -> Iterator[list[str]]:
        """Yields every row, the header too."""
        seen: list[str] = []  # the lines of the row
        lines = _read_lines(self.file, self.encoding, seen)
        for _ in islice(lines, self.skipped):
            pass
        seen.clear()
        if self.whole:
            for line in map(str.strip, lines):
                inner = line[1:-1]
                is_quoted = line == f'"{inner}"' and '"' not in inner.replace('""', "")
                yield self._clean_cells([inner.replace('""', '"') if is_quoted else line], seen, 0)
                seen.clear()
            return
        reader = csv.reader(lines, delimiter=self.separator, skipinitialspace=True, strict=True)
        while True:
            try:
                for row in reader:
                    cells = [cell.strip() for cell in row]
                    if not "".join(cells).isprintable():
                        cells = self._clean_cells(cells, seen, reader.line_num)
                    yield cells
                    seen.clear()
                return
            except csv.Error as exc:
                if len(seen) > 1 or "end of data" in str(exc):
                    raise self._quote_error(seen, reader.line_num) from exc
                if "expected" not in str(exc):
                    number = self._line_number(reader.line_num - 1)
                    raise DataError(f"{self.file}, line {number}: not a table: {exc}") from exc
                row = _parse_loose_quotes(seen[0], self.separator, len(self.header))
            yield self._clean_cells([cell.strip() for cell in row], seen, reader.line_num)  # the reader goes on below
            seen.clear()

    def _clean_cells(self, cells: list[str], seen: Sequence[str], read: int) -> list[str]:
        """Removes line ends from the cells of a row; DataError if one cannot be printed, or swallowed other rows."""
        for i, cell in enumerate(cells):
            if "\n" in cell:
                if _swallows_rows(cells, i, self.separator, len(self.header) or len(cells)):
                    raise self._quote_error(seen, read)
                cells[i] = " ".join(line.strip() for line in cell.split("\n"))
            if not is_printable(cells[i]):
                raise DataError(f"{self.file}: a cell has characters that cannot be printed: {cells[i][:80]!r}")
        return cells

    def _line_number(self, index: int) -> int:
        """Returns the number of a line, as editors count; `index` counts those of the table that are not blank."""
        with _open_text(self.file, self.encoding) as handle:
            numbers = (number for number, line in enumerate(handle, start=1) if line.strip())
            return next(islice(numbers, self.skipped + index, None), 0)

    def _quote_error(self, seen: Sequence[str], read: int) -> DataError:
        """Makes the error for a quote that goes on over the lines below it; `seen` is the row, of `read` lines."""
        return DataError(
            f"{self.file}, line {self._line_number(read - len(seen))}: a row has a quote that is not closed where its "
            "cell ends, which swallows the rows below; leave it out, or write it twice in a cell in quotes: "
            f"{seen[0].strip()[:80]!r}"
        )


def open_table(file: Path, least: int = 2) -> Table:
    """Recognises encoding, separator and header of a table, which must have `least` columns.

    Raises:
        DataError: If it cannot be read, is no table, is empty, or has too few columns.
    """
    encoding = _detect_encoding(file)
    with _open_text(file, encoding) as handle:
        start = handle.read(_START).lstrip()
    if not start:
        raise DataError(f"{file}: the label file is empty")
    if file.suffix.lower() in (".json", ".jsonl") or start.startswith(('{"', "[{", "{\n", "[\n")):
        if _FOREIGN_JSON.match(start):  # COCO's annotations are large: they are not read to be refused
            raise _json_error(file)
        return _read_json(file, encoding, least)
    head = list(islice(_read_lines(file, encoding), _HEAD))
    table = _with_columns(_find_table(file, encoding, head, titled=least > 1), is_media)
    if len(table.header) < least:
        raise DataError(
            f"{file}: one column only; a label file has a file column and a label column, with a comma or tab between "
            f"them: {head[0].strip()[:80]!r}"
        )
    return table


def is_printable(text: str) -> bool:
    """Returns whether a name can go to a terminal and a UTF-8 file: it has no control characters or broken bytes."""
    return text.isprintable() or not _ODD.search(text)  # the first is quick, and strict about spaces


def list_names(names: Sequence[str], quoted: bool = True) -> str:
    """Lists up to five names, and how many more there are; what cannot be printed is escaped."""
    write = repr if quoted else str
    shown = [write(name) if is_printable(name) else ascii(name) for name in names[:_SHOWN]]
    return shorten([*shown, *names[_SHOWN:]], _SHOWN)


# --- text -------------------------------------------------------------------------------------------------------


def _find_table(file: Path, encoding: str, head: Sequence[str], titled: bool) -> Table:
    """Finds where the table begins in a text, and what separates its columns."""
    skipped, title = 0, ""
    if match := re.fullmatch(r"sep=(.)", head[0].strip(), re.IGNORECASE):  # Excel's own line for the separator
        return Table(file, (), True, encoding, match[1], 1)
    while skipped < len(head) - 1 and head[skipped].startswith("#"):
        skipped += 1
    rest = head[skipped:]
    separator = _find_separator(rest)
    if (
        skipped
        and separator
        and len(_split_line(head[skipped - 1], separator)) == len(_split_line(rest[0], separator)) > 1
    ):
        skipped -= 1  # `# file,label`: a header
        rest = head[skipped:]
    indexed = False
    for lines in range(min(_MOST_TITLES, len(rest) - 2) + 1) if separator is None else ():
        # a title has no columns; a broken first row has some
        if lines and not (titled and all(len(_split_line(rest[lines - 1], sign)) == 1 for sign in _SEPARATORS[:-1])):
            break
        separator = _find_separator(rest[lines:])
        if separator is None and (separator := _find_separator(rest[lines:], indexed=True)):
            indexed = True
        if separator:
            skipped, title = skipped + lines, rest[0].strip() if lines else ""
            break
    if separator is None:
        # one broken line must not turn a comma table into something else: the error then names the line
        separator = max(",;\t|", key=lambda sign: sum(sign in line for line in rest))
    return Table(file, (), True, encoding, separator, skipped, title, indexed=indexed)


def _with_columns(table: Table, is_file: Callable[[str], bool]) -> Table:
    """Fills in the names of the columns from the first row, which is no header if a cell in it is a file.

    Nor is it one if what is no word occurs in it twice: `LA_0079 LA_T_1138215 - - bonafide`, `0,0`.
    """
    first = next(table._parse_rows(), None)
    if first is None:
        raise DataError(f"{table.file}: the label file is empty")
    while len(first) > 2 and not first[-1]:
        first = first[:-1]  # a comma too many at the end
    repeated = tuple(cell for cell, count in Counter(first).items() if cell and count > 1)
    if any(map(is_file, first)) or (repeated and not any(re.search(r"[^\W\d_]", cell) for cell in repeated)):
        header = tuple(f"column_{i}" for i in range(1, len(first) + 1))
        return replace(table, header=header, headed=False, repeated=())
    first = [""] * table.indexed + [first[0].lstrip("# "), *first[1:]]
    return replace(table, header=_number_names(first), headed=True, repeated=repeated)


def _number_names(names: Sequence[str]) -> tuple[str, ...]:
    """Makes all names different: the second `note` is note_2, the third without a name column_3."""
    given: dict[str, None] = {}
    counts: Counter[str] = Counter()
    for i, name in enumerate(names, start=1):
        unique = name = name or f"column_{i}"
        counts[name] += 1
        while unique in given or (unique != name and unique in names):
            counts[name] += unique != name
            unique = f"{name}_{max(2, counts[name])}"
        given[unique] = None
    return tuple(given)


def _read_lines(file: Path, encoding: str, seen: list[str] | None = None) -> Iterator[str]:
    """Yields the lines that are not blank, of whatever system, with their ends; `seen` gets them, too."""
    # not splitlines(): it also cuts at characters that occur in names, such as U+0085
    with _open_text(file, encoding) as handle:
        for line in handle:
            if line.strip():
                if seen is not None:
                    seen.append(line)
                yield line


@contextmanager
def _open_text(file: Path, encoding: str) -> Iterator[TextIO]:
    """Opens a text; DataError if it cannot be read or is none."""
    try:
        with file.open(encoding=encoding) as handle:
            yield handle
    except UnicodeDecodeError as exc:
        bad = exc.object[exc.start : exc.start + 1]
        raise DataError(f"{file}: not a UTF-8 text (byte {bad!r}); save it as UTF-8") from exc
    except OSError as exc:
        raise DataError(f"cannot read {file}: {exc.strerror or exc}") from exc


def _detect_encoding(file: Path) -> str:
    """Recognises UTF-8 with or without a byte order mark, or UTF-16 with one; DataError for what is no text."""
    with _open_text(file, "latin-1") as handle:
        head = handle.read(16).encode("latin-1")  # a character is a byte
    what = next((what for magic, what in _BINARY.items() if head.startswith(magic)), None)
    if what and file.suffix.lower() in (".xlsx", ".xlsm", ".ods"):
        what = "a spreadsheet; save it as CSV"
    if what is not None:
        raise DataError(f"{file} is {what}; a label file is a CSV, TSV, TXT or JSON table")
    return "utf-16" if head[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"


def _find_separator(lines: Sequence[str], indexed: bool = False) -> str | None:
    """Finds the character that cuts all lines into as many columns, at least two; `indexed`: the first has one less."""
    for separator in _SEPARATORS:
        try:
            rows = list(csv.reader(lines, delimiter=separator, skipinitialspace=True))
        except csv.Error:
            continue
        if len(rows) > 1 and any("\n" in cell for cell in rows[-1]):
            del rows[-1]  # a quoted cell goes on below the lines looked at
        if indexed and _is_indexed([_trim_row(row) for row in rows] if separator == " " else rows):
            return separator
        widths = [[len(_trim_row(row)) for row in rows]]
        if separator != " ":  # which ends lines without a column behind it
            widths.append([len(row) for row in rows])
        if not indexed and any(len(set(counts)) == 1 and counts[0] > 1 for counts in widths):
            return separator
    return None


def _is_indexed(rows: Sequence[Sequence[str]]) -> bool:
    """Returns whether the first row is a header without a name for the first column, of file names or numbers.

    A header that lacks the name of its last column is none: its names would be taken for those of other columns.
    """
    first, *rest = rows
    if len(first) < 2 or {len(row) for row in rest} != {len(first) + 1} or any(map(is_media, first)):
        return False
    keys, second, *others = zip(*rest, strict=True)
    if len(set(keys)) < len(keys):
        return False
    if all(map(is_media, keys)):
        numbers = all(re.fullmatch(r"-?\d+(\.\d+)?", cell.strip()) for row in rest for cell in row[1:])
        return first[0].lower() in LABEL_NAMES or (len(first) > 2 and numbers)
    names_files = first[0].lower() in FILE_NAMES and len(set(second)) == len(second)
    return all(map(str.isdecimal, keys)) and (names_files or any(all(map(is_media, c)) for c in (second, *others)))


def _swallows_rows(cells: Sequence[str], position: int, separator: str, width: int) -> bool:
    """Returns whether the lines in the cell at a position are rows of the table, which has `width` columns."""
    lines = cells[position].split("\n")[1:]
    least = [width] * (len(lines) - 1) + [position + 1]  # the last row goes on in the cells behind
    rows = [
        line.split(separator) for line, count in zip(lines, least, strict=True) if line.count(separator) >= count - 1
    ]
    cells = ["" if i == position else cell for i, cell in enumerate(cells)]
    others = [[pair for pair in zip(row, cells, strict=False) if pair[1]] for row in rows]
    if any(_are_alike(one.strip(), other) for pairs in others for one, other in pairs):
        return True
    if len(rows) < len(lines) or len(rows) < 2:  # a comma in a line or two of a text is nothing odd
        return False
    numbers = [one.strip().isdecimal() and other.isdecimal() for pairs in others for one, other in pairs]
    return bool(numbers and all(numbers)) or (
        len(rows) > 4 and width > 2 and all(len(row) == width for row in rows[:-1])
    )


def _are_alike(one: str, other: str) -> bool:
    """Returns whether both are files, or differ in their numbers alone and have letters as well."""
    if is_media(other):
        return is_media(one)
    if one[:1] != other[:1] and not (one[:1].isdigit() and other[:1].isdigit()):
        return False  # most cells, at once
    shape = re.sub(r"\d+", "0", one)
    return "0" in shape and shape == re.sub(r"\d+", "0", other) and bool(re.search(r"[^\W\d_]", shape))


def _parse_loose_quotes(line: str, separator: str, width: int) -> list[str]:
    """Splits a line in which something stands behind a quote that should close a cell."""
    tight = re.sub(rf'" +(?=[{re.escape(separator)}\n])', '"', line)  # "a.png" , "cat"
    try:
        return next(csv.reader([tight], delimiter=separator, skipinitialspace=True, strict=True))
    except csv.Error:
        plain = next(csv.reader([line], delimiter=separator, skipinitialspace=True, quoting=csv.QUOTE_NONE))
        return plain if width in (0, len(plain)) else _split_line(line, separator)  # "a" b.png is the name as it stands


def _trim_row(row: list[str]) -> list[str]:
    """Removes one empty cell at the end of a row, if more than two are left."""
    return row[:-1] if len(row) > 2 and not row[-1].strip() else row


def _split_line(line: str, separator: str) -> list[str]:
    """Splits a line into cells; one that is broken is one cell."""
    try:
        return next(csv.reader([line], delimiter=separator, skipinitialspace=True))
    except csv.Error:
        return [line]


# --- JSON -------------------------------------------------------------------------------------------------------


def _read_json(file: Path, encoding: str, least: int) -> Table:
    """Reads a JSON file of a record for each file; columns whose cells hold more than one value are left out."""
    records = _list_records(file, _load_json(file, encoding))
    header: dict[str, None] = {}
    for record in records:
        header.update(dict.fromkeys(record))
    plain = [name for name in header if not any(isinstance(record.get(name), dict | list) for record in records)]
    if len(plain) < least:
        wanted = "two values each; a label file names a file and its label" if least > 1 else "values"
        raise DataError(f"{file}: its records have no {wanted}")
    cells = ((record.get(name) for name in plain) for record in records)
    rows = tuple(tuple("" if cell is None else str(cell).strip() for cell in row) for row in cells)
    if bad := next((cell for row in (plain, *rows) for cell in row if not is_printable(cell)), None):
        raise DataError(f"{file}: a value has characters that cannot be printed: {bad[:80]!r}")
    return Table(file, tuple(plain), True, records=rows)


def _load_json(file: Path, encoding: str) -> Any:
    """Loads JSON, or JSON Lines as a list, whatever the file is called; DataError if a key is there twice."""

    def make_unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        record = dict(pairs)
        if len(record) < len(pairs):
            key = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
            raise DataError(f"{file}: {key[:80]!r} is there twice in one object; all but the last would be lost")
        return record

    with _open_text(file, encoding) as handle:
        text = handle.read()
    try:
        if file.suffix.lower() != ".jsonl":
            try:
                return json.loads(text, object_pairs_hook=make_unique)
            except json.JSONDecodeError as exc:
                if exc.msg != "Extra data":  # more than one value: JSON Lines
                    raise
        lines = text.split("\n")  # not splitlines(): see _read_lines
        return [json.loads(line, object_pairs_hook=make_unique) for line in lines if line.strip()]
    except (ValueError, RecursionError) as exc:
        raise DataError(f"{file}: not JSON: {exc}") from exc


def _list_records(file: Path, content: Any) -> list[dict[str, Any]]:
    """Makes records of an object of names or a list of records."""
    if isinstance(content, dict) and content:
        if all(isinstance(value, dict) for value in content.values()):
            return [{"file": name, **value} for name, value in content.items()]
        if not any(isinstance(value, dict | list) for value in content.values()):
            return [{"file": name, "label": value} for name, value in content.items()]
    elif isinstance(content, list) and content and all(isinstance(record, dict) for record in content):
        return content
    raise _json_error(file)


def _json_error(file: Path) -> DataError:
    """Makes the error for JSON that is not of a record for each file."""
    return DataError(
        f"{file}: JSON of another kind; a label file is a CSV, TSV or TXT table, or JSON with one record for each "
        'file: {"a.mp4": {"label": "FAKE"}, …}'
    )
