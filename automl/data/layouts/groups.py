"""Which samples belong together, told beside the labels: a table of file names and groups.

A group is whatever must not be on two sides of a split: clips cut from one source, clips of one person. `groups.csv`
in the data's folder is read by itself; `--groups FILE` names another table.

A name means the sample whose path ends as it does, ending, case and Unicode form aside. Where most names are of no
sample, the folders in front that are not there (`/home/me/x/real/0.jpg`) are left out, as many for the whole table.
"""

import os
from collections.abc import Sequence
from functools import cache, lru_cache
from pathlib import Path

import pandas as pd

from automl.data.layouts.columns import FILE_NAMES, GROUP_NAMES
from automl.data.layouts.names import loosen_name
from automl.data.layouts.text_table import Table, listing, open_table
from automl.errors import DataError

GROUPS_FILE = "groups.csv"
"""The table that is read without being named, in lower case."""

_TRIED = 1000  # names by which it is settled how all of a table are understood


def with_groups(table: pd.DataFrame, root: Path, wanted: Path | None) -> "tuple[pd.Series[str], list[str]]":
    """Fills in the groups of samples that have none yet.

    Args:
        table: Columns path (absolute), name (as in the label file, or relative to the root) and group ("" where not
            given), one row per sample.
        root: The data's folder or label file.
        wanted: The table of groups; None: `groups.csv` in the folder, if it is there.

    Returns:
        The groups, "" where still not given, and warnings, one line each.

    Raises:
        DataError: If the table cannot be read, none of its names is a sample's, a name may be several samples', or a
            sample has two groups.
    """
    file = wanted.expanduser() if wanted is not None else _beside(root)
    if file is None:
        return table["group"], []
    found = _read(file, _Samples(table))
    filled = table["group"].where(table["group"] != "", found)
    alone = table["name"][filled == ""].tolist()
    problems = [f"{file.name} names no group of {len(alone)} samples: {listing(alone)}"] if alone else []
    return filled, problems


