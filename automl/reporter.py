"""Where long jobs report what they do, and how Ctrl-C reaches them."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Protocol

Progress = Callable[[int, int], None]
"""Called with how many pieces of a work are done, and how many there are."""

ShowProgress = Callable[[str], AbstractContextManager[Progress]]
"""As `Reporter.show_progress`."""

_AGAIN_SECONDS = 60.0

STOPS_AT_CHECKPOINT = "stopping at the next checkpoint; Ctrl-C again stops now; the same command continues"
"""What follows from Ctrl-C in a training."""


class Reporter(Protocol):
    """Receives what a long job does."""

    def print_line(self, line: str) -> None:
        """Shows one line."""

    def show_stop(self, line: str) -> None:
        """Shows at once what follows from Ctrl-C; called by a signal's handler."""

    def show_progress(self, label: str) -> AbstractContextManager[Progress]:
        """Yields a callback for a long piece of work."""

    def show_study(self, result: Any, deadline: float | None, stopping: bool, last: bool = False) -> None:
        """Shows a study (`automl.study.search.SearchResult`).

        Called about twice a second while workers train, and a last time when they have ended.
        """


class ConsoleReporter:
    """A reporter that prints the lines and no more."""

    def print_line(self, line: str) -> None:
        """Prints a line."""
        print(line, flush=True)

    def show_stop(self, line: str) -> None:
        """Prints a line."""
        self.print_line(line)

    def show_progress(self, label: str) -> AbstractContextManager[Progress]:
        """Prints the label, and no more."""
        self.print_line(label)
        return nullcontext(lambda _done, _total: None)

    def show_study(self, result: Any, deadline: float | None, stopping: bool, last: bool = False) -> None:
        """Shows nothing."""


class SilentReporter(ConsoleReporter):
    """A reporter that shows nothing: of a process that works for another one."""

    def print_line(self, line: str) -> None:
        """Shows nothing."""


class OncePrinter:
    """Prints lines, but none again that was printed within the last minute: several workers meet the same fault."""

    def __init__(self, print_line: Callable[[str], None]) -> None:
        self._print_line, self._printed = print_line, dict[str, float]()

    def print_line(self, line: str) -> None:
        """Prints a line, if it is new."""
        text, now = line.removeprefix("warning: "), time.monotonic()
        if now - self._printed.get(text, -_AGAIN_SECONDS) >= _AGAIN_SECONDS:
            self._printed[text] = now
            self._print_line(line)


def show_nothing(label: str) -> AbstractContextManager[Progress]:
    """Shows no progress."""
    return SilentReporter().show_progress(label)


@contextmanager
def catch_interrupts(stop: Callable[[], None]) -> Iterator[None]:
    """Calls `stop` at the first Ctrl-C or SIGTERM, and raises KeyboardInterrupt at the next ones.

    In threads other than the main one they stay as they are.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    stopping = False

    def answer(*_: object) -> None:
        nonlocal stopping
        if stopping:
            raise KeyboardInterrupt
        stopping = True
        stop()

    before = {number: signal.signal(number, answer) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def end_at_interrupt(reporter: Reporter, line: str) -> Iterator[None]:
    """Shows a line at the first Ctrl-C or SIGTERM and raises KeyboardInterrupt, which ends the work at once."""

    def stop() -> None:
        reporter.show_stop(line)
        raise KeyboardInterrupt

    with catch_interrupts(stop):
        yield
