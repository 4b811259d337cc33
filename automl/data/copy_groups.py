"""Samples that belong together because they are nearly the same."""

from typing import Any

import numpy as np


class CopyGroups:
    """Rows that belong together: two that are joined are in one group, and so is what either was joined with.

    What is in one group is not compared again: a camera that never moved would otherwise make a pair of any two clips.
    """

    def __init__(self, rows: int) -> None:
        """Makes a group of each row."""
        self.group_of = np.arange(rows)  # of each row: the smallest row of its group
        self.weakest: dict[int, float] = {}  # the similarity of each group of two or more

    def are_apart(self, a: Any, b: Any) -> Any:
        """Returns whether two rows are in two groups; also of two arrays of rows."""
        return self.group_of[a] != self.group_of[b]

    def join_rows(self, a: int, b: int, similarity: float) -> None:
        """Makes one group of those of two rows."""
        into, gone = sorted((int(self.group_of[a]), int(self.group_of[b])))
        self.group_of[self.group_of == gone] = into
        known = (self.weakest.pop(group, 1.0) for group in (into, gone))
        self.weakest[into] = min(similarity, *known)

    def list_groups(self) -> list[tuple[list[int], float]]:
        """Lists the groups of two or more: their rows, ascending, and the similarity where it is weakest."""
        return [(np.flatnonzero(self.group_of == group).tolist(), least) for group, least in self.weakest.items()]
