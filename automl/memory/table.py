"""Predicted peak memory of every backbone, as two shipped tables: `automl backbones --gpu-mem 16GB`.

One row per (architecture, image size): bytes that PyTorch's allocator needs at several batch sizes, for each kind of
step that the table has: training (two classes, AdamW) in fp16 and in fp32, and a forward pass without gradients in
fp16; of encoders also training of the head alone, or of it and the normalisation layers, in fp16.
`python studies/leaderboard/memory.py` computes both tables.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from automl.backbones import table as leaderboard
from automl.memory.envelope import interpolate_bytes

if TYPE_CHECKING:
    import pandas as pd

SHIPPED = leaderboard.SHIPPED.with_name("memory.csv")
ENCODERS = leaderboard.SHIPPED.with_name("encoder_memory.csv")

BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
MIB = 1 << 20

Kind = Literal["fp16", "fp32", "inference", "frozen", "norms"]
KINDS: tuple[Kind, ...] = ("fp16", "fp32", "inference")
"""Of the leaderboard's table."""
ENCODER_KINDS: tuple[Kind, ...] = (*KINDS, "frozen", "norms")
"""Of the encoders' table; frozen: the head alone learns, norms: it and the normalisation layers, both in fp16."""
COMMAND = "python studies/leaderboard/memory.py"


@dataclass(frozen=True)
class PredictedMemory:
    """What is predicted for one architecture at one image size.

    Attributes:
        arch: timm's name, without the tag of weights.
        image_size: Pixels of each side.
        mib: By kind, MiB of segments at each of `BATCHES`, rounded up; empty if it could not be predicted.
        smallest_batch: 2 where batch normalisation needs more than one image, else 1.
        weak: Why the prediction is known to be weak; "" if it is not.
        problem: Why there is none (the column `trouble`); "" if there is one.
    """

    arch: str
    image_size: int
    mib: dict[Kind, tuple[int, ...]]
    smallest_batch: int = 1
    weak: str = ""
    problem: str = ""

    def needed_bytes(self, kind: Kind, batch: int) -> int | None:
        """Returns the bytes that PyTorch's allocator needs for a batch of images, without the CUDA context.

        None if there is no prediction. Between the batches of the table they are interpolated, which is on the safe
        side: memory is convex in the batch but for fragmentation. Beyond the largest they grow as between the last two.
        """
        figures = self.mib.get(kind)
        if not figures:
            return None
        beyond = max(0, batch - BATCHES[-1])
        slope = MIB * (figures[-1] - figures[-2]) // (BATCHES[-1] - BATCHES[-2])
        return interpolate_bytes(BATCHES, [MIB * figure for figure in figures], batch) + slope * beyond

    def needed_bytes_at(self, kind: Kind, batch: int, image_size: int) -> int | None:
        """Brings `needed_bytes` to another image size: activations grow with the pixels, weights and gradients do not.

        None if there is no prediction.
        """
        one, two, most = (self.needed_bytes(kind, each) for each in (1, 2, batch))
        if one is None or two is None or most is None:
            return None
        fixed = max(0, 2 * one - two)
        return fixed + int((most - fixed) * (image_size / self.image_size) ** 2)


def find_nearest(arch: str, image_size: int) -> PredictedMemory | None:
    """Finds the row of an architecture, without the tag of weights, at the nearest image size; None: there is none."""
    rows = [row for row in _read_shipped().get(arch, ()) if not row.weak and not row.problem]
    return min(rows, key=lambda row: abs(row.image_size - image_size), default=None)


@cache
def _read_shipped() -> dict[str, list[PredictedMemory]]:
    """Reads the shipped tables once, not for each backbone that is looked at."""
    rows: dict[str, list[PredictedMemory]] = {}
    for row in load_predictions().values():
        rows.setdefault(row.arch, []).append(row)
    return rows


def load_predictions(*paths: Path) -> dict[tuple[str, int], PredictedMemory]:
    """Reads tables, in a few milliseconds: rows by architecture and image size; by default both shipped ones.

    Of a row that several have it is the last, so the encoders', which has more kinds.
    """
    tables = [
        leaderboard.read_rows(path, _parse_row, "predicted memory", COMMAND) for path in paths or (SHIPPED, ENCODERS)
    ]
    return {(row.arch, row.image_size): row for rows in tables for row in rows}


def predict_table(table: "pd.DataFrame", kind: Kind, batch: int) -> "tuple[pd.Series[float], pd.Series[str]]":
    """Looks up the prediction for each row of the leaderboard or of the encoders, and a batch of images.

    Returns bytes without the CUDA context, NaN where there is none; and why it is weak, "" where it is not.
    """
    import pandas as pd

    predictions = load_predictions()
    rows = [predictions.get(key) for key in zip(table["model"].str.partition(".")[0], table["image_size"], strict=True)]
    sizes = [row.needed_bytes(kind, batch) if row else None for row in rows]
    weak = [row.weak if row else "" for row in rows]
    return pd.Series(sizes, table.index, dtype="float64"), pd.Series(weak, table.index, dtype="str")


def _parse_row(cells: dict[str, Any]) -> PredictedMemory:
    kinds: list[Kind] = [kind for kind in ENCODER_KINDS if kind in cells]
    mib = {kind: tuple(map(int, cells[kind].split())) for kind in kinds}
    if not set(KINDS) <= mib.keys():
        raise ValueError(f"it has not all of the columns {', '.join(KINDS)}")
    if any(len(figures) not in (0, len(BATCHES)) for figures in mib.values()):
        raise ValueError(f"{cells['arch']} has not {len(BATCHES)} figures")
    kept = {kind: figures for kind, figures in mib.items() if figures}
    size, smallest = int(cells["image_size"]), int(cells["smallest_batch"])
    return PredictedMemory(cells["arch"], size, kept, smallest, cells["weak"], cells["trouble"])
