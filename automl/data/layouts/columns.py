"""Which column of a label file is which: file, label, group, split.

A flag names a column; else it is recognised by its values and its name. What is recognised is told, and so is what is
not used: a column that seems to name persons or splits is proposed, and never taken without being asked for.
"""

import difflib
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from automl.data.layouts.names import Finder, Names
from automl.data.layouts.text_table import Table, listing
from automl.data.layouts.tree import is_number
from automl.errors import DataError
from automl.media.kinds import is_media
from automl.spec import DataSpec

SPLIT_NAMES = {
    **dict.fromkeys(("train", "training", "trainset", "trn"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "valset", "validset", "dev", "publictest"), "validation"),
    **dict.fromkeys(("test", "testing", "testset", "holdout", "privatetest", "eval", "evaluation"), "holdout"),
}
"""What people call the splits, in lower case, and what automl calls them."""

FILE_NAMES = (
    *(
        "file",
        "filename",
        "file_name",
        "filepath",
        "file_path",
        "path",
        "image",
        "image_name",
        "image_id",
        "image_path",
    ),
    *("img_name", "img", "id_code", "id", "video", "audio", "clip", "name"),
)
"""What people call the column of file names, in lower case."""

LABEL_NAMES = (
    *("label", "labels", "target", "class", "class_name", "category", "y", "is_fake", "fake"),
    *("dx", "diagnosis", "breed", "species"),
)
"""What people call the label column, in lower case, the surest first."""

_WEAK_LABELS = ("dx", "diagnosis", "breed", "species")  # beside a surer name, they say more of the same

GROUP_NAMES = ("group", "group_id", "groups")
"""What people call the column of what stays together, in lower case."""

GENUINE = frozenset({"real", "genuine", "bonafide", "bona-fide", "bona_fide", "original", "authentic", "pristine"})
"""What people call the class of what is genuine, in lower case."""

FORGED = frozenset({"fake", "fakes", "deepfake", "deepfakes", "spoof", "spoofed", "forged", "forgery", "manipulated"})
"""What people call the class of what is not, in lower case."""

PROBE_ROWS = 200
"""Rows looked at to recognise the file column, up to twice as many."""

_SPLIT_COLUMNS = ("split", "subset")
_LIKE_SPLITS = ("usage", "is_valid", "is_val", "is_test", "fold", "set", "partition", "phase")
_LIKE_GROUPS = (
    *("speaker", "speaker_id", "subject", "subject_id", "patient", "patient_id", "person", "person_id", "identity"),
    *("original", "source", "source_id", "video", "video_id", "lesion_id", "client_id", "user_id"),
)
_SOURCES = ("original", "source")  # columns that name another file of the table, which this one was made of
_TRUE, _FALSE = ("true", "yes", "1", "1.0"), ("false", "no", "0", "0.0")
_SHOWN = 5
_FEW_ROWS = 10  # of so few, labels may all differ


@dataclass(frozen=True)
class FileColumn:
    """The column that names files.

    Attributes:
        name: The column.
        names: How its names are understood.
        folder: The column of their folders, where names alone come more than once.
    """

    name: str
    names: Names
    folder: str | None = None

    def written(self, table: Table) -> Callable[[Sequence[str]], str]:
        """What gives a row's name, with its folder if that is another column."""
        file = table.header.index(self.name)
        if self.folder is None:
            return lambda row: row[file]
        folder = table.header.index(self.folder)
        return lambda row: f"{row[folder]}/{row[file]}"


@dataclass(frozen=True)
class Columns:
    """Which column of a table is which.

    Attributes:
        files: The files' names.
        label: The labels; "" if there is none.
        one_hot: Columns that are a label together, one of them 1 in each row; empty if `label` is one.
        group: What stays together; None if no column says.
        split: The split; None if no column says.
        unused: The others.
    """

    files: FileColumn
    label: str
    one_hot: tuple[str, ...]
    group: str | None
    split: str | None
    unused: tuple[str, ...]

    def describe(self, table: Table) -> str:
        """One line on what was read and what was not."""
        parts = [f"file: {self.files.name}" + (f" in {self.files.folder}" if self.files.folder else "")]
        label = f"one-hot in {', '.join(self.one_hot[:20])}" if self.one_hot else self.label
        parts += [f"label: {label}"] if label else []
        parts += [f"{what}: {name}" for what, name in (("group", self.group), ("split", self.split)) if name]
        line = f"{table.file.name}: {', '.join(parts)}"
        if not table.headed:
            line += " (it has no header)"
        if not self.unused:
            return line
        shown = ", ".join(self.unused[:20]) + (" …" if len(self.unused) > 20 else "")
        flags = []
        for kind, flag in ((_LIKE_SPLITS, "--split-column"), (_LIKE_GROUPS, "--group-column")):
            if like := next((name for name in self.unused if name.lower() in kind), None):
                flags.append(f"{flag} {like}")
        return f"{line}; not used: {shown}" + (f" ({', '.join(flags)} would)" if flags else "")


