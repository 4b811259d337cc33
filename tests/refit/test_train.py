"""The final training: what it writes, what it refuses, and that a kill, a stop or a second process change nothing."""

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from automl.errors import RecipeError, SpecError, StudyError, WeightsError
from automl.models.folder import read_members, read_model
from automl.recipe import Recipe
from automl.refit.greedy_ensemble import choose
from automl.refit.train import train
from automl.study.confirmation import Candidate, Confirmation, store_confirmation
from automl.training.intervals import Interval
from tests.fixtures.studies import begun, images  # noqa: F401 - fixtures

PATIENCE = 300
"""Seconds for what takes ten on an idle machine."""


@pytest.fixture(autouse=True)
def _offline(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


class Told:
    """A reporter that remembers; `on_step` may stop the training."""

    def __init__(self, on_step=lambda _done, _total: None):
        self.lines, self.on_step = [], on_step

    def print_line(self, line):
        self.lines.append(line)

    def show_progress(self, what):
        return nullcontext(self.on_step if what == "training" else lambda _done, _total: None)


def recipe_of(backbone="test_vit", **values):
    given = {"image_size": 32, "batch_size": 8, "epochs": 2, "learning_rate": 2e-3, "pretrained": False}
    return Recipe(backbone=backbone, **(given | values))


@pytest.fixture
def train_tiny(tmp_path, images):  # noqa: F811
    """Trains a tiny network on the tiny pictures."""

    def go(out="model", recipe=None, reporter=None, data=None, **wishes):
        path = tmp_path / f"{out}.yaml"
        (recipe or recipe_of()).save(path)
        return train(
            recipe=path, data=data or {"path": images}, out=tmp_path / out, reporter=reporter or Told(), **wishes
        )

    return go


def same_weights(one, other):
    left, right = (load_file(folder.path / "model.safetensors") for folder in (one, other))
    assert left.keys() == right.keys()
    for name, value in left.items():
        assert torch.equal(value, right[name]), name


def without_clock(metrics):
    training = {k: v for k, v in metrics["training"].items() if k not in ("seconds", "images_per_second")}
    return {k: v for k, v in metrics.items() if k != "memory"} | {"training": training}


def test_the_folder_is_complete_and_its_figures_are_the_model_s(train_tiny, images):  # noqa: F811
    told = Told()
    written = train_tiny(recipe=recipe_of("test_byobnet", ema_decay=0.9), reporter=told)
    names = {path.name for path in written.path.iterdir()}
    assert names == {
        "model.safetensors",
        "recipe.yaml",
        "preprocessing.json",
        "labels.json",
        "metrics.json",
        "README.md",
    }
    found = read_model(written.path)
    assert found == written
    assert found.labels.classes == ("dark", "light")
    assert found.input.image_size == 32
    assert found.input.decode_size == 256  # the shipped search space's largest image
    metrics = found.metrics
    kept = round(metrics["holdout"]["n"])
    assert metrics["trained_on"] == {"samples": 48 - kept, "splits": "train, validation"}
    assert metrics["holdout"]["source"] == "this model"
    assert metrics["holdout"]["low"] <= metrics["holdout"]["value"] <= metrics["holdout"]["high"]
    assert "validation" not in metrics  # it was learned from
    assert metrics["training"]["steps"] == 2 * ((48 - kept) // 8)
    assert metrics["memory"]["predicted_bytes"] > 0
    assert metrics["memory"]["measured_peak_bytes"] > 2e7
    assert metrics["weights"] == {"source": None, "licence": None}
    assert found.labels.prior == (0.5, 0.5)
    # the model on the disk gives the very predictions that were scored
    assert set(metrics["holdout"]["all"]) >= {"auc", "accuracy"}
    assert found.load()(torch.zeros(1, 3, 32, 32)).shape == (1, 2)
    assert any("holdout auc" in line for line in told.lines)
    assert sum("/8 · step" in line for line in told.lines) == 8


def test_without_a_holdout_and_with_it(train_tiny, images):  # noqa: F811
    none = train_tiny("none", data={"path": images, "holdout_fraction": 0})
    assert none.metrics["trained_on"]["samples"] == 48
    assert "holdout" not in none.metrics
    everything = train_tiny("all", with_holdout=True)
    assert everything.metrics["trained_on"] == {"samples": 48, "splits": "train, validation, holdout"}
    assert "holdout" not in everything.metrics


def test_a_parked_training_goes_on_to_the_same_model(train_tiny, tmp_path):
    recipe = recipe_of("test_resnet", ema_decay=0.9, drop_path=0.1)
    stopped = Told(lambda done, _: os.kill(os.getpid(), signal.SIGINT) if done == 2 else None)
    with pytest.raises(KeyboardInterrupt):
        train_tiny(recipe=recipe, reporter=stopped, soup=3)
    assert "parked" in stopped.lines[-1]
    assert "same command continues" in stopped.lines[-1]
    assert (tmp_path / "model" / "checkpoint.pt").exists()
    steps = []
    again = train_tiny(recipe=recipe, soup=3, reporter=Told(lambda done, _: steps.append(done)))
    assert steps[0] > 2
    whole = train_tiny("whole", recipe=recipe, soup=3)
    same_weights(again, whole)
    assert without_clock(again.metrics) == without_clock(whole.metrics)


def test_a_second_ctrl_c_stops_at_once(train_tiny, tmp_path):
    def twice(done, _):
        if done == 1:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.1)

    steps = []
    with pytest.raises(KeyboardInterrupt):
        train_tiny(reporter=Told(lambda done, total: (steps.append(done), twice(done, total))))
    assert steps == [1]


def test_early_stopping_keeps_the_best_weights_and_validation_out(train_tiny):
    # at this rate nothing moves: the first evaluation stays the best, and the second one ends the run
    told = Told()
    recipe = recipe_of(learning_rate=1e-30, epochs=6)
    metrics = train_tiny(recipe=recipe, early_stopping=1, reporter=told).metrics
    assert metrics["trained_on"]["splits"] == "train"
    assert metrics["validation"]["source"] == "this model"
    assert metrics["validation"]["value"] == 0.5
    assert metrics["training"]["epochs"] == pytest.approx(6 / 8, abs=0.1)
    assert sum("/8 · step" in line for line in told.lines) == 2


def test_the_ema_and_the_seed_are_the_user_s(train_tiny):
    written = train_tiny(recipe=recipe_of(epochs=0.5), ema=0.99, seed=7)
    assert (written.recipe.ema_decay, written.recipe.seed) == (0.99, 7)


# --- what it refuses -----------------------------------------------------------------------------------------------


def test_nothing_is_overwritten(train_tiny, tmp_path):
    short = recipe_of(epochs=0.5)
    train_tiny(recipe=short)
    with pytest.raises(WeightsError, match="finished model"):
        train_tiny(recipe=short)
    train_tiny(recipe=short, overwrite=True, seed=3)
    assert read_model(tmp_path / "model").recipe.seed == 3
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "README.md").write_text("my thesis")
    for overwrite in (False, True):
        with pytest.raises(WeightsError, match="not empty"):
            train_tiny("mine", recipe=short, overwrite=overwrite)
    assert (tmp_path / "mine" / "README.md").read_text() == "my thesis"


