import ast
import importlib.util
import os
import re
import subprocess
import sys
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import timm
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file, save_file
from sklearn.metrics import roc_auc_score

from automl.backbones.heads import freeze_backbone
from automl.backbones.weights import make_model
from automl.data.cache import build_cache
from automl.data.dataset import Dataset
from automl.data.loader import ImageData
from automl.data.self_blend import random_mask
from automl.data.transforms import eval_transform, train_transform
from automl.errors import RecipeError
from automl.exporters.python_script import python_script
from automl.media.images import read_pixels
from automl.recipe import Numerics, Recipe
from automl.recipe.augmentation import (
    Augmentation,
    AugMix,
    AutoAugment,
    ColorJitter,
    NativeCrop,
    NoPolicy,
    RandAugment,
    RandomAffine,
    RandomResizedCrop,
    ResizeCrop,
    SquashCrop,
    TrivialAugment,
)
from automl.recipe.learning import Cosine, CrossEntropy, CutMix, Focal, Mixup, OneCycle, Sgd, StepLR, Wsd
from automl.training.fit import fit
from automl.training.metrics import compute_metric
from automl.training.optimizer import make_optimizer
from automl.training.schedule import SCHEDULES, lr_factor
from tests.fixtures.recipes import IMAGE_RECIPES

CLASSES = ("real", "fake")
FULL = Augmentation(
    crop=RandomResizedCrop(),
    vertical_flip=0.5,
    affine=RandomAffine(shear_degrees=5, translate=0.1),
    color=ColorJitter(hue=0.1),
    grayscale=0.5,
    blur=0.5,
    jpeg=0.5,
    downscale=0.5,
    policy=RandAugment(),
    erasing=0.5,
)
PLAIN = Recipe(backbone="test_byobnet", image_size=32, epochs=2, batch_size=8, learning_rate=5e-3)
RICH = Recipe(
    backbone="test_vit",
    image_size=32,
    drop_path=0.1,
    augmentation=FULL.model_copy(update={"crop": NativeCrop()}),
    mixing=CutMix(),
    loss=Focal(alpha=0.5, smoothing=0.1),
    optimizer=Sgd(),
    schedule=Wsd(),
    learning_rate=0.02,
    layer_decay=0.9,
    head_lr_factor=3,
    clip_norm=1,
    freeze_epochs=0.5,
    ema_decay=0.99,
    batch_size=12,
    epochs=2.5,
    numerics=Numerics(memory_format="channels_last", micro_batch_size=5, grad_checkpointing=True),
)
BALANCED = PLAIN.model_copy(
    update={
        "loss": CrossEntropy(class_weights="balanced", smoothing=0.1),
        "mixing": Mixup(),
        "numerics": Numerics(precision="bf16"),
    }
)
WHOLE = PLAIN.model_copy(update={"augmentation": Augmentation(crop=SquashCrop())})
IMPORTS = {"argparse", "concurrent", "contextlib", "csv", "functools", "io", "math", "pathlib", "warnings"}
IMPORTS |= {"numpy", "PIL", "safetensors", "timm", "torch", "torchvision"}
RECIPES = st.builds(lambda recipe: recipe.model_copy(update={"backbone": "test_vit"}), IMAGE_RECIPES)


def text_of(recipe, real_class=0, **values):
    given_ = {"classes": CLASSES, "positive": 1, "decode_size": 48, "samples": None, "weights": None}
    return python_script(recipe, real_class=real_class, **(given_ | values))


