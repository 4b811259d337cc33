"""The robustness score: a weighted mean of standardised top-1 over chosen leaderboards."""

import difflib
import math
import operator
from collections.abc import Iterable, Mapping
from functools import reduce
from types import MappingProxyType
from typing import TYPE_CHECKING

from automl.errors import SpecError
from automl.leaderboard.table import BOARDS

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["DEFAULT_BOARDS", "check_name", "parse_boards", "rank"]

DEFAULT_BOARDS: Mapping[str, float] = MappingProxyType({"a": 1.0, "r": 1.0})
"""The two boards that competitors choose by, with equal weight."""

SCORE_DECIMALS = 9  # sums in another row order differ in the last bits; a rank must not


def check_name(kind: str, name: str, valid: Iterable[str]) -> None:
    """Refuses a name that is not among the valid ones.

    Args:
        kind: What is named, for the message.
        name: The name given.
        valid: The names that exist.

    Raises:
        SpecError: With the valid names, nearest first.
    """
    names = sorted(valid)
    if name in names:
        return
    nearest = sorted(names, key=lambda other: -difflib.SequenceMatcher(None, name.lower(), other).ratio())
    raise SpecError(f"unknown {kind} {name!r}; valid, nearest first: {', '.join(nearest)}")


def parse_boards(text: str) -> dict[str, float]:
    """Reads boards with optional weights as a flag writes them: `a,r,sketch` or `a=2,r=1`.

    Args:
        text: Comma-separated board names, each with `=weight` or weight 1.

    Returns:
        Weight by board.

    Raises:
        SpecError: If a board is unknown or given twice, or a weight is not a positive number.
    """
    boards: dict[str, float] = {}
    for part in text.split(","):
        name, equals, weight = (piece.strip() for piece in part.partition("="))
        if name in boards:
            raise SpecError(f"board {name!r} is given twice in {text!r}; give it once, with a weight: {name}=2")
        try:
            boards[name] = float(weight) if equals else 1.0
        except ValueError as exc:
            raise SpecError(f"not a weight: {part.strip()!r}; write boards like a,r,sketch or a=2,r=1") from exc
    _check_boards(boards)
    return boards


def rank(table: "pd.DataFrame", boards: Mapping[str, float] = DEFAULT_BOARDS) -> "pd.DataFrame":
    """Scores and sorts the rows of a table.

    A board's top-1 is standardised (mean 0, standard deviation 1) over the rows of *this* table that have it, so rank
    the whole table first and select from the result: then a score does not depend on what else was selected.

    Args:
        table: Rows with the columns of `load_table`.
        boards: Positive weight by board name.

    Returns:
        A copy, best first (ties by model and image size, rows without a score last), with a new index and the columns
        `score` (NaN where a chosen board is), `gap_a` and `gap_r` (top-1 points lost from the clean counterpart, the
        same classes in ordinary photographs, to the board).

    Raises:
        SpecError: If a board is unknown, none is given, or a weight is not positive and finite.
    """
    _check_boards(boards)
    ranked = table.copy()
    standardised = [_standardised(table[name]) * weight for name, weight in boards.items()]
    total = reduce(operator.add, standardised)
    ranked["score"] = (total / sum(boards.values())).round(SCORE_DECIMALS)
    for name in ("a", "r"):
        ranked[f"gap_{name}"] = (ranked[f"{name}_clean"] - ranked[name]).round(SCORE_DECIMALS)
    order = ["score", "model", "image_size"]
    return ranked.sort_values(order, ascending=[False, True, True], na_position="last", ignore_index=True)


def _standardised(top1: "pd.Series[float]") -> "pd.Series[float]":
    """The z-scores of one board; 0 for every row of a board on which all rows are equal."""
    centred = top1 - top1.mean()
    deviation = float(top1.std(ddof=0))
    equal = not deviation > 1e-9 * max(1.0, abs(float(top1.mean())))
    return centred * 0.0 if equal else centred / deviation


def _check_boards(boards: Mapping[str, float]) -> None:
    """Refuses unknown boards and weights that do not weigh."""
    if not boards:
        raise SpecError(f"no board to rank by; choose from {', '.join(BOARDS)}")
    for name, weight in boards.items():
        check_name("board", name, BOARDS)
        if not (math.isfinite(weight) and weight > 0):
            raise SpecError(f"the weight of board {name!r} must be a positive number, got {weight}")
