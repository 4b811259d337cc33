import pickle
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from automl.backbones import weights as model_module
from automl.backbones.input import read_preprocessing
from automl.backbones.timm_model import has_drop_path
from automl.backbones.weights import Weights, find_cheapest, find_weights, list_places, make_model
from automl.errors import RecipeError, WeightsError
from automl.recipe import Numerics, Recipe


def recipe_of(backbone="test_resnet", size=64, **values):
    return Recipe(backbone=backbone, image_size=size, **values)


def weights_of(folder, backbone="test_resnet", stem=None, **arguments):
    """A file as `--weights-dir` holds them, and what is in it."""
    torch.manual_seed(7)
    state = timm.create_model(backbone, **arguments).state_dict()
    path = folder / f"{stem or backbone}.safetensors"
    save_file({name: value.contiguous() for name, value in state.items()}, path)
    return path, state


@pytest.mark.parametrize("stem", ["test_resnet", "test_resnet.r160_in1k"])
@pytest.mark.parametrize("backbone", ["test_resnet", "test_resnet.r160_in1k"])
def test_a_file_with_or_without_its_tag_is_found_and_loaded(tmp_path, stem, backbone):
    path, state = weights_of(tmp_path, stem=stem)
    found = find_weights(backbone, tmp_path, hub=False)
    if stem == "test_resnet.r160_in1k" and backbone == "test_resnet":
        assert found is None  # which tag is meant is not said
        return
    assert found == Weights("file", path)
    model = make_model(recipe_of(backbone), 3, found)
    assert torch.equal(model.state_dict()["conv1.0.weight"], state["conv1.0.weight"])
    assert model(torch.zeros(2, 3, 64, 64)).shape == (2, 3)


def test_the_file_comes_before_the_cache_and_the_cache_before_the_hub(tmp_path, monkeypatch):
    cached = []
    monkeypatch.setattr(model_module, "_in_hub_cache", lambda hub_id: cached.append(hub_id) or len(cached) < 2)
    path, _ = weights_of(tmp_path)
    assert find_weights("test_resnet", tmp_path, hub=True) == Weights("file", path)
    assert not cached
    assert find_weights("test_vit", tmp_path, hub=True) == Weights("cache")
    assert find_weights("test_vit", tmp_path, hub=True) == Weights("hub")
    assert find_weights("test_vit", tmp_path, hub=False) is None
    assert find_weights("test_vit", None, hub=False) is None


def test_the_cheapest_on_this_machine_is_found(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(model_module, "hub_reachable", lambda: False)
    with pytest.raises(
        WeightsError, match=r"no pretrained weights in the hub's cache, and the hub is out of reach; give"
    ):
        find_cheapest(None)
    with pytest.raises(WeightsError, match=r"--weights-dir nowhere is not a folder"):
        find_cheapest(Path("nowhere"))
    paths = {name: tmp_path / f"{name}.safetensors" for name in ("test_resnet", "resnet50", "mobilenetv2_100")}
    for name in paths:  # from the one that is taken last to the first
        save_file({"a": torch.zeros(1)}, paths[name])
        backbone, weights = find_cheapest(tmp_path)
        assert backbone.startswith(f"{name}.")
        assert weights == Weights("file", paths[name])
    monkeypatch.setattr(model_module, "hub_reachable", lambda: True)
    assert find_cheapest(None) == ("mobilenetv2_100.ra_in1k", Weights("hub"))


def test_the_exact_name_comes_before_the_architecture(tmp_path):
    weights_of(tmp_path)
    path, _ = weights_of(tmp_path, stem="test_resnet.r160_in1k")
    assert find_weights("test_resnet.r160_in1k", tmp_path, hub=False) == Weights("file", path)


def test_a_file_without_a_tag_is_not_another_tags(tmp_path):
    weights_of(tmp_path, stem="resnet18")  # stands for the default tag
    assert find_weights("resnet18.fb_swsl_ig1b_ft_in1k", tmp_path, hub=False) is None
    assert find_weights("resnet18.a1_in1k", tmp_path, hub=False) is not None


def test_a_backbone_without_weights_has_none(tmp_path):
    assert find_weights("no_such_net", tmp_path, hub=True) is None


@pytest.mark.parametrize(
    "content",
    [b"", b"no weights", pickle.dumps({"conv1": 1}), b"\xff" * 64],
    ids=["empty", "text", "pickle", "garbage"],
)
def test_a_file_that_is_no_safetensors_is_named(tmp_path, content):
    path = tmp_path / "test_resnet.safetensors"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=r"test_resnet\.safetensors is not a readable safetensors file"):
        find_weights("test_resnet", tmp_path, hub=False)
    with pytest.raises(WeightsError, match=r"cannot load weights of test_resnet from .*test_resnet\.safetensors"):
        make_model(recipe_of(), 2, Weights("file", path))


