"""Progress of a search: a live table on a terminal, plain lines in a log."""

import json
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from types import TracebackType

from rich.console import Console
from rich.live import Live as RichLive

from automl.cli.data import progress_bar
from automl.cli.tables import Live, live_table, progress_line, trial_line
from automl.study.rows import trial_rows
from automl.study.search import SearchResult

_LOOK_SECONDS = 2.0
"""Between two looks into the storage, which cost the workers time."""
_LINE_SECONDS = 60.0
"""Between two lines of totals in a log."""


class SearchProgress:
    """A `search.api.Reporter` for people."""

    def __init__(self) -> None:
        self._console = Console(file=sys.stdout, highlight=False)
        self._live: RichLive | None = None
        self._looked = self._lined = 0.0
        self._told: set[int] | None = None

    def __enter__(self) -> "SearchProgress":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def print_line(self, line: str) -> None:
        """Prints a line; above the table, where there is one."""
        loud = "bold red" if "NO PRETRAINED WEIGHTS" in line else None
        self._console.print(line, style=loud, markup=False, soft_wrap=True)
        self._console.file.flush()

    def show_progress(self, what: str) -> AbstractContextManager[Callable[[int, int], None]]:
        """A progress bar on a terminal, in the place of the table; a line a minute in a log."""
        if not self._console.is_terminal:
            return nullcontext(self._lines(what))
        if self._live is not None:
            self._live.stop()
            self._live = None
        return progress_bar(what)

    def _lines(self, what: str) -> Callable[[int, int], None]:
        told = time.monotonic()

        def tell(done: int, total: int) -> None:
            nonlocal told
            if time.monotonic() - told >= _LINE_SECONDS:
                told = time.monotonic()
                self.print_line(f"{what}: {done} of {total}")

        return tell

    def show_study(self, result: SearchResult, deadline: float | None, stopping: bool) -> None:
        """Looks into the storage every few seconds and shows what changed."""
        now = time.monotonic()
        if now - self._looked < _LOOK_SECONDS:
            return
        self._looked = now
        live = _look(result, deadline, stopping)
        if self._console.is_terminal:
            self._draw(live)
        else:
            self._write(live, now)

    def _draw(self, live: Live) -> None:
        if self._live is None:
            self._live = RichLive(console=self._console, auto_refresh=False)
            self._live.start()
        self._live.update(live_table(live, max(4, self._console.height - 4)), refresh=True)

    def _write(self, live: Live, now: float) -> None:
        """One line for each trial that ended, and the totals now and then."""
        ended = {row.number: row for row in live.rows if row.state != "running"}
        if self._told is None:  # the trials of an earlier call are not news
            self._told = set(ended)
        for number in sorted(ended.keys() - self._told):
            self.print_line(trial_line(ended[number], live.metric))
            self._told.add(number)
            self._lined = 0.0
        if now - self._lined >= _LINE_SECONDS:
            self._lined = now
            running = "".join(
                f" · trial {row.number} {row.backbone} epoch {live.running.get(row.number, 0):.2f} of {row.epochs:.3g}"
                for row in live.rows
                if row.state == "running" and row.epochs
            )
            self.print_line(progress_line(live) + running)


def _look(result: SearchResult, deadline: float | None, stopping: bool) -> Live:
    study = result.study
    running, doing = {}, list[str]()
    for path in (result.folder.path / "workers").glob("*.json"):
        try:
            progress = json.loads(path.read_text(encoding="utf-8"))
            running[int(progress["trial"])] = float(progress["epoch"])
            doing += [f"trial {progress['trial']} {progress['doing']}"] if "doing" in progress else []
        except (OSError, ValueError, KeyError):
            continue  # the worker has just ended
    maximize = study.direction.name == "MAXIMIZE"
    return Live(
        metric=result.metric,
        maximize=maximize,
        rows=trial_rows(study.get_trials(deepcopy=False), maximize),
        running=running,
        trials=result.trials_wanted,
        seconds_left=None if deadline is None else deadline - time.time(),
        stopping=stopping,
        doing=tuple(doing),
    )