def test_another_recipe_does_not_continue_a_training(train_tiny):
    with pytest.raises(KeyboardInterrupt):
        train_tiny(reporter=Told(lambda _done, _total: os.kill(os.getpid(), signal.SIGINT)))
    with pytest.raises(WeightsError, match="recipe's learning_rate"):
        train_tiny(recipe=recipe_of(learning_rate=1e-3))
    with pytest.raises(WeightsError, match="soup"):
        train_tiny(soup=2)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("budget: {trials: 3}\ndata: {path: x}\n", "a study spec, not a recipe"),
        ("backbone: {pool: {}}\nimage_size: 32\n", "a search space, not a recipe"),
        ("[1, 2]", "no recipe"),
        ("colour: red\n", "no recipe"),
    ],
)
def test_a_file_that_is_no_recipe(tmp_path, images, text, kind):  # noqa: F811
    path = tmp_path / "file.yaml"
    path.write_text(text)
    with pytest.raises(RecipeError, match=kind) as caught:
        train(recipe=path, data=images, out=tmp_path / "model", reporter=Told())
    assert "\n" not in str(caught.value)


def test_what_does_not_go_together(tmp_path, images, train_tiny):  # noqa: F811
    recipe_of().save(tmp_path / "r.yaml")
    for error, match, arguments in (
        (RecipeError, "--data needs --recipe", {"data": images}),
        (RecipeError, "does not lie in a study's folder", {"recipe": tmp_path / "r.yaml"}),
        (StudyError, "brings its own data", {"study": "x", "recipe": tmp_path / "r.yaml", "data": images}),
        (StudyError, "no studies", {"runs": tmp_path / "runs"}),
        (SpecError, "only with --data", {"recipe": tmp_path / "r.yaml", "data": {"holdout_fraction": 0.1}}),
        (SpecError, "two ways", {"soup": 2, "early_stopping": 1}),
        (SpecError, "eighths", {"soup": 9}),
    ):
        with pytest.raises(error, match=match):
            train(**({"out": tmp_path / "model", "reporter": Told()} | arguments))
    with pytest.raises(WeightsError, match="out of reach"):
        train_tiny(recipe=recipe_of(pretrained=True))
    assert not (tmp_path / "model").exists()


