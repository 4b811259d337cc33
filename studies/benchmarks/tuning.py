"""What each way to tune a network gives, and costs: all weights, the head, norms, LoRA, the last block, LP-FT.

    python studies/benchmarks/tuning.py --faces ffdi_faces/ --hymenoptera hymenoptera/ --weights-dir weights/ \
        --out tuning.jsonl
    python studies/benchmarks/tuning.py --out tuning.jsonl --summary

Trainings of mobilenetv2_100 at 224 px, five epochs each, in turn, alone on the machine: from 100 and from all training
images, with three seeds. Two rates are tried for each way with the first seed; the better one is repeated. Printed are
the median score of the last validation, seconds, and the peak memory predicted for a step. A run goes on where its file
ends.
"""

import argparse
import json
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).parent / "recipes"))

WAYS: dict[str, tuple[dict[str, Any], tuple[float, float]]] = {
    "all": ({}, (1e-3, 2e-3)),
    "LP-FT": ({"freeze_epochs": 1.0}, (1e-3, 2e-3)),
    "last block": ({"tune": {"name": "last"}}, (1e-3, 4e-3)),
    "LoRA 16": ({"tune": {"name": "lora", "rank": 16, "targets": "all"}, "layer_decay": 1.0}, (1e-3, 4e-3)),
    "norms": ({"tune": {"name": "norms"}, "layer_decay": 1.0}, (2e-3, 1e-2)),
    "norms, L2 head": ({"tune": {"name": "norms"}, "head": {"name": "l2"}, "layer_decay": 1.0}, (2e-3, 1e-2)),
    "head": ({"tune": {"name": "head"}}, (2e-3, 1e-2)),
    "attention head": ({"tune": {"name": "head"}, "head": {"name": "attention"}}, (1e-3, 4e-3)),
}
"""What is changed against the centre of `recipes/train_recipes.py`, and two learning rates."""

TASKS = (("hymenoptera", 100), ("faces", 100), ("hymenoptera", 0), ("faces", 0))


def list_runs(rows: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Lists the runs that are left: first both rates of every way, then the better one with two more seeds."""
    known = {(row["data"], row["images"], row["label"], row["change"]["learning_rate"], row["seed"]) for row in rows}
    for data, images in TASKS:
        for label, (change, rates) in WAYS.items():
            task = {"data": data, "images": images, "label": label}
            first = {rate: (data, images, label, rate, 0) for rate in rates}
            missing = [rate for rate, key in first.items() if key not in known]
            if missing:
                yield task | {"change": change | {"learning_rate": missing[0]}, "seed": 0}
                return
            scores = {row["change"]["learning_rate"]: row["score"] for row in rows if is_of(row, task, seed=0)}
            best = max(rates, key=lambda rate: scores[rate])
            for seed in (1, 2):
                if (data, images, label, best, seed) not in known:
                    yield task | {"change": change | {"learning_rate": best}, "seed": seed}
                    return


def is_of(row: dict[str, Any], task: dict[str, Any], **more: Any) -> bool:
    """Returns whether a row is of a task."""
    return all(row[key] == value for key, value in (task | more).items())


def main(arguments: Sequence[str] | None = None) -> None:
    """Trains what is left, or summarises."""
    text = __doc__ or ""
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faces", type=Path)
    parser.add_argument("--hymenoptera", type=Path)
    parser.add_argument("--weights-dir", type=Path)
    parser.add_argument("--minutes", type=float, default=600.0)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--summary", action="store_true")
    args = parser.parse_args(arguments)
    if not args.summary:
        train_all(args)
    print("\n".join(summarise(read_rows(args.out))))


def train_all(args: argparse.Namespace) -> None:
    """Trains one run after the other, each appended to the file when it ends."""
    from train_recipes import Trainer

    folders = {"faces": args.faces, "hymenoptera": args.hymenoptera}
    trainer = Trainer(folders, args.weights_dir, "cpu", "fp32")
    end = time.monotonic() + 60 * args.minutes
    while time.monotonic() < end:
        run = next(list_runs(read_rows(args.out)), None)
        if run is None:
            return
        row = trainer(json.loads(json.dumps(run)))
        if "error" in row:
            raise SystemExit(f"{run}: {row['error']}")
        row |= {"score": row["final"], "peak_bytes": predict_peak(run)}
        print(f"{row['data']} {row['images']} {row['label']}: {row['score']:.4f} in {row['seconds']:.0f} s", flush=True)
        with args.out.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")


def predict_peak(run: dict[str, Any]) -> int:
    """Predicts the bytes that PyTorch's allocator needs for a training step, without the CUDA context."""
    from train_recipes import make_values

    from automl.memory.estimate import predict_envelope
    from automl.recipe import Recipe

    recipe = Recipe.from_mapping(make_values(run["change"]))
    return predict_envelope(recipe, 2).needed_bytes(recipe.batch_size)


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Reads the rows; none where there is no file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def summarise(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Yields a table: of each way its better rate, the median of its seeds with the least and the largest."""
    yield "| data | images | way | rate | validation AUC | seconds | peak memory |"
    yield "|---|---|---|---|---|---|---|"
    groups: dict[tuple[str, int, str], dict[float, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        groups[row["data"], row["images"], row["label"]][row["change"]["learning_rate"]].append(row)
    for (data, images, label), rates in groups.items():
        rate, found = max(rates.items(), key=lambda item: (len(item[1]), item[1][0]["score"]))
        scores = [row["score"] for row in found]
        spread = f" ({min(scores):.3f}–{max(scores):.3f})" if len(scores) > 1 else ""
        seconds, peak = median(row["seconds"] for row in found), found[0]["peak_bytes"] / 1e6
        yield (
            f"| {data} | {images or 'all'} | {label} | {rate:g} | {median(scores):.3f}{spread} | {seconds:.0f} | "
            f"{peak:.0f} MB |"
        )


if __name__ == "__main__":
    main()
