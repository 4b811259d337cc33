"""`automl confirm`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from automl.study.confirmation import Confirmation
    from automl.study.folder import StudyFolder


def confirm(
    study: Annotated[str | None, typer.Argument(help="Name of the study (default: the latest).")] = None,
    top: Annotated[int, typer.Option(min=1, help="How many of the best recipes are trained again.")] = 3,
    seeds: Annotated[int, typer.Option(min=1, help="Trainings of each, with as many fresh seeds.")] = 3,
    timeout: Annotated[
        str | None, typer.Option(help="How long it may take: 1h, 40m; what does not fit is cut.")
    ] = None,
    runs: Annotated[Path, typer.Option(help="Folder that holds the studies.")] = Path("runs"),
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1.")] = "auto",
    again: Annotated[
        bool, typer.Option("--again", help="Look at the holdout once more; it is not unseen then.")
    ] = False,
) -> None:
    """Train the best recipes again with fresh seeds, choose one, and score it once on the holdout.

    Example: automl confirm ffdi --top 3 --seeds 3 --timeout 1h
    """
    from automl.cli.progress import SearchProgress
    from automl.cli.search import show_next
    from automl.study.confirm import confirm as confirm_study
    from automl.study.study import find_study
    from automl.units import parse_seconds

    folder, limit = find_study(runs, study), parse_seconds(timeout) if timeout else None
    with SearchProgress() as progress:
        found = confirm_study(
            folder, top=top, seeds=seeds, timeout=limit, device=device, again=again, reporter=progress
        )
    if found is not None:
        show_confirmation(found, folder)
        show_next(folder, has_best=True, confirmed=True)


def show_confirmation(confirmation: "Confirmation", folder: "StudyFolder") -> None:
    """Prints what each recipe scored with fresh seeds, and what the chosen one did on validation and holdout."""
    from rich.console import Console

    from automl.cli.tables import candidates_table, confirmation_lines, scores_table

    console = Console(highlight=False)
    console.print("\n[bold]trained again with fresh seeds[/bold]: validation")
    console.print(candidates_table(confirmation))
    console.print(f"\n[bold]confirmed[/bold]: the recipe of trial {confirmation.best.trial}")
    console.print(scores_table(confirmation))
    for line in [*confirmation_lines(confirmation), f"written: {folder.confirmed}, {folder.confirmation}"]:
        console.print(line, markup=False, soft_wrap=True)
