"""A folder of clips as people have them, searched over two views, trained, and predicted."""

import csv

import numpy as np
import pytest

import automl
from automl.data.cache import build_cache
from automl.data.dataset import open_dataset
from automl.errors import RecipeError, SpaceError
from automl.exporters.export import export
from automl.models.predict import load, predict
from automl.recipe import Recipe
from automl.refit.train import train
from automl.spec import DataSpec
from automl.study.folder import StudyFolder
from automl.study.search import open_result
from automl.views.frame import Frame
from automl.views.mel import Mel
from tests.fixtures import clips as media
from tests.fixtures.reporter import RecordingReporter
from tests.fixtures.studies import train_in_this_process
from tests.fixtures.view_clips import tone, write_clip

SPACE = """
backbone: {pool: {}}
view: {choice: {frame: {count: 2}, mel: {count: 2, seconds: 0.5}}}
aggregate: {choice: {mean: {}, max: {}}}
image_size: 32
batch_size: 4
epochs: 2
learning_rate: 3e-3
known_good:
  - {tier: quick, backbone: fastest, view: frame, aggregate: mean}
  - {tier: quick, backbone: fastest, view: mel, aggregate: max}
"""
BAD = {
    "cut.mp4": "cut off",
    "empty.mp4": "the file is empty",
    "text.mp4": "not a video or sound file",
}
STRANGE = ("größe 日本.mp4", "turned.mp4", "unsteady.mp4", "deep.mp4", "gray.mp4")
MUTE = ("größe 日本.mp4", "turned.mp4", "unsteady.mp4", "deep.mp4", "gray.mp4", "mute.mkv")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Ten good clips a class, dark and low or bright and high; strange ones that can be read; bad ones that cannot."""
    root, random = tmp_path_factory.mktemp("ffdv") / "clips", np.random.default_rng(0)
    for label, name in enumerate(("real", "fake")):
        (root / name).mkdir(parents=True)
        for number in range(10):
            frames = [(random.integers(0, 120, (48, 64, 3)) + 60 * label).astype(np.uint8) for _ in range(4)]
            write_clip(root / name / f"{name}{number}.mkv", frames, tone(0.5, hertz=400 * 3**label))
    real, fake = root / "real", root / "fake"
    media.write_video(real / "größe 日本.mp4")
    media.write_video(fake / "turned.mp4", degrees=90)
    media.write_video(real / "unsteady.mp4", ticks=[0, 1, 5, 6, 7, 15, 16, 30])
    media.write_video(fake / "deep.mp4", pixel_format="yuv444p10le")
    media.write_video(real / "gray.mp4", pixel_format="gray")
    write_clip(fake / "mute.mkv", [np.full((48, 64, 3), 90, dtype=np.uint8)] * 3)
    write_clip(real / "silence.mkv", [np.full((48, 64, 3), 90, dtype=np.uint8)] * 3, 0 * tone(0.5))
    (fake / "cut.mp4").write_bytes((fake / "turned.mp4").read_bytes()[:-900])
    (real / "empty.mp4").touch()
    (fake / "text.mp4").write_text("this is no clip\n" * 40)
    return root


@pytest.fixture(scope="module")
def searched(folder, tmp_path_factory):
    """The study, and what was said; made once, in a cache of its own."""
    place = tmp_path_factory.mktemp("study")
    (place / "space.yaml").write_text(SPACE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        train_in_this_process(patch)
        patch.setenv("AUTOML_CACHE", str(place / "cache"))
        reporter = RecordingReporter()
        result = automl.search(
            folder,
            trials=2,
            runs=place / "runs",
            space=str(place / "space.yaml"),
            pool={"names": ["test_byobnet*"], "size": 1},
            pretrained="never",
            confirm=0,
            reporter=reporter,
        )
        yield result, reporter, place


def test_each_view_is_tried_and_every_bad_file_is_one_line(searched):
    result, reporter, _ = searched
    assert result.trials["state"].tolist() == ["complete", "complete"]
    assert result.trials["view"].tolist() == ["frame", "mel"]
    assert result.setup.dataset.media == "video"
    for name, reason in BAD.items():
        lines = [line for line in reporter.lines if name in line]
        assert len(lines) <= 2, "one a view"
        assert any(reason in line and "view frame" in line for line in lines)
    count = len(BAD) + len(MUTE)
    assert f"view mel: {count} clips give no image; their scores are the shares of the classes" in reporter
    for name in STRANGE:
        assert not any(name in line and "view frame" in line for line in reporter.lines)


def test_all_views_score_the_same_clips(searched):
    result, _, place = searched
    dataset = result.setup.dataset
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AUTOML_CACHE", str(place / "cache"))
        frame = build_cache(dataset, 32, lambda *_: pytest.fail("decoded twice"), Frame(count=2))
        mel = build_cache(dataset, 32, view=Mel(count=2, seconds=0.5))
    names = dataset.samples["name"].str.rpartition("/")[2]
    assert set(names[~frame.readable]) == set(BAD)
    assert set(names[~mel.readable]) == {*BAD, *MUTE}


def test_the_study_opens_again_with_its_kind_of_files(searched):
    result, _, _ = searched
    again = open_result(StudyFolder(result.folder.path))
    assert again.setup.dataset.media == "video"
    assert again.best == result.best
    assert again.best.view.name in ("frame", "mel")


@pytest.mark.parametrize("view", ["frame", "mel"])
def test_a_model_of_clips_predicts_one_row_a_clip(searched, folder, tmp_path, view, monkeypatch):
    result, _, place = searched
    monkeypatch.setenv("AUTOML_CACHE", str(place / "cache"))
    row = result.trials[result.trials["view"] == view].iloc[0]
    recipe = Recipe.model_validate_json(result.study.trials[int(row["number"])].user_attrs["recipe"])
    recipe.save(tmp_path / "recipe.yaml")
    reporter = RecordingReporter()
    train(recipe=tmp_path / "recipe.yaml", data=folder, out=tmp_path / "model", reporter=reporter)
    model = load(tmp_path / "model")
    assert model.media == (("video",) if view == "frame" else ("sound", "video"))
    if view == "mel":
        mean = model.members[0].folder.input.mean
        assert mean[0] == mean[1] == mean[2] != 0.5, "channels are normalised by the training pictures"
    done = predict(model, folder, tmp_path / "out.csv", reporter=reporter)
    with (tmp_path / "out.csv").open(newline="") as handle:
        rows = {row["file_name"]: float(row["y_pred"]) for row in csv.DictReader(handle)}
    assert len(rows) == done.rows == 30
    unseen = {*BAD, *(MUTE if view == "mel" else ())}
    assert done.unreadable == len(unseen)
    prior = model.labels.prior[model.labels.positive]
    assert {
        name.rpartition("/")[2] for name, score in rows.items() if score == pytest.approx(prior, abs=1e-9)
    } >= unseen
    for format in ("python", "timm"):
        with pytest.raises(RecipeError, match=f"--format {format} does not know view '{view}'"):
            export(tmp_path / "model", format=format)
    assert f"view:\n  name: {view}" in export(tmp_path / "model", format="yaml").text


def test_a_space_for_other_files_is_refused(folder, tmp_path):
    with pytest.raises(SpaceError, match="view image looks at images, and the data are videos; give --space video"):
        automl.search(folder, space="image", runs=tmp_path, reporter=RecordingReporter())


def test_sounds_of_any_rate(tmp_path, monkeypatch):
    for label, name in enumerate(("real", "fake")):
        (tmp_path / name).mkdir()
        for number, rate in enumerate([8000, 44_100, 192_000, 16_000, 11_025] * 2):
            sound = media.tone(0.4, rate, hertz=300 * 3**label)
            media.write_sound(tmp_path / name / f"{name}{number}.wav", sound, rate)
    dataset = open_dataset(DataSpec(path=tmp_path), 0)
    assert dataset.media == "sound"
    cache = build_cache(dataset, 32, view=Mel(seconds=0.5))
    assert cache.counts.tolist() == [1] * 20
    pictures = np.stack([cache.image(row) for row in range(20)])[..., 0].astype(float)
    bright = pictures.mean(axis=2).argmax(axis=1)  # the row of the tone: the same at every rate
    real = (dataset.samples["label"] == dataset.real_class).to_numpy()
    assert np.ptp(bright[real]) <= 1
    assert np.ptp(bright[~real]) <= 1
    assert bright[real].min() > bright[~real].max()