# --- studies -------------------------------------------------------------------------------------------------------


def confirmation_of(recipes, seeds=(1, 2), **values):
    candidates = tuple(
        Candidate(
            trial=k,
            search_value=0.9,
            seeds=seeds,
            validation=(0.8,) * len(seeds),
            mean=0.8,
            recipe=recipe,
            predictions=tuple(f"confirm/{k:04d}-{seed}.npz" for seed in seeds),
        )
        for k, recipe in enumerate(recipes)
    )
    given = {
        "metric": "auc",
        "chosen": 0,
        "validation": Interval(0.8, 0.7, 0.9),
        "holdout": Interval(0.75, 0.6, 0.9),
        "validation_metrics": {"auc": 0.8},
        "holdout_metrics": {"auc": 0.75},
        "search_value": 0.9,
        "optimism": 0.15,
        "validation_optimism": 0.05,
        "interval_method": "bootstrap",
        "validation_samples": 10,
        "holdout_samples": 5,
        "times_scored": 1,
        "candidates": candidates,
    }
    return Confirmation(**(given | values))


def test_a_study_s_best_recipe_and_then_the_confirmed_one(begun, tmp_path):  # noqa: F811
    _, folder = begun()
    where = {"runs": tmp_path / "runs", "reporter": Told()}
    with pytest.raises(StudyError, match="no recipe yet"):
        train(out=tmp_path / "early", **where)
    recipe = recipe_of("test_byobnet.r160_in1k", epochs=1)
    recipe.save(folder.best)
    best = train(recipe=folder.best, out=tmp_path / "best", reporter=Told())  # the study is found by its folder
    assert best.input.decode_size == 32  # the study's
    assert best.metrics["trained_on"]["splits"] == "train, validation"
    store_confirmation(folder, confirmation_of([recipe]))
    confirmed = train(out=tmp_path / "confirmed", **where)
    assert confirmed.metrics["trained_on"] == {"samples": 48, "splits": "train, validation, holdout"}
    assert confirmed.metrics["holdout"]["source"] == "confirm"
    assert (confirmed.metrics["holdout"]["value"], confirmed.metrics["validation"]["n"]) == (0.75, 10)
    # another recipe has no score on the holdout
    recipe_of("test_vit", epochs=0.5).save(tmp_path / "other.yaml")
    other = train("tones", recipe=tmp_path / "other.yaml", out=tmp_path / "other", **where)
    assert other.metrics["holdout"]["source"] == "this model"


def test_numerics_of_another_device_are_not_used(begun, tmp_path):  # noqa: F811
    _, folder = begun()
    (folder.path / "workers" / "cuda-0.log").touch()
    numerics = {"precision": "bf16", "memory_format": "channels_last", "micro_batch_size": 2}
    recipe_of("test_byobnet", epochs=0.5, numerics=numerics).save(folder.best)
    told = Told()
    written = train(runs=tmp_path / "runs", out=tmp_path / "model", reporter=told, device="cpu")
    assert written.recipe.numerics.precision == "fp32"
    assert written.recipe.numerics.micro_batch_size is None
    assert any("another kind of device" in line for line in told.lines)


