"""Features of every image of a split, computed once for all trials and workers, in memory-mapped files.

A look is a folder under `automl.files.cache_dir() / "features"`, beside the decoded images, named after everything its
features depend on: the weights, timm's version, the pixels' cache, the split, image size, crop and precision; and of an
augmented look the augmentation, the seed and its number. So a further look adds to those that are there:

    features.bin    (N, D) float16, the images in the order of the split
    progress.json   how many images are on the disk; only while it is computed
    layers.json     which columns are of which layer: written last, its presence means complete
    lock            held by the process that computes
"""

import errno
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path
from shutil import disk_usage
from typing import Any

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from automl.backbones.weights import Weights, digest_file, make_model
from automl.data.loader import ImageData
from automl.errors import AutomlError, WeightsError, is_disk_full
from automl.features.extraction import FeatureExtractor, FeatureLayer, to_half
from automl.features.looks import LookImages, SplitImages, list_images
from automl.files import cache_dir, write_text
from automl.recipe import Recipe
from automl.reporter import Progress
from automl.training.types import expected_input
from automl.units import format_bytes

LIMIT_BYTES = 20 * 10**9
"""Features that would take more are refused: ViT-B's of a million images take 29 GB a look."""

_VERSION = 1  # raise it when the same images give other features
_WRITE_SECONDS = 5.0  # between two entries of the progress: what a kill may lose
_BYTES = 2  # of a float16


