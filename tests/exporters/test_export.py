import ast
import json
import shutil

import pytest
import yaml

from automl.errors import AutomlError, RecipeError, SpecError, StudyError, WeightsError
from automl.exporters.export import export
from automl.exporters.source import find_source
from automl.models.folder import write_ensemble
from automl.recipe import Numerics, Recipe
from automl.recipe.augmentation import Augmentation
from automl.recipe.learning import Mixup, Sgd
from tests.fixtures.models import write
from tests.fixtures.studies import entry

RECIPE = Recipe(
    backbone="test_byobnet.r160_in1k",
    image_size=32,
    learning_rate=1e-5,
    weight_decay=3e-7,
    augmentation=Augmentation(self_blend=0.5),
    mixing=Mixup(alpha=0.25),
    optimizer=Sgd(nesterov=False),
    numerics=Numerics(micro_batch_size=4),
)


@pytest.fixture
def study(new_study, tmp_path):
    """A study with a best recipe that nobody had to search."""
    weights = {"weights": "file", "weights_path": str(tmp_path / "weights.safetensors")}
    _, folder = new_study("faces", pool=[entry(**weights)])
    RECIPE.save(folder.best, "Study faces, trial 3: validation auc 0.9")
    return folder


def loaded(text, path):
    path.write_text(text)
    return Recipe.load(path)


@pytest.mark.parametrize("name", ["out.yaml", "out.json"])
def test_what_is_exported_is_read_back_equal(study, tmp_path, name):
    found = export("faces", format=name[4:], out=tmp_path / name, runs=study.path.parent)
    assert found.path == tmp_path / name
    assert Recipe.load(found.path) == RECIPE


def test_yaml_keeps_what_stood_above_the_recipe(study):
    text = export(runs=study.path.parent).text
    assert text.startswith("# Study faces, trial 3: validation auc 0.9\nbackbone: ")


def test_json_says_what_input_and_outputs_are(model, study, tmp_path):
    document = json.loads(export(model.path, format="json").text)
    assert document["labels"]["classes"] == ["real", "fake"]
    assert (document["input"]["image_size"], document["input"]["decode_size"]) == (32, 40)
    of_study = json.loads(export("faces", format="json", runs=study.path.parent).text)
    assert of_study["labels"]["classes"] == ["dark", "light"]
    assert sum(of_study["labels"]["prior"]) == pytest.approx(1)
    assert of_study["input"]["mean"] == document["input"]["mean"]
    RECIPE.save(tmp_path / "alone.yaml")
    assert json.loads(export(tmp_path / "alone.yaml", format="json").text).keys() == {"recipe"}


def test_a_confirmed_recipe_goes_before_the_best(study):
    confirmed = RECIPE.model_copy(update={"epochs": 9.0})
    confirmed.save(study.path / "confirmed.yaml")
    assert find_source(None, study.path.parent).recipe == confirmed
    assert find_source("faces", study.path.parent).recipe == confirmed
    assert find_source(study.path, study.path / "elsewhere").recipe == confirmed
    assert find_source(study.best, study.path / "elsewhere").recipe == RECIPE


def test_a_recipe_in_a_studys_folder_knows_what_the_study_knows(study, tmp_path):
    source = find_source(study.best, tmp_path)
    assert source.labels.classes == ("dark", "light")
    assert source.decode_size == 32
    assert source.weights == tmp_path / "weights.safetensors"
    assert source.study.samples.samefile(study.samples)


def test_a_study_that_is_damaged_still_gives_its_recipe(study):
    study.samples.unlink()
    assert export("faces", runs=study.path.parent).text
    with pytest.raises(StudyError, match=r"samples\.csv"):
        export("faces", format="json", runs=study.path.parent)


def test_the_script_holds_what_is_known(study, tmp_path):
    text = export("faces", format="python", runs=study.path.parent).text
    ast.parse(text)
    assert str(study.samples) in text
    assert "weights.safetensors" in text
    assert "'dark'" in text.replace('"', "'")
    assert "placeholders" not in text


def test_the_script_of_a_lone_recipe_says_what_nobody_told_it(tmp_path):
    RECIPE.save(tmp_path / "alone.yaml")
    text = export(tmp_path / "alone.yaml", format="python").text
    ast.parse(text)
    head = text.partition('"""')[0]
    assert all(part in head for part in ("--samples", "placeholders", "no image is self-blended", "hub"))


