"""Which column of a label file is which: file, label, group, split.

A flag names a column; else it is recognised by its values and its name. What is recognised is reported, and so is what
is not used: a column that seems to name persons or splits is proposed, and never taken without being asked for.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from automl.data.layouts.names import Finder, Names
from automl.data.layouts.text_table import FILE_NAMES, LABEL_NAMES, Table, list_names
from automl.data.layouts.tree import is_number
from automl.errors import DataError, shorten, suggest_name
from automl.media.kinds import is_media
from automl.spec import DataSpec, LabelledSpec

SPLIT_NAMES = {
    **dict.fromkeys(("train", "training", "trainset", "trn"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "valset", "validset", "dev", "publictest"), "validation"),
    **dict.fromkeys(("test", "testing", "testset", "holdout", "privatetest", "eval", "evaluation"), "holdout"),
}
"""What people call the splits, in lower case, and what automl calls them."""

_WEAK_LABELS = ("dx", "diagnosis", "breed", "species")  # beside a surer name, they say more of the same

GROUP_NAMES = ("group", "group_id", "groups")
"""What people call the column of what stays together, in lower case."""

# what people call the classes of what is genuine and of what is not, in lower case
GENUINE = frozenset({"real", "genuine", "bonafide", "bona-fide", "bona_fide", "original", "authentic", "pristine"})
FORGED = frozenset({"fake", "fakes", "deepfake", "deepfakes", "spoof", "spoofed", "forged", "forgery", "manipulated"})

COLUMN_OPTIONS = tuple(name for name in DataSpec.model_fields if name.endswith("_column") or name == "validation_by")
"""The options of the data that name a column of a label file."""

PROBE_ROWS = 200  # looked at to recognise the file column, up to twice as many
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
    """The column that names files, how its names are understood, and the column of their folders if it is another."""

    name: str
    names: Names
    folder: str | None = None

    def name_reader(self, table: Table) -> Callable[[Sequence[str]], str]:
        """Returns a function that gives a row's name, with its folder if that is another column."""
        file = table.header.index(self.name)
        if self.folder is None:
            return lambda row: row[file]
        folder = table.header.index(self.folder)
        return lambda row: f"{row[folder]}/{row[file]}"


@dataclass(frozen=True)
class Columns:
    """Which column of a table is which; `group`, `split` and `domain` are None if no column says.

    Either `label` names the labels' column, or it is "" and the columns `one_hot` are a label together, one of them 1
    in each row; or there is none at all.
    """

    files: FileColumn
    label: str
    one_hot: tuple[str, ...]
    group: str | None
    split: str | None
    unused: tuple[str, ...]
    domain: str | None = None

    def describe(self, table: Table) -> str:
        """Says in one line what was read and what was not."""
        parts = [f"file: {self.files.name}" + (f" in {self.files.folder}" if self.files.folder else "")]
        label = f"one-hot in {', '.join(self.one_hot[:20])}" if self.one_hot else self.label
        parts += [f"label: {label}"] if label else []
        named = (("group", self.group), ("split", self.split), ("validated by", self.domain))
        parts += [f"{what}: {name}" for what, name in named if name]
        line = f"{table.file.name}: {', '.join(parts)}"
        if not table.headed:
            line += " (it has no header)"
        if not self.unused:
            return line
        flags = []
        for known, option in ((_LIKE_SPLITS, "split_column"), (_LIKE_GROUPS, "group_column")):
            if like := _first_known(self.unused, known):
                flags.append(f"{flag_of(option)} {like}")
        use = f" (to use it: {', '.join(flags)})" if flags else ""
        return f"{line}; not used: {shorten(self.unused, 20)}{use}"


def split_words(name: str) -> list[str]:
    """Splits a name into words in lower case, which hold letters only."""
    return re.split(r"[^a-z]+", name.lower())


def split_in(*names: str) -> str:
    """Returns the split that the first word that is one means: `train` for train_labels.csv; "" for none."""
    words = (word for name in names for word in split_words(name))
    return next((SPLIT_NAMES[word] for word in words if word in SPLIT_NAMES), "")


def flag_of(option: str) -> str:
    """Returns the command line's flag for an option of the data: `--label-column`."""
    return f"--{option.replace('_', '-')}"


