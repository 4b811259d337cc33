"""The predicted memory of training steps against what a GPU measures.

    python studies/benchmarks/memory/gpu_compare.py [--models 66] [--minutes M] [--out rows/GPU.csv] [--jobs N]
                                                    [--summary FILE] [--replay]

Each backbone of a sample of the leaderboard (families in turn, sizes from the smallest to the largest) is trained for a
few steps in a fresh process by `automl.gpu.probe`, at the smallest micro-batch and at the largest predicted to fit
half of the card (at most 128), with a precision, an optimizer and a memory format that go round the sample. A line of
CSV is written per step; a run goes on where the last one was. `--summary` measures nothing and summarises a file.
The predictions need no GPU and are made first, by `--jobs` processes, so that the GPU's time goes into measuring.

Compared are the peak of live tensors (`torch.cuda.max_memory_allocated`), the allocator's segments
(`max_memory_reserved`; the prediction is what it gets by with when memory is short, and with more at hand it takes
more) and NVML's figure for the process (the prediction plus the measured context). What libraries keep in the
allocator (cuBLAS's workspaces) is no tensor of the step: it is measured and added to each prediction. `--replay` traces
each measured step again (two seconds a step, without a GPU) and hands its tensors to a model of the allocator that has
memory without end, which tells how much of the differences the allocator explains.
"""

import argparse
import csv
import os
import re
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import cycle, product
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

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
    workspace: int
    process: int
    torch: str
    timm: str
    trouble: str = ""

    @property
    def key(self) -> tuple[object, ...]:
        """What one backbone's measurement is recognised by."""
        return self.gpu, self.backbone, self.image_size, self.precision, self.memory_format, self.optimizer


def key_of(recipe: "Recipe") -> tuple[object, ...]:
    """What a recipe's measurement on one GPU is recognised by."""
    numerics = recipe.numerics
    return (
        recipe.backbone,
        recipe.image_size,
        numerics.precision,
        numerics.memory_format,
        recipe.optimizer.name,
    )


