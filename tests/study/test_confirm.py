import json
import os
import signal
import time
from contextlib import nullcontext
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from automl.data.cache import build_cache
from automl.data.loader import ImageData
from automl.errors import SpecError, StudyError
from automl.recipe import Numerics, Recipe
from automl.study import confirm as module
from automl.study import retrainer
from automl.study.confirm import confirm, what_fits
from automl.study.confirmation import load_confirmation
from automl.study.folder import lock
from automl.study.retraining import Retraining
from automl.study.setup import load_facts
from automl.training.intervals import metric_interval
from automl.training.types import Diverged
from tests.fixtures.reporter import Told

RECIPE = Recipe(
    backbone="test_byobnet.r160_in1k", pretrained=False, image_size=32, batch_size=8, epochs=1, learning_rate=2e-3
)


@pytest.fixture
def searched(begun):
    """A study whose trials nobody had to train: `searched(0.8, 0.9)` → folder; recipes differ in learning rate."""

    def make(*values, recipes=None, seconds=2.0, **more):
        study, folder = begun(trials=len(values), **more)
        for number, value in enumerate(values):
            recipe = recipes[number] if recipes else RECIPE.model_copy(update={"learning_rate": 1e-3 * (1 + number)})
            trial = study.ask()
            trial.set_user_attr("recipe", recipe.model_dump_json())
            trial.set_user_attr("backbone", recipe.backbone)
            if seconds:
                trial.set_user_attr("fit_seconds", seconds)
            study.tell(trial, value)
        return folder

    return make


@pytest.fixture
def untrained(monkeypatch):
    """Retraining takes no time, and later trials are better; returns the (trial, seed) pairs trained."""
    asked = []

    def train(self, data, *_):
        asked.append((self.trial, self.recipe.seed))
        labels = data.labels("validation")
        noise = np.random.default_rng([self.trial, self.recipe.seed]).random(len(labels))
        positive = np.clip(0.2 * self.trial * labels + noise, 0, 1) * 0.9 + 0.05
        arrays = {"validation": np.stack([1 - positive, positive], axis=1), "labels": labels}
        self.folder.mkdir(parents=True, exist_ok=True)
        self.weights.touch()
        np.savez(self.predictions, recipe=self.recipe.model_dump_json(), **arrays)

    def predict(self, data, split, device):
        assert self.weights.exists()
        labels = data.labels(split)
        return np.eye(2)[labels] * 0.6 + 0.2

    monkeypatch.setattr(Retraining, "train", train)
    monkeypatch.setattr(Retraining, "predict", predict)
    monkeypatch.setattr(retrainer, "metric_interval", partial(metric_interval, repeats=40))
    return asked


