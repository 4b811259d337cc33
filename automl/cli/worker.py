"""`automl worker`, which `automl search` starts for each device."""

import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer


def worker(
    study: Annotated[str, typer.Option(help="Name of the study.")],
    storage: Annotated[str | None, typer.Option(help="Optuna storage URL; supervised, it is read instead.")] = None,
    runs: Annotated[Path, typer.Option(help="Folder that holds the study's folder.")] = Path("runs"),
    device: Annotated[str, typer.Option(help="cpu or cuda:0.")] = "cpu",
    label: Annotated[str, typer.Option(help="Names the worker where it is shown; by default its device.")] = "",
    deadline: Annotated[float | None, typer.Option(help="When to stop, in seconds since 1970.")] = None,
    supervised: Annotated[
        bool, typer.Option("--supervised", help="Begin at the first line of standard input, stop when it ends.")
    ] = False,
) -> None:
    """Trains trials of a study that a search has started.

    Example: automl worker --storage sqlite:////data/runs/ffdi/study.db --study ffdi --runs /data/runs
    """
    from automl.cli.json_objects import WorkerFinished
    from automl.cli.json_output import start_events, write_event, write_result, write_stop
    from automl.cli.json_results import describe_ended
    from automl.errors import SpecError
    from automl.reporter import STOPS_AT_CHECKPOINT, catch_interrupts
    from automl.study.folder import StudyFolder
    from automl.study.storage import Patience, open_study
    from automl.study.trial import Stop
    from automl.study.trial_record import trial_rows
    from automl.study.worker import run_worker

    folder = StudyFolder(runs / study)
    stop = Stop(deadline)
    if supervised:
        import timm  # noqa: F401 - what a trial needs is imported while the study is being prepared

        print("ready", flush=True)
        storage = sys.stdin.readline().strip()
        if not storage:
            return  # there will be no study
        stop.watch_stream(sys.stdin)
    if storage is None:
        raise SpecError("a worker needs --storage, the Optuna storage URL of its study")
    opened, ended = open_study(folder, storage, Patience(should_stop=stop)), list[int]()
    maximize = opened.direction.name == "MAXIMIZE"

    def report_end(number: int) -> None:
        ended.append(number)
        (row,) = trial_rows([opened.trials[number]], maximize)
        write_event(describe_ended(row))

    def stop_soon() -> None:
        stop.soon.set()
        print(STOPS_AT_CHECKPOINT, flush=True)
        write_stop(STOPS_AT_CHECKPOINT)

    start_events("worker")
    with nullcontext() if supervised else catch_interrupts(stop_soon):
        run_worker(opened, folder, device, stop, on_end=report_end, label=label)
    write_result(WorkerFinished(study=study, device=device, trials=ended))
