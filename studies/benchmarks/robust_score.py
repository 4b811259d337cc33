"""How sure a robust score of few degraded copies is: three ways to estimate it, against copies of every sample.

    python studies/benchmarks/robust_score.py --data ffdi_faces/ --weights-dir weights/

Some networks are trained with different augmentation, and predict every validation sample under every degradation: the
robust AUC that counts. Then `--samples` samples are drawn a thousand times, and the robust AUC is estimated from them:

- `same`: the same samples under each degradation, and the mean of the AUCs;
- `same, paired`: what a degradation takes from the AUC of the drawn samples, taken from the AUC of all clean ones (a
  control variate: the AUC of few samples is mostly a matter of which ones they are);
- `others, paired`: so too, with other samples for each degradation.

Printed are the root mean square error of each, and of the difference of two networks, which is what a search needs.
"""

import argparse
import os
import tempfile
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

AUGMENTATIONS: tuple[dict[str, Any], ...] = (
    {"horizontal_flip": 0.5},
    {"horizontal_flip": 0.5, "blur": 0.5, "jpeg": 0.5},
    {"horizontal_flip": 0.5, "downscale": 0.2, "grayscale": 0.2},
    {"horizontal_flip": 0.5, "jpeg": 0.1, "color": {"name": "jitter", "brightness": 0.4, "contrast": 0.4}},
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Trains, predicts, estimates, and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--weights-dir", type=Path, required=True)
    parser.add_argument("--backbone", default="mobilenetv2_100")
    parser.add_argument("--epochs", type=float, default=2)
    parser.add_argument("--samples", type=int, nargs="+", default=[40, 65, 130])
    args = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["AUTOML_CACHE"] = folder
        clean, degraded, labels = predict_networks(args)
    print(f"{len(clean)} networks, {len(labels)} validation samples, {degraded.shape[1]} degradations")
    print("| samples | estimate | error of a score | error of a difference |\n|---|---|---|---|")
    for samples in args.samples:
        for name, errors in estimate_scores(clean, degraded, labels, samples).items():
            print(f"| {samples} | {name} | {errors[0]:.4f} | {errors[1]:.4f} |")


def predict_networks(args: argparse.Namespace) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    """Returns the scores of each network (M, N) and under each degradation (M, D, N), and the labels (N,)."""
    from automl.backbones.weights import Weights
    from automl.data.cache import build_cache
    from automl.data.dataset import open_dataset
    from automl.data.loader import ImageData
    from automl.recipe import Recipe
    from automl.spec import DataSpec
    from automl.study.robustness import degrade_validation
    from automl.training.evaluation import split_probabilities
    from automl.training.fit import fit

    weights = Weights("file", args.weights_dir / f"{args.backbone}.safetensors")
    dataset = open_dataset(DataSpec(path=args.data), seed=0)
    data = ImageData(dataset, build_cache(dataset, 128))
    clean, degraded, labels = [], [], data.labels("validation")
    for augmentation in AUGMENTATIONS:
        how = {"augmentation": {"crop": {"name": "squash"}} | augmentation, "layer_decay": 0.9, "learning_rate": 2e-3}
        recipe = Recipe(backbone=args.backbone, image_size=128, batch_size=16, epochs=args.epochs, **how)
        fitted = fit(recipe, data, weights=weights)
        copies, names, _ = degrade_validation(data, len(labels), recipe.view)
        shown = split_probabilities(fitted.model, recipe, copies, "validation", fitted.preprocessing, "cpu")
        of_row = names[copies.rows("validation")]
        clean.append(fitted.probabilities[:, 1])
        degraded.append([shown[of_row == name, 1] for name in dict.fromkeys(of_row.tolist())])
        print(f"{augmentation}: AUC {roc_auc_score(labels, clean[-1]):.4f}", flush=True)
    return np.array(clean), np.array(degraded), labels


def estimate_scores(
    clean: NDArray[np.float64], degraded: NDArray[np.float64], labels: NDArray[np.int64], samples: int
) -> dict[str, tuple[float, float]]:
    """Returns for each way to estimate the errors of a score and of a difference of two."""
    random = np.random.default_rng(0)
    whole = np.array([roc_auc_score(labels, one) for one in clean])
    truth = np.array([np.mean([roc_auc_score(labels, one) for one in each]) for each in degraded])
    estimates: dict[str, list[NDArray[np.float64]]] = {"same": [], "same, paired": [], "others, paired": []}
    for _ in range(100):
        draws = [draw_samples(labels, samples, random) for _ in range(degraded.shape[1])]
        same = [draws[0]] * len(draws)
        estimates["same"].append(score_draws(degraded, labels, same).mean(1))
        for name, chosen in (("same, paired", same), ("others, paired", draws)):
            lost = score_draws(degraded, labels, chosen) - score_draws(
                np.repeat(clean[:, None], len(chosen), 1), labels, chosen
            )
            estimates[name].append(whole + lost.mean(1))
    pairs = list(combinations(range(len(clean)), 2))
    results = {}
    for name, each in estimates.items():
        off = np.array(each) - truth
        apart = np.array([off[:, a] - off[:, b] for a, b in pairs])
        results[name] = (float(np.sqrt((off**2).mean())), float(np.sqrt((apart**2).mean())))
    return results


def draw_samples(labels: NDArray[np.int64], samples: int, random: np.random.Generator) -> NDArray[np.int64]:
    """Draws samples, of each class its share."""
    own = [np.flatnonzero(labels == label) for label in (0, 1)]
    return np.concatenate([random.choice(each, round(samples * len(each) / len(labels)), False) for each in own])


def score_draws(
    scores: NDArray[np.float64], labels: NDArray[np.int64], draws: list[NDArray[np.int64]]
) -> NDArray[np.float64]:
    """Returns the AUC of each network and degradation on its draw, (M, D)."""
    return np.array([[roc_auc_score(labels[d], one[d]) for one, d in zip(each, draws, strict=True)] for each in scores])


if __name__ == "__main__":
    main()
