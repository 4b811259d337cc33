import csv
import errno
import json
import os
import subprocess
import sys
from contextlib import nullcontext

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from sklearn.metrics import roc_auc_score

import automl
from automl.backbones.input import InputSpec
from automl.data.cache import build_cache
from automl.data.dataset import open_dataset
from automl.data.loader import ImageData
from automl.errors import DataError, SpecError, StudyError, WeightsError
from automl.models import predict as module
from automl.models.folder import Labels, write_ensemble, write_model
from automl.models.predict import load, predict
from automl.models.scorer import ImageSource
from automl.models.tta import Variants
from automl.recipe import Recipe
from automl.recipe.augmentation import Augmentation
from automl.spec import DataSpec
from automl.training.fit import fit
from tests.fixtures import damaged as stand_ins
from tests.fixtures.models import write
from tests.fixtures.reporter import RecordingReporter


class Ear(RecordingReporter):
    """A reporter that remembers the progress, too."""

    def __init__(self):
        super().__init__()
        self.progress = []

    def show_progress(self, label):
        return nullcontext(lambda *counts: self.progress.append(counts))

    @property
    def warnings(self):
        return [line.removeprefix("warning: ") for line in self.lines if line.startswith("warning: ")]


@pytest.fixture
def ear():
    return Ear()


@pytest.fixture
def photos(tmp_path):
    """Seven PNGs of noise, of different sizes and shapes, and a table of them in no order."""
    folder, random = tmp_path / "photos", np.random.default_rng(1)
    folder.mkdir()
    for k in range(7):
        pixels = random.integers(0, 30 * (k + 2), (30 + 5 * k, 60 - 3 * k, 3))
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{k}.png")
    rows = "".join(f"{k}.png,{k % 2}\n" for k in (3, 1, 6, 0, 3, 5, 2, 4))
    (folder / "rows.csv").write_text("img_name,target\n" + rows)
    return folder


def rows_of(path):
    with path.open(newline="") as handle:
        return list(csv.reader(handle))


def run(model, data, out, ear, **options):
    return predict(load(model.path), data, out, reporter=ear, **options)


# --- the numbers


@pytest.mark.parametrize("crop", ["resize", "native", "squash"])
@pytest.mark.parametrize("ema", [0, 0.5])
def test_the_csv_file_says_what_training_measured(tmp_path, ear, crop, ema):
    """Drawn pictures larger than what is decoded; trained by `fit`, predicted from the files."""
    random = np.random.default_rng(0)
    for k in range(64):
        folder = tmp_path / "data" / ("train" if k < 40 else "val") / ("fake" if k % 2 else "real")
        folder.mkdir(parents=True, exist_ok=True)
        pixels = random.integers(0, 190, (70 + k, 160 - k, 3)) + 25 * (k % 2)
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{k:02}.png")
    dataset = open_dataset(DataSpec(path=tmp_path / "data", holdout_fraction=0), 0)
    cache = build_cache(dataset, 56)
    augmentation = Augmentation.model_validate({"crop": {"name": crop}})
    recipe = Recipe(
        backbone="test_byobnet.r160_in1k", image_size=32, batch_size=8, epochs=2, learning_rate=3e-3, ema_decay=ema
    ).model_copy(update={"augmentation": augmentation})
    data = ImageData(dataset, cache)
    found = fit(recipe, data)
    inputs = InputSpec.from_preprocessing(found.preprocessing, recipe, cache.size)
    assert inputs.image_size == (56 if crop == "native" else 32)
    labels = Labels(dataset.classes, dataset.positive, (0.5, 0.5))
    write_model(tmp_path / "model", found.model, recipe, inputs, labels, {}, "")
    predict(load(tmp_path / "model"), tmp_path / "data/val", tmp_path / "out.csv", reporter=ear, batch_size=5)
    table = pd.read_csv(tmp_path / "out.csv").set_index("img_name")
    rows = data.rows("validation")
    names = [os.path.relpath(path, tmp_path / "data/val") for path in dataset.samples["path"].iloc[rows]]
    positive = found.probabilities[:, dataset.positive]
    assert table["y_pred"][names].to_numpy() == pytest.approx(positive, abs=1e-6)
    assert np.ptp(positive) > 1e-3  # it tells them apart: equal numbers mean something
    auc = roc_auc_score([name.startswith("fake") for name in table.index], table["y_pred"])
    assert auc == pytest.approx(found.history[-1].metrics["auc"], abs=1e-6)


