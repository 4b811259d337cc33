"""`automl leaderboard`: the shipped leaderboard table, and the memory predicted for its rows."""

import os
from pathlib import Path
from typing import Annotated

import typer

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
    from automl.backbones.refresh import refresh_table
    from automl.backbones.table import SHIPPED

    target = out or SHIPPED
    table = refresh_table(folder, target)
    typer.echo(f"{target}: {len(table):,} rows, {table['model'].nunique():,} models")


@leaderboard_app.command("memory")
def memory(
    out: Annotated[Path | None, typer.Option(help="Where the table goes. Default: where automl reads it.")] = None,
    jobs: Annotated[int | None, typer.Option(min=1, help="Processes. Default: one a core.")] = None,
) -> None:
    """Predicts the GPU memory of every row of the leaderboard, for `automl backbones --gpu-mem`.

    It takes about 3 seconds a row and core. Stopped with Ctrl-C, the same command goes on.

    Example: automl leaderboard memory --jobs 8
    """
    from automl.backbones.table import load_table
    from automl.cli.data import progress_bar
    from automl.memory.table import SHIPPED, compute_facts

    table = load_table()
    wanted = zip(table["model"].str.partition(".")[0], table["image_size"].tolist(), strict=True)
    with progress_bar("predicting memory") as told:
        rows = compute_facts(wanted, out or SHIPPED, jobs or os.cpu_count() or 1, told)
    unknown = sum(bool(row.trouble) for row in rows)
    typer.echo(f"{out or SHIPPED}: {len(rows):,} rows, {unknown} of which the installed timm cannot build")
