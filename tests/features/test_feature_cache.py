import json
import os
from collections import namedtuple
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from automl.backbones.layers import PRE_LOGITS
from automl.backbones.weights import make_model
from automl.errors import AutomlError, WeightsError
from automl.features import feature_cache
from automl.features.extraction import FeatureExtractor
from automl.features.feature_cache import Features, build_features
from automl.features.looks import LookImages, SplitImages
from automl.files import cache_dir
from automl.recipe import Recipe
from automl.recipe.augmentation import Augmentation, RandomAffine
from automl.training.types import expected_input
from tests.fixtures.frozen_backbones import SIZE, open_pictures, write_weights

RECIPE = Recipe(backbone="test_resnet", image_size=SIZE, augmentation=Augmentation(affine=RandomAffine()))
ROWS = 12


@pytest.fixture
def data(tmp_path):
    return open_pictures(tmp_path / "images", ROWS)


@pytest.fixture
def weights(tmp_path):
    return write_weights(tmp_path)


def folders():
    return sorted(path for path in (cache_dir() / "features").iterdir())


def forbid_models(monkeypatch):
    def fail(*_):
        raise AssertionError("a network was built")

    monkeypatch.setattr(feature_cache, "make_model", fail)


def test_features_are_those_of_the_network(data, weights):
    features = build_features(RECIPE, weights, data, "train", "cpu")
    model = make_model(RECIPE, 2, weights)
    preprocessing = expected_input(model, RECIPE, data)
    extractor = FeatureExtractor(model, preprocessing, RECIPE.numerics, "cpu", SIZE)
    images = torch.cat([batch for batch, _ in data.evaluation_batches(RECIPE, preprocessing, "train", ROWS)])
    (look,) = features.looks
    assert look.dtype == np.float16
    assert not look.flags.writeable
    assert np.allclose(look, extractor.extract_batch(images).numpy(), atol=1e-2)
    assert features.layers == extractor.layers
    assert features.layers[-1].name == PRE_LOGITS
    assert features.images.labels.tolist() == [0, 1] * 6


def test_images_are_averaged_by_sample():
    looks = (np.array([[1, 2, 3], [3, 4, 5], [7, 8, 9]], np.float16),)
    images = SplitImages(np.array([2, 2, 5]), np.array([0, 1, 0]), np.array([0, 0, 1]), np.array(["a", "a", "b"]))
    rows, means = Features(looks, (), images).average_images(slice(1, 3))
    assert rows.tolist() == [2, 5]
    assert means.tolist() == [[3, 4], [8, 9]]
    assert means.dtype == np.float32


def test_what_is_there_is_opened_without_a_network(data, weights, monkeypatch):
    first = build_features(RECIPE, weights, data, "train", "cpu", looks=2)
    forbid_models(monkeypatch)
    again = build_features(RECIPE, weights, data, "train", "cpu", looks=2)
    assert all((one == other).all() for one, other in zip(first.looks, again.looks, strict=True))
    assert (first.looks[0] != first.looks[1]).any()
    assert {path.name for path in folders()[0].iterdir()} == {"features.bin", "layers.json", "lock"}