def test_an_ensemble_of_the_confirmed_models(begun, tmp_path, monkeypatch):  # noqa: F811
    from automl.refit.greedy_ensemble import train_ensemble

    _, folder = begun()
    recipes = [recipe_of(name, epochs=0.5) for name in ("test_byobnet", "test_vit")]
    recipes[0].save(folder.best)
    where = {"runs": tmp_path / "runs", "out": tmp_path / "model", "reporter": Told()}
    with pytest.raises(StudyError, match="automl confirm"):
        train_ensemble(size=2, **where)
    confirmation = confirmation_of(recipes)
    store_confirmation(folder, confirmation)
    # two of the four are right about different halves, the others about nothing
    labels = np.tile([0, 1], 10)
    right = [np.arange(20) < 10, np.zeros(20, bool), np.arange(20) >= 10, np.zeros(20, bool)]
    for k, name in enumerate(file for candidate in confirmation.candidates for file in candidate.predictions):
        score = np.where(right[k], 0.3 + 0.4 * labels, 0.5)
        (folder.path / name).parent.mkdir(exist_ok=True)
        np.savez(folder.path / name, validation=np.stack([1 - score, score], axis=1), labels=labels)
    assert {name: weight for name, (_, weight) in choose(folder, confirmation, 2, 1).items()} == {
        "0000-1": 0.5,
        "0001-1": 0.5,
    }
    assert len(choose(folder, confirmation, 1, 1)) == 1
    members = train_ensemble(size=2, **where)
    assert [(member.recipe.backbone, member.recipe.seed, weight) for member, weight in members] == [
        ("test_byobnet", 1, 0.5),
        ("test_vit", 1, 0.5),
    ]
    assert read_members(tmp_path / "model") == members
    assert not (tmp_path / "model" / "training.json").exists()
    with pytest.raises(WeightsError, match="finished"):
        train_ensemble(size=2, **where)


# --- other processes -----------------------------------------------------------------------------------------------


def command(tmp_path, images, out, recipe, *more):  # noqa: F811
    path = tmp_path / f"{out}.yaml"
    recipe.save(path)
    line = ["-m", "automl", "train", "--recipe", path, "--data", images, "--out", tmp_path / out, *more]
    return [sys.executable, *map(str, line)]


def surroundings(tmp_path, **more):
    return {**os.environ, "OMP_NUM_THREADS": "1", "AUTOML_CACHE": str(tmp_path / "cache"), **more}


@pytest.fixture
def one_thread():
    """As many as the other processes have: the number of threads changes the order of sums, and so their last bits."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("one_thread")
def test_killed_and_resumed_is_the_same_as_never_killed(tmp_path, images, train_tiny):  # noqa: F811
    recipe = recipe_of("test_byobnet", epochs=6, ema_decay=0.99)
    line = command(tmp_path, images, "killed", recipe, "--soup", "2")
    process = subprocess.Popen(line, env=surroundings(tmp_path), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    deadline = time.monotonic() + PATIENCE
    while not (tmp_path / "killed" / "checkpoint.pt").exists():
        assert process.poll() is None, process.communicate()[0].decode()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.kill()
    process.communicate()
    assert not (tmp_path / "killed" / "model.safetensors").exists()
    steps = []
    resumed = train_tiny("killed", recipe=recipe, soup=2, reporter=Told(lambda done, _: steps.append(done)))
    assert steps[0] > 1
    whole = train_tiny("whole", recipe=recipe, soup=2)
    same_weights(resumed, whole)
    assert without_clock(resumed.metrics) == without_clock(whole.metrics)


def test_two_processes_train_what_one_does(tmp_path, images, train_tiny):  # noqa: F811
    # SGD, whose steps are as large as the gradients; no BatchNorm, which sees its own process's share on a CPU
    recipe = recipe_of(
        optimizer={"name": "sgd"},
        learning_rate=0.02,
        batch_size=7,
        epochs=1,
        clip_norm=1,
        freeze_epochs=0.4,
        numerics={"micro_batch_size": 2},
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    line = command(tmp_path, images, "two", recipe)
    common = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    processes = [
        subprocess.Popen(
            line,
            env=surroundings(tmp_path, RANK=str(rank), LOCAL_RANK=str(rank), **common),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    printed = [process.communicate(timeout=PATIENCE)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], printed
    assert "2 processes share" in printed[0]
    assert "step" not in printed[1]
    two, one = read_model(tmp_path / "two"), train_tiny("one", recipe=recipe)
    left, right = (load_file(folder.path / "model.safetensors") for folder in (two, one))
    torch.testing.assert_close(left, right, rtol=1e-3, atol=1e-5)
    assert two.metrics["training"]["last_loss"] == pytest.approx(one.metrics["training"]["last_loss"], rel=1e-4)
    assert two.metrics["training"]["steps"] == one.metrics["training"]["steps"]