def test_a_file_cut_short_is_named(tmp_path):
    path, _ = weights_of(tmp_path)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(WeightsError, match="not a readable safetensors"):
        find_weights("test_resnet", tmp_path, hub=False)


HUB_LAYOUTS = (
    "test_resnet.r160_in1k/model.safetensors",
    "models--timm--test_resnet.r160_in1k/snapshots/0123abc/model.safetensors",
)


@pytest.mark.parametrize("layout", HUB_LAYOUTS)
@pytest.mark.parametrize("backbone", ["test_resnet", "test_resnet.r160_in1k"])
def test_a_folder_as_the_hub_has_it_is_found_and_loaded(tmp_path, layout, backbone):
    path = tmp_path / layout
    path.parent.mkdir(parents=True)
    made, state = weights_of(tmp_path)
    made.rename(path)
    found = find_weights(backbone, tmp_path, hub=False)
    assert found == Weights("file", path)
    model = make_model(recipe_of(backbone), 3, found)
    assert torch.equal(model.state_dict()["conv1.0.weight"], state["conv1.0.weight"])
    assert find_weights("test_vit", tmp_path, hub=False) is None


def test_a_repository_of_somebody_else_is_found_by_its_own_name(tmp_path):
    places = list_places("vit_small_patch16_lingbot.robbyant")
    assert places[-1] == "models--belfner--vit_small_patch16_lingbot.robbyant/snapshots/*/model.safetensors"
    assert places[0] == "vit_small_patch16_lingbot.robbyant.safetensors"


@pytest.mark.parametrize(
    "name",
    [
        "test_resnet.pth",
        "test_resnet.r160_in1k.bin",
        "test_resnet.r160_in1k/pytorch_model.bin",
        "models--timm--test_resnet.r160_in1k/snapshots/0123abc/pytorch_model.bin",
    ],
)
def test_a_pickle_in_the_place_of_weights_is_refused(tmp_path, name):
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps({"conv1": 1}))
    with pytest.raises(WeightsError, match=rf"{path.name} is a pickle.*test_resnet\.r160_in1k\.safetensors"):
        find_weights("test_resnet.r160_in1k", tmp_path, hub=True)
    safe, _ = weights_of(tmp_path)
    assert find_weights("test_resnet.r160_in1k", tmp_path, hub=True) == Weights("file", safe)


@pytest.mark.parametrize("other", ["test_vit", "test_resnet_wide"])
def test_weights_of_another_backbone_are_refused(tmp_path, other):
    if other == "test_vit":
        path, _ = weights_of(tmp_path, "test_vit", stem="test_resnet")
    else:
        state = timm.create_model("test_resnet").state_dict()
        path = tmp_path / "test_resnet.safetensors"
        save_file({name: torch.cat([value, value]) if value.ndim else value for name, value in state.items()}, path)
    with pytest.raises(WeightsError, match="cannot load weights of test_resnet"):
        make_model(recipe_of(), 2, Weights("file", path))


@pytest.mark.parametrize(
    ("name", "near"), [("resnet81", "resnet"), ("test_vitt", "test_vit"), ("convnext_tinyy", "convnext_tiny")]
)
def test_an_unknown_backbone_names_the_nearest(name, near):
    with pytest.raises(RecipeError, match=rf"timm has no backbone '{name}'; did you mean '{near}"):
        make_model(recipe_of(name), 2)
    with pytest.raises(RecipeError, match=r"timm has no backbone 'qqqqzzzz'; .automl backbones. lists"):
        make_model(recipe_of("qqqqzzzz"), 2)


@pytest.mark.parametrize("backbone", ["test_vit", "test_resnet", "test_byobnet", "test_convnext"])
@pytest.mark.parametrize("size", [32, 96])
def test_every_kind_of_backbone_takes_the_image_size_drop_path_and_weights(tmp_path, backbone, size):
    path, _ = weights_of(tmp_path, backbone)
    model = make_model(recipe_of(backbone, size, drop_path=0.1), 4, Weights("file", path))
    assert model(torch.randn(2, 3, size, size)).shape == (2, 4)


