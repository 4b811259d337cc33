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

from automl.backbones.capabilities import find_capabilities
from automl.errors import MemoryBudgetError, RecipeError, SpecError, StudyError, WeightsError
from automl.memory.estimate import estimate_training
from automl.models.folder import read_members, read_model, read_validation_scores
from automl.models.trained_on import digest_name_and_size, read_trained_on
from automl.recipe import Recipe
from automl.refit.plan import choose_members, plan_for_study
from automl.refit.train import train
from automl.study.confirm import Candidate, Confirmation, store_confirmation
from automl.training.intervals import Interval
from tests.fixtures.faults import Faults
from tests.fixtures.reporter import RecordingReporter
from tests.fixtures.studies import entry

PATIENCE = 300
"""Seconds for what takes ten on an idle machine."""


@pytest.fixture(autouse=True)
def _offline(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


class StepReporter(RecordingReporter):
    """A reporter that remembers; `on_step` may stop the training."""

    def __init__(self, on_step):
        super().__init__()
        self.on_step = on_step

    def show_progress(self, label):
        return nullcontext(self.on_step) if label == "training" else super().show_progress(label)


def recipe_of(backbone="test_vit", **values):
    given = {"image_size": 32, "batch_size": 8, "epochs": 2, "learning_rate": 2e-3, "pretrained": False}
    return Recipe(backbone=backbone, **(given | values))


@pytest.fixture
def train_tiny(tmp_path, images):
    """Trains a tiny network on the tiny pictures."""

    def go(out="model", recipe=None, reporter=None, data=None, **options):
        path = tmp_path / f"{out}.yaml"
        (recipe or recipe_of()).save(path)
        where = {"data": data or {"path": images}, "out": tmp_path / out, "reporter": reporter or RecordingReporter()}
        return read_model(train(recipe=path, **where, **options))

    return go


def same_weights(one, other):
    left, right = (load_file(folder.path / "model.safetensors") for folder in (one, other))
    assert left.keys() == right.keys()
    for name, value in left.items():
        assert torch.equal(value, right[name]), name


def without_clock(metrics):
    training = {k: v for k, v in metrics["training"].items() if k not in ("seconds", "images_per_second")}
    return {k: v for k, v in metrics.items() if k != "memory"} | {"training": training}


def test_the_folder_is_complete_and_its_figures_are_the_model_s(train_tiny, images):
    reporter = RecordingReporter()
    written = train_tiny(recipe=recipe_of("test_byobnet", ema_decay=0.9), reporter=reporter)
    names = {path.name for path in written.path.iterdir()}
    assert names == {
        "model.safetensors",
        "recipe.yaml",
        "preprocessing.json",
        "labels.json",
        "metrics.json",
        "README.md",
        "trained_on.txt",
    }
    found = read_model(written.path)
    assert found == written
    assert found.labels.classes == ("dark", "light")
    assert found.input.image_size == 32
    assert found.input.decode_size == 256  # the shipped search space's largest image
    metrics = found.metrics
    kept = round(metrics["holdout"]["n"])
    assert metrics["trained_on"] == {"samples": 48 - kept, "splits": "train, validation"}
    every = {digest_name_and_size(path) for path in images.rglob("*.png")}
    learned = read_trained_on(written.path)
    assert learned < every
    assert len(every) - len(learned) == kept  # the holdout alone is not in it
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
    assert any("holdout auc" in line for line in reporter.lines)
    assert sum("/8 · step" in line for line in reporter.lines) == 8


def test_the_model_says_which_layers_lora_changed(train_tiny):
    reporter, tune = RecordingReporter(), {"name": "lora", "rank": 2}
    recipe = Recipe.from_mapping(recipe_of("test_byobnet").model_dump() | {"tune": tune, "epochs": 1})
    written = train_tiny(recipe=recipe, reporter=reporter)
    note = "note: left out of the recipe: tune.targets attention (test_byobnet has none: LoRA changes all layers)"
    assert reporter.lines.count(note) == 1
    assert written.recipe.tune.targets == "all"
    assert "rank 2, alpha 16, targets all" in (written.path / "README.md").read_text()


def test_without_a_holdout_and_with_it(train_tiny, images):
    none = train_tiny("none", data={"path": images, "holdout_fraction": 0})
    assert none.metrics["trained_on"]["samples"] == 48
    assert "holdout" not in none.metrics
    everything = train_tiny("all", with_holdout=True)
    assert everything.metrics["trained_on"] == {"samples": 48, "splits": "train, validation, holdout"}
    assert "holdout" not in everything.metrics


def test_a_parked_training_goes_on_to_the_same_model(train_tiny, tmp_path):
    recipe = recipe_of("test_resnet", ema_decay=0.9, drop_path=0.1)
    stopped = StepReporter(lambda done, _: os.kill(os.getpid(), signal.SIGINT) if done == 2 else None)
    with pytest.raises(KeyboardInterrupt):
        train_tiny(recipe=recipe, reporter=stopped, soup=3)
    assert "stopped: " in stopped.lines[-1]
    assert "same command continues" in stopped.lines[-1]
    assert (tmp_path / "model" / "checkpoint.pt").exists()
    steps = []
    again = train_tiny(recipe=recipe, soup=3, reporter=StepReporter(lambda done, _: steps.append(done)))
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
        train_tiny(reporter=StepReporter(lambda done, total: (steps.append(done), twice(done, total))))
    assert steps == [1]


def test_early_stopping_keeps_the_best_weights_and_validation_out(train_tiny):
    # at this rate nothing moves: the first evaluation stays the best, and the second one ends the run
    reporter = RecordingReporter()
    recipe = recipe_of(learning_rate=1e-30, epochs=6)
    written = train_tiny(recipe=recipe, early_stopping=1, reporter=reporter)
    metrics, kept = written.metrics, read_validation_scores(written.path)
    assert sum(map(len, kept.scores.values())) == metrics["validation"]["n"]
    assert all(list(scores) == sorted(scores) for scores in kept.scores.values())
    assert "--early-stopping" in kept.source
    assert metrics["trained_on"]["splits"] == "train"
    assert metrics["validation"]["source"] == "this model"
    assert metrics["validation"]["value"] == 0.5
    assert metrics["training"]["epochs"] == pytest.approx(6 / 8, abs=0.1)
    assert sum("/8 · step" in line for line in reporter.lines) == 2


def test_the_ema_and_the_seed_are_the_user_s(train_tiny):
    written = train_tiny(recipe=recipe_of(epochs=0.5), ema=0.99, seed=7)
    assert read_validation_scores(written.path) is None  # it learned from validation
    assert (written.recipe.ema_decay, written.recipe.seed) == (0.99, 7)


def test_what_of_a_recipe_has_no_effect_is_a_warning(train_tiny):
    reporter = RecordingReporter()
    train_tiny(recipe=recipe_of(epochs=0.5, tune="head", layer_decay=0.8), reporter=reporter)
    assert "warning: layer_decay 0.8 has no effect beside tune head" in reporter.lines


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
        train_tiny(reporter=StepReporter(lambda _done, _total: os.kill(os.getpid(), signal.SIGINT)))
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
def test_a_file_that_is_no_recipe(tmp_path, images, text, kind):
    path = tmp_path / "file.yaml"
    path.write_text(text)
    with pytest.raises(RecipeError, match=kind) as caught:
        train(recipe=path, data=images, out=tmp_path / "model", reporter=RecordingReporter())
    assert "\n" not in str(caught.value)


def test_what_does_not_go_together(tmp_path, images, train_tiny):
    recipe_of().save(tmp_path / "r.yaml")
    for error, match, arguments in (
        (RecipeError, "--data needs --recipe", {"data": images}),
        (RecipeError, "is in no study's folder", {"recipe": tmp_path / "r.yaml"}),
        (StudyError, "brings its own data", {"study": "x", "recipe": tmp_path / "r.yaml", "data": images}),
        (StudyError, "no studies", {"runs": tmp_path / "runs"}),
        (SpecError, "only with --data", {"recipe": tmp_path / "r.yaml", "data": {"holdout_fraction": 0.1}}),
        (SpecError, "two ways", {"soup": 2, "early_stopping": 1}),
        (SpecError, "eighths", {"soup": 9}),
    ):
        with pytest.raises(error, match=match):
            train(**({"out": tmp_path / "model", "reporter": RecordingReporter()} | arguments))
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


def test_a_study_s_best_recipe_and_then_the_confirmed_one(new_study, tmp_path):
    _, folder = new_study()
    where = {"runs": tmp_path / "runs", "reporter": RecordingReporter()}
    with pytest.raises(StudyError, match="no recipe yet"):
        train(out=tmp_path / "early", **where)
    recipe = recipe_of("test_byobnet.r160_in1k", epochs=1)
    recipe.save(folder.best)
    # the study is the one in whose folder the recipe lies
    best = read_model(train(recipe=folder.best, out=tmp_path / "best", reporter=RecordingReporter()))
    assert best.input.decode_size == 32  # the study's
    assert best.metrics["trained_on"]["splits"] == "train, validation"
    store_confirmation(folder, confirmation_of([recipe]))
    confirmed = read_model(train(out=tmp_path / "confirmed", **where))
    assert confirmed.metrics["trained_on"] == {"samples": 48, "splits": "train, validation, holdout"}
    assert confirmed.metrics["holdout"]["source"] == "confirm"
    assert (confirmed.metrics["holdout"]["value"], confirmed.metrics["validation"]["n"]) == (0.75, 10)
    # another recipe has no score on the holdout
    recipe_of("test_vit", epochs=0.5).save(tmp_path / "other.yaml")
    other = read_model(train("tones", recipe=tmp_path / "other.yaml", out=tmp_path / "other", **where))
    assert other.metrics["holdout"]["source"] == "this model"


def test_numerics_of_another_device_are_not_used(new_study, tmp_path):
    _, folder = new_study()
    (folder.path / "workers" / "cuda-0.log").touch()
    numerics = {"precision": "bf16", "memory_format": "channels_last", "micro_batch_size": 2}
    recipe_of("test_byobnet", epochs=0.5, numerics=numerics).save(folder.best)
    reporter = RecordingReporter()
    written = read_model(train(runs=tmp_path / "runs", out=tmp_path / "model", reporter=reporter, device="cpu"))
    assert written.recipe.numerics.precision == "fp32"
    assert written.recipe.numerics.micro_batch_size is None
    assert any("another kind of device" in line for line in reporter.lines)


def test_an_ensemble_of_the_confirmed_models(new_study, tmp_path, monkeypatch):
    _, folder = new_study()
    recipes = [recipe_of(name, epochs=0.5) for name in ("test_byobnet", "test_vit")]
    recipes[0].save(folder.best)
    where = {"runs": tmp_path / "runs", "out": tmp_path / "model", "reporter": RecordingReporter()}
    with pytest.raises(StudyError, match="automl confirm"):
        train(ensemble=2, **where)
    confirmation = confirmation_of(recipes)
    store_confirmation(folder, confirmation)
    # two of the four are right about different halves, the others about nothing
    labels = np.tile([0, 1], 10)
    right = [np.arange(20) < 10, np.zeros(20, bool), np.arange(20) >= 10, np.zeros(20, bool)]
    for k, name in enumerate(file for candidate in confirmation.candidates for file in candidate.predictions):
        score = np.where(right[k], 0.3 + 0.4 * labels, 0.5)
        (folder.path / name).parent.mkdir(exist_ok=True)
        np.savez(folder.path / name, validation=np.stack([1 - score, score], axis=1), labels=labels)
    chosen, holdout_scored, validation = choose_members(folder, 2)
    assert {name: weight for name, (_, weight) in chosen.items()} == {"0000-1": 0.5, "0001-1": 0.5}
    assert holdout_scored
    # each is right where the other says .5: half of both
    assert [*validation.scores.values()] == [pytest.approx([0.4] * 10), pytest.approx([0.6] * 10)]
    # of one recipe, those of its seeds are put together
    pooled = plan_for_study(folder).validation
    assert pooled.source.endswith("(automl confirm)")
    assert [*pooled.scores.values()] == [(*[0.3] * 5, *[0.5] * 15), (*[0.5] * 15, *[0.7] * 5)]
    assert len(choose_members(folder, 1)[0]) == 1
    assert train(ensemble=2, **where) == tmp_path / "model"
    assert read_validation_scores(tmp_path / "model") == validation
    members = read_members(tmp_path / "model")
    assert [(member.recipe.backbone, member.recipe.seed, weight) for member, weight in members] == [
        ("test_byobnet", 1, 0.5),
        ("test_vit", 1, 0.5),
    ]
    assert not (tmp_path / "model" / "training.json").exists()
    with pytest.raises(WeightsError, match="finished"):
        train(ensemble=2, **where)


# --- memory --------------------------------------------------------------------------------------------------------


@pytest.fixture
def budget():
    """The bytes within which four images of the tiny network at once are predicted to fit, and eight are not."""
    return estimate_training(recipe_of("test_byobnet"), 2, batch_size=4)


def test_a_study_s_memory_budget_holds(new_study, tmp_path, limited_to, budget):
    _, folder = new_study(pool=[entry(fits_all=False)], setup={"memory_bytes": budget})
    recipe_of("test_byobnet.r160_in1k", epochs=0.5).save(folder.best)
    where = {"runs": tmp_path / "runs", "reporter": RecordingReporter()}
    written = read_model(train(out=tmp_path / "model", **where))
    assert (written.recipe.numerics.micro_batch_size, written.recipe.batch_size) == (4, 8)
    other = read_model(train(out=tmp_path / "other", gpu_mem="1TB", **where))
    assert other.recipe.numerics.micro_batch_size is None
    assert limited_to == [budget, None, 10**12, None]


def test_what_the_pool_knows_to_fit_is_believed_of_the_study_s_own_recipes_and_budget(new_study, budget):
    _, folder = new_study(pool=[entry(fits_all=True)], setup={"memory_bytes": budget})
    recipe_of("test_byobnet.r160_in1k").save(folder.best)
    own, file = plan_for_study(folder), plan_for_study(folder, folder.best)
    ready = [plan.fit_to_device("cpu", limit) for plan, limit in ((own, budget), (own, budget + 1), (file, budget))]
    assert [plan.recipe.numerics.micro_batch_size for plan in ready] == [None, 4, 4]


def test_without_a_study_there_is_no_budget_but_the_given_one(train_tiny, limited_to, budget):
    free = train_tiny("free", recipe=recipe_of("test_byobnet", epochs=0.5))
    assert free.recipe.numerics.micro_batch_size is None
    tight = train_tiny("tight", recipe=recipe_of("test_byobnet", epochs=0.5), gpu_mem=budget)
    assert tight.recipe.numerics.micro_batch_size == 4
    assert limited_to == [None, budget, None]
    with pytest.raises(SpecError, match="not a size: 'lots'"):
        train_tiny("lots", gpu_mem="lots")


def test_a_training_goes_on_within_another_budget(train_tiny, budget):
    recipe, steps = recipe_of("test_byobnet"), []
    with pytest.raises(KeyboardInterrupt):
        train_tiny(
            recipe=recipe,
            reporter=StepReporter(lambda done, _: os.kill(os.getpid(), signal.SIGINT) if done == 2 else None),
        )
    again = train_tiny(recipe=recipe, gpu_mem=budget, reporter=StepReporter(lambda done, _: steps.append(done)))
    assert again.recipe.numerics.micro_batch_size == 4
    assert steps[0] > 1


FORWARD = "aten.native_layer_norm"  # 13 in a network


@pytest.fixture
def examined():
    """What the backbone can do is known before memory runs out."""
    find_capabilities("test_vit", (32,))


@pytest.mark.usefixtures("examined")
def test_out_of_memory_it_goes_on_with_smaller_micro_batches_and_reports_it(train_tiny):
    reporter = RecordingReporter()
    with Faults((FORWARD, 20)) as faults:
        written = train_tiny(recipe=recipe_of(epochs=0.5), reporter=reporter)
    assert faults.raised == 1
    line = "warning: out of memory in a training step after 1 steps with 8 images at once; now 4"
    assert line in reporter.lines
    assert (written.path / "model.safetensors").exists()


@pytest.mark.usefixtures("examined")
def test_out_of_memory_for_the_third_time_it_explains_what_to_do(train_tiny):
    with (
        Faults(*[(FORWARD, call) for call in range(1, 99)]),
        pytest.raises(MemoryBudgetError, match=r"\(number 3\): end what else uses the device, or lower"),
    ):
        train_tiny(recipe=recipe_of(epochs=0.5))


# --- other processes -----------------------------------------------------------------------------------------------


def command(tmp_path, images, out, recipe, *more):
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
def test_killed_and_resumed_is_the_same_as_never_killed(tmp_path, images, train_tiny):
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
    resumed = train_tiny("killed", recipe=recipe, soup=2, reporter=StepReporter(lambda done, _: steps.append(done)))
    assert steps[0] > 1
    whole = train_tiny("whole", recipe=recipe, soup=2)
    same_weights(resumed, whole)
    assert without_clock(resumed.metrics) == without_clock(whole.metrics)


@pytest.mark.slow
def test_two_processes_train_what_one_does(tmp_path, images, train_tiny):
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
