"""What a data set is made of, before anything is trained on it: `automl data PATH`.

Every file is read in full: a truncated one shows only at its end, and a copy in another split (a leak: the validation
then measures memory) only by its content. Of videos and sounds, `with_near_copies` finds copies that were encoded anew.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import median

import numpy as np
import pandas as pd

from automl.data.content import FileContent, clip_content, image_content
from automl.data.dataset import SPLITS, Dataset
from automl.data.near_duplicates import NearCopy, describe_shortcut, list_undecoded, near_copies
from automl.data.picture_shapes import cut_off_note
from automl.data.splits import check_counts
from automl.errors import AutomlError, DataError, shorten
from automl.media.decoding import decode_files
from automl.media.images import describe_alone
from automl.media.info import MediaInfo
from automl.media.opening import require
from automl.processes import cpu_threads
from automl.reporter import Progress

_AHEAD = 256  # files a core that are begun and not yet counted


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
        stretched: How many have pixels that are not square; they are shown in their right shape.
        several_pictures: How many have more than one track of pictures; the default one is read.
        several_sounds: How many have more than one sound track; the default one is read.
    """

    count: int
    seconds: tuple[float, float, float] | None
    frames_per_second: tuple[float, float] | None
    variable_rate: int
    rotated: int
    pictures: int
    sound: int
    sample_rates_hz: tuple[int, ...]
    stretched: int = 0
    several_pictures: int = 0
    several_sounds: int = 0


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
        dataset: The samples.
        counts: Samples per split, then per class name.
        groups: Number of groups per split; empty if no samples belong together.
        sizes: None if no image can be read.
        unreadable: (name, reason) of files that cannot be decoded.
        leaks: Copies in more than one split.
        conflicts: Copies with different labels.
        copies: Files that are a copy of another within their split and class; harmless, but counted twice.
        problems: Warnings, one line each.
        notes: Remarks, one line each.
        clips: Of videos and sounds; None for images.
        near_copies: Clips that are nearly the same in two splits, exact copies alone excepted: those are `leaks`. None
            are known before `with_near_copies`.
    """

    dataset: Dataset
    counts: dict[str, dict[str, int]]
    groups: dict[str, int]
    sizes: Sizes | None
    unreadable: tuple[tuple[str, str], ...]
    leaks: tuple[Duplicate, ...]
    conflicts: tuple[Duplicate, ...]
    copies: int
    problems: tuple[str, ...]
    notes: tuple[str, ...]
    clips: Clips | None = None
    near_copies: tuple[NearCopy, ...] = ()


def summarise(dataset: Dataset, progress: Progress | None = None) -> Summary:
    """Reads every file of a data set once; near copies are not looked for.

    Args:
        dataset: The samples.
        progress: Called with (files done, files in all).

    Returns:
        What the files hold; nothing is raised for a bad file.

    Raises:
        DataError: If the package that reads videos and sounds is not installed.
    """
    samples, is_clips = dataset.samples, dataset.media != "image"
    if is_clips:
        require("av")
    files = _read_files(samples["path"].tolist(), clip_content if is_clips else image_content, progress)
    sizes = [file.size for file in files if file.size]
    leaks, conflicts, copies = _find_duplicates(dataset, files)
    notes = _count_notes(files, "clip" if is_clips else "image")
    if sizes and (cut_off := cut_off_note(sizes, f"{dataset.media}s")):
        notes.append(
            f"{cut_off}; {'`fit: squash` of the view frame' if is_clips else '`crop: squash`'} shows all of them"
        )
    groups = samples.groupby("split")["group"].nunique().items() if dataset.grouped else ()
    return Summary(
        dataset=dataset,
        counts=_count_samples(dataset),
        groups={str(split): int(count) for split, count in groups},
        sizes=Sizes(_spread_of(w for w, _ in sizes), _spread_of(h for _, h in sizes)) if sizes else None,
        unreadable=tuple((name, file.reason) for name, file in zip(samples["name"], files, strict=True) if file.reason),
        leaks=leaks,
        conflicts=conflicts,
        copies=copies,
        problems=(*dataset.problems, *_describe_losses(dataset, files)),
        notes=tuple(notes),
        clips=_summarise_clips([file.media for file in files if file.media]) if is_clips else None,
    )


def with_near_copies(summary: Summary, progress: Progress | None = None) -> Summary:
    """Looks for clips that are nearly the same in two splits; frames and sounds are decoded for it.

    Args:
        summary: Of the data set; of images nothing is looked for.
        progress: Called with (files done, files in all) as they are decoded.

    Returns:
        The summary with `near_copies`, and a note where not everything was compared.
    """
    try:
        copies = near_copies(summary.dataset, progress)
    except AutomlError as exc:  # no room for what is decoded; all the rest is still worth showing
        return replace(summary, notes=(*summary.notes, f"near copies were not looked for: {exc}"))
    exact = [set(copy.names) for copy in summary.leaks]
    copies = tuple(copy for copy in copies if not any(set(copy.names) <= names for names in exact))
    notes = [note for note in (describe_shortcut(summary.dataset), _describe_undecoded(summary)) if note]
    return replace(summary, near_copies=copies, notes=(*summary.notes, *notes))


def _describe_undecoded(summary: Summary) -> str | None:
    """Lists clips that can be opened, but could not be decoded when near copies were looked for."""
    known = {name for name, _ in summary.unreadable}
    lines = [f"{name}: {reason}" for name, reason in list_undecoded(summary.dataset) if name not in known]
    return f"not decoded to find near copies, {len(lines)}: {shorten(lines, separator='; ')}" if lines else None


def _read_files(
    paths: Sequence[str], read: Callable[[str], FileContent], progress: Progress | None
) -> list[FileContent]:
    """Reads files, in order; of one that cannot be read, why."""
    files: list[FileContent] = []
    for path, content in zip(paths, decode_files(read, paths, _AHEAD * cpu_threads()), strict=True):
        files.append(FileContent(reason=describe_alone(content, path)) if isinstance(content, DataError) else content)
        if progress:
            progress(len(files), len(paths))
    return files


def _describe_losses(dataset: Dataset, files: Sequence[FileContent]) -> list[str]:
    """Counts the files of each class that cannot be read, and says whether enough are left; one line each."""
    readable = np.array([not file.reason for file in files])
    if readable.all():
        return []
    labels = dataset.samples["label"].to_numpy()
    lost = np.bincount(labels[~readable], minlength=len(dataset.classes))
    total = np.bincount(labels, minlength=len(dataset.classes))
    shown = [f"{name} {lost[i]} of {total[i]}" for i, name in enumerate(dataset.classes) if lost[i]]
    lines = [f"{lost.sum()} of {len(files)} files cannot be read: {shorten(shown)}"]
    try:
        check_counts(dataset.samples[readable], dataset.classes)
    except DataError as exc:
        lines.append(f"of what can be read, {exc}")
    return lines


def _count_notes(files: Iterable[FileContent], what: str) -> list[str]:
    """Lists what is to be known of some files, and of how many."""
    counts = Counter(note for file in files for note in file.notes)
    return [f"{count} {what}{'s' if count > 1 else ''}: {note}" for note, count in counts.most_common()]


def _summarise_clips(infos: Sequence[MediaInfo]) -> Clips:
    """Sums up what is in clips."""
    videos = [media.video for media in infos if media.video]
    sounds = [media.audio for media in infos if media.audio]
    seconds = [media.duration_seconds for media in infos if media.duration_seconds is not None]
    rates = [video.frames_per_second for video in videos if video.frames_per_second is not None]
    return Clips(
        count=len(infos),
        seconds=(min(seconds), median(seconds), max(seconds)) if seconds else None,
        frames_per_second=(min(rates), max(rates)) if rates else None,
        variable_rate=sum(video.variable_rate for video in videos),
        rotated=sum(video.rotation_degrees != 0 for video in videos),
        pictures=len(videos),
        sound=len(sounds),
        sample_rates_hz=tuple(sorted({sound.sample_rate_hz for sound in sounds})),
        stretched=sum(not video.square_pixels for video in videos),
        several_pictures=sum(video.tracks > 1 for video in videos),
        several_sounds=sum(sound.tracks > 1 for sound in sounds),
    )


def _count_samples(dataset: Dataset) -> dict[str, dict[str, int]]:
    """Counts the samples per split and class, also where there are none."""
    pairs = Counter(zip(dataset.samples["split"], dataset.samples["label"], strict=True))
    present = [split for split in SPLITS if (dataset.samples["split"] == split).any()]
    return {split: {name: pairs[split, i] for i, name in enumerate(dataset.classes)} for split in present}


def _spread_of(values: Iterable[int]) -> tuple[int, int, int]:
    """Returns the smallest, median and largest."""
    array = np.fromiter(values, dtype=int)
    return int(array.min()), int(np.median(array)), int(array.max())


def _find_duplicates(
    dataset: Dataset, files: Sequence[FileContent]
) -> tuple[tuple[Duplicate, ...], tuple[Duplicate, ...], int]:
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
        duplicate = Duplicate(tuple(same["name"]), splits, tuple(sorted(set(same["label"]))))
        leaks += [duplicate] if len(splits) > 1 else []
        conflicts += [duplicate] if len(duplicate.labels) > 1 else []
        copies += len(same) - 1 if len(splits) == len(duplicate.labels) == 1 else 0
    return tuple(leaks), tuple(conflicts), copies
