"""Logs the trials of a study to trackers while it runs: in a thread of the supervisor, which trains nothing.

A tracker that fails, or waits for a network, takes nothing from the search. What was logged is kept in the study's
folder (`logged.json`), so that a continued study logs each trial once.
"""

import json
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import optuna
from optuna.trial import FrozenTrial, TrialState

from automl.errors import first_line
from automl.files import write_text
from automl.study.folder import StudyFolder
from automl.study.trial_record import best_trial, read_trial_record
from automl.trackers.registry import TRACKERS
from automl.trackers.tracker import Tracker, TrialLog, flatten
from automl.training.schedule import EIGHTHS

if TYPE_CHECKING:  # it would import torch, which a search does after it has looked for mistakes
    from automl.study.setup import StudySetup

_END_SECONDS = 60.0
"""How long a tracker is waited for at the end of a search."""

_STATES = {
    TrialState.RUNNING: "running",
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
}


@dataclass
class _Logged:
    """What a tracker has of a trial."""

    run: str = ""
    after: int = 0
    """The last validation."""
    state: str = ""
    """`running` once it has the recipe."""


@dataclass
class _Connection:
    """A tracker, and what it has."""

    name: str
    logged: dict[int, _Logged] = field(default_factory=dict)
    best: int | None = None
    tracker: Tracker | None = None
    """None until it is needed: its package takes a second to import."""


class StudyLog:
    """Logs a study to trackers; `update` is called now and then, `close` at the end."""

    def __init__(
        self, names: Sequence[str], study: optuna.Study, folder: StudyFolder, setup: "StudySetup",
        print_line: Callable[[str], None],
    ) -> None:  # fmt: skip
        """Starts the thread, if there is a tracker; lines for people are printed in `update` and `close`."""
        self._study, self._folder, self._setup, self._print_line = study, folder, setup, print_line
        self._connections = [self._connect(name) for name in dict.fromkeys(names)]
        self._lines: list[str] = []
        self._wake, self._closing = threading.Event(), False
        self._thread = threading.Thread(target=self._log_until_closed, daemon=True)
        if self._connections:
            self._thread.start()

    def update(self) -> None:
        """Has the thread look for what is new."""
        self._wake.set()
        self._print_lines()

    def close(self) -> None:
        """Waits until all is logged, but no longer than a minute."""
        if not self._thread.is_alive():
            return
        self._closing = True
        self._wake.set()
        self._thread.join(_END_SECONDS)
        self._print_lines()
        if self._thread.is_alive():
            names = ", ".join(connection.name for connection in self._connections)
            self._print_line(f"warning: --log {names}: not done after {_END_SECONDS:.0f} s; not waited for any longer")

    def _print_lines(self) -> None:
        while self._lines:
            self._print_line(self._lines.pop(0))

    # --- in the thread ----------------------------------------------------------------------------------------------

    def _log_until_closed(self) -> None:
        closing = False
        while not closing:
            self._wake.wait()
            self._wake.clear()
            closing = self._closing  # read first, so that the last look is one after the end
            self._log_news()
        for connection in self._connections:
            if connection.tracker is not None:
                self._attempt(connection, connection.tracker.close)

    def _log_news(self) -> None:
        try:
            trials = [trial for trial in self._study.get_trials(deepcopy=False) if trial.state in _STATES]
            best = best_trial(self._study)
        except Exception as exc:  # the search itself waits for its storage, or ends
            self._lines.append(f"warning: --log: {first_line(exc)}")
            return
        for connection in list(self._connections):
            self._attempt(connection, partial(self._log_trials, connection, trials, best))

    def _attempt(self, connection: _Connection, action: Callable[[], None]) -> None:
        """Does something with a tracker, and goes on without it if that fails."""
        try:
            action()
        except Exception as exc:  # whatever a tracker raises
            self._connections.remove(connection)
            self._lines.append(
                f"warning: --log {connection.name}: {first_line(exc)}; nothing more is logged there, and the same "
                "command logs what is missing"
            )
            connection.tracker = None

    def _log_trials(self, connection: _Connection, trials: list[FrozenTrial], best: FrozenTrial | None) -> None:
        if connection.tracker is None:
            connection.tracker = TRACKERS[connection.name](self._folder.name, self._folder.path)
            self._lines.append(f"log: {connection.tracker.describe()}")
        changed = False
        for trial in trials:
            log = describe_trial(trial, self._setup)
            logged = connection.logged.setdefault(trial.number, _Logged())
            if not log.params and log.ended is None:  # its recipe is not drawn yet
                continue
            if (logged.state, logged.after) == (log.tags["state"], log.last_step):
                continue
            logged.run = connection.tracker.log_trial(log, logged.run, logged.after)
            logged.state, logged.after, changed = log.tags["state"], log.last_step, True
        if best is not None and best.number != connection.best and best.number in connection.logged:
            former = "" if connection.best is None else connection.logged[connection.best].run
            connection.tracker.mark_best(connection.logged[best.number].run, former)
            connection.best, changed = best.number, True
        if changed:
            self._save()

    # --- what was logged --------------------------------------------------------------------------------------------

    def _connect(self, name: str) -> _Connection:
        """Reads what a tracker has already; a file that cannot be read is as none."""
        try:
            kept = json.loads(self._folder.logged.read_text(encoding="utf-8"))[name]
            logged = {int(number): _Logged(**values) for number, values in kept["trials"].items()}
            return _Connection(name, logged, kept["best"])
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return _Connection(name)

    def _save(self) -> None:
        """Writes what was logged, beside what other trackers have from an earlier search."""
        try:
            kept = dict(json.loads(self._folder.logged.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            kept = {}
        for one in self._connections:
            trials = {str(number): asdict(logged) for number, logged in one.logged.items() if logged.run}
            kept[one.name] = {"best": one.best, "trials": trials}
        write_text(self._folder.logged, json.dumps(kept, indent=1))


def describe_trial(trial: FrozenTrial, setup: "StudySetup") -> TrialLog:
    """Describes a trial for trackers."""
    record = read_trial_record(trial)
    tags = {
        "state": _STATES[trial.state],
        "reason": record.error or record.reason,
        "backbone": record.backbone,
        "view": record.view,
        "trained": record.trained,
        "known_good": record.known_good,
        "host": record.host,
    }
    curve: dict[int, dict[str, float]] = {}
    for step, value in trial.intermediate_values.items():
        curve[step] = {setup.metric: value}
        if step <= EIGHTHS and record.epochs:
            curve[step]["epoch"] = record.epochs * step / EIGHTHS
    final: dict[str, float] = {}
    if trial.state == TrialState.COMPLETE:
        final = {**record.metrics, setup.objective: float(trial.value or 0.0)}
    final |= {name: value for name, value in record.spent.items() if trial.state.is_finished()}
    return TrialLog(
        number=trial.number,
        params=flatten(json.loads(record.recipe)) if record.recipe else {},
        tags={name: text for name, text in tags.items() if text},
        started=trial.datetime_start.timestamp() if trial.datetime_start else 0.0,
        ended=trial.datetime_complete.timestamp() if trial.datetime_complete else None,
        curve=curve,
        final=final,
    )
