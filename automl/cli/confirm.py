"""`automl confirm`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from automl.cli.options import Runs, Study, options_from


@options_from("budget.gpu_mem", "device", default="the study's")
def confirm(
    study: Study = None,
    top: Annotated[int, typer.Option(min=1, help="Best recipes that are trained again.")] = 3,
    seeds: Annotated[int, typer.Option(min=1, help="Trainings of each recipe, with as many fresh seeds.")] = 3,
    timeout: Annotated[
        str | None, typer.Option(help="How long it may take: 1h, 40m; what does not fit is cut. Default: no limit.")
    ] = None,
    runs: Runs = Path("runs"),
    again: Annotated[
        bool, typer.Option("--again", help="Score on the holdout once more; it is not unseen then.")
    ] = False,
    **settings: Any,
) -> None:
    """Trains the best recipes again with fresh seeds, chooses one, and scores it once on the holdout.

    Example: automl confirm ffdi --top 3 --seeds 3 --timeout 1h
    """
    from automl.cli.json_output import start_events, wants_json, write_result

    start_events("confirm")  # before the imports, which take seconds
    import automl
    from automl.cli.json_objects import ConfirmFinished
    from automl.cli.json_results import describe_commands, describe_confirmation
    from automl.cli.output import list_next_commands, print_confirmation, print_next_commands
    from automl.cli.progress import SearchProgress
    from automl.study.folder import find_study

    with SearchProgress("stopping; the same command goes on where this stops") as progress:
        confirmation = automl.confirm(
            study, top=top, seeds=seeds, timeout=timeout, runs=runs, again=again, reporter=progress, **settings
        )
    folder = find_study(runs, study)
    steps = list_next_commands(folder, has_best=True, confirmed=confirmation is not None)
    if confirmation is not None:
        print_confirmation(confirmation, folder)
        print_next_commands(steps)
    if wants_json():
        finished = ConfirmFinished(
            study=folder.name,
            folder=str(folder.path),
            confirmation=describe_confirmation(confirmation, folder) if confirmation else None,
            interrupted=progress.stopped,
            next=describe_commands(steps),
        )
        write_result(finished)
    if progress.stopped:
        raise typer.Exit(130)
