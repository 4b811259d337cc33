import json

import pytest
import torch

from automl.errors import AutomlError, RecipeError, WeightsError
from automl.models.folder import read_members, read_model, write_ensemble
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
