"""What every view must do, tried on each of them."""

import inspect
import threading

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic_core import PydanticUndefined

from automl.errors import DataError, SpecError
from automl.views.audio_features import AudioFeatures
from automl.views.base import BaseView, ClipView, NothingToSee
from automl.views.face import Face
from automl.views.frame import Frame
from automl.views.mel import Mel
from automl.views.motion import Motion
from automl.views.registry import VIEWS, make_images, make_view
from tests.fixtures.view_clips import moving_face, tone, write_clip

SIZE = 48
CLIP_VIEWS = [kind for kind in VIEWS if issubclass(kind, ClipView)]
VARIANTS = [
    Frame(count=3),
    Frame(count=3, placement="scenes"),
    Face(count=3),
    Face(count=3, which="all", upright=False, when_none="frame"),
    Motion(count=3),
    Motion(count=3, of="frame", difference="absolute"),
    Mel(count=2, seconds=0.5),
    AudioFeatures(count=2, seconds=0.5),
]
LENGTH_SECONDS = 1.2


def ids(view):
    return "-".join(
        [view.name, *(str(getattr(view, name)) for name in ("placement", "of", "which") if hasattr(view, name))]
    )


@pytest.fixture(scope="session")
def clip(tmp_path_factory):
    """A face that moves, and a tone."""
    sound = tone(LENGTH_SECONDS, 440) + tone(LENGTH_SECONDS, 1000, level=0.2)
    return write_clip(tmp_path_factory.mktemp("views") / "clip.mkv", moving_face(), sound)


@pytest.fixture(scope="session")
def short_clip(tmp_path_factory):
    """Two frames, and two tenths of a second of sound."""
    return write_clip(tmp_path_factory.mktemp("views") / "short.mkv", moving_face(2), tone(0.2))


@pytest.mark.parametrize("view", VARIANTS, ids=ids)
def test_images_are_square_and_their_times_lie_in_the_clip(view, clip):
    found = make_images(view, clip, SIZE)
    assert 1 <= len(found) <= view.count
    assert (found.pixels.shape, found.pixels.dtype) == ((len(found), SIZE, SIZE, 3), np.uint8)
    assert (found.times_seconds.shape, found.times_seconds.dtype) == ((len(found),), np.float64)
    assert (np.diff(found.times_seconds) > 0).all()
    assert found.times_seconds[0] >= 0
    assert found.times_seconds[-1] <= LENGTH_SECONDS
    assert all(isinstance(note, str) and note for note in found.notes)
    assert found.pixels.std() > 1


@pytest.mark.parametrize("view", VARIANTS, ids=ids)
def test_the_same_file_gives_the_same_images_in_any_thread(view, clip):
    found = []
    for _ in range(2):
        thread = threading.Thread(target=lambda: found.append(make_images(view, clip, SIZE)))
        thread.start()
        thread.join()
    assert (found[0].pixels == found[1].pixels).all()
    assert (found[0].times_seconds == found[1].times_seconds).all()
    assert found[0].notes == found[1].notes


@pytest.mark.parametrize("view", VARIANTS, ids=ids)
def test_a_short_clip_gives_what_it_has(view, short_clip):
    found = make_images(view.model_copy(update={"count": 8}), short_clip, SIZE)
    assert 1 <= len(found) <= 2
    assert len(np.unique(found.times_seconds)) == len(found)


@pytest.mark.parametrize("view", VARIANTS, ids=ids)
def test_a_clip_with_nothing_for_the_view_says_so(view, tmp_path):
    other = {"frames": moving_face(2)} if view.media == "sound" else {"sound": tone(0.5)}
    path = write_clip(tmp_path / "nothing.mkv", **other)
    with pytest.raises(NothingToSee, match=r"nothing\.mkv.*no (sound|video) track"):
        make_images(view, path, SIZE)


@pytest.mark.parametrize("view", VARIANTS, ids=ids)
def test_a_file_that_is_no_clip_is_a_data_error(view, tmp_path):
    path = tmp_path / "text.mp4"
    path.write_text("no clip\n" * 100)
    with pytest.raises(DataError, match=r"text\.mp4") as caught:
        make_images(view, path, SIZE)
    assert not isinstance(caught.value, NothingToSee)


@pytest.mark.parametrize("view", VARIANTS, ids=ids)
def test_yaml_there_and_back(view):
    text = yaml.safe_dump(view.model_dump(mode="json"))
    assert make_view(yaml.safe_load(text)) == view
    assert make_view(yaml.safe_load(text)).key == view.key


