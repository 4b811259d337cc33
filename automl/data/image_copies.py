"""Image files that are nearly the same in two splits, also mirrored; what `near_duplicates` finds in images.

1. Each image, whatever its shape, becomes 64 × 64 pixels, and these a hash (`perceptual_hash`) and a spectrum: the
   lowest 24 × 24 frequencies of the cosine transform. A mirrored image has the same spectrum but for signs.
2. Every hash of a split is compared with every one of the others, also mirrored. Where 80,000 images stand against
   20,000, these are 3.2 · 10⁹ comparisons: in blocks 17 s of work, so that no index by parts of the hash is needed
   (Norouzi et al. 2012, arXiv 1307.2982); its buckets would be full where 14 bits may differ and all images are faces.
3. Of two images whose hashes are near, the spectra are compared: all of them, and the details alone, the frequencies
   beyond those of the hash. Aligned faces have the same light and dark parts, but not the same details.
4. Where both are alike, but not enough, one image is laid on the other (`image_alignment`), and finer details are
   compared. This finds what was cropped or turned a little.

The limits below were taken from 1600 aligned faces (FFHQ and StyleGAN), 397 photographs of ants and bees, and copies of
200 images of each (`studies/benchmarks/near_copies.py`). Images without details are left out: any two are alike.

| | pairs | bits that differ | whole and detail | detail when aligned | found |
|---|---|---|---|---|---|
| JPEG of quality 10 or 30, half or a quarter as wide and high | 1600 | 0 to 6 | 0.98 to 1.00 | | all |
| half or 1.4 times as bright, half the contrast, without colours | 1600 | 0 to 12 | 0.87 to 1.00 | | all |
| without 5 % at one side or at the top | 800 | 0 to 20 | 0.50 to 1.00 | 0.00 to 1.00 | 792 |
| without 2.5 % on all sides, also half the size and quality 30 | 800 | 0 to 14 | 0.15 to 0.99 | 0.88 to 0.98 | 796 |
| without 5 % on all sides | 400 | 2 to 22 | 0.27 to 0.94 | 0.53 to 0.99 | 289 |
| turned by two degrees | 400 | 0 to 18 | 0.63 to 0.98 | 0.86 to 0.97 | 398 |
| mirrored | 400 | 0 | 1.00 | | all |
| mirrored, without 5 % at one side | 400 | 2 to 16 | 0.47 to 0.91 | 0.95 to 0.99 | 395 |
| a photograph of a face and a network's imitation of it | 4 | 2 to 10 | 0.88 to 0.98 | | all |
| other aligned faces | 1 279 196 | 3513 up to 14 | to 0.81 | to 0.65 | none |
| other ants and bees | 78 606 | 3 up to 14 | to 0.18 | | none |

The correlation of pixels from 0.80, by which videos are compared, would call 12 pairs of the other faces copies: one
background and one kind of hair.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt
from PIL import Image

from automl.data.cache import Cache
from automl.data.copy_groups import CopyGroups
from automl.data.image_alignment import correlate_aligned, has_details
from automl.data.perceptual_hash import LUMA, SIZE, Hashes, Indices, Spectra, count_ones, gray_spectra, hash_spectra
from automl.processes import cpu_threads, in_threads
from automl.reporter import Progress

_NEAR_BITS = 14  # of two hashes that may differ
_LEAST_WHOLE = 0.65  # correlation of the whole spectra below which two images are not looked at further
_SAME = 0.85  # the least mean of both correlations, whole and detail, of copies
_WORTH_ALIGNING = 0.5  # the least mean of both from which an affine map is looked for
_SAME_ALIGNED = 0.85  # the least correlation of the details of copies that are laid on each other
_MOST_ALIGNED = 20_000  # pairs, the likeliest first: some twenty seconds
_LEAST_SIDE = 32  # pixels: in smaller images, digits or icons, there is no detail to tell a copy by
_BLOCK = 256, 4096  # hashes of two splits that are compared at once: 8 MB
_BATCH = 512  # images whose spectra are computed at once
_CHUNK = 16_384  # pairs of spectra that are compared at once: 75 MB

_ROW, _COLUMN = np.indices((24, 24)).reshape(2, -1)[:, 1:]  # frequencies, without the mean brightness
_ORDER = np.argsort(np.maximum(_ROW, _COLUMN) >= 8, kind="stable")  # the hash's first
_ROW, _COLUMN, _LOW = _ROW[_ORDER], _COLUMN[_ORDER], 63
_SCALE = np.where(_ROW, 1, np.sqrt(0.5)) * np.where(_COLUMN, 1, np.sqrt(0.5))  # an orthonormal transform
_MIRRORED = np.where(_COLUMN % 2, -1, 1).astype(np.float32)

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class ImagePrints:
    """What images are compared by; of images with details, in the order of their rows."""

    rows: Indices  # (n,) of the data set
    hashes: Hashes  # (n,)
    mirrored: Hashes  # (n,) of the images' mirror images
    spectra: npt.NDArray[np.float16]  # (n, 575) of norm 1: the hash's 63 frequencies, then the details
    detail: Floats  # (n,) norm of the details

    def __getitem__(self, chosen: "slice | npt.NDArray[np.bool_]") -> "ImagePrints":
        """Returns some of the images."""
        rows, hashes, mirrored = self.rows[chosen], self.hashes[chosen], self.mirrored[chosen]
        return ImagePrints(rows, hashes, mirrored, self.spectra[chosen], self.detail[chosen])

    def __len__(self) -> int:
        return len(self.rows)


def make_prints(spectra: Spectra, rows: Indices) -> ImagePrints:
    """Makes prints of the transforms (n, 32, 32) of images, as `gray_spectra` gives them."""
    flat = (spectra[:, _ROW, _COLUMN] * _SCALE).astype(np.float32)
    flat /= np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6)
    signs = np.where(np.arange(spectra.shape[2]) % 2, -1, 1).astype(np.float32)
    detail = np.maximum(np.linalg.norm(flat[:, _LOW:], axis=1), 1e-6)
    return ImagePrints(rows, hash_spectra(spectra), hash_spectra(spectra * signs), flat.astype(np.float16), detail)


def join_image_copies(
    cache: Cache,
    prints: ImagePrints,
    split_of: npt.NDArray[np.str_],
    groups: CopyGroups,
    progress: Progress | None = None,
) -> int:
    """Joins the rows of `groups` that are nearly the same image in two splits.

    Args:
        cache: The images.
        prints: Their prints.
        split_of: (rows,) The split of each row of the data set.
        groups: The rows.
        progress: Receives how many images are compared.

    Returns:
        How many pairs that might be cropped copies were not aligned, because others were likelier.
    """
    splits = split_of[prints.rows]
    pairs, skipped = join_alike([prints[splits == split] for split in sorted(set(splits.tolist()))], groups, progress)

    def align_pair(pair: list[int]) -> tuple[int, int, float]:
        a, b, mirrored = pair
        first, second = (squash_image(cache.image(row)) @ LUMA for row in (a, b))
        return a, b, correlate_aligned(first, np.ascontiguousarray(second[:, ::-1]) if mirrored else second)

    apart = (pair for pair in pairs.tolist() if groups.are_apart(pair[0], pair[1]))
    for a, b, detail in in_threads(align_pair, apart, 4 * cpu_threads()):
        if detail >= _SAME_ALIGNED and groups.are_apart(a, b):
            groups.join_rows(a, b, min(1.0, detail))
    return skipped


def join_alike(
    sides: Sequence[ImagePrints], groups: CopyGroups, progress: Progress | None = None
) -> tuple[Indices, int]:
    """Joins the rows of `groups` whose prints are those of copies in two of the `sides`.

    Returns:
        Pairs that may be copies and are if they can be aligned, the likeliest first: (n, 3), two rows and whether the
        second is mirrored; and how many more there are.
    """
    waiting = _Waiting()
    done, total = 0, sum(len(one) for one, _ in combinations(sides, 2))
    for one, other in combinations(sides, 2):
        for begin in range(0, len(one), _BLOCK[0]):
            block = one[begin : begin + _BLOCK[0]]
            _compare_block(block, other, groups, waiting)
            done += len(block)
            if progress:
                progress(done, total)
    return waiting.best_pairs(), waiting.skipped


def print_images(cache: Cache) -> ImagePrints:
    """Makes the prints of the images of a cache that have details, and at least 32 pixels on each side."""

    def print_batch(begin: int) -> ImagePrints | None:
        rows = [
            row for row in readable[begin : begin + _BATCH].tolist() if min(cache.image(row).shape[:2]) >= _LEAST_SIDE
        ]
        if not rows:
            return None
        pixels = np.stack([squash_image(cache.image(row)) for row in rows])
        spectra, useful = gray_spectra(pixels)
        useful &= [has_details(gray) for gray in pixels @ LUMA]
        return make_prints(spectra[useful], np.asarray(rows, dtype=np.int64)[useful])

    readable = np.flatnonzero(cache.readable)
    batches = in_threads(print_batch, range(0, len(readable), _BATCH), 2 * cpu_threads())
    return join_prints([part for part in batches if part])


def join_prints(parts: Sequence[ImagePrints]) -> ImagePrints:
    """Puts prints one after the other."""
    all_parts = [make_prints(np.zeros((0, 32, 32), np.float32), np.zeros(0, np.int64)), *parts]
    names = ("rows", "hashes", "mirrored", "spectra", "detail")
    return ImagePrints(*(np.concatenate([getattr(part, name) for part in all_parts]) for name in names))


def squash_image(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Resizes an image (height, width, 3) to (64, 64, 3), whatever its shape."""
    return np.asarray(Image.fromarray(pixels).resize((SIZE, SIZE), Image.Resampling.BICUBIC))