def find_file_column(table: Table, finder: Finder, spec: DataSpec) -> tuple[Table, FileColumn]:
    """Finds the column that names files, and how; it looks at a few rows only.

    Returns:
        The table, whose first row may have turned out to be no header, and the column.

    Raises:
        DataError: If the column cannot be told, with the columns and the flag.
    """
    table = _heeded(table, finder)
    some = _spread(table.rows(), PROBE_ROWS)
    columns = {name: [row[i] for row in some] for i, name in enumerate(table.header)}
    wanted = _flagged(table.file, columns, spec.file_column, "--file-column")
    media = [name for name in columns if _names_media(columns[name])]
    # a column of media names is surer than one of numbers that files happen to be called by
    none_is = not any(name.lower() in FILE_NAMES for name in columns)
    may = [name for name in columns if _may_name(columns[name], table.headed, name.lower() in FILE_NAMES, none_is)]
    candidates = [wanted] if wanted else media or may
    ways = {name: finder.settle(columns[name], loosely=False) for name in candidates}
    if not any(_most(ways[name].hits, columns[name]) for name in candidates):
        ways = {name: finder.settle(columns[name]) for name in candidates}
    best = max((way.hits for way in ways.values()), default=0)
    found = [name for name in candidates if ways[name].hits and 2 * ways[name].hits >= best]
    if not found:  # then the message is about missing files, not about the column
        found = media or ([wanted] if wanted else [])
    if len(found) > 1:  # what a file was made of names files as well
        found = [name for name in found if name.lower() not in _LIKE_GROUPS] or found
        named = [name for name in found if name.lower() in FILE_NAMES]
        found = named if len(named) == 1 else found
    if len(found) == 1:
        way = finder.settle(columns[found[0]])
        folder = _folder_column(finder, columns, found[0], way)
        return table, folder or FileColumn(found[0], way)
    looked = listing([str(base) for base in finder.bases])
    what = f"columns {listing(found)} all name files" if found else f"no column names files that exist in {looked}"
    if not found and (row := next(iter(some), None)) and (near := finder.nearest(row[0])):
        what += f" ({row[0]!r} is not there, {near!r} is)"
    raise DataError(f"{table.file}: {what}; say which with --file-column (columns: {listing(list(columns))})")


def _may_name(values: Sequence[str], headed: bool, called_so: bool, none_is: bool) -> bool:
    """Whether a column of names without endings may be of files.

    Args:
        values: Some of its values.
        headed: Whether the table has a header.
        called_so: Whether the column has a usual name.
        none_is: Whether no column has one.
    """
    if called_so or not headed:
        return True
    # an age is no name, though images are called 20.png
    return len(set(values)) == len(values) and (none_is or not all(map(is_number, values)))


def _folder_column(finder: Finder, columns: dict[str, list[str]], file_column: str, way: Names) -> FileColumn | None:
    """The column that names the files' folders, where names alone come more than once; None if there is none."""
    names = columns[file_column]
    if len(set(names)) == len(names):
        return None
    for folder, values in columns.items():
        if folder == file_column or len(set(values)) < 2:
            continue
        joined = [f"{value}/{name}" for value, name in zip(values, names, strict=True)]
        found = finder.settle(joined)
        kept = min(value.replace("\\", "/").strip("/").count("/") + 1 for value in values) - found.dropped
        if found.hits > way.hits and kept > 0:  # else it is the names alone that were found
            return FileColumn(file_column, found, folder)
    return None


