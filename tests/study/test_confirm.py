import json
import os
import signal
from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from automl import devices
from automl.data.cache import build_cache
from automl.data.loader import ImageData
from automl.devices import CudaProcess
from automl.errors import MemoryBudgetError, SpecError, StudyError
from automl.gpu.probe import read_context_bytes
from automl.memory.estimate import estimate_training
from automl.recipe import Numerics, Recipe
from automl.study import replicate as module
from automl.study.confirm import confirm, cut_to_time, load_confirmation
from automl.study.folder import hold_lock
from automl.study.replicate import Replicate
from automl.study.setup import load_setup
from automl.study.storage import open_study
from automl.training.types import Diverged
from tests.fixtures.photos import make_photo, save_photos
from tests.fixtures.replicates import RECIPE
from tests.fixtures.reporter import RecordingReporter
from tests.fixtures.studies import entry


def test_the_best_recipes_are_trained_again_and_one_is_scored_on_the_holdout(searched):
    folder, told = searched(0.7, 0.99, 0.8), RecordingReporter()
    confirmation = confirm_study(folder, top=2, seeds=2, reporter=told)
    assert [candidate.trial for candidate in confirmation.candidates] == [1, 2]
    assert confirmation == load_confirmation(folder)
    setup = load_setup(*opened(folder))
    data = ImageData(setup.dataset, build_cache(setup.dataset, setup.cache_size))
    for candidate in confirmation.candidates:
        assert candidate.seeds == (1, 2)  # not the search's own, 0
        assert candidate.recipe.seed == 0
        for path, value in zip(candidate.predictions, candidate.validation, strict=True):
            with np.load(folder.path / path, allow_pickle=False) as file:
                assert value == pytest.approx(roc_auc_score(data.labels("validation"), file["validation"][:, 1]))
        assert candidate.mean == pytest.approx(np.mean(candidate.validation))
    best = max(confirmation.candidates, key=lambda candidate: candidate.mean)
    assert confirmation.best == best
    assert confirmation.validation.value == pytest.approx(best.mean)
    assert confirmation.search_value == best.search_value
    again = [
        Replicate(best.trial, best.recipe.model_copy(update={"seed": s}), folder.replicate_folder(best.trial, s))
        for s in (1, 2)
    ]
    scores = [roc_auc_score(data.labels("holdout"), one.predict_split(data, "holdout", "cpu")[:, 1]) for one in again]
    assert confirmation.holdout.value == pytest.approx(np.mean(scores), abs=1e-6)
    # the weights are those that were validated
    with np.load(again[0].predictions) as file:
        assert again[0].predict_split(data, "validation", "cpu") == pytest.approx(file["validation"], abs=1e-5)
    assert confirmation.holdout.low <= confirmation.holdout.value <= confirmation.holdout.high
    assert confirmation.optimism == pytest.approx(confirmation.search_value - confirmation.holdout.value)
    assert confirmation.validation_optimism == pytest.approx(best.mean - confirmation.holdout.value)
    assert confirmation.holdout_metrics["auc"] == pytest.approx(confirmation.holdout.value)
    assert confirmation.holdout_samples == len(data.labels("holdout"))
    kept = {path.parent.name for path in folder.path.glob("confirm/*/weights.safetensors")}
    assert kept == {f"{best.trial:04d}-{seed}" for seed in (1, 2)}
    assert not list(folder.path.glob("confirm/*/checkpoint.pt"))
    assert Recipe.load(folder.confirmed) == best.recipe
    text = folder.confirmed.read_text()
    assert f"# Trial {best.trial}, trained again with 2 fresh seeds: validation auc {best.mean:.4f} [" in text
    assert f"# holdout auc {confirmation.holdout.value:.4f} [" in text
    assert json.loads(folder.confirmation.read_text())["candidates"][0]["trial"] == 1
    assert "1 of 4: trial 1, test_byobnet.r160_in1k, seed 1: about 2.0s" in told
    assert "4 of 4: trial 2, test_byobnet.r160_in1k, seed 2: validation auc" in told


def confirm_study(folder, **given):
    return confirm(folder.name, runs=folder.path.parent, **({"device": "cpu"} | given))


def opened(folder):
    return open_study(folder), folder


def pairs(trained):
    """The trial and the seed of each replicate."""
    return [(one.trial, one.recipe.seed) for one in trained]