class _Waiting:
    """Pairs that may be copies, and are when aligned; of too many, the likeliest."""

    def __init__(self) -> None:
        self.skipped = 0
        self._pairs = np.zeros((0, 3), dtype=np.int64)  # two rows, and whether the second is mirrored
        self._scores = np.zeros(0, dtype=np.float32)

    def add_pairs(self, a: Indices, b: Indices, mirrored: bool, scores: Floats) -> None:
        """Adds pairs of rows."""
        new = np.stack([a, b, np.full_like(a, mirrored)], axis=1)
        self._pairs, self._scores = np.concatenate([self._pairs, new]), np.concatenate([self._scores, scores])
        if len(self._pairs) > 4 * _MOST_ALIGNED:
            self._drop_unlikely()

    def best_pairs(self) -> Indices:
        """Returns the pairs, (n, 3), the likeliest first."""
        self._drop_unlikely()
        return self._pairs

    def _drop_unlikely(self) -> None:
        order = np.argsort(-self._scores, kind="stable")
        self.skipped += max(0, len(order) - _MOST_ALIGNED)
        self._pairs, self._scores = self._pairs[order[:_MOST_ALIGNED]], self._scores[order[:_MOST_ALIGNED]]


def _compare_block(one: ImagePrints, other: ImagePrints, groups: CopyGroups, waiting: _Waiting) -> None:
    """Joins the copies between images of one split and all of another; what an affine map may bring together waits."""
    for begin in range(0, len(other), _BLOCK[1]):
        block = other[begin : begin + _BLOCK[1]]
        for hashes, mirrored in ((block.hashes, False), (block.mirrored, True)):
            i, j = _find_near(one, block, hashes, groups)
            whole, mean = compare_prints(one, i, block, j, mirrored)
            same = mean >= _SAME
            for a, b, similarity in zip(one.rows[i[same]], block.rows[j[same]], mean[same].tolist(), strict=True):
                if groups.are_apart(a, b):
                    groups.join_rows(a, b, min(1.0, similarity))
            likely = ~same & (whole >= _LEAST_WHOLE) & (mean >= _WORTH_ALIGNING)
            waiting.add_pairs(one.rows[i[likely]], block.rows[j[likely]], mirrored, mean[likely])


