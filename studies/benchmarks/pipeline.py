"""Images a second from disk to a training batch: automl's pipeline against torchvision's, per core.

    python studies/benchmarks/pipeline.py --data DIR --image-size 224

Both give batches of 16 on one thread, with the same crop (the whole image) and flips, and with `--light` brightness and
contrast as well: torchvision decodes each JPEG in every epoch, resizes the PIL image and normalises it; automl cuts,
resizes and flips what it decoded once and keeps uint8, which is normalised on the device, here at the end of the batch.
Rounds take turns, and the ratio of each round is printed. Decoding once is not counted: it is printed by itself.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterable, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

BATCH = 16


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures in turns."""
    text = __doc__ or ""
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder or label file of images")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--light", action="store_true", help="with brightness and contrast")
    parser.add_argument("--batches", type=int, default=200, help="after the first two (default 200)")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args(arguments)

    import torch

    from automl.devices import keep_freed_memory

    torch.set_num_threads(1)
    keep_freed_memory()  # as a search's worker does; it is worth more to torchvision's than to automl's
    with tempfile.TemporaryDirectory() as folder:
        ours, theirs, seconds = make_pipelines(args, Path(folder))
        print(f"decoding once: {seconds:.1f} s")
        ratios, speeds = [], []
        for _ in range(args.rounds):
            pair = [measure(batches(), args.batches) for batches in (ours, theirs)]
            speeds.append(pair)
            ratios.append(pair[0] / pair[1])
        medians = [statistics.median(column) for column in zip(*speeds, strict=True)]
        print(f"automl {medians[0]:.0f} images a second, torchvision {medians[1]:.0f}")
        print(f"ratio {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}), one thread")


def make_pipelines(args: argparse.Namespace, folder: Path) -> tuple[Any, Any, float]:
    """Makes what yields the batches of each, and says how long decoding once took."""
    import os

    import torch
    from torchvision.datasets.folder import default_loader
    from torchvision.transforms import v2

    from automl.data.cache import build_cache
    from automl.data.dataset import open_dataset
    from automl.data.loader import ImageData
    from automl.recipe import Recipe
    from automl.spec import DataSpec

    os.environ["AUTOML_CACHE"] = str(folder)
    dataset = open_dataset(DataSpec(path=args.data), seed=0)
    started = time.perf_counter()
    data = ImageData(dataset, build_cache(dataset, 256))
    decoding = time.perf_counter() - started
    color = {"name": "jitter", "probability": 1.0, "brightness": 0.2, "contrast": 0.2, "saturation": 0.0, "hue": 0.0}
    augmentation = {"crop": {"name": "squash"}, "horizontal_flip": 0.5} | ({"color": color} if args.light else {})
    recipe = Recipe(backbone="resnet18", image_size=args.image_size, batch_size=BATCH, augmentation=augmentation)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])

    def ours() -> Iterable[Any]:
        scale, shift = (1 / (255 * std)).view(3, 1, 1), (mean / std).view(3, 1, 1)
        for images, _ in data.train_batches(recipe, "bicubic", 0, 10**6):
            yield images.float() * scale - shift

    side = (args.image_size, args.image_size)
    jitter = [v2.ColorJitter(0.2, 0.2)] if args.light else []
    end = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(mean.tolist(), std.tolist())]
    steps = v2.Compose([v2.Resize(side, v2.InterpolationMode.BICUBIC), v2.RandomHorizontalFlip(), *jitter, *end])
    paths = dataset.samples.loc[dataset.samples["split"] == "train", "path"].tolist()

    def theirs() -> Iterable[Any]:
        for start in cycle(range(0, len(paths) - BATCH, BATCH)):
            yield torch.stack([steps(default_loader(path)) for path in paths[start : start + BATCH]])

    return ours, theirs, decoding


def measure(batches: Iterable[Any], count: int) -> float:
    """Returns images a second over some batches, after the first two."""
    iterator = iter(batches)
    for _ in range(2):
        next(iterator)
    started = time.perf_counter()
    for _ in range(count):
        next(iterator)
    return BATCH * count / (time.perf_counter() - started)


if __name__ == "__main__":
    main()
