"""`automl doctor`: looks at this machine before a search does."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from automl.doctor.gpu import Checkup


def doctor(
    weights_dir: Annotated[Path | None, typer.Option(help="Folder of weights to look into as well.")] = None,
) -> None:
    """Show GPUs, memory, packages, weights and disk as a search would find them, and what to do about each trouble.

    The exit code is 1 if no search is possible here, else 0.

    Example: automl doctor --weights-dir weights/
    """
    from rich.console import Console

    from automl.doctor.environment import examine

    console = Console()
    with Console(stderr=True).status("looking"):
        checkup = examine(weights_dir)
    if console.is_terminal:
        _show(checkup, console)
    else:
        sys.stdout.write("".join(f"{line}\n" for line in _lines(checkup)))
    if not checkup.can_search:
        raise typer.Exit(1)


def _lines(checkup: "Checkup") -> list[str]:
    """One plain line for each finding and each trouble."""
    lines = [f"{finding.what}: {finding.said}" for finding in checkup.findings]
    lines += [f"{'error' if trouble.fatal else 'warning'}: {trouble.said}" for trouble in checkup.troubles]
    return lines if checkup.troubles else [*lines, "no troubles found"]


def _show(checkup: "Checkup", console: "Console") -> None:
    """Findings in two columns, troubles below them in colour."""
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for finding in checkup.findings:
        table.add_row(finding.what, Text(finding.said))
    console.print(table)
    console.print()
    for trouble in checkup.troubles:
        kind, style = ("error", "red") if trouble.fatal else ("warning", "yellow")
        console.print(Text(f"{kind}: {trouble.said}"), style=style)
    if not checkup.troubles:
        console.print("no troubles found", style="green")
