"""Near copies of images: what is found of copies that are made here, seconds and memory of many images.

    python studies/benchmarks/near_copies.py --data ../shared/data/ffdi_faces

`found`: 200 images of `--data` (default: the embedded demo) are copied in each of several ways, and each is compared
with its copy; then all images are compared with each other, whatever their splits. Both ask the steps of
`automl.data.image_copies` as the command does: hashes, spectra, alignment.

`images`: as many JPEG files of 256 pixels are made of parts of those images, two laid over each other; a fifth is
validation, and one image in 500 has a copy there. Seconds and peak memory (resident, with the cached pixels) of
`compare_splits`, in a process and a cache of their own.

`hashes`: comparing alone, 80,000 images against 20,000: spectra are drawn at random with the mean and the covariance of
those of `--data`, so that faces stay as alike as faces are. What would be aligned is counted; the seconds of that are
those of 200 pairs, times their number.
"""

import argparse
import io
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

__all__ = ["copy_ways", "main", "make_images"]

_MADE = 200  # images that are copied in each way


def copy_ways() -> dict[str, Callable[[Image.Image], Image.Image]]:
    """Returns the ways of copying an image, by their names."""

    def encode(image: Image.Image, quality: int) -> Image.Image:
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=quality)
        return Image.open(buffer).convert("RGB")

    def shrink(image: Image.Image, times: int) -> Image.Image:
        return image.resize((image.width // times, image.height // times), Image.Resampling.BICUBIC)

    def crop(image: Image.Image, left: float, top: float, right: float, bottom: float) -> Image.Image:
        width, height = image.size
        box = left * width, top * height, (1 - right) * width, (1 - bottom) * height
        return image.crop(tuple(map(round, box)))

    return {
        "JPEG of quality 30": lambda image: encode(image, 30),
        "JPEG of quality 10": lambda image: encode(image, 10),
        "half as wide and high": lambda image: shrink(image, 2),
        "a quarter as wide and high": lambda image: shrink(image, 4),
        "half as bright": lambda image: ImageEnhance.Brightness(image).enhance(0.5),
        "1.4 times as bright": lambda image: ImageEnhance.Brightness(image).enhance(1.4),
        "half the contrast": lambda image: ImageEnhance.Contrast(image).enhance(0.5),
        "without colours": lambda image: image.convert("L").convert("RGB"),
        "without 5 % at one side": lambda image: crop(image, 0.05, 0, 0, 0),
        "without 5 % at the top": lambda image: crop(image, 0, 0.05, 0, 0),
        "without 2.5 % on all sides": lambda image: crop(image, 0.025, 0.025, 0.025, 0.025),
        "without 5 % on all sides": lambda image: crop(image, 0.05, 0.05, 0.05, 0.05),
        "cropped by 2.5 %, half, quality 30": lambda image: encode(shrink(crop(image, *4 * [0.025]), 2), 30),
        "turned by two degrees": lambda image: image.rotate(2, Image.Resampling.BICUBIC),
        "mirrored": ImageOps.mirror,
        "mirrored, without 5 % at one side": lambda image: crop(ImageOps.mirror(image), 0.05, 0, 0, 0),
    }


def make_images(paths: list[Path], folder: Path, count: int) -> None:
    """Writes `count` different images in the layout of a data set, made of those in `paths`."""
    rng, sources = np.random.default_rng(0), [_read(path) for path in paths[:400]]

    def cut(source: Image.Image) -> Image.Image:
        side = int(rng.uniform(0.4, 0.8) * min(source.size))
        left, top = (int(rng.integers(0, length - side + 1)) for length in source.size)
        part = source.crop((left, top, left + side, top + side)).resize((256, 256), Image.Resampling.BICUBIC)
        return part.rotate(90 * int(rng.integers(4)))

    for split in ("train", "val"):
        for name in ("a", "b"):
            (folder / split / name).mkdir(parents=True)
    for number in range(count):
        one, other = (sources[int(k)] for k in rng.integers(0, len(sources), 2))
        image = Image.blend(cut(one), cut(other), 0.5)
        where = "val" if number % 5 == 0 else "train"
        image.save(folder / where / "ab"[number % 2] / f"{number}.jpg", quality=90)
        if number % 500 == 1:
            image.resize((200, 200)).save(folder / "val" / "b" / f"copy-{number}.jpg", quality=50)


def _read(path: Path) -> Image.Image:
    with Image.open(path) as image:
        return image.convert("RGB")


def _print_of(images: list[Image.Image]) -> tuple["np.ndarray", list["np.ndarray"]]:
    """Spectra of images, and the images in gray, as they are aligned."""
    from automl.data.image_copies import squash_image
    from automl.data.perceptual_hash import LUMA, gray_spectra

    pixels = np.stack([squash_image(np.asarray(image)) for image in images])
    return gray_spectra(pixels)[0], [*(pixels @ LUMA)]


def _show_found(paths: list[Path]) -> None:
    """Prints a row of a table for each way of copying, and one for different images."""
    from automl.data.copy_groups import CopyGroups
    from automl.data.image_alignment import correlate_aligned
    from automl.data.image_copies import compare_prints, join_alike, make_prints
    from automl.data.perceptual_hash import count_ones

    def find(a: int, b: int, mirrored: bool, grays: list["np.ndarray"], others: list["np.ndarray"]) -> float:
        second = others[b][:, ::-1] if mirrored else others[b]
        return correlate_aligned(grays[a], np.ascontiguousarray(second))

    chosen = [_read(path) for path in paths[:: max(1, len(paths) // _MADE)][:_MADE]]
    spectra, grays = _print_of(chosen)
    rows = np.arange(len(chosen))
    print("| | pairs | bits that differ | whole and detail | aligned | found |\n|---|---|---|---|---|---|")
    for name, way in copy_ways().items():
        other_spectra, other_grays = _print_of([way(image) for image in chosen])
        one, other = make_prints(spectra, rows), make_prints(other_spectra, rows + len(rows))
        mirrored = name.startswith("mirrored")
        bits = count_ones(one.hashes ^ (other.mirrored if mirrored else other.hashes))
        _, mean = compare_prints(one, rows, other, rows, mirrored)
        aligned, found = [], 0
        for k in rows.tolist():
            groups = CopyGroups(2 * len(rows))
            pairs, _ = join_alike([one[k : k + 1], other[k : k + 1]], groups)
            detail = max(
                [find(k, b - len(rows), bool(flip), grays, other_grays) for _, b, flip in pairs.tolist()] or [0]
            )
            aligned += [detail] * len(pairs)
            found += bool(groups.weakest) or detail >= 0.85
        spread = f"{min(aligned):.2f} to {max(aligned):.2f} ({len(aligned)})" if aligned else ""
        cells = [
            name,
            len(rows),
            f"{bits.min()} to {bits.max()}",
            f"{mean.min():.2f} to {mean.max():.2f}",
            spread,
            found,
        ]
        print(f"| {' | '.join(map(str, cells))} |")
    spectra, grays = _print_of([_read(path) for path in paths])
    prints, groups = make_prints(spectra, np.arange(len(paths))), CopyGroups(len(paths))
    parts = [prints[k::100] for k in range(100)]  # nearly all pairs: but those of one part
    pairs, _ = join_alike(parts, groups)
    details = [(find(a, b, bool(flip), grays, grays), a, b) for a, b, flip in pairs.tolist()]
    others = sorted((value for value, *_ in details if value < 0.85), reverse=True)[:3]
    compared = sum(len(one) * len(other) for one, other in combinations(parts, 2))
    print(
        f"all images: {compared} pairs; {len(details)} aligned, others at most {np.round(others, 3).tolist()}; copies:"
    )
    for rows, value in groups.list_groups():
        print(f"  {' ~ '.join(paths[row].name for row in rows)}: {value:.3f}")
    for value, one, other in details:
        if value >= 0.85:
            print(f"  {paths[one].name} ~ {paths[other].name}: {value:.3f}, aligned")


def _peak_mib(who: int = resource.RUSAGE_SELF) -> float:
    return resource.getrusage(who).ru_maxrss / 1024


def _measure_images(folder: Path) -> None:
    """Prints seconds and peak memory of finding the near copies of a folder."""
    from automl.data.dataset import open_dataset
    from automl.data.near_duplicates import compare_splits
    from automl.spec import DataSpec

    dataset = open_dataset(DataSpec(path=folder, holdout_fraction=0), 0)
    seconds = []
    for _ in range(2):
        began = time.perf_counter()
        found = compare_splits(dataset)
        seconds.append(time.perf_counter() - began)
    expected = len(list(folder.glob("val/b/copy-*")))
    right = sum(any("copy-" in name for name in copy.names) for copy in found.name_groups(dataset))
    print(
        f"{len(dataset.samples)} images: {seconds[0]:.1f} s, again {seconds[1]:.2f} s; peak {_peak_mib():.0f} MiB; "
        f"{right} of {expected} copies found, {len(found.groups) - right} other pairs"
    )


def _measure_hashes(paths: list[Path], train: int, validation: int) -> None:
    """Prints seconds and peak memory of comparing prints that are drawn at random."""
    from automl.data.copy_groups import CopyGroups
    from automl.data.image_alignment import correlate_aligned
    from automl.data.image_copies import ImagePrints, join_alike, join_prints, make_prints

    spectra, grays = _print_of([_read(path) for path in paths[:1600]])
    flat, rng = spectra.reshape(len(spectra), -1), np.random.default_rng(0)
    mean, centred = flat.mean(axis=0), (flat - flat.mean(axis=0)) / np.sqrt(len(flat))

    def draw(begin: int, count: int) -> ImagePrints:
        parts = []
        for start in range(begin, begin + count, 1000):
            drawn = mean + rng.standard_normal((1000, len(flat)), dtype=np.float32) @ centred
            parts.append(make_prints(drawn.reshape(-1, 32, 32), np.arange(start, start + 1000)))
        return join_prints(parts)

    sides, groups = [draw(0, train), draw(train, validation)], CopyGroups(train + validation)
    before, began, worked = _peak_mib(), time.perf_counter(), time.process_time()
    pairs, more = join_alike(sides, groups)
    seconds, worked = time.perf_counter() - began, time.process_time() - worked
    began = time.process_time()
    for k in range(200):
        correlate_aligned(grays[k % len(grays)], grays[(7 * k + 1) % len(grays)])
    each = (time.process_time() - began) / 200
    print(
        f"{train} × {validation} prints: {seconds:.1f} s, {worked:.1f} s of work on one thread; "
        f"peak {_peak_mib():.0f} MiB, {before:.0f} before; "
        f"{len(groups.weakest)} groups; {len(pairs)} pairs to align, {more} left out, "
        f"{1000 * each:.2f} ms of work each"
    )


def main(arguments: list[str] | None = None) -> None:
    """Runs the parts that are asked for."""
    from automl.data.dataset import open_dataset
    from automl.spec import DataSpec

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="a data set of images; default: the embedded demo")
    parser.add_argument("--parts", nargs="+", default=["found", "images", "hashes"])
    parser.add_argument("--counts", type=int, nargs="+", default=[2000, 10_000], help="images that are made")
    parser.add_argument("--hashes", type=int, nargs=2, default=[80_000, 20_000], help="of both splits, in thousands")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)  # in a process of its own
    args = parser.parse_args(arguments)
    if args.measure:
        _measure_images(args.measure)
        return
    dataset = open_dataset(DataSpec(path=args.data), 0)
    paths = [Path(path) for path in dataset.samples["path"]]
    if "found" in args.parts:
        _show_found(paths)
    for count in args.counts if "images" in args.parts else ():
        with tempfile.TemporaryDirectory() as folder:
            make_images(paths, Path(folder) / "data", count)
            command = [sys.executable, __file__, "--measure", str(Path(folder) / "data")]
            environment = {**os.environ, "AUTOML_CACHE": str(Path(folder) / "cache")}
            subprocess.run(command, env=environment, check=True)
    if "hashes" in args.parts:
        _measure_hashes(paths, *args.hashes)


if __name__ == "__main__":
    main()