def module_of(text, folder):
    path = folder / "script.py"
    path.write_text(text, encoding="utf-8")
    spec = importlib.util.spec_from_file_location("exported", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def samples_of(folder, train=40, validation=20):
    """Noise, a little brighter where it is fake; files of all kinds, and a split that is not looked at."""
    random = np.random.default_rng(0)
    rows = []
    for i in range(train + validation + 2):
        label = int(i % 3 == 0)
        height, width = random.integers(40, 130, 2)
        pixels = random.integers(0, 160, (height, width, 3)) + 20 * label
        mode = ("RGB", "L", "RGBA")[i % 7] if i % 7 < 3 else "RGB"
        path = folder / f"{i:03d}.png"
        Image.fromarray(pixels.astype(np.uint8)).convert(mode).save(path)
        split = "train" if i < train else "validation" if i < train + validation else "holdout"
        rows.append({"path": str(path), "name": path.name, "label": label, "group": str(path), "split": split})
    pd.DataFrame(rows).to_csv(folder / "samples.csv", index=False)
    return Dataset(folder, "folder", pd.DataFrame(rows), CLASSES, 0, 1, (), "noise")


# --- the text ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
@settings(max_examples=30, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(recipe=RECIPES, real_class=st.sampled_from([0, None]))
def test_every_recipes_script_compiles_and_imports_nothing_of_automl(recipe, real_class):
    tree = ast.parse(text_of(recipe, real_class))
    imported = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported |= {alias.name.partition(".")[0] for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            imported.add(node.module.partition(".")[0])
    assert imported <= IMPORTS


def test_ruff_finds_nothing(tmp_path):
    recipes = {"plain": PLAIN, "rich": RICH, "balanced": BALANCED, "whole": WHOLE}
    for (name, recipe), blend, kind in product(recipes.items(), (0, 0.5), (Cosine(), OneCycle(), StepLR(), Wsd())):
        augmentation = recipe.augmentation.model_copy(update={"self_blend": blend})
        text = text_of(recipe.model_copy(update={"augmentation": augmentation, "schedule": kind}))
        (tmp_path / f"{name}_{blend}_{kind.name}.py").write_text(text)
    assert len([*tmp_path.glob("*.py")]) == 32
    ruff = [sys.executable, "-m", "ruff", "check", "--isolated", "--no-cache", "--line-length=120"]
    checked = subprocess.run([*ruff, "--select=E,F,W,I,B,UP", tmp_path], text=True, capture_output=True)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_only_what_the_recipe_uses_is_in_the_script():
    plain, rich = text_of(PLAIN), text_of(RICH)
    for word in (
        "MixUp",
        "CutMix",
        "ema",
        "Focal",
        "autocast",
        "scaler",
        "clip_grad",
        "freeze",
        "jpeg",
        "checkpointing",
    ):
        assert word not in plain, word
    for word in (
        "CutMix",
        "ModelEmaV3",
        "class FocalLoss",
        "clip_grad_norm_",
        "freeze_backbone(model, step",
        "jpeg",
        "HEAD_LR_FACTOR = 3",
        "checkpointing(True)",
    ):
        assert word in rich, word
    assert len(plain.splitlines()) < 500


def test_odd_names_and_paths_are_quoted(tmp_path):
    names = ('a "quoted" one', "it's", "back\\slash")
    module = module_of(text_of(PLAIN, classes=names, samples=Path('/tmp/a "b".csv')), tmp_path)
    assert names == module.CLASSES
    assert str(module.SAMPLES) == '/tmp/a "b".csv'
    many = tuple(f"class number {k}" for k in range(300))
    assert many == module_of(text_of(PLAIN, classes=many), tmp_path).CLASSES
    with pytest.raises(RecipeError, match="timm has no backbone"):
        text_of(Recipe(backbone='x"""; import os'))


def test_without_a_real_class_nothing_is_blended():
    recipe = PLAIN.model_copy(update={"augmentation": Augmentation(self_blend=0.5)})
    assert "self_blend(" in text_of(recipe)
    assert "self_blend(" not in text_of(recipe, None)


# --- its parts against automl's ---------------------------------------------------------------------------------


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_auc_is_scikit_learns(tmp_path, data):
    count = data.draw(st.integers(2, 60))
    scores = np.array(data.draw(st.lists(st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0]), min_size=count, max_size=count)))
    labels = np.array(data.draw(st.lists(st.integers(0, 2), min_size=count, max_size=count)))
    labels[:2] = 0, 1
    module = module_of(text_of(PLAIN), tmp_path)
    assert module.auc(labels == 1, scores) == pytest.approx(roc_auc_score(labels == 1, scores))
    probabilities = np.random.default_rng(0).dirichlet(np.ones(3), count)
    three = module_of(text_of(PLAIN, classes=("a", "b", "c")), tmp_path)
    assert three.mean_auc(labels, probabilities) == pytest.approx(compute_metric("auc", labels, probabilities))


@pytest.mark.parametrize("kind", [Cosine(), OneCycle(), StepLR(), Wsd()], ids=lambda k: k.name)
@pytest.mark.parametrize("warmup", [0, 0.3, 1])
def test_the_schedule_is_automls(tmp_path, kind, warmup):
    schedule = kind.model_copy(update={"warmup": warmup})
    module = module_of(text_of(PLAIN.model_copy(update={"schedule": schedule})), tmp_path)
    factor = getattr(module, SCHEDULES[type(schedule)].__name__)
    for steps in (1, 2, 7, 100):
        for step in range(steps):
            assert factor(step, steps, **module.SCHEDULE) == lr_factor(schedule, step, steps), (step, steps)


POLICIES = [NoPolicy(), AutoAugment(), RandAugment(), TrivialAugment(), AugMix()]


@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: policy.name)
@pytest.mark.parametrize(
    "crop",
    [ResizeCrop(), RandomResizedCrop(), NativeCrop(), SquashCrop()],
    ids=lambda crop: crop.name,
)
def test_the_augmentation_is_automls(tmp_path, policy, crop):
    wanted = FULL.model_copy(update={"policy": policy, "crop": crop})
    module = module_of(text_of(PLAIN.model_copy(update={"augmentation": wanted})), tmp_path)
    pixels = np.random.default_rng(1).integers(0, 255, (50, 70, 3), np.uint8)
    images = module.TrainImages([pixels] * 12, [0] * 12, 5, module.v2.InterpolationMode.BICUBIC)
    ours = train_transform(wanted, 32)
    for position in range(12):
        theirs, label = images[3, position]
        torch.manual_seed(int(np.random.SeedSequence([5, 3, position]).generate_state(1)[0]))
        assert torch.equal(theirs, ours(pixels))
        assert label == 0


