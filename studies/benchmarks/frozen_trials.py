"""Fifty trials of a frozen backbone's head: with features computed once, against passing every image every epoch.

    python studies/benchmarks/frozen_trials.py --data ffdi_faces/ --weights-dir weights/ --trials 50 --slow 3

Recipes are drawn at random: head, rate, weight decay, 4.5 to 24 epochs; one backbone at one size, flips. All of them
are trained by `automl.features.head_training`, the first one with the features still to be computed; `--slow` of them
are trained by `automl.training.fit` as well, and what the others would take is computed from their epochs. Printed are
both times, their ratio, and how the scores of the recipes that were trained both ways differ. Alone on the machine.
"""

import argparse
import os
import random
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def main(arguments: Sequence[str] | None = None) -> None:
    """Trains both ways."""
    text = __doc__ or ""
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder or label file of images")
    parser.add_argument("--weights-dir", type=Path, required=True)
    parser.add_argument("--backbone", default="mobilenetv2_100")
    parser.add_argument("--image-size", type=int, default=160)
    parser.add_argument("--trials", type=int, default=50)
    parser.add_argument("--slow", type=int, default=3, help="trials that are also trained without the features")
    args = parser.parse_args(arguments)

    from automl.backbones.weights import Weights
    from automl.data.cache import build_cache
    from automl.data.dataset import open_dataset
    from automl.data.loader import ImageData
    from automl.features.head_training import fit_on_features
    from automl.spec import DataSpec
    from automl.training.fit import fit

    weights = Weights("file", args.weights_dir / f"{args.backbone}.safetensors")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["AUTOML_CACHE"] = folder
        dataset = open_dataset(DataSpec(path=args.data), seed=0)
        data = ImageData(dataset, build_cache(dataset, 256))
        recipes = [draw_recipe(args, number) for number in range(args.trials)]
        fast, scores = [], []
        for recipe in recipes:
            started = time.perf_counter()
            result = fit_on_features(recipe, data, weights, "cpu")
            assert result is not None
            fast.append(time.perf_counter() - started)
            scores.append(result.history[-1].metrics)
        epoch_seconds = []
        for recipe, score in list(zip(recipes, scores, strict=True))[: args.slow]:
            started = time.perf_counter()
            metrics = fit(recipe, data, weights=weights).history[-1].metrics
            epoch_seconds.append((time.perf_counter() - started) / recipe.epochs)
            name = "auc" if "auc" in metrics else "accuracy"
            print(
                f"{recipe.head.name}, {recipe.epochs:g} epochs: {name} {score[name]:.4f}, without {metrics[name]:.4f}"
            )
    slow = sum(recipe.epochs for recipe in recipes) * sum(epoch_seconds) / len(epoch_seconds)
    print(f"{args.trials} trials on features: {sum(fast):.0f} s, {fast[0]:.1f} s of them the first one")
    print(f"without: {slow:.0f} s, from {len(epoch_seconds)} of them; ratio {slow / sum(fast):.1f}")


def draw_recipe(args: argparse.Namespace, number: int) -> Any:
    """Draws a recipe."""
    from automl.recipe import Recipe

    draw = random.Random(number)
    return Recipe.from_mapping(
        {
            "backbone": args.backbone,
            "image_size": args.image_size,
            "tune": {"name": "head"},
            "head": {"name": draw.choice(("linear", "l2", "mlp", "layers"))},
            "augmentation": {"crop": {"name": "squash"}, "horizontal_flip": 0.5},
            "learning_rate": 10 ** draw.uniform(-3.5, -1.5),
            "weight_decay": 10 ** draw.uniform(-4, -1),
            "batch_size": 16,
            "epochs": draw.choice((4.5, 12, 24)),
            "numerics": {"memory_format": "channels_last"},
        }
    )


if __name__ == "__main__":
    main()
