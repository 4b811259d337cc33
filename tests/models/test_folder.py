import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from automl.backbones.input import InputSpec
from automl.backbones.tuning import LowRankChange
from automl.backbones.weights import Weights, digest_file, make_model
from automl.errors import AutomlError, RecipeError, WeightsError
from automl.models.folder import BaseWeights, Labels, read_members, read_model, write_ensemble, write_model
from automl.recipe import Recipe
from tests.fixtures.models import SIZE, write


def test_a_folder_is_read_back_as_it_was_written(model):
    found = read_model(model.path)
    assert found == model
    images = torch.rand(2, 3, SIZE, SIZE)
    with torch.no_grad():
        logits = found.load()(images)
        assert logits.shape == (2, 2)
        assert torch.equal(logits, read_model(model.path).load()(images))
    assert not found.load().training
    assert (model.path / "README.md").read_text() == "# card\n"


TUNED = {
    "norms": {"tune": {"name": "norms"}, "head": {"name": "l2"}},
    "lora": {"tune": {"name": "lora", "rank": 2}},
    "tokens": {"tune": {"name": "last"}, "pooling": "cls_avg"},
}


def write_tuned(folder, whole=False, **values):
    """A model of which a part was trained; returns it, its network, and the folder of its pretrained weights."""
    recipe = Recipe.from_mapping({"backbone": "test_vit", "image_size": SIZE, **values})
    weights_dir = folder / "weights"
    weights_dir.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(1)
    file = weights_dir / "test_vit.safetensors"
    save_file(make_model(Recipe(backbone="test_vit", image_size=SIZE), 1000).state_dict(), file)
    network = make_model(recipe, 2, Weights("file", file))
    for parameter in network.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.2)
    base = None if whole else BaseWeights("test_vit", digest_file(file))
    inputs, labels = InputSpec(40, SIZE, (0.5,) * 3, (0.5,) * 3, "bicubic"), Labels(("a", "b"), 1, (0.5, 0.5))
    return write_model(folder / "model", network, recipe, inputs, labels, {}, "# card\n", base), network, weights_dir


@pytest.mark.parametrize("name", TUNED)
@pytest.mark.parametrize("whole", [False, True])
def test_a_part_that_was_trained_is_read_back_with_the_weights_it_belongs_to(tmp_path, monkeypatch, name, whole):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    written, network, weights_dir = write_tuned(tmp_path, whole, **TUNED[name])
    found = read_model(written.path, None if whole else weights_dir)
    images = torch.rand(2, 3, SIZE, SIZE)
    with torch.no_grad():
        assert torch.allclose(found.load()(images), network.eval()(images), atol=1e-6)
    assert not any(isinstance(module, LowRankChange) for module in found.load().modules())
    held = load_file(written.path / "model.safetensors")
    pretrained = load_file(weights_dir / "test_vit.safetensors")
    kept = sum(tensor.numel() for tensor in held.values()) / sum(tensor.numel() for tensor in pretrained.values())
    assert (kept < 0.3) is not whole
    assert (written.path / "base.json").exists() is not whole


def test_a_part_without_its_weights_says_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    written, _, weights_dir = write_tuned(tmp_path, **TUNED["norms"])
    with pytest.raises(WeightsError, match=r"trained of test_vit alone, .* out of reach; give --weights-dir .*--merge"):
        read_model(written.path).load()
    torch.manual_seed(2)
    other = make_model(Recipe(backbone="test_vit", image_size=SIZE), 1000).state_dict()
    save_file(other, weights_dir / "test_vit.safetensors")
    with pytest.raises(WeightsError, match=r"test_vit\.safetensors has other weights than those it was trained from"):
        read_model(written.path, weights_dir).load()


