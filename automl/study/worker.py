"""A worker: takes trials from the storage, one after the other, until the study has enough of them.

`automl worker --storage URL --study NAME` is all it takes, on this machine or another one that sees the storage and
the data. A worker that dies leaves its trial running; the next one takes it up from its checkpoint.
"""

import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import optuna
from optuna.trial import FrozenTrial, Trial, TrialState

from automl.devices import LEAKED, POISONED, DeviceLost, DeviceProcess, open_device
from automl.errors import StudyError
from automl.gpu.probe import read_context_bytes
from automl.study.continuation import (
    choose_continuation,
    hand_over_checkpoint,
    last_checkpoint,
    make_continuation,
)
from automl.study.folder import StudyFolder
from automl.study.membership import Membership
from automl.study.samplers import make_pruner, make_sampler
from automl.study.setup import StudySetup, StudyViews, load_setup
from automl.study.storage import StorageLost, patience_of
from automl.study.trial import Objective, Stop, TrialResult
from automl.study.trial_record import (
    best_trial,
    list_finished,
    read_spec,
    read_trial_record,
    write_study_record,
    write_trial_record,
)
from automl.training.types import Parked
from automl.units import format_bytes

FAILURES_IN_A_ROW = 5
"""So many failed trials one after the other end the study: the next ones would fail as well."""

_MAX_TAKEN = 20
"""How often a trial is taken up again; one that kills its worker every time must end some day."""

_MAX_LOST = 3
"""How often a trial may leave its worker with a device that cannot be used any more."""

_LOOK_SECONDS = 1.0
"""Between two looks for trials that were left behind, when there is no other."""

_LOST = "this worker was silent for a minute, and another one has taken it"

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
        StorageLost: If the storage has not answered for a minute; the trial stays running, to be taken up again.
        SystemExit: With `LEAKED` or `POISONED`, if a new worker must continue.
    """
    patience_of(study).should_stop = stop
    try:
        with Membership(study, label or device) as member:
            _train_trials(study, folder, device, stop, member, process or open_device(device), on_end)
    except StorageLost:
        if not stop():
            raise


def _train_trials(
    study: optuna.Study,
    folder: StudyFolder,
    device: str,
    stop: Stop,
    member: Membership,
    process: DeviceProcess,
    on_end: Callable[[int], None],
) -> None:
    spec, setup = read_spec(study), load_setup(study, folder)
    limit_bytes = process.limit_memory(setup.memory_bytes, read_context_bytes(device))
    study.pruner = make_pruner(spec)
    stop.must_abandon = lambda: member.has_lost
    objective = Objective(setup, spec, StudyViews(setup, device), folder, device, process, stop, member.note_progress)
    baseline_bytes = process.release_memory()
    # What is left at the end of a time budget is not worth a trial that would be cut to a fraction.
    shortest = (setup.trial_seconds or 0) / 8 if stop.deadline else 0
    while not stop() and stop.seconds_left() > shortest:
        with _take_trial(study, folder, member, setup, stop.seconds_left()) as taken:
            if taken is None:
                if not _has_unknown_workers(study, member):
                    break  # others are busy with the last trials; nobody's is left behind
                stop.soon.wait(_LOOK_SECONDS)
                continue
            trial, frozen = taken
            try:
                result = objective(trial, frozen)
            except Parked:
                if not member.has_lost:
                    break
                print(f"trial {trial.number}: {_LOST}", flush=True)
                continue
            except DeviceLost as exc:
                _record_lost_device(study, folder, trial, str(exc))
                process.exit_process(POISONED)
            if not member.still_has(trial._trial_id):
                print(f"trial {trial.number}: {_LOST}", flush=True)
                continue
            _end_trial(study, folder, trial, result)
            on_end(trial.number)
        _check_failures(study)
        above_bytes = process.release_memory() - baseline_bytes
        if above_bytes > 0:
            print(f"trial {trial.number}: {format_bytes(above_bytes)} above the baseline", flush=True)
        if limit_bytes is not None and above_bytes > _LEAK * limit_bytes:
            print("that is more than a hundredth of the memory budget: a new worker process continues", flush=True)
            process.exit_process(LEAKED)


# --- taking and ending trials -------------------------------------------------------------------------------------


@contextmanager
def _take_trial(
    study: optuna.Study,
    folder: StudyFolder,
    member: Membership,
    setup: StudySetup | None = None,
    seconds_left: float = float("inf"),
) -> Iterator[tuple[Trial, FrozenTrial] | None]:
    """Takes a trial: one that a dead worker left behind, one that waits, the best one for longer, or a new one.

    None when the study has enough. Without its setup the best one is not continued.
    """
    study._thread_local.cached_all_trials = None  # Optuna's `ask` does so, too: the sampler shall see what is new
    limit = read_spec(study).budget.trials
    member.look()
    taken = _adopt_trial(study, folder, member) or _begin_waiting_trial(study, member, limit)
    if taken is None:
        longer = _continue_trial(study, setup, folder, member, seconds_left) if setup else None
        taken = longer or _begin_new_trial(study, member, limit)
    if taken is None:
        yield None
        return
    with member.hold(taken[1]._trial_id):
        yield taken


def _adopt_trial(study: optuna.Study, folder: StudyFolder, member: Membership) -> tuple[Trial, FrozenTrial] | None:
    """Takes a running trial whose worker is dead."""
    for frozen in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if not member.take_trial(frozen._trial_id):
            continue
        # Its worker may have gone on, or ended it, between the two looks.
        frozen = study._storage.get_trial(frozen._trial_id)
        if not frozen.state.is_finished():
            trial = _open_trial(study, frozen)
            taken_up = read_trial_record(frozen).taken_up + 1
            if taken_up <= _MAX_TAKEN:
                write_trial_record(trial, taken_up=taken_up)
                return trial, frozen
            reason = f"its worker died {taken_up} times"
            _end_trial(study, folder, trial, TrialResult(TrialState.FAIL, reason=reason))
        member.drop_trial(frozen._trial_id)
    return None


def _begin_waiting_trial(study: optuna.Study, member: Membership, limit: int) -> tuple[Trial, FrozenTrial] | None:
    """Takes a trial that was enqueued; the study's trials are those that are numbered below its limit."""
    for frozen in study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
        if frozen.number < limit and member.take_trial(frozen._trial_id):
            if study._storage.get_trial(frozen._trial_id).state == TrialState.WAITING:
                study._storage.set_trial_state_values(frozen._trial_id, TrialState.RUNNING)
                frozen = study._storage.get_trial(frozen._trial_id)
                return _open_trial(study, frozen), frozen
            member.drop_trial(frozen._trial_id)
    return None


