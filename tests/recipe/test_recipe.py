import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from automl.errors import RecipeError
from automl.recipe import Recipe
from tests.fixtures.recipes import RECIPES

FIXTURE = settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None)


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
    assert any("learning_rate" in line and "(got -1)" in line and "greater than 0" in line for line in lines)
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
    with pytest.raises(RecipeError, match=r"recipe\.yaml: epochs: .*'none'"):
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
