"""`automl studies`, `automl best`, `automl dashboard`: looking at studies."""

import sys
from pathlib import Path
from typing import Annotated

import typer

_Runs = Annotated[Path, typer.Option(help="Folder that holds the studies.")]
_Study = Annotated[str | None, typer.Argument(help="Name of the study (default: the latest).")]


def studies(runs: _Runs = Path("runs")) -> None:
    """List the studies.

    Example: automl studies
    """
    from rich.console import Console
    from rich.table import Table

    from automl.errors import StudyError
    from automl.study.study import best_trial, finished, open_study, stored_spec
    from automl.study.study import studies as find

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("study", "trials", "metric", "best", "backbone", "data"):
        table.add_column(column, no_wrap=True)
    for folder in find(runs):
        try:
            study = open_study(folder)
            spec, top = stored_spec(study), best_trial(study)
        except StudyError as exc:  # one that cannot be read hides no other
            print(f"warning: {exc}", file=sys.stderr)
            continue
        table.add_row(
            folder.name,
            f"{len(finished(study))} of {spec.budget.trials}",
            study.user_attrs.get("metric", spec.metric),
            f"{top.value:.4f}" if top else "–",
            top.user_attrs.get("backbone", "") if top else "",
            str(spec.data.path or "demo"),
        )
    if table.row_count:
        Console(highlight=False).print(table)
    else:
        print(f"no studies in {runs}; begin one with: automl search --gpu-mem 16GB --trials 50")


def best(study: _Study = None, runs: _Runs = Path("runs")) -> None:
    """Show the best recipe of a study, its top five trials and how the others ended.

    Example: automl best ffdi
    """
    from automl.cli.search import show_result
    from automl.study.search import open_result
    from automl.study.study import find_study

    show_result(open_result(find_study(runs, study)))


def dashboard(
    study: _Study = None,
    runs: _Runs = Path("runs"),
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port on this machine's loopback address.")] = 8080,
) -> None:
    """Open optuna-dashboard on a study, on this machine's loopback address only.

    Example: automl dashboard ffdi --port 8081
    """
    import socket

    from automl.errors import StudyError
    from automl.study.storage import open_storage
    from automl.study.study import find_study, open_study, stored_storage

    folder = find_study(runs, study)
    open_study(folder)
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as exc:
            raise StudyError(f"port {port} is taken; give another one with --port") from exc
    print(f"study {folder.name}: http://127.0.0.1:{port} (Ctrl-C ends it)", flush=True)
    print("note: its importances (PED-ANOVA) often name parameters that do not matter, below some hundred trials")
    from optuna_dashboard import run_server

    run_server(open_storage(stored_storage(folder)), host="127.0.0.1", port=port)
