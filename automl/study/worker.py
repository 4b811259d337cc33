"""A worker: takes trials from the storage, one after the other, until the study has enough of them.

`automl worker --storage URL --study NAME` is all it takes, on this machine or another one that sees the storage and
the data. A worker that dies leaves its trial running but unlocked; the next one takes it up from its checkpoint.
"""

import json
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import optuna
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, Trial, TrialState

from automl.devices import LEAKED, POISONED, DeviceLost, DeviceMemory, device_memory
from automl.errors import StudyError
from automl.files import write_text
from automl.gpu.probe import context_bytes
from automl.study.folder import StudyFolder, lock
from automl.study.objective import Objective, Outcome
from automl.study.setup import load_facts
from automl.study.storage import StorageLost, patience_of
from automl.study.study import finished, make_pruner, make_sampler, stored_spec
from automl.study.views import Views
from automl.training.types import Parked
from automl.units import format_bytes

FAILURES_IN_A_ROW = 5
"""So many failed trials one after the other end the study: the next ones would fail as well."""

_MAX_TAKEN = 20
"""How often a trial is taken up again; one that kills its worker every time must end some day."""


_MAX_LOST = 3
"""How often a trial may leave its worker with a device that cannot be used any more."""

_LEAK = 0.01
"""Of the memory budget: if so much more is in use between two trials than before the first, a fresh worker goes on."""


class Stop:
    """Whether to stop, and when: at once, after this epoch, or at a moment in time."""

    def __init__(self, deadline: float | None = None) -> None:
        """`deadline` is in seconds since 1970 (`time.time()`)."""
        self.deadline = deadline
        self.soon = threading.Event()

    def watch(self, stream: Any) -> None:
        """Stops soon when the stream says `stop` or ends: the supervisor asked, or is no more."""

        def read() -> None:
            stream.readline()
            self.soon.set()

        threading.Thread(target=read, daemon=True).start()

    def seconds_left(self) -> float:
        """Seconds to the deadline; infinite without one."""
        return float("inf") if self.deadline is None else self.deadline - time.time()

    def __call__(self, at_checkpoint: bool = True) -> bool:
        """Whether to stop here."""
        return self.seconds_left() <= 0 or (at_checkpoint and self.soon.is_set())


def work(study: optuna.Study, folder: StudyFolder, device: str, stop: Stop, memory: DeviceMemory | None = None) -> None:
    """Trains trials until the study has as many as its budget says, or is told to stop.

    Args:
        study: The study.
        folder: Where it lies.
        device: Where to train.
        stop: Whether to stop.
        memory: The device's; None: `device_memory`.

    Raises:
        StudyError: After several failed trials in a row, with the message of the last.
        StorageLost: If the storage has not answered for a minute; the trial stays running, to be taken up again.
        SystemExit: With `LEAKED` or `POISONED`, if a fresh worker must go on.
    """
    patience_of(study).should_stop = stop
    try:
        _work(study, folder, device, stop, memory or device_memory(device))
    except StorageLost:
        if not stop():
            raise
    folder.progress(device).unlink(missing_ok=True)


def _work(study: optuna.Study, folder: StudyFolder, device: str, stop: Stop, memory: DeviceMemory) -> None:
    objective, limit_bytes = _objective(study, folder, device, stop, memory)
    baseline_bytes = memory.settle()
    # What is left at the end of a time budget is not worth a trial that would be cut to a fraction.
    shortest = (objective.trial_seconds or 0) / 8 if stop.deadline else 0
    while not stop() and stop.seconds_left() > shortest:
        with _take_trial(study, folder) as taken:
            if taken is None:
                break
            trial, frozen = taken
            try:
                outcome = objective(trial, frozen)
            except Parked:
                break
            except DeviceLost as exc:
                _note_lost(study, folder, trial, str(exc))
                memory.leave(POISONED)
            _tell(study, folder, trial, outcome)
        _check_failures(study)
        above_bytes = memory.settle() - baseline_bytes
        if above_bytes > 0:
            print(f"trial {trial.number}: {format_bytes(above_bytes)} above the baseline", flush=True)
        if limit_bytes is not None and above_bytes > _LEAK * limit_bytes:
            print("that is more than a hundredth of the memory budget: a fresh worker must go on", flush=True)
            memory.leave(LEAKED)


def _objective(
    study: optuna.Study, folder: StudyFolder, device: str, stop: Stop, memory: DeviceMemory
) -> tuple[Objective, int | None]:
    """The objective, and the bytes of the device that this process may use."""
    spec = stored_spec(study)
    facts = load_facts(study, folder)
    limit_bytes = memory.begin(facts.memory_bytes, context_bytes(device))
    study.pruner = make_pruner(spec)
    objective = Objective(
        spec=spec,
        metric=facts.metric,
        space=facts.space,
        pool=facts.pool,
        views=Views(facts, device),
        folder=folder,
        device=device,
        memory_bytes=facts.memory_bytes,
        trial_seconds=facts.trial_seconds,
        should_stop=stop,
        on_progress=_Progress(folder.progress(device)),
        seconds_left=stop.seconds_left,
        lost=memory.lost,
    )
    return objective, limit_bytes


