"""`automl worker`, which `automl search` starts for each device."""

import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer

_NO_STORAGE = "a worker needs --storage or AUTOML_STORAGE, the Optuna storage URL of its study"


def worker(
    study: Annotated[str, typer.Option(help="Name of the study.")],
    storage: Annotated[
        str | None,
        typer.Option(envvar="AUTOML_STORAGE", help="Optuna storage URL; with a password: in AUTOML_STORAGE."),
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="This machine's copy of the data. Default: where it is known to be.")
    ] = None,
    runs: Annotated[Path, typer.Option(help="Folder for this machine's folder of the study.")] = Path("runs"),
    weights_dir: Annotated[
        Path | None, typer.Option(help="This machine's pretrained weights. Default: the hub.")
    ] = None,
    device: Annotated[
        str, typer.Option(help="auto, cpu, cuda (every GPU), or several such as cuda:0,cuda:1. Default: auto.")
    ] = "auto",
    artifacts: Annotated[
        str | None, typer.Option(help="The study's artifacts, where this machine reaches them by another URL.")
    ] = None,
    files_folder: Annotated[Path | None, typer.Option(help="Label file: this machine's folder of the files.")] = None,
    groups: Annotated[Path | None, typer.Option(help="This machine's table of groups, if the study has one.")] = None,
    face_model: Annotated[Path | None, typer.Option(help="This machine's YuNet file, if the study has one.")] = None,
    deadline: Annotated[float | None, typer.Option(help="When to stop, in seconds since 1970.")] = None,
    supervised: Annotated[
        str,
        typer.Option(
            metavar="NAME", help="Begin at the first line of standard input, stop when it ends, and be shown as NAME."
        ),
    ] = "",
) -> None:
    """Joins a study that a search has begun, from any machine, and trains trials until none is left.

    Example: automl worker --storage postgresql://host/db --study ffdi --data ffdi/ --weights-dir weights
    """
    if data is not None or not (supervised or (runs / study / "samples.csv").exists()):
        paths = {"files_folder": files_folder, "groups": groups, "face_model": face_model, "artifacts": artifacts}
        _join_study(runs / study, storage, device, deadline, {"data": data, "weights_dir": weights_dir} | paths)
        return
    from automl.cli.json_objects import WorkerFinished
    from automl.cli.json_output import start_events, write_event, write_result, write_stop
    from automl.cli.json_results import describe_ended
    from automl.devices import find_devices
    from automl.errors import SpecError
    from automl.reporter import STOPS_AT_CHECKPOINT, catch_interrupts
    from automl.study.folder import StudyFolder
    from automl.study.joined_worker import join_as_begun
    from automl.study.storage import Patience, open_study
    from automl.study.trial import Stop
    from automl.study.trial_record import trial_rows
    from automl.study.worker import print_warning, run_worker

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
        raise SpecError(_NO_STORAGE)
    device = find_devices(device)[0]
    opened, ended = open_study(folder, storage, Patience(print_line=print_warning, should_stop=stop)), list[int]()
    if not folder.samples.exists():  # it was started on a machine that has not joined
        join_as_begun(opened, folder, device)
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
        run_worker(opened, folder, device, stop, on_end=report_end, label=supervised)
    write_result(WorkerFinished(study=study, device=device, trials=ended))


def _join_study(folder: Path, storage: str | None, device: str, deadline: float | None, paths: dict[str, Any]) -> None:
    """Joins a study with this machine's own paths, and shows what it trains."""
    from automl.cli.json_output import start_events, wants_json, write_result

    start_events("worker")  # before the imports, which take seconds
    from automl.cli.json_objects import WorkerFinished
    from automl.cli.output import print_line
    from automl.cli.progress import SearchProgress
    from automl.errors import SpecError
    from automl.study.folder import StudyFolder
    from automl.study.joined_worker import OwnPaths, join_and_train
    from automl.units import format_count

    if storage is None:
        raise SpecError(_NO_STORAGE)
    answer = "stopping: nothing is trained now; the same command goes on"
    with SearchProgress(answer) as progress:
        result, ended = join_and_train(StudyFolder(folder), storage, OwnPaths(**paths), device, progress, deadline)
    if not result.interrupted:
        print_line(
            f"nothing is left to train here; {format_count(len(ended), 'trial')} ended on this machine meanwhile"
        )
    if wants_json():
        write_result(WorkerFinished(study=folder.name, device=device, trials=ended))
    if result.interrupted:
        raise typer.Exit(130)
