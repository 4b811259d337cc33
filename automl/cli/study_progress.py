"""What is happening in a study now, read from its storage and from what its workers write; and that in words."""

import re
import socket
import time
from dataclasses import dataclass, replace

from automl.cli.output import sort_best_first
from automl.study.search import STOPPING, SearchResult
from automl.study.trial_record import TrialRow, read_spec, trial_rows
from automl.units import format_count, format_seconds, format_share


@dataclass(frozen=True)
class WorkerState:
    """What a worker does now."""

    device: str
    """Its name, with its machine if that is another one."""
    trial: int
    epoch: float
    """Epochs done."""
    doing: str
    """What it does beside training, in words; "" if nothing."""

    @property
    def share(self) -> float | None:
        """How much is done of what it does beside training, where its words say so."""
        counts = re.search(r"(\d+) of (\d+)", self.doing)
        return int(counts[1]) / max(1, int(counts[2])) if counts else None


@dataclass(frozen=True)
class StudyProgress:
    """What is happening in a study now."""

    metric: str
    maximize: bool
    rows: list[TrialRow]
    workers: list[WorkerState]
    """Those that have a trial, by device."""
    trials: int
    seconds_left: float | None
    timeout_seconds: float | None = None
    stopping: bool = False

    @property
    def ended(self) -> list[TrialRow]:
        """The trials that have ended, by number."""
        return [row for row in self.rows if row.state != "running"]


def read_progress(
    result: SearchResult, deadline: float | None, stopping: bool, known: dict[int, TrialRow] | None = None
) -> StudyProgress:
    """Reads what is happening in a study from its storage and from what its workers write.

    `known` holds the rows of the trials that had ended at an earlier look, and takes those that have ended since.
    """
    study, known = result.study, {} if known is None else known
    maximize = study.direction.name == "MAXIMIZE"
    trials = study.get_trials(deepcopy=False)
    new = {row.number: row for row in trial_rows([one for one in trials if one.number not in known], maximize)}
    known |= {number: row for number, row in new.items() if row.state != "running"}
    rows = sorted((known | new).values(), key=lambda row: row.number)
    return StudyProgress(
        metric=result.metric,
        maximize=maximize,
        rows=rows,
        workers=[worker for worker in read_workers(result) if worker.trial not in known],
        trials=result.trials_wanted,
        seconds_left=None if deadline is None else deadline - time.time(),
        timeout_seconds=None if deadline is None else read_spec(study).budget.timeout,
        stopping=stopping,
    )


def read_workers(result: SearchResult) -> list[WorkerState]:
    """Reads what the workers of a study do now, by their names; none where the storage does not answer."""
    try:
        snapshot = result.claims.read()
    except Exception:  # drivers raise many types; whoever reads the trials waits for it
        return []
    rows = [snapshot.workers[owner] for owner in {*snapshot.claims.values()} if owner in snapshot.workers]
    here = socket.gethostname()
    workers = [
        WorkerState(
            device=row.label if row.host == here else f"{row.host} {row.label}",
            trial=int(row.doing["trial"]),
            epoch=float(row.doing["epoch"]),
            doing=str(row.doing.get("doing", "")),
        )
        for row in rows
        if row.doing
    ]
    return sorted(workers, key=lambda worker: (worker.device, worker.trial))


def replace_workers(progress: StudyProgress, workers: list[WorkerState], looked: float) -> StudyProgress:
    """Returns a study's progress with what its workers do now, and the time that is left now."""
    ended = {row.number for row in progress.ended}
    left = progress.seconds_left
    return replace(
        progress,
        workers=[worker for worker in workers if worker.trial not in ended],
        seconds_left=None if left is None else left - (time.monotonic() - looked),
    )


def describe_totals(progress: StudyProgress) -> str:
    """Writes the totals in one line: trials done, best so far, time left."""
    parts = [format_share(len(progress.ended), progress.trials, "trial")]
    if best := sort_best_first(progress.rows, progress.maximize):
        parts.append(f"best {progress.metric} {best[0].value:.4f} (trial {best[0].number}, {best[0].backbone})")
    if progress.seconds_left is not None:
        parts.append(f"{format_seconds(max(0.0, progress.seconds_left))} left")
    parts += [f"trial {worker.trial} {worker.doing}" for worker in progress.workers if worker.doing]
    if progress.stopping:
        parts.append(STOPPING)
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
