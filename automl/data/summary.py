"""What a data set is made of, before anything is trained on it: `automl data PATH`.

Every file is read in full: a truncated one shows only at its end, and a copy in another split (a leak: the validation
then measures memory) only by its content. Of videos and sounds, `with_near_copies` finds copies that were encoded anew.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import numpy as np
import pandas as pd

from automl.data.cache import cpu_threads
from automl.data.copies import NearCopy, near_copies, shortcut
from automl.data.decode import image_size, read_rgb
from automl.data.media import MediaInfo, probe_media, require
from automl.data.samples import SPLITS, Dataset
from automl.errors import AutomlError, DataError

__all__ = ["Clips", "Duplicate", "Sizes", "Summary", "summarise", "with_near_copies"]

Progress = Callable[[int, int], None]
_Content = tuple[tuple[int, int] | None, MediaInfo | None]  # (width, height), and what is in a clip


@dataclass(frozen=True)
class Sizes:
    """Widths and heights in pixels over all readable images or videos, each as (smallest, median, largest)."""

    width: tuple[int, int, int]
    height: tuple[int, int, int]


@dataclass(frozen=True)
class Clips:
    """What videos and sounds have that images have not, over all that can be read.

    Attributes:
        count: How many can be read.
        seconds: Durations as (shortest, median, longest); None if no file says.
        frames_per_second: (lowest, highest) average of a clip; None if there are no pictures, or no file says.
        variable_rate: How many show their frames for unequal times.
        rotated: How many are stored lying on their side or upside down; they are turned upright.
        pictures: How many have any.
        sound: How many have any.
        sample_rates_hz: The different ones, ascending.
    """

    count: int
    seconds: tuple[float, float, float] | None
    frames_per_second: tuple[float, float] | None
    variable_rate: int
    rotated: int
    pictures: int
    sound: int
    sample_rates_hz: tuple[int, ...]


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
        clips: Of videos and sounds; None for images.
        near_copies: Clips that are nearly the same in two splits, exact copies alone excepted: those are `leaks`. None
            are known before `with_near_copies`.
        notes: Remarks, one line each.
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
    clips: Clips | None = None
    near_copies: tuple[NearCopy, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _File:
    """What one file turned out to be: a digest of its content, and what is in it or why it cannot be read.

    Attributes:
        digest: Of the content.
        reason: Why it cannot be read; empty if it can.
        size: (width, height) in pixels; None of a sound.
        media: What is in it; None of an image.
    """

    digest: bytes
    reason: str = ""
    size: tuple[int, int] | None = None
    media: MediaInfo | None = None


def summarise(dataset: Dataset, progress: Progress | None = None) -> Summary:
    """Reads every file of a data set once; near copies are not looked for.

    Args:
        dataset: The samples.
        progress: Called with (files done, files in all).

    Returns:
        What was found; nothing is raised for a bad file.

    Raises:
        DataError: If the package that reads videos and sounds is not installed.
    """
    samples = dataset.samples
    clips = dataset.media != "image"
    if clips:
        require("av")
    files = _read_all(samples["path"].tolist(), _clip if clips else _image, progress)
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
        clips=_clips([file.media for file in files if file.media]) if clips else None,
    )


def with_near_copies(summary: Summary, dataset: Dataset, progress: Progress | None = None) -> Summary:
    """Looks for clips that are nearly the same in two splits; frames and sounds are decoded for it.

    Args:
        summary: Of the data set.
        dataset: The samples; of images nothing is looked for.
        progress: Called with (files done, files in all) as they are decoded.

    Returns:
        The summary with `near_copies`, and a note where not everything was compared.
    """
    try:
        found = near_copies(dataset, progress)
    except AutomlError as exc:  # no room for what is decoded; all the rest is still worth showing
        return replace(summary, notes=(*summary.notes, f"near copies were not looked for: {exc}"))
    exact = [set(copy.names) for copy in summary.leaks]
    found = tuple(copy for copy in found if not any(set(copy.names) <= names for names in exact))
    note = shortcut(dataset)
    return replace(summary, near_copies=found, notes=(*summary.notes, *([note] if note else [])))


def _read_all(paths: Sequence[str], look: Callable[[str], _Content], progress: Progress | None) -> list[_File]:
    """Reads files in threads, in order."""
    files = []
    with ThreadPoolExecutor(cpu_threads()) as pool:
        try:
            for file in pool.map(lambda path: _read(path, look), paths):
                files.append(file)
                if progress:
                    progress(len(files), len(paths))
        except BaseException:
            pool.shutdown(cancel_futures=True)  # Ctrl-C does not wait for a million files
            raise
    return files


def _read(path: str, look: Callable[[str], _Content]) -> _File:
    """Reads one file: its content's digest, what is in it, or why it cannot be read."""
    digest = hashlib.blake2b(digest_size=16)
    try:
        with Path(path).open("rb") as handle:
            while chunk := handle.read(1 << 20):
                digest.update(chunk)
        size, media = look(path)
    except (DataError, OSError) as exc:
        reason = getattr(exc, "strerror", None) or str(exc).removeprefix(f"cannot read {path}: ")
        return _File(digest.digest(), reason)
    return _File(digest.digest(), "", size, media)


def _image(path: str) -> _Content:
    """The size of an image, if it decodes to the end."""
    size = image_size(path)
    read_rgb(path, short_side=1)  # reads all of the file, but computes an eighth of a JPEG's pixels
    return size, None


def _clip(path: str) -> _Content:
    """What is in a video or sound, and the size of its frames."""
    media = probe_media(path)
    return (media.video.width, media.video.height) if media.video else None, media


def _clips(found: Sequence[MediaInfo]) -> Clips:
    """Sums up what is in clips."""
    videos = [media.video for media in found if media.video]
    sounds = [media.audio for media in found if media.audio]
    seconds = [media.duration_seconds for media in found if media.duration_seconds is not None]
    rates = [video.frames_per_second for video in videos if video.frames_per_second is not None]
    return Clips(
        count=len(found),
        seconds=(min(seconds), median(seconds), max(seconds)) if seconds else None,
        frames_per_second=(min(rates), max(rates)) if rates else None,
        variable_rate=sum(video.variable_rate for video in videos),
        rotated=sum(video.rotation_degrees != 0 for video in videos),
        pictures=len(videos),
        sound=len(sounds),
        sample_rates_hz=tuple(sorted({sound.sample_rate_hz for sound in sounds})),
    )


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
    frame = frame[[not file.reason for file in files]]
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
