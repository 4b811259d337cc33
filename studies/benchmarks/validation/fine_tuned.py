"""One split or folds, for fine-tuned networks: which orders recipes as samples never used do, and what is chosen.

    python studies/benchmarks/validation/fine_tuned.py --data FACES --weights-dir WEIGHTS --recipes 12 --seeds 2

For each seed some samples are known (`--known`), the rest is not. Recipes are drawn at random (backbone, learning rate,
augmentation, smoothing, epochs). Each is trained five times on four fifths of the known samples, once for each fold,
and scored on the fold and on the samples that are not known: the mean of the latter is what it is worth. Each fold
alone is a split that one could have had. Rows are appended to `rows/fine_tuned.jsonl`, and what is there is not trained
again; then a table is printed.
"""

import argparse
import json
import os
import random
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score

ROWS = Path(__file__).parent / "rows" / "fine_tuned.jsonl"
FOLDS = 5


def main(arguments: Sequence[str] | None = None) -> None:
    """Trains what is missing, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--weights-dir", type=Path)
    parser.add_argument("--recipes", type=int, default=12)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--known", type=int, default=400)
    parser.add_argument("--out", type=Path, default=ROWS)
    args = parser.parse_args(arguments)
    rows = [json.loads(line) for line in args.out.read_text(encoding="utf-8").splitlines()] if args.out.exists() else []
    done = {(row["seed"], row["recipe"]) for row in rows}
    missing = [(seed, number) for seed in range(args.seeds) for number in range(args.recipes)]
    missing = [key for key in missing if key not in done]
    if args.data and missing:
        with tempfile.TemporaryDirectory() as folder:
            os.environ["AUTOML_CACHE"] = folder
            for seed, number in missing:
                rows.append({"seed": seed, "recipe": number, **train_folds(args, seed, number)})
                with args.out.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(rows[-1]) + "\n")
                print(rows[-1], flush=True)
    print_table(rows)


def draw_recipe(seed: int, number: int) -> dict[str, Any]:
    """Draws a recipe."""
    rng = random.Random(f"{seed} {number}")
    color = rng.choice([{"name": "none"}, {"name": "jitter", "brightness": 0.4, "contrast": 0.4}])
    return {
        "backbone": rng.choice(["mobilenetv2_100", "tf_efficientnet_lite0"]),
        "image_size": 128,
        "batch_size": 16,
        "epochs": rng.choice([1, 2, 4]),
        "learning_rate": 10 ** rng.uniform(-3.6, -2.2),
        "layer_decay": rng.choice([0.8, 1.0]),
        "augmentation": {
            "crop": {"name": "squash"},
            "horizontal_flip": 0.5,
            "jpeg": rng.choice([0.0, 0.5]),
            "blur": rng.choice([0.0, 0.3]),
            "color": color,
        },
        "loss": {"name": "cross_entropy", "smoothing": rng.choice([0.0, 0.1])},
    }


def train_folds(args: argparse.Namespace, seed: int, number: int) -> dict[str, Any]:
    """Trains a recipe once for each fold; returns the AUC on each fold, and on what is not known."""
    from automl.backbones.weights import Weights
    from automl.data.cache import build_cache
    from automl.data.dataset import list_folds, open_dataset
    from automl.data.loader import ImageData
    from automl.data.splits import choose_of_each_class
    from automl.recipe import Recipe
    from automl.spec import DataSpec
    from automl.training.evaluation import split_probabilities
    from automl.training.fit import fit

    dataset = open_dataset(DataSpec(path=args.data), seed=0)
    cache, labels = build_cache(dataset, 128), dataset.samples["label"].to_numpy(np.int64)
    known = choose_of_each_class(labels, args.known, least=2, seed=seed)
    split = np.full(len(labels), "holdout", dtype=object)
    split[known] = "train"
    recipe = Recipe.from_mapping({**draw_recipe(seed, number), "seed": seed})
    weights = Weights("file", args.weights_dir / f"{recipe.backbone}.safetensors")
    folds, unseen = [], []
    for samples in list_folds(replace(dataset, samples=dataset.samples.assign(split=split)), FOLDS, seed):
        data = ImageData(samples, cache)
        fitted = fit(recipe, data, weights=weights)
        rest = split_probabilities(fitted.model, recipe, data, "holdout", fitted.preprocessing, "cpu")
        folds.append(round(float(roc_auc_score(data.labels("validation"), fitted.probabilities[:, 1])), 4))
        unseen.append(round(float(roc_auc_score(data.labels("holdout"), rest[:, 1])), 4))
    return {"folds": folds, "unseen": unseen, "known": len(known), "settings": draw_recipe(seed, number)}


def print_table(rows: list[dict[str, Any]]) -> None:
    """Prints for each seed the rank correlations, and the regret of what one split and folds choose at equal time."""
    by_seed = defaultdict(list)
    for row in rows:
        by_seed[row["seed"]].append(row)
    print("| seed | recipes | rank correlation: one split | folds | regret: one split | folds | folds, a fifth seen |")
    print("|---|---|---|---|---|---|---|")
    for seed, group in by_seed.items():
        worth = np.array([np.mean(row["unseen"]) for row in group])
        folds = np.array([row["folds"] for row in group])  # (recipes, folds); each is a split one could have had
        rho = np.mean([spearmanr(one, worth).statistic for one in folds.T])
        regret = np.mean([worth.max() - worth[np.argmax(one)] for one in folds.T])
        of_folds, random_state = folds.mean(axis=1), np.random.default_rng(0)
        few = [random_state.permutation(len(group))[: max(1, len(group) // FOLDS)] for _ in range(1000)]
        equal = np.mean([worth.max() - worth[one[np.argmax(of_folds[one])]] for one in few])
        print(
            f"| {seed} | {len(group)} | {rho:.2f} | {spearmanr(of_folds, worth).statistic:.2f} | {regret:.4f} | "
            f"{worth.max() - worth[np.argmax(of_folds)]:.4f} | {equal:.4f} |"
        )


if __name__ == "__main__":
    main()
