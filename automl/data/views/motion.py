"""The `motion` view: what changes from one frame to the next, in a face or in the whole picture."""

from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from automl.data.faces import FoundFace, crop_face
from automl.data.media import Frames, read_frames
from automl.data.views.base import NothingToSee, Pixels, ViewImages, probe_video, square, stacked
from automl.data.views.face import READ_SIDE, FaceChoices, chosen_faces

__all__ = ["Motion", "difference_picture"]


class Motion(FaceChoices):
    """Differences between two neighbouring frames, for red, green and blue.

    Both frames are cut by the face's place in the earlier one, so that no jitter of the detector is seen as motion.

    Attributes:
        count: Pairs of frames, in the middle of equal parts of the clip.
        of: Cut out faces, or the middle of the whole frames; then the parameters of faces mean nothing.
        difference: `signed`: 128 where nothing changes, brighter where the later frame is brighter. `absolute`: 0 where
            nothing changes.
        gain: What differences are multiplied with before they are cut off at 0 and 255; they are small.
        frames_apart: From the earlier frame to the later one.
    """

    name: Literal["motion"] = "motion"
    count: Annotated[int, Field(ge=1, le=64)] = 8
    of: Literal["face", "frame"] = "face"
    difference: Literal["signed", "absolute"] = "signed"
    gain: Annotated[float, Field(ge=0.5, le=32)] = 4.0
    frames_apart: Annotated[int, Field(ge=1, le=25)] = 1

    def images(self, path: Path, size: int) -> ViewImages:
        """See `View.images`."""
        first, second, notes = self._pairs(path, size if self.of == "frame" else READ_SIDE)
        chosen: list[list[FoundFace | None]] = [[None] for _ in range(len(first))]
        if self.of == "face":
            chosen, said = chosen_faces(first, self, path)
            notes += said
        images, times = [], []
        for position, faces in enumerate(chosen):
            for face in faces:
                before, after = (self._cut(frames.pixels[position], face, size) for frames in (first, second))
                images.append(difference_picture(before, after, self.difference == "signed", self.gain))
                times.append(float(first.times_seconds[position]))
        return stacked(images, times, notes)

    def _key_parts(self) -> dict[str, object]:
        if self.of == "face":
            return super()._key_parts()
        return self.model_dump(mode="json", exclude=set(FaceChoices.model_fields))  # they decide nothing

    def _pairs(self, path: Path, side: int) -> tuple[Frames, Frames, list[str]]:
        """Reads the earlier and the later frames of all pairs, and what there is to say about them."""
        video = probe_video(path)
        rate = video.frames_per_second or 25.0
        # the middle of the time a frame is displayed: times that a file rounds still mean this frame and the next
        last = max(0, (video.frames or 0) - 1 - self.frames_apart)
        places = (np.arange(self.count) + 0.5) * (last + 1) / self.count
        starts = (np.unique(np.floor(places)) + 0.5) / rate
        frames = read_frames(path, [*starts.tolist(), *(starts + self.frames_apart / rate).tolist()], size=side)
        half = len(starts)
        moved = np.flatnonzero(frames.times_seconds[half:] > frames.times_seconds[:half])
        if not len(moved):
            raise NothingToSee(f"{path}: no two frames that are {self.frames_apart} apart")
        first = Frames(frames.pixels[:half][moved], frames.times_seconds[:half][moved])
        second = Frames(frames.pixels[half:][moved], frames.times_seconds[half:][moved])
        notes = [] if len(moved) == self.count else [f"{len(moved)} pairs of frames instead of {self.count}"]
        return first, second, notes

    def _cut(self, pixels: Pixels, face: FoundFace | None, size: int) -> Pixels:
        """Cuts a face, or without one the middle, out of a frame."""
        return square(pixels, size) if face is None else crop_face(pixels, face, size, self.margin, self.upright)


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
