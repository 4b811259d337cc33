"""The events of a search that `--json` prints, from what the reporter sees of the study."""

import time

from automl.cli.json_objects import BestChanged, ProgressReported, RunningTrial
from automl.cli.json_output import write_event
from automl.cli.json_results import describe_ended, describe_opened, describe_pool
from automl.cli.output import sort_best_first
from automl.cli.study_progress import StudyProgress
from automl.study.search import SearchResult


class StudyEvents:
    """Writes each event of one search once."""

    def __init__(self, period_seconds: float) -> None:
        """Sets the time between two events of progress."""
        self._period, self._written = period_seconds, 0.0
        self._reported: set[int] | None = None
        self._best: int | None = None

    def report(self, progress: StudyProgress, result: SearchResult) -> None:
        """Writes what is new."""
        best = next(iter(sort_best_first(progress.rows, progress.maximize)), None)
        if self._reported is None:
            self._reported = {row.number for row in progress.ended}
            self._best = best.number if best else None
            write_event(describe_opened(result, progress.maximize, len(self._reported)))
            write_event(describe_pool(result.setup))
        for row in progress.ended:
            if row.number not in self._reported:
                self._reported.add(row.number)
                write_event(describe_ended(row))
        if best is not None and best.value is not None and best.number != self._best:
            self._best = best.number
            write_event(BestChanged(number=best.number, value=best.value, backbone=best.backbone))
        if time.monotonic() - self._written >= self._period:
            self._written = time.monotonic()
            rows = {row.number: row for row in progress.rows}
            running = [
                RunningTrial(
                    device=worker.device,
                    trial=worker.trial,
                    backbone=rows[worker.trial].backbone,
                    epoch=worker.epoch,
                    epochs=rows[worker.trial].epochs,
                    doing=worker.doing,
                )
                for worker in progress.workers
                if worker.trial in rows
            ]
            event = ProgressReported(
                trials_ended=len(progress.ended),
                trials_wanted=progress.trials,
                seconds_left=progress.seconds_left,
                best_value=best.value if best else None,
                best_trial=best.number if best else None,
                running=running,
                stopping=progress.stopping,
            )
            write_event(event)
