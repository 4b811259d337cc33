import numpy as np
import pytest

from automl.views.base import NothingToSee
from automl.views.face import Face
from automl.views.motion import Motion
from automl.views.registry import make_images
from tests.fixtures.view_clips import background, moving_face, write_clip


def likeness(one, other):
    """Correlation of two pictures."""
    return np.corrcoef(one.ravel().astype(float), other.ravel().astype(float))[0, 1]


@pytest.fixture(scope="module")
def walk(tmp_path_factory):
    """A face for nine frames, then nobody for three."""
    frames = [*moving_face(9, step=12), *[background()] * 3]
    return write_clip(tmp_path_factory.mktemp("face") / "walk.mkv", frames)


def test_the_face_stays_in_the_middle_while_it_moves(walk):
    found = make_images(Face(count=4), walk, 64)
    assert len(found) == 3
    assert found.notes == ("no face found in 1 of 4 frames",)
    for picture in found.pixels[1:]:
        # the middle: the background is another one in each frame
        assert likeness(found.pixels[0][16:48, 16:48], picture[16:48, 16:48]) > 0.65


def test_what_becomes_of_frames_without_a_face_is_a_choice(walk):
    found = make_images(Face(count=4, when_none="frame"), walk, 64)
    assert len(found) == 4
    with pytest.raises(NothingToSee, match="no face found in 1 of 4 frames"):
        make_images(Face(count=4, when_none="refuse"), walk, 64)


@pytest.mark.parametrize("kind", [Face, Motion])
def test_a_clip_without_a_face_is_nothing_to_see(tmp_path, kind):
    path = write_clip(tmp_path / "empty.mkv", [background()] * 4)
    with pytest.raises(NothingToSee, match=r"empty\.mkv: no face found in (\d) of \1 frames"):
        make_images(kind(count=4), path, 64)
    assert len(make_images(kind(count=4, when_none="frame"), path, 64)) >= 3


def test_all_faces_are_taken_only_when_asked_for(tmp_path):
    single = moving_face(3, step=0)
    frames = [np.concatenate([frame, frame[:, ::-1]], axis=1) for frame in single]
    path = write_clip(tmp_path / "two.mkv", frames)
    assert len(make_images(Face(count=3), path, 64)) == 3
    both = make_images(Face(count=3, which="all"), path, 64)
    assert len(both) == 6
    assert (np.diff(both.times_seconds) >= 0).all()
    assert max(likeness(both.pixels[0], both.pixels[1][:, ::-1]), 0) > 0.9


def test_a_tilted_head_is_turned_upright(tmp_path):
    straight = make_images(Face(count=1), write_clip(tmp_path / "0.mkv", moving_face(2, step=0)), 64).pixels[0]
    path = write_clip(tmp_path / "20.mkv", moving_face(2, step=0, turn_degrees=20))
    turned = make_images(Face(count=1), path, 64).pixels[0]
    left = make_images(Face(count=1, upright=False), path, 64).pixels[0]
    middle = slice(12, 52)
    assert likeness(straight[middle, middle], turned[middle, middle]) > 0.7
    assert likeness(straight[middle, middle], turned[middle, middle]) > likeness(
        straight[middle, middle], left[middle, middle]
    )


@pytest.mark.parametrize("turn", [1, 2, 3])
def test_a_clip_on_its_side_or_upside_down_gives_the_images_of_the_upright_one(tmp_path, walk, turn):
    frames = [np.ascontiguousarray(np.rot90(frame, -turn)) for frame in [*moving_face(9, step=12), *[background()] * 3]]
    path = write_clip(tmp_path / "turned.mkv", frames)
    straight, turned = (make_images(Face(count=4), clip, 64) for clip in (walk, path))
    assert turned.notes == straight.notes
    for one, other in zip(straight.pixels, turned.pixels, strict=True):
        assert likeness(one, other) > 0.98
    changes = [make_images(Motion(count=3), clip, 64).pixels for clip in (walk, path)]
    assert likeness(*changes) > 0.9


def test_a_larger_margin_shows_more(walk):
    near, far = (make_images(Face(count=1, margin=margin), walk, 64).pixels[0] for margin in (1.0, 2.0))
    assert likeness(near[16:48, 16:48], far[16:48, 16:48]) < 0.9


def test_the_key_has_the_content_of_a_face_model_in_place_of_its_path(tmp_path):
    for name, content in (("a", b"one"), ("b", b"one"), ("c", b"two")):
        (tmp_path / name).write_bytes(content)
    a, b, c = (Face(face_model=str(tmp_path / name)).key for name in "abc")
    assert a == b != c
    assert Face().key not in (a, c)
