"""What a data set is made of, before anything is trained on it: `automl data PATH`.

Every file is read in full: a truncated one shows only at its end, and a copy in another split (a leak: the validation
then measures memory) only by its content.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from automl.data.cache import cpu_threads
from automl.data.decode import image_size, read_rgb
from automl.data.samples import SPLITS, Dataset
from automl.errors import DataError

__all__ = ["Duplicate", "Sizes", "Summary", "summarise"]

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Sizes:
    """Widths and heights in pixels over all readable images, each as (smallest, median, largest)."""

    width: tuple[int, int, int]
    height: tuple[int, int, int]


@dataclass(frozen=True)
class Duplicate:
    """Files of equal content.

    Attributes:
        names: The files, as in the label file.
        splits: Where they are; more than one is a leak.
        labels: Their classes; more than one is a contradiction.
    """

    names: tuple[str, ...]
    splits: tuple[str, ...]
    labels: tuple[str, ...]


@dataclass(frozen=True)
class Summary:
    """What `automl data` shows.

    Attributes:
        root: The folder or label file.
        format: How it was understood.
        classes: Their names.
        counts: Samples per split, then per class name.
        groups: Number of groups per split; empty if no samples belong together.
        sizes: None if no image can be read.
        unreadable: (name, reason) of files that cannot be decoded.
        leaks: Copies in more than one split.
        conflicts: Copies with different labels.
        copies: Files that are a copy of another within their split and class; harmless, but counted twice.
        real_class: Name of the class of genuine images, None if unknown.
        positive_class: Name of the class whose probability is predicted; None with more than two classes.
        problems: Warnings, one line each.
    """

    root: Path
    format: str
    classes: tuple[str, ...]
    counts: dict[str, dict[str, int]]
    groups: dict[str, int]
    sizes: Sizes | None
    unreadable: tuple[tuple[str, str], ...]
    leaks: tuple[Duplicate, ...]
    conflicts: tuple[Duplicate, ...]
    copies: int
    real_class: str | None
    positive_class: str | None
    problems: tuple[str, ...]


@dataclass(frozen=True)
class _File:
    """What one file turned out to be: a digest of its content, and (width, height) or a reason."""

    digest: bytes
    size: tuple[int, int] | None
    reason: str


def summarise(dataset: Dataset, progress: Progress | None = None) -> Summary:
    """Reads every file of a data set once.

    Args:
        dataset: The samples.
        progress: Called with (files done, files in all).

    Returns:
        What was found; nothing is raised for a bad file.
    """
    samples = dataset.samples
    files = _read_all(samples["path"].tolist(), progress)
    names = samples["name"].tolist()
    sizes = [file.size for file in files if file.size]
    unreadable = [(name, file.reason) for name, file in zip(names, files, strict=True) if file.reason]
    leaks, conflicts, copies = _duplicates(dataset, files)
    real, two = dataset.real_class, len(dataset.classes) == 2
    return Summary(
        root=dataset.root,
        format=dataset.format,
        classes=dataset.classes,
        counts=_counts(dataset),
        groups={str(k): int(n) for k, n in samples.groupby("split")["group"].nunique().items()}
        if dataset.grouped
        else {},
        sizes=Sizes(_spread(w for w, _ in sizes), _spread(h for _, h in sizes)) if sizes else None,
        unreadable=tuple(unreadable),
        leaks=leaks,
        conflicts=conflicts,
        copies=copies,
        real_class=None if real is None else dataset.classes[real],
        positive_class=dataset.classes[dataset.positive] if two else None,
        problems=dataset.problems,
    )


def _read_all(paths: Sequence[str], progress: Progress | None) -> list[_File]:
    """Reads files in threads, in order."""
    files = []
    with ThreadPoolExecutor(cpu_threads()) as pool:
        try:
            for file in pool.map(_read, paths):
                files.append(file)
                if progress:
                    progress(len(files), len(paths))
        except BaseException:
            pool.shutdown(cancel_futures=True)  # Ctrl-C does not wait for a million files
            raise
    return files


def _read(path: str) -> _File:
    """Reads one file: its content's digest, its size in pixels, and whether it decodes to the end."""
    digest = hashlib.blake2b(digest_size=16)
    try:
        with Path(path).open("rb") as handle:
            while chunk := handle.read(1 << 20):
                digest.update(chunk)
        size = image_size(path)
        read_rgb(path, short_side=1)  # reads all of the file, but computes an eighth of a JPEG's pixels
    except (DataError, OSError) as exc:
        reason = getattr(exc, "strerror", None) or str(exc).removeprefix(f"cannot read {path}: ")
        return _File(digest.digest(), None, reason)
    return _File(digest.digest(), size, "")


def _counts(dataset: Dataset) -> dict[str, dict[str, int]]:
    """Samples per split and class, also where there are none."""
    pairs = Counter(zip(dataset.samples["split"], dataset.samples["label"], strict=True))
    present = [split for split in SPLITS if (dataset.samples["split"] == split).any()]
    return {split: {name: pairs[split, i] for i, name in enumerate(dataset.classes)} for split in present}


def _spread(values: Iterable[int]) -> tuple[int, int, int]:
    """Smallest, median and largest."""
    array = np.fromiter(values, dtype=int)
    return int(array.min()), int(np.median(array)), int(array.max())


def _duplicates(dataset: Dataset, files: Sequence[_File]) -> tuple[tuple[Duplicate, ...], tuple[Duplicate, ...], int]:
    """Finds files of equal content: leaks, conflicts, and the number of harmless copies."""
    frame = pd.DataFrame(
        {
            "digest": [file.digest for file in files],
            "name": dataset.samples["name"].to_numpy(),
            "split": dataset.samples["split"].to_numpy(),
            "label": [dataset.classes[label] for label in dataset.samples["label"]],
        }
    )
    # what cannot be decoded is not trained on; empty files are all alike
    frame = frame[[file.size is not None for file in files]]
    leaks, conflicts, copies = [], [], 0
    for _, same in frame[frame.duplicated("digest", keep=False)].groupby("digest", sort=False):
        splits = tuple(split for split in SPLITS if split in set(same["split"]))
        found = Duplicate(tuple(same["name"]), splits, tuple(sorted(set(same["label"]))))
        if len(splits) > 1:
            leaks.append(found)
        if len(found.labels) > 1:
            conflicts.append(found)
        if len(splits) == len(found.labels) == 1:
            copies += len(same) - 1
    return tuple(leaks), tuple(conflicts), copies
