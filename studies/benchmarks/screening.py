"""How well frozen features of each layer tell the classes of a data set apart, and what a screening of backbones says.

    python studies/benchmarks/screening.py --data DIR --weights-dir WEIGHTS --image-sizes 160 224 --budget 60

For each backbone of the folder of weights, and each image size: seconds to extract the features of all training images
and to score them, and the cross-validated score (AUC for two classes, else accuracy) of a linear probe and of nearest
neighbours, layer by layer and of all layers together. Then `screen_backbones` within the budget in seconds, at the
first image size. The training images are those that a search trains on: its holdout and validation are left out.
"""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

BATCH = 32


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures and prints."""
    text = __doc__ or ""
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder or label file of images")
    parser.add_argument("--weights-dir", type=Path, required=True, help="folder of safetensors files")
    parser.add_argument("--image-sizes", type=int, nargs="+", default=[160, 224])
    parser.add_argument("--budget", type=float, default=60.0, help="of the screening, in seconds (default 60)")
    parser.add_argument("--images", type=int, help="training images at most (default all)")
    args = parser.parse_args(arguments)

    import numpy as np
    import torch

    from automl.backbones.weights import find_weights, make_model
    from automl.data.cache import build_cache
    from automl.data.dataset import open_dataset
    from automl.data.loader import ImageData
    from automl.devices import keep_freed_memory
    from automl.features.extraction import FeatureExtractor, to_half
    from automl.features.looks import LookImages, list_images
    from automl.features.probe import score_layers
    from automl.features.screening import Candidate, screen_backbones
    from automl.recipe import Recipe
    from automl.spec import DataSpec
    from automl.training.types import expected_input

    keep_freed_memory()  # as a search's worker does
    dataset = open_dataset(DataSpec(path=args.data), seed=0)
    data = ImageData(dataset, build_cache(dataset, max(args.image_sizes)))
    shown = list_images(data, "train")
    count = min(len(shown), args.images or len(shown))
    positions = np.linspace(0, len(shown) - 1, count).astype(int)  # evenly spread
    print(f"{count} training images of {args.data.name}, {data.classes} classes")
    candidates = []
    for path in sorted(args.weights_dir.glob("*.safetensors")):
        for size in args.image_sizes:
            recipe = Recipe(backbone=path.stem, image_size=size)
            weights = find_weights(path.stem, args.weights_dir, hub=False)
            started = time.perf_counter()
            model = make_model(recipe, data.classes, weights)
            preprocessing = expected_input(model, recipe, data)
            extractor = FeatureExtractor(model, preprocessing, recipe.numerics, "cpu", size)
            built = time.perf_counter()
            batches = LookImages(data, recipe, preprocessing, "train").load_batches(positions.tolist(), BATCH)
            features = torch.cat([to_half(extractor.extract_batch(batch)) for batch in batches]).numpy()
            extracted = time.perf_counter()
            labels, groups = shown.labels[positions], shown.groups[positions]
            scores = score_layers(features, labels, groups, extractor.layers, data.classes, data.positive)
            ended = time.perf_counter()
            print(
                f"\n{path.stem} at {size} px: {built - started:.1f} s to build, {extracted - built:.1f} s to extract "
                f"({count / (extracted - built):.0f} images a second), {ended - extracted:.1f} s to score"
            )
            for layer in scores:
                print(
                    f"  {layer.layer:12} probe {layer.score:.3f} ± {layer.standard_error:.3f} "
                    f"(penalty {layer.strength:g})   nearest {layer.neighbours}: {layer.knn_score:.3f}"
                )
            if size == args.image_sizes[0]:
                candidates.append(Candidate(recipe, weights, (extracted - built) / count))
    print(f"\nscreening in {args.budget:.0f} s, with an AUC or accuracy of the best layer")
    started = time.perf_counter()
    rows = screen_backbones(candidates, data, "cpu", args.budget, most_images=args.images)
    print(f"took {time.perf_counter() - started:.1f} s")
    for row in rows:
        print(
            f"  {row.backbone:22} {row.score:.3f} ± {row.standard_error:.3f}  {row.best_layer:12} nearest "
            f"{row.knn_score:.3f}  {row.images} images  {row.seconds:.1f} s  {'cut early' if row.cut_early else ''}"
            f"{row.reason}"
        )


if __name__ == "__main__":
    main()
