"""Tables that are never cut: drawn on a terminal, aligned words in a pipe."""

import sys
from collections.abc import Iterable, Mapping
from typing import Literal

PIPE_WIDTH = 400
"""Characters; wider than any row."""


def print_table(columns: Mapping[str, Literal["left", "right"]], rows: Iterable[Iterable[str]]) -> None:
    """Prints a table to the standard output.

    Args:
        columns: How each is justified, by title.
        rows: The texts of each row, in the order of the columns.
    """
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    console = Console()
    table = Table(box=SIMPLE_HEAD if console.is_terminal else None, pad_edge=False)
    for title, justify in columns.items():
        table.add_column(title, justify=justify, overflow="fold")  # a name cut off could not be copied
    for row in rows:
        table.add_row(*row)
    if console.is_terminal:
        console.print(table)
        return
    plain = Console(width=PIPE_WIDTH, color_system=None)
    with plain.capture() as captured:
        plain.print(table)
    sys.stdout.write("".join(f"{line.rstrip()}\n" for line in captured.get().splitlines()))