@dataclass(frozen=True, eq=False)
class Features:
    """The features of a split's images.

    Attributes:
        looks: One array a look, (N, D) float16, memory-mapped and read-only; the first is the evaluation's cut.
        layers: Which columns are of which layer.
        images: Labels and groups of the N images.
    """

    looks: tuple[NDArray[np.float16], ...]
    layers: tuple[FeatureLayer, ...]
    images: SplitImages

    def select_rows(self, rows: NDArray[np.int64]) -> "Features":
        """Returns those of some samples, in the same order; they are read into memory."""
        chosen = np.flatnonzero(np.isin(self.images.rows, rows))
        return Features(tuple(look[chosen] for look in self.looks), self.layers, self.images[chosen])

    def average_images(self, columns: slice = slice(None)) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Averages the first look over the images of each sample.

        Returns:
            Which samples of the data set they are, (M,) int64 ascending, and their features (M, D) float32.
        """
        images = np.asarray(self.looks[0][:, columns], np.float32)
        rows, first, counts = np.unique(self.images.rows, return_index=True, return_counts=True)
        means = np.add.reduceat(images, first, axis=0) / counts[:, None]
        return rows, means.astype(np.float32)


def build_features(
    recipe: Recipe,
    weights: Weights | None,
    data: ImageData,
    split: str,
    device: str,
    *,
    looks: int = 1,
    seed: int = 0,
    limit_bytes: int = LIMIT_BYTES,
    print_line: Callable[[str], None] = lambda _line: None,
    progress: Progress = lambda _done, _total: None,
) -> Features:
    """Computes what is not computed yet, and opens the result; without a model when nothing is left to do.

    An interrupted computation goes on where it stopped. Of several processes that ask for the same features, one
    computes a look and the others wait for it.

    Args:
        recipe: Names the backbone, and says how images are cut, augmented and normalised, and the precision. Its head,
            pooling, and how it learns make no difference.
        weights: Where the pretrained weights are.
        data: The samples.
        split: Of the data; also `validation/2` (`ImageData.rows`).
        device: Where the network runs.
        looks: The first is the evaluation's cut; each further one is augmented anew.
        seed: Of the augmentation.
        limit_bytes: What may be written for these looks.
        print_line: Is told what will be written, before.
        progress: Is told how many images of all looks are done.

    Raises:
        WeightsError: If there are no weights, or they cannot be loaded.
        RecipeError: If the backbone cannot be built so, or its features are not finite.
        DataError: If the split has no image.
        AutomlError: If the features would take more than the limit, or the disk is too full or not to be written.
    """
    if weights is None:
        raise WeightsError(f"{recipe.backbone} has no pretrained weights here, and frozen ones at random say little")
    if looks < 1:
        raise ValueError(f"the first look is the evaluation's, so there is at least one, got {looks=}")
    folders = [_name_folder(recipe, weights, data, split, look, seed) for look in range(looks)]
    network: _Network | None = None
    for look, folder in enumerate(folders):
        if (folder / "layers.json").exists():
            continue
        with _explain_disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            with FileLock(folder / "lock"):  # freed by the system when the process dies
                if (folder / "layers.json").exists():
                    continue
                if network is None:
                    network = _Network(recipe, weights, data, split, device, seed)
                    network.check_size(
                        [f for f in folders if not (f / "layers.json").exists()], limit_bytes, print_line
                    )
                network.write_look(look, folder, partial(_report_look, progress, look, looks))
    return _open_features(folders, data, split)


class _Network:
    """What computes looks: a frozen network, and the images it is shown."""

    def __init__(self, recipe: Recipe, weights: Weights, data: ImageData, split: str, device: str, seed: int) -> None:
        self._data, self._split, self._seed, self._recipe = data, split, seed, recipe
        model = make_model(strip_recipe(recipe), data.classes, weights)
        self._preprocessing = expected_input(model, recipe, data)
        first = self._list_images(0)
        self._count = len(first)
        self._extractor = FeatureExtractor(model, self._preprocessing, recipe.numerics, device, first.image_size)

    def check_size(self, folders: list[Path], limit_bytes: int, print_line: Callable[[str], None]) -> None:
        """Says what the folders will take; raises AutomlError if it is too much."""
        width = self._extractor.width
        need = len(folders) * self._count * width * _BYTES
        what = f"{width} features of {self._count} images under {len(folders)} look{'s' * (len(folders) > 1)}"
        if need > limit_bytes:
            raise AutomlError(
                f"{what} need {format_bytes(need)}, more than the limit of {format_bytes(limit_bytes)}; "
                "take fewer looks or images"
            )
        free = disk_usage(folders[0]).free + sum(f.stat().st_size for d in folders for f in d.glob("features.bin"))
        if need > free:
            raise OSError(errno.ENOSPC, f"{format_bytes(need)} are needed, {format_bytes(free)} are free")
        print_line(f"{what} take {format_bytes(need)} in {folders[0].parent}")

    def write_look(self, look: int, folder: Path, progress: Progress) -> None:
        """Computes the features of a look that are not on the disk yet, then says that it is complete."""
        images, extractor = self._list_images(look), self._extractor
        row_bytes = extractor.width * _BYTES
        done = _read_progress(folder, row_bytes)
        written = time.monotonic()
        with (folder / "features.bin").open("r+b" if done else "wb") as file:
            file.truncate(done * row_bytes)  # what was written after the last entry
            file.seek(done * row_bytes)
            for batch in images.load_batches(range(done, len(images))):
                features = to_half(extractor.extract_batch(batch))
                file.write(features.numpy().data)
                done += len(features)
                if time.monotonic() - written > _WRITE_SECONDS or done == len(images):
                    # the features reach the disk before the entry says so: true after a kill, and after a power cut
                    file.flush()
                    os.fsync(file.fileno())
                    write_text(folder / "progress.json", json.dumps(done))
                    written = time.monotonic()
                progress(done, len(images))
        write_text(folder / "layers.json", json.dumps([asdict(layer) for layer in extractor.layers]))
        (folder / "progress.json").unlink()

    def _list_images(self, look: int) -> LookImages:
        return LookImages(self._data, self._recipe, self._preprocessing, self._split, look, self._seed)


def strip_recipe(recipe: Recipe) -> Recipe:
    """Returns a recipe whose network is the backbone as timm makes it, with nothing that is only for training."""
    kept = ("backbone", "view", "image_size", "augmentation", "numerics")
    return Recipe(**{name: getattr(recipe, name) for name in kept}).with_numerics(grad_checkpointing=False)


# --- on the disk --------------------------------------------------------------------------------------------------


def _name_folder(recipe: Recipe, weights: Weights, data: ImageData, split: str, look: int, seed: int) -> Path:
    """Returns the folder of a look: its name changes with whatever its features depend on."""
    paths = data.samples.samples["path"].to_numpy(str)
    rows = [*paths[data.rows(split)]]
    if getattr(recipe.view, "normalize", "") == "dataset":  # by the training images
        rows += ["", *paths[data.rows("train")]]
    key: list[Any] = [
        _VERSION,
        version("timm"),
        recipe.backbone,
        _sign_weights(recipe.backbone, weights),
        data.cache.folder.name,
        hashlib.sha256("\n".join(rows).encode(errors="surrogateescape")).hexdigest(),
        split,
        recipe.view.model_dump(),
        recipe.image_size,
        recipe.augmentation.crop.model_dump(),
        recipe.numerics.precision,
    ]
    if look:
        key += [recipe.augmentation.model_dump(), seed, look]
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
    return cache_dir() / "features" / digest[:32]


def _sign_weights(backbone: str, weights: Weights) -> str:
    """Returns what changes with the weights: a digest of their file, or where on the hub they are."""
    if weights.path is not None:
        try:
            stat = weights.path.stat()
            return _digest_weights(weights.path, stat.st_size, stat.st_mtime_ns)
        except OSError as exc:
            raise WeightsError(f"cannot read {weights.path}: {exc.strerror or exc}") from exc
    from timm.models import get_pretrained_cfg

    cfg = get_pretrained_cfg(backbone)
    return f"hub {getattr(cfg, 'hf_hub_id', None)} {getattr(cfg, 'tag', None)}"


@cache
def _digest_weights(path: Path, _size: int, _modified_ns: int) -> str:
    """Computes the digest of a file, once in a process: a gigabyte takes a second."""
    return digest_file(path)


def _read_progress(folder: Path, row_bytes: int) -> int:
    """Returns how many images of an interrupted look are on the disk."""
    try:
        done = int(json.loads((folder / "progress.json").read_text(encoding="utf-8")))
        return done if (folder / "features.bin").stat().st_size >= done * row_bytes else 0
    except (OSError, ValueError, TypeError):
        return 0


def _open_features(folders: list[Path], data: ImageData, split: str) -> Features:
    """Opens complete looks."""
    layers = tuple(FeatureLayer(**row) for row in json.loads((folders[0] / "layers.json").read_text(encoding="utf-8")))
    images = list_images(data, split)
    shape = (len(images), layers[-1].stop)
    looks = (np.memmap(folder / "features.bin", dtype=np.float16, mode="r", shape=shape) for folder in folders)
    return Features(tuple(looks), layers, images)


def _report_look(progress: Progress, look: int, looks: int, done: int, total: int) -> None:
    """Reports how many images of all looks are done."""
    progress(look * total + done, looks * total)


@contextmanager
def _explain_disk_errors(folder: Path) -> Iterator[None]:
    """Turns the system's errors of writing the cache into one line."""
    try:
        yield
    except OSError as exc:
        room = "free some space, or set AUTOML_CACHE to a folder on a larger disk"
        fix = room if is_disk_full(exc) else "set AUTOML_CACHE to a folder that can be written"
        raise AutomlError(f"the features cannot be written to {folder}: {exc.strerror or exc}; {fix}") from exc
