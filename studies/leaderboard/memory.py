"""Predicts the GPU memory of every backbone, for `automl backbones --gpu-mem`: the two tables that it reads.

    python studies/leaderboard/memory.py [--encoders] [--jobs N] [--out FILE]

It takes about 3 seconds a row and core, without a GPU. It goes on where it was interrupted, or where a kind of step was
added; rows of another version of torch, timm or the method are computed again.
"""

import argparse
import csv
import io
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from automl.backbones.encoders import load_encoders
from automl.backbones.table import load_table
from automl.errors import RecipeError, SpecError
from automl.files import explain_write_errors, read_header, write_text
from automl.memory.step import METHOD, Step
from automl.memory.table import (
    BATCHES,
    COMMAND,
    ENCODER_KINDS,
    ENCODERS,
    KINDS,
    MIB,
    SHIPPED,
    Kind,
    PredictedMemory,
    load_predictions,
)
from automl.processes import map_in_processes
from automl.recipe.tuning import TuneNorms

CLASSES = 2
SAVED_EVERY = 20
"""Rows that an interruption may cost."""
ROW_SECONDS = 300
"""Of a core; what takes longer to trace gets no figures."""
REASON_CHARACTERS = 160

STEPS: Mapping[Kind, Mapping[str, Any]] = {
    "fp16": {"precision": "fp16"},
    "fp32": {"precision": "fp32"},
    "inference": {"precision": "fp16", "training": False},
    "frozen": {"precision": "fp16", "frozen": True},
    "norms": {"precision": "fp16", "tune": TuneNorms()},
}
"""How the step of each kind differs from plain training; a kind is added here and to those of a table."""


class Task(NamedTuple):
    """What is missing of a row."""

    arch: str
    image_size: int
    kinds: tuple[Kind, ...]