# --- taking and telling trials ------------------------------------------------------------------------------------


@contextmanager
def _take_trial(study: optuna.Study, folder: StudyFolder) -> Iterator[tuple[Trial, FrozenTrial] | None]:
    """Holds a trial: one that a dead worker left behind, else a new one; None when the study has enough.

    Workers take turns here, so that two of them never take up the same trial or one too many.
    """
    with lock(folder.path / "take.lock"):
        held = _adopt(study, folder) or _ask(study, folder)
    if held is None:
        yield None
        return
    taken, holder = held
    with holder:
        yield taken


def _try_lock(folder: StudyFolder, number: int) -> ExitStack | None:
    """A trial's lock, held until the stack is closed; None if another worker holds it."""
    with ExitStack() as stack:
        if stack.enter_context(lock(folder.trial(number) / "lock", wait=False)):
            return stack.pop_all()
    return None


def _adopt(study: optuna.Study, folder: StudyFolder) -> tuple[tuple[Trial, FrozenTrial], ExitStack] | None:
    """A running trial of this machine that nobody works on."""
    for frozen in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if frozen.user_attrs.get("host", socket.gethostname()) != socket.gethostname():
            continue
        held = _try_lock(folder, frozen.number)
        if held is None:
            continue
        # Its worker may have gone on, or ended it, between the two looks.
        frozen = study._storage.get_trial(frozen._trial_id)
        if frozen.state.is_finished():
            held.close()
            continue
        study.sampler = _sampler(study, frozen.number)
        trial = Trial(study, frozen._trial_id)
        taken = frozen.user_attrs.get("taken_up", 0) + 1
        if taken > _MAX_TAKEN:
            reason = f"its worker died {taken} times"
            _tell(study, folder, trial, Outcome(TrialState.FAIL, reason=reason))
            held.close()
            continue
        trial.set_user_attr("taken_up", taken)
        return (trial, frozen), held
    return None


def _ask(study: optuna.Study, folder: StudyFolder) -> tuple[tuple[Trial, FrozenTrial], ExitStack] | None:
    """A new trial, unless the study has enough."""
    spec = stored_spec(study)
    trials = study.get_trials(deepcopy=False)
    waiting = sum(trial.state == TrialState.WAITING for trial in trials)
    number = len(trials) - waiting
    if number >= spec.budget.trials:
        return None
    study.sampler = _sampler(study, number)
    trial = study.ask()
    held = _try_lock(folder, trial.number)
    if held is None:
        raise StudyError(f"trial {trial.number} is new but locked: two studies share the folder {folder.path}")
    frozen = next(t for t in study.get_trials(deepcopy=False) if t.number == trial.number)
    return (trial, frozen), held


def _sampler(study: optuna.Study, number: int) -> BaseSampler:
    """The sampler of a trial: the same one when it is taken up again."""
    known_good = sum("known_good" in trial.user_attrs for trial in study.get_trials(deepcopy=False))
    return make_sampler(stored_spec(study), number, known_good)


def _tell(study: optuna.Study, folder: StudyFolder, trial: Trial, outcome: Outcome) -> None:
    """Ends a trial in the storage, and drops its checkpoint."""
    if outcome.reason:
        trial.set_user_attr("error" if outcome.state == TrialState.FAIL else "reason", outcome.reason)
    study.tell(trial, outcome.value, state=outcome.state)
    print(f"trial {trial.number}: {outcome.state.name.lower()} {outcome.value or outcome.reason}", flush=True)
    path = folder.trial(trial.number)
    (path / "checkpoint.pt").unlink(missing_ok=True)
    if not (path / "error.txt").exists():
        shutil.rmtree(path, ignore_errors=True)


def _note_lost(study: optuna.Study, folder: StudyFolder, trial: Trial, error: str) -> None:
    """Notes that a trial cost its worker the device; too often, and the trial fails, else the next worker goes on."""
    times = trial.user_attrs.get("device_lost", 0) + 1
    trial.set_user_attr("device_lost", times)
    if times < _MAX_LOST:
        print(f"trial {trial.number}: the device is lost to this worker ({error}); a fresh one must go on", flush=True)
        return
    reason = f"left the device unusable {times} times, the last time with {error}"
    _tell(study, folder, trial, Outcome(TrialState.FAIL, reason=reason))
    _check_failures(study)


def _check_failures(study: optuna.Study) -> None:
    last = finished(study)[-FAILURES_IN_A_ROW:]
    if len(last) == FAILURES_IN_A_ROW and all(trial.state == TrialState.FAIL for trial in last):
        message = last[-1].user_attrs.get("error", "no message")
        text = f"{FAILURES_IN_A_ROW} trials failed in a row; the last one: {message}"
        study.set_user_attr("stopped", text)
        raise StudyError(text)


class _Progress:
    """Writes what the worker is doing to a file, at most once a second."""

    def __init__(self, path: Path) -> None:
        self._path, self._last = path, 0.0

    def __call__(self, progress: dict[str, Any]) -> None:
        now = time.monotonic()
        if now - self._last >= 1:
            self._last = now
            write_text(self._path, json.dumps(progress))
