"""A worker: takes trials from the storage, one after the other, until the study has enough of them.

`automl worker --storage URL --study NAME` is all it takes, on this machine or another one that sees the storage and
the data. A worker that dies leaves its trial running; the next one takes it up from its checkpoint.
"""

import copy
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, Trial, TrialState

from automl.devices import LEAKED, POISONED, DeviceLost, DeviceProcess, open_device
from automl.errors import DiskFull, StudyError, is_disk_full
from automl.files import cache_dir
from automl.gpu.probe import read_context_bytes
from automl.study.artifacts import Artifacts, open_artifacts
from automl.study.continuation import (
    choose_continuation,
    hand_over_checkpoint,
    last_checkpoint,
    make_continuation,
)
from automl.study.folder import StudyFolder
from automl.study.left_out import is_left_to_others, restrict_sampler
from automl.study.membership import Membership
from automl.study.samplers import make_pruner, make_sampler
from automl.study.setup import StudySetup, StudyViews, load_setup
from automl.study.storage import WAIT_SECONDS, StorageLost, patience_of
from automl.study.trial import Objective, Stop, TrialResult
from automl.study.trial_record import (
    best_trial,
    list_finished,
    read_spec,
    read_trial_record,
    write_study_record,
    write_trial_record,
)
from automl.study.worker_process import WARNING
from automl.training.types import Parked
from automl.units import format_bytes, format_seconds

FAILURES_IN_A_ROW = 5
"""So many failed trials one after the other end the study: the next ones would fail as well."""

_MAX_TAKEN = 20
"""How often a trial is taken up again; one that kills its worker every time must end some day."""

_MAX_LOST = 3
"""How often a trial may leave its worker with a device that cannot be used any more."""

_LOOK_SECONDS = 1.0
"""Between two looks for trials that were left behind, when there is no other."""

_LOST = "this worker was silent for a minute, and another one has taken it"

_ROOM_BYTES = 2**25
"""As much must fit a disk that was full before a worker goes on."""

_LEAK = 0.01
"""Of the memory budget: if so much more is in use between two trials than before the first, a new worker continues."""


def run_worker(
    study: optuna.Study,
    folder: StudyFolder,
    device: str,
    stop: Stop,
    process: DeviceProcess | None = None,
    on_end: Callable[[int], None] = lambda _: None,
    label: str = "",
) -> None:
    """Trains trials until the study has as many as its budget says, or it is asked to stop.

    `on_end` is called with the number of each trial that has ended; `label` names the worker where people see it,
    by default its device.

    Raises:
        StudyError: After several failed trials in a row, with the message of the last.
        StorageLost: If the storage has not answered for `WAIT_SECONDS`; the trial stays running, to be taken up again.
        SystemExit: With `LEAKED` or `POISONED`, if a new worker must continue.
    """
    patience_of(study).should_stop = stop
    artifacts = open_artifacts(study, folder, print_warning)
    artifacts.upload_missing()
    try:
        with Membership(study, label or device) as member:
            _train_trials(study, artifacts, device, stop, member, process or open_device(device), on_end)
    except StorageLost:
        if not stop():
            raise
    finally:
        artifacts.flush(stop)


def _train_trials(
    study: optuna.Study,
    artifacts: Artifacts,
    device: str,
    stop: Stop,
    member: Membership,
    process: DeviceProcess,
    on_end: Callable[[int], None],
) -> None:
    spec, setup = read_spec(study), load_setup(study, artifacts.folder)
    limit_bytes = process.limit_memory(setup.memory_bytes, read_context_bytes(device))
    study.pruner = make_pruner(spec)
    stop.must_abandon = lambda: member.has_lost
    views = StudyViews(setup, device)
    objective = Objective(setup, spec, views, artifacts, device, process, stop, member.note_progress)
    baseline_bytes = process.release_memory()
    # What is left at the end of a time budget is not worth a trial that would be cut to a fraction.
    shortest = (setup.trial_seconds or 0) / 8 if stop.deadline else 0
    while not stop() and stop.seconds_left() > shortest:
        with _take_trial(study, artifacts, member, setup, stop.seconds_left()) as taken:
            if taken is None:
                if not _has_unknown_workers(study, member, setup):
                    break  # others are busy with the last trials; nobody's is left behind
                stop.soon.wait(_LOOK_SECONDS)
                continue
            trial, frozen = taken
            try:
                result = objective(trial, frozen)
            except Parked:
                artifacts.flush(stop)  # before another machine may take it
                if member.has_lost:
                    print_warning(f"trial {trial.number}: {_LOST}")
                elif is_left_to_others(study._storage.get_trial(trial._trial_id), setup):
                    _print_line(f"trial {trial.number}: does not fit this machine's card; left to others")
                else:
                    break
                continue
            except UpdateFinishedTrialError:
                _print_line(f"trial {trial.number}: another worker has ended it meanwhile")
                continue
            except DiskFull as exc:
                _wait_for_room(artifacts.folder.path, exc, stop)
                continue  # it is taken up again from its checkpoint
            except DeviceLost as exc:
                _record_lost_device(study, artifacts, trial, str(exc))
                artifacts.flush(stop)
                process.exit_process(POISONED)
            if not member.still_has(trial._trial_id):
                print_warning(f"trial {trial.number}: {_LOST}")
                continue
            _end_trial(study, artifacts, trial, result)
            artifacts.upload_log(member.row.label)
            on_end(trial.number)
        _check_failures(study)
        above_bytes = process.release_memory() - baseline_bytes
        if above_bytes > 0:
            _print_line(f"trial {trial.number}: {format_bytes(above_bytes)} above the baseline")
        if limit_bytes is not None and above_bytes > _LEAK * limit_bytes:
            _print_line("that is more than a hundredth of the memory budget: a new worker process continues")
            process.exit_process(LEAKED)


