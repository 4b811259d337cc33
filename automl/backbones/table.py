"""The shipped table: one row per distinct (model, image size) of timm's leaderboards.

It begins with comment lines that say its source, licence, date and the command that made it.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from automl.errors import SpecError
from automl.files import read_header

if TYPE_CHECKING:
    import pandas as pd

SHIPPED = Path(__file__).with_name("leaderboard.csv")

BOARDS = ("imagenet", "a", "r", "real", "sketch", "v2")
"""The leaderboards: ImageNet, -A (natural adversarial), -R (renditions), ReaL labels, Sketch, V2."""

TEXT_COLUMNS = ("model", "interpolation", "pretraining", "family", "licence")
COLUMNS = (
    *("model", "image_size", "imagenet", "a", "a_clean", "r", "r_clean", "real", "sketch", "v2"),
    *("params_m", "crop_pct", "interpolation", "pretraining", "family", "licence", "gmacs", "macts"),
)
"""`model` is timm's `arch.tag`; boards are top-1 in %; `params_m` and `macts` are millions, `gmacs` 10⁹, per image."""


@dataclass(frozen=True)
class Provenance:
    """Where a table comes from, as its comment lines say it."""

    source: str
    licence: str
    date: str
    command: str
    timm: str


def provenance(path: Path = SHIPPED) -> Provenance:
    """Reads a table's comment lines.

    Args:
        path: The table.

    Returns:
        What they say; "unknown" for a line that is missing.

    Raises:
        SpecError: If the file cannot be read.
    """
    try:
        said = read_header(path)
    except (OSError, UnicodeDecodeError) as exc:
        raise SpecError(f"cannot read the leaderboard table {path}: {exc}") from exc
    return Provenance(**{key: said.get(key, "unknown") for key in Provenance.__dataclass_fields__})


def load_table(path: Path = SHIPPED) -> "pd.DataFrame":
    """Reads the leaderboard table, about 10 ms once pandas is imported.

    Args:
        path: The table; the shipped one by default.

    Returns:
        The columns `COLUMNS`: unknown text is "", an unknown figure NaN, and `image_size` whole pixels.

    Raises:
        SpecError: If the file cannot be read or has other columns.
    """
    import pandas as pd

    figures = [name for name in COLUMNS if name not in TEXT_COLUMNS]
    types = dict.fromkeys(TEXT_COLUMNS, "str") | dict.fromkeys(figures, "float64") | {"image_size": "int64"}
    try:
        table = pd.read_csv(
            path, comment="#", dtype=types, keep_default_na=False, na_values={name: [""] for name in figures}
        )
    except (OSError, ValueError) as exc:  # ParserError, EmptyDataError and UnicodeDecodeError are ValueErrors
        raise SpecError(f"cannot read the leaderboard table {path}: {exc}; make it with: {_REMEDY}") from exc
    if list(table.columns) != list(COLUMNS):
        raise SpecError(
            f"{path} is not a leaderboard table, its columns are {list(table.columns)}; make it with: {_REMEDY}"
        )
    return table


_REMEDY = "automl leaderboard refresh DIR"
