import io
import logging

import pytest
import timm
import torch
from torch import nn

from automl.backbones.heads import freeze_backbone, head_modules
from automl.backbones.weights import make_model
from automl.errors import RecipeError
from automl.recipe import Recipe
from automl.recipe.learning import Adam, AdamW, Lion, NAdamW, Sgd
from automl.training.optimizer import make_optimizer

OPTIMIZERS = [Sgd(), Sgd(momentum=0, nesterov=True), Sgd(nesterov=False), Adam(), AdamW(beta2=0.95), NAdamW(), Lion()]
MODELS = ["test_resnet", "test_vit", "test_efficientnet", "test_convnext"]


def model_of(name="test_resnet", **arguments):
    torch.manual_seed(0)
    size = {"img_size": 64} if "vit" in name else {}
    return timm.create_model(name, num_classes=3, **size, **arguments)


def recipe_of(name="test_resnet", **values):
    return Recipe(backbone=name, image_size=64, **values)


def settings_by_name(optimizer, model):
    groups = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    return {name: groups[id(p)] for name, p in model.named_parameters()}


def step(model, optimizer):
    model.train()
    torch.manual_seed(1)
    loss = nn.functional.cross_entropy(model(torch.randn(6, 3, 64, 64)), torch.tensor([0, 1, 2, 0, 1, 2]))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


@pytest.mark.parametrize("name", MODELS[:2])
@pytest.mark.parametrize("choice", OPTIMIZERS, ids=lambda o: f"{o.name}-{getattr(o, 'momentum', '')}")
def test_every_optimizer_trains_and_resumes(choice, name):
    recipe = recipe_of(name, optimizer=choice, learning_rate=1e-3, layer_decay=0.8, head_lr_factor=3)
    model = model_of(name)
    optimizer = make_optimizer(recipe, model)
    first = step(model, optimizer)
    file = io.BytesIO()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, file)
    file.seek(0)
    stored = torch.load(file, weights_only=True)
    twin = model_of(name)
    resumed = make_optimizer(recipe, twin)
    twin.load_state_dict(stored["model"])
    resumed.load_state_dict(stored["optimizer"])
    assert step(twin, resumed) == step(model, optimizer)
    torch.testing.assert_close(twin.state_dict(), model.state_dict())
    last = [step(model, optimizer) for _ in range(4)][-1]
    assert last < first


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("layer_decay", [1.0, 0.7])
def test_every_parameter_is_in_one_group_and_vectors_know_no_decay(name, layer_decay):
    model = model_of(name)
    optimizer = make_optimizer(recipe_of(name, weight_decay=0.05, layer_decay=layer_decay), model)
    ids = [id(p) for group in optimizer.param_groups for p in group["params"]]
    assert sorted(ids) == sorted(id(p) for p in model.parameters())
    for parameter_name, group in settings_by_name(optimizer, model).items():
        parameter = model.get_parameter(parameter_name)
        exempt = parameter.ndim <= 1 or parameter_name in getattr(model, "no_weight_decay", set)()
        assert group["weight_decay"] == (0 if exempt else 0.05), parameter_name


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("layer_decay", [1.0, 0.7])
def test_learning_rates_rise_with_depth_and_the_head_has_its_factor(name, layer_decay):
    model = model_of(name)
    optimizer = make_optimizer(recipe_of(name, learning_rate=0.01, layer_decay=layer_decay, head_lr_factor=10), model)
    rates = {n: g["lr"] for n, g in settings_by_name(optimizer, model).items()}
    head = {id(p) for module in head_modules(model) for p in module.parameters()}
    heads = [rates.pop(n) for n, p in model.named_parameters() if id(p) in head]
    assert heads == pytest.approx([0.1] * len(heads))
    assert max(rates.values()) <= 0.01
    backbone = list(rates.values())
    if layer_decay == 1:
        assert set(backbone) == {0.01}
    else:
        assert backbone[0] == min(backbone) < max(backbone)
    for group in optimizer.param_groups:
        assert group["initial_lr"] == group["lr"] == pytest.approx(0.01 * group["lr_scale"])


