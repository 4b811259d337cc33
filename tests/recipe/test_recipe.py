import re

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from automl.errors import RecipeError
from automl.recipe import Recipe
from tests.fixtures.recipes import RECIPES

FIXTURE = settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None)


@pytest.mark.slow
@FIXTURE
@given(recipe=RECIPES, header=st.text(alphabet=st.characters(min_codepoint=32, max_codepoint=126), max_size=50))
def test_a_saved_recipe_loads_equal(tmp_path, recipe, header):
    recipe.save(tmp_path / "recipe.yaml", header=f"{header}\nautoml train recipe.yaml")
    assert Recipe.load(tmp_path / "recipe.yaml") == recipe
    assert "# automl train recipe.yaml" in (tmp_path / "recipe.yaml").read_text()


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(recipe=RECIPES)
def test_yaml_holds_every_hyperparameter_and_validates_again(recipe):
    values = yaml.safe_load(recipe.to_yaml())
    assert values.keys() == Recipe.model_fields.keys()
    assert Recipe.from_mapping(values) == recipe


def test_only_the_backbone_is_required():
    assert Recipe.from_mapping({"backbone": "resnet18"}) == Recipe(backbone="resnet18")


def test_a_recipe_cannot_be_changed():
    recipe = Recipe(backbone="resnet18")
    with pytest.raises(ValidationError):
        recipe.epochs = 3
    with pytest.raises(ValidationError):
        recipe.loss.smoothing = 0.1


