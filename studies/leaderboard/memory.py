"""Predicts the GPU memory of every row of the leaderboard, for `automl backbones --gpu-mem`: the table that it reads.

    python studies/leaderboard/memory.py [--jobs N] [--out FILE]

It takes about 3 seconds a row and core, without a GPU. It goes on where it was interrupted; rows of another version of
torch, timm or the method are computed again.
"""

import argparse
import csv
import io
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from automl.backbones.table import load_table
from automl.errors import RecipeError, SpecError
from automl.files import explain_write_errors, read_header, write_text
from automl.memory.step import METHOD, Step
from automl.memory.table import BATCHES, COLUMNS, COMMAND, KINDS, MIB, SHIPPED, Kind, PredictedMemory, load_predictions
from automl.processes import map_in_processes

if TYPE_CHECKING:
    from automl.memory.envelope import Envelope

CLASSES = 2
SAVED_EVERY = 20
"""Rows that an interruption may cost."""


def predict_row(key: tuple[str, int]) -> PredictedMemory:
    """Predicts one row; takes seconds.

    Args:
        key: timm's name of the architecture, without the tag of weights, and pixels of each side.

    Returns:
        The row, with its problem if timm cannot build or train the architecture at this size.
    """
    from torch import nn

    from automl.memory.trace import build_meta_model, trace_model_envelopes

    step = Step(*key, CLASSES)
    try:
        with build_meta_model(step) as model:
            training = trace_model_envelopes(model, step, ("fp16", "fp32"), BATCHES)
            inference = trace_model_envelopes(model, replace(step, training=False), ("fp16",), BATCHES)["fp16"]
            # What cuDNN keeps of them for the backward pass is not traced.
            weak = "recurrent layers" if any(isinstance(m, nn.RNNBase) for m in model.modules()) else ""
    except RecipeError as exc:
        return PredictedMemory(*key, {}, problem=" ".join(str(exc).split())[:160])
    envelopes: dict[Kind, Envelope] = {"fp16": training["fp16"], "fp32": training["fp32"], "inference": inference}
    mib = {
        kind: tuple(-(-envelope.needed_bytes(batch) // MIB) for batch in BATCHES)
        for kind, envelope in envelopes.items()
    }
    return PredictedMemory(*key, mib, training["fp16"].smallest_batch, weak)


def predict_rows(
    wanted: Iterable[tuple[str, int]],
    path: Path = SHIPPED,
    jobs: int = 1,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> list[PredictedMemory]:
    """Predicts the rows that a table does not have yet, and writes it, every few rows and when interrupted.

    Args:
        wanted: Architectures with image sizes; other rows are dropped.
        path: The table, read and written.
        jobs: Processes.
        progress: Called with rows done and rows in all.

    Returns:
        All rows, sorted.

    Raises:
        SpecError: If the table cannot be read or written.
    """
    keys = sorted(set(wanted))
    known = load_predictions(path) if has_these_versions(path) else {}
    rows = {key: known[key] for key in keys if key in known}
    missing = [key for key in keys if key not in rows]
    progress(len(rows), len(keys))
    try:
        for key, row in map_in_processes(predict_row, missing, jobs):
            rows[key] = row
            progress(len(rows), len(keys))
            if len(rows) % SAVED_EVERY == 0:
                write_predictions(rows.values(), path)
    finally:
        if rows:
            write_predictions(rows.values(), path)
    return [rows[key] for key in keys]


def read_versions() -> dict[str, str]:
    """Returns what decides the predictions: the versions of the method, timm and torch."""
    return {"method": str(METHOD), "timm": version("timm"), "torch": version("torch").partition("+")[0]}


def has_these_versions(path: Path) -> bool:
    """Returns whether there is a table that was computed with the versions at hand."""
    with suppress(OSError, UnicodeDecodeError):
        return read_versions().items() <= read_header(path).items()
    return False


def write_predictions(rows: Iterable[PredictedMemory], path: Path = SHIPPED) -> None:
    """Writes a table, atomically, with its versions and command on top.

    Raises:
        SpecError: If it cannot be written.
    """
    header = {**read_versions(), "command": COMMAND, "licence": "Apache-2.0"}
    text = io.StringIO("".join(f"# {key}: {value}\n" for key, value in header.items()))
    text.seek(0, io.SEEK_END)
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in sorted(rows, key=lambda row: (row.arch, row.image_size)):
        figures = [" ".join(map(str, row.mib.get(kind, ()))) for kind in KINDS]
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
    parser.add_argument("--out", type=Path, default=SHIPPED, help="default: where automl reads it")
    given = parser.parse_args(arguments)
    table = load_table()
    wanted = zip(table["model"].str.partition(".")[0], table["image_size"].tolist(), strict=True)
    try:
        rows = predict_rows(wanted, given.out, given.jobs, print_progress)
    except SpecError as exc:
        parser.error(str(exc))
    unknown = sum(bool(row.problem) for row in rows)
    print(f"{given.out}: {len(rows):,} rows, {unknown} of which the installed timm cannot build")


if __name__ == "__main__":
    main()
