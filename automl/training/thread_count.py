"""How many threads train on a CPU: fewer while other programs use the cores.

The threads of a training step wait for each other many hundred times. Beside other programs, one of them often has no
core, and all wait for it: one thread can then be several times as fast as two (`studies/benchmarks/busy_machine.py`).
"""

import os
from contextlib import suppress
from pathlib import Path

import torch

from automl.processes import has_user_set

_WINDOW_SECONDS = 3.0
"""Of training steps between two decisions."""

_CONTENDED, _FREE = 0.85, 0.95
"""Below and above such a share of the time that the threads could have run, another number of them is tried."""

_LONGEST_PAUSE = 16
"""Windows after a try that brought nothing."""


class ThreadCount:
    """The number of PyTorch's threads, from that of the process's start down to one.

    If the threads wait for cores that others use, half as many are tried, and kept if steps become faster; if they do
    not, twice as many. Linux alone says how long threads waited; elsewhere, or with OMP_NUM_THREADS set by the user,
    the number stays as it is. Another number of threads adds numbers up in another order: results differ by rounding.
    """

    def __init__(self, device: torch.device) -> None:
        self.most = self.threads = torch.get_num_threads()
        self._follows = device.type == "cpu" and self.most > 1 and not has_user_set("OMP_NUM_THREADS")
        self._tried_from: int | None = None
        """The number before the one that is being tried."""
        self._speed_before = 0.0
        self._pause, self._paused = 1, 0
        self._begin_window()

    def note_step(self, seconds: float) -> None:
        """Counts a training step that took some seconds; now and then, changes the number of threads."""
        if not self._follows:
            return
        self._seconds += seconds
        self._steps += 1
        if self._seconds < _WINDOW_SECONDS:
            return
        ran, waited = (now - before for now, before in zip(read_thread_times(), self._times, strict=True))
        if ran > 0 and waited >= 0:  # else threads have ended, and their times are gone
            self._set_threads(self._choose_threads(self._steps / self._seconds, ran / (ran + waited)))
        self._begin_window()

    def restore(self) -> None:
        """Sets the number of the process's start again."""
        self._set_threads(self.most)

    def _choose_threads(self, speed: float, share: float) -> int:
        """Chooses the number for the next window, by the steps of a second and the share of time that threads ran."""
        if self._tried_from is not None:
            before, self._tried_from = self._tried_from, None
            if speed > self._speed_before:
                self._pause = 1
            else:
                self._paused = self._pause = min(2 * self._pause, _LONGEST_PAUSE)
                return before
        if self._paused:
            self._paused -= 1
            return self.threads
        tried = self.threads
        if share < _CONTENDED:
            tried = max(1, self.threads // 2)
        elif share > _FREE:
            tried = min(self.most, 2 * self.threads)
        if tried != self.threads:
            self._tried_from, self._speed_before = self.threads, speed
        return tried

    def _set_threads(self, threads: int) -> None:
        if threads != self.threads:
            self.threads = threads
            torch.set_num_threads(threads)

    def _begin_window(self) -> None:
        self._seconds, self._steps = 0.0, 0
        self._times = read_thread_times() if self._follows else (0.0, 0.0)


def read_thread_times() -> tuple[float, float]:
    """Reads the seconds that this process's threads have run, and those that they waited for a core; 0 if not known.

    From the kernel's `/proc/PID/task/TID/schedstat` (Documentation/scheduler/sched-stats.rst).
    """
    ran = waited = 0
    for path in Path(f"/proc/{os.getpid()}/task").glob("*/schedstat"):
        with suppress(OSError, ValueError):  # the thread has ended
            times = path.read_text(encoding="utf-8").split()
            ran, waited = ran + int(times[0]), waited + int(times[1])
    return ran / 1e9, waited / 1e9