def test_masks_without_scipy_are_like_those_with(tmp_path):
    recipe = PLAIN.model_copy(update={"augmentation": Augmentation(self_blend=0.5)})
    module = module_of(text_of(recipe), tmp_path)
    for seed in range(20):
        theirs, ours = (draw(48, 40, np.random.default_rng(seed)) for draw in (module.random_mask, random_mask))
        assert theirs.shape == ours.shape
        assert abs(theirs - ours).mean() < 0.01, seed
    pixels = np.random.default_rng(1).integers(0, 255, (48, 40, 3), np.uint8)
    assert (module.self_blend(pixels, np.random.default_rng(0)) != pixels).any()


NETWORKS = ["caformer_s18", "crossvit_9_240", "levit_128s", "nest_tiny_jx", "repvit_m0_9", "volo_d1_224"]
"""Heads of several layers and several classifiers, a default drop path, none at all, a second head."""


def network_recipe(backbone, **values):
    size = 240 if backbone == "crossvit_9_240" else 160
    return Recipe(backbone=backbone, image_size=size, pretrained=False, **values)


def dropped(model):
    return {name: module.drop_prob for name, module in model.named_modules() if hasattr(module, "drop_prob")}


@pytest.mark.parametrize(
    ("backbone", "drop_path"),
    [(name, value) for name in NETWORKS for value in (0, 0.2) if not value or name != "repvit_m0_9"],
)
def test_the_network_is_automls(tmp_path, backbone, drop_path):
    """Weights of the same seed, those of the classifier that are zero, and drop path."""
    recipe = network_recipe(backbone, drop_path=drop_path)
    module = module_of(text_of(recipe), tmp_path)
    torch.manual_seed(0)
    theirs = module.make_model(None)
    torch.manual_seed(0)
    ours = make_model(recipe, 2)
    torch.testing.assert_close(theirs.state_dict(), ours.state_dict(), rtol=0, atol=0)
    assert dropped(theirs) == dropped(ours)


@pytest.mark.parametrize("backbone", ["caformer_s18", "crossvit_9_240", "test_vit", "volo_d1_224"])
def test_what_is_frozen_and_learns_faster_is_what_is_in_automl(tmp_path, backbone):
    recipe = network_recipe(backbone, freeze_epochs=0.5, head_lr_factor=3, weight_decay=0.1)
    module = module_of(text_of(recipe), tmp_path)
    ours, theirs = make_model(recipe, 2), module.make_model(None)
    freeze_backbone(ours, True)
    module.freeze_backbone(theirs, True)
    learning = [{name for name, p in model.named_parameters() if p.requires_grad} for model in (ours, theirs)]
    assert learning[0] == learning[1]
    if backbone == "volo_d1_224":
        assert {"head.weight", "aux_head.weight"} <= learning[0]
    freeze_backbone(ours, False)
    module.freeze_backbone(theirs, False)
    assert rates(theirs, module.make_optimizer(theirs)) == rates(ours, make_optimizer(recipe, ours))


def rates(model, optimizer):
    """The learning rate and the weight decay of every parameter."""
    of = {id(p): (group["lr"], group["weight_decay"]) for group in optimizer.param_groups for p in group["params"]}
    return {name: of[id(parameter)] for name, parameter in model.named_parameters()}


def test_what_a_backbone_lacks_is_left_out_and_said(tmp_path):
    text = text_of(Recipe(backbone="vgg11", drop_path=0.2, numerics=Numerics(grad_checkpointing=True)))
    assert "drop_path_rate" not in text
    assert "set_grad_checkpointing" not in text
    assert "drop path of 0.2 is left out: this backbone has no stochastic depth" in text
    assert "gradient checkpointing is left out" in text
    assert "drop" not in text_of(Recipe(backbone="vgg11")).replace("a last, smaller batch is dropped", "")