def other_values(kind):
    """A value other than the default of each parameter."""
    special = {"sample_rate_hz": 22_050, "fmax_hz": 7000.0, "fmin_hz": 20.0}
    for name, field in kind.model_fields.items():
        if name in ("name", "face_model", "normalize"):  # the last decides no pixel
            continue
        schema = kind.model_json_schema()["properties"][name]
        assert field.default is not PydanticUndefined, f"{name} has no default"
        if "enum" in schema:
            yield name, next(value for value in schema["enum"] if value != field.default)
        elif schema["type"] == "boolean":
            yield name, not field.default
        else:
            yield name, special.get(name, field.default + (1 if schema["type"] == "integer" else field.default / 10))


@pytest.mark.parametrize("kind", CLIP_VIEWS)
def test_the_key_knows_every_parameter(kind, monkeypatch):
    default = kind().key
    assert default == kind().key
    assert "\n" not in default
    keys = {default} | {kind(**{name: value}).key for name, value in other_values(kind)}
    assert len(keys) == 1 + len(list(other_values(kind)))
    monkeypatch.setattr(kind, "version", kind.version + 1)
    assert kind().key not in keys


def test_keys_of_different_views_differ():
    assert len({kind().key for kind in CLIP_VIEWS}) == len(CLIP_VIEWS)


@pytest.mark.parametrize("kind", CLIP_VIEWS)
def test_every_parameter_is_bounded_and_explained(kind):
    explained = "".join(inspect.getdoc(base) or "" for base in kind.__mro__ if issubclass(base, BaseView))
    for name, schema in kind.model_json_schema()["properties"].items():
        assert name == "name" or f"{name}: " in explained, name
        if schema.get("type") in ("integer", "number"):
            assert {"minimum", "exclusiveMinimum"} & schema.keys(), name
            assert "maximum" in schema, name


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"name": "frames"}, "frame"),
        ({}, "name"),
        ({"name": "face", "margn": 1.5}, "margn"),
        ({"name": "face", "margin": 0.2}, "margin"),
        ({"name": "frame", "count": 0}, "count"),
        ({"name": "mel", "fmax_hz": 12_000}, "half the sample rate"),
        ({"name": "mel", "fmin_hz": 4000, "fmax_hz": 6000}, "twice"),
        ({"name": "audio_features", "hop_seconds": 0.1, "window_seconds": 0.05}, "hop_seconds"),
    ],
)
def test_a_wrong_choice_is_one_clear_error(values, said):
    with pytest.raises(SpecError, match=said):
        make_view(values)


@st.composite
def sound_views(draw):
    """Any view of sound that its model accepts, with short parts."""
    rate = draw(st.sampled_from([4000, 8000, 16_000, 44_100, 48_000]))
    window = draw(st.floats(0.005, 0.5))
    common = {
        "count": draw(st.integers(1, 4)),
        "seconds": draw(st.floats(0.5, 1.0)),
        "sample_rate_hz": rate,
        "window_seconds": window,
        "hop_seconds": draw(st.floats(0.001, min(0.1, window))),
    }
    if draw(st.booleans()):
        return AudioFeatures(**common, n_mfcc=draw(st.integers(2, 64)))
    high = draw(st.floats(500, min(24_000, rate / 2)))
    return Mel(
        **common,
        n_mels=draw(st.integers(16, 512)),
        fmax_hz=high,
        fmin_hz=draw(st.floats(0, min(4000, high / 2))),
        reference=draw(st.sampled_from(["loudest", "full"])),
        range_db=draw(st.floats(40, 120)),
    )


@settings(max_examples=12)
@given(view=sound_views(), size=st.integers(16, 96), kind=st.sampled_from(["silence", "noise", "tone"]))
def test_any_parameters_of_sound_give_a_picture_without_warnings(view, size, kind):
    wanted = round(view.seconds * view.sample_rate_hz)
    noise = np.random.default_rng(0).uniform(-1, 1, wanted).astype(np.float32)
    samples = {"silence": 0 * noise, "noise": noise, "tone": tone(1.0, rate=view.sample_rate_hz)[:wanted]}[kind]
    picture = view.draw_picture(samples, size)
    assert (picture.shape, picture.dtype) == ((size, size, 3), np.uint8)
    assert make_view(view.model_dump()) == view


@settings(max_examples=12)
@given(
    view=st.one_of(
        st.builds(
            Frame,
            count=st.integers(1, 16),
            placement=st.sampled_from(["even", "scenes"]),
            min_change=st.floats(0.001, 1),
        ),
        st.builds(
            Motion,
            of=st.just("frame"),
            count=st.integers(1, 16),
            difference=st.sampled_from(["signed", "absolute"]),
            gain=st.floats(0.5, 32),
            frames_apart=st.integers(1, 11),
        ),
    ),
    size=st.integers(8, 300),
)
def test_any_parameters_of_frames_give_images(view, size, clip):
    found = make_images(view, clip, size)
    assert found.pixels.shape == (len(found), size, size, 3)
    assert 1 <= len(found) <= view.count
    assert len(np.unique(found.times_seconds)) == len(found)