def test_the_best_recipes_are_trained_again_and_one_is_scored_on_the_holdout(searched):
    folder, told = searched(0.7, 0.99, 0.8), Told()
    found = confirm(folder, top=2, seeds=2, reporter=told)
    assert [candidate.trial for candidate in found.candidates] == [1, 2]
    assert found == load_confirmation(folder)
    facts = load_facts(*_opened(folder))
    data = ImageData(facts.dataset, build_cache(facts.dataset, facts.cache_size))
    for candidate in found.candidates:
        assert candidate.seeds == (1, 2)  # not the search's own, 0
        assert candidate.recipe.seed == 0
        for path, value in zip(candidate.predictions, candidate.validation, strict=True):
            with np.load(folder.path / path, allow_pickle=False) as file:
                assert value == pytest.approx(roc_auc_score(data.labels("validation"), file["validation"][:, 1]))
        assert candidate.mean == pytest.approx(np.mean(candidate.validation))
    best = max(found.candidates, key=lambda candidate: candidate.mean)
    assert found.best == best
    assert found.validation.value == pytest.approx(best.mean)
    assert found.search_value == best.search_value
    again = [
        Retraining(best.trial, best.recipe.model_copy(update={"seed": s}), folder.retraining(best.trial, s))
        for s in (1, 2)
    ]
    scores = [roc_auc_score(data.labels("holdout"), one.predict(data, "holdout", "cpu")[:, 1]) for one in again]
    assert found.holdout.value == pytest.approx(np.mean(scores), abs=1e-6)
    # the weights are those that were validated
    with np.load(again[0].predictions) as file:
        assert again[0].predict(data, "validation", "cpu") == pytest.approx(file["validation"], abs=1e-5)
    assert found.holdout.low <= found.holdout.value <= found.holdout.high
    assert found.optimism == pytest.approx(found.search_value - found.holdout.value)
    assert found.validation_optimism == pytest.approx(best.mean - found.holdout.value)
    assert found.holdout_metrics["auc"] == pytest.approx(found.holdout.value)
    assert found.holdout_samples == len(data.labels("holdout"))
    kept = {path.parent.name for path in folder.path.glob("confirm/*/weights.safetensors")}
    assert kept == {f"{best.trial:04d}-{seed}" for seed in (1, 2)}
    assert not list(folder.path.glob("confirm/*/checkpoint.pt"))
    assert Recipe.load(folder.confirmed) == best.recipe
    text = folder.confirmed.read_text()
    assert f"# Trial {best.trial}, trained again with 2 fresh seeds: validation auc {best.mean:.4f} [" in text
    assert f"# holdout auc {found.holdout.value:.4f} [" in text
    assert json.loads(folder.confirmation.read_text())["candidates"][0]["trial"] == 1
    assert "1 of 4: trial 1, test_byobnet.r160_in1k, seed 1: about 2.0s" in told
    assert "4 of 4: trial 2, test_byobnet.r160_in1k, seed 2: validation auc" in told


def _opened(folder):
    from automl.study.study import open_study

    return open_study(folder), folder


def test_recipes_that_differ_in_seed_and_numerics_are_one_and_the_first_seeds_come_first(searched, untrained):
    same = RECIPE.model_copy(update={"seed": 5, "numerics": Numerics(memory_format="channels_last")})
    other = RECIPE.model_copy(update={"epochs": 2})
    folder = searched(0.7, 0.8, 0.9, recipes=[other, RECIPE, same])
    found = confirm(folder, top=3, seeds=2, reporter=Told())
    assert untrained == [(2, 1), (0, 1), (2, 2), (0, 2)]
    assert found.best.trial == 2
    assert found.best.recipe == same


def test_the_choice_follows_the_fresh_seeds_not_the_search(searched, untrained):
    folder = searched(0.99, 0.9, 0.9, 0.9, 0.9)  # the later the trial, the better it is with fresh seeds
    found = confirm(folder, top=5, seeds=3, reporter=Told())
    assert found.best.trial == max(found.candidates, key=lambda candidate: candidate.mean).trial != 0
    assert found.search_value == 0.9
    assert found.holdout.value == 1
    assert found.optimism == pytest.approx(-0.1)


def test_a_smaller_metric_may_be_the_better_one(searched, untrained):
    folder = searched(0.2, 0.5, 0.1, facts={"metric": "log_loss"})
    found = confirm(folder, top=2, seeds=2, reporter=Told())
    assert [candidate.trial for candidate in found.candidates] == [2, 0]
    assert found.best.mean == min(candidate.mean for candidate in found.candidates)
    assert found.optimism == pytest.approx(found.holdout.value - found.search_value)


def test_a_study_is_confirmed_once_unless_asked_again(searched, untrained):
    folder, told = searched(0.9, 0.8), Told()
    first = confirm(folder, top=1, seeds=2, reporter=told)
    assert confirm(folder, top=2, seeds=2, reporter=told) == first
    assert "is confirmed already; --again" in told
    assert untrained == [(0, 1), (0, 2)]
    again = confirm(folder, top=2, seeds=2, again=True, reporter=told)
    assert untrained == [(0, 1), (0, 2), (1, 1), (1, 2)]  # what was trained is not trained again
    assert "warning: the holdout was looked at before; it is no longer unseen" in told
    assert (first.times_scored, again.times_scored) == (1, 2)


