"""The predicted memory of training steps against what a GPU measures.

    python studies/benchmarks/memory/gpu_compare.py [--models 66] [--minutes M] [--out rows/GPU.csv] [--summary FILE]

Each backbone of a sample of the leaderboard (families in turn, sizes from the smallest to the largest) is trained for a
few steps in a fresh process by `automl.memory.probe`, at the smallest micro-batch and at the largest predicted to fit
half of the card (at most 128), with a precision, an optimizer and a memory format that go round the sample. A line of
CSV is written per step; a run goes on where the last one was. `--summary` measures nothing and summarises a file.

Compared are the peak of live tensors (`torch.cuda.max_memory_allocated`), the allocator's segments
(`max_memory_reserved`; the prediction is what it gets by with when memory is short, and with more at hand it takes
more) and NVML's figure for the process (the prediction plus the measured context).
"""

import argparse
import csv
import re
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import cycle, product
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from automl.recipe import Recipe

CLASSES = 2
LARGEST_BATCH = 128
SETTINGS = tuple(product(("fp32", "bf16", "fp16"), ("adamw", "sgd"), ("contiguous", "channels_last")))
UNDERESTIMATE = 0.05
"""A step that takes this much more than predicted must be explained."""


@dataclass(frozen=True)
class Row:
    """One measured step; sizes are bytes, `process` is 0 where NVML does not say."""

    gpu: str
    backbone: str
    family: str
    image_size: int
    precision: str
    memory_format: str
    optimizer: str
    batch: int
    predicted_live: int
    allocated: int
    predicted_needed: int
    reserved: int
    context: int
    process: int
    torch: str
    timm: str
    trouble: str = ""

    @property
    def key(self) -> tuple[object, ...]:
        """What one backbone's measurement is recognised by."""
        return self.gpu, self.backbone, self.image_size, self.precision, self.memory_format, self.optimizer


def errors(rows: Iterable[Row], kind: str) -> list[float]:
    """How much more was predicted than measured, as shares of what was measured.

    Args:
        rows: Measured steps; those with trouble are passed over.
        kind: `allocated`, `reserved` or `process`.
    """
    found = []
    for row in rows:
        predicted = {
            "allocated": row.predicted_live,
            "reserved": row.predicted_needed,
            "process": row.predicted_needed + row.context,
        }[kind]
        if not row.trouble and (measured := getattr(row, kind)):
            found.append(predicted / measured - 1)
    return found


