"""Perceptual hashes: 64 bits of an image that hardly change when it is encoded anew, shrunk or made brighter.

They say which of the lowest 8 × 8 frequencies of the image's cosine transform are above their median. This is `phash`
of the package imagehash, after Zauner, Implementation and Benchmarking of Perceptual Image Hash Functions, 2010.
"""

import numpy as np
import numpy.typing as npt
from scipy.fft import dctn

SIZE = 64
"""Pixels of the sides of the images that hashes are made of."""
_PLAIN = 5.0  # standard deviation, of 255, below which there is nothing in an image; see `near_duplicates`
LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)
"""Red, green and blue in gray: ITU-R BT.601, as Pillow's mode L."""

Hashes = npt.NDArray[np.uint64]
Indices = npt.NDArray[np.int64]
Spectra = npt.NDArray[np.float32]


def gray_spectra(pixels: npt.NDArray[np.uint8]) -> tuple[Spectra, npt.NDArray[np.bool_]]:
    """Computes the cosine transform of images (N, 64, 64, 3) as gray of 32 × 32 pixels, not normalised.

    The results have shapes (N, 32, 32) and (N,): the transforms; and whether there is anything in the image, without
    which a hash means nothing.
    """
    gray = (pixels @ LUMA).reshape(-1, 32, 2, 32, 2).mean(axis=(2, 4))
    return dctn(gray, axes=(1, 2)), gray.std(axis=(1, 2)) >= _PLAIN


def hash_spectra(spectra: Spectra) -> Hashes:
    """Computes the hashes (N,) of the images whose transforms `gray_spectra` gave."""
    low = spectra[:, :8, :8].reshape(-1, 64)
    bits = np.packbits(low > np.median(low, axis=1, keepdims=True), axis=1)
    return bits.view(np.uint64)[:, 0]


def perceptual_hashes(pixels: npt.NDArray[np.uint8]) -> tuple[Hashes, npt.NDArray[np.bool_]]:
    """Computes the hashes (N,) of images (N, 64, 64, 3), and whether there is anything in them, as `gray_spectra`."""
    spectra, useful = gray_spectra(pixels)
    return hash_spectra(spectra), useful


def count_ones(words: Hashes) -> npt.NDArray[np.uint8]:
    """Counts the ones among the 64 bits of each word."""
    if hasattr(np, "bitwise_count"):
        return np.bitwise_count(words)
    bits = np.unpackbits(words[..., None].view(np.uint8), axis=-1)  # before NumPy 2.0
    ones: npt.NDArray[np.uint8] = bits.sum(axis=-1, dtype=np.uint8)
    return ones
