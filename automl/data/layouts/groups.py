"""Which samples belong together, given beside the labels: a table of file names and groups.

A group is whatever must not be on two sides of a split: clips cut from one source, clips of one person. `groups.csv`
in the data's folder is read by itself; `--groups FILE` names another table.

A name means the sample whose path ends as it does, ending, case and Unicode form aside. Where most names are of no
sample, the folders in front that are not there (`/home/me/x/real/0.jpg`) are left out, as many for the whole table.
"""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from automl.data.layouts.columns import GROUP_NAMES
from automl.data.layouts.text_table import FILE_NAMES, Table, list_names, open_table
from automl.data.layouts.tree import NameIndex, spell_name
from automl.errors import DataError

GROUPS_FILE = "groups.csv"
"""The table that is read without being named, in lower case."""

_TRIED = 1000  # names by which it is settled how all of a table are understood


def with_groups(table: pd.DataFrame, root: Path, wanted: Path | None) -> "tuple[pd.Series[str], list[str]]":
    """Fills in the groups of samples that have none yet, "" if still not given; returns warnings, too, one line each.

    The samples are those of `recognise.Listing.table`; `wanted` is the table of groups (None: `groups.csv`, if it is in
    the data's folder or that of the label file).

    Raises:
        DataError: If the table cannot be read, none of its names is a sample's, a name may be several samples', or a
            sample has two groups.
    """
    file = wanted.expanduser() if wanted is not None else _find_groups_file(root)
    if file is None:
        return table["group"], []
    groups = _read_groups(file, _Samples(table))
    filled = table["group"].where(table["group"] != "", table["path"].map(groups).fillna(""))
    alone = table["name"][filled == ""].tolist()
    problems = [f"{file.name} names no group of {len(alone)} samples: {list_names(alone)}"] if alone else []
    return filled, problems


class _Samples:
    """The samples' paths, by their names as people write them."""

    def __init__(self, table: pd.DataFrame) -> None:
        self.name_of: dict[str, str] = dict(zip(table["path"], table["name"], strict=True))
        self._by_name: dict[str, list[str]] = {}
        for path, name in self.name_of.items():
            self._by_name.setdefault(name, []).append(path)
        others = ((name, path) for path, name in self.name_of.items() if not path.endswith(f"/{name}"))
        self._index = NameIndex(self.name_of, others)

    def find_paths(self, name: str, dropped: int) -> list[str]:
        """Finds the samples that a name may mean, without so many folders in front of it."""
        return self._by_name.get(name) or self._index.find(name, dropped)

    def settle_dropped(self, names: Sequence[str]) -> int:
        """Finds how many folders in front of names to leave out, for most of them, or of the samples, to be found."""
        likely = [name for name in dict.fromkeys(names) if self._index.matches(name, dropped=len(name))]
        some = likely[:: max(1, len(likely) // _TRIED)]
        enough = min(len(likely), len(self.name_of)) * len(some) / max(1, len(likely)) / 2
        best = most = 0
        for dropped in range(max((len(spell_name(name)) for name in some), default=1)):
            hits = sum(bool(self._index.matches(name, dropped)) for name in some)
            if hits > most:
                best, most = dropped, hits
            if hits >= enough:
                break  # what is not there then is missing, and not to be found in another folder
        return best


def _find_groups_file(root: Path) -> Path | None:
    """Finds `groups.csv` in a folder, or in the folder of a label file."""
    folder = root if root.is_dir() else root.parent
    while True:
        inside = [path for path in folder.iterdir() if not path.name.startswith((".", "__MACOSX"))]
        file = next((path for path in inside if path.name.lower() == GROUPS_FILE and path.is_file()), None)
        if file or not root.is_dir() or len(inside) != 1 or not inside[0].is_dir():
            return file
        folder = inside[0]  # a folder too many around the data


def _read_groups(file: Path, samples: _Samples) -> dict[str, str]:
    """Reads the group of each sample that the table names, by its path."""
    table = open_table(file)
    files, dropped = _find_file_column(table, samples)
    first = table.header[files]
    if table.headed and first.lower() not in FILE_NAMES and samples.find_paths(first, dropped):
        table = table.with_header(headed=False)
    rest = [i for i in range(len(table.header)) if i != files]
    called = [i for i in rest if table.header[i].lower() in GROUP_NAMES]
    if not called and len(rest) > 1:
        names = ", ".join(table.header[i] for i in rest)
        raise DataError(f"{table.file}: cannot tell the groups among {names}; call that column `group`")
    group = (called or rest)[0]
    groups: dict[str, str] = {}
    for row in table.read_rows():
        if not row[group]:
            continue
        paths = samples.find_paths(row[files], dropped)
        if len(paths) > 1:
            several = list_names(sorted({samples.name_of[path] for path in paths}))
            raise DataError(f"{file}: {row[files]!r} may be {several}; write the names with their folder and ending")
        for path in paths:
            if groups.setdefault(path, row[group]) != row[group]:
                raise DataError(
                    f"{file}: {row[files]!r} is in two groups, {groups[path]!r} and {row[group]!r}; leave one"
                )
    return groups


def _find_file_column(table: Table, samples: _Samples) -> tuple[int, int]:
    """Finds the column that names most samples, and how many folders in front of its names to leave out."""
    columns = list(zip(*table.read_rows(), strict=True)) or [()] * len(table.header)
    dropped = [samples.settle_dropped(cells) for cells in columns]
    hits = [
        sum(bool(samples.find_paths(name, fewer)) for name in set(cells))
        for cells, fewer in zip(columns, dropped, strict=True)
    ]
    if not any(hits):
        called = list_names(list(samples.name_of.values()))
        raise DataError(f"{table.file}: none of its names is a sample's; the samples are called {called}")

    def rank_column(i: int) -> tuple[bool, bool, int]:  # a group may be called as a file is: by its number or source
        called = table.header[i].lower()
        return 2 * hits[i] >= max(hits) and called not in GROUP_NAMES, called in FILE_NAMES, hits[i]

    best = max(range(len(columns)), key=rank_column)
    return best, dropped[best]
