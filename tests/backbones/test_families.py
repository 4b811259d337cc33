"""A sample of timm's families, on tensors without data; `studies/leaderboard/` has all of them, trained."""

import pytest
import torch

from automl.backbones.capabilities import find_capabilities
from automl.backbones.examine import run_on_meta
from automl.backbones.heads import freeze_backbone, head_modules
from automl.backbones.timm_model import build_on_meta
from automl.recipe import Recipe
from automl.training.optimizer import make_optimizer

FAMILIES = {  # the backbone, and an image size that it takes
    "caformer_s18": 64,
    "convnextv2_atto": 64,
    "crossvit_9_240": 240,
    "densenet121": 64,
    "efficientformer_l1": 224,
    "efficientnet_lite0": 64,
    "eva02_tiny_patch14_336": 56,
    "levit_128s": 64,
    "maxvit_rmlp_pico_rw_256": 128,
    "mixer_s32_224": 64,
    "regnetx_002": 64,
    "repvit_m0_9": 64,
    "resnet10t": 64,
    "swin_tiny_patch4_window7_224": 64,
    "vgg11": 64,
    "vit_tiny_patch16_224": 64,
    "volo_d1_224": 64,
}


@pytest.fixture(params=FAMILIES)
def backbone(request):
    return request.param


def build(backbone, classes=2):
    return build_on_meta(backbone, {"img_size": FAMILIES[backbone], "drop_path_rate": 0.0}, num_classes=classes)[0]


def test_all_that_makes_logits_is_of_the_head(backbone):
    two, three = build(backbone), dict(build(backbone, 3).named_parameters())
    logits = [p for name, p in two.named_parameters() if p.shape != three[name].shape]
    head = {id(p) for module in head_modules(two) for p in module.parameters()}
    assert logits
    assert all(id(p) in head for p in logits)


def test_every_weight_is_in_one_group_and_the_head_alone_is_left_when_frozen(backbone):
    model = build(backbone)
    recipe = Recipe(backbone=backbone, image_size=FAMILIES[backbone], layer_decay=0.75, head_lr_factor=10)
    groups = make_optimizer(recipe, model).param_groups
    grouped = [id(p) for group in groups for p in group["params"]]
    learning = {id(p) for p in model.parameters() if p.requires_grad}
    assert sorted(grouped) == sorted(learning)
    assert len({group["lr_scale"] for group in groups}) > 2
    head = {id(p) for module in head_modules(model) for p in module.parameters()}
    assert {id(p) for group in groups if group["lr_scale"] > 1 for p in group["params"]} <= head
    model.train()
    freeze_backbone(model, True)
    assert {id(p) for p in model.parameters() if p.requires_grad} == head & learning


def test_it_runs_and_every_weight_gets_a_gradient(backbone):
    model = build(backbone)
    assert run_on_meta(model, FAMILIES[backbone]).shape == (2, 2)
    with torch.device("meta"):
        logits = model(torch.empty(2, 3, FAMILIES[backbone], FAMILIES[backbone]))
        while isinstance(logits, tuple | list):
            logits = sum(logits)
        logits.sum().backward()
    without = {name for name, p in model.named_parameters() if p.requires_grad and p.grad is None}
    assert not without


def test_it_can_be_trained_at_that_size(backbone):
    assert FAMILIES[backbone] in find_capabilities(backbone, [FAMILIES[backbone]]).runs