def find_columns(table: Table, finder: Finder, spec: DataSpec, like: Columns | None = None) -> tuple[Table, Columns]:
    """Finds out which column is which.

    Args:
        table: Any table.
        finder: The files.
        spec: Its column flags override what is recognised.
        like: The columns of another table of the set, whose label is that of all.

    Returns:
        The table, whose first row may have turned out to be no header, and its columns; of a table without the label
        of `like`, `label` is "".

    Raises:
        DataError: If a column cannot be told, with the columns and the flag.
    """
    table, files = find_file_column(table, finder, spec)
    rows = list(table.rows())
    if not rows:
        raise DataError(f"{table.file}: a header and no rows")
    columns = {name: [row[i] for row in rows] for i, name in enumerate(table.header)}
    split = _flagged(table.file, columns, spec.split_column, "--split-column") or _split(columns)
    group = _flagged(table.file, columns, spec.group_column, "--group-column") or _known(columns, GROUP_NAMES)
    group = group or _source(columns, files.name)
    rest = {name: cells for name, cells in columns.items() if name not in (files.name, files.folder, split, group)}
    if like is not None and spec.label_column is None:
        here = like.label in columns if like.label else all(name in columns for name in like.one_hot)
        label, one_hot = (like.label, like.one_hot) if here else ("", ())
    else:
        label, one_hot = _label(table.file, rest, spec, files.name)
    used = {label, *one_hot}
    unused = tuple(name for name, cells in rest.items() if name not in used and any(cells))
    return table, Columns(files, label, one_hot, group, split, unused)


def _split(columns: dict[str, list[str]]) -> str | None:
    """The column that is called a split and holds nothing but names of splits."""
    named = [name for name in columns if name.lower() in _SPLIT_COLUMNS]
    return next((name for name in named if {cell.lower() for cell in columns[name]} <= {"", *SPLIT_NAMES}), None)


def split_values(file: Path, column: str, values: Sequence[str]) -> tuple[list[str], str]:
    """Translates the values of a split column; an empty one stays so.

    Words as in `SPLIT_NAMES`; true and false in a column such as `is_valid`, `is_test` or `train`; 0, 1, 2 for train,
    validation and test (CelebA's partition); of a column of folds, the first is validation and all others are train.

    Returns:
        The splits, and how values were translated that are no words.

    Raises:
        DataError: If a value is none of these.
    """
    meant = _meaning(column, sorted({value.lower() for value in values if value}))
    if unknown := sorted({value for value in values if value and value.lower() not in meant}):
        raise DataError(f"{file}: split {listing(unknown)} is none of: {', '.join(SPLIT_NAMES)}")
    odd = [f"{value} is {said}" for value, said in meant.items() if value not in SPLIT_NAMES]
    return [meant[value.lower()] if value else "" for value in values], ", ".join(odd[:_SHOWN])


def _meaning(column: str, distinct: Sequence[str]) -> dict[str, str]:
    """What each of the values of a split column means; nothing for what is not understood."""
    name = column.lower()
    if set(distinct) <= {*_TRUE, *_FALSE} and (word := re.search(r"train|val|test|holdout", name)):
        yes, no = {
            "train": ("train", "validation"),
            "val": ("validation", "train"),
        }.get(word[0], ("holdout", "train"))
        return {value: yes if value in _TRUE else no for value in distinct}
    numbers = {value: int(float(value)) for value in distinct if re.fullmatch(r"[0-9]{1,9}(\.0)?", value)}
    if len(numbers) == len(distinct) > 1:
        if name != "fold" and set(numbers.values()) <= {0, 1, 2}:
            return {value: ("train", "validation", "holdout")[number] for value, number in numbers.items()}
        first = min(numbers.values())
        return {value: "validation" if number == first else "train" for value, number in numbers.items()}
    return {value: SPLIT_NAMES[value] for value in distinct if value in SPLIT_NAMES}


def _heeded(table: Table, finder: Finder) -> Table:
    """The table, its first row taken as data if a cell in it is a file by any spelling, or like those below that are.

    A row 0, 1, 2, … is the header that pandas writes for columns without names.
    """
    first = list(table.header) if table.headed and table.records is None else []
    if first and not any(cell.lower() in (*FILE_NAMES, *LABEL_NAMES) for cell in first):
        some = _spread(table.rows(), 10)
        counted = first == [str(i) for i in range(len(first))]
        for i, cell in enumerate(first):
            values = [row[i] for row in some]
            names = finder.settle([cell, *values])
            if names.hits > 1 and (finder.locate(names, cell) or (not counted and _is_one_of(cell, values, names))):
                return table.with_header(headed=False)
    return table


def _is_one_of(cell: str, values: Sequence[str], names: Names) -> bool:
    """Whether a cell looks like most values of its column, but for numbers, and most of these are files."""
    alike = sum(re.sub(r"\d+", "0", value) == re.sub(r"\d+", "0", cell) for value in values)
    return 2 * alike > len(values) and _most(names.hits, values)


