"""timm's robustness leaderboards as one shipped table: reading, ranking, selecting and refreshing it.

    from automl.leaderboard import load_table, rank, select
    best = select(rank(load_table()), ["convnext*"], max_params=100)

Nothing here imports timm or torch except `refresh_table`; pandas is imported when a function needs it.
"""

from automl.leaderboard.ranking import DEFAULT_BOARDS, parse_boards, rank, rank_at, siblings, size_slope
from automl.leaderboard.refresh import compile_table, refresh_table
from automl.leaderboard.selection import emptied_by, filters, select, unmatched
from automl.leaderboard.table import BOARDS, COLUMNS, SHIPPED, Provenance, load_table, provenance

__all__ = [
    "BOARDS",
    "COLUMNS",
    "DEFAULT_BOARDS",
    "SHIPPED",
    "Provenance",
    "compile_table",
    "emptied_by",
    "filters",
    "load_table",
    "parse_boards",
    "provenance",
    "rank",
    "rank_at",
    "refresh_table",
    "select",
    "siblings",
    "size_slope",
    "unmatched",
]
