"""`automl leaderboard`: the shipped leaderboard table."""

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["leaderboard_app", "refresh"]

leaderboard_app = typer.Typer(help="The leaderboard table that backbones are chosen from.", no_args_is_help=True)


@leaderboard_app.callback()
def _leaderboard() -> None:
    """The leaderboard table that backbones are chosen from."""


@leaderboard_app.command("refresh")
def refresh(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder `results` of the timm repository.")],
    out: Annotated[Path | None, typer.Option(help="Where the table goes. Default: where automl reads it.")] = None,
) -> None:
    """Compiles the leaderboard table from timm's result CSVs, and family and licence from the installed timm.

    Example: automl leaderboard refresh pytorch-image-models/results
    """
    from automl.leaderboard import SHIPPED, refresh_table

    target = out or SHIPPED
    table = refresh_table(folder, target)
    typer.echo(f"{target}: {len(table):,} rows, {table['model'].nunique():,} models")
