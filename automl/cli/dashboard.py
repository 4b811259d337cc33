"""`automl dashboard`."""

import socket
from pathlib import Path
from typing import Annotated

import typer

from automl.cli.options import Runs, Study


def dashboard(
    study: Study = None,
    runs: Runs = Path("runs"),
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port on this machine's loopback address.")] = 8080,
) -> None:
    """Opens optuna-dashboard on a study, on this machine's loopback address only.

    Example: automl dashboard ffdi --port 8081
    """
    from automl.cli.json_objects import DashboardResult
    from automl.cli.json_output import write_result
    from automl.errors import StudyError
    from automl.study.folder import find_study
    from automl.study.storage import open_storage, open_study, read_storage_url

    folder = find_study(runs, study)
    open_study(folder)
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as exc:
            raise StudyError(f"port {port} is taken; give another one with --port") from exc
    print(f"study {folder.name}: http://127.0.0.1:{port} (Ctrl-C ends it)", flush=True)
    write_result(DashboardResult(study=folder.name, url=f"http://127.0.0.1:{port}"))
    print("note: its importances (PED-ANOVA) often name parameters that do not matter, below some hundred trials")
    from optuna_dashboard import run_server

    run_server(open_storage(read_storage_url(folder)), host="127.0.0.1", port=port)
