"""Predicted peak memory of every row of the leaderboard, shipped as a table: `automl backbones --gpu-mem 16GB`.

One row per (architecture, image size): bytes that PyTorch's allocator needs at several batch sizes, for a training step
(two classes, AdamW) in fp16 and in fp32, and for a forward pass without gradients in fp16. What lies between the batch
sizes is interpolated, which is on the safe side: memory is a convex function of the batch but for fragmentation.
`automl leaderboard memory` computes the table; it goes on where it was interrupted.
"""

import contextlib
import csv
import io
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from automl.errors import RecipeError, SpecError
from automl.files import read_header, write_text
from automl.memory.step import METHOD, Step
from automl.processes import map_in_processes

if TYPE_CHECKING:
    import pandas as pd

    from automl.memory.envelope import Envelope

SHIPPED = Path(__file__).parents[1] / "backbones" / "memory.csv"

BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
CLASSES = 2
MIB = 1 << 20

Kind = Literal["fp16", "fp32", "inference"]
KINDS: tuple[Kind, ...] = ("fp16", "fp32", "inference")
COLUMNS = ("arch", "image_size", *KINDS, "smallest_batch", "weak", "trouble")

_SAVED_EVERY = 20
"""Rows that an interruption may cost."""


@dataclass(frozen=True)
class Row:
    """What is predicted for one architecture at one image size.

    Attributes:
        arch: timm's name, without the tag of weights.
        image_size: Pixels of each side.
        mib: By kind, MiB of segments at each of `BATCHES`, rounded up; empty if it could not be predicted.
        smallest_batch: 2 where batch normalisation needs more than one image, else 1.
        weak: Why the prediction is known to be weak; "" if it is not.
        trouble: Why there is none; "" if there is one.
    """

    arch: str
    image_size: int
    mib: dict[Kind, tuple[int, ...]]
    smallest_batch: int = 1
    weak: str = ""
    trouble: str = ""


