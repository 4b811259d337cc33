import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from automl.data import faces
from automl.data.faces import Detector, FoundFace, crop_face, follow
from automl.errors import DataError
from tests.data.views.clips import background, moving_face

FACE = FoundFace((100.0, 80.0), 40.0, 0.0, 0.9)


def moved(face, x=0.0, y=0.0, **changes):
    return replace(face, center=(face.center[0] + x, face.center[1] + y), **changes)


def test_the_detector_finds_a_face_where_it_is_and_none_where_there_is_none():
    detector = Detector()
    (before,), (after,) = (detector.faces(frame) for frame in moving_face(2, step=40))
    assert after.center[0] - before.center[0] == pytest.approx(40, abs=4)
    assert 40 < before.side < 140
    assert detector.faces(background()) == []


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
    detector = Detector()
    (straight,), (turned,) = moving_face(1), moving_face(1, turn_degrees=degrees)
    upright = detector.leveled(straight, detector.faces(straight)[0]).tilt_degrees
    first = detector.faces(turned)[0]
    second = detector.leveled(turned, first)
    # Pillow turns the other way round
    assert upright - second.tilt_degrees == pytest.approx(degrees, abs=11)
    assert abs(upright - second.tilt_degrees - degrees) < abs(upright - first.tilt_degrees - degrees)
    assert (second.center, second.side) == (first.center, first.side)


def test_missing_weights_say_what_to_do(tmp_path, monkeypatch):
    with pytest.raises(DataError, match=r"none\.onnx"):
        Detector(tmp_path / "none.onnx")
    monkeypatch.setattr(faces.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(DataError, match=r"automl-timm\[media\].*--face-model"):
        Detector()


def test_a_file_of_another_network_is_refused(tmp_path):
    (tmp_path / "x.onnx").write_bytes(b"no network")
    with pytest.raises(DataError, match="not a YuNet"):
        Detector(tmp_path / "x.onnx")


def test_two_people_are_two_tracks_also_when_one_is_not_seen_for_a_while():
    left, right = FACE, moved(FACE, x=200, side=50.0)
    found = [[left, right], [right], [moved(left, 5), moved(right, 4)], [moved(right, 8), moved(left, 9)]]
    tracks = follow(found, [0.0, 0.5, 1.0, 1.5])
    assert [sorted(track.faces) for track in tracks] == [[0, 1, 2, 3], [0, 2, 3]]
    assert all(face.center[0] > 200 for face in tracks[0].faces.values())


def test_a_face_cannot_leap_but_may_walk():
    far = moved(FACE, x=400)
    assert len(follow([[FACE], [far]], [0.0, 0.04])) == 2
    assert len(follow([[FACE], [far]], [0.0, 8.0])) == 1
    assert len(follow([[FACE], [replace(FACE, side=200.0)]], [0.0, 8.0])) == 2


def test_jitter_of_neighbouring_frames_is_smoothed_and_seconds_apart_nothing():
    found = [[moved(FACE, x=(-1) ** i * 2)] for i in range(10)]
    near = follow(found, [0.04 * i for i in range(10)])[0]
    apart = follow(found, [4.0 * i for i in range(10)])[0]
    assert np.ptp([face.center[0] for face in near.faces.values()]) < 1.5
    assert np.ptp([face.center[0] for face in apart.faces.values()]) == pytest.approx(4)


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
