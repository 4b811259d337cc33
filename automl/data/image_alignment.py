"""Laying one image on another, to see whether they are one picture that was cropped, moved or turned a little."""

import numpy as np
import numpy.typing as npt

from automl.media.opening import require

_COARSE, _FINE = 3.0, 1.5  # pixels of a blur whose rest is detail: to align images of 64 × 64, and to compare them
_STEPS, _CHANGE = 30, 1e-3  # of the iteration at most; of the correlation by which it ends
_EDGE = 3  # pixels at the border, where a blur sees less
_LEAST_OVERLAP = 0.5  # of the area
_VISIBLE = 2.0  # of 255: what detail is to be seen, and
_LEAST_VISIBLE = 0.15  # the share of pixels with such: 0.22 or more in the photographs of `image_copies`

Gray = npt.NDArray[np.float32]


def correlate_aligned(first: Gray, second: Gray) -> float:
    """Moves the second of two images (64, 64) onto the first, and returns the correlation of their fine details.

    The affine map is found by the ECC algorithm (Evangelidis and Psarakis, Parametric Image Alignment Using Enhanced
    Correlation Coefficient Maximization, 2008; `cv2.findTransformECC`). The result is 0 where there is none, as for
    most images that are different.
    """
    cv2, shape = require("cv2"), first.shape[::-1]
    coarse = [_find_details(image, _COARSE) for image in (first, second)]
    stop = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, _STEPS, _CHANGE)
    try:
        _, affine = cv2.findTransformECC(*coarse, np.eye(2, 3, dtype=np.float32), cv2.MOTION_AFFINE, stop, None, 3)
    except cv2.error:  # it does not converge
        return 0.0
    moved = cv2.warpAffine(second, affine, shape, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
    there = cv2.warpAffine(np.ones_like(first), affine, shape, flags=cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP)
    inside = cv2.erode(there, np.ones((5, 5), np.uint8)) > 0
    inside[:_EDGE] = inside[-_EDGE:] = inside[:, :_EDGE] = inside[:, -_EDGE:] = False
    if inside.mean() < _LEAST_OVERLAP:
        return 0.0
    correlation = np.corrcoef(_find_details(first, _FINE)[inside], _find_details(moved, _FINE)[inside])
    return float(np.nan_to_num(correlation[0, 1]))


def has_details(gray: Gray) -> bool:
    """Returns whether there is enough in an image (64, 64) to tell a copy by; one straight edge, as a horizon, is not.

    Any two images of one edge, or of one bright corner in the dark, can be laid on each other.
    """
    return bool((np.abs(_find_details(gray, _FINE)) > _VISIBLE).mean() >= _LEAST_VISIBLE)


def _find_details(gray: Gray, blur: float) -> Gray:
    """Returns what a blur takes away."""
    details: Gray = gray - require("cv2").GaussianBlur(gray, (0, 0), blur)
    return details
