"""Decode once: the images of a data set through a view, in one memory-mapped file that all trials and workers share.

A cache is a folder under `automl.files.cache_dir() / "images"`, named after the files (path, size, modification time)
and the size and view that made it, so that a changed file or another view makes another folder:

    images.bin    the pixels, uint8, one image after the other, in the order of the sorted paths
    index.npy     offset, height, width, number of each file's images: written last, its presence means complete
    unreadable.json   position and reason of each file that gave no image
    journal.jsonl     what images.bin holds so far; only while it is built
    lock              held by the process that builds

Files are decoded in processes of their own (`automl.media.decoding`), of which none can take this one with it.
"""

import errno
import hashlib
import json
import os
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from shutil import disk_usage
from typing import Any

import numpy as np
from filelock import FileLock

from automl.data.dataset import SPLITS, Dataset
from automl.data.splits import check_counts
from automl.errors import AutomlError, DataError, is_disk_full
from automl.files import cache_dir, write_atomically, write_text
from automl.media.decoding import NotDecoded, decode_files
from automl.media.image_file import HEIF_ENDINGS
from automl.media.images import LONGEST, describe_alone, image_size, read_pixels, shrink_size
from automl.media.opening import require
from automl.processes import cpu_threads
from automl.reporter import Progress
from automl.units import format_bytes
from automl.views.base import BaseView, ClipView, WholeImage
from automl.views.registry import make_images

_VERSION = 3  # raise it when the same file gives other pixels
_BATCH = 128  # images, and
_BATCH_SECONDS = 2.0  # seconds between two entries of the journal: what a kill may lose
_MISSING = "missing"
_INDEX = np.dtype([("offset", "<i8"), ("height", "<i4"), ("width", "<i4"), ("count", "<i4")])
_PLAIN = WholeImage()


@dataclass(eq=False)
class Cache:
    """The decoded images of a data set, read-only and shared between processes."""

    folder: Path
    size: int  # pixels of the short side, at most
    counts: np.ndarray  # one int per row of the data set: the images of its file, 0 if it gave none
    unreadable: list[tuple[str, str]]  # (name, reason) of the samples that gave none
    _rows: np.ndarray = field(repr=False)  # index entry of each row, dtype _INDEX
    _pixels: np.ndarray = field(init=False, repr=False)  # (bytes,) uint8

    def __post_init__(self) -> None:
        # read-only, and a plain array: slicing a memmap object is slower
        self._pixels = np.memmap(self.folder / "images.bin", dtype=np.uint8, mode="r").view(np.ndarray)

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def readable(self) -> np.ndarray:
        """One bool per row of the data set: whether its file gave an image."""
        return np.asarray(self.counts > 0)

    def image(self, row: int, number: int = 0) -> np.ndarray:
        """Returns one of the `counts[row]` images of a row of `Dataset.samples`.

        It is a read-only view, shape (height, width, 3), dtype uint8, RGB; the short side is `size` or, for a smaller
        image file, its own.
        """
        offset, height, width, count = self._rows[row].item()
        if not 0 <= number < count:
            raise DataError(f"sample {row} has {count} images, and no number {number}; see Cache.counts")
        begin, size = offset + number * height * width * 3, height * width * 3
        return self._pixels[begin : begin + size].reshape(height, width, 3)

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "_pixels"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.__post_init__()  # a worker maps the file itself instead of receiving gigabytes of pixels


