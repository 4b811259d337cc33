"""Progress of long commands: a live view of a search on a terminal, plain lines in a log, events for programs."""

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress

from rich.live import Live
from rich.text import Text

from automl.cli.json_objects import StepReported
from automl.cli.json_output import wants_json, write_event, write_stop
from automl.cli.live_view import draw_study
from automl.cli.output import make_console, progress_bar
from automl.cli.study_events import StudyEvents
from automl.cli.study_progress import (
    StudyProgress,
    WorkerState,
    describe_totals,
    describe_trial,
    read_progress,
    read_workers,
    replace_workers,
)
from automl.reporter import Progress, end_at_interrupt
from automl.study.search import SearchResult
from automl.study.trial_record import TrialRow

_LOOK_SECONDS = 2.0
"""Between two looks into the storage, which cost the workers time."""
_DRAW_SECONDS = 1.0
"""Between two drawings of the live view."""
_LINE_SECONDS = 60.0
"""Between two lines of totals in a log, and two events of progress."""


class SearchProgress:
    """A reporter for people, on a terminal or in a log, and for programs."""

    stopped = False
    """Whether Ctrl-C or SIGTERM was received."""

    def __init__(self, answer: str = "") -> None:
        """Takes what follows from Ctrl-C in all that has no answer of its own; "": nothing is shown."""
        self._answer, self._stack, self._console = answer, ExitStack(), make_console()
        self._events = StudyEvents(_LINE_SECONDS) if wants_json() else None
        self._live: Live | None = None
        self._started = time.monotonic()
        self._looked = self._lined = self._drawn = 0.0
        self._known: dict[int, TrialRow] = {}
        self._reported: set[int] | None = None
        """Trials whose end stands in the log, or was of an earlier call."""
        self._progress: StudyProgress | None = None
        self._size, self._busy, self._stop_line = self._console.size, False, ""

    def __enter__(self) -> "SearchProgress":
        if self._answer:
            self._stack.enter_context(end_at_interrupt(self, self._answer))
        return self

    def __exit__(self, *_: object) -> None:
        self._stop_live()
        self._stack.close()

    def print_line(self, line: str) -> None:
        """Prints a line; above the live view, where there is one."""
        style = "bold red" if "NO PRETRAINED WEIGHTS" in line else None
        self._busy = True
        self._console.print(line, style=style, markup=False, soft_wrap=not self._console.is_terminal)
        self._console.file.flush()
        self._busy = False

    def show_stop(self, line: str) -> None:
        """Shows what follows from Ctrl-C: in the live view, or as a line."""
        self.stopped, self._stop_line = True, line
        write_stop(line)
        if self._live is None:
            with suppress(RuntimeError):  # the signal came in the middle of a write
                print(line, file=self._console.file, flush=True)  # rich would write again what it is writing
        elif not self._busy:
            self._draw_view()
        else:  # the signal came while rich was writing: the next look draws, however soon it comes
            self._drawn = 0.0

    def show_progress(self, label: str) -> AbstractContextManager[Progress]:
        """Shows a progress bar on a terminal, instead of the live view; prints a line a minute in a log."""
        return self._report_steps(label) if wants_json() else self._show_bar(label)

    def show_study(self, result: SearchResult, deadline: float | None, stopping: bool, last: bool = False) -> None:
        """Looks into the storage every few seconds and shows what changed."""
        now = time.monotonic()
        if last or now - self._looked >= _LOOK_SECONDS:
            self._looked = now
            self._progress = read_progress(result, deadline, stopping, self._known)
            if self._reported is None:  # the trials of an earlier call are not news
                self._reported = {row.number for row in self._progress.ended}
            if self._events is not None:
                self._events.report(self._progress, result)
            if not self._console.is_terminal:
                self._print_news(self._progress, now, last)
        if last:
            self._stop_live()
        elif self._console.is_terminal and (now - self._drawn >= _DRAW_SECONDS or self._console.size != self._size):
            self._draw_view(read_workers(result) if self._looked != now else None)

    def _stop_live(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _show_bar(self, label: str) -> AbstractContextManager[Progress]:
        if not self._console.is_terminal:
            return nullcontext(self._print_every_minute(label))
        self._stop_live()
        return progress_bar(label)

    def _print_every_minute(self, label: str) -> Progress:
        printed = time.monotonic()

        def show(done: int, total: int) -> None:
            nonlocal printed
            if time.monotonic() - printed >= _LINE_SECONDS:
                printed = time.monotonic()
                self.print_line(f"{label}: {done} of {total}")

        return show

    @contextmanager
    def _report_steps(self, label: str) -> Iterator[Progress]:
        """Shows a piece of work, and writes an event at its begin, at its end and once a minute."""
        where: tuple[int, int | None] = (0, None)
        written = time.monotonic()
        write_event(StepReported(label=label, done=0, total=None, ended=False))
        with self._show_bar(label) as show_bar:

            def show(done: int, total: int) -> None:
                nonlocal written, where
                where = done, total
                show_bar(done, total)
                if time.monotonic() - written >= _LINE_SECONDS:
                    written = time.monotonic()
                    write_event(StepReported(label=label, done=done, total=total, ended=False))

            yield show
        write_event(StepReported(label=label, done=where[0], total=where[1], ended=True))

    def _draw_view(self, workers: list[WorkerState] | None = None) -> None:
        """Draws the live view; after a change of the terminal's size on a clear screen, as its lines may have moved."""
        if self._progress is None:
            return
        self._drawn, self._busy = time.monotonic(), True
        if self._live is not None and self._console.size != self._size:
            self._stop_live()
            self._console.clear()
        self._size = self._console.size
        progress = self._progress if workers is None else replace_workers(self._progress, workers, self._looked)
        news = [row for row in progress.ended if row.number not in (self._reported or ())]
        lines = draw_study(progress, news, self._stop_line, time.monotonic() - self._started, self._size)
        view = Text("\n", no_wrap=True, overflow="ellipsis").join(lines)
        if self._live is None:
            self._live = Live(console=self._console, auto_refresh=False, transient=True)
            self._live.start()
        self._live.update(view, refresh=True)
        self._busy = False

    def _print_news(self, progress: StudyProgress, now: float, last: bool) -> None:
        """Prints one line for each trial that ended, and the totals now and then."""
        reported = self._reported if self._reported is not None else set()
        for ended in progress.ended:
            if ended.number not in reported:
                self.print_line(describe_trial(ended, progress.metric))
                reported.add(ended.number)
                self._lined = 0.0
        if now - self._lined >= _LINE_SECONDS and not last:
            self._lined = now
            parts, rows = [describe_totals(progress)], {row.number: row for row in progress.rows}
            for worker in progress.workers:
                if (row := rows.get(worker.trial)) is not None and row.epochs:
                    epoch = f"epoch {worker.epoch:.2f} of {row.epochs:.3g}"
                    parts.append(f"trial {row.number} {row.backbone} {epoch}")
            self.print_line(" · ".join(parts))
