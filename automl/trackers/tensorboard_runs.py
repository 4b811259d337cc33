"""TensorBoard: event files in the study's folder, a folder a trial.

https://pytorch.org/docs/stable/tensorboard.html
"""

from pathlib import Path
from typing import Any

from automl.trackers.tracker import TrialLog


class TensorboardTracker:
    """Logs trials to TensorBoard's event files."""

    def __init__(self, study: str, folder: Path) -> None:  # noqa: ARG002
        """Opens nothing yet; `folder` is that of the study, and will hold the files in `tensorboard/`."""
        from torch.utils.tensorboard import SummaryWriter

        self._make_writer: Any = SummaryWriter
        self._folder = folder / "tensorboard"
        self._open: dict[str, Any] = {}

    def log_trial(self, trial: TrialLog, run: str, after: int) -> str:
        """Writes the new validations; once the trial has ended, its last metrics, parameters and tags."""
        from torch.utils.tensorboard import summary

        run = run or f"trial-{trial.number:04d}"
        if run not in self._open:
            self._open[run] = self._make_writer(str(self._folder / run))
        writer = self._open[run]
        for step, values in sorted(trial.curve.items()):
            for name, value in values.items() if step > after else ():
                writer.add_scalar(name, value, step)
        if trial.ended is not None:
            for name, value in trial.final.items():
                writer.add_scalar(f"final/{name}", value, trial.last_step)
            for name, text in trial.tags.items():
                writer.add_text(name, text)
            metrics = {f"final/{name}": value for name, value in trial.final.items()}
            make_summaries: Any = summary.hparams
            for part in make_summaries(trial.params, metrics):
                writer.file_writer.add_summary(part)
            self._open.pop(run).close()
        return run

    def mark_best(self, run: str, former: str) -> None:
        """Writes the best trial's folder, as a text of the study."""
        before = f", before: {former}" if former else ""
        with self._make_writer(str(self._folder / "study")) as writer:
            writer.add_text("best trial", f"{run}{before}", int(run.rpartition("-")[2]))

    def close(self) -> None:
        """Closes the files."""
        for writer in self._open.values():
            writer.close()
        self._open = {}

    def describe(self) -> str:
        """Describes where the files are."""
        return f"tensorboard: {self._folder}; tensorboard --logdir {self._folder}"
