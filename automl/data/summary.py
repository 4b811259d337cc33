"""What a data set is made of, before anything is trained on it: `automl data PATH`.

Every file is read in full: a truncated one shows only at its end, and a copy in another split (a leak: the validation
then measures memory) only by its content. `with_near_copies` finds copies that were encoded anew.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import median

import numpy as np

from automl.data.content import FileContent, clip_content, image_content
from automl.data.dataset import SPLITS, Dataset
from automl.data.near_duplicates import NearCopy, compare_splits, list_undecoded
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
    """What videos and sounds have that images have not, over all that can be read: how many, where no unit is given."""

    count: int
    seconds: tuple[float, float, float] | None  # durations: (shortest, median, longest); None if no file says
    frames_per_second: tuple[float, float] | None  # (lowest, highest) average of a clip; None if no file says
    variable_rate: int  # show their frames for unequal times
    rotated: int  # are stored lying on their side or upside down; they are turned upright
    pictures: int
    sound: int
    sample_rates_hz: tuple[int, ...]  # the different ones, ascending
    stretched: int = 0  # have pixels that are not square; they are shown in their right shape
    several_pictures: int = 0  # have more than one track of pictures; the default one is read
    several_sounds: int = 0  # have more than one sound track; the default one is read


@dataclass(frozen=True)
class Duplicate:
    """Files of equal content, named as in the label file; in several splits a leak, of several labels a conflict."""

    names: tuple[str, ...]
    splits: tuple[str, ...]
    labels: tuple[str, ...]


@dataclass(frozen=True)
class Summary:
    """What `automl data` shows."""

    dataset: Dataset
    counts: dict[str, dict[str, int]]  # samples per split, then per class name
    groups: dict[str, int]  # number of groups per split; empty if no samples belong together
    sizes: Sizes | None  # None if no image can be read
    unreadable: tuple[tuple[str, str], ...]  # (name, reason) of files that cannot be decoded
    leaks: tuple[Duplicate, ...]  # copies in more than one split
    conflicts: tuple[Duplicate, ...]  # copies with different labels
    copies: int  # files that are a copy of another within their split and class; harmless, but counted twice
    problems: tuple[str, ...]  # warnings, one line each
    notes: tuple[str, ...]  # remarks, one line each
    clips: Clips | None = None  # of videos and sounds; None for images
    near_copies: tuple[NearCopy, ...] = ()  # without those that are `leaks`; none before `with_near_copies`


def summarise(dataset: Dataset, progress: Progress | None = None) -> Summary:
    """Reads every file of a data set once, none of which raises; near copies are not looked for.

    Raises:
        DataError: If the package that reads videos and sounds is not installed.
    """
    samples, is_clips = dataset.samples, dataset.media != "image"
    if is_clips:
        require("av")
    read, paths, files = clip_content if is_clips else image_content, samples["path"].tolist(), list[FileContent]()
    for path, content in zip(paths, decode_files(read, paths, _AHEAD * cpu_threads()), strict=True):
        files.append(FileContent(reason=describe_alone(content, path)) if isinstance(content, DataError) else content)
        if progress:
            progress(len(files), len(paths))
    sizes = [file.size for file in files if file.size]
    leaks, conflicts, copies = _find_duplicates(dataset, files)
    remarks = Counter(note for file in files for note in file.notes).most_common()
    notes = [f"{count} image{'s' if count > 1 else ''}: {note}" for note, count in remarks]
    if sizes and (cut_off := cut_off_note(sizes, f"{dataset.media}s")):
        notes.append(
            f"{cut_off}; {'`fit: squash` of the view frame' if is_clips else '`crop: squash`'} shows all of them"
        )
    groups = samples.groupby("split")["group"].nunique().items() if dataset.grouped else ()
    pairs = Counter(zip(samples["split"], samples["label"], strict=True))
    present = [split for split in SPLITS if (samples["split"] == split).any()]
    return Summary(
        dataset=dataset,
        counts={split: {name: pairs[split, i] for i, name in enumerate(dataset.classes)} for split in present},
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
    """Adds files that are nearly the same in two splits, and notes of what was not compared; files are decoded."""
    try:
        compared = compare_splits(summary.dataset, progress)
    except AutomlError as exc:  # no room for what is decoded; all the rest is still worth showing
        return replace(summary, notes=(*summary.notes, f"near copies were not looked for: {exc}"))
    exact = [set(copy.names) for copy in summary.leaks]
    copies = tuple(
        copy for copy in compared.name_groups(summary.dataset) if not any(set(copy.names) <= names for names in exact)
    )
    notes, known = [*compared.notes], {name for name, _ in summary.unreadable}
    if lines := [f"{name}: {reason}" for name, reason in list_undecoded(summary.dataset) if name not in known]:
        notes.append(f"not decoded to find near copies, {len(lines)}: {shorten(lines, separator='; ')}")
    return replace(summary, near_copies=copies, notes=(*summary.notes, *notes))


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


def _spread_of(values: Iterable[int]) -> tuple[int, int, int]:
    """Returns the smallest, median and largest."""
    array = np.fromiter(values, dtype=int)
    return int(array.min()), int(np.median(array)), int(array.max())


def _find_duplicates(
    dataset: Dataset, files: Sequence[FileContent]
) -> tuple[tuple[Duplicate, ...], tuple[Duplicate, ...], int]:
    """Finds files of equal content: leaks, conflicts, and the number of harmless copies."""
    frame = dataset.samples.assign(
        digest=[file.digest for file in files], label=[dataset.classes[label] for label in dataset.samples["label"]]
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
