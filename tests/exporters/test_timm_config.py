import importlib.util
import math
import os
import re
import subprocess
import sys
import textwrap
from argparse import Namespace
from contextlib import ExitStack, nullcontext
from pathlib import Path

import numpy as np
import optuna
import pytest
import timm
import torch
import yaml
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from PIL import Image
from timm.data import Mixup, create_transform
from timm.data.readers.class_map import load_class_map
from timm.data.readers.reader_image_folder import find_images_and_targets
from timm.optim import create_optimizer_v2, optimizer_kwargs
from timm.scheduler import create_scheduler_v2, scheduler_kwargs

from automl.backbones.examine import run_on_meta
from automl.backbones.timm_model import SkipInitialisation, build_on_meta
from automl.errors import RecipeError
from automl.exporters.timm_config import flatten_values, timm_yaml
from automl.models.folder import Labels
from automl.recipe import Numerics, Recipe
from automl.recipe.augmentation import (
    Augmentation,
    AugMix,
    NativeCrop,
    RandAugment,
    RandomAffine,
    ResizeCrop,
    SquashCrop,
)
from automl.recipe.learning import Cosine, CutMix, Focal, Lion, OneCycle, Sgd, StepLR, Wsd
from automl.space.space import load_space
from automl.training.schedule import lr_factor
from tests.fixtures.recipes import IMAGE_RECIPES

LABELS = Labels(("real", "fake: #2"), 1, (0.5, 0.5))
BACKBONES = ("test_vit", "test_byobnet.r160_in1k", "deit_tiny_distilled_patch16_224")
TRAIN_PY = os.environ.get("TIMM_TRAIN_PY", "")
"""A checkout's train.py, of timm 1.0.31: its own parser is then asked."""

NAMES = """
    aa amp amp_dtype batch_size channels_last clip_grad clip_mode color_jitter color_jitter_prob cooldown_epochs
    crop_pct cutmix data_dir decay_epochs decay_rate drop drop_path epochs gaussian_blur_prob grad_accum_steps
    grad_checkpointing grayscale_prob head_init_scale hflip img_size layer_decay lr lr_decay_fn min_lr mixup mixup_mode
    mixup_prob model model_ema model_ema_decay model_ema_warmup model_kwargs momentum num_classes opt opt_betas
    pretrained pretrained_path ratio recount remode reprob scale sched sched_on_updates seed smoothing train_crop_mode
    train_interpolation vflip warmup_epochs warmup_lr warmup_prefix weight_decay
"""
OPTIONS = frozenset(NAMES.split())
"""Options of timm 1.0.31's train.py, by argparse's `dest`."""

RECIPES = st.builds(
    lambda recipe, backbone, epochs: recipe.model_copy(update={"backbone": backbone, "epochs": epochs}),
    IMAGE_RECIPES,
    st.sampled_from(BACKBONES),
    st.floats(0.1, 50),
)
MANY = settings(max_examples=30, suppress_health_check=[HealthCheck.too_slow], deadline=None)


def recipe_of(**values):
    return Recipe(backbone="test_vit", image_size=160, **values)


def options(recipe, *args, **values):
    return yaml.safe_load(timm_yaml(recipe, *args, **values))


def not_carried_over(text):
    """What the comment at the end says is missing, and what is missing without effect."""
    missing, _, off = text.partition("so missing here:")[2].partition("# Not known to train.py")
    return missing, off


@pytest.mark.slow
@MANY
@given(recipe=RECIPES)
def test_every_option_is_train_pys_and_every_value_of_the_recipe_is_named(recipe):
    text = timm_yaml(recipe, LABELS)
    assert yaml.safe_load(text).keys() <= OPTIONS
    comments = "\n".join(line.partition("#")[2] for line in text.splitlines())
    for name in flatten_values(recipe.model_dump()):
        assert name in comments, name


@pytest.mark.slow
@MANY
@given(one=RECIPES, other=RECIPES, data=st.data())
def test_no_value_can_change_without_the_text_changing(one, other, data):
    """Whatever is said about a value, it is said of the value itself."""
    field = data.draw(st.sampled_from([n for n in Recipe.model_fields if n not in ("seed", "numerics")]))
    changed = one.model_copy(update={field: getattr(other, field)})
    assume(changed != one)
    if field == "augmentation":
        part = data.draw(st.sampled_from(list(Augmentation.model_fields)))
        changed = one.model_copy(
            update={field: one.augmentation.model_copy(update={part: getattr(other.augmentation, part)})}
        )
        assume(changed != one)
    assert timm_yaml(changed) != timm_yaml(one)


