"""The supervisor: starts one worker a device, replaces those that die, ends the study in time.

It trains nothing itself, so that nothing a trial does (a CUDA error, a kill for memory) takes the study down. When its
own workers have nothing left to do, it waits for the trials of other machines, and starts a worker again if one of
those dies.
"""

import re
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import optuna
from optuna.trial import TrialState

from automl.devices import LEAKED, POISONED, label_workers
from automl.errors import StudyError
from automl.study.claims import open_claims
from automl.study.folder import StudyFolder
from automl.study.membership import Watch
from automl.study.storage import find_sqlite_file
from automl.study.worker_process import WARNING, LocalProcess, StartWorker, WorkerJob, WorkerProcess

_GRACE_SECONDS = 30.0
"""After the deadline, for the checkpoint of a parked trial to be written."""

_DEATHS_IN_A_ROW = 5
"""A worker that dies so often without a sign of progress in between will die again."""

_LOOK_SECONDS = 2.0
"""Between two looks at who works on the study."""


@dataclass
class _Worker:
    job: WorkerJob
    process: WorkerProcess
    deaths: int = 0
    progressed: bool = False
    """Whether it was seen to train since the last death."""


@dataclass
class Supervisor:
    """Workers of one study."""

    folder: StudyFolder
    devices: tuple[str, ...]
    """One worker each."""
    deadline: float | None = None
    """When the study ends, in seconds since 1970; None: when its trials are done."""
    start_worker: StartWorker = LocalProcess
    labels: Sequence[str] = ()
    """The workers' names; none: they are named by their devices."""
    waits_for_others: bool = True
    """Whether to stay while trials run on other machines, for the case that one of those dies."""
    storage: str = ""
    """The study's Optuna storage URL, once there is a study."""
    workers: list[_Worker] = field(default_factory=list)
    replaced: int = 0
    stopping: bool = False
    print_line: Callable[[str], None] = print
    """Shows a person what a worker warns of, and that one died."""
    ended: set[int] = field(default_factory=set)
    """The trials that its workers have ended."""
    _read: dict[str, int] = field(default_factory=dict)
    """Bytes of each worker's log that were read, or stood there before it was started."""
    _watch: Watch | None = None
    _looked: float = 0.0
    _rescued: set[tuple[int, str]] = field(default_factory=set)
    """Trials that were left behind, with their dead workers, for each of which a worker was started here."""

    def start_workers(self) -> None:
        """Starts the processes, which import what they need and wait: that takes as long as preparing the study."""
        self.folder.make_folders()
        jobs = self._list_jobs()
        self._read = {job.label: self._log_size(job.label) for job in jobs}
        self.workers = [_Worker(job, self.start_worker(job)) for job in jobs]

    def wait_for_imports(self, limit_seconds: float) -> None:
        """Waits until the workers have imported what they need: beside them, nothing can be timed."""
        until = time.monotonic() + limit_seconds
        while time.monotonic() < until:
            busy = [w for w in self.workers if w.process.poll() is None]
            if all(self._log_size(worker.job.label) > self._read.get(worker.job.label, 0) for worker in busy):
                return
            time.sleep(0.05)

    def watch_workers(
        self, study: optuna.Study, storage: str, tick: Callable[[], None], period_seconds: float = 0.5
    ) -> None:
        """Runs a study to its end; calls `tick` every period, to show progress."""
        self.storage, self._watch = storage, Watch(open_claims(study))
        if self.stopping:
            self.kill_workers()
        elif not self.workers:
            self.start_workers()
        for worker in self.workers:
            worker.process.send_storage(storage)
        try:
            while self.workers or self._wait_for_others(study):
                self._look_at_workers()
                self._check_workers()
                tick()
                time.sleep(period_seconds)
        finally:
            self.kill_workers()
            self._read_logs()

    def stop(self) -> None:
        """Asks every worker to stop after this epoch; none is started from now on."""
        self.stopping = True
        for worker in self.workers:
            worker.process.close_input()

    def kill_workers(self) -> None:
        """Ends every worker now; their trials can be taken up again from their checkpoints."""
        for worker in self.workers:
            worker.process.kill()
        self.workers = []

    def _list_jobs(self) -> list[WorkerJob]:
        return [
            WorkerJob(self.folder, device, label, len(self.devices), self.deadline)
            for device, label in zip(self.devices, self.labels or label_workers(self.devices), strict=True)
        ]

    def _look_at_workers(self) -> None:
        """Looks who works on the study, now and then."""
        if self._watch is None or time.monotonic() - self._looked < _LOOK_SECONDS:
            return
        self._looked = time.monotonic()
        self._read_logs()
        if (file := find_sqlite_file(self.storage)) is not None and not file.exists():
            raise StudyError(f"{file} was deleted while its study was running, and its trials with it; begin anew")
        with suppress(Exception):  # the storage is away: whoever shows the trials waits for it, with a line
            busy = {row.label for row in self._watch.look().workers.values() if row.doing}
            for worker in self.workers:
                worker.progressed = worker.progressed or worker.job.label in busy

    def _wait_for_others(self, study: optuna.Study) -> bool:
        """Returns whether trials run elsewhere; starts a worker for those whose own one is dead."""
        if (
            self._watch is None
            or self.stopping
            or not self.waits_for_others
            or (self.deadline is not None and time.time() > self.deadline)
        ):
            return False
        running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        # Nobody has one that did not fit a smaller card.
        owners = {(trial._trial_id, self._watch.snapshot.claims.get(trial._trial_id, "")) for trial in running}
        dead = {(trial_id, owner) for trial_id, owner in owners if self._watch.is_dead(owner)}
        if dead - self._rescued:
            self._rescued |= dead
            self._start(self._list_jobs()[0])
        return bool(self.workers) or owners > dead

    def _check_workers(self) -> None:
        for worker in list(self.workers):
            code = worker.process.poll()
            if code is None:
                if self.deadline is not None and time.time() > self.deadline + _GRACE_SECONDS:
                    worker.process.kill()
                continue
            worker.process.close_input()
            self.workers.remove(worker)
            if code == 0 or (self.deadline is not None and time.time() > self.deadline):
                continue
            if code == 2:  # an error with a message: another worker would meet it again
                raise StudyError(self._last_lines(worker.job.label))
            if self.stopping:  # it died before it could park: its trial is taken up another time
                continue
            # A worker that asked for a successor will not fail for ever: its trials end, if only by failing.
            if code not in (LEAKED, POISONED):
                how = f"was killed by signal {-code}" if code < 0 else f"exited with code {code}"
                self._count_death(worker, how)
                self.print_line(f"note: the worker on {worker.job.label} {how}; another one goes on")
            self.replaced += 1
            self._start(worker.job, worker.deaths)

    def _start(self, job: WorkerJob, deaths: int = 0) -> None:
        """Starts a worker whose study is there already."""
        process = self.start_worker(job)
        process.send_storage(self.storage)
        self.workers.append(_Worker(job, process, deaths))

    def _count_death(self, worker: _Worker, how: str) -> None:
        worker.deaths = 1 if worker.progressed else worker.deaths + 1
        worker.progressed = False
        if worker.deaths >= _DEATHS_IN_A_ROW:
            label = worker.job.label
            raise StudyError(
                f"the worker on {label} {how} {_DEATHS_IN_A_ROW} times in a row; "
                f"its last lines ({self.folder.log_file(label)}):\n{self._last_lines(label)}"
            )

    def _read_logs(self) -> None:
        """Shows what workers warn of, and notes which trials they have ended."""
        for job in self._list_jobs():
            with suppress(OSError), self.folder.log_file(job.label).open("rb") as log:
                log.seek(self._read.get(job.label, 0))
                text = log.read()
                whole = text[: text.rfind(b"\n") + 1]
                self._read[job.label] = self._read.get(job.label, 0) + len(whole)
                for line in whole.decode(errors="replace").splitlines():
                    if line.startswith(WARNING):
                        self.print_line(line)
                    elif ended := re.match(r"trial (\d+): (complete|pruned|fail) ", line):
                        self.ended.add(int(ended[1]))

    def _log_size(self, label: str) -> int:
        log = self.folder.log_file(label)
        return log.stat().st_size if log.exists() else 0

    def _last_lines(self, label: str) -> str:
        try:
            lines = self.folder.log_file(label).read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            return "nothing"
        reported = max((i for i, line in enumerate(lines) if line.startswith("Error: ")), default=None)
        last = lines[-8:] if reported is None else lines[reported:]
        return "\n".join(line for line in last if line.strip()).removeprefix("Error: ")
