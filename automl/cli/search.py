"""`automl search`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from automl.cli.options import options_from


@options_from()
def search(
    spec: Annotated[
        str | None, typer.Option(help="Study spec: a YAML file or a shipped name (default, demo, ffdi, ffdv).")
    ] = None,
    runs: Annotated[Path, typer.Option(help="Folder for what is written: RUNS/STUDY/.")] = Path("runs"),
    confirm: Annotated[
        int, typer.Option(min=0, help="Best recipes to train again at the end, if there is time left; 0: none.")
    ] = 3,
    on: Annotated[
        str | None,
        typer.Option(help="Where trials are trained: ray, or ray://HEAD:10001. Default: on this machine's devices."),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Workers on Ray. Default: one for each GPU that it has or can have.")
    ] = None,
    worker_cpus: Annotated[
        int | None, typer.Option(min=1, help="CPU cores of each worker on Ray, which has no GPU then.")
    ] = None,
    **settings: Any,
) -> None:
    """Searches for the best backbone and recipe. The same command again continues the study.

    The exit code is 1 if no trial is complete at the end.

    Example: automl search --data ffdi/ --gpu-mem 16GB --trials 50 --timeout 8h30m
    """
    from automl.cli.json_output import start_events, wants_json, write_result

    start_events("search")  # before the imports, which take seconds
    import automl
    from automl.backbones.ranking import parse_boards
    from automl.cli.json_objects import SearchFinished
    from automl.cli.json_results import describe_study
    from automl.cli.output import print_result
    from automl.cli.progress import SearchProgress

    if boards := settings.get("pool", {}).get("boards"):
        settings["pool"]["boards"] = parse_boards(boards)
    spec = spec or ("default" if "path" in settings.get("data", {}) else "demo")
    answer = "stopping: nothing is trained now; the same command continues"
    with SearchProgress(answer) as progress:
        settings |= {"on": on, "workers": workers, "worker_cpus": worker_cpus}
        result = automl.search(spec=spec, runs=runs, confirm=confirm, reporter=progress, **settings)
    print_result(result)
    if wants_json():
        write_result(SearchFinished(**describe_study(result), interrupted=result.interrupted))
    if result.interrupted:
        raise typer.Exit(130)
    _write_report(result.folder.name, runs)
    if result.best is None:
        raise typer.Exit(1)


def _write_report(study: str, runs: Path) -> None:
    """Writes the page about the study; the search has ended well whatever becomes of it."""
    import automl
    from automl.cli.output import print_line
    from automl.errors import first_line

    try:
        page = automl.report(study, runs=runs)
    except Exception as exc:
        print_line(f"warning: no report: {first_line(exc)}")
        return
    print_line(f"report: {page}")