def test_the_batch_size_and_the_layout_change_nothing(model, photos, tmp_path):
    whole = load(model.path).predict(photos)["y_pred"]
    for size in (1, 2, 3, 100):
        assert load(model.path).predict(photos, batch_size=size)["y_pred"].to_numpy() == pytest.approx(whole, abs=1e-6)
    other = write(tmp_path / "other", numerics={"memory_format": "channels_last", "precision": "bf16"})
    assert load(other.path).predict(photos)["y_pred"].to_numpy() == pytest.approx(whole, abs=1e-6)
    assert np.ptp(whole) > 1e-3


def test_an_ensemble_is_the_weighted_mean(photos, tmp_path, ear):
    members = tmp_path / "both"
    one = write(members / "a")
    two = write(members / "b", "test_vit.r160_in1k")
    write_ensemble(members, {"a": 0.75, "b": 0.25})
    a, b = (load(member.path).predict(photos)["y_pred"] for member in (one, two))
    both = load(members)
    found = both.predict(photos)["y_pred"].to_numpy()
    assert found == pytest.approx(0.75 * a + 0.25 * b, abs=1e-6)
    assert np.abs(a - b).max() > 1e-3
    assert both.recipe == one.recipe
    assert both.metrics == {"a": {"metric": "auc"}, "b": {"metric": "auc"}}
    predict(both, photos, tmp_path / "out.csv", reporter=ear)
    assert pd.read_csv(tmp_path / "out.csv")["y_pred"].to_numpy() == pytest.approx(found)


def test_flip_is_the_mean_of_the_image_and_its_mirror(model, photos, tmp_path):
    mirrored = tmp_path / "mirrored"
    mirrored.mkdir()
    # squares of the size that is decoded to, so that mirroring the file is mirroring what the network sees
    for source, target in ((photos, "x.png"), (mirrored, "y.png")):
        pixels = np.random.default_rng(5).integers(0, 256, (32, 32, 3)).astype(np.uint8)
        Image.fromarray(pixels if source == photos else pixels[:, ::-1]).save(source / target)
    model = load(model.path)
    one, other = (model.predict(path)["y_pred"][0] for path in (photos / "x.png", mirrored / "y.png"))
    assert abs(one - other) > 1e-4
    assert model.predict(photos / "x.png", tta="flip")["y_pred"][0] == pytest.approx((one + other) / 2, abs=1e-6)


@pytest.mark.parametrize("tta", ["flip", "5crop"])
def test_of_a_uniform_picture_every_augmentation_is_none(model, tmp_path, tta):
    Image.new("RGB", (70, 50), (200, 30, 90)).save(tmp_path / "x.png")
    model = load(model.path)
    plain = model.predict(tmp_path / "x.png")["y_pred"][0]
    assert model.predict(tmp_path / "x.png", tta=tta, batch_size=3)["y_pred"][0] == pytest.approx(plain, abs=1e-6)


# --- the file


def test_every_row_in_order_duplicates_too(model, photos, tmp_path, ear):
    done = run(model, photos / "rows.csv", tmp_path / "deep/out.csv", ear, batch_size=3)
    header, *rows = rows_of(tmp_path / "deep/out.csv")
    assert header == ["img_name", "y_pred"]
    assert [name for name, _ in rows] == [f"{k}.png" for k in (3, 1, 6, 0, 3, 5, 2, 4)]
    assert rows[0] == rows[4]
    table = load(model.path).predict(photos).set_index("path")
    fake = [table["fake"][str(photos / name)] for name, _ in rows]
    assert [float(value) for _, value in rows] == pytest.approx(fake, abs=1e-6)
    assert (done.rows, done.unreadable, done.columns) == (8, 0, ("img_name", "y_pred"))
    assert ear.progress == [(k, 8) for k in range(1, 9)]
    assert len(ear.warnings) == 1
    assert "column target holds '1', '0'" in ear.warnings[0]


