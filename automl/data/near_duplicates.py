"""Files that are nearly the same in two splits: a leak that no digest of the files shows. Images: `image_copies`.

Found are copies that were encoded anew, shrunk or, of videos, cut shorter, and a forged video beside the one it was
made of: all but the face is the same in both, so a network that saw the one knows the other.

1. Of each clip, eight frames or up to four spectrograms are made, through the cache: what was decoded once stays.
2. Each image has a hash of 64 bits (`perceptual_hash`). Images with nothing in them (black, silence) have none.
3. Every hash of a split is compared with every one of the others. Two images are alike if few of the bits differ and
   the correlation of their pixels is high as well; two clips are near copies if more than half of the images of one
   of them have a like one in the other.

What the limits in `_COMPARISONS` were taken from; a clip's figures are those that more than half of its images reach:

| | clips or pairs | bits that differ | correlation | found |
|---|---|---|---|---|
| H.264 copies, crf 38 or half as wide and high | 46 | 0 to 2 | 0.99 to 1.00 | all |
| smaller copies without a tenth, in the beginning, the end or by halves | 69 | 0 to 10 | 0.81 to 1.00 | all |
| a forged video and its source (FaceForensics++), or a copy of that | 88 | 0 to 10 | 0.84 to 1.00 | all |
| videos of different sources (FaceForensics++, DFDC) | 2695 | 16 to 38 | | none |
| voices as MP3 or AAC of 32 kb/s, MP3 of 64 kb/s, Opus of 16 kb/s | 400 | 0 to 10 | 0.75 to 1.00 | all |
| voices as AAC at 8 kHz | 100 | 0 to 12 | 0.59 to 1.00 | 97 |
| voices without their last twentieth | 100 | 2 to 24 | | 58 |
| voices without their first tenth | 100 | 0 to 32 | | 2 |
| different voices, real or cloned, and their copies | 103 950 | 12 to 46 | to 0.32 | none |
"""

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import lru_cache
from itertools import combinations

import numpy as np
import numpy.typing as npt

from automl.data.cache import Cache, build_cache
from automl.data.copy_groups import CopyGroups
from automl.data.dataset import SPLITS, Dataset
from automl.data.image_copies import join_image_copies, print_images
from automl.data.perceptual_hash import SIZE, Hashes, Indices, count_ones, perceptual_hashes
from automl.errors import DataError
from automl.files import CacheEntry
from automl.media.kinds import Medium
from automl.reporter import Progress
from automl.views.base import ClipView
from automl.views.frame import Frame
from automl.views.mel import Mel

_MOST_PAIRS = 5_000_000_000  # of hashes: some ten seconds
_BLOCK = 256, 4096  # hashes of two splits that are compared at once: 8 MB
_VERSION = 1  # of what is stored of images; raise it when others are found


@dataclass(frozen=True)
class _Comparison:
    """How clips of one kind are compared."""

    view: ClipView
    near_bits: int  # bits of two hashes that may differ
    alike: float  # the least correlation of two images that are alike


# Of sound, what a telephone lets through: whether the upper half of a picture is black would count for too much.
_COMPARISONS: dict[Medium, _Comparison] = {
    "video": _Comparison(Frame(count=8), 10, 0.8),
    "sound": _Comparison(Mel(count=4, sample_rate_hz=8000, fmax_hz=4000), 12, 0.7),
}


@dataclass(frozen=True)
class NearCopy:
    """Files in more than one split that are nearly the same, each like another one of them."""

    names: tuple[str, ...]  # as in the label file: the first one of each split, then the others
    splits: tuple[str, ...]
    similarity: float  # correlation of the images by which they belong together, where it is weakest, at most 1
    medium: str = "clip"
    labels: tuple[str, ...] = ()  # of images that are copies under several; a forged clip is like its source

    @property
    def sentence(self) -> str:
        """One line for a user, without a full stop: `a.mp4 ~ b.mp4: nearly the same clip in train and validation`."""
        shown = " ~ ".join(self.names[:4]) + (" ~ …" if len(self.names) > 4 else "")
        labels = f", as {' and as '.join(self.labels)}" if self.labels else ""
        return f"{shown}: nearly the same {self.medium} in {' and '.join(self.splits)}{labels}"


