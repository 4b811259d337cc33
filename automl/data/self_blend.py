"""Forgeries out of real pictures alone: a picture blended with a transformed copy of itself.

After Shiohara & Yamasaki, "Detecting Deepfakes with Self-Blended Images", CVPR 2022, section 3 (arXiv:2204.08376),
written anew with numpy, SciPy and Pillow. What a face swap leaves behind is made without a second face: a border
where two pictures meet, and an inside whose colours, sharpness or geometry differ from the outside. The paper's masks
are hulls of face landmarks; here they are ellipses and hulls of random points, so that any picture will do.

Masks are drawn at 64 px and enlarged: they are smooth, and it is what makes 256 px take 2 to 4 ms.
"""

from typing import cast

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter
from scipy.ndimage import gaussian_filter, map_coordinates
from scipy.spatial import ConvexHull

Pixels = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.float32]

BLEND_RATIOS = (0.25, 0.5, 0.75, 1.0, 1.0, 1.0)  # the paper's, section 3.2
MASK_SIDE = 64  # px
GRAY = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601 luma


def self_blend(image: Pixels, rng: np.random.Generator) -> Pixels:
    """Forges a picture by blending it with a transformed copy of itself.

    Either the inside of a random smooth mask (the source) or its outside (the target) gets a colour shift and is
    sharpened or scaled down; the source is also moved and resized a little.

    Image and forgery are (H, W, 3) uint8, RGB. The same state of `rng` gives the same forgery.
    """
    source = target = Image.fromarray(image)
    if rng.random() < 0.5:
        source = _degrade_image(_shift_colors(source, rng), rng)
    else:
        target = _degrade_image(_shift_colors(target, rng), rng)
    source = _move_image(source, rng)
    mask = random_mask(image.shape[0], image.shape[1], rng) * np.float32(255 * rng.choice(BLEND_RATIOS))
    blended = Image.composite(source, target, Image.fromarray((mask + 0.5).astype(np.uint8)))
    return np.array(blended)


def random_mask(height: int, width: int, rng: np.random.Generator) -> Mask:
    """Draws a smooth blob: an ellipse or a convex hull, elastically deformed, blurred, shrunk and blurred again.

    It is (height, width) float32, from 0 outside to 1 inside.
    """
    canvas = Image.new("L", (MASK_SIDE, MASK_SIDE))
    outline = [(float(x), float(y)) for x, y in _draw_outline(rng) * MASK_SIDE]
    ImageDraw.Draw(canvas).polygon(outline, fill=255)
    mask = _deform_mask(np.asarray(canvas, np.float32) / np.float32(255), rng)
    blurred = gaussian_filter(mask, rng.uniform(0.5, 2.5))
    inner = (blurred > 0.9 * blurred.max()).astype(np.float32)
    smooth = gaussian_filter(inner, rng.uniform(0.5, 3.5))
    smooth = (smooth / max(float(smooth.max()), 1e-6)).astype(np.float32)
    enlarged = Image.fromarray(smooth).resize((width, height), Image.Resampling.BICUBIC)
    return np.clip(np.asarray(enlarged, np.float32), 0, 1)


def _draw_outline(rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Draws the corners of a convex shape around some centre, (N, 2) of x and y as fractions of the side."""
    center, radii = rng.uniform(0.35, 0.65, 2), rng.uniform(0.18, 0.42, 2)
    if rng.random() < 0.5:
        angles = np.linspace(0, 2 * np.pi, 24, endpoint=False)
        turn = rng.uniform(0, np.pi)
        x, y = radii[0] * np.cos(angles), radii[1] * np.sin(angles)
        offsets = np.stack([x * np.cos(turn) - y * np.sin(turn), x * np.sin(turn) + y * np.cos(turn)], axis=-1)
        return cast(npt.NDArray[np.float64], center + offsets)
    points = center + rng.uniform(-1.2, 1.2, (int(rng.integers(6, 14)), 2)) * radii
    return cast(npt.NDArray[np.float64], points[ConvexHull(points).vertices])


def _deform_mask(mask: Mask, rng: np.random.Generator) -> Mask:
    """Moves every pixel of a (S, S) mask by a smooth random field of up to about 4 px (Simard et al. 2003)."""
    field = np.asarray(
        Image.fromarray(rng.uniform(-4, 4, (2 * 6, 6)).astype(np.float32)).resize(
            (MASK_SIDE, 2 * MASK_SIDE), Image.Resampling.BICUBIC
        )
    ).reshape(2, MASK_SIDE, MASK_SIDE)
    grid = np.mgrid[:MASK_SIDE, :MASK_SIDE].astype(np.float32)
    return cast(Mask, map_coordinates(mask, grid + field, order=1, mode="constant"))


def _shift_colors(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Shifts red, green and blue, hue, saturation, brightness and contrast, in one linear map of the colours.

    A linear map, not a way through 8-bit HSV: that would leave a trace of its own, by which a detector would learn
    to tell this function, not forgeries.
    """
    saturation, contrast = 1 + rng.uniform(-0.3, 0.3), 1 + rng.uniform(-0.1, 0.1)
    shift = rng.uniform(-20, 20, 3) + rng.uniform(-0.1, 0.1) * 255  # RGB shift, brightness
    to_gray = np.tile(GRAY, (3, 1))
    colors = contrast * (to_gray + saturation * _hue_rotation(rng.uniform(-0.3, 0.3)) @ (np.eye(3) - to_gray))
    matrix = np.concatenate([colors, shift[:, None] + (1 - contrast) * 128], axis=1)  # (3, 4)
    return image.convert("RGB", tuple(float(value) for value in matrix.ravel()))


def _hue_rotation(radians: float) -> npt.NDArray[np.float64]:
    """Returns the (3, 3) rotation of RGB about the grey axis (Rodrigues)."""
    axis = np.ones(3) / np.sqrt(3)
    x, y, z = axis
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return cast(
        npt.NDArray[np.float64],
        np.cos(radians) * np.eye(3) + np.sin(radians) * cross + (1 - np.cos(radians)) * np.outer(axis, axis),
    )


def _degrade_image(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Sharpens the picture, or scales it down and up again."""
    if rng.random() < 0.5:
        around = -rng.uniform(0.05, 0.15)  # of each of the eight neighbours
        weights = [around] * 4 + [1 - 8 * around] + [around] * 4
        return image.filter(ImageFilter.Kernel((3, 3), weights, scale=1))
    factor = rng.uniform(0.3, 0.7)
    small = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
    kinds = (Image.Resampling.NEAREST, Image.Resampling.BILINEAR, Image.Resampling.BICUBIC)
    down, up = rng.integers(0, 3), rng.integers(1, 3)  # up never as bare blocks: no forger would leave those
    return image.resize(small, kinds[down]).resize(image.size, kinds[up])


def _move_image(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Resizes the picture by up to 5 % and moves it by up to 3 % of its width and height; edges are mirrored."""
    width, height = image.size
    scale = rng.uniform(0.95, 1 / 0.95)
    center = np.array([width, height]) * (0.5 + rng.uniform(-0.03, 0.03, 2))
    half = np.array([width, height]) / (2 * scale)
    pad = int(np.ceil(0.08 * max(width, height)))
    padded = Image.fromarray(np.pad(np.asarray(image), ((pad, pad), (pad, pad), (0, 0)), mode="symmetric"))
    left, top = center - half + pad
    right, bottom = center + half + pad
    return padded.resize((width, height), Image.Resampling.BILINEAR, box=(left, top, right, bottom))
