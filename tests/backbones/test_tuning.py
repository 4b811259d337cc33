import copy

import pytest
import torch
from torch import nn

from automl.backbones.heads import head_modules, hold_statistics
from automl.backbones.tuning import LowRankChange, is_changed, merge_low_rank, name_changed
from automl.backbones.weights import make_model
from automl.errors import RecipeError
from automl.recipe import Recipe
from automl.training.optimizer import make_optimizer

FAMILIES = ["test_vit", "test_efficientnet", "test_resnet", "test_convnext", "test_byobnet"]
READS_WEIGHT = {"beit_base_patch16_224": 224, "eva02_tiny_patch14_224": 224, "swinv2_tiny_window8_256": 256}


def recipe_of(tune, backbone="test_vit", image_size=64, **changes):
    return Recipe.from_mapping({"backbone": backbone, "image_size": image_size, "tune": tune, **changes})


def trained_names(model):
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def head_names(model):
    ids = {id(p) for head in head_modules(model) for p in head.parameters()}
    return {name for name, parameter in model.named_parameters() if id(parameter) in ids}


def step(model, recipe, seed=0):
    """One training step on images of noise; returns the names of what it changed."""
    before = copy.deepcopy(model.state_dict())
    optimizer = make_optimizer(recipe, model)
    model.train()
    hold_statistics(model)
    for number in range(2):  # a head of zeros passes no gradient on at first
        torch.manual_seed(seed + number)
        logits = model(torch.randn(4, 3, recipe.image_size, recipe.image_size))
        nn.functional.cross_entropy(logits, torch.tensor([0, 1, 1, 0])).backward()
        optimizer.step()
        optimizer.zero_grad()
    return {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}


@pytest.mark.parametrize("backbone", FAMILIES)
@pytest.mark.parametrize(
    "tune",
    [
        {"name": "head"},
        {"name": "norms"},
        {"name": "lora", "rank": 4},
        {"name": "last"},
        {"name": "lora", "targets": "all"},
    ],
)
def test_training_changes_what_tune_names_and_nothing_else(backbone, tune):
    recipe = recipe_of(tune, backbone, weight_decay=0.1)
    model = make_model(recipe, 2)
    changed = step(model, recipe)
    allowed = name_changed(model)
    assert changed <= allowed
    assert trained_names(model) <= allowed
    assert head_names(model) <= changed
    bodies = trained_names(model) - head_names(model)
    assert (changed & bodies) if tune["name"] != "head" else not bodies
    if tune["name"] in ("head", "lora"):
        assert not any("running" in name for name in changed), "statistics of a frozen BatchNorm stay"


def test_norms_are_a_small_share_and_only_norms():
    model = make_model(recipe_of({"name": "norms"}, "vit_tiny_patch16_224", 224), 2)
    names = trained_names(model) - head_names(model)
    assert names
    assert all("norm" in name for name in names)
    sizes = {name: p.numel() for name, p in model.named_parameters()}
    assert sum(sizes[name] for name in names) < 0.002 * sum(sizes.values())


def test_last_blocks_of_a_transformer_are_whole_blocks():
    for blocks in (1, 3):
        model = make_model(recipe_of({"name": "last", "blocks": blocks}, "vit_tiny_patch16_224", 224), 2)
        found = {name.split(".")[1] for name in trained_names(model) if name.startswith("blocks.")}
        assert found == {str(number) for number in range(12 - blocks, 12)}
        assert "norm.weight" in trained_names(model), "what lies behind the last block is trained, too"


def test_more_blocks_than_there_are_is_all_blocks():
    model = make_model(recipe_of({"name": "last", "blocks": 99}), 2)
    assert {name.split(".")[1] for name in trained_names(model) if name.startswith("blocks.")} == {
        name.split(".")[1] for name, _ in model.named_parameters() if name.startswith("blocks.")
    }


def test_lora_begins_as_the_network_it_changes_and_is_merged_into_one_of_the_same_parameters():
    recipe = recipe_of({"name": "lora", "rank": 4, "alpha": 8})
    torch.manual_seed(0)
    plain = make_model(recipe_of({"name": "all"}), 2)
    torch.manual_seed(0)
    model = make_model(recipe, 2)
    nn.init.normal_(plain.get_classifier().weight)
    model.get_classifier().weight.data.copy_(plain.get_classifier().weight)
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(plain.eval()(images), model.eval()(images))
        for module in model.modules():
            if isinstance(module, LowRankChange):
                assert module.scale == 2
                nn.init.normal_(module.up)
        changed = model(images)
        assert not torch.allclose(changed, plain(images))
        merged = merge_low_rank(model)
        assert torch.allclose(merged(images), changed, atol=1e-6)
    assert merged.state_dict().keys() == plain.state_dict().keys()
    assert not any(map(is_changed, merged.modules()))


@pytest.mark.parametrize(("backbone", "size"), READS_WEIGHT.items())
def test_lora_works_where_timm_reads_a_layers_weight_without_calling_it(backbone, size):
    model = make_model(recipe_of({"name": "lora", "rank": 2}, backbone, size), 2).eval()
    nn.init.normal_(model.get_classifier().weight)
    for module in model.modules():
        if isinstance(module, nn.LayerNorm):  # Swin V2 begins with blocks that add nothing
            nn.init.ones_(module.weight)
    images = torch.randn(1, 3, size, size)
    changes = [
        (name, change)
        for name, module in model.named_modules()
        if name.endswith("qkv") and is_changed(module)
        for change in [module.parametrizations["weight"][0]]
    ]
    assert changes
    with torch.no_grad():
        before = model(images)
        nn.init.normal_(changes[0][1].up)
        assert not torch.allclose(model(images), before)


def test_attention_is_every_layer_where_there_is_none():
    of_attention = make_model(recipe_of({"name": "lora"}, "test_resnet"), 2)
    of_all = make_model(recipe_of({"name": "lora", "targets": "all"}, "test_resnet"), 2)
    assert trained_names(of_attention) == trained_names(of_all)


@pytest.mark.slow
def test_a_network_without_norms_says_so():
    with pytest.raises(RecipeError, match="nothing for tune norms"):
        make_model(recipe_of({"name": "norms"}, "vgg11"), 2)