def test_a_further_look_adds_to_those_that_are_there(data, weights):
    build_features(RECIPE, weights, data, "train", "cpu")
    seen, lines = [], []
    build_features(
        RECIPE,
        weights,
        data,
        "train",
        "cpu",
        looks=3,
        print_line=lines.append,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert len(folders()) == 3
    assert seen == [(24, 36), (36, 36)]
    assert len(lines) == 1
    assert f"features of {ROWS} images under 2 looks take" in lines[0]


def test_what_learns_differently_shares_features_and_what_looks_differently_does_not(data, weights, tmp_path):
    build_features(RECIPE, weights, data, "train", "cpu", looks=2)
    learning = {"learning_rate": 0.1, "drop_path": 0.3, "epochs": 3, "batch_size": 4}
    build_features(RECIPE.model_copy(update=learning), weights, data, "train", "cpu", looks=2)
    assert len(folders()) == 2
    plain = RECIPE.model_copy(update={"augmentation": Augmentation()})  # the evaluation's cut is the same
    build_features(plain, weights, data, "train", "cpu", looks=2)
    assert len(folders()) == 3
    build_features(RECIPE, weights, data, "train", "cpu", looks=2, seed=1)
    assert len(folders()) == 4
    build_features(RECIPE.model_copy(update={"image_size": 24}), weights, data, "train", "cpu")
    build_features(RECIPE.with_numerics(precision="bf16"), weights, data, "train", "cpu")
    assert len(folders()) == 6
    other = open_pictures(tmp_path / "others", ROWS, contrast=20)
    build_features(RECIPE, weights, other, "train", "cpu")
    assert len(folders()) == 7


def test_other_weights_in_the_same_file_are_seen(data, weights):
    before = build_features(RECIPE, weights, data, "train", "cpu").looks[0]
    state = load_file(weights.path)
    save_file({name: value + 0.1 * (name == "conv1.0.weight") for name, value in state.items()}, weights.path)
    after = build_features(RECIPE, weights, data, "train", "cpu").looks[0]
    assert (before != after).any()


def test_an_interrupted_computation_goes_on_where_it_stopped(data, weights, monkeypatch):
    whole = np.array(build_features(RECIPE, weights, data, "train", "cpu", looks=2).looks[1])
    (folder,) = [path for path in folders() if (np.fromfile(path / "features.bin", np.float16) == whole.ravel()).all()]
    (folder / "layers.json").unlink()
    (folder / "progress.json").write_text(json.dumps(7))
    with (folder / "features.bin").open("r+b") as file:
        file.seek(7 * whole.shape[1] * 2)
        file.write(b"\xff" * 1000)  # what a kill left behind the last entry
        file.truncate(9 * whole.shape[1] * 2)
    shown = []
    extract = FeatureExtractor.extract_batch
    monkeypatch.setattr(FeatureExtractor, "extract_batch", lambda self, x: shown.append(len(x)) or extract(self, x))
    again = build_features(RECIPE, weights, data, "train", "cpu", looks=2).looks[1]
    assert shown == [1, ROWS - 7]  # the empty image that shows the layers, then the rest
    assert np.allclose(again, whole, atol=1e-3)


def test_a_kill_in_the_middle_is_survived(data, weights, monkeypatch):
    class Killed(BaseException):
        pass

    def stop(done, _total):
        if done > 5:
            raise Killed

    monkeypatch.setattr(feature_cache, "_WRITE_SECONDS", 0.0)
    monkeypatch.setattr(LookImages.load_batches, "__defaults__", (5,))
    with pytest.raises(Killed):
        build_features(RECIPE, weights, data, "train", "cpu", progress=stop)
    seen = []
    build_features(RECIPE, weights, data, "train", "cpu", progress=lambda done, _total: seen.append(done))
    assert seen == [ROWS]
    assert not (folders()[0] / "progress.json").exists()


def test_a_damaged_progress_begins_anew(data, weights):
    whole = np.array(build_features(RECIPE, weights, data, "train", "cpu").looks[0])
    (folder,) = folders()
    (folder / "layers.json").unlink()
    (folder / "progress.json").write_text("no number")
    assert np.allclose(build_features(RECIPE, weights, data, "train", "cpu").looks[0], whole, atol=1e-3)


def test_of_several_workers_one_computes(data, weights):
    lines = []

    def build(_worker):
        return build_features(RECIPE, weights, data, "train", "cpu", print_line=lines.append).looks[0]

    with ThreadPoolExecutor(3) as workers:
        results = list(workers.map(build, range(3)))
    assert len(lines) == 1
    assert (results[0] == results[1]).all()
    assert (results[0] == results[2]).all()


def test_too_much_is_refused_before(data, weights):
    with pytest.raises(AutomlError, match=r"features of 12 images under 2 looks need .* limit of 10kB; take fewer"):
        build_features(RECIPE, weights, data, "train", "cpu", looks=2, limit_bytes=10_000)
    assert not list(cache_dir().rglob("features.bin"))


def test_a_full_disk_is_one_line(data, weights, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(feature_cache, "disk_usage", lambda _: usage(10, 10, 0))
    with pytest.raises(AutomlError, match=r"cannot be written to .* needed, 0B are free; .* AUTOML_CACHE") as caught:
        build_features(RECIPE, weights, data, "train", "cpu")
    assert "\n" not in str(caught.value)


def test_a_folder_that_is_a_file_is_one_line(data, weights):
    (cache_dir() / "features").write_text("")
    with pytest.raises(AutomlError, match="set AUTOML_CACHE to a folder that can be written"):
        build_features(RECIPE, weights, data, "train", "cpu")


def test_without_weights_there_are_no_features(data):
    with pytest.raises(WeightsError, match="test_resnet has no pretrained weights here"):
        build_features(RECIPE, None, data, "train", "cpu")


def test_weights_that_went_away_are_one_line(data, weights):
    os.unlink(weights.path)  # noqa: PTH108
    with pytest.raises(WeightsError, match=r"cannot read .*test_resnet.safetensors"):
        build_features(RECIPE, weights, data, "train", "cpu")