def build_cache(dataset: Dataset, size: int, progress: Progress | None = None, view: BaseView = _PLAIN) -> Cache:
    """Decodes what is not decoded yet and opens the result; instant when nothing is left to do.

    An interrupted build goes on where it stopped. Of several processes that ask for the same images, one decodes and
    the others wait for it. `size` is in pixels: of the short side of image files, as in `read_pixels`, and of the
    squares that views of clips make.

    Raises:
        DataError: If no file gives an image, or too few of a class: of image files, fewer than two in train or in
            validation; of clips, which can be scored without an image, in train.
        AutomlError: If the disk is too full, or the cache's folder cannot be written, or files go away meanwhile.
    """
    for name in view.needs:
        require(name)  # missing, it is missed once and not for each file
    paths, positions = np.unique(dataset.samples["path"].to_numpy(dtype=str), return_inverse=True)
    files = [str(path) for path in paths]
    maker = ImageMaker(view, size)
    signatures = list(map(_sign_file, files))
    of_view = view.key if isinstance(view, ClipView) else f"whole, up to 1:{LONGEST}"
    digest = hashlib.sha256(f"{_VERSION} {size} {of_view}".encode())
    for file, signature in zip(files, signatures, strict=True):
        digest.update(f"\0{file}\0{signature}".encode(errors="surrogateescape"))
    if any(file.lower().endswith(HEIF_ENDINGS) for file in files):  # what cannot be read now may be after pip install
        digest.update(f"heif {find_spec('pillow_heif') is not None}".encode())
    folder = cache_dir() / "images" / digest.hexdigest()[:32]
    if not (folder / "index.npy").exists():
        absent = {i for i, signature in enumerate(signatures) if signature == _MISSING}
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with FileLock(folder / "lock"):  # freed by the system when the process dies
                if not (folder / "index.npy").exists():
                    _build(folder, files, maker, absent, progress)
        except OSError as exc:
            room = "free some space, or set AUTOML_CACHE to a folder on a larger disk"
            fix = room if is_disk_full(exc) else "set AUTOML_CACHE to a folder that can be written"
            need = format_bytes(maker.need_bytes(files))
            raise AutomlError(
                f"the decoded images need about {need} in {folder}: {exc.strerror or exc}; {fix}"
            ) from exc
    return _open_cache(folder, maker, positions, dataset)