def test_what_cannot_be_read_gets_the_prior_and_a_warning(tmp_path, photos, ear):
    model = write(tmp_path / "model")
    (model.path / "labels.json").write_text(
        json.dumps({"classes": ["real", "fake"], "positive": 1, "prior": [0.7, 0.3], "file_column": "id"})
    )
    for k in range(8):
        (photos / f"bad{k}.png").write_text("no image")
    done = run(model, photos, tmp_path / "out.csv", ear, batch_size=2)
    header, *rows = rows_of(tmp_path / "out.csv")
    assert header == ["id", "y_pred"]
    assert len(rows) == 15
    assert [value for name, value in rows if name.startswith("bad")] == ["0.3"] * 8
    assert "0.3" not in [value for name, value in rows if not name.startswith("bad")]
    assert done.unreadable == 8
    assert ear.warnings == [
        *(f"gets the training prior: bad{k}.png (not an image)" for k in range(5)),
        "8 of 15 files cannot be read, or show nothing, and have the training prior as prediction",
    ]


def test_a_missing_file_gets_the_prior(model, photos, tmp_path, ear):
    (photos / "rows.csv").write_text("img_name\n1.png\ngone.png\n2.png\n")
    run(model, photos / "rows.csv", tmp_path / "out.csv", ear)
    assert rows_of(tmp_path / "out.csv")[2] == ["gone.png", "0.5"]
    assert ear.warnings[0] == "gets the training prior: gone.png (no such file)"


def test_more_classes_have_a_column_each(tmp_path, photos, ear):
    model = write(tmp_path / "model", classes=("cat", "dog", "owl"))
    run(model, photos, tmp_path / "out.csv", ear)
    header, *rows = rows_of(tmp_path / "out.csv")
    assert header == ["img_name", "cat", "dog", "owl"]
    assert [sum(map(float, row[1:])) for row in rows] == pytest.approx([1] * 7)
    frame = load(model.path).predict(photos)
    assert list(frame.columns) == ["path", "cat", "dog", "owl"]
    with pytest.raises(DataError, match="this model has 3"):
        run(model, photos, tmp_path / "out.csv", ear, column="y")


def test_the_column_is_the_flags_or_the_sample_submissions(model, photos, tmp_path, ear):
    (photos / "sample_submission.csv").write_text("id,score\n1.png,0\n2.png,1\n")
    sample = photos / "sample_submission.csv"
    assert run(model, sample, tmp_path / "out.csv", ear).columns == ("id", "score")
    assert run(model, sample, tmp_path / "out.csv", ear, column="p").columns == ("id", "p")
    assert rows_of(tmp_path / "out.csv")[0] == ["id", "p"]
    assert ear.warnings == []
    with pytest.raises(DataError, match="two columns would be called 'id'"):
        run(model, sample, tmp_path / "out.csv", ear, column="id")


def test_an_end_in_the_middle_leaves_the_old_file(model, photos, tmp_path, ear):
    out = tmp_path / "sub/out.csv"
    out.parent.mkdir()
    out.write_text("old")

    def stop(*_):
        raise KeyboardInterrupt

    ear.show_progress = lambda _: nullcontext(stop)
    with pytest.raises(KeyboardInterrupt):
        run(model, photos, out, ear)
    assert out.read_text() == "old"
    assert list(out.parent.iterdir()) == [out]


def test_a_full_disk_names_the_file(model, photos, tmp_path, ear, monkeypatch):
    out = tmp_path / "sub/out.csv"

    def full(_handle, **_options):
        class Writer:
            def writerow(self, _):
                raise OSError(errno.ENOSPC, "No space left on device")

        return Writer()

    monkeypatch.setattr(module.csv, "writer", full)
    with pytest.raises(DataError, match=r"cannot write .*out\.csv: No space left on device; the disk is full"):
        run(model, photos, out, ear)
    assert list(out.parent.iterdir()) == []


def test_places_where_nothing_can_be_written(model, photos, tmp_path, ear):
    with pytest.raises(DataError, match="is a folder"):
        run(model, photos, tmp_path, ear)
    with pytest.raises(DataError, match="is the file that names what to predict"):
        run(model, photos / "rows.csv", photos / "rows.csv", ear)
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="cannot write"):
        run(model, photos, tmp_path / "file/out.csv", ear)


# --- memory


def test_a_prediction_survives_a_full_gpu(model, photos):
    expected = load(model.path).predict(photos, tta="flip")["y_pred"].to_numpy()
    small, sizes = load(model.path), []

    def refuse_many(_module, inputs):
        sizes.append(len(inputs[0]))
        if len(inputs[0]) > 3:
            raise torch.cuda.OutOfMemoryError

    small.members[0].network.register_forward_pre_hook(refuse_many)
    assert small.predict(photos, tta="flip")["y_pred"].to_numpy() == pytest.approx(expected, abs=1e-6)
    assert max(sizes) > 3