def test_recipes_that_differ_in_seed_and_numerics_are_one_and_the_first_seeds_come_first(searched, untrained):
    same = RECIPE.model_copy(update={"seed": 5, "numerics": Numerics(memory_format="channels_last")})
    other = RECIPE.model_copy(update={"epochs": 2})
    folder = searched(0.7, 0.8, 0.9, recipes=[other, RECIPE, same])
    confirmation = confirm_study(folder, top=3, seeds=2, reporter=RecordingReporter())
    assert pairs(untrained) == [(2, 1), (0, 1), (2, 2), (0, 2)]
    assert confirmation.best.trial == 2
    assert confirmation.best.recipe == same


def test_the_beginning_of_a_better_trial_is_no_recipe_of_its_own(searched, untrained):
    folder = searched(0.7, 0.8)
    study = open_study(folder)
    trial = study.ask()
    longer = RECIPE.model_copy(update={"epochs": 3 * RECIPE.epochs, "restarts": (1 / 3,)})
    for name, value in {"recipe": longer.model_dump_json(), "backbone": RECIPE.backbone, "continues": 1}.items():
        trial.set_user_attr(name, value)
    study.tell(trial, 0.9)
    confirm_study(folder, top=3, seeds=1, reporter=RecordingReporter())
    assert pairs(untrained) == [(2, 1), (0, 1)]


def test_the_choice_follows_the_fresh_seeds_not_the_search(searched, untrained):
    folder = searched(0.99, 0.9, 0.9, 0.9, 0.9)  # the later the trial, the better it is with fresh seeds
    confirmation = confirm_study(folder, top=5, seeds=3, reporter=RecordingReporter())
    assert confirmation.best.trial == max(confirmation.candidates, key=lambda candidate: candidate.mean).trial != 0
    assert confirmation.search_value == 0.9
    assert confirmation.optimism == pytest.approx(0.9 - confirmation.holdout.value)


def test_a_smaller_metric_may_be_the_better_one(searched, untrained):
    folder = searched(0.2, 0.5, 0.1, setup={"metric": "log_loss"})
    confirmation = confirm_study(folder, top=2, seeds=2, reporter=RecordingReporter())
    assert [candidate.trial for candidate in confirmation.candidates] == [2, 0]
    assert confirmation.best.mean == min(candidate.mean for candidate in confirmation.candidates)
    assert confirmation.optimism == pytest.approx(confirmation.holdout.value - confirmation.search_value)


def test_a_study_is_confirmed_once_unless_asked_again(searched, untrained):
    folder, told = searched(0.9, 0.8), RecordingReporter()
    first = confirm_study(folder, top=1, seeds=2, reporter=told)
    assert confirm_study(folder, top=2, seeds=2, reporter=told) == first
    assert "is confirmed already; --again" in told
    assert pairs(untrained) == [(0, 1), (0, 2)]
    again = confirm_study(folder, top=2, seeds=2, again=True, reporter=told)
    assert pairs(untrained) == [(0, 1), (0, 2), (1, 1), (1, 2)]  # what was trained is not trained again
    assert "warning: the holdout was scored before: it is no longer unseen" in told
    assert (first.times_scored, again.times_scored) == (1, 2)


def test_weights_that_were_dropped_are_made_again_when_their_recipe_is_chosen(searched, untrained):
    folder = searched(0.9, 0.8)
    chosen = confirm_study(folder, top=2, seeds=2, reporter=RecordingReporter()).best.trial
    for path in folder.path.glob("confirm/*/weights.safetensors"):
        path.unlink()
    untrained.clear()
    assert confirm_study(folder, top=2, seeds=2, again=True, reporter=RecordingReporter()).best.trial == chosen
    assert pairs(untrained) == [(chosen, 1), (chosen, 2)]


def test_without_a_holdout_there_is_validation_only(searched, untrained, images):
    folder, told = searched(0.9, data={"path": images, "holdout_fraction": 0}), RecordingReporter()
    confirmation = confirm_study(folder, seeds=2, reporter=told)
    assert confirmation.holdout is None
    assert (confirmation.optimism, confirmation.holdout_metrics, confirmation.times_scored) == (None, {}, 0)
    assert confirmation.validation.low <= confirmation.validation.value
    assert "no holdout: no readable sample was set aside" in folder.confirmed.read_text()
    assert load_confirmation(folder) == confirmation


@pytest.fixture
def with_copies(tmp_path):
    """Photographs with given splits; in validation a near copy of a training image of each class."""
    for number, part in enumerate(("train/a", "train/b", "val/a", "val/b")):
        save_photos(tmp_path / "photos" / part, range(10 * number, 10 * number + 6))
    make_photo(3).save(tmp_path / "photos/val/a/near.jpg", quality=50)
    make_photo(13).save(tmp_path / "photos/val/b/near.jpg", quality=50)
    return tmp_path / "photos"


