import json
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest
from optuna.trial import FixedTrial

from automl.data.cache import build_cache
from automl.data.dataset import open_dataset
from automl.errors import PoolError, SpaceError
from automl.recipe import Recipe
from automl.space.space import load_space, parse_space
from automl.spec import DataSpec, StudySpec, list_shipped_specs
from automl.study import setup as study_setup
from automl.study.pool import Pool
from automl.study.setup import StudyViews, create_study, load_setup, make_setup
from automl.study.spaces import SPACES, describe_view, list_views, open_space
from automl.study.trial_record import read_spec, read_study_record
from automl.views.face import Face
from automl.views.frame import Frame
from automl.views.mel import Mel
from automl.views.registry import make_view
from tests.fixtures.clips_study import write_clips
from tests.fixtures.studies import SPACE, entry, folder_of, setup_without_files, spec_of, spec_without_files

# --- made, stored and read ----------------------------------------------------------------------------------------


@pytest.fixture
def made(images, monkeypatch):
    """Makes the setup of a study on the tiny pictures, its pool given → (setup, the limits that the pool had)."""
    limits = []
    monkeypatch.setattr(
        study_setup, "build_pool", lambda _spec, limit, *_: limits.append(limit) or Pool((entry(image_sizes=(48,)),))
    )

    def make(space=SPACE, devices=("cuda:0",), **budget):
        spec = spec_of(images, budget={"trials": 1} | budget)
        dataset = open_dataset(spec.data, spec.seed)
        cache = build_cache(dataset, 32)
        return make_setup(spec, dataset, cache, parse_space(space), devices, 10**10), limits[-1]

    return make


def test_a_setup_has_the_budgets_and_the_larger_image_size_of_a_backbone(made):
    setup, limits = made()
    assert limits.memory_bytes == setup.memory_bytes == 10**10
    assert (limits.image_sizes, limits.max_batch_size, limits.min_epochs) == ((32,), 8, 1)
    assert limits.train_images == len(setup.dataset.samples.query("split == 'train'"))
    assert (setup.metric, setup.cache_size) == ("auc", 48)


@pytest.mark.parametrize(
    ("devices", "budget", "seconds"),
    [
        (("cuda:0",), {}, None),
        (("cpu",), {}, 3600),
        (("cpu",), {"timeout": "2h"}, 1800),
        (("cpu",), {"timeout": "2h", "trial_time": "5m"}, 300),
    ],
)
def test_how_long_a_trial_may_train(made, devices, budget, seconds):
    assert made(devices=devices, **budget)[0].trial_seconds == seconds


def test_a_named_backbone_that_is_not_in_the_pool_is_an_error(made):
    with pytest.raises(PoolError, match="the search space names resnet18, which cannot be in the pool"):
        made(SPACE.replace("{pool: {}}", "resnet18"))


def test_a_setup_is_read_as_it_was_written(images, tmp_path):
    spec = spec_of(images)
    setup = replace(
        setup_without_files(), dataset=open_dataset(spec.data, spec.seed), memory_bytes=10**10, trial_seconds=60.0
    )
    study = create_study(folder_of(tmp_path), spec, setup)
    again = load_setup(study, folder_of(tmp_path))
    for name in ("pool", "metric", "cache_size", "memory_bytes", "trial_seconds"):
        assert getattr(again, name) == getattr(setup, name)
    assert again.space.text == SPACE
    before, after = vars(setup.dataset) | {}, vars(again.dataset) | {}
    assert after.pop("samples").equals(before.pop("samples"))
    assert {key: after[key] for key in after if key != "told"} == {key: before[key] for key in before if key != "told"}


def test_a_continued_study_keeps_its_budget(tmp_path):
    folder, spec = folder_of(tmp_path), spec_without_files()
    create_study(folder, spec, replace(setup_without_files(), memory_bytes=10**10))
    study = create_study(folder, spec, setup_without_files())  # the same command, another day
    assert load_setup(study, folder).memory_bytes == 10**10


def test_what_is_stored_has_the_names_of_earlier_versions(tmp_path):
    study = create_study(folder_of(tmp_path), spec_without_files(), setup_without_files())
    names = ("spec", "space", "pool", "samples", "dataset", "metric", "cache_size", "memory_bytes", "trial_seconds")
    system = study._storage.get_study_system_attrs(study._study_id)
    assert system.keys() == {
        "study:metric_names",
        "automl:stopped",
        "automl:files",
        *(f"automl:{name}" for name in names),
    }
    assert study.user_attrs == {}  # what programs that show studies would print
    assert list(json.loads(read_study_record(study).dataset)) == [
        *("root", "format", "classes", "real_class", "positive", "problems", "name", "media"),
    ]