# --- taking and ending trials -------------------------------------------------------------------------------------


@contextmanager
def _take_trial(
    study: optuna.Study,
    artifacts: Artifacts,
    member: Membership,
    setup: StudySetup | None = None,
    seconds_left: float = float("inf"),
) -> Iterator[tuple[Trial, FrozenTrial] | None]:
    """Takes a trial: one that a dead worker left behind, one that waits, the best one for longer, or a new one.

    None when the study has enough. Without its setup the best one is not continued. Of trials that this machine cannot
    train, none is taken.
    """
    study._thread_local.cached_all_trials = None  # Optuna's `ask` does so, too: the sampler shall see what is new
    limit = read_spec(study).budget.trials
    member.look()
    taken = _adopt_trial(study, artifacts, member, setup) or _begin_waiting_trial(study, member, limit, setup)
    if taken is None:
        longer = _continue_trial(study, setup, artifacts, member, seconds_left) if setup else None
        taken = longer or _begin_new_trial(study, member, limit, setup)
    if taken is None:
        yield None
        return
    trial, frozen = taken
    with member.hold(frozen._trial_id):
        yield trial, copy.deepcopy(frozen)  # of a journal, Optuna's `Trial` would change it


def _adopt_trial(
    study: optuna.Study, artifacts: Artifacts, member: Membership, setup: StudySetup | None
) -> tuple[Trial, FrozenTrial] | None:
    """Takes a running trial whose worker is dead."""
    for frozen in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if is_left_to_others(frozen, setup) or not member.take_trial(frozen._trial_id):
            continue
        # Its worker may have gone on, or ended it, between the two looks.
        frozen = study._storage.get_trial(frozen._trial_id)
        if not frozen.state.is_finished():
            trial = _open_trial(study, frozen, setup)
            taken_up = read_trial_record(frozen).taken_up + 1
            if taken_up <= _MAX_TAKEN:
                write_trial_record(trial, taken_up=taken_up)
                return trial, frozen
            reason = f"its worker died {taken_up} times"
            _end_trial(study, artifacts, trial, TrialResult(TrialState.FAIL, reason=reason))
        member.drop_trial(frozen._trial_id)
    return None


def _begin_waiting_trial(
    study: optuna.Study, member: Membership, limit: int, setup: StudySetup | None
) -> tuple[Trial, FrozenTrial] | None:
    """Takes a trial that was enqueued; the study's trials are those that are numbered below its limit."""
    for frozen in study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
        if frozen.number >= limit or is_left_to_others(frozen, setup):
            continue
        if member.take_trial(frozen._trial_id):
            if study._storage.get_trial(frozen._trial_id).state == TrialState.WAITING:
                study._storage.set_trial_state_values(frozen._trial_id, TrialState.RUNNING)
                frozen = study._storage.get_trial(frozen._trial_id)
                return _open_trial(study, frozen, setup), frozen
            member.drop_trial(frozen._trial_id)
    return None


def _continue_trial(
    study: optuna.Study, setup: StudySetup, artifacts: Artifacts, member: Membership, seconds_left: float
) -> tuple[Trial, FrozenTrial] | None:
    """Takes the best trial for longer, where that is the best use of the time."""
    continued = choose_continuation(study, setup, artifacts, seconds_left)
    if continued is None or is_left_to_others(continued.trial, setup):
        return None
    if not member.take_trial(continued.trial._trial_id):
        return None  # another worker continues it right now
    try:
        # Another one may have done so before the trial was ours.
        if (continued := choose_continuation(study, setup, artifacts, seconds_left)) is None:
            return None
        template = make_continuation(setup, continued, socket.gethostname())
        trial_id = member.begin_trial(read_spec(study).budget.trials, template)
        if trial_id is None:
            return None
    finally:
        if continued is not None:
            member.drop_trial(continued.trial._trial_id)
    frozen = study._storage.get_trial(trial_id)
    hand_over_checkpoint(artifacts, continued.trial.number, frozen.number)
    return _open_trial(study, frozen, setup), frozen


