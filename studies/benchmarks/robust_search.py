"""What a search for `robust_auc` gains on degraded copies, and what it costs on clean samples.

    python studies/benchmarks/robust_search.py --data ffdi_faces/ --weights-dir weights/ --out robust_search.jsonl
    python studies/benchmarks/robust_search.py --out robust_search.jsonl --summary

For each seed two searches of the same length in the same small space (mobilenetv2_100 at 128 px, two epochs; what may
vary is augmentation, learning rate and label smoothing): one for `auc`, one for `robust_auc`. The best recipe of each
is trained once more with a fresh seed and scored on the holdout, clean and under every degradation of
`search_spaces/degradations.yaml`; no search saw it. A run goes on where its file ends.
"""

import argparse
import json
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean, median
from typing import Any

METRICS = ("auc", "robust_auc")

SPACE = """
backbone: {pool: {}}
image_size: 128
epochs: 2
batch_size: 16
learning_rate: {float: [5e-4, 4e-3], log: true}
weight_decay: 0.05
layer_decay: 0.9
augmentation:
  crop: {choice: {squash: {}}}
  horizontal_flip: 0.5
  blur: {ordered: [0.0, 0.1, 0.5]}
  jpeg: {ordered: [0.0, 0.1, 0.5]}
  downscale: {ordered: [0.0, 0.2]}
  grayscale: {ordered: [0.0, 0.2]}
  color:
    choice:
      none: {}
      jitter: {probability: 0.5, brightness: 0.4, contrast: 0.4}
loss: {choice: {cross_entropy: {smoothing: {ordered: [0.0, 0.1]}}}}
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Searches what is left, or summarises."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--weights-dir", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=5.0, help="of each search")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--summary", action="store_true")
    args = parser.parse_args(arguments)
    rows = [json.loads(line) for line in args.out.read_text(encoding="utf-8").splitlines()] if args.out.exists() else []
    known = {(row["seed"], row["objective"]) for row in rows}
    for seed in range(0 if args.summary else args.seeds):
        for objective in METRICS:
            if (seed, objective) not in known:
                rows.append(run_search(args, seed, objective))
                with args.out.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(rows[-1]) + "\n")
    print("\n".join(summarise(rows)))


def run_search(args: argparse.Namespace, seed: int, objective: str) -> dict[str, Any]:
    """Searches, trains the winner again, and scores it on the holdout."""
    import automl
    from automl.study.replicate import Replicate
    from automl.study.robustness import TrainedNetwork, score_robustness
    from automl.study.setup import StudyViews
    from automl.training.evaluation import split_probabilities
    from automl.training.metrics import compute_metric
    from automl.training.types import expected_input

    with tempfile.TemporaryDirectory() as folder:
        space = Path(folder) / "space.yaml"
        space.write_text(SPACE, encoding="utf-8")
        where: dict[str, Any] = {"runs": Path(folder) / "runs"}
        started = time.monotonic()
        result = automl.search(
            args.data, timeout=60 * args.minutes, trials=60, confirm=0, metric=objective, seed=seed, name="robust",
            space=str(space), weights_dir=args.weights_dir, pool={"names": ["mobilenetv2_100*"]}, device="cpu", **where,
        )  # fmt: skip
        seconds = time.monotonic() - started
        trials = [trial for trial in result.study.trials if trial.state.name == "COMPLETE"]
        best = max(trials, key=lambda trial: trial.value)
        done = automl.confirm("robust", top=1, seeds=1, device="cpu", **where)
        assert done is not None
        candidate = done.best
        recipe = candidate.recipe.model_copy(update={"seed": candidate.seeds[0]})
        one = Replicate(candidate.trial, recipe, result.folder.replicate_folder(candidate.trial, recipe.seed))
        data = StudyViews(result.setup, "cpu").open_view(recipe.view)
        model = one.load_network(data.classes)
        network = TrainedNetwork(model, expected_input(model, recipe, data))
        samples = data.samples.samples  # the holdout in place of the validation split
        moved = samples["split"].map({"train": "train", "validation": "unused", "holdout": "validation"})
        held = replace(data, samples=replace(data.samples, samples=samples.assign(split=moved)))
        clean = split_probabilities(model, recipe, held, "validation", network.preprocessing, "cpu")
        degraded = score_robustness(network, recipe, held, clean, "cpu", len(held.rows("validation")))
        spent = [trial.user_attrs["spent"] for trial in trials]
        return {
            "seed": seed,
            "objective": objective,
            "seconds": round(seconds, 1),
            "trials": len(trials),
            "pruned": len(result.study.trials) - len(trials),
            "search_value": best.value,
            "clean": compute_metric("auc", held.labels("validation"), clean, held.positive),
            "degraded": degraded,
            "robust": fmean(degraded.values()),
            "robust_share": fmean(one.get("robust_seconds", 0.0) / one["fit_seconds"] for one in spent),
            "recipe": recipe.model_dump(mode="json"),
        }


def summarise(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Yields a table of the runs, and the differences seed by seed."""
    yield "| seed | objective | trials (pruned) | holdout AUC clean | degraded, mean | worst | cost of copies |"
    yield "|---|---|---|---|---|---|---|"
    for row in rows:
        worst = min(row["degraded"], key=row["degraded"].get)
        trials = f"{row['trials']} ({row['pruned']})" if row["trials"] is not None else ""
        share = f"{row['robust_share']:.0%}" if row["robust_share"] else ""
        yield (
            f"| {row['seed']} | {row['objective']} | {trials} | {row['clean']:.3f} | "
            f"{row['robust']:.3f} | {row['degraded'][worst]:.3f} ({worst}) | {share} |"
        )
    pairs: dict[int, dict[str, dict[str, Any]]] = defaultdict(dict)
    for row in rows:
        pairs[row["seed"]][row["objective"]] = row
    both = [pair for pair in pairs.values() if len(pair) == len(METRICS)]
    for name in ("clean", "robust"):
        differences = [pair["robust_auc"][name] - pair["auc"][name] for pair in both]
        if differences:
            listed = ", ".join(f"{difference:+.3f}" for difference in differences)
            yield f"{name}: a search for robust_auc has {listed} by seed, median {median(differences):+.3f}"


if __name__ == "__main__":
    main()