def _label(file: Path, columns: dict[str, list[str]], spec: DataSpec, file_column: str) -> tuple[str, tuple[str, ...]]:
    """Finds the column that holds the labels among those that are left, or the columns that are one together."""
    if wanted := _flagged(file, columns, spec.label_column, "--label-column"):
        return wanted, ()
    if not columns:
        raise DataError(f"{file}: no column is left for the label beside {file_column!r}")
    named = [name for name in columns if name.lower() in LABEL_NAMES and not (name == "y" and "x" in columns)]
    named = [name for name in named if name.lower() not in _WEAK_LABELS] or named
    named.sort(key=lambda name: LABEL_NAMES.index(name.lower()))
    if len(named) == 1 or (named and all(_same_classes(columns[named[0]], columns[other]) for other in named[1:])):
        return named[0], ()
    if one_hot := _one_hot(columns):
        return "", one_hot
    spoken = [name for name, cells in columns.items() if _says_real_or_fake(cells)]
    odd = {*_LIKE_SPLITS, *_LIKE_GROUPS, "x", "y"}
    plain = [name for name, cells in columns.items() if len(set(cells)) > 1 and name.lower() not in odd]
    if len(plain) == 1 and _all_differ(columns[plain[0]]):
        raise DataError(f"{file}: no column holds labels: {plain[0]!r} is another one in each row")
    few = [name for name in plain if 2 <= len(set(columns[name])) <= max(20, len(columns[name]) ** 0.5)]
    for candidates in (spoken, plain, list(columns), few):
        if len(candidates) == 1:
            return candidates[0], ()
    raise DataError(
        f"{file}: cannot tell the label column among {', '.join(list(columns)[:20])}; say which with --label-column "
        "(and --group-column for what must stay together)"
    )


def _one_hot(columns: dict[str, list[str]]) -> tuple[str, ...]:
    """The columns of zeros and ones of which exactly one is 1 in each row; empty if they are not so."""
    splits = {*SPLIT_NAMES, *_LIKE_SPLITS, "is_train", "istrain"}
    binary = [n for n, cells in columns.items() if set(cells) <= {"0", "1", "0.0", "1.0"} and n.lower() not in splits]
    if len(binary) < 2:
        return ()
    sums = {sum(float(columns[name][i]) for name in binary) for i in range(len(columns[binary[0]]))}
    return tuple(binary) if sums == {1.0} else ()


def _all_differ(cells: Sequence[str]) -> bool:
    return len(cells) >= _FEW_ROWS and len(set(cells)) == len(cells)


def _says_real_or_fake(cells: Sequence[str]) -> bool:
    """Whether a column holds nothing but words for genuine and forged, both of them."""
    found = {cell.lower() for cell in cells}
    return found <= GENUINE | FORGED and bool(found & GENUINE) and bool(found & FORGED)


def _same_classes(one: Sequence[str], other: Sequence[str]) -> bool:
    """Whether two columns tell the same classes apart, by other names."""
    pairs = set(zip(one, other, strict=True))
    return len(pairs) == len(set(one)) == len(set(other))


def _source(columns: dict[str, list[str]], file_column: str) -> str | None:
    """The column that names what a file was made of, if that is always another file of the table, or nothing."""
    name = _known(columns, _SOURCES)
    if name is None or name == file_column:
        return None
    files = set(columns[file_column])
    values = [value for value in columns[name] if value]
    return name if values and sum(value in files for value in values) > len(values) / 2 else None


def _known(columns: Iterable[str], known: Sequence[str]) -> str | None:
    """The first column with a known name."""
    return next((name for name in columns if name.lower() in known), None)


def _flagged(file: Path, columns: Iterable[str], wanted: str | None, flag: str) -> str | None:
    """The column a flag names, None without one; DataError if there is no such column."""
    names = list(columns)
    if wanted is None or wanted in names:
        return wanted
    close = difflib.get_close_matches(wanted, names, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    raise DataError(f"{file}: {flag} {wanted!r} is not one of its columns: {', '.join(names)}{hint}")


def _names_media(values: Sequence[str]) -> bool:
    """Whether most values end like media files."""
    return sum(map(is_media, values)) > len(values) / 2


def _most(hits: int, values: Sequence[str]) -> bool:
    """Whether most of the different values are files."""
    return 2 * hits > len({value for value in values if value})


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