def _find_near(one: ImagePrints, other: ImagePrints, hashes: Hashes, groups: CopyGroups) -> tuple[Indices, Indices]:
    """Finds pairs of images with near hashes, those of `other` given, that are not known to belong together.

    Of a group, only the nearest image is paired with another one: a thousand copies of one image are a million pairs.
    """
    bits = count_ones(one.hashes[:, None] ^ hashes)
    i, j = np.nonzero(bits <= _NEAR_BITS)
    group_i, group_j = groups.group_of[one.rows[i]], groups.group_of[other.rows[j]]
    kept = np.flatnonzero(group_i != group_j)
    for own, others in ((i, group_j), (j, group_i)):
        keys, order = own[kept] * len(groups.group_of) + others[kept], np.argsort(bits[i[kept], j[kept]], kind="stable")
        kept = kept[np.sort(order[np.unique(keys[order], return_index=True)[1]])]
    return i[kept], j[kept]


def compare_prints(
    one: ImagePrints, i: Indices, other: ImagePrints, j: Indices, mirrored: bool
) -> tuple[Floats, Floats]:
    """Returns of pairs `i`, `j` (n,) the correlation of their spectra, and the mean of this and that of the details."""
    signs = _MIRRORED if mirrored else np.ones_like(_MIRRORED)
    whole, detail = np.zeros(len(i), dtype=np.float32), np.zeros(len(i), dtype=np.float32)
    for part in _cut_chunks(len(i)):
        a, b = one.spectra[i[part]].astype(np.float32), other.spectra[j[part]] * signs
        high = np.einsum("nk,nk->n", a[:, _LOW:], b[:, _LOW:])
        whole[part] = high + np.einsum("nk,nk->n", a[:, :_LOW], b[:, :_LOW])
        detail[part] = high / (one.detail[i[part]] * other.detail[j[part]])
    return whole, 0.5 * (whole + detail)


def _cut_chunks(count: int) -> Iterator[slice]:
    return (slice(begin, begin + _CHUNK) for begin in range(0, count, _CHUNK))
