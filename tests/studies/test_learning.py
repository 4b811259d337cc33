"""The script that trains one architecture of each family says yes where all is well, and no where it is not."""

import copy
import time
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from automl.backbones.table import load_table
from automl.training import fit as fit_module
from automl.training.optimizer import make_optimizer
from tests.fixtures.scripts import load_script

TINY = ("test_resnet", "test_vit", "test_byobnet", "test_convnext")
SIZE = 32


learning = load_script("leaderboard/learning.py")


@pytest.fixture(scope="module")
def vit():
    """A trained network; what changes it makes its own."""
    return learning.train(learning.recipe_for("test_vit", SIZE))


@pytest.fixture
def vit_folder(tmp_path):
    trained = learning.train(learning.recipe_for("test_vit", SIZE))
    learning.settle(trained)
    return trained, learning.write_folder(trained, tmp_path / "model")


# --- all is well --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backbone", TINY)
def test_tiny_architectures_learn_freeze_and_take_the_predicted_memory(backbone):
    recipe = learning.recipe_for(backbone, SIZE)
    trained, learnt = learning.learns(recipe)
    assert learnt.ok, learnt.why
    assert learnt.figures["last_loss"] < learnt.figures["first_loss"] == pytest.approx(0.6931, abs=1e-4)
    for found in (learning.all_move(trained), learning.frozen(recipe), learning.layer_decay(recipe)):
        assert found.ok, found.why
    found = learning.memory(recipe)
    assert found.ok, found.why
    assert 0 < found.figures["activations"] < found.figures["predicted"]


@pytest.mark.slow
def test_a_whole_row(monkeypatch):
    own = learning.exports
    other = learning.Found(True, {"onnx_difference": 1e-7})  # tests/exporters/test_graph.py exports this one to ONNX
    monkeypatch.setattr(learning, "exports", lambda folder, kind: own(folder, kind) if kind == "torch" else other)
    told = {}
    row = learning.check("test_byobnet", told.update)
    assert [getattr(row, name) for name in learning.CHECKS] == ["yes"] * len(learning.CHECKS), row.why
    assert (row.family, row.image_size, row.batch, row.unmoved, row.why) == ("byobnet", 64, 8, 0, "")
    assert abs(row.memory_error) < learning.MEMORY_BOUND
    assert row.spread > learning.LEAST_SPREAD
    assert row.torch_difference < 1e-4
    assert told.items() >= {"memory": "yes", "seconds": row.seconds}.items()  # what the parent hears


def test_each_model_file_has_its_smallest_architecture():
    table = load_table().drop_duplicates("model").set_index("model")
    chosen = learning.smallest_architectures()
    families = [table["family"][name] for name in chosen]
    assert sorted(families) == sorted(set(table["family"]))
    assert "vit_tiny_patch16_224.augreg_in21k_ft_in1k" in chosen
    assert not [name for name in chosen if name.startswith("test_")]


def test_the_image_size_is_the_smallest_that_runs_or_that_of_the_weights(monkeypatch):
    from automl.backbones import capabilities

    def answers(*runs):
        found = capabilities.Capabilities("some", 224, runs=runs)
        monkeypatch.setattr(capabilities, "find_capabilities", lambda *_: found)
        return learning.image_size_for("some")

    assert [answers(64, 96, 224), answers(96, 224), answers(224), answers()] == [64, 96, 224, 224]


@pytest.mark.parametrize("mask", [None, "bool", "float", "learnt"])
def test_the_cpus_attention_is_the_one_that_is_traced(mask):
    draw = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(2, 2, 5, 8, generator=draw, requires_grad=True) for _ in range(3))
    masks = {"bool": torch.rand(5, 5) > 0.1, "float": torch.rand(5, 5), "learnt": torch.rand(5, 5, requires_grad=True)}
    wanted = F.scaled_dot_product_attention(query, key, value, masks.get(mask))
    found = learning.cpu_attention(query, key, value, masks.get(mask))
    assert torch.allclose(found, wanted, atol=1e-6)
    assert found.grad_fn.name() == wanted.grad_fn.name()


# --- all is not well ----------------------------------------------------------------------------------------------


def test_a_head_of_two_layers_that_start_from_zero_does_not_learn(monkeypatch):
    own = learning.make_model

    def with_dead_head(recipe, classes, weights=None):
        model = own(recipe, classes, weights)
        layers = [nn.Linear(model.num_features, 8), nn.ReLU(), nn.Linear(8, classes)]
        for layer in (layers[0], layers[2]):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        model.head = nn.Sequential(*layers)
        return model

    monkeypatch.setattr(learning, "make_model", with_dead_head)
    monkeypatch.setattr(fit_module, "make_model", with_dead_head)
    trained, found = learning.learns(learning.recipe_for("test_vit", SIZE))
    assert not found.ok
    assert "at 0.001 the losses are 0.693 0.693" in found.why
    assert "at 0.0001" in found.why
    moved = learning.all_move(trained)
    assert not moved.ok
    assert "gradient zero: cls_token" in moved.why