def test_near_copies_in_validation_are_counted_and_scored_without(searched, untrained, with_copies):
    values = {"data": {"path": with_copies, "holdout_fraction": 0}, "setup": {"cache_size": 64}}
    folder = searched(0.9, **values)
    confirmation = confirm_study(folder, seeds=3, reporter=RecordingReporter())
    samples = load_setup(*opened(folder)).dataset.samples
    validation = samples[samples["split"] == "validation"]
    kept = (~validation["name"].str.endswith("near.jpg")).to_numpy()
    scores = []
    for path in confirmation.best.predictions:
        with np.load(folder.path / path, allow_pickle=False) as file:
            scores.append(roc_auc_score(validation["label"][kept], file["validation"][kept, 1]))
    assert confirmation.validation_copies == 2
    assert confirmation.without_copies == pytest.approx(np.mean(scores))
    assert confirmation.without_copies != confirmation.validation.value
    assert confirmation.describe_copies() == (
        f"validation auc {confirmation.validation.value:.4f}; without 2 near copies of training samples "
        f"{np.mean(scores):.4f}"
    )
    assert f"# {confirmation.describe_copies()}\n" in folder.confirmed.read_text()
    assert load_confirmation(folder) == confirmation


def test_of_one_class_there_is_no_score_without_copies(searched, untrained, with_copies):
    for path in [*(with_copies / "val/b").glob("*.png"), with_copies / "val/a/near.jpg"]:
        path.unlink()
    make_photo(14).save(with_copies / "val/b/other.jpg", quality=50)
    values = {"data": {"path": with_copies, "holdout_fraction": 0}, "setup": {"cache_size": 64}}
    confirmation = confirm_study(searched(0.9, **values), seeds=1, reporter=RecordingReporter())
    assert (confirmation.validation_copies, confirmation.without_copies) == (2, None)
    assert confirmation.describe_copies().endswith(
        "; 2 near copies of training samples are in it, and no score can be had without them"
    )


def test_without_near_copies_nothing_is_said_of_them(searched, untrained, with_copies):
    values = {"data": {"path": with_copies, "holdout_fraction": 0, "drop_copies": True}, "setup": {"cache_size": 64}}
    confirmation = confirm_study(searched(0.9, **values), seeds=1, reporter=RecordingReporter())
    assert (confirmation.validation_copies, confirmation.describe_copies()) == (0, "")


# --- interruptions ------------------------------------------------------------------------------------------------


def test_killed_or_interrupted_it_goes_on(searched, monkeypatch):
    whole = confirm_study(searched(0.9, 0.8, name="whole"), top=2, seeds=1, reporter=RecordingReporter())
    folder, steps = searched(0.9, 0.8, name="parts"), []

    class Interrupting(RecordingReporter):
        def show_progress(self, what):
            def on_step(done, total):
                steps.append((what, done))
                if len(steps) == 6:
                    raise KeyboardInterrupt  # as a second Ctrl-C, or a kill: nothing is written any more
                if len(steps) == 9:
                    os.kill(os.getpid(), signal.SIGINT)

            return nullcontext(on_step if what[0].isdigit() else lambda *_: None)

    told = Interrupting()
    with pytest.raises(KeyboardInterrupt):
        confirm_study(folder, top=2, seeds=1, reporter=told)
    assert confirm_study(folder, top=2, seeds=1, reporter=told) is None
    assert "stopping at the next checkpoint; Ctrl-C again stops now; the same command continues" in told
    assert f"automl confirm parts --runs {folder.path.parent} goes on where this stopped" in told
    assert list(folder.path.glob("confirm/*/checkpoint.pt"))
    assert load_confirmation(folder) is None
    confirmation = confirm_study(folder, top=2, seeds=1, reporter=told)
    assert [c.validation for c in confirmation.candidates] == [c.validation for c in whole.candidates]
    assert confirmation.holdout == whole.holdout


def test_damaged_predictions_are_made_again(searched, untrained):
    folder = searched(0.9)
    path = folder.replicate_folder(0, 1)
    for content in (b"", b"PK\x03\x04 torn"):
        path.mkdir(parents=True, exist_ok=True)
        (path / "predictions.npz").write_bytes(content)
        assert Replicate(0, RECIPE, path).read_validation(np.array([0, 1])) is None
    np.savez(path / "predictions.npz", recipe="another", validation=np.eye(2), labels=np.array([0, 1]))
    assert Replicate(0, RECIPE, path).read_validation(np.array([0, 1])) is None
    np.savez(path / "predictions.npz", recipe=RECIPE.model_dump_json(), validation=np.eye(2), labels=np.array([0, 1]))
    assert Replicate(0, RECIPE, path).read_validation(np.array([0, 1])) is not None