def test_a_part_that_lacks_something_is_damaged(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    written, _, weights_dir = write_tuned(tmp_path, **TUNED["norms"])
    held = load_file(written.path / "model.safetensors")
    name = next(name for name in held if "norm" in name)
    save_file({key: tensor for key, tensor in held.items() if key != name}, written.path / "model.safetensors")
    with pytest.raises(WeightsError, match=f"it has no {name}"):
        read_model(written.path, weights_dir).load()


def test_names_of_classes_survive(tmp_path):
    names = ('é"\\', "a,b\n", "日本", "-")
    assert read_model(write(tmp_path / "m", classes=names).path).labels.classes == names


def test_a_folder_from_before_the_genuine_class_was_noted_is_read(tmp_path):
    model = write(tmp_path / "m", real_class=0)
    assert read_model(model.path).labels.real_class == 0
    file = model.path / "labels.json"
    file.write_text(json.dumps({k: v for k, v in json.loads(file.read_text()).items() if k != "real_class"}))
    assert read_model(model.path).labels.real_class is None


@pytest.mark.parametrize("name", ["recipe.yaml", "preprocessing.json", "labels.json", "metrics.json"])
@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "binary", "list"])
def test_a_damaged_part_is_named(model, name, damage):
    file = model.path / name
    content = file.read_bytes()
    if damage == "missing":
        file.unlink()
    else:
        damaged = {"empty": b"", "cut": content[: len(content) // 2], "binary": b"\xff\x00\xfe", "list": b"[1]"}
        file.write_bytes(damaged[damage] if name != "recipe.yaml" or damage != "cut" else b"backbone: [a")
    with pytest.raises(AutomlError, match=name.replace(".", r"\.")):
        read_model(model.path)


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("preprocessing.json", "mean", [0.5]),
        ("preprocessing.json", "image_size", "big"),
        ("labels.json", "classes", "fake"),
        ("labels.json", "positive", None),
    ],
)
def test_a_wrong_value_is_named(model, name, key, value):
    file = model.path / name
    file.write_text(json.dumps(json.loads(file.read_text()) | {key: value}))
    with pytest.raises(WeightsError, match=f"{name}: {key}"):
        read_model(model.path)


def test_a_recipe_with_a_mistake(model):
    (model.path / "recipe.yaml").write_text("backbone: test_vit\nimage_sise: 32\n")
    with pytest.raises(RecipeError, match="image_sise"):
        read_model(model.path)


def test_weights_that_do_not_fit(model):
    recipe = (model.path / "recipe.yaml").read_text().replace("test_byobnet.r160_in1k", "test_vit")
    (model.path / "recipe.yaml").write_text(recipe)
    with pytest.raises(WeightsError, match="does not fit test_vit"):
        read_model(model.path).load()


@pytest.mark.parametrize("content", [b"", b"\x80\x04pickle", b"\xff" * 64])
def test_weights_that_are_damaged(model, content):
    (model.path / "model.safetensors").write_bytes(content)
    with pytest.raises(WeightsError, match=r"model\.safetensors"):
        read_model(model.path).load()


@pytest.mark.parametrize("ending", [".pt", ".pth", ".ckpt", ".bin", ".pkl", ".PT"])
def test_a_pickle_is_refused(tmp_path, ending):
    file = tmp_path / f"model{ending}"
    torch.save({"x": 1}, file)
    with pytest.raises(WeightsError, match=r"pickle.*refused"):
        read_model(file)


def test_a_folder_of_pickles_is_refused_by_name(tmp_path):
    torch.save({"x": 1}, tmp_path / "best.pth")
    with pytest.raises(WeightsError, match=r"best\.pth is a pickle"):
        read_model(tmp_path)


@pytest.mark.parametrize("name", ["nowhere", "empty", "file.txt"])
def test_what_is_no_model_folder(tmp_path, name):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.txt").write_text("hello")
    with pytest.raises(WeightsError, match=f"{name}.*automl train"):
        read_model(tmp_path / name)


def test_an_ensembles_weights_are_shares(tmp_path):
    for name in ("one", "two"):
        write(tmp_path / name)
    write_ensemble(tmp_path, {"one": 3.0, "two": 1.0})
    members = read_members(tmp_path)
    assert [(model.path.name, weight) for model, weight in members] == [("one", 0.75), ("two", 0.25)]


def test_a_model_folder_is_its_only_member(model):
    assert read_members(model.path) == [(model, 1.0)]


@pytest.mark.parametrize("name", ["../one", "..", ".", "", "/etc", "sub/one", "one/"])
def test_a_member_cannot_lie_elsewhere(tmp_path, name):
    write(tmp_path / "one")
    ensemble = tmp_path / "ensemble"
    (ensemble / "sub").mkdir(parents=True)
    write_ensemble(ensemble, {name: 1.0})
    with pytest.raises(WeightsError, match="not the name of a folder"):
        read_members(ensemble)


@pytest.mark.parametrize(
    "content", ["{}", '{"one": -1}', '{"one": 0}', '{"one": 1e999}', '{"one": NaN}', '{"one": "x"}', "[1]", ""]
)
def test_weights_of_an_ensemble_that_make_no_mean(tmp_path, content):
    (tmp_path / "ensemble.json").write_text(content)
    with pytest.raises(WeightsError, match=r"ensemble\.json"):
        read_members(tmp_path)


def test_members_that_differ_in_their_classes(tmp_path):
    write(tmp_path / "one")
    write(tmp_path / "two", classes=("cat", "dog"))
    write_ensemble(tmp_path, {"one": 1.0, "two": 1.0})
    with pytest.raises(WeightsError, match="different classes"):
        read_members(tmp_path)
