import math
from dataclasses import replace
from itertools import count

import numpy as np
import pytest

from automl.backbones.weights import Weights
from automl.features import screening
from automl.features.screening import Candidate, screen_backbones
from automl.recipe import Recipe
from tests.fixtures.frozen_backbones import SIZE, open_pictures, write_weights

BACKBONES = ("test_resnet", "test_vit", "test_convnext", "test_efficientnet")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    return {backbone: write_weights(folder, backbone) for backbone in BACKBONES}


@pytest.fixture
def data(tmp_path):
    return open_pictures(tmp_path / "images", 60, contrast=30)


@pytest.fixture
def few(monkeypatch):
    """A first round of 20 images."""
    monkeypatch.setattr(screening, "_FEWEST", 20)
    monkeypatch.setattr(screening, "_BATCH", 8)


def candidate(backbone, where, image_seconds=1.0):
    return Candidate(Recipe(backbone=backbone, image_size=SIZE), where, image_seconds)


class Clock:
    """Every look at the clock takes a second."""

    def __init__(self, monkeypatch, seconds=1.0):
        ticks = count()
        monkeypatch.setattr(screening.time, "monotonic", lambda: seconds * next(ticks))


@pytest.mark.slow
def test_with_time_enough_every_backbone_sees_all_images(data, weights):
    lines = []
    rows = screen_backbones(
        [candidate(name, where) for name, where in weights.items()], data, "cpu", 600, print_line=lines.append
    )
    assert {row.backbone for row in rows} == set(BACKBONES)
    assert [row.score for row in rows] == sorted((row.score for row in rows), reverse=True)
    for row in rows:
        assert row.images == 60
        assert 0.5 < row.score <= 1
        assert 0 <= row.knn_score <= 1
        assert row.best_layer
        assert row.seconds > 0
        assert not row.reason
        assert not row.cut_early
    assert len(lines) == 4


@pytest.mark.slow
def test_the_less_promising_half_sees_fewer_images(data, weights, few, monkeypatch):
    monkeypatch.setattr(screening._Screening, "can_see_all", lambda *_: False)
    monkeypatch.setattr(screening._Screening, "plan_images", lambda *_: 40)
    rows = screen_backbones([candidate(name, where) for name, where in weights.items()], data, "cpu", 600)
    assert [row.images for row in rows] == [40, 40, 20, 20]
    assert [row.cut_early for row in rows] == [False, False, True, True]


@pytest.mark.slow
def test_the_same_images_give_the_same_score_whatever_the_rounds(data, weights, few, monkeypatch):
    monkeypatch.setattr(screening, "_FEWEST", 40)
    (once,) = screen_backbones([candidate("test_vit", weights["test_vit"])], data, "cpu", 600, most_images=40)
    monkeypatch.setattr(screening, "_FEWEST", 20)
    rows = screen_backbones([candidate("test_vit", weights["test_vit"])] * 2, data, "cpu", 600, most_images=40)
    assert [row.images for row in rows] == [40, 40]
    assert rows[0].score == pytest.approx(once.score)


def planner(data, monkeypatch, seconds):
    monkeypatch.setattr(screening.time, "monotonic", lambda: 0.0)
    return screening._Screening(data, "cpu", seconds, None, 0, print)


def tracks_of(number, images=20, seconds=20.0):
    tracks = [screening._Track(candidate("test_resnet", None)) for _ in range(number)]
    for track in tracks:
        track.row = replace(track.row, images=images, seconds=seconds)
    return tracks


def test_images_are_as_many_as_the_time_allows(data, weights, few, monkeypatch):
    assert planner(data, monkeypatch, 1.0).first_images == 20
    assert planner(data, monkeypatch, 50.5).plan_images(tracks_of(2), 20) == 45
    assert planner(data, monkeypatch, 96.5).plan_images(tracks_of(8), 20) == 24  # a third of the time, for 8
    assert planner(data, monkeypatch, 1000.0).plan_images(tracks_of(8), 20) == 60  # there are no more
    assert planner(data, monkeypatch, -1.0).plan_images(tracks_of(2), 20) == 20