# --- time ---------------------------------------------------------------------------------------------------------


def test_seeds_are_cut_before_recipes():
    three = [[10.0] * 3, [20.0] * 3, [30.0] * 3]
    expected = {180: (3, 3), 179: (3, 2), 120: (3, 2), 119: (2, 3), 89: (2, 2), 59: (1, 3), 29: (1, 2), 19: (1, 1)}
    assert {left: cut_to_time(three, left) for left in expected} == expected
    assert cut_to_time(three, 9) == (0, 0)
    assert cut_to_time(three, float("inf")) == (3, 3)
    assert cut_to_time([[0.0, 0.0, 10.0], [0.0, 0.0, 10.0]], 0) == (2, 2)  # done before: they cost nothing
    assert cut_to_time([[10.0]], 10) == (1, 1)


@given(st.lists(st.floats(0.1, 100), min_size=1, max_size=4), st.integers(1, 4), st.floats(0, 1000))
def test_what_is_planned_fits(seconds, seeds, left):
    top, each = cut_to_time([[one] * seeds for one in seconds], left)
    assert sum(seconds[:top]) * each <= left + 1e-6
    assert 0 <= top <= len(seconds)
    assert 0 <= each <= seeds
    if (top, each) == (0, 0):
        assert seconds[0] > left


def test_what_does_not_fit_is_cut_and_said(searched, untrained):
    folder, told = searched(0.9, 0.8, 0.7, seconds=100.0), RecordingReporter()
    confirmation = confirm_study(folder, timeout=500, reporter=told)
    assert [len(candidate.seeds) for candidate in confirmation.candidates] == [2, 2]
    assert "2 recipes, 2 fresh seeds each (cut from 3 and 3: no more fit)" in told


def test_without_time_for_one_nothing_is_done(searched, untrained):
    folder, told = searched(0.9, 0.8, seconds=100.0), RecordingReporter()
    assert confirm_study(folder, timeout=50, reporter=told) is None
    assert confirm_study(folder, timeout="0.001s", reporter=told) is None
    assert "training one recipe again takes about 1m55s, and " in told
    assert f"left; automl confirm tones --runs {folder.path.parent} does it without a limit" in told
    assert not untrained
    assert load_confirmation(folder) is None


def test_a_trial_without_noted_seconds_is_predicted_by_its_timing(searched, untrained):
    folder, told = searched(0.9, seconds=None), RecordingReporter()
    confirm_study(folder, seeds=1, reporter=told)
    images = (load_setup(*opened(folder)).dataset.samples["split"] == "train").sum()
    seconds = images * 0.001 * 1.15  # of one epoch, as the fixture's pool says, with the share of validation
    assert f"seed 1: about {seconds:.1f}s" in told


def test_a_deadline_within_the_plan_leaves_comparable_seeds(searched, untrained, monkeypatch):
    folder, told = searched(0.9, 0.8, seconds=1.0), RecordingReporter()
    clock = [1000.0]
    monkeypatch.setattr(module.time, "time", lambda: clock[0])
    monkeypatch.setattr(module.time, "monotonic", lambda: clock[0])
    train = Replicate.train

    def slow(self, data, **how):
        clock[0] += 4
        train(self, data, **how)

    monkeypatch.setattr(Replicate, "train", slow)
    confirmation = confirm_study(folder, top=2, seeds=3, timeout=12.5, reporter=told)
    assert pairs(untrained) == [(0, 1), (1, 1), (0, 2)]  # three took 12 s instead of 3; a fourth would take 4
    assert [candidate.seeds for candidate in confirmation.candidates] == [(1,), (1,)]
    assert "no time left for it" in told


# --- memory -------------------------------------------------------------------------------------------------------


@pytest.fixture
def budget():
    """The bytes within which four images of `RECIPE` at once are predicted to fit, and eight are not."""
    return estimate_training(RECIPE, 2, batch_size=4)


def micro_batches(trained):
    return [one.recipe.numerics.micro_batch_size for one in trained]


