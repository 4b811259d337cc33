"""The robustness score: a weighted mean of standardised top-1 over chosen leaderboards."""

import math
import operator
import re
from collections.abc import Mapping
from functools import reduce
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from automl.backbones.table import BOARDS
from automl.errors import SpecError, check_name

if TYPE_CHECKING:
    import pandas as pd

DEFAULT_BOARDS: Mapping[str, float] = MappingProxyType({"a": 1.0, "r": 1.0})
"""The two boards that competitors choose by, with equal weight."""

SCORE_DECIMALS = 9  # sums in another row order differ in the last bits; a rank must not


def parse_boards(text: str) -> dict[str, float]:
    """Reads the weight of each board from a flag: `a,r,sketch` (of weight 1) or `a=2,r=1`.

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


def rank_table(table: "pd.DataFrame", boards: Mapping[str, float] = DEFAULT_BOARDS) -> "pd.DataFrame":
    """Scores and sorts the rows of a table.

    A board's top-1 is standardised (mean 0, standard deviation 1) over the rows of *this* table that have it, so rank
    the whole table first and select from the result: then a score does not depend on what else was selected.

    Returns:
        A copy, best first (ties by model and image size, rows without a score last), with a new index and the columns
        `score` (NaN where a chosen board is), `gap_a` and `gap_r` (top-1 points lost from the clean counterpart, the
        same classes in ordinary photographs, to the board).

    Raises:
        SpecError: If a board is unknown, none is given, or a weight is not positive and finite.
    """
    _check_boards(boards)
    ranked = table.copy()
    total = reduce(operator.add, (_standardise(table[name]) * weight for name, weight in boards.items()))
    ranked["score"] = (total / sum(boards.values())).round(SCORE_DECIMALS)
    for name in ("a", "r"):
        ranked[f"gap_{name}"] = (ranked[f"{name}_clean"] - ranked[name]).round(SCORE_DECIMALS)
    return _sort_rows(ranked)


def rank_at_size(
    table: "pd.DataFrame", image_size: int, boards: Mapping[str, float] = DEFAULT_BOARDS
) -> "pd.DataFrame":
    """Scores every model as if it were trained at one image size, and sorts them.

    A larger image scores higher, so `rank_table` prefers what was trained at 384 pixels to what was trained at 224.
    Here each model is scored by its row nearest to the size, and that score is moved by `measure_size_slope` for each
    doubling that is left: one number for all, measured on networks that were trained at two sizes.

    Measured on the shipped table of 2026-11-22 with the default boards: the score at the smaller size predicted from
    that at the larger, with the slope of the other families; mean absolute error.

    - 173 pairs of `find_siblings`: 0.347 as listed, 0.103 corrected, and no bias (0.003).
    - 290 models with two rows, which are the *same* weights tested at a larger size: 0.088 and 0.090. Testing larger
      gains half of what training larger does (0.26 a doubling against 0.49), and their slope would leave the siblings
      0.178.
    - One slope is enough. It is estimated for the boards chosen, and is 0.39 for convnets, 0.46 for transformers, 0.55
      for mixtures; and 0.24 from 300 pixels up, where boards saturate: scores over 2.5 are lowered by 0.12 too much.

    `image_size` is the side in pixels that will be trained; the whole table is needed, as for `rank_table`.

    Returns:
        One row per model, sorted as by `rank_table` and with its columns, where `score` is the corrected one;
        `score_listed` is the row's own and `score_image_size` the row's size in pixels. The boards and gaps are as
        listed. Of two rows as near (as a ratio) it is the smaller; a row without a score only where the model has no
        other.

    Raises:
        SpecError: If a board is unknown, none is given, or a weight or the size is not positive and finite.
    """
    if not (math.isfinite(image_size) and image_size > 0):
        raise SpecError(f"the image size to compare at must be a positive number of pixels, got {image_size}")
    ranked = rank_table(table, boards)
    doublings = np.log2(image_size / ranked["image_size"])
    ranked["score_image_size"] = ranked["image_size"]
    ranked["score_listed"] = ranked["score"]
    ranked["score"] = (ranked["score"] + measure_size_slope(ranked) * doublings).round(SCORE_DECIMALS)
    nearest = (
        ranked.assign(missing=ranked["score"].isna(), distance=doublings.abs().round(SCORE_DECIMALS))
        .sort_values(["missing", "distance", "image_size"], kind="stable")
        .drop_duplicates("model")
    )
    return _sort_rows(ranked.loc[nearest.index])


def measure_size_slope(ranked: "pd.DataFrame") -> float:
    """Measures a score's gain if a network is trained at twice the side: the median over `find_siblings`, else 0.0."""
    slopes = find_siblings(ranked)["slope"]
    return float(slopes.median()) if len(slopes) else 0.0


def find_siblings(ranked: "pd.DataFrame") -> "pd.DataFrame":
    """Finds pairs of models that are one network and training recipe at two image sizes.

    They are those whose names are the same without the size, as in `deit3_base_patch16_224.fb_in1k` and
    `deit3_base_patch16_384.fb_in1k`, or `convnext_tiny.in12k_ft_in1k` and `convnext_tiny.in12k_ft_in1k_384`. Of a model
    with several rows the smallest counts: timm lists the size that was trained, and for some a larger one, only tested.

    Returns:
        A row per pair: `family`, `small` and `large` (models), `small_score`, `large_score`, `doublings` of the side
        (positive), and `slope`, score per doubling.
    """
    import pandas as pd

    trained = ranked[ranked["score"].notna()].sort_values("image_size", kind="stable").drop_duplicates("model")
    names = map(_strip_size, trained["model"], trained["image_size"])
    trained = trained.assign(network=pd.Series(list(names), trained.index, dtype="str"))
    pairs = trained.merge(trained, on="network", suffixes=("", "_large"))
    pairs = pairs[pairs["image_size_large"] > pairs["image_size"]].reset_index(drop=True)
    doublings = np.log2(pairs["image_size_large"] / pairs["image_size"])
    return pd.DataFrame(
        {
            "family": pairs["family"],
            "small": pairs["model"],
            "large": pairs["model_large"],
            "small_score": pairs["score"],
            "large_score": pairs["score_large"],
            "doublings": doublings,
            "slope": (pairs["score_large"] - pairs["score"]) / doublings,
        }
    )


def _strip_size(model: str, image_size: int) -> str:
    """Strips a model's name of its size, and of the attention window that grows with it (`window7`, `12to24`)."""
    return re.sub(rf"_window\d+(to\d+)?|[._](r|\d+to)?{image_size}(?=[._]|$)", "", model)


def _sort_rows(ranked: "pd.DataFrame") -> "pd.DataFrame":
    """Sorts the best first, ties by model and image size, rows without a score last."""
    order = ["score", "model", "image_size"]
    return ranked.sort_values(order, ascending=[False, True, True], na_position="last", ignore_index=True)


def _standardise(top1: "pd.Series[float]") -> "pd.Series[float]":
    """Computes the z-scores of one board; 0 for every row of a board on which all rows are equal."""
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