def row_of(arch: str, image_size: int) -> Row:
    """Predicts one row; takes seconds.

    Args:
        arch: timm's name, without the tag of weights.
        image_size: Pixels of each side.

    Returns:
        The row, with its trouble if timm cannot build or train the architecture at this size.
    """
    from torch import nn

    from automl.memory.trace import built, envelopes_of

    step = Step(arch, image_size, CLASSES)
    try:
        with built(step) as model:
            training = envelopes_of(model, step, ("fp16", "fp32"), BATCHES)
            inference = envelopes_of(model, replace(step, training=False), ("fp16",), BATCHES)["fp16"]
            # What cuDNN keeps of them for the backward pass is not traced.
            weak = "recurrent layers" if any(isinstance(m, nn.RNNBase) for m in model.modules()) else ""
    except RecipeError as exc:
        return Row(arch, image_size, {}, trouble=" ".join(str(exc).split())[:160])
    envelopes: dict[Kind, Envelope] = {"fp16": training["fp16"], "fp32": training["fp32"], "inference": inference}
    mib = {kind: tuple(-(-envelope.at(batch) // MIB) for batch in BATCHES) for kind, envelope in envelopes.items()}
    return Row(arch, image_size, mib, training["fp16"].smallest_batch, weak)


def compute_facts(
    wanted: Iterable[tuple[str, int]],
    path: Path = SHIPPED,
    jobs: int = 1,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> list[Row]:
    """Predicts the rows that a table does not have yet, and writes it, every few rows and when interrupted.

    Rows of another version of torch, timm or the method are computed again; rows that are not wanted are dropped.

    Args:
        wanted: Architectures with image sizes.
        path: The table, read and written.
        jobs: Processes.
        progress: Told rows done and rows in all.

    Returns:
        All rows, sorted.

    Raises:
        SpecError: If the table cannot be written.
    """
    keys = sorted(set(wanted))
    known = {(row.arch, row.image_size): row for row in _rows(path) if row.arch} if _header(path) == _versions() else {}
    rows = {key: known[key] for key in keys if key in known}
    missing = [key for key in keys if key not in rows]
    progress(len(rows), len(keys))
    try:
        for key, row in map_in_processes(_row_of, missing, jobs):
            rows[key] = row
            progress(len(rows), len(keys))
            if len(rows) % _SAVED_EVERY == 0:
                write_facts(rows.values(), path)
    finally:
        if rows:
            write_facts(rows.values(), path)
    return [rows[key] for key in keys]


def _row_of(key: tuple[str, int]) -> Row:
    return row_of(*key)


# --- the file ---------------------------------------------------------------------------------------------------------


def _versions() -> dict[str, str]:
    return {"method": str(METHOD), "timm": version("timm"), "torch": version("torch").partition("+")[0]}


def write_facts(rows: Iterable[Row], path: Path = SHIPPED) -> None:
    """Writes a table, atomically, with its versions and command on top.

    Raises:
        SpecError: If it cannot be written.
    """
    text = io.StringIO()
    for key, value in {**_versions(), "command": "automl leaderboard memory", "licence": "Apache-2.0"}.items():
        text.write(f"# {key}: {value}\n")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in sorted(rows, key=lambda row: (row.arch, row.image_size)):
        figures = [" ".join(map(str, row.mib.get(kind, ()))) for kind in KINDS]
        writer.writerow([row.arch, row.image_size, *figures, row.smallest_batch, row.weak, row.trouble])
    try:
        write_text(path, text.getvalue())
    except OSError as exc:
        raise SpecError(f"cannot write {path}: {exc.strerror or exc}; name another file with --out") from exc


def _header(path: Path) -> dict[str, str]:
    """The versions that a table was computed with; empty if there is none."""
    found: dict[str, str] = {}
    with contextlib.suppress(OSError, UnicodeDecodeError):
        found = read_header(path)
    return {key: found.get(key, "") for key in _versions()}


def _rows(path: Path) -> list[Row]:
    """The rows of a table.

    Raises:
        SpecError: If it is not such a table.
    """
    try:
        with path.open(encoding="utf-8", newline="") as lines:
            return [_row(values) for values in csv.DictReader(line for line in lines if not line.startswith("#"))]
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise SpecError(
            f"{path} is not a table of memory facts ({exc}); make it with: automl leaderboard memory"
        ) from exc


def _row(values: dict[str, Any]) -> Row:
    mib: dict[Kind, tuple[int, ...]] = {kind: tuple(map(int, values[kind].split())) for kind in KINDS}
    if any(len(figures) not in (0, len(BATCHES)) for figures in mib.values()):
        raise ValueError(f"{values['arch']} has not {len(BATCHES)} figures")
    kept = {kind: figures for kind, figures in mib.items() if figures}
    smallest = int(values["smallest_batch"])
    return Row(values["arch"], int(values["image_size"]), kept, smallest, values["weak"], values["trouble"])


def load_facts(path: Path = SHIPPED) -> dict[tuple[str, int], Row]:
    """Reads the table, in a few milliseconds.

    Returns:
        Rows by architecture and image size.

    Raises:
        SpecError: If it cannot be read.
    """
    return {(row.arch, row.image_size): row for row in _rows(path)}


def predicted_bytes(row: Row, kind: Kind, batch: int) -> int | None:
    """The bytes that PyTorch's allocator needs, without the CUDA context.

    Args:
        row: Of the table.
        kind: A training step in fp16 or fp32, or inference.
        batch: Images at once, at least 1.

    Returns:
        Bytes; None if the row has no prediction. Beyond the largest batch of the table they grow in proportion.
    """
    figures = row.mib.get(kind)
    if not figures:
        return None
    if batch > BATCHES[-1]:
        slope = (figures[-1] - figures[-2]) / (BATCHES[-1] - BATCHES[-2])
        return round(MIB * (figures[-1] + slope * (batch - BATCHES[-1])))
    after = next(i for i, known in enumerate(BATCHES) if known >= batch)
    if BATCHES[after] == batch:
        return MIB * figures[after]
    share = (batch - BATCHES[after - 1]) / (BATCHES[after] - BATCHES[after - 1])
    return round(MIB * (figures[after - 1] + share * (figures[after] - figures[after - 1])))


def table_bytes(table: "pd.DataFrame", kind: Kind, batch: int) -> "tuple[pd.Series[float], pd.Series[str]]":
    """The prediction for each row of a leaderboard table.

    Args:
        table: With the columns `model` (arch.tag) and `image_size`.
        kind: As for `predicted_bytes`.
        batch: Images at once.

    Returns:
        Bytes without the CUDA context, NaN where there is no prediction; and why it is weak, "" where it is not.
    """
    import pandas as pd

    facts = load_facts()
    rows = [
        facts.get((model.partition(".")[0], size))
        for model, size in zip(table["model"], table["image_size"], strict=True)
    ]
    sizes = [None if row is None else predicted_bytes(row, kind, batch) for row in rows]
    weak = ["" if row is None else row.weak for row in rows]
    return pd.Series(sizes, table.index, dtype="float64"), pd.Series(weak, table.index, dtype="str")
