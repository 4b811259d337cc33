"""Predicts, without a GPU, the memory of every training step in timm's record of an RTX 3090.

    python studies/benchmarks/memory/trace_3090.py --record DIR [--format nchw] [--jobs N] [--timm DIR] [NAMES …]

`DIR` holds timm's results/benchmark-train-amp-{nchw,nhwc}-pt112-cu113-rtx3090.csv. Each network (an architecture at an
image size; several names of the record may stand for one) is traced once. A line of JSON is written when a network is
done, and networks that have a line are passed over: interrupt it and start it again as you like. `--timm` takes
another timm than the installed one: a folder made by `pip install --no-deps --target DIR timm==0.6.7`, which defines
the networks as they were when the record was made. `fit_3090.py` reads what this writes.
"""

import argparse
import csv
import fnmatch
import json
import math
import multiprocessing
import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

if TYPE_CHECKING:
    import torch
    from torch import nn

    from automl.memory.caching_allocator import Event
    from automl.memory.step import Step

ROWS = Path(__file__).parent / "rows"
RECORD = "benchmark-train-amp-{}-pt112-cu113-rtx3090.csv"
TOP = 512
"""Where the benchmark began: the largest batch in the record, and its most frequent one."""


@dataclass(frozen=True)
class Recorded:
    """A row of the record: facts alone."""

    model: str
    image_size: int
    batch: int
    parameters_millions: float


@dataclass
class Network:
    """What is traced once: an architecture at an image size, and the names it has in the record."""

    backbone: str
    image_size: int
    recorded: list[Recorded] = field(default_factory=list)