@dataclass(frozen=True)
class ImageMaker:
    """What makes images of files: a view, and the pixels of a side (see `build_cache`)."""

    view: BaseView
    size: int

    def decode(self, files: Sequence[str]) -> Iterator[np.ndarray | DataError]:
        """Decodes files in processes of their own, some of them ahead.

        Yields the images of each, shape (K, height, width, 3) uint8, or the DataError that says why there are none.
        """
        # in order, and never more than a few files' images are held
        if isinstance(self.view, ClipView):
            make = partial(make_images, self.view, size=self.size)
            for result in decode_files(make, map(Path, files), ahead=4 * cpu_threads()):
                yield result if isinstance(result, DataError) else result.pixels
            return
        for image in decode_files(partial(read_pixels, size=self.size), files, ahead=16 * cpu_threads()):
            yield image if isinstance(image, DataError) else image[None]

    def need_bytes(self, files: Sequence[str]) -> int:
        """Estimates the pixels of all files in bytes; of image files from the headers of up to 64 of them."""
        if isinstance(self.view, ClipView):
            return len(files) * self.view.count * self.size**2 * 3
        some = files[:: max(1, len(files) // 64)]
        total = 0
        for size in decode_files(image_size, some, ahead=len(some)):
            if not isinstance(size, DataError):
                width, height = shrink_size(*size, self.size)
                total += width * height * 3
        return total * len(files) // max(1, len(some))


def _sign_file(file: str) -> str:
    """Returns what changes with a file's content."""
    try:
        stat = os.stat(file)  # noqa: PTH116 - twice as fast as Path.stat
    except OSError:
        return _MISSING
    # the mode is in it so that a file that was made readable since is tried again
    return f"{stat.st_size} {stat.st_mtime_ns} {stat.st_mode}"


def _open_cache(folder: Path, maker: ImageMaker, positions: np.ndarray, dataset: Dataset) -> Cache:
    """Opens a complete cache for the rows of a data set."""
    of_clips = isinstance(maker.view, ClipView)
    rows = np.load(folder / "index.npy", allow_pickle=False)[positions]
    readable = rows["count"] > 0
    unreadable = []
    if not readable.all():
        reasons = json.loads((folder / "unreadable.json").read_text(encoding="utf-8"))
        names = dataset.samples["name"].to_numpy()
        unreadable = [(str(names[i]), reasons[str(positions[i])]) for i in np.flatnonzero(~readable)]
    if not readable.any():
        shown = "\n".join(f"  {name}: {reason}" for name, reason in unreadable[:5])
        what = f"has anything for the view {maker.view.name}" if of_clips else "can be read"
        raise DataError(f"none of the {len(rows)} {dataset.media}s of {dataset.root} {what}; the first ones:\n{shown}")
    if not readable.all() and (dataset.samples["split"] == "train").any():  # images to predict have no train split
        try:
            check_counts(dataset.samples[readable], dataset.classes, ("train",) if of_clips else SPLITS[:2])
        except DataError as exc:
            what = f"have something for the view {maker.view.name}" if of_clips else "can be read"
            raise DataError(f"{readable.sum()} of {len(rows)} {dataset.media}s {what}; {exc}") from exc
    return Cache(folder, maker.size, rows["count"].astype(np.int64), unreadable, rows)


def _build(
    folder: Path, files: Sequence[str], maker: ImageMaker, absent: Collection[int], progress: Progress | None
) -> None:
    """Decodes the files that the journal does not have yet, then writes the index."""
    index = np.zeros(len(files), dtype=_INDEX)
    reasons: dict[str, str] = {}
    done, end = _resume(folder, index, reasons)
    need, free = maker.need_bytes(files[done:]), disk_usage(folder).free
    if need > free:  # before hours of decoding
        raise OSError(errno.ENOSPC, f"{format_bytes(free)} are free")
    with (
        (folder / "images.bin").open("r+b" if done else "wb") as pixels,
        (folder / "journal.jsonl").open("a" if done else "w", encoding="utf-8") as journal,
    ):
        pixels.truncate(end)  # what was written after the last journal entry
        pixels.seek(end)
        lines: list[str] = []
        written = time.monotonic()
        for position, result in enumerate(maker.decode(files[done:]), start=done):
            if isinstance(result, DataError):
                reasons[str(position)] = _explain(result, files[position], position in absent, folder)
                lines.append(json.dumps([0, 0, 0, 0, reasons[str(position)]]))
            else:
                count, height, width, _ = result.shape
                index[position] = (pixels.tell(), height, width, count)
                lines.append(json.dumps([pixels.tell(), height, width, count]))
                pixels.write(np.ascontiguousarray(result).data)
            late = time.monotonic() - written > _BATCH_SECONDS
            if late or len(lines) == _BATCH or position == len(files) - 1:
                # the pixels reach the disk before the journal says so: true after a kill, and after a power cut
                pixels.flush()
                os.fsync(pixels.fileno())
                journal.write("".join(line + "\n" for line in lines))
                journal.flush()
                lines.clear()
                written = time.monotonic()
            if progress:
                progress(position + 1, len(files))
    write_text(folder / "unreadable.json", json.dumps(reasons))
    with write_atomically(folder / "index.npy") as temporary, temporary.open("wb") as handle:
        np.save(handle, index)
    (folder / "journal.jsonl").unlink()


def _explain(error: DataError, file: str, absent: bool, folder: Path) -> str:
    """Says why a file gave no image; AutomlError if it has gone since, which says nothing about the file."""
    if not absent and not os.path.exists(file):  # noqa: PTH110
        raise AutomlError(
            f"{file} was there and is gone; if its disk or network folder went away, bring it back: the same command "
            "goes on where this stopped"
        )
    again = f"; to try it again, delete {folder}" if isinstance(error, NotDecoded) else ""
    return describe_alone(error, file) + again


def _resume(folder: Path, index: np.ndarray, reasons: dict[str, str]) -> tuple[int, int]:
    """Reads an interrupted build into `index` and `reasons`; returns how many files are done, and their pixel bytes."""
    journal, pixels = folder / "journal.jsonl", folder / "images.bin"
    if not journal.exists() or not pixels.exists():
        return 0, 0
    done = end = complete = 0
    available = pixels.stat().st_size
    with journal.open("rb") as handle:
        for line in handle:
            try:
                offset, height, width, count, *reason = json.loads(line)
            except ValueError:
                break
            after = offset + count * height * width * 3
            if done == len(index) or not line.endswith(b"\n") or after > available:
                break
            index[done] = (offset, height, width, count)
            if reason:
                reasons[str(done)] = reason[0]
            done, end, complete = done + 1, max(end, after), complete + len(line)
    with journal.open("r+b") as handle:
        handle.truncate(complete)
    return done, end