def test_what_train_py_lacks_is_listed_with_its_value():
    augmentation = Augmentation(crop=NativeCrop(), jpeg=0.5, self_blend=0.25, affine=RandomAffine())
    text = timm_yaml(recipe_of(augmentation=augmentation, loss=Focal(gamma=1.5), freeze_epochs=0.5))
    missing, _ = not_carried_over(text)
    for line in ("crop.name: native", "jpeg: 0.5", "jpeg_min_quality: 40", "self_blend: 0.25", "rotate_degrees: 10"):
        assert line in missing
    for line in ("loss.name: focal", "loss.gamma: 1.5", "freeze_epochs: 0.5"):
        assert line in missing
    assert "downscale" not in missing  # it is off


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"optimizer": Sgd(nesterov=False)}, {"opt": "momentum", "momentum": 0.9}),
        ({"optimizer": Sgd()}, {"opt": "sgd"}),
        ({"optimizer": Sgd(momentum=0)}, {"opt": "momentum", "momentum": 0}),
        ({"optimizer": Lion(beta2=0.98)}, {"opt": "lion", "opt_betas": [0.9, 0.98]}),
        ({"clip_norm": 1.0, "layer_decay": 0.9}, {"clip_grad": 1.0, "layer_decay": 0.9, "clip_mode": "norm"}),
        ({"clip_norm": 0}, {"clip_grad": None, "layer_decay": None}),
        ({"ema_decay": 0.99}, {"model_ema": True, "model_ema_decay": 0.99, "model_ema_warmup": True}),
        ({"mixing": CutMix(probability=0.5)}, {"cutmix": 1.0, "mixup": 0.0, "mixup_prob": 0.5}),
        ({"epochs": 4.5}, {"epochs": 3, "warmup_epochs": 2, "warmup_prefix": True}),
        ({"epochs": 0.2}, {"epochs": 1, "warmup_epochs": 0}),
        ({"seed": 2**32 - 1}, {"seed": 2**31 - 1}),
        ({"numerics": Numerics(precision="bf16")}, {"amp": True, "amp_dtype": "bfloat16"}),
        ({"numerics": Numerics(grad_checkpointing=True)}, {"grad_checkpointing": True, "amp": False}),
        ({}, {"grad_checkpointing": False}),
        ({"augmentation": Augmentation(policy=RandAugment())}, {"aa": "rand-m3-n2-p1-mstd0-inc1"}),
        ({"augmentation": Augmentation(policy=AugMix())}, {"aa": "augmix-m3-w3"}),
        ({"schedule": Cosine(warmup=0.1), "epochs": 20}, {"sched": "cosine", "epochs": 18, "warmup_epochs": 2}),
        ({"schedule": Wsd(), "epochs": 10}, {"sched": "wsd", "lr_decay_fn": "linear"}),
        ({"schedule": StepLR(every=0.25), "epochs": 8}, {"sched": "step", "decay_epochs": 2, "decay_rate": 0.1}),
    ],
)
def test_values_in_train_pys_words(values, expected):
    found = options(recipe_of(**values))
    assert {name: found[name] for name in expected} == expected


@pytest.mark.parametrize("batch", [2, 16, 31, 32, 48])
@pytest.mark.parametrize("micro", [None, 1, 7, 12, 16, 99])
def test_accumulation_keeps_the_effective_batch(batch, micro):
    found = options(recipe_of(batch_size=batch, numerics=Numerics(micro_batch_size=micro)))
    assert found["batch_size"] <= (micro or batch)
    assert abs(found["batch_size"] * found["grad_accum_steps"] - batch) <= found["grad_accum_steps"] / 2


@pytest.mark.parametrize(
    ("backbone", "own_size", "told"),
    [
        ("vit_tiny_patch16_224", 224, True),
        ("vit_base_patch16_384", 384, True),
        ("nest_tiny_jx", 224, True),
        ("mobilevit_xxs", 256, True),  # takes other sizes as well, and its blocks are told
        ("resnet18", 224, False),
        ("caformer_s18", 224, False),
    ],
)
def test_a_network_that_is_built_for_a_size_is_told_another(backbone, own_size, told):
    other = options(Recipe(backbone=backbone, image_size=160))
    assert other.get("model_kwargs") == ({"img_size": 160} if told else None)
    assert other["img_size"] == 160  # of the data
    assert "model_kwargs" not in options(Recipe(backbone=backbone, image_size=own_size))


