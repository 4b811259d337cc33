"""The `face` view: the faces of a video, each followed over the frames and cut out upright."""

from pathlib import Path

from automl.media.video import Frames, read_frames
from automl.views.base import NothingToSee, ViewImages, probe_video, square, stacked
from automl.views.face_detector import FoundFace, crop_face, detector, find_turned, follow
from automl.views.frame import distinct
from automl.views.parameters import Face, FaceChoices

MOST_FACES = 4
"""People at most whose faces are taken from a clip with `which: all`."""

READ_SIDE = 1080
"""Pixels of the short side that frames are read with, at most: 64 frames of an 8K clip would fill the memory."""


def face_images(view: Face, path: Path, size: int) -> ViewImages:
    """Makes the images of the `face` view; see `automl.views.view_images`."""
    probe_video(path)
    frames, notes = distinct(read_frames(path, count=view.count, size=READ_SIDE), view.count)
    chosen, said = chosen_faces(frames, view, path)
    images, times = [], []
    for pixels, time, faces in zip(frames.pixels, frames.times_seconds.tolist(), chosen, strict=True):
        for face in faces:
            cut = square(pixels, size) if face is None else crop_face(pixels, face, size, view.margin, view.upright)
            images.append(cut)
            times.append(time)
    return stacked(images, times, [*notes, *said])


def chosen_faces(frames: Frames, choices: FaceChoices, path: Path) -> tuple[list[list[FoundFace | None]], list[str]]:
    """Finds and follows the faces of a clip, and takes those that are wanted.

    Args:
        frames: Frames of the clip in the order of time.
        choices: Which faces, and what if there is none.
        path: The clip, for messages.

    Returns:
        The faces of each frame, None for a whole frame in a face's place; and notes.

    Raises:
        NothingToSee: As `FaceChoices.when_none` has it.
        DataError: If there is no detector.
    """
    finder = detector(choices.face_model)
    if choices.upright:
        pairs = zip(frames.pixels, find_turned(finder, list(frames.pixels)), strict=True)
        found = [[finder.leveled(pixels, face) for face in faces] for pixels, faces in pairs]
    else:
        found = [finder.faces(pixels) for pixels in frames.pixels]
    tracks = follow(found, frames.times_seconds.tolist())
    taken = tracks[: 1 if choices.which == "largest" else MOST_FACES]
    chosen: list[list[FoundFace | None]] = [
        [track.faces[position] for track in taken if position in track.faces] for position in range(len(frames))
    ]
    empty = sum(not faces for faces in chosen)
    notes = []
    if empty:
        notes.append(f"no face found in {empty} of {len(frames)} frames")
        if choices.when_none == "refuse" or (choices.when_none == "skip" and empty == len(frames)):
            raise NothingToSee(f"{path}: {notes[0]}")
    if choices.when_none == "frame":
        chosen = [faces or [None] for faces in chosen]
    if len(tracks) > len(taken):
        notes.append(f"{len(taken)} of {len(tracks)} faces taken, the largest")
    return chosen, notes
