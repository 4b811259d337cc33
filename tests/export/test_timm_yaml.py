import importlib.util
import math
import os
from argparse import Namespace
from pathlib import Path

import optuna
import pytest
import torch
import yaml
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from PIL import Image
from timm.data import Mixup, create_transform
from timm.optim import create_optimizer_v2, optimizer_kwargs
from timm.scheduler import create_scheduler_v2, scheduler_kwargs

from automl import recipe as parts
from automl.errors import RecipeError
from automl.export.folder import Labels
from automl.export.timm_options import OPTIONS, leaves
from automl.export.timm_yaml import timm_yaml
from automl.recipe import Recipe
from automl.space import load_space
from automl.training.schedules import lr_factor
from tests.test_recipe import IMAGE_RECIPES

LABELS = Labels(("real", "fake: #2"), 1, (0.5, 0.5))
BACKBONES = ("test_vit", "test_byobnet.r160_in1k", "deit_tiny_distilled_patch16_224")
TRAIN_PY = os.environ.get("TIMM_TRAIN_PY", "")
"""A checkout's train.py, of timm 1.0.31: its own parser is then asked."""

RECIPES = st.builds(
    lambda recipe, backbone, epochs: recipe.model_copy(update={"backbone": backbone, "epochs": epochs}),
    IMAGE_RECIPES,
    st.sampled_from(BACKBONES),
    st.floats(0.1, 50),
)
MANY = settings(max_examples=30, suppress_health_check=[HealthCheck.too_slow], deadline=None)


def recipe_of(**values):
    return Recipe(backbone="test_vit", image_size=160, **values)


def options(recipe, *args):
    return yaml.safe_load(timm_yaml(recipe, *args))


@MANY
@given(recipe=RECIPES)
def test_every_option_is_train_pys_and_every_value_of_the_recipe_is_named(recipe):
    text = timm_yaml(recipe, LABELS)
    assert yaml.safe_load(text).keys() <= OPTIONS
    comments = "\n".join(line.partition("#")[2] for line in text.splitlines())
    for name in leaves(recipe.model_dump()):
        assert name in comments, name


@MANY
@given(one=RECIPES, other=RECIPES, data=st.data())
def test_no_value_can_change_without_the_text_changing(one, other, data):
    """Whatever is said about a value, it is said of the value itself."""
    field = data.draw(st.sampled_from([n for n in Recipe.model_fields if n not in ("seed", "numerics")]))
    changed = one.model_copy(update={field: getattr(other, field)})
    assume(changed != one)
    if field == "augmentation":
        part = data.draw(st.sampled_from(list(parts.Augmentation.model_fields)))
        changed = one.model_copy(
            update={field: one.augmentation.model_copy(update={part: getattr(other.augmentation, part)})}
        )
        assume(changed != one)
    assert timm_yaml(changed) != timm_yaml(one)


