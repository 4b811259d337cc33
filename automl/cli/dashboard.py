"""`automl dashboard`."""

import warnings
from pathlib import Path
from typing import Annotated

import typer

from automl.cli.options import Runs, Study


def dashboard(
    study: Study = None,
    runs: Runs = Path("runs"),
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port on this machine's loopback address.")] = 8080,
) -> None:
    """Opens optuna-dashboard on a study, on this machine's loopback address only: it looks, and keeps your notes.

    Example: automl dashboard ffdi --port 8081
    """
    from automl.cli.json_objects import DashboardResult
    from automl.cli.json_output import write_result
    from automl.dashboard.server import make_dashboard
    from automl.study.folder import find_study
    from automl.study.storage import open_study

    # of its importances, one for each parameter, with each look
    warnings.filterwarnings("ignore", message="Some regimes for parameter")
    folder = find_study(runs, study)
    opened = open_study(folder)
    with make_dashboard(opened, folder, port) as server:
        address = f"http://127.0.0.1:{port}/dashboard/studies/{opened._study_id}"
        print(f"study {folder.name}: {address} (Ctrl-C ends it)", flush=True)
        write_result(DashboardResult(study=folder.name, url=address))
        print("note: its importances (PED-ANOVA) often name parameters that do not matter, below some hundred trials")
        server.serve_forever()
