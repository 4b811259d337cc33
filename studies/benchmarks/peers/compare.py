"""Best validation AUC over minutes: automl and whatever its users could run instead, on the same data and cores.

    python studies/benchmarks/peers/compare.py --data ffdi/ --weights-dir weights/ --who automl optuna recipe \
        --minutes 20 --seeds 0 1 2
    python studies/benchmarks/peers/compare.py --summary          (table, ratios and docs/search.svg of the rows)

Each runner is a process of its own, alone on the machine, with an empty cache; its clock starts with the process, so
that imports, reading and decoding count. It prints `SCORE <AUC>` when it has validated something, and its best so far
counts; of `automl search`, what is printed of a complete trial. The data are split once by automl for a seed, and every
runner trains on the same images, validates on the same, and is scored at its end on the same holdout. A run that is in
the rows already is not repeated, so that the same command goes on where it was stopped.

Runners: `automl` (the command), `optuna` and `recipe` (the scripts beside this one), `autogluon` (its own environment:
`--autogluon-python ag/bin/python`). AutoTimm has none: it loads weights from timm's hub alone.
"""

import argparse
import csv
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from statistics import median

HERE = Path(__file__).parent
ROWS = HERE / "rows" / "scores.csv"
MINUTES = (1, 2, 4, 5, 8, 10, 15, 20, 40)
TARGET = 0.951
"""What AutoGluon reached in 20 minutes when the project began."""

_SCORE = re.compile(r"SCORE ([0-9.]+)|trial \d+ complete: \w+ ([0-9.]+)|val_roc_auc(?:=| +)([0-9.]+)")
_HOLDOUT = re.compile(r"HOLDOUT ([0-9.]+)")


@dataclass(frozen=True)
class Row:
    """One score of one run."""

    task: str
    images: int
    who: str
    version: str
    seed: int
    minutes: float
    """Of the budget."""
    split: str
    """`validation`, or `holdout` at the end."""
    seconds: float
    """Since the process began."""
    auc: float


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs what is not in the rows yet, or summarises them."""
    text = __doc__ or ""
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder or label file that automl reads, two classes")
    parser.add_argument("--weights-dir", type=Path)
    parser.add_argument("--who", nargs="+", default=["automl"], choices=["automl", "optuna", "recipe", "autogluon"])
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--images", type=int, default=0, help="training images at most; 0: all")
    parser.add_argument("--autogluon-python", default="python", help="python of AutoGluon's environment")
    parser.add_argument("--version", default="", help="what the rows call this run, such as a commit")
    parser.add_argument("--rows", type=Path, default=ROWS)
    parser.add_argument("--log", type=Path, help="where what the runners print is kept")
    parser.add_argument("--summary", action="store_true", help="run nothing")
    args = parser.parse_args(arguments)
    if args.summary:
        rows = read_rows(args.rows)
        print("\n".join(summarise(rows)))
        return
    if args.data is None or args.weights_dir is None:
        parser.error("--data and --weights-dir are needed, or --summary")
    for seed in args.seeds:
        for who in args.who:
            task = args.data.resolve().name
            key = (task, args.images, who, args.version, seed, args.minutes)
            if any(key == (r.task, r.images, r.who, r.version, r.seed, r.minutes) for r in read_rows(args.rows)):
                print(f"{who}, seed {seed}: in {args.rows} already")
                continue
            with tempfile.TemporaryDirectory(prefix="automl-peers-") as folder:
                rows = list(run(who, seed, Path(folder), args))
            append_rows(args.rows, [Row(*key, *rest) for rest in rows])


def run(who: str, seed: int, folder: Path, args: argparse.Namespace) -> Iterator[tuple[str, float, float]]:
    """Runs one runner; yields (split, seconds, AUC) of each score."""
    tables = split_data(args.data, seed, args.images, folder)
    weights = ["--weights-dir", str(args.weights_dir.resolve()), "--minutes", str(args.minutes), "--seed", str(seed)]
    named = [part for name, path in tables.items() for part in (f"--{name}", str(path))]
    commands = {
        "optuna": [sys.executable, str(HERE / "optuna_script.py"), *named, *weights],
        "recipe": [sys.executable, str(HERE / "recipe_script.py"), *named, *weights],
        "autogluon": [args.autogluon_python, str(HERE / "autogluon_hpo.py"), *named, *weights, "--folder", str(folder)],
        "automl": [sys.executable, "-m", "automl", "search", *automl_flags(seed, folder, args)],
    }
    environment = os.environ | {"AUTOML_CACHE": str(folder / "cache"), "PYTHONUNBUFFERED": "1"}
    started = time.monotonic()
    process = subprocess.Popen(
        commands[who], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment, errors="replace"
    )
    log = args.log.open("a") if args.log else None
    assert process.stdout is not None
    for line in process.stdout:
        seconds = time.monotonic() - started
        if log:
            log.write(f"{seconds:8.1f} {line}")
            log.flush()
        if found := _SCORE.search(line):
            auc = float(next(filter(None, found.groups())))
            print(f"{who} seed {seed}: {seconds / 60:5.2f} min  {auc:.4f}", flush=True)
            yield "validation", round(seconds, 1), auc
        if found := _HOLDOUT.search(line):
            yield "holdout", round(seconds, 1), float(found.group(1))
    if process.wait() != 0:
        print(f"{who}, seed {seed}, ended with code {process.returncode}: no holdout; its scores are kept")
    elif who == "automl":
        yield "holdout", round(time.monotonic() - started, 1), score_holdout(folder / "runs" / "study")


def automl_flags(seed: int, folder: Path, args: argparse.Namespace) -> list[str]:
    """Returns the flags of `automl search`: the data and the budget, and nothing that its users would not give."""
    files = args.data.resolve() if args.data.is_dir() else args.data.resolve().parent
    flags = {
        "data": folder / "all.csv",
        "files-folder": files,
        "weights-dir": args.weights_dir.resolve(),
        "gpu-mem": "16GB",
        "trials": 50,
    }
    flags |= {"timeout": f"{args.minutes}m", "seed": seed, "runs": folder / "runs", "name": "study"}
    return [part for name, value in flags.items() for part in (f"--{name}", str(value))]


def split_data(data: Path, seed: int, images: int, folder: Path) -> dict[str, Path]:
    """Writes each split as a table of paths and labels, and all of them with their split as `all.csv`."""
    from automl.data.dataset import open_dataset
    from automl.spec import DataSpec

    dataset = open_dataset(DataSpec(path=data), seed)
    samples = dataset.samples[["path", "label", "split"]].copy()
    samples["label"] = (samples["label"] == dataset.positive).astype(int)
    if images:
        train = samples[samples["split"] == "train"]
        kept = train.groupby("label").sample(images // 2, random_state=seed).index
        samples = samples.drop(train.index.difference(kept))
    names = [os.path.relpath(path, data if data.is_dir() else data.parent) for path in samples["path"]]
    samples.assign(path=names).to_csv(folder / "all.csv", index=False)
    tables = {}
    for split in ("train", "validation", "holdout"):
        tables[split] = folder / f"{split}.csv"
        samples.loc[samples["split"] == split, ["path", "label"]].to_csv(tables[split], index=False)
    return tables


def score_holdout(path: Path) -> float:
    """Scores the network of the best trial, as the search left it, on the holdout."""
    from automl.backbones.weights import make_model
    from automl.study.continuation import last_checkpoint
    from automl.study.folder import StudyFolder
    from automl.study.search import open_result
    from automl.study.setup import StudyViews
    from automl.study.trial_record import best_trial, recipe_of
    from automl.training.checkpoint import load_checkpoint
    from automl.training.evaluation import split_probabilities
    from automl.training.metrics import all_metrics
    from automl.training.types import expected_input

    folder = StudyFolder(path)
    result = open_result(folder)
    best = best_trial(result.study)
    assert best is not None
    recipe = recipe_of(best)
    data = StudyViews(result.setup, "cpu").open_view(recipe.view)
    state = load_checkpoint(last_checkpoint(folder, best.number))
    assert state is not None
    model = make_model(recipe.model_copy(update={"pretrained": False}), data.classes)
    preprocessing = expected_input(model, recipe, data)
    model.load_state_dict(state["ema"] or state["model"])
    probabilities = split_probabilities(model, recipe, data, "holdout", preprocessing, "cpu")
    return float(all_metrics(data.labels("holdout"), probabilities, data.positive)["auc"])


# --- rows ---------------------------------------------------------------------------------------------------------


def read_rows(path: Path) -> list[Row]:
    """Reads the rows; none where there is no file."""
    if not path.exists():
        return []
    kinds = {field.name: field.type for field in fields(Row)}
    with path.open(newline="", encoding="utf-8") as file:
        return [Row(**{k: kinds[k](v) for k, v in row.items()}) for row in csv.DictReader(file)]  # type: ignore[operator]


def append_rows(path: Path, rows: Iterable[Row]) -> None:
    """Appends rows, the names of the columns first where the file is new."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Row)], lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerows(map(asdict, rows))