def test_a_study_of_an_earlier_version_is_continued(tmp_path):
    folder, spec = folder_of(tmp_path), spec_without_files()
    study = create_study(folder, spec, setup_without_files())
    for name, value in study._storage.get_study_system_attrs(study._study_id).items():
        if name.startswith("automl:"):
            study.set_user_attr(name.removeprefix("automl:"), value)
    with sqlite3.connect(folder.database) as database:
        database.execute("DELETE FROM study_system_attributes")
    more = spec_without_files(budget={"trials": 20})
    study = create_study(folder, more, setup_without_files())
    assert read_spec(study).budget.trials == 20
    assert load_setup(study, folder).metric == "auc"


# --- spaces and views ---------------------------------------------------------------------------------------------


def views_of(space, media):
    return [view.name for view in list_views(open_space(StudySpec(space=space), media))]


@pytest.mark.parametrize(
    ("space", "media", "views"),
    [
        ("auto", "image", ["image"]),
        ("auto", "video", ["face", "frame", "motion", "mel"]),
        ("auto", "sound", ["mel", "audio_features"]),
        ("audio", "video", ["mel", "audio_features"]),
    ],
)
def test_the_space_follows_the_files_unless_it_is_named(space, media, views):
    assert views_of(space, media) == views


def test_encoders_alone_have_a_space_of_their_own():
    spec = StudySpec.from_mapping({"pool": {"encoders": "only"}})
    assert open_space(spec, "image").source.endswith("encoders.yaml")
    assert open_space(spec, "video").source.endswith("video.yaml")
    known = open_space(spec, "image").known_good
    assert [good["tune"] if isinstance(good["tune"], str) else good["tune"]["name"] for good in known] == [
        "head",
        "norms",
        "lora",
        "all",
    ]


@pytest.mark.parametrize(
    ("space", "media"), [("video", "sound"), ("video", "image"), ("audio", "image"), ("image", "video")]
)
def test_views_of_other_files_are_refused(space, media):
    with pytest.raises(SpaceError, match=rf"looks at \w+s, and the data are {media}s; give --space"):
        views_of(space, media)


@pytest.mark.parametrize("name", list_shipped_specs())
def test_every_shipped_study_loads_with_its_space(name):
    spec = StudySpec.load(name)
    for media in ("image", "video", "sound"):
        space = load_space(SPACES[media] if spec.space == "auto" else spec.space)
        assert list(space.iterate_parameters())
        assert len(space.find_known_good_params({"best": 0, "fastest": 0})) == len(space.known_good) > 0


def test_the_first_of_what_varies_stands_for_a_view():
    space = parse_space("view: {choice: {frame: {count: {ordered: [2, 4]}}, mel: {seconds: {float: [1, 3]}}}}")
    assert list_views(space) == [Frame(count=2), Mel(seconds=1.0)]


VIEWS = "backbone: {pool: {}}\nview: {choice: {face: {}, frame: {}, motion: {face_model: own.onnx}}}\n"


def test_the_face_model_of_the_data_is_the_views_where_it_names_none(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("space.yaml").write_text(VIEWS)
    spec = StudySpec(space="space.yaml", data=DataSpec(path=Path("/clips"), face_model=Path("faces.onnx")))
    space = open_space(spec, "video")
    face, frame, motion = list_views(space)
    assert (face, frame) == (Face(face_model=str(tmp_path / "faces.onnx")), Frame())
    assert motion.face_model == "own.onnx"
    assert {view.face_model for view in list_views(load_space("space.yaml")) if isinstance(view, Face)} == {None}
    drawn = space.suggest_recipe(FixedTrial({"backbone": 0, "view": "face"}), backbones=1, self_blend=False)
    assert Recipe.from_mapping(drawn | {"backbone": "resnet18"}).view == face  # the recipe carries it


def test_a_worker_reads_the_space_with_the_face_model(tmp_path):
    spec = StudySpec(data=DataSpec(path=Path("/clips"), face_model=tmp_path / "faces.onnx"))
    study = create_study(folder_of(tmp_path), spec, setup_without_files(VIEWS))
    face = list_views(load_setup(study, folder_of(tmp_path)).space)[0]
    assert face.face_model == str(tmp_path / "faces.onnx")


def test_a_view_is_opened_once(tmp_path, monkeypatch):
    root = write_clips(tmp_path / "clips")
    dataset = open_dataset(DataSpec(path=root, label_column="target", split_column="split"), 0)
    views = StudyViews(replace(setup_without_files(), dataset=dataset, cache_size=16), "cpu")
    first = views.open_view(Frame(count=1))
    monkeypatch.setattr("automl.study.setup.build_cache", lambda *_: pytest.fail("opened again"))
    assert views.open_view(Frame(count=1)) is first
    assert (first.labels("validation") == dataset.samples.query("split == 'validation'")["label"]).all()


def test_views_are_described():
    assert (describe_view(Frame()), describe_view(make_view({"name": "image"}))) == ("view frame", "images")
