"""A machine that joins a study from anywhere: what `automl worker --data PATH` calls.

It has a folder of its own and a copy of the data and the weights; the storage, and the artifacts where there are some,
is all that it shares with the others.
"""

import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import optuna

from automl.data.dataset import open_dataset
from automl.doctor.checks import find_usable_devices, refuse_machine
from automl.errors import AutomlError, SpecError, StudyError
from automl.files import check_weights_dir, write_text
from automl.reporter import OncePrinter, Reporter, catch_interrupts
from automl.spec import DataSpec
from automl.study.artifacts import open_artifacts
from automl.study.environment import describe_environment
from automl.study.folder import StudyFolder
from automl.study.joining import join_study, measure_memory
from automl.study.search import STOPPING, SearchResult
from automl.study.storage import (
    Patience,
    StorageLost,
    absolute_storage,
    hide_password,
    is_same_storage,
    open_study,
    patience_of,
    read_storage_url,
)
from automl.study.supervisor import Supervisor
from automl.study.trial_record import StudyRecord, read_spec, read_study_record
from automl.study.worker_process import Machine
from automl.units import format_count, format_seconds


@dataclass(frozen=True)
class OwnPaths:
    """Where a machine has what the study needs; None: as the study has it, or nowhere."""

    data: Path | None = None
    """The folder or label file."""
    files_folder: Path | None = None
    groups: Path | None = None
    face_model: Path | None = None
    weights_dir: Path | None = None
    artifacts: str | None = None

    def describe_data(self, spec: DataSpec) -> DataSpec:
        """Describes this machine's copy of a study's data."""
        if self.data is None and spec.path is not None:
            raise SpecError(f"this machine has not joined the study: give --data, its own copy of {spec.path}")
        paths = {"path": self.data, "files_folder": self.files_folder, "groups": self.groups}
        # Copies were looked for when the study began: its samples are what is left.
        return spec.model_copy(update=paths | {"face_model": self.face_model, "drop_copies": False})


def join_and_train(
    folder: StudyFolder, storage: str, paths: OwnPaths, device: str, reporter: Reporter, deadline: float | None = None
) -> tuple[SearchResult, list[int]]:
    """Joins a study and trains its trials on this machine's devices until none is left, or somebody stops it.

    Args:
        folder: This machine's folder of the study, which is made; its name is the study's.
        storage: Optuna storage URL.
        paths: What this machine has.
        device: As for `find_devices`.
        reporter: Receives what is done.
        deadline: When to stop at the latest, in seconds since 1970; None: when the search that began the study does.

    Returns:
        The study, and the numbers of the trials that ended on this machine meanwhile.

    Raises:
        StudyError: If there is no such study in the storage, or the data are other ones.
        PoolError: If this machine can train none of its backbones.
        AutomlError: If data, weights, artifacts or devices do not work out.
    """
    check_weights_dir(paths.weights_dir)
    refuse_machine(folder.path.parent, None)
    devices = find_usable_devices(device, reporter.print_line)
    study = _open_study(folder, storage, reporter)
    spec, record = read_spec(study), read_study_record(study)
    if not record.files:
        raise StudyError(
            f"an earlier version of automl began study {folder.name!r}: only its own machine goes on with it"
        )
    for line in _list_other_versions(record):
        reporter.print_line(f"warning: {line}")
    if deadline is None and record.deadline is not None and record.deadline > time.time():
        deadline = record.deadline
        reporter.print_line(f"the study ends in {format_seconds(deadline - time.time())}, as its search does")
    dataset = open_dataset(paths.describe_data(spec.data), spec.seed)
    machine = Machine(devices, reporter.print_line)
    supervisor = Supervisor(folder, devices, deadline, machine.start_worker, machine.labels, waits_for_others=False)
    folder.make_folders()
    try:
        setup = join_study(
            study,
            folder,
            dataset,
            measure=partial(machine.call, measure_memory, spec.budget.gpu_mem, devices),
            weights_dir=paths.weights_dir,
            face_model=paths.face_model,
            artifacts=paths.artifacts,
            may_have_more=True,
            print_line=reporter.print_line,
        )
    except BaseException:
        folder.remove_unused()
        raise
    open_artifacts(study, folder, reporter.print_line).check()
    write_text(folder.storage_note, absolute_storage(storage) + "\n", mode=0o600)  # it may hold a password
    result = SearchResult(study, folder, setup)
    count = len(setup.pool.entries)
    usable = count - len(setup.local.unusable if setup.local else {})
    reporter.print_line(
        f"joined study {folder.name}: its {len(setup.dataset.samples)} samples are the same in {dataset.root}; "
        f"{usable} of {format_count(count, 'backbone')} can be trained here, on {', '.join(devices)}"
    )
    _watch(result, supervisor, reporter, deadline)
    return replace(result, interrupted=supervisor.stopping), sorted(supervisor.ended)


def _list_other_versions(record: StudyRecord) -> Iterator[str]:
    """Lists libraries of which this machine has another version than the one that the study began with."""
    here = describe_environment(())
    for name in ("automl", "torch", "timm", "optuna"):
        if (began := record.environment.get(name, here[name])) != here[name]:
            yield f"the study began with {name} {began}, here is {here[name]}: scores may differ"


def join_as_begun(study: optuna.Study, folder: StudyFolder, device: str) -> None:
    """Joins a study, for one worker, on a machine that has data and weights under the paths of the one it began on.

    Raises:
        StudyError: If they are not there or other ones, or the device can train nothing; it names the machine.
    """
    spec = read_spec(study)
    try:
        dataset = open_dataset(spec.data.model_copy(update={"drop_copies": False}), spec.seed)
        folder.make_folders()
        join_study(
            study,
            folder,
            dataset,
            measure=partial(measure_memory, spec.budget.gpu_mem, (device,), print),
            weights_dir=spec.weights_dir,
            face_model=spec.data.face_model,
            may_have_more=True,
        )
        open_artifacts(study, folder).check()
    except AutomlError as exc:  # on the machine of the search, everything is there
        raise StudyError(f"{socket.gethostname()} cannot join the study: {exc}") from exc


def _open_study(folder: StudyFolder, storage: str, reporter: Reporter) -> optuna.Study:
    """Opens the study in the storage; refuses a folder that is another study's."""
    if folder.has_study and not is_same_storage(read_storage_url(folder), storage):
        known = hide_password(read_storage_url(folder))
        raise StudyError(f"{folder.path} holds a study of the storage {known}; give another folder with --runs")
    return open_study(folder, storage, Patience(print_line=reporter.print_line))


def _watch(result: SearchResult, supervisor: Supervisor, reporter: Reporter, deadline: float | None) -> None:
    """Trains until no trial is left, and shows it."""
    patience = patience_of(result.study)
    patience.should_stop = lambda: supervisor.stopping
    patience.print_line = supervisor.print_line = OncePrinter(reporter.print_line).print_line

    def stop() -> None:
        supervisor.stop()
        reporter.show_stop(STOPPING)

    def tick(last: bool = False) -> None:
        try:
            reporter.show_study(result, deadline, supervisor.stopping, last)
        except StorageLost:
            if not supervisor.stopping:  # else the workers end without it
                raise

    with catch_interrupts(stop):
        supervisor.watch_workers(result.study, read_storage_url(result.folder), tick)
        tick(last=True)
