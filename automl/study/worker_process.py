"""The process of a worker, as the supervisor sees it, and where workers are: on this machine, or elsewhere."""

import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from automl.devices import is_gpu, label_workers
from automl.processes import has_user_set, worker_environment
from automl.study.folder import StudyFolder

Result = TypeVar("Result")

WARNING = "warning: "
"""What a line of a worker's log begins with if a person should see it at once."""


@dataclass(frozen=True)
class WorkerJob:
    """What a worker is started for."""

    folder: StudyFolder
    """Its study."""
    device: str
    label: str
    """Names it where people see it; its log is named after it."""
    workers: int
    """How many share the machine."""
    deadline: float | None
    """When to stop, in seconds since 1970."""

    @property
    def command(self) -> list[str]:
        """The command, without the storage: its URL may hold a password, and everybody could read it."""
        runs = str(self.folder.path.parent.absolute())
        command = [sys.executable, "-m", "automl", "worker", "--study", self.folder.name, "--runs", runs]
        command += ["--device", self.device, "--supervised", self.label]
        return command if self.deadline is None else [*command, "--deadline", str(self.deadline)]


class WorkerProcess(Protocol):
    """A worker that was started."""

    def poll(self) -> int | None:
        """Returns its exit code; None while it runs."""

    def send_storage(self, storage: str) -> None:
        """Lets it begin, on the study in a storage."""

    def close_input(self) -> None:
        """Asks it to stop after this epoch."""

    def kill(self) -> None:
        """Ends it now, and waits for its end."""


StartWorker = Callable[[WorkerJob], WorkerProcess]
"""Starts a worker; what it prints goes to the log of its label."""


class LocalProcess:
    """A worker of this machine."""

    def __init__(self, job: WorkerJob) -> None:
        """Starts it with its share of the cores; it imports what it needs and waits for the storage."""
        with job.folder.log_file(job.label).open("ab") as log:
            # In a session of its own: Ctrl-C reaches the supervisor alone, which then asks the worker.
            how: dict[str, Any] = {"start_new_session": True, "env": os.environ | worker_environment(job.workers)}
            self._process = subprocess.Popen(job.command, stdin=subprocess.PIPE, stdout=log, stderr=log, **how)

    def poll(self) -> int | None:
        """Returns its exit code; None while it runs."""
        return self._process.poll()

    def send_storage(self, storage: str) -> None:
        """Lets it begin, on the study in a storage."""
        with suppress(BrokenPipeError):  # it has ended: that is noticed where workers are checked
            assert self._process.stdin is not None  # noqa: S101 - it was started with a pipe
            self._process.stdin.write(f"{storage}\n".encode())
            self._process.stdin.flush()

    def close_input(self) -> None:
        """Asks it to stop after this epoch."""
        with suppress(BrokenPipeError):
            if self._process.stdin:
                self._process.stdin.close()

    def kill(self) -> None:
        """Ends it now, and waits for its end."""
        self.close_input()
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()


class Workplace(Protocol):
    """Where the workers of a search are."""

    starts_early: bool
    """Whether workers are started while the study is prepared."""

    @property
    def devices(self) -> tuple[str, ...]:
        """The device of each worker, by its name there."""

    @property
    def labels(self) -> list[str]:
        """The name of each worker."""

    def start_worker(self, job: WorkerJob) -> WorkerProcess:
        """Starts a worker."""

    def call(self, function: Callable[..., Result], *args: Any) -> Result:
        """Calls a function where a worker's device is; after `args` it is given a function that prints a line."""

    def check_storage(self, storage: str) -> None:
        """Refuses a storage that the workers do not reach."""

    def look(self) -> None:
        """Looks after the place; called about twice a second while workers train."""

    def close(self) -> None:
        """Leaves it; no worker is left there."""


class Machine:
    """This machine."""

    starts_early = True

    def __init__(self, devices: tuple[str, ...], print_line: Callable[[str], None]) -> None:
        self.devices, self.labels = devices, label_workers(devices)
        self._print_line = print_line

    def start_worker(self, job: WorkerJob) -> WorkerProcess:
        """Starts a worker."""
        return LocalProcess(job)

    def call(self, function: Callable[..., Result], *args: Any) -> Result:
        """Calls a function with `args` and a function that prints a line; with a worker's threads, as it may time."""
        if is_gpu(self.devices[0]) or len(self.devices) == 1 or has_user_set("OMP_NUM_THREADS"):
            return function(*args, self._print_line)
        import torch  # late

        threads = torch.get_num_threads()
        torch.set_num_threads(max(1, threads // len(self.devices)))
        try:
            return function(*args, self._print_line)
        finally:
            torch.set_num_threads(threads)

    def check_storage(self, storage: str) -> None:
        """Refuses none."""

    def look(self) -> None:
        """Has nothing to look after."""

    def close(self) -> None:
        """Has nothing to leave: the supervisor ends the workers."""