def test_a_file_that_ends_its_decoder_gets_the_prior(model, photos, tmp_path, ear, monkeypatch):
    whole = load(model.path).predict(photos)["y_pred"].tolist()
    (photos / "exit.png").write_bytes((photos / "1.png").read_bytes())
    monkeypatch.setattr("automl.models.scorer.make_images", stand_ins.make_images)
    done = run(model, photos, tmp_path / "out.csv", ear)
    _, *rows = rows_of(tmp_path / "out.csv")
    assert [float(value) for _, value in rows] == pytest.approx([*whole, 0.5])
    assert done.unreadable == 1
    assert ear.warnings[0] == "gets the training prior: exit.png (its decoder ended (exit code 9))"


def test_files_are_taken_only_as_they_are_scored(model, photos):
    scorer = load(model.path, "cpu").make_scorer(batch_size=2)
    taken = 0

    def items():
        nonlocal taken
        for _ in range(100_000):
            taken += 1
            yield module.Item("1.png", str(photos / "1.png"))

    scores = scorer.score_files(items())
    for _ in range(10):
        next(scores)
    scores.close()
    assert taken <= 10 + 2 * 2 + 4 * os.cpu_count() + 3


# --- mistakes, and Python


def test_outputs_that_are_not_finite_are_an_error(tmp_path, photos, ear):
    model = write(tmp_path / "model")
    network = model.load()
    with torch.no_grad():
        network.get_classifier().bias.fill_(float("nan"))
    write_model(model.path, network, model.recipe, model.input, model.labels, {}, "")
    with pytest.raises(WeightsError, match="not finite"):
        run(model, photos, tmp_path / "out.csv", ear)
    assert not (tmp_path / "out.csv").exists()


def test_mistakes_are_told(model, photos, tmp_path, ear):
    (tmp_path / "model.pt").touch()
    with pytest.raises(WeightsError, match="pickle"):
        load(tmp_path / "model.pt")
    with pytest.raises(WeightsError, match="no model in"):
        load(photos)
    with pytest.raises(StudyError, match="cuda:97"):
        load(model.path, "cuda:97")
    with pytest.raises(SpecError, match="none, flip, 5crop"):
        run(model, photos, tmp_path / "out.csv", ear, tta="both")
    with pytest.raises(SpecError, match="at least 1"):
        load(model.path).predict(photos, batch_size=0)


def test_a_model_for_notebooks(model, photos):
    found = automl.load(str(model.path))
    assert isinstance(found, automl.Model)
    assert (found.classes, found.recipe, found.metrics) == (("real", "fake"), model.recipe, {"metric": "auc"})
    assert "test_byobnet" in repr(found)
    paths = [photos / "2.png", str(photos / "0.png")]
    table = found.predict(paths)
    assert list(table.columns) == ["path", "real", "fake", "y_pred"]
    assert table["path"].tolist() == [str(path) for path in paths]
    assert (table["real"] + table["fake"]).to_numpy() == pytest.approx(1)
    assert (table["y_pred"] == table["fake"]).all()
    assert found.predict(photos)["y_pred"].to_numpy()[[2, 0]] == pytest.approx(table["y_pred"], abs=1e-6)
    assert len(found.predict(str(photos / "2.png"))) == 1
    assert found.predict([]).shape == (0, 4)
    with pytest.warns(UserWarning, match=r"1 of 2 files cannot be read,.*gone.png \(no such file\)"):
        table = found.predict([*paths[:1], photos / "gone.png"])
    assert table["y_pred"][1] == 0.5


def test_importing_automl_stays_quick():
    code = "import sys, automl; print('torch' in sys.modules or 'pandas' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def test_what_lies_at_the_end_of_a_tall_image_reaches_the_network(tmp_path):
    marked = np.full((480, 80, 3), 90, dtype=np.uint8)
    marked[:80] = 255
    Image.fromarray(marked).save(tmp_path / "x.png")
    for crop, brightest in (("squash", 255), ("resize", 90), ("native", 90)):
        recipe = Recipe(backbone="test_vit", augmentation=Augmentation.model_validate({"crop": {"name": crop}}))
        source = ImageSource(recipe.view, 224, Variants("flip", recipe.augmentation.crop, 80, "bicubic"))
        assert source.read_file(tmp_path / "x.png")[0].max() == brightest
