"""How long a search takes until its first trial trains, and how well a CPU's training steps are predicted.

    python studies/benchmarks/start_up.py --data DIR --weights-dir WEIGHTS [--reach 100]
    python studies/benchmarks/start_up.py --predictions 24

The first starts `automl search` in a fresh process with an empty cache and stops it when the first trial has done a
training step; `--reach N` puts N backbones within reach, the smallest of the leaderboard beside those of the folder, by
links to its first file: their weights do not load, but all are looked at. The second times so many backbones, families
in turn, and fits what activations cost against multiplications (`automl.study.candidates._MACTS_PER_GMAC`): it prints
timed over predicted seconds of each, with one factor for the machine from the smallest, as a search has it.
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures one of both."""
    text = __doc__ or ""
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--weights-dir", type=Path)
    parser.add_argument("--reach", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--predictions", type=int, default=0)
    args = parser.parse_args(arguments)
    if args.predictions:
        print("\n".join(compare_predictions(args.predictions)))
        return
    if args.data is None or args.weights_dir is None:
        parser.error("--data and --weights-dir are needed, or --predictions")
    seconds = [measure_start(args.data, args.weights_dir, args.reach) for _ in range(args.rounds)]
    print(f"first training step after {median(seconds):.1f} s ({min(seconds):.1f} to {max(seconds):.1f})")


def measure_start(data: Path, weights_dir: Path, reach: int) -> float:
    """Returns the seconds from the command to the first training step, or until the first trial has begun to load."""
    with tempfile.TemporaryDirectory(prefix="automl-start-") as folder:
        weights = Path(folder) / "weights"
        weights.mkdir()
        files = sorted(weights_dir.resolve().glob("*.safetensors"))
        for file in files:
            (weights / file.name).symlink_to(file)
        for name in list_smallest(reach):
            if not (weights / f"{name}.safetensors").exists():
                (weights / f"{name}.safetensors").symlink_to(files[0])
        runs = Path(folder) / "runs"
        flags = {"data": data.resolve(), "weights-dir": weights, "runs": runs, "gpu-mem": "16GB", "timeout": "20m"}
        command = [sys.executable, "-m", "automl", "search", "--name", "study"]
        command += [part for name, value in flags.items() for part in (f"--{name}", str(value))]
        environment = os.environ | {"AUTOML_CACHE": str(Path(folder) / "cache")}
        started = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
        try:
            while process.poll() is None and not has_begun(runs / "study"):
                time.sleep(0.05)
            return time.perf_counter() - started
        finally:
            for _ in range(2):  # the second one ends the worker as well, which would train beside the next round
                process.send_signal(signal.SIGINT)
                time.sleep(1)
            process.wait()


def has_begun(study: Path) -> bool:
    """Returns whether a worker has reported a step, or a trial has ended."""
    from automl.errors import StudyError
    from automl.study.claims import open_claims
    from automl.study.folder import StudyFolder
    from automl.study.storage import open_study

    try:
        workers = open_claims(open_study(StudyFolder(study))).read().workers.values()
    except StudyError:  # it is being prepared
        return False
    if any("step" in worker.doing for worker in workers):
        return True
    return any("trial 0:" in path.read_text(encoding="utf-8") for path in study.glob("workers/*.log"))


def list_smallest(count: int) -> list[str]:
    """Lists the architectures of the leaderboard with the fewest parameters."""
    from automl.backbones.table import load_table

    table = load_table().sort_values("params_m")
    return list(dict.fromkeys(table["model"].str.partition(".")[0]))[:count]


def compare_predictions(count: int) -> list[str]:
    """Times backbones of different families, fits the cost of activations, and lists timed over predicted seconds."""
    import numpy as np

    from automl.backbones.table import load_table
    from automl.devices import keep_freed_memory
    from automl.recipe import Recipe
    from automl.study.candidates import step_cost
    from automl.training.precision import best_numerics

    keep_freed_memory()
    table = load_table()
    table = table[(table["image_size"] == 224) & table["macts"].notna() & (table["gmacs"] < 6)]
    table = table.sort_values("params_m").drop_duplicates("family")
    chosen: list[dict[str, Any]] = table.iloc[:: max(1, len(table) // count)][:count].to_dict("records")
    rows = []
    for row in chosen:
        try:
            timing = best_numerics(Recipe(backbone=row["model"], image_size=192), 2, "cpu")
        except Exception as exc:
            print(f"{row['model']}: {exc}")
            continue
        rows.append((row, timing.train_seconds))
    sizes = np.array([[row["gmacs"], row["macts"]] for row, _ in rows]) * (192 / 224) ** 2
    seconds = np.array([timed for _, timed in rows])
    weights = sizes / seconds[:, None]  # relative errors count
    (per_gmac, per_mact), *_ = np.linalg.lstsq(weights, np.ones(len(rows)), rcond=None)
    smallest = min(range(len(rows)), key=lambda index: step_cost(rows[index][0], 192))
    factor = seconds[smallest] / step_cost(rows[smallest][0], 192)
    ratios = [timed / (factor * step_cost(row, 192)) for row, timed in rows]
    lines = [
        f"{row['model']:45} {timed:.4f} s, timed / predicted {ratio:.2f}"
        for (row, timed), ratio in zip(rows, ratios, strict=True)
    ]
    within = sum(0.5 <= ratio <= 2 for ratio in ratios)
    spread = f"{min(ratios):.2f} to {max(ratios):.2f}, {within} within a factor of 2"
    return [
        *lines,
        f"{len(rows)} backbones: median {median(ratios):.2f}, {spread}",
        f"least squares of relative errors: 10⁶ activations cost {per_mact / per_gmac:.3f} of 10⁹ multiplications",
    ]


if __name__ == "__main__":
    main()
