"""Weights & Biases: a project of the study's name, a run a trial.

https://docs.wandb.ai/ref/python/. The environment decides as ever: `WANDB_MODE=offline` writes files that `wandb sync`
sends later, `WANDB_PROJECT` names another project. Without a key of the service runs are offline too: nobody is asked
for one in the middle of a search. A run that was written offline cannot be opened again, so that the run of the best
trial stays open until another one is better.
"""

import os
import uuid
from pathlib import Path
from typing import Any

from automl.trackers.tracker import TrialLog


class WandbTracker:
    """Logs trials to Weights & Biases."""

    def __init__(self, study: str, folder: Path) -> None:
        """Opens nothing yet; `folder` is that of the study, and will hold the files of runs in `wandb/`."""
        import wandb

        self._wandb: Any = wandb
        self._mode = os.environ.get("WANDB_MODE") or ("online" if wandb.api.api_key else "offline")
        self._project, self._folder = os.environ.get("WANDB_PROJECT", study), folder
        self._open: dict[str, Any] = {}
        self._ended: dict[str, int] = {}  # open runs of trials that have ended, with the exit codes to come
        self._best = ""

    def log_trial(self, trial: TrialLog, run: str, after: int) -> str:
        """Logs the new validations; once the trial has ended, its last metrics in the run's summary."""
        self._finish_ended()
        run = run or uuid.uuid4().hex[:12]
        if run not in self._open:
            self._open[run] = self._start_run(trial, run)
        opened = self._open[run]
        if not after or trial.ended is not None:
            opened.config.update(trial.params | trial.tags, allow_val_change=True)
        for step, values in sorted(trial.curve.items()):
            if step > after:
                opened.log(values, step=step)
        if trial.ended is not None:
            opened.summary.update(trial.final | trial.tags | {"best": False})
            self._ended[run] = int(trial.tags["state"] == "failed")
        return run

    def mark_best(self, run: str, former: str) -> None:  # noqa: ARG002
        """Remembers the run, which gets its tag when it is closed."""
        self._best = run
        self._finish_ended()

    def close(self) -> None:
        """Marks the best run, where this search has logged it, and closes all."""
        if self._best in self._open:
            self._open[self._best].tags += ("best",)
            self._open[self._best].summary.update({"best": True})
        for run, opened in self._open.items():
            opened.finish(exit_code=self._ended.get(run, 0))
        self._open = {}

    def describe(self) -> str:
        """Describes where the runs are."""
        if self._mode == "offline":
            return f"wandb: offline, in {self._folder / 'wandb'}; wandb sync sends them"
        return f"wandb: project {self._project}"

    def _start_run(self, trial: TrialLog, run: str) -> Any:
        settings = self._wandb.Settings(silent=True, console="off", x_disable_stats=True, disable_git=True)
        return self._wandb.init(
            project=self._project, id=run, name=trial.name, dir=str(self._folder), mode=self._mode, resume="allow",
            reinit="create_new", settings=settings,
        )  # fmt: skip

    def _finish_ended(self) -> None:
        """Closes the runs of trials that have ended, but for that of the best one."""
        for run in [run for run in self._ended if run != self._best]:
            self._open.pop(run).finish(exit_code=self._ended.pop(run))
