import json
import time

import pytest
import torch

from automl.errors import RecipeError
from automl.files import cache_dir
from automl.recipe import Numerics, Recipe
from automl.training import precision as numerics
from automl.training.precision import Timing, best_numerics, is_timed

RECIPE = Recipe(backbone="test_byobnet", image_size=32)
ALL = [("fp32", "contiguous"), ("fp32", "channels_last"), ("bf16", "contiguous"), ("bf16", "channels_last")]


@pytest.fixture
def clock(monkeypatch):
    """Decides how long each candidate takes: seconds of a step and of a forward pass by (precision, layout)."""
    training = dict.fromkeys(ALL, 1.6)
    logits = {}
    monkeypatch.setattr(numerics, "_list_candidates", lambda _: iter(ALL))
    monkeypatch.setattr(numerics, "_is_steady", lambda *_: True)
    monkeypatch.setattr(
        numerics,
        "_time_evaluation",
        lambda *given: (logits.get(given[2:], torch.ones(16, 2)), training[given[2:]] / 4),
    )
    monkeypatch.setattr(numerics, "_time_training", lambda *given: training[given[4:6]])
    return training, logits


@pytest.mark.parametrize("fastest", ALL, ids="-".join)
def test_the_fastest_wins(clock, fastest):
    clock[0][fastest] = 0.8
    timing = best_numerics(RECIPE, 2, "cpu")
    assert timing == Timing(*fastest, train_seconds=0.1, evaluation_seconds=0.025, image_size=32)
    assert timing.numerics(4) == Numerics(precision=fastest[0], memory_format=fastest[1], micro_batch_size=4)


@pytest.mark.parametrize("wrong", [torch.full((16, 2), 1.2), torch.full((16, 2), torch.nan)], ids=["far", "nan"])
def test_a_fast_candidate_with_other_answers_does_not_count(clock, wrong):
    clock[0]["bf16", "contiguous"] = 0.1
    clock[1]["bf16", "contiguous"] = wrong
    assert best_numerics(RECIPE, 2, "cpu").precision == "fp32"


def test_a_small_difference_is_no_mistake(clock):
    clock[0]["bf16", "contiguous"] = 0.1
    clock[1]["bf16", "contiguous"] = torch.full((16, 2), 1.02)
    assert best_numerics(RECIPE, 2, "cpu").precision == "bf16"


def test_a_timing_is_recalled_without_building_the_model(clock, monkeypatch):
    first = best_numerics(RECIPE, 2, "cpu")
    monkeypatch.setattr(numerics, "make_model", lambda *_: pytest.fail("built again"))
    assert best_numerics(RECIPE, 2, "cpu") == first
    assert best_numerics(RECIPE.model_copy(update={"learning_rate": 1e-4, "epochs": 9}), 2, "cpu") == first


def test_a_timing_of_a_busy_machine_is_taken_again_and_the_faster_kept(clock, monkeypatch):
    training, _ = clock
    monkeypatch.setattr(numerics, "_is_steady", lambda *_: False)
    steps = {}
    for seconds in (8.0, 4.0, 6.0):  # other programs take more and less of the machine
        training.update(dict.fromkeys(ALL, seconds))
        steps[seconds] = 8 * best_numerics(RECIPE, 2, "cpu").train_seconds
        assert not is_timed(RECIPE, "cpu")
    assert steps == {8.0: 8.0, 4.0: 4.0, 6.0: 4.0}
    monkeypatch.setattr(numerics, "_is_steady", lambda *_: True)
    training.update(dict.fromkeys(ALL, 5.0))
    for _ in range(2):
        assert 8 * best_numerics(RECIPE, 2, "cpu").train_seconds == 5.0
        assert is_timed(RECIPE, "cpu")
        training.update(dict.fromkeys(ALL, 1.0))  # recalled


def test_a_timing_of_an_earlier_version_is_taken_again_once(clock):
    best_numerics(RECIPE, 2, "cpu")
    (path,) = (cache_dir() / "timings").iterdir()
    path.write_text(json.dumps({key: value for key, value in json.loads(path.read_text()).items() if key != "steady"}))
    assert not is_timed(RECIPE, "cpu")
    best_numerics(RECIPE, 2, "cpu")
    assert is_timed(RECIPE, "cpu")


def test_a_thread_that_others_keep_waiting_is_not_steady():
    assert numerics._is_steady(1.0, 0.95)
    assert not numerics._is_steady(1.0, 0.5)
    started, worked = time.perf_counter(), time.thread_time()
    time.sleep(0.05)
    assert not numerics._is_steady(time.perf_counter() - started, time.thread_time() - worked)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"precision": "fp32", "old": 1}'])
def test_a_timing_that_cannot_be_read_is_made_again(clock, content):
    first = best_numerics(RECIPE, 2, "cpu")
    (path,) = (cache_dir() / "timings").iterdir()
    path.write_text(content)
    assert best_numerics(RECIPE, 2, "cpu") == first
    assert json.loads(path.read_text())["train_seconds"] == first.train_seconds


def test_another_size_batch_or_backbone_is_timed_anew(clock):
    best_numerics(RECIPE, 2, "cpu")
    best_numerics(RECIPE.model_copy(update={"image_size": 64}), 2, "cpu")
    best_numerics(RECIPE.model_copy(update={"backbone": "test_resnet"}), 2, "cpu")
    best_numerics(RECIPE, 2, "cpu", batch_size=4)
    assert len(list((cache_dir() / "timings").iterdir())) == 4


def test_weights_of_one_architecture_share_a_timing(clock):
    first = best_numerics(RECIPE, 2, "cpu")
    assert best_numerics(RECIPE.model_copy(update={"backbone": "test_byobnet.r160_in1k"}), 2, "cpu") == first
    assert len(list((cache_dir() / "timings").iterdir())) == 1


def test_another_image_size_costs_by_its_pixels():
    timing = Timing("fp32", "contiguous", 1.0, 0.25, 64).scale_to(128)
    assert (timing.train_seconds, timing.evaluation_seconds, timing.image_size) == (4, 1, 128)


def test_a_real_timing():
    timing = best_numerics(RECIPE, 2, "cpu", batch_size=4)
    # Which of the two is longer is not asked: on a machine with other work either may have had to wait.
    assert timing.evaluation_seconds > 0
    assert timing.train_seconds > 0
    assert timing.image_size == 32


def test_a_backbone_that_cannot_be_built_is_told():
    with pytest.raises(RecipeError, match="timm has no backbone"):
        best_numerics(RECIPE.model_copy(update={"backbone": "nonesuch_net"}), 2, "cpu")


def test_bf16_is_tried_only_where_the_cpu_computes_it(monkeypatch):
    monkeypatch.setattr(numerics, "_cpu_flags", lambda: {"avx2", "avx512f"})
    assert {precision for precision, _ in numerics._list_candidates(torch.device("cpu"))} == {"fp32"}
    monkeypatch.setattr(numerics, "_cpu_flags", lambda: {"avx2", "amx_bf16"})
    assert {precision for precision, _ in numerics._list_candidates(torch.device("cpu"))} == {"fp32", "bf16"}


def test_less_is_timed_the_less_is_trained():
    timing = Timing("fp32", "contiguous", 0.03, 0.01, 100)
    seconds = {
        name: timing.scale_to_recipe(Recipe(backbone="a", image_size=200, tune={"name": name})).train_seconds
        for name in ("head", "last", "norms", "lora", "all")
    }
    assert list(seconds) == sorted(seconds, key=seconds.__getitem__)
    assert seconds["all"] == seconds["lora"] == pytest.approx(0.12)
    assert 0.04 <= seconds["head"] < 0.05