def test_none_is_cut_where_there_is_time_for_all(data, few, monkeypatch):
    assert planner(data, monkeypatch, 161.0).can_see_all(tracks_of(4))
    assert not planner(data, monkeypatch, 159.0).can_see_all(tracks_of(4))


def test_the_cheapest_come_first_and_the_others_are_left_when_time_is_over(data, weights, few, monkeypatch):
    Clock(monkeypatch)
    rows = screen_backbones(
        [
            candidate("test_resnet", weights["test_resnet"], 3.0),
            candidate("test_vit", weights["test_vit"], 1.0),
            candidate("test_convnext", weights["test_convnext"], 2.0),
        ],
        data,
        "cpu",
        9.0,
    )
    assert rows[0].backbone == "test_vit"
    assert rows[0].images == 20
    assert not rows[0].reason
    assert {row.reason for row in rows[1:]} == {"no time was left"}
    assert all(math.isnan(row.score) for row in rows[1:])


def test_what_is_broken_is_a_row_and_does_not_stop_the_others(data, weights, tmp_path):
    broken = tmp_path / "test_vit.safetensors"
    broken.write_bytes(b"no weights")
    rows = screen_backbones(
        [
            candidate("test_vit", Weights("file", broken)),
            candidate("test_convnext", None),
            candidate("test_resnet", weights["test_vit"]),
            candidate("no_such_backbone", weights["test_vit"]),
            candidate("test_efficientnet", weights["test_efficientnet"]),
        ],
        data,
        "cpu",
        600,
    )
    assert rows[0].backbone == "test_efficientnet"
    reasons = {row.backbone: row.reason for row in rows}
    assert "cannot load weights of test_vit" in reasons["test_vit"]
    assert "no pretrained weights" in reasons["test_convnext"]
    assert "cannot load weights of test_resnet" in reasons["test_resnet"]
    assert "timm has no backbone" in reasons["no_such_backbone"]


def test_ctrl_c_passes_through(data, weights, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(screening, "make_model", interrupt)
    with pytest.raises(KeyboardInterrupt):
        screen_backbones([candidate("test_vit", weights["test_vit"])], data, "cpu", 600)


def test_nothing_to_screen_is_nothing(data):
    assert screen_backbones([], data, "cpu", 10) == []


def test_first_images_have_every_class_and_are_drawn_by_the_seed():
    labels = np.repeat([0, 1, 2], [600, 300, 100])
    order = screening._order_images(labels, 0)
    assert sorted(order) == list(range(1000))
    assert np.abs(np.bincount(labels[order[:100]]) - [60, 30, 10]).max() <= 1
    assert (order == screening._order_images(labels, 0)).all()
    assert (order != screening._order_images(labels, 1)).any()


@pytest.mark.slow
def test_real_weights_tell_real_faces_better_than_random_ones(shared, tmp_path):
    """Of 120 faces and fakes: the mean of the two shared networks of mobile phones against random weights."""
    from automl.data.cache import build_cache
    from automl.data.dataset import open_dataset
    from automl.data.loader import ImageData
    from automl.spec import DataSpec

    dataset = open_dataset(DataSpec(path=shared / "data" / "ffdi_faces"), seed=0)
    faces = ImageData(dataset, build_cache(dataset, 64))
    known = Weights("file", shared / "weights" / "mobilenetv2_100.safetensors")
    recipe = Recipe(backbone="mobilenetv2_100", image_size=64)
    candidates = [Candidate(recipe, where, 1.0) for where in (known, write_weights(tmp_path, "mobilenetv2_100"))]
    real, random = screen_backbones(candidates, faces, "cpu", 600, most_images=120)
    assert real.score > random.score
    assert real.score > 0.6