def test_an_image_size_that_the_backbone_refuses_is_told(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("image size 50 must be divisible by 32\nmore")

    monkeypatch.setattr("automl.backbones.timm_model.create_model", refuse)
    with pytest.raises(RecipeError, match=r"cannot build test_vit at 50 px: image size 50 must be divisible by 32$"):
        make_model(recipe_of("test_vit", 50), 2)


def test_a_new_classifier_does_not_shout():
    torch.manual_seed(0)
    logits = make_model(recipe_of(), 2)(torch.randn(8, 3, 64, 64))
    assert float(logits.detach().abs().max()) < 0.1


def test_preprocessing_is_the_weights_own():
    found = read_preprocessing(make_model(recipe_of("test_vit"), 2))
    cfg = timm.get_pretrained_cfg("test_vit")
    assert (found.mean, found.std, found.interpolation) == (cfg.mean, cfg.std, cfg.interpolation)


def test_gradient_checkpointing_is_switched_on_and_changes_no_gradient():
    images = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    gradients = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        numerics = Numerics(grad_checkpointing=checkpointing)
        model = make_model(Recipe(backbone="test_vit", image_size=64, numerics=numerics), 2)
        assert model.grad_checkpointing is checkpointing
        model(images)[:, 0].sum().backward()
        gradients.append([p.grad for p in model.parameters() if p.grad is not None])
    assert len(gradients[0]) == len(gradients[1]) > 10
    assert all(torch.equal(one, other) for one, other in zip(*gradients, strict=True))


def test_a_model_without_gradient_checkpointing_is_told():
    with pytest.raises(
        RecipeError, match=r"dla34 has no gradient checkpointing: numerics.grad_checkpointing must be false"
    ):
        make_model(recipe_of("dla34", numerics=Numerics(grad_checkpointing=True)), 2)


@pytest.mark.parametrize("backbone", ["vgg11", "repghostnet_050"])
def test_a_drop_path_that_the_backbone_does_not_have_is_an_error(backbone):
    with pytest.raises(RecipeError, match=rf"{backbone} has no stochastic depth: drop_path must be 0, got 0.2"):
        make_model(recipe_of(backbone, drop_path=0.2), 2)


def test_a_drop_path_of_zero_is_zero_where_timm_has_another_default():
    assert has_drop_path(timm.create_model("nest_tiny_jx", img_size=64))
    assert not has_drop_path(make_model(recipe_of("nest_tiny_jx", 64), 2))


def test_weights_of_another_image_size_name_the_first_tensor(tmp_path):
    """levit's attention biases are as many as there are positions; the first line of torch's error names none."""
    state = timm.create_model("levit_128s").state_dict()
    path = tmp_path / "levit_128s.safetensors"
    save_file({name: value.clone() for name, value in state.items()}, path)
    with pytest.raises(
        WeightsError, match=r"at 64 px: size mismatch for \S*attention_bias\S*: copying a param .* \(and \d+ more\)$"
    ):
        make_model(recipe_of("levit_128s", 64), 2, Weights("file", path))


def test_weights_whose_configuration_says_numpy_are_read_as_safetensors(tmp_path, monkeypatch):
    """timm before 1.0.31 says so of 45 models (ViT augreg, BiT, hybrids), whatever file it is given."""
    state = timm.create_model("vit_tiny_patch16_224", img_size=32).state_dict()
    path = tmp_path / "vit_tiny_patch16_224.safetensors"
    save_file({name: value.clone() for name, value in state.items()}, path)
    cfg = timm.get_pretrained_cfg("vit_tiny_patch16_224")
    monkeypatch.setattr(cfg, "custom_load", True)
    monkeypatch.setattr("timm.models.get_pretrained_cfg", lambda *_, **__: cfg)
    model = make_model(recipe_of("vit_tiny_patch16_224", 32), 2, Weights("file", path))
    assert torch.equal(model.state_dict()["blocks.0.attn.qkv.weight"], state["blocks.0.attn.qkv.weight"])


def test_the_configuration_of_a_model_does_not_hold_its_weights(tmp_path):
    path, _ = weights_of(tmp_path)
    model = make_model(recipe_of(), 2, Weights("file", path))
    assert not model.pretrained_cfg.get("state_dict")
    assert not model.default_cfg.get("state_dict")