def test_what_train_py_lacks_is_listed_with_its_value():
    augmentation = parts.Augmentation(crop=parts.NativeCrop(), jpeg=0.5, self_blend=0.25, affine=parts.RandomAffine())
    text = timm_yaml(recipe_of(augmentation=augmentation, loss=parts.Focal(gamma=1.5), freeze_epochs=0.5))
    missing = text.split("# Not known to train.py, so missing here:")[1].split("without effect")[0]
    for line in ("crop.name: native", "jpeg: 0.5", "jpeg_min_quality: 40", "self_blend: 0.25", "rotate_degrees: 10"):
        assert line in missing
    for line in ("loss.name: focal", "loss.gamma: 1.5", "freeze_epochs: 0.5"):
        assert line in missing
    assert "downscale" not in missing  # it is off


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"optimizer": parts.Sgd(nesterov=False)}, {"opt": "momentum", "momentum": 0.9}),
        ({"optimizer": parts.Sgd()}, {"opt": "sgd"}),
        ({"optimizer": parts.Sgd(momentum=0)}, {"opt": "momentum", "momentum": 0}),
        ({"optimizer": parts.Lion(beta2=0.98)}, {"opt": "lion", "opt_betas": [0.9, 0.98]}),
        ({"clip_norm": 1.0, "layer_decay": 0.9}, {"clip_grad": 1.0, "layer_decay": 0.9, "clip_mode": "norm"}),
        ({"clip_norm": 0}, {"clip_grad": None, "layer_decay": None}),
        ({"ema_decay": 0.99}, {"model_ema": True, "model_ema_decay": 0.99, "model_ema_warmup": True}),
        ({"mixing": parts.CutMix(probability=0.5)}, {"cutmix": 1.0, "mixup": 0.0, "mixup_prob": 0.5}),
        ({"epochs": 4.5}, {"epochs": 3, "warmup_epochs": 2, "warmup_prefix": True}),
        ({"epochs": 0.2}, {"epochs": 1, "warmup_epochs": 0}),
        ({"seed": -1}, {"seed": 2**31 - 1}),
        ({"numerics": parts.Numerics(precision="bf16")}, {"amp": True, "amp_dtype": "bfloat16"}),
        ({"numerics": parts.Numerics(grad_checkpointing=True)}, {"grad_checkpointing": True, "amp": False}),
        ({}, {"grad_checkpointing": False}),
        ({"augmentation": parts.Augmentation(policy=parts.RandAugment())}, {"aa": "rand-m3-n2-p1-mstd0-inc1"}),
        ({"augmentation": parts.Augmentation(policy=parts.AugMix())}, {"aa": "augmix-m3-w3"}),
        ({"schedule": parts.Cosine(warmup=0.1), "epochs": 20}, {"sched": "cosine", "epochs": 18, "warmup_epochs": 2}),
        ({"schedule": parts.Wsd(), "epochs": 10}, {"sched": "wsd", "lr_decay_fn": "linear"}),
        ({"schedule": parts.StepLR(every=0.25), "epochs": 8}, {"sched": "step", "decay_epochs": 2, "decay_rate": 0.1}),
    ],
)
def test_values_in_train_pys_words(values, expected):
    found = options(recipe_of(**values))
    assert {name: found[name] for name in expected} == expected


@pytest.mark.parametrize("batch", [2, 16, 31, 32, 48])
@pytest.mark.parametrize("micro", [None, 1, 7, 12, 16, 99])
def test_accumulation_keeps_the_effective_batch(batch, micro):
    found = options(recipe_of(batch_size=batch, numerics=parts.Numerics(micro_batch_size=micro)))
    assert found["batch_size"] <= (micro or batch)
    assert abs(found["batch_size"] * found["grad_accum_steps"] - batch) <= found["grad_accum_steps"] / 2


def test_a_network_of_one_size_is_told_another():
    assert options(Recipe(backbone="vit_tiny_patch16_224", image_size=160))["model_kwargs"] == {"img_size": 160}
    assert "model_kwargs" not in options(Recipe(backbone="vit_tiny_patch16_224", image_size=224))
    assert "model_kwargs" not in options(Recipe(backbone="resnet18", image_size=160))


def test_classes_and_data(tmp_path):
    found = options(recipe_of(), LABELS, {"data_dir": str(tmp_path / "a b: #c"), "workers": 2})
    assert (found["num_classes"], found["data_dir"], found["workers"]) == (2, str(tmp_path / "a b: #c"), 2)
    assert "num_classes" not in options(recipe_of())
    with pytest.raises(RecipeError, match="'learning_rate' is no data option"):
        timm_yaml(recipe_of(), None, {"learning_rate": 1})
    with pytest.raises(RecipeError, match="timm has no backbone"):
        timm_yaml(Recipe(backbone="resnet19"))


# --- what timm's own functions make of it, called as train.py calls them ----------------------------------------


@settings(max_examples=12, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(recipe=RECIPES)
def test_timm_makes_optimizer_schedule_augmentation_and_mixing_of_it(recipe):
    schedule = recipe.schedule
    assume(not isinstance(schedule, parts.Wsd) or schedule.decay > 0.02)
    found = Namespace(**({"momentum": 0.9} | options(recipe)))
    model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.BatchNorm1d(4))
    found.layer_decay = None  # wants a timm model
    optimizer = create_optimizer_v2(model, **optimizer_kwargs(cfg=found))
    scheduler, epochs = create_scheduler_v2(optimizer, **scheduler_kwargs(found), updates_per_epoch=100)
    assert epochs == max(1, math.floor(recipe.epochs + 0.5))
    for step in (0, 50, 100 * epochs - 1):
        scheduler.step_update(step)
        assert 0 <= optimizer.param_groups[0]["lr"] <= recipe.learning_rate * (1 + 1e-6)
    size = min(recipe.image_size, 64)
    transform = augmentation(found, size)
    assert transform(Image.new("RGB", (90, 70), "red")).shape == (3, size, size)
    if found.mixup or found.cutmix:
        mix = Mixup(found.mixup, found.cutmix, prob=found.mixup_prob, mode=found.mixup_mode, num_classes=2)
        assert mix(torch.zeros(4, 3, 8, 8), torch.tensor([0, 1, 0, 1]))[1].shape == (4, 2)