def _begin_new_trial(
    study: optuna.Study, member: Membership, limit: int, setup: StudySetup | None
) -> tuple[Trial, FrozenTrial] | None:
    """Takes a new trial."""
    trial_id = member.begin_trial(limit)
    if trial_id is None:
        return None
    frozen = study._storage.get_trial(trial_id)
    return _open_trial(study, frozen, setup), frozen


def _open_trial(study: optuna.Study, frozen: FrozenTrial, setup: StudySetup | None) -> Trial:
    """Opens a trial with its sampler, which is the same one when it is taken up again."""
    known_good = sum(bool(read_trial_record(trial).known_good) for trial in study.get_trials(deepcopy=False))
    sampler = make_sampler(read_spec(study), frozen.number, known_good)
    study.sampler = restrict_sampler(sampler, setup) if setup else sampler
    return Trial(study, frozen._trial_id)


def _has_unknown_workers(study: optuna.Study, member: Membership, setup: StudySetup) -> bool:
    """Returns whether a trial is running of which it is not known yet whether its worker lives."""
    owners = member.look().claims
    running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    running = [trial for trial in running if not is_left_to_others(trial, setup)]
    return any(not member.watch.is_alive(owners.get(trial._trial_id, "")) for trial in running)


def _end_trial(study: optuna.Study, artifacts: Artifacts, trial: Trial, result: TrialResult) -> None:
    """Ends a trial in the storage, and drops its checkpoint."""
    folder = artifacts.folder
    if result.reason:
        write_trial_record(trial, **{"error" if result.state == TrialState.FAIL else "reason": result.reason})
    # Cut off for minutes right here, another worker may have ended it.
    study.tell(trial, result.value, state=result.state, skip_if_finished=True)
    _print_line(f"trial {trial.number}: {result.state.name.lower()} {result.value or result.reason}")
    path = folder.trial_folder(trial.number)
    (path / "checkpoint.pt").unlink(missing_ok=True)
    artifacts.delete_state(trial.number, read_spec(study).folds)
    best = best_trial(study)
    kept = {t.number for t in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))}
    kept |= {best.number} if best is not None else set()
    artifacts.keep_last(kept, trial.number)
    for last in folder.path.glob("trials/*/last.pt"):
        number = int(last.parent.name)
        if number not in kept:
            last.unlink(missing_ok=True)
            if number != trial.number:
                shutil.rmtree(last.parent, ignore_errors=True)
    if not (path / "error.txt").exists() and not last_checkpoint(folder, trial.number).exists():
        shutil.rmtree(path, ignore_errors=True)


def _record_lost_device(study: optuna.Study, artifacts: Artifacts, trial: Trial, error: str) -> None:
    """Records that a trial cost its worker the device; too often, and the trial fails, else the next worker goes on."""
    times = read_trial_record(trial).device_lost + 1
    write_trial_record(trial, device_lost=times)
    if times < _MAX_LOST:
        print_warning(f"trial {trial.number}: this process lost its device ({error}); a new one continues")
        return
    reason = f"left the device unusable {times} times, the last time with {error}"
    _end_trial(study, artifacts, trial, TrialResult(TrialState.FAIL, reason=reason))
    _check_failures(study)


def _check_failures(study: optuna.Study) -> None:
    """Ends the study after several failed trials in a row."""
    last = list_finished(study)[-FAILURES_IN_A_ROW:]
    if len(last) == FAILURES_IN_A_ROW and all(trial.state == TrialState.FAIL for trial in last):
        error = read_trial_record(last[-1]).error or "no message"
        text = f"{FAILURES_IN_A_ROW} trials failed in a row; the last one: {error}"
        write_study_record(study, stopped=text)
        raise StudyError(text)


# --- a full disk --------------------------------------------------------------------------------------------------


def _wait_for_room(folder: Path, error: DiskFull, stop: Stop) -> None:
    """Waits until something can be written; raises StudyError when that takes too long."""
    began, limit = time.monotonic(), format_seconds(WAIT_SECONDS)
    print_warning(f"there is no room on the disk ({error}); waiting up to {limit} until some is free")
    pause = 0.5
    while not stop():
        stop.soon.wait(pause)
        pause = min(2 * pause, 10.0)
        seconds = time.monotonic() - began
        if all(_has_room(path) for path in (folder, cache_dir()) if path.is_dir()):
            print_warning(f"there is room on the disk again after {format_seconds(seconds)}")
            return
        if seconds > WAIT_SECONDS:
            raise StudyError(
                f"there has been no room on the disk for {limit} ({error}); free some: the same command goes on where "
                "this one ended"
            ) from error


def _has_room(folder: Path) -> bool:
    """Returns whether something can be written; what a quota leaves, no figure of the disk says."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(_ROOM_BYTES))
    except OSError as exc:
        if is_disk_full(exc):
            return False
        raise
    return True


def _print_line(text: str) -> None:
    with suppress(OSError):  # the log's disk is full: the buffer keeps the line, and it comes with the next one
        print(text, flush=True)


def print_warning(text: str) -> None:
    """Prints a line that the supervisor shows."""
    _print_line(f"{WARNING}{text}")