def find_file_column(table: Table, finder: Finder, spec: DataSpec) -> tuple[Table, FileColumn]:
    """Finds the column that names files, and how; it looks at a few rows only.

    Its first result is the table, whose first row may have turned out to be no header.

    Raises:
        DataError: If the column cannot be recognised, with the columns and the flag.
    """
    table = _check_header(table, finder)
    some = _sample_rows(table.read_rows(), PROBE_ROWS)
    columns = {name: [row[i] for row in some] for i, name in enumerate(table.header)}
    wanted = _wanted_column(table.file, columns, spec, "file_column")
    media = [name for name, cells in columns.items() if sum(map(is_media, cells)) > len(cells) / 2]
    # a column of media names is surer than one of numbers that files happen to be called by
    called = [name for name in columns if name.lower() in FILE_NAMES]
    # an age is no name, though images are called 20.png
    may = [
        name
        for name, cells in columns.items()
        if name in called
        or not table.headed
        or (len(set(cells)) == len(cells) and not (called and all(map(is_number, cells))))
    ]
    candidates = [wanted] if wanted else media or may
    names = {name: finder.settle_names(columns[name], loosely=False) for name in candidates}
    if not any(_are_most(names[name].hits, columns[name]) for name in candidates):
        names = {name: finder.settle_names(columns[name]) for name in candidates}
    most = max((one.hits for one in names.values()), default=0)
    matches = [name for name in candidates if names[name].hits and 2 * names[name].hits >= most]
    if not matches:  # then the message is about missing files, not about the column
        matches = media or ([wanted] if wanted else [])
    if len(matches) > 1:  # what a file was made of names files as well
        matches = [name for name in matches if name.lower() not in _LIKE_GROUPS] or matches
        usual = [name for name in matches if name in called]
        matches = usual if len(usual) == 1 else matches
    if len(matches) == 1:
        settled = finder.settle_names(columns[matches[0]])
        return table, _with_folder_column(finder, columns, FileColumn(matches[0], settled))
    looked = list_names([str(base) for base in finder.bases])
    what = (
        f"columns {list_names(matches)} all name files" if matches else f"no column names files that exist in {looked}"
    )
    if not matches and (row := next(iter(some), None)) and (near := finder.nearest_name(row[0])):
        what += f" ({row[0]!r} is not there, {near!r} is)"
    raise DataError(f"{table.file}: {what}; name it with --file-column (columns: {list_names(list(columns))})")


def _with_folder_column(finder: Finder, columns: dict[str, list[str]], files: FileColumn) -> FileColumn:
    """Adds the column that names the files' folders, where names alone come more than once, if there is one."""
    names = columns[files.name]
    for folder, values in columns.items() if len(set(names)) < len(names) else ():
        if folder == files.name or len(set(values)) < 2:
            continue
        joined = finder.settle_names([f"{value}/{name}" for value, name in zip(values, names, strict=True)])
        kept = min(value.replace("\\", "/").strip("/").count("/") + 1 for value in values) - joined.dropped
        if joined.hits > files.names.hits and kept > 0:  # else only the names alone are files
            return FileColumn(files.name, joined, folder)
    return files


def find_columns(table: Table, finder: Finder, spec: DataSpec, like: Columns | None = None) -> tuple[Table, Columns]:
    """Finds out which column is which; what `find_file_column` says of the table goes here, too.

    `like` are the columns of another table of the set, whose label is that of all: `label` is "" without it.

    Raises:
        DataError: If a column cannot be recognised, with the columns and the flag.
    """
    table, files = find_file_column(table, finder, spec)
    rows = list(table.read_rows())
    if not rows:
        raise DataError(f"{table.file}: a header and no rows")
    columns = {name: [row[i] for row in rows] for i, name in enumerate(table.header)}
    named = [name for name in columns if name.lower() in _SPLIT_COLUMNS]
    named = [name for name in named if {cell.lower() for cell in columns[name]} <= {"", *SPLIT_NAMES}]
    split = _wanted_column(table.file, columns, spec, "split_column") or next(iter(named), None)
    group = _wanted_column(table.file, columns, spec, "group_column") or _first_known(columns, GROUP_NAMES)
    source = _first_known(columns, _SOURCES)
    if source and source != files.name and not group:  # what files were made of, if most of that is in the table
        values, known = [value for value in columns[source] if value], set(columns[files.name])
        group = source if sum(value in known for value in values) > len(values) / 2 else None
    domain = _wanted_column(table.file, columns, spec, "validation_by")
    taken = (files.name, files.folder, split, group)
    rest = {name: cells for name, cells in columns.items() if name not in taken}
    if domain is not None:
        if spec.label_column == domain or domain.lower() in LABEL_NAMES:
            raise DataError(
                f"{table.file}: --validation-by {domain!r} is a column of labels; name another one, such as the "
                "generator"
            )
        rest.pop(domain, None)
    if like is not None and spec.label_column is None:
        here = like.label in columns if like.label else all(name in columns for name in like.one_hot)
        label, one_hot = (like.label, like.one_hot) if here else ("", ())
    else:
        label, one_hot = _find_label(table.file, rest, spec, files.name)
    used = {label, *one_hot}
    unused = tuple(name for name, cells in rest.items() if name not in used and any(cells))
    return table, Columns(files, label, one_hot, group, split, unused, domain)


