"""`automl ensemble`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from automl.cli.options import Overwrite, Runs, Study, options_from


@options_from("budget.gpu_mem", "weights_dir", "device", default="the study's")
def ensemble(
    study: Study = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the model. Default: models/STUDY-ensemble.")] = None,
    by: Annotated[
        str | None,
        typer.Option(
            help="What the members differ in: view or backbone. Default: view if the study has several, else backbone."
        ),
    ] = None,
    members: Annotated[int, typer.Option(help="How many there are at most.")] = 5,
    final: Annotated[
        bool, typer.Option("--final", help="Train the members once more, on all the data; the weights stay.")
    ] = False,
    timeout: Annotated[
        str | None,
        typer.Option(
            help="How long it may take, without --final: 1h, 40m; members that do not fit are left out. "
            "Default: no limit."
        ),
    ] = None,
    overwrite: Overwrite = False,
    runs: Runs = Path("runs"),
    **settings: Any,
) -> None:
    """Joins the best recipe of each view or backbone into one model, scored once on the holdout; continues likewise.

    Example: automl ensemble ffdv --out models/ffdv
    """
    from automl.cli.json_output import start_events, wants_json, write_result

    start_events("ensemble")  # before the imports, which take seconds
    import automl
    from automl.cli.json_results import describe_ensemble
    from automl.cli.output import print_table
    from automl.cli.progress import SearchProgress

    with SearchProgress("stopping; the same command goes on where this stops") as progress:
        joined = automl.ensemble(
            study,
            out=out,
            by=by,
            members=members,
            final=final,
            timeout=timeout,
            overwrite=overwrite,
            runs=runs,
            reporter=progress,
            **settings,
        )
    if joined is not None:
        header, *rows = joined.rows()
        print_table(header, rows, left=("view", "backbone"))
        for line in [*joined.lines(), f"next: automl predict {joined.folder} --data DIR --out submission.csv"]:
            print(line)
    if wants_json():
        write_result(describe_ensemble(joined, progress.stopped))
    if progress.stopped:
        raise typer.Exit(130)
