from dataclasses import replace

import numpy as np
import pytest
import torch

from automl.data.cache import build_cache
from automl.data.dataset import draw_split, open_dataset
from automl.data.loader import ImageData
from automl.features import feature_cache, head_training
from automl.features.head_training import fit_on_features, trains_on_features
from automl.recipe import Recipe
from automl.spec import DataSpec
from automl.training.evaluation import split_probabilities
from automl.training.fit import fit
from automl.training.types import Diverged
from tests.fixtures.frozen_backbones import write_weights
from tests.fixtures.studies import images as images

HEADS = [
    {"name": "linear"},
    {"name": "l2"},
    {"name": "mlp", "hidden": 16},
    {"name": "layers"},
]


def recipe_of(backbone="test_resnet", **changes):
    values = {
        "backbone": backbone,
        "image_size": 32,
        "tune": {"name": "head"},
        "augmentation": {"crop": {"name": "squash"}, "horizontal_flip": 0.5},
        "batch_size": 8,
        "epochs": 8,
        "learning_rate": 0.02,
    }
    return Recipe.from_mapping(values | changes)


@pytest.fixture(scope="module")
def data(images, tmp_path_factory):
    patch = pytest.MonkeyPatch()
    patch.setenv("AUTOML_CACHE", str(tmp_path_factory.mktemp("cache")))
    dataset = open_dataset(DataSpec(path=images), seed=0)
    yield ImageData(dataset, build_cache(dataset, 32))
    patch.undo()


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch, data):
    monkeypatch.setenv("AUTOML_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("backbone", ["test_resnet", "test_vit", "test_efficientnet"])
@pytest.mark.parametrize("head", HEADS, ids=lambda head: head["name"])
def test_a_head_learns_and_its_network_gives_the_same_scores(tmp_path, data, backbone, head):
    recipe, weights = recipe_of(backbone, head=head), write_weights(tmp_path, backbone)
    evaluations = []
    result = fit_on_features(recipe, data, weights, "cpu", on_evaluation=evaluations.append)
    assert result is not None
    assert result.history == evaluations
    assert [e.eighth for e in evaluations] == list(range(1, 9))
    assert evaluations[-1].epoch == pytest.approx(8)
    assert evaluations[-1].metrics["auc"] > 0.8
    whole = split_probabilities(result.model, recipe, data, "validation", result.preprocessing, "cpu")
    assert np.abs(whole - result.probabilities).max() < 0.02
    assert all(torch.isfinite(parameter).all() for parameter in result.model.parameters())


def test_each_step_of_the_head_is_reported_after_its_features(tmp_path, data):
    reported = []
    weights = write_weights(tmp_path)
    calls = {
        name: lambda done, total, name=name: reported.append((name, done, total)) for name in ("on_step", "progress")
    }
    result = fit_on_features(recipe_of(epochs=1), data, weights, "cpu", **calls)
    assert result is not None
    steps = result.history[-1].step
    assert reported[-steps:] == [("on_step", done + 1, steps) for done in range(steps)]
    assert {name for name, *_ in reported[:-steps]} == {"progress"}


def test_it_is_about_as_good_as_training_through_the_network(tmp_path, data):
    recipe, weights = recipe_of(), write_weights(tmp_path)
    fast, slow = fit_on_features(recipe, data, weights, "cpu"), fit(recipe, data, weights=weights)
    assert fast is not None
    assert fast.history[-1].metrics["auc"] == pytest.approx(slow.history[-1].metrics["auc"], abs=0.1)
    frozen = {name for name, _ in slow.model.named_parameters() if not name.startswith("fc.")}
    for name in frozen:
        assert torch.equal(fast.model.state_dict()[name], slow.model.state_dict()[name])


def test_a_second_recipe_on_the_same_features_runs_no_network_over_them(tmp_path, data, monkeypatch):
    weights = write_weights(tmp_path)
    first = fit_on_features(recipe_of(), data, weights, "cpu")
    monkeypatch.setattr(feature_cache, "_Network", None)
    again = fit_on_features(recipe_of(), data, weights, "cpu")
    other = fit_on_features(recipe_of(learning_rate=0.001, head={"name": "l2"}), data, weights, "cpu")
    assert np.array_equal(first.probabilities, again.probabilities), "the same recipe is the same run"
    assert not np.array_equal(first.probabilities, other.probabilities)


def test_the_average_of_weights_is_what_is_scored(tmp_path, data):
    recipe, weights = recipe_of(ema_decay=0.9), write_weights(tmp_path)
    result = fit_on_features(recipe, data, weights, "cpu")
    whole = split_probabilities(result.model, recipe, data, "validation", result.preprocessing, "cpu")
    assert np.abs(whole - result.probabilities).max() < 0.02


def test_what_a_callback_raises_ends_it_and_what_was_computed_is_kept(tmp_path, data):
    weights, seen = write_weights(tmp_path), []

    def stop(done, total):
        seen.append((done, total))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit_on_features(recipe_of(), data, weights, "cpu", progress=stop)
    assert len(seen) == 1
    with pytest.raises(RuntimeError, match="pruned"):
        fit_on_features(
            recipe_of(), data, weights, "cpu", on_evaluation=lambda _: (_ for _ in ()).throw(RuntimeError("pruned"))
        )


def test_a_loss_that_is_not_finite_diverges(tmp_path, data):
    with pytest.raises(Diverged, match="not finite"):
        fit_on_features(
            recipe_of(learning_rate=10.0, optimizer={"name": "sgd"}, weight_decay=1.0, epochs=40),
            data,
            write_weights(tmp_path),
            "cpu",
        )


def test_a_network_whose_head_sees_something_else_is_left_to_the_slow_way(tmp_path, data, monkeypatch):
    monkeypatch.setattr(head_training, "_TOLERANCE", -1.0)
    assert fit_on_features(recipe_of(epochs=1), data, write_weights(tmp_path), "cpu") is None


def test_two_classifiers_are_left_to_the_slow_way(tmp_path, data):
    weights = write_weights(tmp_path, "deit_tiny_distilled_patch16_224")
    assert fit_on_features(recipe_of("deit_tiny_distilled_patch16_224"), data, weights, "cpu") is None


@pytest.mark.parametrize(
    "changes",
    [
        {"tune": {"name": "norms"}},
        {"mixing": {"name": "mixup"}},
        {"head": {"name": "attention"}},
        {"pooling": "avg"},
        {"augmentation": {"self_blend": 0.5}},
    ],
    ids=str,
)
def test_other_recipes_need_the_network(changes):
    assert trains_on_features(recipe_of())
    assert not trains_on_features(recipe_of(**changes))


def test_features_of_both_splits_serve_every_split_of_the_samples(tmp_path, data, monkeypatch):
    plain = {"crop": {"name": "squash"}, "horizontal_flip": 0.0}
    recipe, weights = recipe_of(augmentation=plain), write_weights(tmp_path, "test_resnet")
    own = fit_on_features(recipe, data, weights, "cpu")
    both = fit_on_features(recipe, data, weights, "cpu", shared=True)
    assert np.abs(own.probabilities - both.probabilities).max() < 1e-4
    monkeypatch.setattr(feature_cache, "FeatureExtractor", None)  # nothing is left to compute
    other = replace(data, samples=draw_split(data.samples, 5))
    assert other.rows("validation").tolist() != data.rows("validation").tolist()
    again = fit_on_features(recipe, other, weights, "cpu", shared=True)
    assert len(again.probabilities) == len(other.rows("validation"))
    with pytest.raises(TypeError):
        fit_on_features(recipe, other, weights, "cpu")
