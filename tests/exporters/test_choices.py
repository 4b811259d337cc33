"""Every choice of a recipe is trained, and written or refused by name; what nobody knows is refused by everybody."""

from typing import ClassVar, Literal, get_args

import numpy as np
import pytest

from automl.backbones.weights import make_model
from automl.data.transforms import eval_transform, train_transform
from automl.errors import RecipeError
from automl.exporters.export import FORMATS
from automl.exporters.graph import list_constants
from automl.exporters.source import ExportSource
from automl.recipe import Recipe
from automl.recipe.augmentation import Augmentation
from automl.recipe.choices import list_choices
from automl.schema import Part
from automl.training.loss import make_loss
from automl.training.mixing import make_mixing
from automl.training.optimizer import make_optimizer
from automl.training.schedule import lr_factor

RECIPE = Recipe(backbone="test_vit", image_size=32, pretrained=False)


class Invented(Part):
    """A choice that is in no union."""

    media: ClassVar[str] = "image"  # as a view says
    name: Literal["invented"] = "invented"


class Sparkling(Augmentation):
    """With an augmentation that nobody knows."""

    sparkle: float = 0


def with_choice(name, choice):
    """The recipe with another choice at a dotted name."""
    first, _, rest = name.partition(".")
    part = getattr(RECIPE, first).model_copy(update={rest: choice}) if rest else choice
    return RECIPE.model_copy(update={first: part})


def classes_of(name):
    """The classes of a choice's union."""
    *outer, last = name.split(".")
    owner = type(getattr(RECIPE, outer[0])) if outer else Recipe
    return get_args(owner.model_fields[last].annotation)


NAMES = [name for name, _ in list_choices(RECIPE)]
KINDS = [(name, kind) for name in NAMES for kind in classes_of(name)]
ONLY = {"view": "image", "tune": "all", "head": "linear"}
"""What a script or train.py can hold of these choices."""
RECIPE_FORMATS = ["yaml", "json", "python", "timm"]


def train_parts(recipe):
    """Makes what training makes of a recipe."""
    augmentation = recipe.augmentation
    make_loss(recipe.loss, [3, 5])
    make_mixing(recipe.mixing, 2, 0)
    lr_factor(recipe.schedule, 0, 10)
    make_optimizer(recipe, make_model(recipe, 2))
    pixels = np.zeros((40, 50, 3), np.uint8)
    for transform in (train_transform, eval_transform):
        assert transform(augmentation, 32)(pixels).shape == (3, 32, 32)


def test_the_choices_are_found():
    assert {"loss", "schedule", "optimizer", "mixing", "view", "augmentation.crop", "augmentation.policy"} <= set(NAMES)
    assert len(KINDS) > 25


@pytest.mark.parametrize(("name", "kind"), KINDS, ids=str)
def test_every_choice_is_trained_and_written_or_refused_by_name(name, kind):
    recipe = with_choice(name, kind())
    train_parts(recipe)
    for format in RECIPE_FORMATS:
        if name in ONLY and kind().name != ONLY[name] and format in ("python", "timm"):
            with pytest.raises(RecipeError, match=f"--format {format} does not know {name} {kind().name!r}"):
                FORMATS[format](ExportSource(recipe), None, None)
        else:
            assert FORMATS[format](ExportSource(recipe), None, None).text


@pytest.mark.parametrize("name", [name for name in NAMES if name != "aggregate"])  # an image file is one image
def test_a_choice_that_nobody_knows_is_refused_by_name(name):
    recipe = with_choice(name, Invented())
    for format in ("python", "timm"):
        with pytest.raises(RecipeError, match=f"--format {format} does not know {name} 'invented' .*only: "):
            FORMATS[format](ExportSource(recipe), None, None)
    if name != "view":
        with pytest.raises(RecipeError, match="'invented'"):
            train_parts(recipe)


@pytest.mark.parametrize("format", ["python", "timm"])
def test_another_pooling_is_refused(format):
    with pytest.raises(RecipeError, match=f"--format {format} does not know pooling 'avg'"):
        FORMATS[format](ExportSource(RECIPE.model_copy(update={"pooling": "avg"})), None, None)


def test_a_crop_that_nobody_knows_is_not_written_beside_a_network(model):
    changed = with_choice("augmentation.crop", Invented())
    object.__setattr__(model, "recipe", changed)
    with pytest.raises(RecipeError, match=r"does not know augmentation\.crop 'invented'"):
        list_constants(model)


def test_an_augmentation_that_nobody_knows_is_refused_where_it_is_in_use():
    off, on = (RECIPE.model_copy(update={"augmentation": Sparkling(sparkle=value)}) for value in (0, 0.5))
    assert FORMATS["python"](ExportSource(off), None, None).text
    with pytest.raises(RecipeError, match=r"--format python does not know augmentation\.sparkle, which is 0\.5"):
        FORMATS["python"](ExportSource(on), None, None)
