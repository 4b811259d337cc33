"""The `motion` view: what changes from one frame to the next, in a face or in the whole picture."""

from pathlib import Path

import numpy as np

from automl.media.video import Frames, read_pairs
from automl.views.base import NothingToSee, Pixels, ViewImages, probe_video, square, stacked
from automl.views.face import READ_SIDE, chosen_faces
from automl.views.face_detector import FoundFace, crop_face
from automl.views.parameters import Motion


def motion_images(view: Motion, path: Path, size: int) -> ViewImages:
    """Makes the images of the `motion` view; see `automl.views.view_images`."""
    first, second, notes = _pairs(view, path, size if view.of == "frame" else READ_SIDE)
    chosen: list[list[FoundFace | None]] = [[None] for _ in range(len(first))]
    if view.of == "face":
        chosen, said = chosen_faces(first, view, path)
        notes += said
    images, times = [], []
    for position, faces in enumerate(chosen):
        for face in faces:
            before, after = (_cut(view, frames.pixels[position], face, size) for frames in (first, second))
            images.append(difference_picture(before, after, view.difference == "signed", view.gain))
            times.append(float(first.times_seconds[position]))
    return stacked(images, times, notes)


def difference_picture(before: Pixels, after: Pixels, signed: bool, gain: float) -> Pixels:
    """Draws the difference of two pictures of the same shape.

    Args:
        before: Shape (height, width, 3), dtype uint8.
        after: Same shape.
        signed: `128 + gain · (after - before)`, else `gain · |after - before|`; rounded, cut off at 0 and 255.
        gain: Steps of the result per step of difference.

    Returns:
        Same shape, dtype uint8.
    """
    change = gain * (after.astype(np.float32) - before.astype(np.float32))
    picture = 128 + change if signed else np.abs(change)
    return np.asarray(np.rint(picture.clip(0, 255)), dtype=np.uint8)


def _pairs(view: Motion, path: Path, side: int) -> tuple[Frames, Frames, list[str]]:
    """Reads the earlier and the later frames of all pairs, and what there is to say about them."""
    probe_video(path)
    first, second = read_pairs(path, view.count, view.frames_apart, size=side)
    if not len(first):
        raise NothingToSee(f"{path}: no two frames that are {view.frames_apart} apart")
    notes = [] if len(first) == view.count else [f"{len(first)} pairs of frames instead of {view.count}"]
    return first, second, notes


def _cut(view: Motion, pixels: Pixels, face: FoundFace | None, size: int) -> Pixels:
    """Cuts a face, or without one the middle, out of a frame."""
    return square(pixels, size) if face is None else crop_face(pixels, face, size, view.margin, view.upright)