@pytest.mark.parametrize("backbone", ["vgg11", "densenet121", "repvit_m0_9"])
def test_drop_path_is_not_written_where_the_backbone_has_none(backbone):
    """train.py stops on `drop_path_rate`, or passes it to a network that ignores it."""
    wanted, none = (Recipe(backbone=backbone, drop_path=value) for value in (0.2, 0))
    assert "drop_path" not in options(wanted)
    assert "drop_path: 0.2  (this backbone has no stochastic depth)" in not_carried_over(timm_yaml(wanted))[0]
    missing, off = not_carried_over(timm_yaml(none))
    assert "drop_path" not in missing
    assert "drop_path 0" in " ".join(off.split())


@pytest.mark.parametrize("backbone", ["nest_tiny_jx", "resnet18"])
def test_drop_path_of_zero_is_written_too(backbone):
    """nest_tiny_jx drops half of its last layer's branches where nothing is said."""
    assert options(Recipe(backbone=backbone, drop_path=0))["drop_path"] == 0


@pytest.mark.parametrize(("backbone", "has"), [("vgg11", False), ("crossvit_9_240", False), ("densenet121", True)])
def test_checkpointing_is_written_where_the_backbone_has_it(backbone, has):
    recipe = Recipe(backbone=backbone, numerics=Numerics(grad_checkpointing=True))
    assert options(recipe).get("grad_checkpointing") == (True if has else None)
    missing = not_carried_over(timm_yaml(recipe))[0]
    assert ("numerics.grad_checkpointing: true  (this backbone has none)" in missing) == (not has)


def test_classes_are_numbered_as_train_py_numbers_them(tmp_path):
    names = ("img10", "img2", "fake: #2", "a-rather-long-name-with-hyphens", "Zebra", "9")
    for name in names:
        (tmp_path / "data" / name).mkdir(parents=True)
        (tmp_path / "data" / name / "1.png").touch()
    text = timm_yaml(recipe_of(), Labels(names, 1, (1 / 6,) * 6))
    said = one_line(text)
    theirs = find_images_and_targets(tmp_path / "data")[1]
    assert f"train.py numbers the classes: {numbered(sorted(names, key=theirs.get))}" in said
    assert f"This is not the order of automl's model: {numbered(names)}" in said
    assert "--class-map FILE.txt" in said
    (tmp_path / "map.txt").write_text("\n".join(names))
    assert load_class_map(str(tmp_path / "map.txt")) == {name: number for number, name in enumerate(names)}
    assert yaml.safe_load(text)["num_classes"] == 6


def test_classes_in_train_pys_own_order(tmp_path):
    said = one_line(timm_yaml(recipe_of(), Labels(("ants", "Bees"), 1, (0.5, 0.5))))
    assert "train.py numbers the classes: 0: ants, 1: Bees #" in said
    assert "not the order" not in said
    assert "--class-map" not in said


@pytest.mark.parametrize(
    ("names", "warned"),
    [
        (("a", "B", "b"), r"It takes these names for equal and orders them by chance: B, b #"),
        (("²", "a"), r"cannot order these names .* 0: \"\\xB2\", 1: a"),
    ],
)
def test_classes_that_train_py_does_not_order(names, warned):
    said = one_line(timm_yaml(recipe_of(), Labels(names, 1, (1 / len(names),) * len(names))))
    assert re.search(warned, said)
    assert "--class-map" in said


def one_line(text):
    """A text with its wrapped comments in one line."""
    return " ".join(text.replace("\n#   ", " ").split())


def numbered(names):
    return ", ".join(
        f"{number}: {repr(name) if ':' in name or name.isdigit() else name}" for number, name in enumerate(names)
    )


@pytest.mark.parametrize(
    ("backbone", "warned"), [("vit_tiny_patch16_224.augreg_in21k_ft_in1k", True), ("resnet18.a1_in1k", False)]
)
def test_a_file_of_weights_that_older_timms_misread(backbone, warned):
    text = timm_yaml(Recipe(backbone=backbone), pretrained_path=Path("weights.safetensors"))
    assert yaml.safe_load(text)["pretrained_path"] == "weights.safetensors"
    assert ("1.0.30 takes this backbone's file for one of NumPy's" in text) == warned


def test_classes_and_data(tmp_path):
    found = options(recipe_of(), LABELS, data_dir=tmp_path / "a b: #c")
    assert (found["num_classes"], found["data_dir"]) == (2, str(tmp_path / "a b: #c"))
    assert "num_classes" not in options(recipe_of())
    with pytest.raises(RecipeError, match="timm has no backbone"):
        timm_yaml(Recipe(backbone="resnet19"))


# --- what timm's own functions make of it, called as train.py calls them ----------------------------------------