def predict_row(task: Task) -> PredictedMemory:
    """Predicts a row, or some kinds of it; takes seconds.

    Returns:
        The row, with its problem if timm cannot build or train the architecture at this size.
    """
    from torch import nn

    from automl.memory.trace import build_meta_model, trace_model_envelopes

    arch, image_size, kinds = task
    mib: dict[Kind, tuple[int, ...]] = {}
    smallest, weak = 1, ""
    # One model serves the kinds that differ in precision alone: they are traced together, and freezing lasts.
    together: dict[Step, dict[str, Kind]] = {}
    for kind in kinds:
        step = Step(arch, image_size, CLASSES, **STEPS[kind])
        together.setdefault(replace(step, precision=Step.precision), {})[step.precision] = kind
    try:
        with _limit_seconds(ROW_SECONDS):
            for step, names in together.items():
                with build_meta_model(step) as model:
                    envelopes = trace_model_envelopes(model, step, tuple(names), BATCHES)
                    # What cuDNN keeps of them for the backward pass is not traced.
                    weak = "recurrent layers" if any(isinstance(m, nn.RNNBase) for m in model.modules()) else ""
                for precision, kind in names.items():
                    needed = (envelopes[precision].needed_bytes(batch) for batch in BATCHES)
                    mib[kind] = tuple(-(-size_bytes // MIB) for size_bytes in needed)
                if step == Step(arch, image_size, CLASSES):  # plain training
                    smallest = envelopes[next(iter(names))].smallest_batch
    except RecipeError as exc:
        return PredictedMemory(arch, image_size, {}, problem=" ".join(str(exc).split())[:REASON_CHARACTERS])
    return PredictedMemory(arch, image_size, mib, smallest, weak)


@contextmanager
def _limit_seconds(seconds: int) -> Iterator[None]:
    """Raises TimeoutError within the block when it takes longer, of a core; in the main thread of a process only."""

    def give_up(*_: object) -> NoReturn:
        raise TimeoutError(f"tracing takes longer than {seconds} s")

    before = signal.signal(signal.SIGPROF, give_up)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def predict_rows(
    wanted: Iterable[tuple[str, int]],
    path: Path = SHIPPED,
    jobs: int = 1,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
    kinds: Sequence[Kind] = KINDS,
) -> list[PredictedMemory]:
    """Predicts what a table does not have yet, and writes it, every few rows and when interrupted.

    Args:
        wanted: Architectures with image sizes; other rows are dropped.
        path: The table, read and written.
        jobs: Processes.
        progress: Called with rows done and rows in all.
        kinds: Kinds of steps that each row shall have.

    Returns:
        All rows, sorted.

    Raises:
        SpecError: If the table cannot be read or written.
    """
    keys = sorted(set(wanted))
    known = load_predictions(path) if has_these_versions(path) else {}
    rows = {key: known[key] for key in keys if key in known}
    missing = [Task(*key, _list_missing(rows.get(key), kinds)) for key in keys]
    tasks = [task for task in missing if task.kinds]
    progress(len(keys) - len(tasks), len(keys))
    try:
        for done, (task, row) in enumerate(
            map_in_processes(predict_row, tasks, jobs), start=len(keys) - len(tasks) + 1
        ):
            key = (task.arch, task.image_size)
            rows[key] = _join_rows(rows[key], row) if key in rows else row
            progress(done, len(keys))
            if done % SAVED_EVERY == 0:
                write_predictions(rows.values(), path, kinds)
    finally:
        if rows:
            write_predictions(rows.values(), path, kinds)
    return [rows[key] for key in keys]


def _list_missing(row: PredictedMemory | None, kinds: Sequence[Kind]) -> tuple[Kind, ...]:
    """Lists the kinds that a row lacks; none where it is known why it has no figures."""
    if row is not None and row.problem:
        return ()
    return tuple(kind for kind in kinds if row is None or kind not in row.mib)


def _join_rows(before: PredictedMemory, added: PredictedMemory) -> PredictedMemory:
    """Adds kinds to a row that was predicted before."""
    return added if added.problem else replace(before, mib=before.mib | added.mib)


def read_versions() -> dict[str, str]:
    """Returns what decides the predictions: the versions of the method, timm and torch."""
    return {"method": str(METHOD), "timm": version("timm"), "torch": version("torch").partition("+")[0]}


def has_these_versions(path: Path) -> bool:
    """Returns whether there is a table that was computed with the versions at hand."""
    with suppress(OSError, UnicodeDecodeError):
        return read_versions().items() <= read_header(path).items()
    return False


def write_predictions(rows: Iterable[PredictedMemory], path: Path = SHIPPED, kinds: Sequence[Kind] = KINDS) -> None:
    """Writes a table, atomically, with its versions and command on top.

    Raises:
        SpecError: If it cannot be written.
    """
    command = f"{COMMAND} --encoders" if kinds == ENCODER_KINDS else COMMAND
    header = {**read_versions(), "command": command, "licence": "Apache-2.0"}
    text = io.StringIO("".join(f"# {key}: {value}\n" for key, value in header.items()))
    text.seek(0, io.SEEK_END)
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["arch", "image_size", *kinds, "smallest_batch", "weak", "trouble"])
    for row in sorted(rows, key=lambda row: (row.arch, row.image_size)):
        figures = [" ".join(map(str, row.mib.get(kind, ()))) for kind in kinds]
        writer.writerow([row.arch, row.image_size, *figures, row.smallest_batch, row.weak, row.problem])
    with explain_write_errors(path):
        write_text(path, text.getvalue())


def print_progress(done: int, total: int) -> None:
    """Prints every twentieth step and the last one."""
    if done == total or done % 20 == 0:
        print(f"{done} of {total}", file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Predicts what the table does not have, and writes it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes; default: one a core")
    parser.add_argument("--encoders", action="store_true", help="the table of encoders, not of the leaderboard")
    parser.add_argument("--out", type=Path, help="default: where automl reads it")
    given = parser.parse_args(arguments)
    if given.encoders:
        # Those that return tokens, and take no classifier, cannot be trained: nothing was counted for them either.
        table, out, kinds = load_encoders().dropna(subset="gmacs"), given.out or ENCODERS, ENCODER_KINDS
    else:
        table, out, kinds = load_table(), given.out or SHIPPED, KINDS
    wanted = zip(table["model"].str.partition(".")[0], table["image_size"].tolist(), strict=True)
    try:
        rows = predict_rows(wanted, out, given.jobs, print_progress, kinds)
    except SpecError as exc:
        parser.error(str(exc))
    unknown = sum(bool(row.problem) for row in rows)
    print(f"{out}: {len(rows):,} rows, {unknown} of which the installed timm cannot build")


if __name__ == "__main__":
    main()