@pytest.mark.parametrize("real_class", [0, 1, None])
def test_the_script_of_a_model_folder_forges_the_class_that_training_forged(tmp_path, real_class):
    model = write(tmp_path / "m", augmentation=RECIPE.augmentation, real_class=real_class)
    head, _, script = export(model.path, format="python").text.partition('"""')
    assert (f"REAL = {real_class} " in script) == (real_class is not None)
    assert ("no image is self-blended" in head) == (real_class is None)
    assert "placeholders" not in head


def test_timms_options_name_the_weights_and_the_classes(study, tmp_path):
    options = yaml.safe_load(export("faces", format="timm", runs=study.path.parent).text)
    assert options["model"] == RECIPE.backbone
    assert options["num_classes"] == 2
    assert options["pretrained_path"] == str(tmp_path / "weights.safetensors")
    assert "data_dir" not in options


@pytest.mark.parametrize(("split", "named"), [("val", True), ("test", False)])
def test_timms_options_name_a_folder_only_if_it_is_split_as_train_py_wants_it(
    new_study, images, tmp_path, split, named
):
    for name in ("train", split):
        shutil.copytree(images, tmp_path / "data" / name)
    _, folder = new_study("split", data={"path": tmp_path / "data"})
    RECIPE.save(folder.best)
    options = yaml.safe_load(export("split", format="timm", runs=folder.path.parent).text)
    assert options.get("data_dir") == (str(tmp_path / "data") if named else None)


@pytest.mark.slow
@pytest.mark.parametrize(("format", "name"), [("onnx", "model.onnx"), ("torch", "model.pt2")])
def test_a_network_goes_into_its_folder_or_where_it_is_told(model, tmp_path, format, name):
    found = export(model.path, format=format)
    assert found.path == model.path / name
    assert found.path.is_file()
    assert found.text is None
    assert 0 <= found.difference < 1e-4
    assert find_source(model.path, tmp_path).model == model  # the folder is still one


@pytest.mark.parametrize("format", ["onnx", "torch"])
def test_a_recipe_is_no_network(study, format):
    with pytest.raises(WeightsError, match=r"needs a trained model.*automl train"):
        export("faces", format=format, runs=study.path.parent)


def test_an_ensemble_is_exported_member_by_member(tmp_path):
    write(tmp_path / "both" / "one")
    write_ensemble(tmp_path / "both", {"one": 1.0})
    with pytest.raises(WeightsError, match=r"is an ensemble.*export each member: .*one"):
        export(tmp_path / "both", format="onnx")


def test_an_existing_file_is_replaced_whole_and_folders_are_made(model, tmp_path):
    out = tmp_path / "new" / "recipe.yaml"
    export(model.path, format="yaml", out=out)
    out.write_text("x" * 100_000)
    export(model.path, format="yaml", out=out)
    assert Recipe.load(out) == model.recipe
    assert [path.name for path in out.parent.iterdir()] == ["recipe.yaml"]


@pytest.mark.parametrize("format", ["yaml", "torch"])
def test_what_cannot_be_written(model, tmp_path, format):
    with pytest.raises(AutomlError, match=r"cannot write .*--out"):
        export(model.path, format=format, out=model.path)
    (tmp_path / "file").write_text("")
    with pytest.raises(AutomlError, match=r"cannot write .*--out"):
        export(model.path, format=format, out=tmp_path / "file" / "out")


def test_nothing_of_that_name(study, tmp_path):
    with pytest.raises(StudyError, match=r"called face: .*no study of .*\(faces\)"):
        export("face", runs=study.path.parent)
    with pytest.raises(StudyError, match="no studies in"):
        export(runs=tmp_path / "none")


def test_a_study_without_a_recipe_yet(study):
    study.best.unlink()
    with pytest.raises(StudyError, match="study faces has no recipe yet"):
        export("faces", runs=study.path.parent)


def test_files_that_are_no_recipe(tmp_path):
    (tmp_path / "model.pth").write_bytes(b"\x80\x04")
    with pytest.raises(WeightsError, match="refused"):
        export(tmp_path / "model.pth")
    (tmp_path / "no.json").write_text('{"recipe": [1]}')
    with pytest.raises(RecipeError, match=r"no\.json: a recipe is a mapping"):
        export(tmp_path / "no.json")
    (tmp_path / "old.yaml").write_text("backbone: test_vit\nclasses: 2\n")
    with pytest.raises(RecipeError, match="classes"):
        export(tmp_path / "old.yaml")


def test_formats_and_flags_that_do_not_fit(model, tmp_path):
    with pytest.raises(SpecError, match="onnx"):
        export(model.path, format="onx")
    with pytest.raises(AutomlError, match=r"--check-data.*leave it out"):
        export(model.path, format="yaml", check_data=tmp_path)
