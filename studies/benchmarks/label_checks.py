"""Label checks: what is found of labels that were made wrong on purpose.

    python studies/benchmarks/label_checks.py --data DIR [DIR ...] --weights-dir WEIGHTS

Frozen features of the whole data set by `--backbone`, computed once; in each of `--rounds`, 5 % of the labels are
changed at random, a linear probe is cross-validated by group, and confident learning (`automl.features.label_checks`)
names the likely wrong ones, as `automl data --check-labels` lists them. Recall is the share of the changed labels that
are named; precision is that of the named ones that were changed, of all and of the first as many as were changed.
Labels that were wrong before count as mistakes of the check.
"""

import argparse
import time
from pathlib import Path
from typing import Any

__all__ = ["main", "open_features"]


def open_features(folder: Path, backbone: str, weights_dir: Path, image_size: int) -> tuple[Any, Any, Any]:
    """Returns features (N, D) float32 of all images of a data set, their labels and their groups; computed once."""
    from automl.backbones.weights import find_weights
    from automl.data.cache import build_cache
    from automl.data.dataset import SPLITS, open_dataset
    from automl.data.loader import ImageData
    from automl.features.feature_cache import build_features
    from automl.recipe import Recipe
    from automl.spec import DataSpec

    dataset = open_dataset(DataSpec(path=folder), seed=0)
    recipe = Recipe.from_mapping(
        {"backbone": backbone, "image_size": image_size, "augmentation": {"crop": {"name": "squash"}}}
    )
    weights = find_weights(backbone, weights_dir, hub=False)
    data = ImageData(dataset, build_cache(dataset, image_size))
    rows, features = build_features(recipe, weights, data, "+".join(SPLITS), "cpu").average_images()
    return features, *(dataset.samples[name].to_numpy()[rows] for name in ("label", "group"))


def main(arguments: list[str] | None = None) -> None:
    """Changes labels and prints what is found of them."""
    import numpy as np

    from automl.features.label_checks import find_label_issues, predict_out_of_fold
    from automl.training.metrics import compute_metric

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="data sets of images")
    parser.add_argument("--weights-dir", type=Path, required=True, help="folder of safetensors files")
    parser.add_argument("--backbone", default="mobilenetv2_100")
    parser.add_argument("--image-size", type=int, default=160)
    parser.add_argument("--share", type=float, default=0.05, help="of the labels that are changed (default .05)")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args(arguments)
    for folder in args.data:
        began = time.perf_counter()
        features, true, groups = open_features(folder, args.backbone, args.weights_dir, args.image_size)
        extracted = time.perf_counter()
        rows = []
        classes, count = int(true.max()) + 1, round(args.share * len(true))
        for seed in range(args.rounds):
            rng = np.random.default_rng(seed)
            wrong = rng.choice(len(true), count, replace=False)
            labels = true.copy()
            labels[wrong] = (labels[wrong] + rng.integers(1, classes, count)) % classes
            probabilities = predict_out_of_fold(features, labels, groups, classes, seed=seed)
            named = [issue.row for issue in find_label_issues(probabilities, labels) if issue.margin > 0]
            right = np.isin(named, wrong)
            rows.append(
                (
                    compute_metric("accuracy", true, probabilities, 1),
                    len(named),
                    right.sum() / count,
                    right.mean() if len(named) else 0.0,
                    right[:count].mean() if len(named) else 0.0,
                    right[:10].mean() if len(named) else 0.0,
                )
            )
        accuracy, named_count, recall, precision, first, ten = np.mean(rows, axis=0)
        print(
            f"{folder.name}: {len(true)} images, {count} labels changed, {args.rounds} rounds; probe accuracy "
            f"{accuracy:.3f}; named {named_count:.0f}; recall {recall:.2f}, precision {precision:.2f}, of the first "
            f"{count} {first:.2f}, of the first ten {ten:.2f}; {extracted - began:.0f} s for features, "
            f"{(time.perf_counter() - extracted) / args.rounds:.1f} s a round"
        )


if __name__ == "__main__":
    main()