def ladder() -> list[int]:
    """The benchmark's batches, descending: at each failure timm's `decay_batch_step` takes a third or a quarter off."""
    batches = [TOP]
    while batches[-1] > 1:
        power = 2 ** int(math.log2(batches[-1] - 1))
        step = max(power // 2, 1)
        batches.append(power + (batches[-1] - power - 1) // step * step)
    return batches


def next_batch(batch: int) -> int | None:
    """The batch that failed before `batch` fitted; None for the largest one, which nothing failed before."""
    steps = ladder()
    at = steps.index(batch)
    return steps[at - 1] if at else None


def read_record(path: Path) -> list[Recorded]:
    """Reads timm's CSV."""
    with path.open(encoding="utf-8", newline="") as file:
        return [
            Recorded(
                row["model"],
                int(row["train_img_size"]),
                int(row["train_batch_size"]),
                float(row["param_count"]),
            )
            for row in csv.DictReader(file)
        ]


def networks_of(record: list[Recorded]) -> tuple[list[Network], list[Recorded]]:
    """Groups the record by what the timm at hand builds under its names.

    Returns:
        The networks, and the rows whose names this timm no longer has.
    """
    networks: dict[tuple[str, int], Network] = {}
    unknown = []
    for row in record:
        backbone = present_name(row.model)
        if backbone is None:
            unknown.append(row)
            continue
        key = backbone, row.image_size
        networks.setdefault(key, Network(*key)).recorded.append(row)
    return list(networks.values()), unknown


def present_name(model: str) -> str | None:
    """The architecture that the timm at hand builds under an old name, without a tag; None if it has none."""
    from timm import models

    registry = sys.modules[models.is_model.__module__]
    renamed = getattr(registry, "_deprecated_models", {}).get(model) or model
    name = str(renamed).partition(".")[0]
    return name if models.is_model(name) else None


def trace(network: Network, layout: str) -> dict[str, Any]:
    """Traces a network; what goes wrong is the row's `error`."""
    began = time.perf_counter()
    row: dict[str, Any] = {
        "backbone": network.backbone,
        "image_size": network.image_size,
        "recorded": {r.model: r.batch for r in network.recorded},
        "timm": sys.modules["timm"].__version__,
    }
    try:
        row |= measure(network, layout)
    except (Exception, SystemExit) as exc:  # old definitions may raise anything under a new torch
        traceback.print_exc(file=sys.stderr)
        row["error"] = f"{type(exc).__name__}: {(str(exc).strip().splitlines() or [''])[0][:200]}"
    return row | {"seconds": round(time.perf_counter() - began, 1)}


def measure(network: Network, layout: str) -> dict[str, Any]:
    """The bytes that a network's step needs at the recorded batches and at the next ones."""
    import torch
    from torch import nn

    from automl.backbones.timm_model import build_on_meta
    from automl.memory import trace as tracing
    from automl.memory.envelope import events_at
    from automl.memory.step import Step

    torch.manual_seed(0)
    wanted = {"img_size": network.image_size, "drop_path_rate": 0}
    model, _ = build_on_meta(network.backbone, wanted, num_classes=1000)
    parameters = sum(p.numel() for p in model.parameters())
    for module in model.modules():
        if hasattr(module, "num_batches_tracked"):
            module.num_batches_tracked = None  # old timm makes a new one in every step: traces would not pair
    step = Step(
        network.backbone,
        network.image_size,
        1000,
        precision="fp16",
        memory_format={"nchw": "contiguous", "nhwc": "channels_last"}[layout],
        optimizer="sgd",
        nesterov=True,
        weight_decay=False,
        accumulates=True,  # torch 1.12's zero_grad() fills with zeros, so that gradients are there all the time
        kernel="loop",  # and its SGD takes one parameter after the other
    )
    batches = {b for r in network.recorded for b in (r.batch, next_batch(r.batch)) if b is not None}
    with mock.patch.object(tracing, "_run_pass", benchmark_pass):
        first, second = tracing.trace_model(model, step, tracing.TRACED_BATCHES, ("fp16",))["fp16"]
    if [(s, c > 0) for s, c in first] != [(s, c > 0) for s, c in second]:
        raise ValueError("the traces at two batch sizes differ in more than sizes")
    return {
        "family": type(model).__module__.rpartition(".")[2],
        "parameters": parameters,
        "parameters_differ": any(abs(r.parameters_millions - parameters / 1e6) > 0.006 for r in network.recorded),
        "recurrent": any(isinstance(module, nn.RNNBase) for module in model.modules()),
        "at": {str(b): sizes(events_at(first, second, tracing.TRACED_BATCHES, b)) for b in sorted(batches)},
    }


def benchmark_pass(model: "nn.Module", step: "Step", batch: int, dtype: "torch.dtype | None") -> None:
    """The benchmark's forward and backward pass: unlike ours, it goes backward while autocast is still on.

    So autocast's float16 copies of the weights live until the end.
    """
    import torch
    import torch.nn.functional as F

    from automl.memory import trace as tracing

    images = torch.empty(batch, 3, step.image_size, step.image_size, device="meta")
    images = images.contiguous(memory_format=tracing.FORMATS[step.memory_format])
    with tracing.cuda_autocast(dtype) as autocast, tracing.cuda_kernels(), torch.device("meta"), autocast():
        logits = model(images)
        if isinstance(logits, tuple):  # a distilled model's first head
            logits = logits[0]
        F.cross_entropy(logits, torch.empty(len(logits), dtype=torch.long)).backward()


def sizes(events: list["Event"]) -> dict[str, Any]:
    """What a step at one batch needs, in bytes.

    Returns:
        live: The most alive at once. needed: The segments that the allocator gets by with, which is what
        `automl.memory.envelope.Envelope.needed_bytes` gives. largest: The largest storage.
    """
    from automl.memory.caching_allocator import needed_bytes, peak_live_bytes

    largest = max(event.change_bytes for event in events)
    return {"live": peak_live_bytes(events), "needed": needed_bytes(events), "largest": largest}


def use_timm(folder: str | None) -> None:
    """Imports the timm to trace, with attention as it was computed then: no fused kernels."""
    if folder is not None:
        sys.path.insert(0, folder)
    import timm

    if folder is not None and not Path(timm.__file__).is_relative_to(Path(folder).resolve()):
        raise SystemExit(f"{folder} holds no timm; make it with `pip install --no-deps --target {folder} timm==0.6.7`")
    if folder is None:
        timm.layers.set_fused_attn(False)


def _start_worker(folder: str | None) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent answers Ctrl-C
    os.environ["OMP_NUM_THREADS"] = "1"
    use_timm(folder)
    import torch

    torch.set_num_threads(1)


def _trace(task: tuple[Network, str]) -> dict[str, Any]:
    return trace(*task)


def done(path: Path) -> set[tuple[str, int]]:
    """The networks that have a line; one cut short by an interruption is passed over."""
    found = set()
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            row = json.loads(line)
        except ValueError:
            continue
        found.add((row["backbone"], row["image_size"]))
    return found


def traced(networks: list[Network], layout: str, jobs: int, folder: str | None) -> Iterator[dict[str, Any]]:
    """Traces networks in processes of their own, which are replaced now and then: torch keeps memory."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(jobs, _start_worker, (folder,), maxtasksperchild=25) as pool:
        yield from pool.imap_unordered(_trace, [(network, layout) for network in networks])


def main() -> None:
    """Traces what has no line yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="patterns of names in the record (default: all)")
    parser.add_argument("--record", type=Path, required=True, help="the folder with timm's CSV files")
    parser.add_argument("--format", choices=("nchw", "nhwc"), default="nchw")
    parser.add_argument("--timm", metavar="DIR", help="a folder with another timm than the installed one")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--out", type=Path, help="default: rows/FORMAT-timm-VERSION.jsonl")
    given = parser.parse_args()
    use_timm(given.timm)
    out = given.out or ROWS / f"{given.format}-timm-{sys.modules['timm'].__version__}.jsonl"
    patterns = given.names or ["*"]
    record = read_record(given.record / RECORD.format(given.format))
    record = [r for r in record if any(fnmatch.fnmatchcase(r.model, pattern) for pattern in patterns)]
    networks, unknown = networks_of(record)
    print(f"{len(record)} rows of the record are {len(networks)} networks; timm has no longer {len(unknown)} of them:")
    print(" ", *sorted(r.model for r in unknown))
    finished = done(out)
    todo = [network for network in networks if (network.backbone, network.image_size) not in finished]
    random.Random(0).shuffle(todo)  # the record is sorted by speed: so any part is a sample, and the time left is told
    print(f"{len(networks) - len(todo)} are in {out} already", flush=True)
    if not todo:
        return
    began = time.perf_counter()
    with out.open("a", encoding="utf-8") as file:
        for count, row in enumerate(traced(todo, given.format, given.jobs, given.timm), 1):
            file.write(json.dumps(row) + "\n")
            file.flush()
            left = (time.perf_counter() - began) / count * (len(todo) - count)
            said = row.get("error") or f"{row['seconds']} s"
            print(f"{count}/{len(todo)} {row['backbone']} {row['image_size']} px: {said}; {left / 60:.0f} min left")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        raise SystemExit("interrupted; the same command goes on where it was") from None
