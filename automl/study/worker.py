"""A worker: takes trials from the storage, one after the other, until the study has enough of them.

`automl worker --storage URL --study NAME` is all it takes, on this machine or another one that sees the storage and
the data. A worker that dies leaves its trial running but unlocked; the next one takes it up from its checkpoint.
"""

import json
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import optuna
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, Trial, TrialState

from automl.devices import LEAKED, POISONED, DeviceLost, DeviceProcess, open_device
from automl.errors import StudyError
from automl.files import write_text
from automl.gpu.probe import read_context_bytes
from automl.study.artifacts import Artifacts, open_artifacts
from automl.study.continuation import (
    begin_continuation,
    choose_continuation,
    hand_over_checkpoint,
    last_checkpoint,
)
from automl.study.folder import StudyFolder, hold_lock
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

_LEAK = 0.01
"""Of the memory budget: if so much more is in use between two trials than before the first, a new worker continues."""


def run_worker(
    study: optuna.Study,
    folder: StudyFolder,
    device: str,
    stop: Stop,
    process: DeviceProcess | None = None,
    on_end: Callable[[int], None] = lambda _: None,
) -> None:
    """Trains trials until the study has as many as its budget says, or it is asked to stop.

    `on_end` is called with the number of each trial that has ended.

    Raises:
        StudyError: After several failed trials in a row, with the message of the last.
        StorageLost: If the storage has not answered for a minute; the trial stays running, to be taken up again.
        SystemExit: With `LEAKED` or `POISONED`, if a new worker must continue.
    """
    patience_of(study).should_stop = stop
    artifacts = open_artifacts(study, folder, partial(print, flush=True))
    artifacts.upload_missing()
    try:
        _train_trials(study, artifacts, device, stop, process or open_device(device), on_end)
    except StorageLost:
        if not stop():
            raise
    finally:
        artifacts.flush(stop)
    folder.progress_file(device).unlink(missing_ok=True)


def _train_trials(
    study: optuna.Study,
    artifacts: Artifacts,
    device: str,
    stop: Stop,
    process: DeviceProcess,
    on_end: Callable[[int], None],
) -> None:
    folder = artifacts.folder
    spec, setup = read_spec(study), load_setup(study, folder)
    limit_bytes = process.limit_memory(setup.memory_bytes, read_context_bytes(device))
    study.pruner = make_pruner(spec)
    views, on_progress = StudyViews(setup, device), _ProgressFile(folder.progress_file(device))
    objective = Objective(setup, spec, views, artifacts, device, process, stop, on_progress)
    baseline_bytes = process.release_memory()
    # What is left at the end of a time budget is not worth a trial that would be cut to a fraction.
    shortest = (setup.trial_seconds or 0) / 8 if stop.deadline else 0
    while not stop() and stop.seconds_left() > shortest:
        with _take_trial(study, artifacts, setup, stop.seconds_left()) as taken:
            if taken is None:
                break
            trial, frozen = taken
            try:
                result = objective(trial, frozen)
            except Parked:
                break
            except DeviceLost as exc:
                _record_lost_device(study, artifacts, trial, str(exc))
                artifacts.flush(stop)
                process.exit_process(POISONED)
            _end_trial(study, artifacts, trial, result)
            artifacts.upload_log(device)
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
    study: optuna.Study, artifacts: Artifacts, setup: StudySetup | None = None, seconds_left: float = float("inf")
) -> Iterator[tuple[Trial, FrozenTrial] | None]:
    """Takes a trial: one that a dead worker left behind, the best one for longer, or a new one.

    None when the study has enough. Without its setup the best one is not continued.

    Workers take turns here, so that two of them never take up the same trial or one too many.
    """
    with ExitStack() as locks:
        with hold_lock(artifacts.folder.path / "take.lock"):
            taken = _adopt_trial(study, artifacts, locks)
            if taken is None and _wants_more(study):
                longer = _continue_trial(study, setup, artifacts, locks, seconds_left) if setup else None
                taken = longer or _ask_trial(study, artifacts.folder, locks)
        yield taken


def _try_lock(folder: StudyFolder, number: int, locks: ExitStack) -> bool:
    """Takes a trial's lock, held until the stack is closed; returns False if another worker holds it."""
    try:
        return locks.enter_context(hold_lock(folder.trial_folder(number) / "lock", wait=False))
    except (FileExistsError, FileNotFoundError):  # another worker has ended it, and removes its folder right now
        return False


