"""The AUC of a recipe on a small set of clips, each group scored by a network that saw nothing of it.

    python studies/benchmarks/leave_one_group_out.py --data ../shared/data/ffdv_videos --weights-dir ../shared/weights

Of a handful of clips any split is luck. Here every group is left out once, and the scores of all clips are ranked
together. The recipes are the shipped space's known-good ones, one a view, which these clips did not choose.
"""

import argparse
import time
from pathlib import Path

import numpy as np


def main() -> None:
    """Trains each recipe once a group, and prints a line a view."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--weights-dir", type=Path, required=True)
    parser.add_argument("--backbone", default="mobilenetv2_100")
    parser.add_argument("--space", default="video")
    parser.add_argument("--image-size", type=int, default=160)
    parser.add_argument("--views", nargs="+", help="only these")
    args = parser.parse_args()

    from dataclasses import replace

    from sklearn.metrics import roc_auc_score

    from automl.backbones.weights import find_weights
    from automl.data.cache import build_cache
    from automl.data.dataset import open_dataset
    from automl.data.loader import ImageData
    from automl.errors import DataError
    from automl.space.space import load_space
    from automl.spec import DataSpec

    dataset = open_dataset(DataSpec(path=args.data, holdout_fraction=0), seed=0)
    groups, labels = dataset.samples["group"].to_numpy(), dataset.samples["label"].to_numpy()
    weights = find_weights(args.backbone, args.weights_dir, hub=False)
    seen: dict[str, np.ndarray] = {}
    for recipe in recipes(load_space(args.space), args.backbone, args.image_size):
        if args.views and recipe.view.name not in args.views:
            continue
        began, scores = time.monotonic(), np.zeros(len(labels))
        try:
            cache = build_cache(dataset, 256, view=recipe.view)
        except DataError as exc:
            print(f"{recipe.view.name:15} of no use: {exc}", flush=True)
            continue
        decoded = time.monotonic() - began
        for group in sorted(set(groups)):
            samples = dataset.samples.assign(split=np.where(groups == group, "validation", "train"))
            data = ImageData(replace(dataset, samples=samples), cache)
            scores[groups == group] = one_group(recipe, data, weights, dataset.positive)
        seen[recipe.view.name] = scores
        auc = roc_auc_score(labels == dataset.positive, scores)
        print(
            f"{recipe.view.name:15} AUC {auc:.3f}   {int(cache.readable.sum())} of {len(labels)} clips seen, "
            f"decoded in {decoded:.1f} s, {time.monotonic() - began:.0f} s in all",
            flush=True,
        )
    mean = np.mean(list(seen.values()), axis=0)
    print(f"{'mean of views':15} AUC {roc_auc_score(labels == dataset.positive, mean):.3f}")


def recipes(space, backbone, image_size):
    """The quick known-good recipes, one a view, as `automl.recipe.Recipe`."""
    from automl.recipe import Recipe

    found = {}
    for good, view in [(good, good["view"]) for good in space.known_good if good["tier"] == "quick"]:
        named = view if isinstance(view, dict) else {"name": view}
        plain = next(values for values in space.list_views() if values["name"] == named["name"])
        values = {key: value for key, value in good.items() if key not in ("tier", "backbone", "view", "augmentation")}
        parts = {key: {"name": value} for key, value in values.items() if isinstance(value, str)}
        found[named["name"]] = Recipe.from_mapping(
            values | parts | {"backbone": backbone, "view": plain | named, "image_size": image_size}
        )
    return list(found.values())


def one_group(recipe, data, weights, positive):
    """Scores (N,) of the clips of the group that is left out, in the validation split of `data`."""
    from automl.training.evaluation import split_probabilities
    from automl.training.fit import fit

    # no validation in between: of a group of one class no metric is defined
    result = fit(recipe, data, weights=weights, evaluate=None)
    found = split_probabilities(result.model, recipe, data, "validation", result.preprocessing, "cpu")
    return found[:, positive]


if __name__ == "__main__":
    main()
