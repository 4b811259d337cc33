"""`automl worker` in a process that writes down what it does: each step that it trains, each trial that it ends.

    python -m tests.campaigns.watched_worker NOTES PAUSE_SECONDS worker --study …

Nothing else differs from `automl worker`, but that a step takes as long as it is told to, so that a tiny trial lasts.
A note is a line `MONOTONIC PROCESS TRIAL WHAT`; the moment stands in the file `NOTES.moment`, one letter.
"""

import mmap
import os
import sys
import time
from pathlib import Path

MOMENTS = {"s": "starting", "t": "taking", "l": "training", "w": "writing", "e": "ending"}


class Notes:
    """What a process does, for the campaign to read: nothing is buffered, so a kill loses no note."""

    def __init__(self, path: Path):
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        moment = moment_file(path)
        moment.write_bytes(b"s")
        with moment.open("r+b") as file:
            self._moment = mmap.mmap(file.fileno(), 1)

    def write(self, trial, what):
        os.write(self._file, f"{time.monotonic():.4f} {os.getpid()} {trial} {what}\n".encode())

    def set_moment(self, letter):
        before = bytes(self._moment[:1])
        self._moment[:1] = letter.encode() if isinstance(letter, str) else letter
        return before


def moment_file(notes):
    return notes.with_name(notes.name + ".moment")


def watch(notes: Path, pause: float):
    """Wraps what a worker calls, so that it is noted."""
    from automl.study import worker
    from automl.study.trial import Objective, TrialCallbacks
    from automl.training import fit as fit_module

    log = Notes(notes)
    train, on_step, end, save = (
        Objective.__call__,
        TrialCallbacks.on_step,
        worker._end_trial,
        fit_module.save_checkpoint,
    )

    def noted_training(self, trial, frozen):
        log.set_moment("l")
        log.write(trial.number, "begin")
        try:
            return train(self, trial, frozen)
        finally:
            log.set_moment("e")

    def noted_step(self, done, total):
        on_step(self, done, total)
        log.write(self._trial.number, f"step {done} {total}")
        time.sleep(pause)

    def noted_save(*args, **kwargs):
        before = log.set_moment("w")
        save(*args, **kwargs)
        log.set_moment(before)

    def noted_end(study, folder, trial, result):
        log.set_moment("e")
        end(study, folder, trial, result)
        log.write(trial.number, f"end {result.state.name} {result.value!r}")
        log.set_moment("t")

    Objective.__call__, TrialCallbacks.on_step = noted_training, noted_step
    worker._end_trial, fit_module.save_checkpoint = noted_end, noted_save
    log.set_moment("t")


def work(notes, pause, words, log=None):
    """Runs the command; `log` takes what it prints."""
    if log is not None:
        sink = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.dup2(sink, 1)
        os.dup2(sink, 2)
        os.setsid()
    moment_file(notes).write_bytes(b"s")
    from automl.cli.main import run

    watch(notes, pause)
    run(words)


if __name__ == "__main__":
    work(Path(sys.argv[1]), float(sys.argv[2]), sys.argv[3:])