def test_replicates_stay_within_the_study_s_memory_budget(searched, untrained, limited_to, budget):
    folder = searched(0.9, pool=[entry(fits_all=False)], setup={"memory_bytes": budget})
    confirmation = confirm_study(folder, seeds=2, reporter=RecordingReporter())
    assert micro_batches(untrained) == [4, 4]
    assert {one.recipe.batch_size for one in untrained} == {8}
    assert confirmation.best.recipe.numerics.micro_batch_size is None  # as the trial trained it
    assert limited_to == [budget, None]


def test_what_the_pool_knows_to_fit_is_not_split(searched, untrained, budget):
    folder = searched(0.9, pool=[entry(fits_all=True)], setup={"memory_bytes": budget})
    confirm_study(folder, seeds=1, reporter=RecordingReporter())
    assert micro_batches(untrained) == [None]


def test_another_memory_budget_may_be_given(searched, untrained, limited_to, budget):
    folder = searched(0.9, pool=[entry(fits_all=True)], setup={"memory_bytes": 10**12})
    confirm_study(folder, seeds=1, gpu_mem=budget, reporter=RecordingReporter())
    assert micro_batches(untrained) == [4]
    assert limited_to == [budget, None]
    with pytest.raises(SpecError, match="not a size: 'lots'"):
        confirm_study(folder, gpu_mem="lots", reporter=RecordingReporter())


def test_a_budget_that_nothing_fits_is_an_error(searched, untrained):
    with pytest.raises(MemoryBudgetError, match=r"test_byobnet.r160_in1k at 32 px does not fit 1MB at any batch size"):
        confirm_study(searched(0.9), gpu_mem="1MB", reporter=RecordingReporter())
    assert not untrained


def test_what_was_trained_within_another_budget_is_not_trained_again(searched, untrained, budget):
    folder = searched(0.9)
    first = confirm_study(folder, seeds=2, reporter=RecordingReporter())
    second = confirm_study(folder, seeds=2, again=True, gpu_mem=budget, reporter=RecordingReporter())
    assert pairs(untrained) == [(0, 1), (0, 2)]
    assert second.validation == first.validation


@pytest.mark.parametrize("memory_bytes", [None, 10**9])
def test_a_gpu_process_is_limited_and_then_no_more(monkeypatch, memory_bytes):
    calls, total_bytes = [], 80 * 10**9
    monkeypatch.setattr(devices, "limit_process", lambda *given: calls.append(given))
    monkeypatch.setattr(CudaProcess, "release_memory", lambda _: calls.append("released"))
    properties = SimpleNamespace(total_memory=total_bytes)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _device: properties)
    with module.stay_within(memory_bytes, "cuda:1"):
        assert calls == ([("cuda:1", memory_bytes, read_context_bytes("cuda:1"))] if memory_bytes else [])
        calls.clear()
    assert calls == ["released"] + ([("cuda:1", total_bytes, 0)] if memory_bytes else [])


# --- what goes wrong ----------------------------------------------------------------------------------------------


def test_a_recipe_that_diverges_with_a_fresh_seed_is_left_out(searched, untrained, monkeypatch):
    folder, told = searched(0.9, 0.8), RecordingReporter()
    train = Replicate.train

    def diverge(self, data, **how):
        if self.trial == 0 and self.recipe.seed == 2:
            raise Diverged("the loss is not finite after 3 steps")
        train(self, data, **how)

    monkeypatch.setattr(Replicate, "train", diverge)
    confirmation = confirm_study(folder, top=2, seeds=3, reporter=told)
    assert [candidate.trial for candidate in confirmation.candidates] == [1]
    assert (
        "trial 0, test_byobnet.r160_in1k, seed 2: the loss is not finite after 3 steps; this recipe is left out" in told
    )
    monkeypatch.setattr(Replicate, "train", lambda *_, **__: (_ for _ in ()).throw(Diverged("no")))
    with pytest.raises(StudyError, match="every recipe diverged"):
        confirm_study(searched(0.9, name="other"), reporter=told)


def test_mistakes(searched, new_study):
    folder = searched(0.9)
    with pytest.raises(SpecError, match="at least 1"):
        confirm_study(folder, top=0)
    with pytest.raises(StudyError, match="no complete trial"):
        confirm_study(new_study("empty")[1], reporter=RecordingReporter())
    with hold_lock(folder.path / "confirm.lock"), pytest.raises(StudyError, match="by another process"):
        confirm_study(folder, reporter=RecordingReporter())
    folder.confirmation.write_text('{"metric": "auc"}')
    with pytest.raises(StudyError, match=r"confirm\.json: chosen: is missing"):
        load_confirmation(folder)