def quantile(values: Sequence[float], share: float) -> float:
    """The value that `share` of the values do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, -(-int(share * 1000) * len(ordered) // 1000) - 1)]


def summary(rows: Sequence[Row]) -> list[str]:
    """Lines: the errors of each figure, and the underestimates to be explained."""
    measured = [row for row in rows if not row.trouble]
    backbones = {row.backbone for row in measured}
    lines = [f"{len(measured)} steps of {len(backbones)} backbones of {len({row.family for row in measured})} families"]
    for kind in ("allocated", "reserved", "process"):
        if found := errors(measured, kind):
            size = [abs(error) for error in found]
            lines.append(
                f"  {kind:<10} |error| median {median(size):.1%}, p95 {quantile(size, 0.95):.1%}, largest "
                f"{max(size):.1%}; median error {median(found):+.1%}; "
                f"{sum(error < -UNDERESTIMATE for error in found)} underestimates over {UNDERESTIMATE:.0%}"
            )
    for row in measured:
        (error,) = errors([row], "allocated")
        if error < -UNDERESTIMATE:
            setting = f"{row.image_size} px, {row.precision}, {row.memory_format}, {row.optimizer}, batch {row.batch}"
            lines.append(f"  underestimated: {row.backbone} ({setting}) by {-error:.1%}")
    return lines + [f"  not measured: {row.backbone}: {row.trouble}" for row in rows if row.trouble]


def read_rows(path: Path) -> list[Row]:
    """Reads what was measured before; nothing, if there is no file."""
    if not path.exists():
        return []
    types = {name.name: name.type for name in fields(Row)}
    with path.open(encoding="utf-8", newline="") as file:
        return [
            Row(**{name: int(value) if types[name] is int else value for name, value in line.items()})
            for line in csv.DictReader(file)
        ]


def append(path: Path, rows: Iterable[Row]) -> None:
    """Adds rows to a file, with the header if it is new."""
    new = not path.exists()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, [name.name for name in fields(Row)], lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerows(asdict(row) for row in rows)


def sample(backbones: Iterable[tuple[str, int, float]], count: int) -> list[tuple[str, int, str]]:
    """Backbones of many families and sizes.

    Args:
        backbones: Names, image sizes and millions of parameters.
        count: How many to take.

    Returns:
        Name, image size and family: of each family in turn the one in the middle of its sizes, then what lies
        farthest from what was taken of it.
    """
    families: dict[str, list[tuple[float, str, int]]] = {}
    for name, image_size, parameters in sorted(backbones):
        architecture = name.partition(".")[0]
        family = re.split(r"[_\d]", architecture.removeprefix("tf_"), maxsplit=1)[0]
        if all(architecture != other for _, other, _ in families.setdefault(family, [])):
            families[family].append((parameters, architecture, image_size))
    queues = {family: _spread(sorted(members)) for family, members in sorted(families.items())}
    taken: list[tuple[str, int, str]] = []
    for place in range(max(map(len, queues.values()), default=0)):
        taken += [(*members[place][1:], family) for family, members in queues.items() if place < len(members)]
    return taken[:count]


def _spread(members: Sequence[tuple[float, str, int]]) -> list[tuple[float, str, int]]:
    left = list(range(len(members)))
    order = [left.pop(len(left) // 2)]
    while left:
        farthest = max(left, key=lambda at: (min(abs(at - other) for other in order), at))
        left.remove(farthest)
        order.append(farthest)
    return [members[at] for at in order]


def settings(chosen: Sequence[tuple[str, int, str]]) -> Iterator[tuple["Recipe", str]]:
    """A recipe for each backbone, and its family."""
    from automl.recipe import Recipe

    for (name, image_size, family), (precision, optimizer, layout) in zip(chosen, cycle(SETTINGS), strict=False):
        values = {
            "backbone": name,
            "image_size": image_size,
            "pretrained": False,
            "optimizer": {"name": optimizer},
            "numerics": {"precision": precision, "memory_format": layout},
            "batch_size": LARGEST_BATCH,
        }
        yield Recipe.from_mapping(values), family


def compare(recipe: "Recipe", family: str, device: str, budget: int) -> list[Row]:
    """Measures one backbone at two micro-batches; trouble is a row as well."""
    from importlib.metadata import version

    from automl.errors import AutomlError
    from automl.memory import envelope_of, largest_micro_batch
    from automl.memory.nvml import find_gpu
    from automl.memory.probe import CannotProbe, probe

    gpu = find_gpu(device)
    fixed = {
        "gpu": gpu.name if gpu else device,
        "backbone": recipe.backbone,
        "family": family,
        "image_size": recipe.image_size,
        "precision": recipe.numerics.precision,
        "memory_format": recipe.numerics.memory_format,
        "optimizer": recipe.optimizer.name,
        "torch": version("torch"),
        "timm": version("timm"),
    }
    try:
        batch = largest_micro_batch(recipe, CLASSES, budget // 2)
        recipe = recipe.model_copy(update={"batch_size": max(batch, 2)})
        measured = probe(recipe, CLASSES, device, budget)
        rows = []
        for step in measured.steps:
            envelope = envelope_of(recipe, CLASSES, accumulates=step.batch < recipe.batch_size)
            figures = envelope.live_at(step.batch), step.allocated, envelope.at(step.batch), step.reserved
            names = ("predicted_live", "allocated", "predicted_needed", "reserved")
            context, process = measured.context_bytes, step.process or 0
            sizes = dict(zip(names, figures, strict=True)) | {"context": context, "process": process}
            rows.append(Row(**fixed, batch=step.batch, **sizes))
        return rows
    except (AutomlError, CannotProbe) as exc:
        zeros = ("batch", "predicted_live", "allocated", "predicted_needed", "reserved", "context", "process")
        return [Row(**fixed, **dict.fromkeys(zeros, 0), trouble=str(exc).replace("\n", " "))]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures what was not measured yet, and summarises."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=int, default=66)
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no measurement after this long")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "rows" / "gpu.csv")
    parser.add_argument("--summary", type=Path, help="summarise this file and measure nothing")
    given = parser.parse_args(arguments)
    if given.summary is None:
        measure(given.models, given.minutes, given.device, given.out)
    rows = read_rows(given.summary or given.out)
    print("\n".join(summary(rows)))


def measure(models: int, minutes: float, device: str, out: Path) -> None:
    """Measures a sample of the leaderboard, less what the file has."""
    import torch

    from automl.leaderboard import load_table
    from automl.memory.budget import budget_bytes
    from automl.memory.nvml import find_gpu, read_nvml

    if not torch.cuda.is_available():
        trouble = read_nvml().trouble or "torch sees none"
        sys.exit(f"there is no GPU to measure on ({trouble}); --summary FILE summarises what was measured elsewhere")
    budget = budget_bytes("auto", [device]).bytes
    assert budget is not None
    gpu = find_gpu(device)
    done = {row.key for row in read_rows(out)}
    table = load_table()
    chosen = sample(zip(table["model"], table["image_size"], table["params_m"], strict=True), models)
    began = time.monotonic()
    for count, (recipe, family) in enumerate(settings(chosen), 1):
        numerics = recipe.numerics
        name = gpu.name if gpu else device
        numbers = recipe.image_size, numerics.precision, numerics.memory_format, recipe.optimizer.name
        if (name, recipe.backbone, *numbers) in done:
            continue
        if time.monotonic() - began > 60 * minutes:
            print(f"{minutes} minutes are over; the same command goes on")
            break
        rows = compare(recipe, family, device, budget)
        append(out, rows)
        told = rows[0].trouble or ", ".join(f"batch {r.batch} {r.predicted_live / r.allocated - 1:+.1%}" for r in rows)
        print(f"{count}/{len(chosen)} {recipe.backbone} {recipe.image_size} px: {told}", flush=True)


if __name__ == "__main__":
    main()