def test_weights_are_given_as_tensors_and_forgotten(tmp_path, monkeypatch):
    """timm calls this backbone's weights a file of NumPy's, and some of its versions then read any file so."""
    recipe = Recipe(backbone="vit_tiny_patch16_224.augreg_in21k_ft_in1k", image_size=64)
    source = timm.create_model("vit_tiny_patch16_224", img_size=64)
    save_file(source.state_dict(), tmp_path / "weights.safetensors")
    module = module_of(text_of(recipe, weights=tmp_path / "weights.safetensors"), tmp_path)
    given_, create = [], timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda *args, **kwargs: given_.append(kwargs) or create(*args, **kwargs))
    model = module.make_model(module.WEIGHTS)
    assert [list(kwargs["pretrained_cfg_overlay"]) for kwargs in given_] == [["state_dict"]]
    assert torch.equal(model.blocks[3].attn.qkv.weight, source.blocks[3].attn.qkv.weight)
    assert not model.head.weight.any()
    assert "state_dict" not in model.pretrained_cfg
    other = {f"other.{name}": weight for name, weight in source.state_dict().items()}
    save_file(other, tmp_path / "weights.safetensors")
    with pytest.raises(SystemExit, match=r"holds 0 of the backbone's \d+ tensors"):
        module.make_model(module.WEIGHTS)


# --- the whole --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("recipe", [PLAIN, RICH, BALANCED], ids=["plain", "rich", "balanced"])
def test_the_script_trains_what_fit_trains(tmp_path, monkeypatch, capsys, recipe):
    """Decoding, order, augmentation, mixing, loss, optimizer, schedule, averaging, evaluation: one difference shows."""
    recipe = recipe.model_copy(update={"pretrained": False, "seed": 3})
    dataset = samples_of(tmp_path)
    wanted = fit(recipe, ImageData(dataset, build_cache(dataset, 48)))
    module = module_of(text_of(recipe, samples=tmp_path / "samples.csv"), tmp_path)
    monkeypatch.setattr(sys, "argv", ["script.py", "--out", str(tmp_path / "out.safetensors"), "--device", "cpu"])
    module.main()
    printed = capsys.readouterr().out
    auc, accuracy = (float(re.search(rf"{name} ([\d.]+)", printed)[1]) for name in ("auc", "accuracy"))
    assert auc == pytest.approx(wanted.history[-1].metrics["auc"], abs=0.011)
    assert accuracy == pytest.approx(wanted.history[-1].metrics["accuracy"], abs=0.051)
    state = load_file(tmp_path / "out.safetensors")
    torch.testing.assert_close(state, wanted.model.state_dict(), rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_the_script_runs_alone(tmp_path):
    """In a process of its own, with self-blending, a file that is broken, and weights from a file."""
    samples_of(tmp_path, train=12, validation=6)
    (tmp_path / "003.png").write_bytes(b"no image")
    source = module_of(text_of(PLAIN.model_copy(update={"pretrained": False})), tmp_path)
    weights = tmp_path / "weights.safetensors"
    source.save_file(timm.create_model("test_byobnet").state_dict(), weights)
    recipe = PLAIN.model_copy(update={"augmentation": Augmentation(self_blend=0.5)})
    script = tmp_path / "train.py"
    script.write_text(text_of(recipe, weights=weights), encoding="utf-8")
    command = [sys.executable, "-W", "error::DeprecationWarning:__main__", str(script), "--samples", "samples.csv"]
    command += ["--epochs", "1", "--seed", "2", "--out", "out.safetensors", "--device", "cpu"]
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    ran = subprocess.run(command, cwd=tmp_path, env=environment, text=True, capture_output=True)
    assert ran.returncode == 0, ran.stderr
    assert "left out: " in ran.stdout
    assert re.search(r"validation auc [01]\.\d+ accuracy [01]\.\d+", ran.stdout)
    assert load_file(tmp_path / "out.safetensors")


@pytest.mark.parametrize("shape", [(480, 80), (80, 480), (2000, 40), (90, 70), (30, 20)])
def test_a_squashed_image_is_automls_from_the_file_on(tmp_path, shape):
    augmentation = Augmentation(crop=SquashCrop(), horizontal_flip=0)
    module = module_of(text_of(PLAIN.model_copy(update={"augmentation": augmentation})), tmp_path)
    pixels = np.random.default_rng(0).integers(0, 120, (*shape, 3), dtype=np.uint8)
    (pixels if shape[0] > shape[1] else pixels.swapaxes(0, 1))[: max(shape) // 6] = 255
    Image.fromarray(pixels).save(tmp_path / "x.png")
    image = module.decode(tmp_path / "x.png")
    assert (image == read_pixels(tmp_path / "x.png", 48)).all()
    for random, ours in ((True, train_transform(augmentation, 32)), (False, eval_transform(augmentation, 32))):
        theirs = module.seen(image, 32, module.v2.InterpolationMode.BICUBIC, random=random)
        assert torch.equal(theirs, ours(image))
        assert theirs.max() == 255
