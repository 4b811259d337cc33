"""The supervisor: starts one worker a device, replaces those that die, ends the study in time.

It trains nothing itself, so that nothing a trial does (a CUDA error, a kill for memory) takes the study down.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from automl.devices import LEAKED, POISONED
from automl.errors import StudyError
from automl.processes import worker_environment
from automl.study.folder import StudyFolder

_GRACE_SECONDS = 30.0
"""After the deadline, for the checkpoint of a parked trial to be written."""

_DEATHS_IN_A_ROW = 5
"""A worker that dies so often without a sign of progress in between will die again."""


@dataclass
class _Worker:
    device: str
    process: "subprocess.Popen[bytes]"
    deaths: int = 0
    seen: float = 0.0
    """When its progress file last changed."""


@dataclass
class Supervisor:
    """Workers of one study on this machine."""

    folder: StudyFolder
    devices: tuple[str, ...]
    """One worker each."""
    deadline: float | None = None
    """When the study ends, in seconds since 1970; None: when its trials are done."""
    storage: str = ""
    """The study's Optuna storage URL, once there is a study."""
    workers: list[_Worker] = field(default_factory=list)
    replaced: int = 0
    stopping: bool = False
    _logged: dict[str, int] = field(default_factory=dict)
    """Bytes of each worker's log when it was started."""

    def start_workers(self) -> None:
        """Starts the processes, which import what they need and wait: that takes as long as preparing the study."""
        self.folder.make_folders()
        self._logged = {device: self._log_size(device) for device in self.devices}
        self.workers = [_Worker(device, self._start_process(device)) for device in self.devices]

    def wait_for_imports(self, limit_seconds: float) -> None:
        """Waits until the workers have imported what they need: beside them, nothing can be timed."""
        until = time.monotonic() + limit_seconds
        while time.monotonic() < until:
            busy = [w for w in self.workers if w.process.poll() is None]
            if all(self._log_size(worker.device) > self._logged.get(worker.device, 0) for worker in busy):
                return
            time.sleep(0.05)

    def watch_workers(self, storage: str, tick: Callable[[], None], period_seconds: float = 0.5) -> None:
        """Runs the study in a storage to its end; calls `tick` every period, to show progress."""
        self.storage = storage
        if self.stopping:
            self.kill_workers()
        elif not self.workers:
            self.start_workers()
        for worker in self.workers:
            self._send_storage(worker)
        try:
            while self.workers:
                self._check_workers()
                tick()
                time.sleep(period_seconds)
        finally:
            self.kill_workers()

    def stop(self) -> None:
        """Asks every worker to stop after this epoch; none is started from now on."""
        self.stopping = True
        for worker in self.workers:
            _close_input(worker)

    def kill_workers(self) -> None:
        """Ends every worker now; their trials can be taken up again from their checkpoints."""
        for worker in self.workers:
            _close_input(worker)
            if worker.process.poll() is None:
                worker.process.kill()
            worker.process.wait()
        self.workers = []

    def _check_workers(self) -> None:
        for worker in list(self.workers):
            code = worker.process.poll()
            if code is None:
                if self.deadline is not None and time.time() > self.deadline + _GRACE_SECONDS:
                    worker.process.kill()
                continue
            _close_input(worker)
            if code == 0 or (self.deadline is not None and time.time() > self.deadline):
                self.workers.remove(worker)
            elif code == 2:  # an error with a message: another worker would meet it again
                raise StudyError(self._last_lines(worker.device))
            elif self.stopping:  # it died before it could park: its trial is taken up another time
                self.workers.remove(worker)
            else:
                # A worker that asked for a successor will not fail for ever: its trials end, if only by failing.
                if code not in (LEAKED, POISONED):
                    self._count_death(worker, code)
                self.replaced += 1
                worker.process = self._start_process(worker.device)
                self._send_storage(worker)

    def _count_death(self, worker: _Worker, code: int) -> None:
        progress = self.folder.progress_file(worker.device)
        changed = progress.stat().st_mtime if progress.exists() else 0.0
        worker.deaths = 1 if changed > worker.seen else worker.deaths + 1
        worker.seen = changed
        if worker.deaths >= _DEATHS_IN_A_ROW:
            how = f"was killed by signal {-code}" if code < 0 else f"exited with code {code}"
            raise StudyError(
                f"the worker on {worker.device} {how} {_DEATHS_IN_A_ROW} times in a row; "
                f"its last lines ({self.folder.log_file(worker.device)}):\n{self._last_lines(worker.device)}"
            )

    def _start_process(self, device: str) -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-m", "automl", "worker", "--study", self.folder.name]
        command += ["--runs", str(self.folder.path.parent.absolute()), "--device", device, "--supervised"]
        if self.deadline is not None:
            command += ["--deadline", str(self.deadline)]
        with self.folder.log_file(device).open("ab") as log:
            # In a session of its own: Ctrl-C reaches the supervisor alone, which then asks the worker.
            return subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=os.environ | worker_environment(len(self.devices)),
                start_new_session=True,
            )

    def _send_storage(self, worker: _Worker) -> None:
        """Lets a worker begin. The URL may hold a password, so it is no argument, which everybody could read."""
        with suppress(BrokenPipeError):  # it has ended: that is noticed where workers are checked
            assert worker.process.stdin is not None  # noqa: S101 - `_start_process` makes a pipe
            worker.process.stdin.write(f"{self.storage}\n".encode())
            worker.process.stdin.flush()

    def _log_size(self, device: str) -> int:
        log = self.folder.log_file(device)
        return log.stat().st_size if log.exists() else 0

    def _last_lines(self, device: str) -> str:
        try:
            lines = self.folder.log_file(device).read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            return "nothing"
        reported = max((i for i, line in enumerate(lines) if line.startswith("Error: ")), default=None)
        last = lines[-8:] if reported is None else lines[reported:]
        return "\n".join(line for line in last if line.strip()).removeprefix("Error: ")


def _close_input(worker: _Worker) -> None:
    """Closes the worker's standard input, which asks it to stop."""
    try:
        if worker.process.stdin:
            worker.process.stdin.close()
    except BrokenPipeError:
        pass