def test_numbers_and_switches_as_yaml_1_1_reads_them(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text("backbone: resnet18\nlearning_rate: 1e-5\noptimizer: {name: sgd, nesterov: off}\n")
    recipe = Recipe.load(path)
    assert recipe.learning_rate == 1e-5
    assert recipe.optimizer.nesterov is False


def test_all_mistakes_are_listed_at_once():
    values = {
        "learning_rate": -1,
        "loss": {"name": "focall"},
        "optimizer": {"name": "sgd", "momentun": 0.9},
        "augmentation": {"blur": 2, "color": {"name": "jitter", "hue": 3}},
        "epochz": 3,
    }
    with pytest.raises(RecipeError) as caught:
        Recipe.from_mapping(values, "trial 7")
    lines = str(caught.value).splitlines()
    assert all(line.startswith("trial 7: ") for line in lines)
    for where in ("backbone", "learning_rate", "loss", "momentun", "augmentation.blur", "hue", "epochz"):
        assert sum(where in line for line in lines) == 1, where
    assert "trial 7: learning_rate: -1 is too small; give more than 0 and at most 10" in lines
    assert "trial 7: augmentation.color.hue: 3 is too large; give 0 to 0.5" in lines
    assert "trial 7: optimizer.momentun: there is no such name; did you mean 'momentum'?" in lines
    assert "trial 7: epochz: there is no such name; did you mean 'epochs'?" in lines
    assert any("did you mean 'focal'?" in line and "cross_entropy" in line for line in lines)


@pytest.mark.parametrize("name", ["epochs", "clip_norm", "freeze_epochs", "learning_rate"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_are_finite(name, value):
    with pytest.raises(RecipeError, match=name):
        Recipe.from_mapping({"backbone": "resnet18", name: value})


@pytest.mark.parametrize("content", ["", "- 1", "resnet18", "3"])
def test_a_file_that_is_no_mapping_is_named(tmp_path, content):
    path = tmp_path / "recipe.yaml"
    path.write_text(content)
    with pytest.raises(RecipeError, match=r"recipe\.yaml: a recipe is a mapping"):
        Recipe.load(path)


def test_mistakes_in_a_file_are_of_that_file(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text("backbone: resnet18\nepochs: none\n")
    with pytest.raises(RecipeError, match=r"recipe\.yaml line 2: epochs: must be a number \(got 'none'\)"):
        Recipe.load(path)
    path.write_text("backbone: [resnet18\n")
    with pytest.raises(RecipeError, match="line 2, column 1"):
        Recipe.load(path)


@pytest.mark.parametrize("key", ["tune", "head", "mixing", "loss", "optimizer", "schedule"])
def test_a_name_alone_is_a_choice_with_its_defaults(key):
    name = {"tune": "lora", "head": "l2", "mixing": "mixup", "loss": "focal", "optimizer": "lion", "schedule": "wsd"}[
        key
    ]
    alone, whole = (Recipe.from_mapping({"backbone": "a", key: value}) for value in (name, {"name": name}))
    assert alone == whole
    with pytest.raises(RecipeError, match=f"{key}: .*'nonsense'"):
        Recipe.from_mapping({"backbone": "a", key: "nonsense"})


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({}, ""),
        ({"tune": "head"}, "head"),
        ({"tune": {"name": "lora", "rank": 8}, "head": "l2"}, "lora 8, l2"),
        ({"tune": {"name": "lora", "targets": "all"}}, "lora 16 on all layers"),
        ({"tune": "last", "pooling": "cls_avg"}, "last 1, cls_avg"),
        ({"head": "mlp"}, "all, mlp"),
    ],
)
def test_what_is_trained_in_words(values, text):
    assert Recipe.from_mapping({"backbone": "a"} | values).describe_trained() == text


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ("tune:\n  name: lora\n  rank: 0", "line 4: tune.rank: 0 is too small; give 1 to 256"),
        ("tune: {name: lora, rank: 257}", "line 2: tune.rank: 257 is too large; give 1 to 256"),
        ("tune: {rank: 3}", "line 2: tune: has no name"),
        ("tune: {name: head, rank: 3}", "line 2: tune.rank: there is no such name"),
        ("tune: 3", "line 2: tune: must be a mapping of names to values (got 3)"),
        ("batch_size: 1", "line 2: batch_size: 1 is too small; give 2 or more"),
        ("batch_size: 2.5", "line 2: batch_size: must be a whole number (got 2.5)"),
        ("batch_size: many", "line 2: batch_size: must be a whole number (got 'many')"),
        ("seed: 4294967296", "line 2: seed: 4294967296 is too large; give 0 or more and less than 4294967296"),
        ("epochs: .nan", "line 2: epochs: must be a finite number (got nan)"),
        ("restarts: [0.5, 1.5]", "line 2: restarts.1: 1.5 is too large; give less than 1"),
        ("restarts: 0.5", "line 2: restarts: must be a list (got 0.5)"),
        ("pooling: csl", "line 2: pooling: there is no 'csl'; known: default, cls, avg, cls_avg; did you mean 'cls'?"),
        ("pretrained: maybe", "line 2: pretrained: must be true or false (got 'maybe')"),
        ("head: {name: mlp, hidden: 0}", "line 2: head.hidden: 0 is too small; give 1 to 65536"),
        ("head: layers\npooling: cls", "head layers pools by itself: pooling must be default, got cls"),
    ],
)
def test_a_mistake_in_a_file_says_line_value_and_what_is_right(tmp_path, text, mistake):
    path = tmp_path / "recipe.yaml"
    path.write_text(f"backbone: resnet18\n{text}\n")
    with pytest.raises(RecipeError) as caught:
        Recipe.load(path)
    line, message = re.fullmatch(r"(?:line (\d): )?(.*)", mistake).groups()
    assert str(caught.value) == (f"{path} line {line}: {message}" if line else f"{path}: {message}")
    exported = tmp_path / "exported.yaml"  # as `automl export` writes it
    exported.write_text("recipe:\n  backbone: resnet18\n" + "".join(f"  {row}\n" for row in text.splitlines()))
    with pytest.raises(RecipeError) as caught:
        Recipe.load(exported)
    assert str(caught.value).startswith(f"{exported} line {int(line) + 1}: " if line else f"{exported}: ")


def test_what_is_missing_has_no_line(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text("epochs: 3\n")
    with pytest.raises(RecipeError) as caught:
        Recipe.load(path)
    assert str(caught.value) == f"{path}: backbone: is missing"


@pytest.mark.parametrize(
    ("values", "unused"),
    [
        ({"tune": "head", "layer_decay": 0.8}, ["layer_decay 0.8 has no effect beside tune head"]),
        ({"tune": "norms", "layer_decay": 0.8, "freeze_epochs": 1}, []),
        ({"tune": "head", "aggregate": "max"}, ["aggregate max has no effect beside view image"]),
        ({"view": "frame", "aggregate": "max"}, []),
        ({"tune": "head"}, []),
    ],
)
def test_what_has_no_effect_is_listed(values, unused):
    assert Recipe.model_validate({"backbone": "resnet18", **values}).list_unused() == unused