@dataclass(frozen=True)
class NearCopies:
    """What comparing the splits of a data set gave."""

    groups: tuple[tuple[tuple[int, ...], float], ...] = ()
    """Rows that belong together, and their similarity as in `NearCopy`; the surest first."""
    notes: tuple[str, ...] = ()
    """What was not compared, one line each, without a full stop."""
    unseen: tuple[int, ...] = ()
    """Rows that nothing can be said of: there is nothing in them, or they cannot be read."""

    def name_groups(self, dataset: Dataset) -> tuple[NearCopy, ...]:
        """Names the files of the groups."""
        return tuple(_name_group(dataset, np.asarray(rows), similarity) for rows, similarity in self.groups)


def near_copies(dataset: Dataset, progress: Progress | None = None) -> tuple[NearCopy, ...]:
    """Finds files of one split that are identical or nearly so to one of another split; see `compare_splits`."""
    return compare_splits(dataset, progress).name_groups(dataset)


def compare_splits(dataset: Dataset, progress: Progress | None = None, cache: Cache | None = None) -> NearCopies:
    """Finds files of one split that are identical or nearly so to one of another split.

    Files that cannot be read are left out, and so is sound in silence, and pictures in black or of less than 32 pixels.
    A clip of which most is shown in another, longer one is found where the frames are alike. Sound is found only at the
    same length and place in its pictures: not what was shifted by a tenth of a clip. What is found in images is stored.

    Args:
        dataset: The samples; copies within one split do no harm and are not looked for.
        progress: Receives what is done.
        cache: Images that are decoded already, of 64 pixels or more; None: they are decoded.

    Raises:
        AutomlError: If the disk is too full for the cache, or its folder cannot be written.
    """
    if len(_list_splits(dataset)) < 2:
        return NearCopies()
    if cache is None or dataset.media != "image":
        cache = _open_cache(dataset, progress)
    if cache is None:
        return NearCopies(unseen=tuple(range(len(dataset.samples))))
    if dataset.media == "image":
        return _compare_images(dataset, cache, progress)
    images, shortcut = _hash_images(cache), describe_shortcut(dataset)
    groups = _group_clips(dataset, cache, images)
    return NearCopies(_sort_groups(groups), (shortcut,) if shortcut else (), _list_unseen(cache, images.rows))


def _compare_images(dataset: Dataset, cache: Cache, progress: Progress | None) -> NearCopies:
    """Compares the images of a cache, unless that was done before."""
    splits = dataset.samples["split"].to_numpy(dtype=str)
    key = [_VERSION, cache.folder.name, hashlib.sha256(" ".join(splits).encode()).hexdigest()]
    entry = CacheEntry("near_copies", key)
    known = entry.load_json(
        lambda stored: NearCopies(_sort_groups(stored["groups"]), tuple(stored["notes"]), tuple(stored["unseen"]))
    )
    if known is not None:
        return known
    prints, joined = print_images(cache), CopyGroups(len(cache))
    skipped = join_image_copies(cache, prints, splits, joined, progress)
    note = f"{skipped} pairs of images that might be cropped copies were not compared: others are more alike"
    groups, unseen = _sort_groups(joined.list_groups()), _list_unseen(cache, prints.rows)
    compared = NearCopies(groups, (note,) if skipped else (), unseen)
    entry.save_json({"key": key, **asdict(compared)})
    return compared


def _sort_groups(groups: Iterable[tuple[Iterable[int], float]]) -> tuple[tuple[tuple[int, ...], float], ...]:
    """Puts the surest first, and then the first in the data set."""
    tuples = [(tuple(rows), similarity) for rows, similarity in groups]
    return tuple(sorted(tuples, key=lambda group: (-group[1], group[0])))


def _list_unseen(cache: Cache, rows: Indices) -> tuple[int, ...]:
    """Lists the rows of a cache that are not among those."""
    return tuple(np.setdiff1d(np.arange(len(cache)), rows).tolist())