def errors(rows: Iterable[Row], kind: str) -> list[float]:
    """How much more was predicted than measured, as shares of what was measured.

    Args:
        rows: Measured steps; those with trouble are passed over.
        kind: `allocated`, `reserved` or `process`.
    """
    found = []
    for row in rows:
        predicted = {
            "allocated": row.predicted_live + row.workspace,
            "reserved": row.predicted_needed + row.workspace,
            "process": row.predicted_needed + row.workspace + row.context,
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
            lines.append(f"  {kind:<10} {_told(found)}")
    for row in measured:
        (error,) = errors([row], "allocated")
        if error < -UNDERESTIMATE:
            setting = f"{row.image_size} px, {row.precision}, {row.memory_format}, {row.optimizer}, batch {row.batch}"
            lines.append(f"  underestimated: {row.backbone} ({setting}) by {-error:.1%}")
    return lines + [f"  not measured: {row.backbone}: {row.trouble}" for row in rows if row.trouble]


def _told(found: Sequence[float]) -> str:
    size = [abs(error) for error in found]
    return (
        f"|error| median {median(size):.1%}, p95 {quantile(size, 0.95):.1%}, largest {max(size):.1%}; "
        f"median error {median(found):+.1%}; "
        f"{sum(error < -UNDERESTIMATE for error in found)} underestimates over {UNDERESTIMATE:.0%}"
    )


def replayed(row: Row, *, accumulates: bool) -> tuple[int, int]:
    """What the allocator makes of a measured step's tensors where it has memory without end; bytes.

    Args:
        row: The step.
        accumulates: Whether gradients are accumulated.

    Returns:
        The peak of the blocks that it hands out, and of the segments that it takes for them.
    """
    from automl.memory.caching_allocator import CachingAllocator
    from automl.memory.envelope import events_at
    from automl.memory.step import describe_step
    from automl.memory.trace import TRACED_BATCHES, build_meta_model, trace_model

    setting = (row.backbone, row.image_size, row.precision, row.optimizer, row.memory_format)
    step = describe_step(recipe_of(*setting), CLASSES, accumulates)
    with build_meta_model(step) as model:
        first, second = trace_model(model, step, TRACED_BATCHES, (row.precision,))[row.precision]
    allocator = CachingAllocator()
    used = sum(allocator.allocate(row.workspace // 2).size_bytes for _ in range(2))  # of forward and backward
    peak, blocks = used, {}
    for storage, change_bytes in events_at(first, second, TRACED_BATCHES, row.batch):
        if change_bytes > 0:
            blocks[storage] = allocator.allocate(change_bytes)
            used += blocks[storage].size_bytes
        else:
            block = blocks.pop(storage)
            used -= block.size_bytes
            allocator.release(block)
        peak = max(peak, used)
    return peak, allocator.peak_bytes


def replay_summary(rows: Sequence[Row]) -> list[str]:
    """Lines: what the allocator leaves unexplained of the differences."""
    measured = [row for row in rows if not row.trouble]
    largest: dict[tuple[object, ...], int] = {}
    for row in measured:
        largest[row.key] = max(row.batch, largest.get(row.key, 0))
    peaks = [replayed(row, accumulates=row.batch < largest[row.key]) for row in measured]
    allocated = [blocks / row.allocated - 1 for row, (blocks, _) in zip(measured, peaks, strict=True)]
    reserved = [segments / row.reserved - 1 for row, (_, segments) in zip(measured, peaks, strict=True)]
    lines = ["replayed, with memory without end", f"  allocated  {_told(allocated)}", f"  reserved   {_told(reserved)}"]
    for row, blocks, segments in zip(measured, allocated, reserved, strict=True):
        if min(blocks, segments) < -UNDERESTIMATE:
            setting = f"{row.precision}, {row.memory_format}, batch {row.batch}"
            lines.append(f"  left: {row.backbone} ({setting}) allocated {blocks:+.1%}, reserved {segments:+.1%}")
    return lines


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
    for (name, image_size, family), (precision, optimizer, layout) in zip(chosen, cycle(SETTINGS), strict=False):
        yield recipe_of(name, image_size, precision, optimizer, layout), family


def recipe_of(backbone: str, image_size: int, precision: str, optimizer: str, memory_format: str) -> "Recipe":
    """What is trained, at the largest batch."""
    from automl.recipe import Recipe

    values = {
        "backbone": backbone,
        "image_size": image_size,
        "pretrained": False,
        "optimizer": {"name": optimizer},
        "numerics": {"precision": precision, "memory_format": memory_format},
        "batch_size": LARGEST_BATCH,
    }
    return Recipe.from_mapping(values)


def predict_ahead(recipes: Sequence["Recipe"], budget: int, jobs: int) -> None:
    """Leaves the predictions that `compare` asks for in the cache; what cannot be predicted is told there."""
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor, wait

    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), initializer=_use_one_thread) as pool:
        wait([pool.submit(_predict, recipe.model_dump(), budget) for recipe in recipes])


def _use_one_thread() -> None:
    import torch

    torch.set_num_threads(1)


def _predict(values: dict[str, Any], budget: int) -> None:
    from automl.memory.estimate import largest_micro_batch, predict_envelope
    from automl.recipe import Recipe

    recipe = Recipe.from_mapping(values)
    largest_micro_batch(recipe, CLASSES, budget // 2)
    predict_envelope(recipe, CLASSES, accumulates=True)


def compare(recipe: "Recipe", family: str, device: str, budget: int) -> list[Row]:
    """Measures one backbone at two micro-batches; trouble is a row as well."""
    from importlib.metadata import version

    from automl.errors import AutomlError
    from automl.gpu.nvml import find_gpu
    from automl.gpu.probe import CannotProbe, probe_backbone
    from automl.memory.estimate import largest_micro_batch, predict_envelope

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
        measured = probe_backbone(recipe, CLASSES, device, budget)
        context, workspace, rows = measured.context_bytes, measured.workspace_bytes, []
        for step in measured.steps:
            envelope = predict_envelope(recipe, CLASSES, accumulates=step.batch < recipe.batch_size)
            figures = envelope.live_bytes(step.batch), step.allocated, envelope.needed_bytes(step.batch), step.reserved
            names = ("predicted_live", "allocated", "predicted_needed", "reserved")
            sizes = dict(zip(names, figures, strict=True)) | {"process": step.process or 0}
            rows.append(Row(**fixed, batch=step.batch, **sizes, context=context, workspace=workspace))
        return rows
    except (AutomlError, CannotProbe) as exc:
        zeros = dict.fromkeys((name.name for name in fields(Row) if name.type is int and name.name not in fixed), 0)
        return [Row(**fixed, **zeros, trouble=str(exc).replace("\n", " "))]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures what was not measured yet, and summarises."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=int, default=66)
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no measurement after this long")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "rows" / "gpu.csv")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes that predict")
    parser.add_argument("--summary", type=Path, help="summarise this file and measure nothing")
    parser.add_argument("--replay", action="store_true", help="also tell how much the allocator explains")
    given = parser.parse_args(arguments)
    if given.summary is None:
        measure(given.models, given.minutes, given.device, given.out, given.jobs)
    rows = read_rows(given.summary or given.out)
    print("\n".join(summary(rows) + (replay_summary(rows) if given.replay else [])))


def measure(models: int, minutes: float, device: str, out: Path, jobs: int) -> None:
    """Measures a sample of the leaderboard, less what the file has."""
    import torch

    from automl.backbones.table import load_table
    from automl.gpu.budget import decide_budget
    from automl.gpu.nvml import find_gpu, read_nvml

    if not torch.cuda.is_available():
        trouble = read_nvml().problem or "torch sees none"
        sys.exit(f"there is no GPU to measure on ({trouble}); --summary FILE summarises what was measured elsewhere")
    budget = decide_budget("auto", [device]).bytes
    assert budget is not None
    gpu = find_gpu(device)
    done = {row.key for row in read_rows(out)}
    table = load_table()
    chosen = sample(zip(table["model"], table["image_size"], table["params_m"], strict=True), models)
    began = time.monotonic()
    name = gpu.name if gpu else device
    wanted = [
        (count, recipe, family)
        for count, (recipe, family) in enumerate(settings(chosen), 1)
        if (name, *key_of(recipe)) not in done
    ]
    predict_ahead([recipe for _, recipe, _ in wanted], budget, jobs)
    print(f"{len(wanted)} backbones predicted in {time.monotonic() - began:.0f} s", flush=True)
    for count, recipe, family in wanted:
        if time.monotonic() - began > 60 * minutes:
            print(f"{minutes} minutes are over; the same command goes on")
            break
        rows = compare(recipe, family, device, budget)
        append(out, rows)
        told = rows[0].trouble or ", ".join(f"batch {r.batch} {errors([r], 'allocated')[0]:+.1%}" for r in rows)
        print(f"{count}/{len(chosen)} {recipe.backbone} {recipe.image_size} px: {told}", flush=True)


if __name__ == "__main__":
    main()