def test_layer_decay_follows_timms_blocks():
    model = model_of("test_vit")
    optimizer = make_optimizer(recipe_of("test_vit", learning_rate=1.0, layer_decay=0.5), model)
    rates = {n: g["lr"] for n, g in settings_by_name(optimizer, model).items()}
    blocks = [rates[f"blocks.{i}.attn.qkv.weight"] for i in range(len(model.blocks))]
    assert blocks == sorted(blocks)
    assert blocks[-1] / blocks[-2] == pytest.approx(2)


def test_where_layers_cannot_be_told_apart_timm_says_so(caplog):
    class Plain(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.head = nn.Linear(4, 4), nn.Linear(4, 2)

        def get_classifier(self):
            return self.head

    with caplog.at_level(logging.WARNING, logger="timm"):
        optimizer = make_optimizer(recipe_of(layer_decay=0.5), Plain())
    assert "no effect" in caplog.text
    assert sum(len(group["params"]) for group in optimizer.param_groups) == 4


def test_fused_steps_are_the_loops():
    for choice in (Sgd(), Adam(), AdamW()):
        weights = []
        for fused in (True, False):
            model = model_of()
            optimizer = make_optimizer(recipe_of(optimizer=choice), model)
            assert all(group["fused"] for group in optimizer.param_groups)
            for group in optimizer.param_groups:
                group["fused"] = fused
                group["foreach"] = False
            step(model, optimizer)
            weights.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
        torch.testing.assert_close(*weights, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", MODELS)
def test_frozen_means_only_the_head_learns(name):
    model = model_of(name)
    optimizer = make_optimizer(recipe_of(name, optimizer=Sgd(), weight_decay=0.1), model)
    step(model, optimizer)  # leaves gradients and momentum behind
    before = {n: v.clone() for n, v in model.state_dict().items()}
    model.train()
    freeze_backbone(model, True)
    model(torch.randn(4, 3, 64, 64)).sum().backward()
    optimizer.step()
    changed = {n for n, v in model.state_dict().items() if not torch.equal(v, before[n])}
    head = {id(p) for module in head_modules(model) for p in module.parameters()}
    assert changed == {n for n, p in model.named_parameters() if id(p) in head}


def test_thawing_restores_what_required_a_gradient():
    model = model_of()
    model.conv1[0].weight.requires_grad_(False)
    before = {n: p.requires_grad for n, p in model.named_parameters()}
    keys = model.state_dict().keys()
    for frozen in (True, True, False):
        model.train()
        freeze_backbone(model, frozen)
    assert {n: p.requires_grad for n, p in model.named_parameters()} == before
    assert model.state_dict().keys() == keys
    assert all(module.training for module in model.modules())


def test_a_model_without_a_head_cannot_be_frozen():
    model = timm.create_model("test_resnet", num_classes=0)
    with pytest.raises(RecipeError, match="freeze_epochs"):
        freeze_backbone(model, True)
    assert all(p.requires_grad for p in model.parameters())


def test_a_model_with_nothing_to_train_is_refused():
    with pytest.raises(RecipeError, match="test_resnet"):
        make_optimizer(recipe_of(), model_of().requires_grad_(False))


def test_all_of_a_head_of_several_layers_learns_at_the_heads_rate():
    """timm's grouping by order of definition counts the first layers of caformer's head as the backbone's."""
    model = timm.create_model("caformer_s18", num_classes=2)
    recipe = Recipe(backbone="caformer_s18", layer_decay=0.75, head_lr_factor=3)
    head = {id(p) for module in head_modules(model) for p in module.parameters()}
    scales = {g["lr_scale"] for g in make_optimizer(recipe, model).param_groups for p in g["params"] if id(p) in head}
    assert scales == {3.0}


@pytest.mark.parametrize("head", ["linear", "layers"])
@pytest.mark.parametrize(("tune", "differs"), [("head", False), ("norms", True)])
def test_layer_decay_beside_a_head_alone_has_no_effect(tune, differs, head):
    """What `WITHOUT_EFFECT` of recipes says."""
    scales = []
    for layer_decay in (0.5, 1.0):
        values = {"tune": tune, "head": head, "layer_decay": layer_decay, "pretrained": False}
        recipe = Recipe.model_validate({"backbone": "test_vit", "image_size": 64, **values})
        groups = make_optimizer(recipe, make_model(recipe, 3)).param_groups
        scales.append(sorted(group["lr_scale"] for group in groups for _ in group["params"]))
    assert (scales[0] != scales[1]) is differs
