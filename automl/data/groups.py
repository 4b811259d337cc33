"""Which samples belong together, told beside the labels: a table of file names and groups.

A group is whatever must not be on two sides of a split: clips cut from one source, clips of one person. `groups.csv`
in the data's folder is read by itself; `--groups FILE` names another table.
"""

import os
from pathlib import Path

import pandas as pd

from automl.data.columns import GROUP_NAMES
from automl.data.label_file import read_table
from automl.data.names import loosen_name
from automl.data.table import listing
from automl.errors import DataError

__all__ = ["GROUPS_FILE", "with_groups"]

GROUPS_FILE = "groups.csv"
"""The table that is read without being named, in lower case."""


def with_groups(table: pd.DataFrame, root: Path, wanted: Path | None) -> "tuple[pd.Series[str], list[str]]":
    """Fills in the groups of samples that have none yet.

    Args:
        table: Columns name (as in the label file, or relative to the root) and group ("" where not given).
        root: The data's folder or label file.
        wanted: The table of groups; None: `groups.csv` in the folder, if it is there.

    Returns:
        The groups, "" where still not given, and warnings, one line each.

    Raises:
        DataError: If the table cannot be read, or none of its names is a sample's.
    """
    file = wanted.expanduser() if wanted is not None else _beside(root)
    if file is None:
        return table["group"], []
    groups = _read(file, set(table["name"]))
    found = table["name"].map(groups).fillna(table["name"].map(_base).map(groups))
    if found.isna().any():  # without endings, in another case
        loosely = {loosen_name(name): group for name, group in groups.items()}
        found = found.fillna(table["name"].map(loosen_name).map(loosely))
    if found.isna().all():
        raise DataError(
            f"{file}: none of its names is a sample's; the samples are called {listing(table['name'].tolist())}"
        )
    filled = table["group"].where(table["group"] != "", found.fillna(""))
    alone = table["name"][filled == ""].tolist()
    problems = [f"{file.name} names no group of {len(alone)} samples: {listing(alone)}"] if alone else []
    return filled, problems


def _beside(root: Path) -> Path | None:
    """`groups.csv` in a folder, or in the folder of a label file."""
    folder = root if root.is_dir() else root.parent
    while True:
        inside = [path for path in folder.iterdir() if not path.name.startswith((".", "__MACOSX"))]
        found = next((path for path in inside if path.name.lower() == GROUPS_FILE and path.is_file()), None)
        if found or not root.is_dir() or len(inside) != 1 or not inside[0].is_dir():
            return found
        folder = inside[0]  # a folder too many around the data


def _read(file: Path, names: set[str]) -> dict[str, str]:
    """Reads the groups by the names of files."""
    header, rows = read_table(file)
    columns = {name: [row[i] for row in rows] for i, name in enumerate(header)}
    known = names | set(map(_base, names)) | set(map(loosen_name, names))
    hits = {
        name: len({value for value in values if value in known or loosen_name(value) in known})
        for name, values in columns.items()
    }
    files = max(hits, key=lambda name: hits[name])
    rest = [name for name in header if name != files]
    group = next((name for name in rest if name.lower() in GROUP_NAMES), rest[0] if len(rest) == 1 else None)
    if group is None:
        raise DataError(f"{file}: cannot tell the groups among {', '.join(rest)}; call that column `group`")
    return {name: value for name, value in zip(columns[files], columns[group], strict=True) if value}


def _base(name: str) -> str:
    """The last part of a name; Windows' backslashes are understood."""
    return os.path.basename(name.replace("\\", "/"))  # noqa: PTH119
