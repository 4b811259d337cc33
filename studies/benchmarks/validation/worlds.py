"""Frozen features of data with known domains, computed once for the studies of this folder.

    python studies/benchmarks/validation/worlds.py --faces DIR --videos DIR --weights-dir WEIGHTS --out FEATURES

Four sets: the embedded demo (64 px; kinds of forgeries), faces reduced to 96 px and 1,000 of them degraded in five ways
(after they were reduced, so that a degradation is as strong as it is in a file of that size), the same with stronger
degradations, and frames of clips (128 px; sources). For each set a table FEATURES/SET.csv with a row for each image,
and for each backbone a file FEATURES/SET-BACKBONE.npz with an array of float16 for each layer. What is there is not
computed again.
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from automl.data.dataset import Dataset

CLEAN = "none"
COPIES = {
    "demo": ("jpeg-50", "blur-1", "noise-5"),
    "faces": ("jpeg-50", "blur-1", "noise-5", "down-up-2", "brighter"),
    "strong": ("jpeg-30", "blur-2", "noise-15", "down-up-4", "darker"),
}
"""Degradations of each set; of the clips none."""
FACE_PIXELS, DEMO_PIXELS, CLIP_PIXELS = 96, 64, 128
DEGRADED_FACES = 1000
"""So many of the faces are degraded; the others are seen clean alone."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Computes what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faces", type=Path, required=True, help="folder of real and fake faces")
    parser.add_argument(
        "--videos", type=Path, required=True, help="folder of clips, their names beginning with a source"
    )
    parser.add_argument("--weights-dir", type=Path, required=True, help="folder of safetensors files")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--sets", nargs="+", default=["demo", "faces", "strong", "clips"])
    args = parser.parse_args(arguments)

    from automl.data.demo import demo_dataset
    from automl.recipe import Recipe

    args.out.mkdir(parents=True, exist_ok=True)
    backbones = sorted(path.stem for path in args.weights_dir.glob("*.safetensors"))
    frames = {"view": {"name": "frame", "count": 8}, "aggregate": {"name": "mean"}}
    makers = {
        "demo": lambda: (read_demo(demo_dataset()), None, DEMO_PIXELS, {}),
        "faces": lambda: (read_faces(args.faces, args.out), DEGRADED_FACES, FACE_PIXELS, {}),
        "strong": lambda: (read_faces(args.faces, args.out), DEGRADED_FACES, FACE_PIXELS, {}),
        "clips": lambda: (read_clips(args.videos), None, CLIP_PIXELS, frames),
    }
    for name in args.sets:
        missing = [backbone for backbone in backbones if not (args.out / f"{name}-{backbone}.npz").exists()]
        if not missing:
            continue
        dataset, degraded, pixels, view = makers[name]()
        dataset = add_copies(dataset, COPIES.get(name, ()), args.out, degraded)
        for backbone in missing:
            values = {
                "backbone": backbone,
                "image_size": pixels,
                "augmentation": {"crop": {"name": "squash"}},
                "numerics": {"memory_format": "channels_last"},
            }
            write_features(dataset, Recipe.from_mapping(values | view), args.weights_dir, args.out, name)


def read_demo(folder: Path) -> Dataset:
    """Reads the demo; a forgery's domain is its kind."""
    from automl.data.dataset import open_dataset
    from automl.spec import DataSpec

    dataset = open_dataset(DataSpec(path=folder, holdout_fraction=0), seed=0)
    kinds = [Path(path).stem.rsplit("-", 1)[1] if "fake" in path else "real" for path in dataset.samples["path"]]
    return replace(dataset, samples=dataset.samples.assign(domain=kinds, copy=CLEAN))


def read_faces(folder: Path, out: Path) -> Dataset:
    """Reads the faces, and writes them smaller."""
    from PIL import Image

    from automl.data.dataset import open_dataset
    from automl.media.images import read_rgb
    from automl.spec import DataSpec

    dataset = open_dataset(DataSpec(path=folder, holdout_fraction=0), seed=0)
    small = out / f"faces-{FACE_PIXELS}"
    small.mkdir(exist_ok=True)
    paths = []
    for path in dataset.samples["path"]:
        target = small / f"{Path(path).stem}.png"
        if not target.exists():
            image = read_rgb(path).resize((FACE_PIXELS, FACE_PIXELS), Image.Resampling.BICUBIC)
            image.save(target, compress_level=1)
        paths.append(str(target))
    samples = dataset.samples.assign(path=paths, group=dataset.samples["name"], domain="", copy=CLEAN)
    return replace(dataset, samples=samples)


def read_clips(folder: Path) -> Dataset:
    """Reads the clips; a clip's domain is what its name begins with."""
    from automl.data.dataset import open_dataset
    from automl.spec import DataSpec

    dataset = open_dataset(DataSpec(path=folder, holdout_fraction=0), seed=0)
    sources = [Path(path).name.split("_")[0] for path in dataset.samples["path"]]
    return replace(dataset, samples=dataset.samples.assign(domain=sources, copy=CLEAN))


def add_copies(dataset: Dataset, names: Sequence[str], out: Path, most: int | None = None) -> Dataset:
    """Adds degraded copies of the samples, or of `most` of them, as many of each class."""
    from automl.degradations.copies import degrade_files
    from automl.degradations.degradation import choose_degradations

    table = dataset.samples
    if most is not None:
        shuffled = table.sample(frac=1, random_state=0)
        chosen = shuffled.groupby("label").head(most // len(dataset.classes)).sort_index()
    else:
        chosen = table
    parts = [table]
    for degradation in choose_degradations(names, medium="image"):
        copies = degrade_files([Path(path) for path in chosen["path"]], degradation, out / "copies" / degradation.name)
        for copy in copies:
            if not isinstance(copy, Path):
                raise copy
        parts.append(chosen.assign(path=[str(copy) for copy in copies], copy=degradation.name))
        print(f"{len(copies)} copies: {degradation.name}", flush=True)
    return replace(dataset, samples=pd.concat(parts, ignore_index=True))


def write_features(dataset: Dataset, recipe, weights_dir: Path, out: Path, name: str) -> None:
    """Computes the features of one backbone, mean over the images of a sample, and writes them with the table."""
    from automl.backbones.weights import find_weights
    from automl.data.cache import build_cache
    from automl.data.loader import ImageData
    from automl.features.feature_cache import build_features

    data = ImageData(dataset, build_cache(dataset, recipe.image_size, view=recipe.view))
    weights = find_weights(recipe.backbone, weights_dir, hub=False)

    def report(done: int, total: int) -> None:
        if done % 640 == 0 or done == total:
            print(f"{name} {recipe.backbone}: {done} of {total} images", flush=True)

    features = build_features(recipe, weights, data, "train+validation", "cpu", progress=report)
    rows, first, counts = np.unique(features.images.rows, return_index=True, return_counts=True)
    means = np.add.reduceat(np.asarray(features.looks[0], np.float32), first, axis=0) / counts[:, None]
    layers = {layer.name: means[:, layer.columns].astype(np.float16) for layer in features.layers}
    columns = ["name", "label", "group", "domain", "copy"]
    table = dataset.samples.iloc[rows][columns].assign(fake=lambda t: (t["label"] == dataset.positive).astype(int))
    table.drop(columns="label").to_csv(out / f"{name}.csv", index=False)
    temporary = out / f"{name}-{recipe.backbone}.tmp.npz"
    np.savez(temporary, **layers)
    temporary.rename(out / f"{name}-{recipe.backbone}.npz")


if __name__ == "__main__":
    main()