def find_kept_columns(file: Path, columns: Iterable[str], spec: DataSpec) -> tuple[str, ...]:
    """Returns the columns whose values are kept with the samples, as `LabelledSpec.by` names them.

    Raises:
        DataError: If the table has no such column, with those that it has.
    """
    names = list(columns)
    wanted = spec.by if isinstance(spec, LabelledSpec) else ()
    if missing := next((name for name in wanted if name not in names), None):
        hint = suggest_name(missing, names)
        raise DataError(f"{file}: --by {missing!r} is not one of its columns: {', '.join(names)}{hint}")
    return wanted


def split_values(file: Path, column: str, values: Sequence[str]) -> tuple[list[str], str]:
    """Translates the values of a split column; an empty one stays so.

    Words as in `SPLIT_NAMES`; true and false in a column such as `is_valid`, `is_test` or `train`; 0, 1, 2 for train,
    validation and test (CelebA's partition); of a column of folds, the first is validation and all others are train.
    The second result is how values were translated that are no words; DataError if a value is none of these.
    """
    split_of = _translate_splits(column, sorted({value.lower() for value in values if value}))
    if unknown := sorted({value for value in values if value and value.lower() not in split_of}):
        raise DataError(f"{file}: split {list_names(unknown)} is none of: {', '.join(SPLIT_NAMES)}")
    odd = [f"{value} is {split}" for value, split in split_of.items() if value not in SPLIT_NAMES]
    return [split_of[value.lower()] if value else "" for value in values], ", ".join(odd[:_SHOWN])


def _translate_splits(column: str, distinct: Sequence[str]) -> dict[str, str]:
    """Returns the split that each value of a split column means, without those that are not understood."""
    name = column.lower()
    if set(distinct) <= {*_TRUE, *_FALSE} and (word := re.search(r"train|val|test|holdout", name)):
        yes = SPLIT_NAMES[word[0]]
        no = "validation" if yes == "train" else "train"
        return {value: yes if value in _TRUE else no for value in distinct}
    numbers = {value: int(float(value)) for value in distinct if re.fullmatch(r"[0-9]{1,9}(\.0)?", value)}
    if len(numbers) == len(distinct) > 1:
        if name != "fold" and set(numbers.values()) <= {0, 1, 2}:
            return {value: ("train", "validation", "holdout")[number] for value, number in numbers.items()}
        first = min(numbers.values())
        return {value: "validation" if number == first else "train" for value, number in numbers.items()}
    return {value: SPLIT_NAMES[value] for value in distinct if value in SPLIT_NAMES}


def _check_header(table: Table, finder: Finder) -> Table:
    """Takes a table's first row as data if a cell in it is a file by any spelling, or like those below that are.

    A row 0, 1, 2, … is the header that pandas writes for columns without names.
    """
    first = list(table.header) if table.headed and table.records is None else []
    if first and not any(cell.lower() in (*FILE_NAMES, *LABEL_NAMES) for cell in first):
        some = _sample_rows(table.read_rows(), 10)
        counted = first == [str(i) for i in range(len(first))]
        for i, cell in enumerate(first):
            values = [row[i] for row in some]
            names = finder.settle_names([cell, *values])
            alike = sum(re.sub(r"\d+", "0", value) == re.sub(r"\d+", "0", cell) for value in values)
            looks_alike = not counted and 2 * alike > len(values) and _are_most(names.hits, values)
            if names.hits > 1 and (finder.locate_file(names, cell) or looks_alike):
                return table.with_header(headed=False)
    return table