def test_losses_that_rise_or_are_no_numbers_are_no_learning(vit):
    for losses in ([0.69, 0.5, 0.4, 0.6, 0.8, 0.9], [0.69, 0.5, 0.4, 0.3, 0.2, float("nan")], [0.69, 0.5]):
        assert not learning.loss_falls(replace(vit, losses=losses)).ok
    assert learning.loss_falls(vit).ok


def test_a_parameter_without_use_or_effect_is_named(vit):
    def added(use):
        model = copy.deepcopy(vit.model)
        model.register_parameter("spare", nn.Parameter(torch.zeros(1)))
        model.register_forward_hook(lambda module, _, out: use(out, module.spare))
        start = vit.start | {"spare": torch.zeros(1, dtype=torch.float32)}
        return learning.all_move(replace(vit, model=model, start=start))

    assert added(lambda out, _: out) == learning.Found(False, {"unmoved": 1}, "unused: spare")
    assert added(lambda out, spare: out + spare - spare).why == "without effect: spare"
    assert added(lambda out, spare: out + 1e-12 * spare * out).why == "gradient too small for six steps: spare"
    dead = added(lambda out, spare: out + spare**2 * torch.arange(2))
    assert (dead.ok, dead.why) == (False, "gradient zero: spare")


def test_a_frozen_weight_or_statistic_that_moved_is_named():
    recipe = learning.recipe_for("test_resnet", SIZE)
    awake = learning.stays(learning.train(recipe, 2))
    assert not awake.ok
    assert "moved" in awake.why
    frozen = learning.train(recipe.model_copy(update={"freeze_epochs": 1}), 2)
    assert learning.stays(frozen).ok
    frozen.model.bn1.running_mean += 1
    assert learning.stays(frozen).why.endswith("bn1.running_mean")
    frozen.start.update(frozen.model.state_dict())
    assert "fc.weight" in learning.stays(frozen).why  # the head did not learn


def test_learning_rates_that_are_not_in_order(vit):
    optimizer = make_optimizer(vit.recipe.model_copy(update={"layer_decay": 0.5}), vit.model)
    assert learning.ordered(vit.model, optimizer).ok
    optimizer.param_groups[0]["lr_scale"] = 2.0
    assert "the head's rates are" in learning.ordered(vit.model, optimizer).why
    del optimizer.param_groups[0]
    assert "each parameter once" in learning.ordered(vit.model, optimizer).why
    flat = make_optimizer(vit.recipe, vit.model)
    assert "same rate" in learning.ordered(vit.model, flat).why


def test_a_folder_with_other_weights_and_a_wrong_bf16_are_found(vit_folder):
    trained, folder = vit_folder
    assert learning.saves(trained, folder).ok
    assert learning.bf16(trained).ok
    trained.model.head.bias.data[0] += 0.1
    assert "differ by" in learning.saves(trained, folder).why
    trained.model.head.register_forward_hook(
        lambda _module, _inputs, out: out.cumsum(1) if out.dtype != torch.float32 else out
    )
    assert "differ by" in learning.bf16(trained).why


@pytest.mark.parametrize(("predicted", "ok"), [(979, False), (981, True), (1019, True), (1021, False)])
def test_a_wrong_prediction_is_found(predicted, ok):
    assert learning.agrees(predicted, 1000).ok is ok


def test_whatever_a_check_raises_is_its_no_and_the_others_are_made(monkeypatch):
    for name in ("moves", "frozen", "layer_decay", "exports", "bf16"):
        monkeypatch.setattr(learning, name, lambda *_: learning.Found(True, {}))

    def refuse(*_):
        raise RuntimeError("step 2 of 3\nand a long story") from KeyError("no such kernel")

    monkeypatch.setattr(learning, "memory", refuse)
    row = learning.check("test_vit")
    assert [getattr(row, name) for name in learning.CHECKS if name != "memory"] == ["yes"] * 8
    assert (row.memory, row.why) == ("no", "memory: KeyError: 'no such kernel'")


@pytest.mark.slow
def test_a_process_that_hangs_or_fails_is_a_row():
    assert learning.check_apart("test_vit", seconds=0.2).why == "the start: not done within 0.2 s"
    row = learning.check_apart("no_such_backbone")
    assert row.why.startswith("the start: the process ended with 1")
    assert "no_such_backbone" in row.why


def test_an_export_that_takes_too_long_is_ended():
    with learning.time_limit(0.1), pytest.raises(TimeoutError, match=r"not done within 0\.1 s"):
        time.sleep(5)


def test_it_goes_on_where_it_was(tmp_path, monkeypatch, capsys):
    asked = []

    def one(backbone):
        asked.append(backbone)
        return learning.Row(backbone, learns="no", learning_rate=1e-4, why='a, "b"')

    monkeypatch.setattr(learning, "check_apart", one)
    out = tmp_path / "rows.csv"
    for names in (["a"], ["a", "b"]):
        learning.main(["--out", str(out), "--only", *names])
    assert asked == ["a", "b"]
    assert learning.read_rows(out) == [learning.Row(n, learns="no", learning_rate=1e-4, why='a, "b"') for n in "ab"]
    assert "learns         0 yes   2 no" in capsys.readouterr().out