def test_weights_that_were_dropped_are_made_again_when_their_recipe_is_chosen(searched, untrained):
    folder = searched(0.9, 0.8)
    chosen = confirm(folder, top=2, seeds=2, reporter=Told()).best.trial
    for path in folder.path.glob("confirm/*/weights.safetensors"):
        path.unlink()
    untrained.clear()
    assert confirm(folder, top=2, seeds=2, again=True, reporter=Told()).best.trial == chosen
    assert untrained == [(chosen, 1), (chosen, 2)]


def test_without_a_holdout_there_is_validation_only(searched, untrained, images):
    folder, told = searched(0.9, data={"path": images, "holdout_fraction": 0}), Told()
    found = confirm(folder, seeds=2, reporter=told)
    assert found.holdout is None
    assert (found.optimism, found.holdout_metrics, found.times_scored) == (None, {}, 0)
    assert found.validation.low <= found.validation.value
    assert "no holdout: no readable sample was set aside" in folder.confirmed.read_text()
    assert load_confirmation(folder) == found


# --- interruptions ------------------------------------------------------------------------------------------------


def test_killed_or_interrupted_it_goes_on(searched, monkeypatch):
    whole = confirm(searched(0.9, 0.8, name="whole"), top=2, seeds=1, reporter=Told())
    folder, steps = searched(0.9, 0.8, name="parts"), []

    class Interrupting(Told):
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
        confirm(folder, top=2, seeds=1, reporter=told)
    assert confirm(folder, top=2, seeds=1, reporter=told) is None
    assert f"automl confirm parts --runs {folder.path.parent} goes on where this stopped" in told
    assert list(folder.path.glob("confirm/*/checkpoint.pt"))
    assert load_confirmation(folder) is None
    found = confirm(folder, top=2, seeds=1, reporter=told)
    assert [c.validation for c in found.candidates] == [c.validation for c in whole.candidates]
    assert found.holdout == whole.holdout


def test_damaged_predictions_are_made_again(searched, untrained):
    folder = searched(0.9)
    path = folder.retraining(0, 1)
    for content in (b"", b"PK\x03\x04 torn"):
        path.mkdir(parents=True, exist_ok=True)
        (path / "predictions.npz").write_bytes(content)
        assert Retraining(0, RECIPE, path).validation(np.array([0, 1])) is None
    np.savez(path / "predictions.npz", recipe="another", validation=np.eye(2), labels=np.array([0, 1]))
    assert Retraining(0, RECIPE, path).validation(np.array([0, 1])) is None
    np.savez(path / "predictions.npz", recipe=RECIPE.model_dump_json(), validation=np.eye(2), labels=np.array([0, 1]))
    assert Retraining(0, RECIPE, path).validation(np.array([0, 1])) is not None


# --- time ---------------------------------------------------------------------------------------------------------


def test_seeds_are_cut_before_recipes():
    three = [[10.0] * 3, [20.0] * 3, [30.0] * 3]
    expected = {180: (3, 3), 179: (3, 2), 120: (3, 2), 119: (2, 3), 89: (2, 2), 59: (1, 3), 29: (1, 2), 19: (1, 1)}
    assert {left: what_fits(three, left) for left in expected} == expected
    assert what_fits(three, 9) == (0, 0)
    assert what_fits(three, float("inf")) == (3, 3)
    assert what_fits([[0.0, 0.0, 10.0], [0.0, 0.0, 10.0]], 0) == (2, 2)  # done before: they cost nothing
    assert what_fits([[10.0]], 10) == (1, 1)


@given(st.lists(st.floats(0.1, 100), min_size=1, max_size=4), st.integers(1, 4), st.floats(0, 1000))
def test_what_is_planned_fits(seconds, seeds, left):
    top, each = what_fits([[one] * seeds for one in seconds], left)
    assert sum(seconds[:top]) * each <= left + 1e-6
    assert 0 <= top <= len(seconds)
    assert 0 <= each <= seeds
    if (top, each) == (0, 0):
        assert seconds[0] > left