TRAIN_PYS_DEFAULTS = {"drop": 0.0, "drop_path": None, "head_init_scale": None, "model_kwargs": {}}
TRAIN_PYS_DEFAULTS |= {"grad_checkpointing": False, "num_classes": None, "channels_last": False}


def on_meta():
    """Without data."""
    stack = ExitStack()
    stack.enter_context(torch.device("meta"))
    stack.enter_context(SkipInitialisation())
    return stack


def as_train_py(found, context=on_meta):
    """The network that train.py builds of options: its calls, in its order."""
    args = Namespace(**(TRAIN_PYS_DEFAULTS | found))
    with context():
        model = timm.create_model(
            args.model,
            pretrained=False,
            in_chans=3,
            num_classes=args.num_classes,
            drop_rate=args.drop,
            drop_path_rate=args.drop_path,
            drop_block_rate=None,
            global_pool=None,
            bn_momentum=None,
            bn_eps=None,
            scriptable=False,
            checkpoint_path="",
            **args.model_kwargs,
        )
    if args.head_init_scale is not None:
        with torch.no_grad():
            model.get_classifier().weight.mul_(args.head_init_scale)
            model.get_classifier().bias.mul_(args.head_init_scale)
    if args.grad_checkpointing:
        model.set_grad_checkpointing(enable=True)
    return model


def dropped(model):
    """Every module's share of dropped branches and of dropped values."""
    return {
        name: (getattr(module, "drop_prob", None), getattr(module, "p", None))
        for name, module in model.named_modules()
        if hasattr(module, "drop_prob") or isinstance(module, torch.nn.Dropout)
    }


BUILT = {
    "caformer_s18": 160,
    "crossvit_9_240": 240,
    "deit_tiny_distilled_patch16_224": 160,
    "densenet121": 64,
    "efficientformerv2_s0": 160,
    "levit_128s": 160,
    "mobilevit_xxs": 128,
    "nest_tiny_jx": 160,
    "repvit_m0_9": 64,
    "rexnet_100": 64,  # drops a fifth of its features where nothing is said; train.py says 0
    "swiftformer_xs": 160,
    "vgg11": 64,
    "vit_tiny_patch16_224": 160,
    "volo_d1_224": 160,
}
"""Backbones that differ in what train.py can say to them, and an image size."""


@pytest.mark.parametrize("drop_path", [0, 0.2])
@pytest.mark.parametrize("backbone", BUILT)
def test_train_py_builds_the_network_that_automl_builds(backbone, drop_path):
    size = BUILT[backbone]
    wanted = {"drop_path": drop_path, "numerics": Numerics(grad_checkpointing=True)}
    recipe = Recipe(backbone=backbone, image_size=size, **wanted)
    theirs = as_train_py(options(recipe, LABELS))
    assert run_on_meta(theirs, size).shape == (2, 2)
    ours, _ = build_on_meta(backbone, {"img_size": size, "drop_path_rate": drop_path}, num_classes=2)
    assert dropped(theirs) == dropped(ours)
    shapes = ({name: weight.shape for name, weight in model.state_dict().items()} for model in (theirs, ours))
    assert next(shapes) == next(shapes)


@pytest.mark.parametrize(
    ("backbone", "said"),
    [
        ("vgg11", "the classifier starts from zero, as automl's does"),
        ("test_vit", "the classifier starts from zero, as automl's does"),
        ("volo_d1_224", "its second classifier starts as timm initialises it"),
        ("caformer_s18", ""),  # layers before the logits
        ("crossvit_9_240", ""),  # a classifier for each branch
        ("repvit_m0_9", ""),  # two that are averaged
        ("deit_tiny_distilled_patch16_224", ""),
    ],
)
def test_the_classifier_starts_from_zero_where_train_py_can_make_it(backbone, said):
    text = timm_yaml(Recipe(backbone=backbone), LABELS)
    assert yaml.safe_load(text).get("head_init_scale") == (0 if said else None)
    assert (said or "The classifier starts as timm initialises it, automl's from zero") in text


def test_the_scaled_classifier_gives_equal_probabilities():
    model = as_train_py(options(recipe_of(), LABELS), nullcontext).eval()
    assert not model(torch.rand(2, 3, 160, 160)).any()