class _Samples:
    """The samples, by their names as people write them."""

    def __init__(self, table: pd.DataFrame) -> None:
        paths, self.names = table["path"].tolist(), table["name"].tolist()
        self._last = [os.path.basename(path) for path in paths]  # noqa: PTH119 - ten times as fast, for every file
        self._exact: dict[str, list[int]] = {}
        self._spelled: list[tuple[tuple[str, ...], int]] = []
        for i, (path, name) in enumerate(zip(paths, self.names, strict=True)):
            self._exact.setdefault(name, []).append(i)
            self._spelled.append((_spell(path), i))
            if not path.endswith(f"/{name}"):  # the label file calls it otherwise
                self._spelled.append((_spell(name), i))
        self._ending_in = cache(self._by_last_parts)
        self._spell = cache(_spell)  # names of the table: each is looked for several times

    def __len__(self) -> int:
        return len(self.names)

    def find(self, name: str, dropped: int) -> list[int]:
        """The samples that a name may mean, without so many folders in front of it."""
        if name in self._exact:
            return self._exact[name]
        found = self._loosely(self._spell(name), dropped)
        last = name.replace("\\", "/").rpartition("/")[2]
        for same in (str.lower, str):  # of several, those with its ending, and of these, those in its case
            found = [i for i in found if len(found) > 1 and same(self._last[i]) == same(last)] or found
        return found

    def settle(self, names: Sequence[str]) -> int:
        """How many folders in front of names are to be left out, for most of them, or of the samples, to be found."""
        likely = [parts for name in dict.fromkeys(names) if self._loosely(parts := self._spell(name), len(parts))]
        some = likely[:: max(1, len(likely) // _TRIED)]
        enough = min(len(likely), len(self)) * len(some) / max(1, len(likely)) / 2
        best = most = 0
        for dropped in range(max(map(len, some), default=1)):
            hits = sum(bool(self._loosely(parts, dropped)) for parts in some)
            if hits > most:
                best, most = dropped, hits
            if hits >= enough:
                break  # what is not there then is missing, and not to be found in another folder
        return best

    def count(self, names: Sequence[str], dropped: int) -> int:
        """How many of different names are a sample's."""
        return sum(name in self._exact or bool(self._loosely(self._spell(name), dropped)) for name in set(names))

    def _loosely(self, parts: tuple[str, ...], dropped: int) -> list[int]:
        """The samples whose paths end with the parts of a name, whatever their endings and case."""
        parts = parts[min(dropped, len(parts) - 1) :]
        return self._ending_in(len(parts)).get(parts, [])

    def _by_last_parts(self, count: int) -> dict[tuple[str, ...], list[int]]:
        """The samples by so many last parts of their paths."""
        found: dict[tuple[str, ...], list[int]] = {}
        for parts, i in self._spelled:
            if len(parts) >= count:
                alike = found.setdefault(parts[-count:], [])
                alike += [i] if i not in alike[-1:] else []  # by its path and by its name
        return found


def _spell(name: str) -> tuple[str, ...]:
    """The parts of a name, loosely spelled; Windows' backslashes are understood."""
    folder, _, last = name.replace("\\", "/").rpartition("/")
    return *_spell_folders(folder), loosen_name(last)


@lru_cache(4096)
def _spell_folders(folder: str) -> tuple[str, ...]:
    return tuple(loosen_name(part) for part in folder.split("/") if part not in ("", ".", ".."))


def _beside(root: Path) -> Path | None:
    """`groups.csv` in a folder, or in the folder of a label file."""
    folder = root if root.is_dir() else root.parent
    while True:
        inside = [path for path in folder.iterdir() if not path.name.startswith((".", "__MACOSX"))]
        found = next((path for path in inside if path.name.lower() == GROUPS_FILE and path.is_file()), None)
        if found or not root.is_dir() or len(inside) != 1 or not inside[0].is_dir():
            return found
        folder = inside[0]  # a folder too many around the data


def _read(file: Path, samples: _Samples) -> list[str]:
    """Reads the group of each sample, "" where the table names none."""
    table = open_table(file)
    files, dropped = _file_column(table, samples)
    first = table.header[files]
    if table.headed and first.lower() not in FILE_NAMES and samples.find(first, dropped):
        table = table.with_header(headed=False)
    group = _group_column(table, files)
    found = [""] * len(samples)
    for row in table.rows():
        if not row[group]:
            continue
        means = samples.find(row[files], dropped)
        if len(means) > 1:
            several = listing(sorted({samples.names[i] for i in means}))
            raise DataError(f"{file}: {row[files]!r} may be {several}; write the names with their folder and ending")
        for i in means:
            if found[i] not in ("", row[group]):
                raise DataError(f"{file}: {row[files]!r} is in two groups, {found[i]!r} and {row[group]!r}; leave one")
            found[i] = row[group]
    return found


def _file_column(table: Table, samples: _Samples) -> tuple[int, int]:
    """The column that names most samples, and how many folders in front of its names are left out.

    Raises:
        DataError: If none of the names is a sample's.
    """
    columns = list(zip(*table.rows(), strict=True)) or [()] * len(table.header)
    ways = [samples.settle(cells) for cells in columns]
    hits = [samples.count(cells, way) for cells, way in zip(columns, ways, strict=True)]
    if not any(hits):
        raise DataError(
            f"{table.file}: none of its names is a sample's; the samples are called {listing(samples.names)}"
        )

    def rank(i: int) -> tuple[bool, bool, int]:  # a group may be called as a file is: by its number, by its source
        called = table.header[i].lower()
        return 2 * hits[i] >= max(hits) and called not in GROUP_NAMES, called in FILE_NAMES, hits[i]

    best = max(range(len(columns)), key=rank)
    return best, ways[best]


def _group_column(table: Table, files: int) -> int:
    """The column of the groups: called so, or the only other one."""
    rest = [i for i in range(len(table.header)) if i != files]
    named = [i for i in rest if table.header[i].lower() in GROUP_NAMES]
    if not named and len(rest) > 1:
        names = ", ".join(table.header[i] for i in rest)
        raise DataError(f"{table.file}: cannot tell the groups among {names}; call that column `group`")
    return (named or rest)[0]