def test_what_does_not_fit_is_cut_and_said(searched, untrained):
    folder, told = searched(0.9, 0.8, 0.7, seconds=100.0), Told()
    found = confirm(folder, timeout=500, reporter=told)
    assert [len(candidate.seeds) for candidate in found.candidates] == [2, 2]
    assert "2 recipes, 2 fresh seeds each (cut from 3 and 3: no more fit)" in told


def test_without_time_for_one_nothing_is_done(searched, untrained):
    folder, told = searched(0.9, 0.8, seconds=100.0), Told()
    assert confirm(folder, timeout=50, reporter=told) is None
    assert confirm(folder, deadline=time.time() - 1, reporter=told) is None
    assert "training one recipe again takes about 1m55s, and " in told
    assert f"left; automl confirm tones --runs {folder.path.parent} does it without a limit" in told
    assert not untrained
    assert load_confirmation(folder) is None


def test_a_trial_without_noted_seconds_is_predicted_by_its_timing(searched, untrained):
    folder, told = searched(0.9, seconds=None), Told()
    confirm(folder, seeds=1, reporter=told)
    images = (load_facts(*_opened(folder)).dataset.samples["split"] == "train").sum()
    seconds = images * 0.001 * 1.15  # of one epoch, as the fixture's pool says, with the share of validation
    assert f"seed 1: about {seconds:.1f}s" in told


def test_a_deadline_within_the_plan_leaves_comparable_seeds(searched, untrained, monkeypatch):
    folder, told = searched(0.9, 0.8, seconds=1.0), Told()
    clock = [1000.0]
    monkeypatch.setattr(module.time, "time", lambda: clock[0])
    monkeypatch.setattr(module.time, "monotonic", lambda: clock[0])
    train = Retraining.train

    def slow(self, *arguments):
        clock[0] += 4
        train(self, *arguments)

    monkeypatch.setattr(Retraining, "train", slow)
    found = confirm(folder, top=2, seeds=3, deadline=1012.5, reporter=told)
    assert untrained == [(0, 1), (1, 1), (0, 2)]  # three took 12 s instead of 3; a fourth would take 4
    assert [candidate.seeds for candidate in found.candidates] == [(1,), (1,)]
    assert "no time left for it" in told


# --- what goes wrong ----------------------------------------------------------------------------------------------


def test_a_recipe_that_diverges_with_a_fresh_seed_is_out(searched, untrained, monkeypatch):
    folder, told = searched(0.9, 0.8), Told()
    train = Retraining.train

    def diverge(self, *arguments):
        if self.trial == 0 and self.recipe.seed == 2:
            raise Diverged("the loss is not finite after 3 steps")
        train(self, *arguments)

    monkeypatch.setattr(Retraining, "train", diverge)
    found = confirm(folder, top=2, seeds=3, reporter=told)
    assert [candidate.trial for candidate in found.candidates] == [1]
    assert "trial 0, test_byobnet.r160_in1k, seed 2: the loss is not finite after 3 steps; the recipe is out" in told
    monkeypatch.setattr(Retraining, "train", lambda *_: (_ for _ in ()).throw(Diverged("no")))
    with pytest.raises(StudyError, match="every recipe diverged"):
        confirm(searched(0.9, name="other"), reporter=told)


def test_mistakes(searched, begun):
    folder = searched(0.9)
    with pytest.raises(SpecError, match="at least 1"):
        confirm(folder, top=0)
    with pytest.raises(StudyError, match="no complete trial"):
        confirm(begun("empty")[1], reporter=Told())
    with lock(folder.path / "confirm.lock"), pytest.raises(StudyError, match="by another process"):
        confirm(folder, reporter=Told())
    folder.confirmation.write_text('{"metric": "auc"}')
    with pytest.raises(StudyError, match=r"confirm\.json: chosen: field required"):
        load_confirmation(folder)