def _lock_new_trial(folder: StudyFolder, trial: Trial, locks: ExitStack) -> None:
    """Takes the lock of a trial that has just been created, which nobody else can hold."""
    if not _try_lock(folder, trial.number, locks):
        raise StudyError(f"trial {trial.number} is new but locked: two studies share the folder {folder.path}")


def _adopt_trial(study: optuna.Study, artifacts: Artifacts, locks: ExitStack) -> tuple[Trial, FrozenTrial] | None:
    """Takes a running trial of this machine that no worker holds."""
    host = socket.gethostname()
    for frozen in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if (read_trial_record(frozen).host or host) != host or not _try_lock(artifacts.folder, frozen.number, locks):
            continue
        # Its worker may have gone on, or ended it, between the two looks.
        frozen = study._storage.get_trial(frozen._trial_id)
        if frozen.state.is_finished():
            continue
        study.sampler = _choose_sampler(study, frozen.number)
        trial = Trial(study, frozen._trial_id)
        taken_up = read_trial_record(frozen).taken_up + 1
        if taken_up <= _MAX_TAKEN:
            write_trial_record(trial, taken_up=taken_up)
            return trial, frozen
        _end_trial(study, artifacts, trial, TrialResult(TrialState.FAIL, reason=f"its worker died {taken_up} times"))
    return None


def _count_begun(study: optuna.Study) -> int:
    """Counts the trials that have begun."""
    return sum(trial.state != TrialState.WAITING for trial in study.get_trials(deepcopy=False))


def _wants_more(study: optuna.Study) -> bool:
    """Returns whether the study has fewer trials than it shall have."""
    return _count_begun(study) < read_spec(study).budget.trials


def _continue_trial(
    study: optuna.Study, setup: StudySetup, artifacts: Artifacts, locks: ExitStack, seconds_left: float
) -> tuple[Trial, FrozenTrial] | None:
    """Takes the best trial for longer, where that is the best use of the time."""
    continued = choose_continuation(study, setup, artifacts, seconds_left)
    if continued is None:
        return None
    trial = Trial(study, begin_continuation(study, setup, continued, socket.gethostname()))
    _lock_new_trial(artifacts.folder, trial, locks)
    hand_over_checkpoint(artifacts, continued.trial.number, trial.number)
    return trial, study._storage.get_trial(trial._trial_id)


def _ask_trial(study: optuna.Study, folder: StudyFolder, locks: ExitStack) -> tuple[Trial, FrozenTrial]:
    """Takes a new trial."""
    study.sampler = _choose_sampler(study, _count_begun(study))
    trial = study.ask()
    _lock_new_trial(folder, trial, locks)
    return trial, study._storage.get_trial(trial._trial_id)


def _choose_sampler(study: optuna.Study, number: int) -> BaseSampler:
    """Makes the sampler of a trial: the same one when it is taken up again."""
    known_good = sum(bool(read_trial_record(trial).known_good) for trial in study.get_trials(deepcopy=False))
    return make_sampler(read_spec(study), number, known_good)


def _end_trial(study: optuna.Study, artifacts: Artifacts, trial: Trial, result: TrialResult) -> None:
    """Ends a trial in the storage, and drops its checkpoint."""
    folder = artifacts.folder
    if result.reason:
        write_trial_record(trial, **{"error" if result.state == TrialState.FAIL else "reason": result.reason})
    study.tell(trial, result.value, state=result.state)
    print(f"trial {trial.number}: {result.state.name.lower()} {result.value or result.reason}", flush=True)
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
        print(f"trial {trial.number}: this process lost its device ({error}); a new one continues", flush=True)
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


class _ProgressFile:
    """Writes what the worker does to a file, at most once a second, and at once where it begins to train."""

    def __init__(self, path: Path) -> None:
        self._path, self._last, self._trains = path, 0.0, False

    def __call__(self, progress: dict[str, Any]) -> None:
        now, trains = time.monotonic(), "doing" not in progress
        if now - self._last >= 1 or (trains and not self._trains):
            self._last, self._trains = now, trains
            write_text(self._path, json.dumps(progress))