def augmentation(found, size):
    return create_transform(
        size,
        is_training=True,
        train_crop_mode=found.train_crop_mode,
        scale=found.scale,
        ratio=found.ratio,
        hflip=found.hflip,
        vflip=found.vflip,
        color_jitter=found.color_jitter,
        color_jitter_prob=getattr(found, "color_jitter_prob", None),
        grayscale_prob=found.grayscale_prob,
        gaussian_blur_prob=found.gaussian_blur_prob,
        auto_augment=found.aa,
        interpolation="bicubic",
        re_prob=found.reprob,
        re_mode=found.remode,
        re_count=found.recount,
    )


@pytest.mark.parametrize("crop", [parts.ResizeCrop(), parts.NativeCrop()])
def test_the_crop_resizes_the_short_side_and_takes_a_window_anywhere(crop):
    recipe = recipe_of(augmentation=parts.Augmentation(crop=crop, horizontal_flip=0))
    transform = augmentation(Namespace(**options(recipe)), 32)
    columns = Image.linear_gradient("L").rotate(90).resize((128, 64)).convert("RGB")  # dark to bright, left to right
    starts, spans = [], []
    for _ in range(20):
        row = transform(columns)[0, 16] * 0.229 + 0.485
        starts.append(float(row.min()))
        spans.append(float(row.max() - row.min()))
    assert max(starts) - min(starts) > 0.2  # anywhere
    assert max(spans) - min(spans) < 0.05  # always half the width: nothing random in the size
    assert spans[0] == pytest.approx(0.5, abs=0.06)


@pytest.mark.parametrize(
    "schedule",
    [parts.Cosine(warmup=0.1), parts.OneCycle(warmup=0.3), parts.Wsd(warmup=0.1, decay=0.4), parts.StepLR(warmup=0.1)],
)
def test_the_schedules_follow_automls(schedule):
    recipe = recipe_of(schedule=schedule, epochs=10, learning_rate=1.0, optimizer=parts.Sgd())
    found = Namespace(**options(recipe))
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=found.lr)
    scheduler, _ = create_scheduler_v2(optimizer, **scheduler_kwargs(found), updates_per_epoch=20)
    for step in range(0, 200, 7):
        scheduler.step_update(step)
        ours = lr_factor(schedule, step, 200)
        limit = 0.12 if isinstance(schedule, parts.OneCycle) else 0.06  # its rise is a straight line there
        assert optimizer.param_groups[0]["lr"] == pytest.approx(ours, abs=limit), step


@pytest.mark.skipif(not TRAIN_PY, reason="needs TIMM_TRAIN_PY, the path of timm 1.0.31's train.py")
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(recipe=RECIPES)
def test_the_real_parser_knows_every_key(recipe, tmp_path):
    spec = importlib.util.spec_from_file_location("timm_train", TRAIN_PY)
    train = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(train)
    path = Path(tmp_path, "recipe.yaml")
    path.write_text(timm_yaml(recipe, LABELS, {"data_dir": "data"}))
    known = {action.dest for action in train.parser._actions}
    wanted = yaml.safe_load(path.read_text())
    assert wanted.keys() <= known
    train.parser.set_defaults(**wanted)
    found = vars(train.parser.parse_args([]))
    assert {name: found[name] for name in wanted} == wanted


@pytest.mark.parametrize("seed", range(30))
def test_recipes_of_the_shipped_space(seed):
    trial = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed)).ask()
    values = load_space("image").suggest(trial, backbones=3, self_blend=True)
    recipe = Recipe.from_mapping({**values, "backbone": BACKBONES[values["backbone"]]})
    text = timm_yaml(recipe, LABELS)
    assert yaml.safe_load(text)["lr"] == recipe.learning_rate
    assert all(name in text for name in leaves(recipe.model_dump()))
