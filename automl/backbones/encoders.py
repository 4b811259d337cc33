"""Reads the shipped table of encoders: timm's pretrained networks without an ImageNet-1k classifier.

DINOv3, SigLIP, MAE, what was trained on ImageNet-21k, and others. No robustness leaderboard ranks them, since without
such a classifier they have no top-1: here they are sorted by name, and a study orders them by other means.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from automl.backbones import table as leaderboard

if TYPE_CHECKING:
    import pandas as pd

SHIPPED = leaderboard.SHIPPED.with_name("encoders.csv")

TEXT_COLUMNS = ("model", "mean", "std", "interpolation", "pretraining", "family", "licence", "hub")
COLUMNS = (
    *("model", "image_size", "params_m", "weights_m", "gmacs", "macts", "patch", "mean", "std", "interpolation"),
    *("crop_pct", "fixed_input_size", "pretraining", "family", "licence", "hub"),
)
"""As those of the leaderboard where they have the same name, for a classifier of two classes. `weights_m` are the
numbers in the published file, in millions; `patch` is the side of a token in pixels, empty for convnets; `mean` and
`std` are three figures, or nothing; `hub` is the repository on the hub."""

COMMAND = "python studies/leaderboard/encoders.py"
NO_SCORE = "no board ranks encoders: a search orders them by screening"


def load_encoders(path: Path = SHIPPED) -> "pd.DataFrame":
    """Reads the table of encoders, a few milliseconds once pandas is imported.

    Returns:
        The columns of the leaderboard (`automl.backbones.table.COLUMNS`), in which every board is NaN, then those that
        encoders alone have: it can be put below the leaderboard. Unknown text is "", an unknown figure NaN.

    Raises:
        SpecError: If the file cannot be read or has other columns.
    """
    table = leaderboard.read_table(path, COLUMNS, TEXT_COLUMNS, "encoders", COMMAND)
    table["fixed_input_size"] = table["fixed_input_size"] == 1
    return table.reindex(columns=list(dict.fromkeys((*leaderboard.COLUMNS, *COLUMNS))))


def load_backbones() -> "pd.DataFrame":
    """Reads the leaderboard, and below it the encoders: every backbone whose weights are known here."""
    import pandas as pd

    return pd.concat([leaderboard.load_table(), load_encoders()], ignore_index=True)