def _find_label(
    file: Path, columns: dict[str, list[str]], spec: DataSpec, file_column: str
) -> tuple[str, tuple[str, ...]]:
    """Finds the column that holds the labels among those that are left, or the columns that are one together."""
    if wanted := _wanted_column(file, columns, spec, "label_column"):
        return wanted, ()
    if not columns:
        raise DataError(f"{file}: no column is left for the label beside {file_column!r}")
    named = [name for name in columns if name.lower() in LABEL_NAMES and not (name == "y" and "x" in columns)]
    named = [name for name in named if name.lower() not in _WEAK_LABELS] or named
    named.sort(key=lambda name: LABEL_NAMES.index(name.lower()))
    if len(named) == 1 or (named and all(_same_classes(columns[named[0]], columns[other]) for other in named[1:])):
        return named[0], ()
    if one_hot := _find_one_hot(columns):
        return "", one_hot
    words = {name: {cell.lower() for cell in cells} for name, cells in columns.items()}
    worded = [name for name, used in words.items() if used <= GENUINE | FORGED and used & GENUINE and used & FORGED]
    odd = {*_LIKE_SPLITS, *_LIKE_GROUPS, "x", "y"}
    plain = [name for name, cells in columns.items() if len(set(cells)) > 1 and name.lower() not in odd]
    if len(plain) == 1 and len(set(columns[plain[0]])) == len(columns[plain[0]]) >= _FEW_ROWS:
        raise DataError(f"{file}: no column holds labels: {plain[0]!r} differs in each row")
    few = [name for name in plain if 2 <= len(set(columns[name])) <= max(20, len(columns[name]) ** 0.5)]
    for candidates in (worded, plain, list(columns), few):
        if len(candidates) == 1:
            return candidates[0], ()
    raise DataError(
        f"{file}: any of these columns may be the labels: {shorten(list(columns), 20)}; name it with --label-column "
        "(and with --group-column what must stay together)"
    )


def _find_one_hot(columns: dict[str, list[str]]) -> tuple[str, ...]:
    """Finds the columns of zeros and ones of which exactly one is 1 in each row; empty if they are not so."""
    splits = {*SPLIT_NAMES, *_LIKE_SPLITS, "is_train", "istrain"}
    binary = [n for n, cells in columns.items() if set(cells) <= {"0", "1", "0.0", "1.0"} and n.lower() not in splits]
    if len(binary) < 2:
        return ()
    sums = {sum(float(columns[name][i]) for name in binary) for i in range(len(columns[binary[0]]))}
    return tuple(binary) if sums == {1.0} else ()


def _same_classes(one: Sequence[str], other: Sequence[str]) -> bool:
    """Returns whether two columns divide the rows into the same classes, by other names."""
    pairs = set(zip(one, other, strict=True))
    return len(pairs) == len(set(one)) == len(set(other))


def _first_known(columns: Iterable[str], known: Sequence[str]) -> str | None:
    """Returns the first column with a known name."""
    return next((name for name in columns if name.lower() in known), None)


def _wanted_column(file: Path, columns: Iterable[str], spec: DataSpec, option: str) -> str | None:
    """Returns the column that an option names, None without one; DataError if there is no such column."""
    names = list(columns)
    wanted: str | None = getattr(spec, option)
    if wanted is None or wanted in names:
        return wanted
    hint = suggest_name(wanted, names)
    raise DataError(f"{file}: {flag_of(option)} {wanted!r} is not one of its columns: {', '.join(names)}{hint}")


def _are_most(hits: int, values: Sequence[str]) -> bool:
    """Returns whether most of the different values are files."""
    return 2 * hits > len({value for value in values if value})


def _sample_rows(rows: Iterable[list[str]], wanted: int) -> list[list[str]]:
    """Takes some rows, evenly spread over all of them: between `wanted` and twice as many."""
    some: list[list[str]] = []
    step = 1
    for number, row in enumerate(rows):
        if number % step == 0:
            some.append(row)
        if len(some) == 2 * wanted:
            some, step = some[::2], 2 * step
    return some
