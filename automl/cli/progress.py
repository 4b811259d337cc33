"""Progress of a search: a live table on a terminal, plain lines in a log."""

import json
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from rich.console import Group, RenderableType
from rich.live import Live
from rich.text import Text

from automl.cli.output import TRIAL_WORDS, make_console, make_table, progress_bar, sort_best_first, tabulate_trials
from automl.reporter import Progress
from automl.study.search import SearchResult
from automl.study.trial_record import TrialRow, trial_rows
from automl.units import format_count, format_seconds, format_share

_LOOK_SECONDS = 2.0
"""Between two looks into the storage, which cost the workers time."""
_LINE_SECONDS = 60.0
"""Between two lines of totals in a log."""
_STYLES = {"complete": "green", "pruned": "dim", "failed": "red", "running": "cyan", "unfinished": "yellow"}


@dataclass(frozen=True)
class StudyProgress:
    """What is happening in a study now."""

    metric: str
    maximize: bool
    rows: list[TrialRow]
    running: dict[int, float]
    """Epochs done, by trial, as the workers report them."""
    trials: int
    seconds_left: float | None
    stopping: bool = False
    activities: tuple[str, ...] = ()
    """What workers do that is no training yet, in words."""


class SearchProgress:
    """A reporter for people, on a terminal or in a log."""

    def __init__(self) -> None:
        self._console = make_console()
        self._live: Live | None = None
        self._looked = self._lined = 0.0
        self._reported: set[int] | None = None
        """Trials whose end stands in the log."""

    def __enter__(self) -> "SearchProgress":
        return self

    def __exit__(self, *_: object) -> None:
        self._stop_live()

    def print_line(self, line: str) -> None:
        """Prints a line; above the table, where there is one."""
        style = "bold red" if "NO PRETRAINED WEIGHTS" in line else None
        self._console.print(line, style=style, markup=False, soft_wrap=True)
        self._console.file.flush()

    def show_progress(self, label: str) -> AbstractContextManager[Progress]:
        """Shows a progress bar on a terminal, instead of the table; prints a line a minute in a log."""
        if not self._console.is_terminal:
            return nullcontext(self._print_every_minute(label))
        self._stop_live()
        return progress_bar(label)

    def show_study(self, result: SearchResult, deadline: float | None, stopping: bool) -> None:
        """Looks into the storage every few seconds and shows what changed."""
        now = time.monotonic()
        if now - self._looked < _LOOK_SECONDS:
            return
        self._looked = now
        progress = read_progress(result, deadline, stopping)
        if self._console.is_terminal:
            self._draw_table(progress)
        else:
            self._print_news(progress, now)

    def _stop_live(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _print_every_minute(self, label: str) -> Progress:
        printed = time.monotonic()

        def show(done: int, total: int) -> None:
            nonlocal printed
            if time.monotonic() - printed >= _LINE_SECONDS:
                printed = time.monotonic()
                self.print_line(f"{label}: {done} of {total}")

        return show

    def _draw_table(self, progress: StudyProgress) -> None:
        if self._live is None:
            self._live = Live(console=self._console, auto_refresh=False)
            self._live.start()
        self._live.update(make_live_table(progress, max(4, self._console.height - 4)), refresh=True)

    def _print_news(self, progress: StudyProgress, now: float) -> None:
        """Prints one line for each trial that ended, and the totals now and then."""
        ended = {row.number: row for row in progress.rows if row.state != "running"}
        if self._reported is None:  # the trials of an earlier call are not news
            self._reported = set(ended)
        for number in sorted(ended.keys() - self._reported):
            self.print_line(describe_trial(ended[number], progress.metric))
            self._reported.add(number)
            self._lined = 0.0
        if now - self._lined >= _LINE_SECONDS:
            self._lined = now
            parts = [describe_totals(progress)]
            for row in progress.rows:
                if row.state == "running" and row.epochs:
                    done = f"{progress.running.get(row.number, 0):.2f} of {row.epochs:.3g}"
                    parts.append(f"trial {row.number} {row.backbone} epoch {done}")
            self.print_line(" · ".join(parts))


def read_progress(result: SearchResult, deadline: float | None, stopping: bool) -> StudyProgress:
    """Reads what is happening in a study from its storage and from what its workers write."""
    study = result.study
    maximize = study.direction.name == "MAXIMIZE"
    rows = trial_rows(study.get_trials(deepcopy=False), maximize)
    ended = {row.number for row in rows if row.state != "running"}
    running, activities = {}, list[str]()
    for path in (result.folder.path / "workers").glob("*.json"):
        try:
            worker = json.loads(path.read_text(encoding="utf-8"))
            running[int(worker["trial"])] = float(worker["epoch"])
            if "doing" in worker and worker["trial"] not in ended:
                activities.append(f"trial {worker['trial']} {worker['doing']}")
        except (OSError, ValueError, KeyError):
            continue  # the worker has just ended
    return StudyProgress(
        metric=result.metric,
        maximize=maximize,
        rows=rows,
        running=running,
        trials=result.trials_wanted,
        seconds_left=None if deadline is None else deadline - time.time(),
        stopping=stopping,
        activities=tuple(activities),
    )


def make_live_table(progress: StudyProgress, height: int = 12) -> RenderableType:
    """Makes a table of the latest trials, at most `height` rows, above one line of totals."""
    latest, best = progress.rows[-height:], sort_best_first(progress.rows, progress.maximize)[:1]
    header, cells = tabulate_trials(latest, progress.metric, progress.running)
    table = make_table(header, TRIAL_WORDS)
    for row, texts in zip(latest, cells, strict=True):
        table.add_row(*texts, style="bold" if row in best else _STYLES[row.state])
    return Group(table, Text(describe_totals(progress)))


def describe_totals(progress: StudyProgress) -> str:
    """Writes the totals in one line: trials done, best so far, time left."""
    done = sum(row.state != "running" for row in progress.rows)
    parts = [format_share(done, progress.trials, "trial")]
    if best := sort_best_first(progress.rows, progress.maximize):
        parts.append(f"best {progress.metric} {best[0].value:.4f} (trial {best[0].number}, {best[0].backbone})")
    if progress.seconds_left is not None:
        parts.append(f"{format_seconds(max(0.0, progress.seconds_left))} left")
    parts += progress.activities
    if progress.stopping:
        parts.append("stopping after this epoch; Ctrl-C again stops now")
    return " · ".join(parts)


def describe_trial(row: TrialRow, metric: str) -> str:
    """Writes a trial that ended in one line of a log."""
    value = f" {metric} {row.value:.4f}" if row.value is not None else ""
    view = f"{row.view}, " if row.view != "image" else ""
    trained = f" ({row.trained})" if row.trained else ""
    network = f" {view}{row.backbone}{trained}" + (f" {row.image_size} px" if row.image_size else "")
    length = f" {format_count(row.epochs, 'epoch')}" if row.epochs and row.state == "complete" else ""
    longer = f", trial {row.continues} for longer" if row.continues is not None else ""
    duration = f" in {format_seconds(row.seconds)}" if row.seconds else ""
    memory = f", out of memory {row.out_of_memory} ×" if row.out_of_memory else ""
    reason = f" ({row.reason})" if row.reason else ""
    return f"trial {row.number} {row.state}:{value}{network}{length}{longer}{duration}{memory}{reason}"