def summarise(rows: Sequence[Row]) -> Iterator[str]:
    """Yields a table of medians with their spread, times to the target, and ratios."""
    runs: dict[tuple[str, int, str], dict[int, list[Row]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        runs[row.task, row.images, f"{row.who} {row.version}".strip()][row.seed].append(row)
    yield f"| task | who | seeds | {' | '.join(f'{m} min' for m in MINUTES)} | to {TARGET} | holdout |"
    yield "|---" * (len(MINUTES) + 5) + "|"
    for (task, images, who), seeds in runs.items():
        cells = []
        for minute in MINUTES:
            best = [best_until(found, 60 * minute) for found in seeds.values() if long_enough(found, minute)]
            cells.append(write_spread([b for b in best if b is not None]) if best else "")
        reached = [seconds_to(found, TARGET) for found in seeds.values()]
        known = [seconds for seconds in reached if seconds is not None]
        times = f"{median(known):.0f} s" if len(known) > len(reached) / 2 else "not"
        times += f" ({len(known)} of {len(reached)})" if len(known) < len(reached) else ""
        holdout = [row.auc for found in seeds.values() for row in found if row.split == "holdout"]
        name = f"{task}, {images or 'all'} images"
        yield f"| {name} | {who} | {len(seeds)} | {' | '.join(cells)} | {times} | {write_spread(holdout)} |"


def best_until(found: Iterable[Row], seconds: float) -> float | None:
    """Returns the best validation score so far; None where there is none yet."""
    return max((row.auc for row in found if row.split == "validation" and row.seconds <= seconds), default=None)


def long_enough(found: Sequence[Row], minute: float) -> bool:
    """Returns whether a run's budget reaches a minute; one recipe that has ended stays what it is."""
    return minute <= found[0].minutes


def seconds_to(found: Iterable[Row], target: float) -> float | None:
    """Returns when a run's validation score first reached a target; None: never."""
    return min((row.seconds for row in found if row.split == "validation" and row.auc >= target), default=None)


def write_spread(values: Sequence[float]) -> str:
    """Writes the median and, of several, the least and the largest."""
    if not values:
        return "–"
    text = f"{median(values):.3f}".removeprefix("0")
    if len(values) == 1:
        return text
    return f"{text} ({min(values):.3f}–{max(values):.3f})".replace("(0.", "(.").replace("–0.", "–.")


if __name__ == "__main__":
    main()