def _continue_trial(
    study: optuna.Study, setup: StudySetup, folder: StudyFolder, member: Membership, seconds_left: float
) -> tuple[Trial, FrozenTrial] | None:
    """Takes the best trial for longer, where that is the best use of the time."""
    continued = choose_continuation(study, setup, folder, seconds_left)
    if continued is None or not member.take_trial(continued.trial._trial_id):
        return None  # another worker continues it right now
    try:
        # Another one may have done so before the trial was ours.
        if (continued := choose_continuation(study, setup, folder, seconds_left)) is None:
            return None
        template = make_continuation(setup, continued, socket.gethostname())
        trial_id = member.begin_trial(read_spec(study).budget.trials, template)
        if trial_id is None:
            return None
    finally:
        if continued is not None:
            member.drop_trial(continued.trial._trial_id)
    frozen = study._storage.get_trial(trial_id)
    hand_over_checkpoint(folder, continued.trial.number, frozen.number)
    return _open_trial(study, frozen), frozen


def _begin_new_trial(study: optuna.Study, member: Membership, limit: int) -> tuple[Trial, FrozenTrial] | None:
    """Takes a new trial."""
    trial_id = member.begin_trial(limit)
    if trial_id is None:
        return None
    frozen = study._storage.get_trial(trial_id)
    return _open_trial(study, frozen), frozen


def _open_trial(study: optuna.Study, frozen: FrozenTrial) -> Trial:
    """Opens a trial with its sampler, which is the same one when it is taken up again."""
    known_good = sum(bool(read_trial_record(trial).known_good) for trial in study.get_trials(deepcopy=False))
    study.sampler = make_sampler(read_spec(study), frozen.number, known_good)
    return Trial(study, frozen._trial_id)


def _has_unknown_workers(study: optuna.Study, member: Membership) -> bool:
    """Returns whether a trial is running of which it is not known yet whether its worker lives."""
    owners = member.look().claims
    running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    return any(not member.watch.is_alive(owners.get(trial._trial_id, "")) for trial in running)


def _end_trial(study: optuna.Study, folder: StudyFolder, trial: Trial, result: TrialResult) -> None:
    """Ends a trial in the storage, and drops its checkpoint."""
    if result.reason:
        write_trial_record(trial, **{"error" if result.state == TrialState.FAIL else "reason": result.reason})
    study.tell(trial, result.value, state=result.state)
    print(f"trial {trial.number}: {result.state.name.lower()} {result.value or result.reason}", flush=True)
    path = folder.trial_folder(trial.number)
    (path / "checkpoint.pt").unlink(missing_ok=True)
    best = best_trial(study)
    kept = {t.number for t in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))}
    kept |= {best.number} if best is not None else set()
    for last in folder.path.glob("trials/*/last.pt"):
        number = int(last.parent.name)
        if number not in kept:
            last.unlink(missing_ok=True)
            if number != trial.number:
                shutil.rmtree(last.parent, ignore_errors=True)
    if not (path / "error.txt").exists() and not last_checkpoint(folder, trial.number).exists():
        shutil.rmtree(path, ignore_errors=True)


def _record_lost_device(study: optuna.Study, folder: StudyFolder, trial: Trial, error: str) -> None:
    """Records that a trial cost its worker the device; too often, and the trial fails, else the next worker goes on."""
    times = read_trial_record(trial).device_lost + 1
    write_trial_record(trial, device_lost=times)
    if times < _MAX_LOST:
        print(f"trial {trial.number}: this process lost its device ({error}); a new one continues", flush=True)
        return
    reason = f"left the device unusable {times} times, the last time with {error}"
    _end_trial(study, folder, trial, TrialResult(TrialState.FAIL, reason=reason))
    _check_failures(study)


def _check_failures(study: optuna.Study) -> None:
    """Ends the study after several failed trials in a row."""
    last = list_finished(study)[-FAILURES_IN_A_ROW:]
    if len(last) == FAILURES_IN_A_ROW and all(trial.state == TrialState.FAIL for trial in last):
        error = read_trial_record(last[-1]).error or "no message"
        text = f"{FAILURES_IN_A_ROW} trials failed in a row; the last one: {error}"
        write_study_record(study, stopped=text)
        raise StudyError(text)
