"""The `motion` view: what changes from one frame to the next, in a face or in the whole picture."""

from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from automl.media.video import read_pairs
from automl.views.base import ClipView, NothingToSee, Pixels, ViewImages, probe_video, stack_images
from automl.views.face import READ_SIDE, FaceChoices, choose_faces
from automl.views.face_detector import FoundFace


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
    normalize: Literal["pretraining", "dataset"] = "dataset"
    of: Literal["face", "frame"] = "face"
    difference: Literal["signed", "absolute"] = "signed"
    gain: Annotated[float, Field(ge=0.5, le=32)] = 4.0
    frames_apart: Annotated[int, Field(ge=1, le=25)] = 1

    def make_images(self, path: Path, size: int) -> ViewImages:
        """Reads pairs of frames and draws their differences; see `BaseView.make_images`."""
        probe_video(path)
        side = size if self.of == "frame" else READ_SIDE
        first, second = read_pairs(path, self.count, self.frames_apart, size=side)
        if not len(first):
            raise NothingToSee(f"{path}: no two frames that are {self.frames_apart} apart")
        notes = [] if len(first) == self.count else [f"{len(first)} pairs of frames instead of {self.count}"]
        chosen: list[list[FoundFace | None]] = [[None] for _ in range(len(first))]
        if self.of == "face":
            chosen, face_notes = choose_faces(first, self, path)
            notes += face_notes
        images, times = [], []
        for position, faces in enumerate(chosen):
            for face in faces:
                before, after = (self.cut_face(frames.pixels[position], face, size) for frames in (first, second))
                images.append(draw_difference(before, after, self.difference == "signed", self.gain))
                times.append(float(first.times_seconds[position]))
        return stack_images(images, times, notes)

    def _pixel_parameters(self) -> dict[str, object]:
        if self.of == "face":
            return super()._pixel_parameters()
        of_faces = FaceChoices.model_fields.keys() - ClipView.model_fields.keys()  # they decide nothing of whole frames
        return self.model_dump(mode="json", exclude={"normalize", *of_faces})


def draw_difference(before: Pixels, after: Pixels, signed: bool, gain: float) -> Pixels:
    """Draws the difference of two pictures (height, width, 3) uint8, in the same shape.

    If `signed` it is `128 + gain · (after - before)`, else `gain · |after - before|`; rounded, cut off at 0 and 255.
    """
    change = gain * (after.astype(np.float32) - before.astype(np.float32))
    picture = 128 + change if signed else np.abs(change)
    return np.asarray(np.rint(picture.clip(0, 255)), dtype=np.uint8)