@pytest.mark.slow
@settings(max_examples=12, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(recipe=RECIPES)
def test_timm_makes_optimizer_schedule_augmentation_and_mixing_of_it(recipe):
    schedule = recipe.schedule
    assume(not isinstance(schedule, Wsd) or schedule.decay > 0.02)
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


@pytest.mark.parametrize("crop", [ResizeCrop(), NativeCrop()])
def test_the_crop_resizes_the_short_side_and_takes_a_window_anywhere(crop):
    recipe = recipe_of(augmentation=Augmentation(crop=crop, horizontal_flip=0))
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


@pytest.mark.parametrize("shape", [(20, 120), (120, 20), (60, 40), (50, 50)])
def test_squashing_shows_train_py_all_of_every_image(shape):
    recipe = recipe_of(augmentation=Augmentation(crop=SquashCrop(), horizontal_flip=0))
    transform = augmentation(Namespace(**options(recipe)), 32)
    marked = np.zeros((*shape, 3), dtype=np.uint8)
    marked[: shape[0] // 8] = marked[:, -shape[1] // 8 :] = 255
    for _ in range(10):
        shown = transform(Image.fromarray(marked))[0] * 0.229 + 0.485
        assert min(shown[0].min(), shown[:, -1].min()) > 0.9
    missing, _ = not_carried_over(timm_yaml(recipe))
    assert "crop" not in missing
    assert "train.py evaluates the middle square" in timm_yaml(recipe)


@pytest.mark.parametrize(
    "schedule",
    [Cosine(warmup=0.1), OneCycle(warmup=0.3), Wsd(warmup=0.1, decay=0.4), StepLR(warmup=0.1)],
)
def test_the_schedules_follow_automls(schedule):
    recipe = recipe_of(schedule=schedule, epochs=10, learning_rate=1.0, optimizer=Sgd())
    found = Namespace(**options(recipe))
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=found.lr)
    scheduler, _ = create_scheduler_v2(optimizer, **scheduler_kwargs(found), updates_per_epoch=20)
    for step in range(0, 200, 7):
        scheduler.step_update(step)
        ours = lr_factor(schedule, step, 200)
        limit = 0.12 if isinstance(schedule, OneCycle) else 0.06  # its rise is a straight line there
        assert optimizer.param_groups[0]["lr"] == pytest.approx(ours, abs=limit), step


needs_train_py = pytest.mark.skipif(not TRAIN_PY, reason="needs TIMM_TRAIN_PY, the path of timm 1.0.31's train.py")


@needs_train_py
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(recipe=RECIPES)
def test_the_real_parser_knows_every_key(recipe, tmp_path):
    spec = importlib.util.spec_from_file_location("timm_train", TRAIN_PY)
    train = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(train)
    path = Path(tmp_path, "recipe.yaml")
    path.write_text(timm_yaml(recipe, LABELS, data_dir=Path("data")))
    known = {action.dest for action in train.parser._actions}
    wanted = yaml.safe_load(path.read_text())
    assert wanted.keys() <= known
    train.parser.set_defaults(**wanted)
    found = vars(train.parser.parse_args([]))
    assert {name: found[name] for name in wanted} == wanted


@needs_train_py
@pytest.mark.parametrize("backbone", ["caformer_s18", "densenet121", "repvit_m0_9", "test_vit"])
def test_the_real_script_trains_and_evaluates(backbone, tmp_path):
    for number in range(12):
        folder = tmp_path / "data" / ("train" if number < 8 else "val") / LABELS.classes[number % 2].replace(": #", "")
        folder.mkdir(parents=True, exist_ok=True)
        Image.effect_noise((70, 70), 60).convert("RGB").save(folder / f"{number}.png")
    values = {"epochs": 1, "batch_size": 4, "drop_path": 0.1, "numerics": Numerics(grad_checkpointing=True)}
    recipe = Recipe(backbone=backbone, image_size=64, pretrained=False, **values)
    (tmp_path / "recipe.yaml").write_text(timm_yaml(recipe, LABELS, data_dir=tmp_path / "data"))
    command = [sys.executable, TRAIN_PY, "--config", "recipe.yaml", "--device", "cpu", "--workers", "0"]
    command += ["--output", str(tmp_path / "output")]
    ran = subprocess.run(command, cwd=tmp_path, text=True, capture_output=True)
    assert ran.returncode == 0, textwrap.shorten(ran.stderr[-3000:], 3000)
    assert '"validation"' in ran.stdout.partition("--result")[2]


@pytest.mark.parametrize("seed", range(30))
def test_recipes_of_the_shipped_space(seed):
    trial = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed)).ask()
    values = load_space("image").suggest_recipe(trial, backbones=3, self_blend=True)
    recipe = Recipe.from_mapping({**values, "backbone": BACKBONES[values["backbone"]]})
    text = timm_yaml(recipe, LABELS)
    assert yaml.safe_load(text)["lr"] == recipe.learning_rate
    assert all(name in text for name in flatten_values(recipe.model_dump()))
