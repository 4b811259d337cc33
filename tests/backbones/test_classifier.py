import copy
import pickle

import pytest
import torch
from torch import nn

from automl.backbones.classifier import TokenClassifier
from automl.backbones.heads import head_modules
from automl.backbones.input import read_preprocessing
from automl.backbones.weights import make_model
from automl.errors import RecipeError
from automl.recipe import Recipe
from automl.training.optimizer import make_optimizer

HEADS = [
    {"name": "linear"},
    {"name": "l2"},
    {"name": "mlp", "hidden": 8, "dropout": 0.1},
    {"name": "attention"},
    {"name": "layers"},
]


def recipe_of(backbone="test_vit", image_size=64, **changes):
    return Recipe.from_mapping({"backbone": backbone, "image_size": image_size, **changes})


BACKBONES = ["test_vit", "test_efficientnet", "test_resnet", "test_convnext"]
CASES = [(backbone, head) for backbone in BACKBONES for head in HEADS]
CASES += [("swin_tiny_patch4_window7_224", {"name": name}) for name in ("attention", "layers")]


@pytest.mark.parametrize(
    ("backbone", "head"), CASES, ids=lambda value: value if isinstance(value, str) else value["name"]
)
def test_every_head_starts_from_zero_and_learns(backbone, head):
    recipe = recipe_of(backbone, head=head, learning_rate=3e-4, layer_decay=0.9, head_lr_factor=3)
    torch.manual_seed(0)
    model = make_model(recipe, 3)
    images, labels = torch.randn(4, 3, 64, 64), torch.tensor([0, 1, 2, 1])
    model.eval()
    with torch.no_grad():
        assert torch.equal(model(images), torch.zeros(4, 3))
    optimizer, losses = make_optimizer(recipe, model), []
    for _ in range(5):
        loss = nn.functional.cross_entropy(model(images), labels)
        loss.backward()
        losses.append(loss.item())
        unused = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
        assert not unused
        optimizer.step()
        optimizer.zero_grad()
    assert min(losses[1:]) < losses[0]
    in_groups = [p for group in optimizer.param_groups for p in group["params"]]
    assert len(set(map(id, in_groups))) == len(in_groups) == sum(p.requires_grad for p in model.parameters())
    rates = {id(p): group["lr_scale"] for group in optimizer.param_groups for p in group["params"]}
    of_head = {id(p) for module in head_modules(model) for p in module.parameters()}
    assert all(rate == 3 for key, rate in rates.items() if key in of_head)
    assert all(rate <= 1 for key, rate in rates.items() if key not in of_head)


@pytest.mark.parametrize("pooling", ["cls", "avg", "cls_avg"])
def test_poolings_of_a_transformer(pooling):
    model = make_model(recipe_of("vit_tiny_patch16_224", 64, pooling=pooling), 2).eval()
    assert isinstance(model, TokenClassifier)
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        tokens = model.backbone.forward_features(images)
        wanted = {"cls": tokens[:, 0], "avg": tokens[:, 1:].mean(1)}
        parts = pooling.split("_")
        assert torch.equal(model.pooling(tokens), torch.cat([wanted[part] for part in parts], 1))
    assert model.head.in_features == 192 * len(parts)


def test_the_class_token_is_what_a_vit_pools_by_itself():
    torch.manual_seed(0)
    own = make_model(recipe_of("vit_tiny_patch16_224", 64), 2).eval()
    torch.manual_seed(0)
    ours = make_model(recipe_of("vit_tiny_patch16_224", 64, pooling="cls"), 2).eval()
    ours.backbone.load_state_dict({k: v for k, v in own.state_dict().items() if not k.startswith("head.")})
    nn.init.normal_(own.head.weight)
    ours.head.weight.data.copy_(own.head.weight)
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.allclose(own(images), ours(images), atol=1e-6)


def test_without_a_class_token_or_tokens_the_mean_is_taken():
    without_token = make_model(recipe_of("vit_base_patch16_siglip_224", 64, pooling="cls_avg"), 2)
    assert without_token.head.in_features == 768
    assert not any("attn_pool" in name for name, _ in without_token.named_parameters()), "its own pooling is gone"
    assert not isinstance(make_model(recipe_of("test_resnet", pooling="cls"), 2), TokenClassifier)


def test_an_attention_head_and_a_pooling_exclude_each_other():
    with pytest.raises(RecipeError, match="pooling must be default"):
        recipe_of(head={"name": "attention"}, pooling="avg")


def test_a_network_with_tokens_of_its_own_keeps_what_timm_says_of_it():
    recipe = recipe_of("test_vit", head={"name": "attention"}, numerics={"grad_checkpointing": True})
    model = make_model(recipe, 2)
    assert read_preprocessing(model) == read_preprocessing(make_model(recipe_of("test_vit"), 2))
    assert all(name.startswith("backbone.") for name in model.no_weight_decay())
    twin = copy.deepcopy(model)
    twin.load_state_dict(model.state_dict())
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(model.eval()(images), pickle.loads(pickle.dumps(twin)).eval()(images))


def test_a_classifier_that_is_no_linear_layer_refuses_other_heads():
    with pytest.raises(RecipeError, match="no linear layer: its head must be linear"):
        make_model(recipe_of("dla34", head={"name": "l2"}), 2)