def _group_clips(dataset: Dataset, cache: Cache, images: "_Images") -> list[tuple[list[int], float]]:
    """Groups the clips that are nearly the same in two splits."""
    comparison = _COMPARISONS[dataset.media]
    compared = images
    if describe_shortcut(dataset):
        _, first, counts = np.unique(images.rows, return_index=True, return_counts=True)
        compared = images[first + counts // 2]  # the middle one of each row
    clips, groups = _Clips(comparison, cache, images), CopyGroups(len(cache))
    split_of = dataset.samples["split"].to_numpy()[compared.rows]
    for one, other in combinations(_list_splits(dataset), 2):
        sides = compared[split_of == one], compared[split_of == other]
        for pairs in _find_candidates(*sides, comparison.near_bits, groups):
            for a, b in pairs.tolist():
                if groups.are_apart(a, b) and (similarity := clips.correlate(a, b)):
                    groups.join_rows(a, b, similarity)
    return groups.list_groups()


def list_undecoded(dataset: Dataset) -> list[tuple[str, str]]:
    """Lists the files that `near_copies` could make no images of, and why; after it, this decodes nothing."""
    cache = _open_cache(dataset)
    return cache.unreadable if cache else []


def _open_cache(dataset: Dataset, progress: Progress | None = None) -> Cache | None:
    """Opens the images to compare; None if there are no two splits, or no file has any image."""
    if len(_list_splits(dataset)) < 2:
        return None
    with suppress(DataError):
        if dataset.media == "image":
            return build_cache(dataset, SIZE, progress)
        return build_cache(dataset, SIZE, progress, _COMPARISONS[dataset.media].view)
    return None


def describe_shortcut(dataset: Dataset) -> str | None:
    """Says in one line, without a full stop, what `near_copies` does not compare; None if it compares all."""
    if dataset.media not in _COMPARISONS:
        return None
    counts = [int((dataset.samples["split"] == split).sum()) for split in _list_splits(dataset)]
    pairs = sum(a * b for a, b in combinations(counts, 2)) * _COMPARISONS[dataset.media].view.count ** 2
    if pairs <= _MOST_PAIRS:
        return None
    return f"with {sum(counts)} clips, only the middle image of each was compared to find near copies"


def _list_splits(dataset: Dataset) -> list[str]:
    """Lists the splits that have samples."""
    return [split for split in SPLITS if (dataset.samples["split"] == split).any()]


@dataclass(frozen=True, eq=False)
class _Images:
    """Images with something in them, in the order of the data set; all of shape (N,)."""

    rows: Indices  # of the data set
    numbers: Indices  # which of the row's images
    hashes: Hashes

    def __getitem__(self, chosen: "slice | npt.NDArray[np.bool_] | Indices") -> "_Images":
        return _Images(self.rows[chosen], self.numbers[chosen], self.hashes[chosen])

    def __len__(self) -> int:
        return len(self.rows)

    def cut_blocks(self, most: int) -> Iterator["_Images"]:
        """Yields parts of at most so many images that cut no row in two."""
        begin = 0
        while begin < len(self):
            end = begin + most
            if end < len(self):
                end = int(np.searchsorted(self.rows, self.rows[end]))
            yield self[begin:end]
            begin = end


def _hash_images(cache: Cache) -> _Images:
    """Computes the hashes of all images of a cache."""
    rows = np.repeat(np.arange(len(cache)), cache.counts)
    numbers = np.arange(len(rows)) - np.repeat(np.cumsum(cache.counts) - cache.counts, cache.counts)
    hashes, useful = np.zeros(len(rows), dtype=np.uint64), np.zeros(len(rows), dtype=bool)
    for begin in range(0, len(rows), 512):
        part = slice(begin, begin + 512)
        pixels = np.stack([cache.image(*pair) for pair in zip(rows[part], numbers[part], strict=True)])
        hashes[part], useful[part] = perceptual_hashes(pixels)
    return _Images(rows, numbers, hashes)[useful]


def _find_candidates(one: _Images, other: _Images, near_bits: int, groups: "CopyGroups") -> Iterator[Indices]:
    """Yields pairs of rows of two splits that may be near copies, (n, 2), without those known to belong together."""
    for a in one.cut_blocks(_BLOCK[0]):
        for b in other.cut_blocks(_BLOCK[1]):
            near = np.flatnonzero(count_ones(a.hashes[:, None] ^ b.hashes) <= near_bits)
            if not len(near):
                continue
            i, j = np.divmod(near, len(b))
            new = groups.are_apart(a.rows[i], b.rows[j])
            yield _pair_rows(a, b, i[new], j[new])


def _pair_rows(a: _Images, b: _Images, i: Indices, j: Indices) -> Indices:
    """Finds the pairs of rows, (n, 2), most of whose images are near, as image `i` of `a` is near image `j` of `b`."""
    a_rows, a_first, a_position, a_counts = np.unique(a.rows, True, True, True)
    b_rows, b_first, b_position, b_counts = np.unique(b.rows, True, True, True)
    a_near = np.zeros((len(a), len(b_rows)), dtype=bool)  # an image, a row
    a_near[i, b_position[j]] = True
    b_near = np.zeros((len(a_rows), len(b)), dtype=bool)  # a row, an image
    b_near[a_position[i], j] = True
    most_of_a = 2 * np.add.reduceat(a_near, a_first, axis=0, dtype=np.int64) > a_counts[:, None]
    most_of_b = 2 * np.add.reduceat(b_near, b_first, axis=1, dtype=np.int64) > b_counts
    which_a, which_b = np.nonzero(most_of_a | most_of_b)
    return np.stack([a_rows[which_a], b_rows[which_b]], axis=1)


class _Clips:
    """Compares the pixels of two clips."""

    def __init__(self, comparison: _Comparison, cache: Cache, images: _Images) -> None:
        self._comparison, self._cache, self._images = comparison, cache, images
        self._read_clip = lru_cache(maxsize=64)(self._normalise_pixels)

    def correlate(self, a: int, b: int) -> float:
        """Returns the mean correlation of images with the most similar one; 0 if only half of either clip have one."""
        (a_hashes, a_pixels), (b_hashes, b_pixels) = self._read_clip(a), self._read_clip(b)
        correlation = a_pixels @ b_pixels.T
        near = count_ones(a_hashes[:, None] ^ b_hashes) <= self._comparison.near_bits
        alike = near & (correlation >= self._comparison.alike)
        best = [np.where(alike, correlation, 0).max(axis=axis) for axis in (0, 1)]
        if max((values > 0).mean() for values in best) <= 0.5:
            return 0.0
        similar = np.concatenate(best)
        return min(1.0, float(similar[similar > 0].mean()))

    def _normalise_pixels(self, row: int) -> tuple[Hashes, npt.NDArray[np.float32]]:
        """Returns the hashes and the pixels of a row's images, these shifted and scaled to mean 0 and norm 1."""
        begin, end = np.searchsorted(self._images.rows, [row, row + 1])
        own = self._images[begin:end]
        pixels = np.stack([self._cache.image(row, number) for number in own.numbers]).reshape(len(own), -1)
        centred = pixels.astype(np.float32) - pixels.mean(axis=1, keepdims=True, dtype=np.float32)
        return own.hashes, centred / np.linalg.norm(centred, axis=1, keepdims=True)


def _name_group(dataset: Dataset, rows: Indices, similarity: float) -> NearCopy:
    """Names the files of a group."""
    names, splits = (dataset.samples[column].to_numpy()[rows] for column in ("name", "split"))
    first = [int(np.flatnonzero(splits == split)[0]) for split in SPLITS if (splits == split).any()]
    order = [*first, *(k for k in range(len(rows)) if k not in first)]
    medium = "image" if dataset.media == "image" else "clip"
    labels: tuple[str, ...] = ()
    if medium == "image":
        labels = tuple(dataset.classes[label] for label in sorted(set(dataset.samples["label"].to_numpy()[rows])))
    return NearCopy(
        tuple(str(names[k]) for k in order),
        tuple(str(splits[k]) for k in first),
        similarity,
        medium,
        labels if len(labels) > 1 else (),
    )
