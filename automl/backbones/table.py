"""Reads the shipped tables; the leaderboard has one row per distinct (model, image size) of timm's leaderboards.

A shipped table begins with comment lines `# key: value`: its source or versions, licence, and the command that made it.
"""

import csv
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from automl.errors import SpecError
from automl.files import read_header

if TYPE_CHECKING:
    import pandas as pd

Row = TypeVar("Row")

SHIPPED = Path(__file__).with_name("leaderboard.csv")

BOARDS = ("imagenet", "a", "r", "real", "sketch", "v2")
"""The leaderboards: ImageNet, -A (natural adversarial), -R (renditions), ReaL labels, Sketch, V2."""

TEXT_COLUMNS = ("model", "interpolation", "pretraining", "family", "licence")
COLUMNS = (
    *("model", "image_size", "imagenet", "a", "a_clean", "r", "r_clean", "real", "sketch", "v2"),
    *("params_m", "crop_pct", "interpolation", "pretraining", "family", "licence", "gmacs", "macts"),
)
"""`model` is timm's `arch.tag`; boards are top-1 in %; `params_m` and `macts` are millions, `gmacs` 10⁹, per image."""

_COMMAND = "python studies/leaderboard/refresh.py DIR"


def read_provenance(path: Path = SHIPPED) -> dict[str, str]:
    """Reads where the leaderboard comes from: source, licence, date, command, timm; "unknown" if a line is missing.

    Raises:
        SpecError: If the file cannot be read.
    """
    try:
        return dict.fromkeys(("source", "licence", "date", "command", "timm"), "unknown") | read_header(path)
    except (OSError, UnicodeDecodeError) as exc:
        raise SpecError(f"cannot read the leaderboard table {path}: {exc}") from exc


def read_rows(path: Path, parse: Callable[[dict[str, Any]], Row], content: str, command: str) -> list[Row]:
    """Reads a shipped table row by row, without pandas.

    `parse` makes a row of its cells by column, and raises a KeyError, TypeError or ValueError for a wrong one. Messages
    name what the table holds (`content`) and the `command` that makes it.

    Raises:
        SpecError: If the file cannot be read or is another table.
    """
    try:
        with path.open(encoding="utf-8", newline="") as lines:
            return [parse(cells) for cells in csv.DictReader(line for line in lines if not line.startswith("#"))]
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise SpecError(f"{path} is not a table of {content} ({exc}); make it with: {command}") from exc


def load_table(path: Path = SHIPPED) -> "pd.DataFrame":
    """Reads the leaderboard table, about 10 ms once pandas is imported.

    Returns:
        The columns `COLUMNS`: unknown text is "", an unknown figure NaN, and `image_size` whole pixels.

    Raises:
        SpecError: If the file cannot be read or has other columns.
    """
    return read_table(path, COLUMNS, TEXT_COLUMNS, "the leaderboard", _COMMAND)


def read_table(
    path: Path, columns: Sequence[str], text_columns: Collection[str], content: str, command: str
) -> "pd.DataFrame":
    """Reads a shipped table of backbones with pandas; messages are as those of `read_rows`.

    Returns:
        The columns: unknown text is "", an unknown figure NaN, and `image_size` whole pixels.

    Raises:
        SpecError: If the file cannot be read or has other columns.
    """
    import pandas as pd

    figures = [name for name in columns if name not in text_columns]
    types = dict.fromkeys(text_columns, "str") | dict.fromkeys(figures, "float64") | {"image_size": "int64"}
    try:
        table = pd.read_csv(
            path, comment="#", dtype=types, keep_default_na=False, na_values={name: [""] for name in figures}
        )
    except (OSError, ValueError) as exc:  # ParserError, EmptyDataError and UnicodeDecodeError are ValueErrors
        raise SpecError(f"cannot read the table of {content} {path}: {exc}; make it with: {command}") from exc
    if list(table.columns) != list(columns):
        names = ", ".join(table.columns)
        raise SpecError(f"{path} is not a table of {content}, its columns are {names}; make it with: {command}")
    return table
