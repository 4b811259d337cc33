from dataclasses import replace
from pathlib import Path

import pytest

from automl.data.dataset import open_dataset
from automl.errors import SpaceError
from automl.space.space import load_space, parse_space
from automl.spec import DataSpec
from automl.study.views import Views, check_views, describe_view, space_name, with_face_model
from automl.views.parameters import Face, Frame, Mel
from tests.fixtures.clips_study import write_clips


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    root = write_clips(tmp_path_factory.mktemp("views") / "clips")
    return open_dataset(DataSpec(path=root, label_column="target", split_column="split"), 0)


@pytest.mark.parametrize(
    ("wanted", "media", "name"),
    [("auto", "image", "image"), ("auto", "video", "video"), ("auto", "sound", "audio"), ("audio", "video", "audio")],
)
def test_the_space_follows_the_files_unless_it_is_named(wanted, media, name):
    assert space_name(wanted, media) == name


@pytest.mark.parametrize(
    ("space", "media", "views"),
    [
        ("image", "image", ["image"]),
        ("video", "video", ["face", "frame", "motion", "mel"]),
        ("audio", "sound", ["mel", "audio_features"]),
        ("audio", "video", ["mel", "audio_features"]),
    ],
)
def test_shipped_spaces_draw_views_of_their_files(space, media, views, dataset):
    found = check_views(load_space(space), replace(dataset, media=media))
    assert [view.name for view in found] == views


@pytest.mark.parametrize(
    ("space", "media"), [("video", "sound"), ("video", "image"), ("audio", "image"), ("image", "video")]
)
def test_views_of_other_files_are_refused(space, media, dataset):
    with pytest.raises(SpaceError, match=rf"looks at \w+s, and the data are {media}s; give --space"):
        check_views(load_space(space), replace(dataset, media=media))


def test_the_first_of_what_varies_stands_for_a_view(dataset):
    space = parse_space("view: {choice: {frame: {count: {ordered: [2, 4]}}, mel: {seconds: {float: [1, 3]}}}}")
    assert check_views(space, dataset) == [Frame(count=2), Mel(seconds=1.0)]


def test_a_view_is_opened_once(dataset, monkeypatch):
    class Ground:
        cache_size = 16

    Ground.dataset = dataset
    views = Views(Ground(), "cpu")
    first = views.data(Frame(count=1))
    monkeypatch.setattr("automl.study.views.build_cache", lambda *_: pytest.fail("opened again"))
    assert views.data(Frame(count=1)) is first
    assert (first.labels("validation") == dataset.samples.query("split == 'validation'")["label"]).all()


def test_the_face_model_of_the_data_is_the_views_where_it_names_none():
    path = Path("faces.onnx")
    assert with_face_model(Face(), path).face_model == str(path.absolute())
    assert with_face_model(Face(face_model="own.onnx"), path).face_model == "own.onnx"
    assert with_face_model(Frame(), path) == Frame()
    assert with_face_model(Face(), None) == Face()


def test_views_are_described():
    assert (describe_view(Frame()), describe_view(load_view("image"))) == ("view frame", "images")


def load_view(name):
    from automl.views.registry import make_view

    return make_view({"name": name})
