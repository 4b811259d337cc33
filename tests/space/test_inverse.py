from typing import Any

import pytest

from automl.errors import SpaceError
from automl.space.space import Space


def test_params_of_a_partial_recipe(small: Space) -> None:
    values = {"backbone": 2, "image_size": 256, "optimizer": {"name": "sgd"}, "learning_rate": 0.01, "seed": 4}
    params = {"backbone": 2, "image_size": 2, "optimizer": "sgd", "optimizer.sgd.learning_rate": 0.01}
    assert small.find_params(values) == params
    assert small.find_params({"weight_decay": 0.01, "mixing": "none"}) == {}  # what the space fixes, as it fixes it


@pytest.mark.parametrize(
    ("values", "names", "says"),
    [
        ({"learning_rate": 0.5, "optimizer": "adamw"}, "learning_rate", "within [1e-05, 0.01]"),
        ({"learning_rate": 0.01}, "optimizer", "give its name: adamw, sgd"),
        ({"image_size": 224}, "image_size", "one of 128, 192, 256"),
        ({"epochs": 4}, "epochs", "2 plus a multiple of 4"),
        ({"epochs": 2.5}, "epochs", "whole number"),
        ({"optimizer": "lion"}, "optimizer", "no branch 'lion'"),
        ({"optimizer": {"name": ["sgd"]}}, "optimizer", "no branch"),
        ({"optimizer": {"momentum": 0.9}}, "optimizer", "give its name"),
        ({"optimizer": {"name": "sgd", "momentun": 0.9}}, "optimizer.sgd.momentun", "did you mean 'momentum'"),
        ({"optimizer": {"name": "sgd", "nesterov": 1}}, "optimizer.sgd.nesterov", "fixes it at True"),
        ({"weight_decay": 0.3}, "weight_decay", "fixes it at 0.01"),
        ({"backbone": "resnet18"}, "backbone", "a rank in the pool"),
        ({"augmentation": 3}, "augmentation", "expected a mapping"),
    ],
)
def test_params_of_names_what_the_space_cannot_draw(
    small: Space, values: dict[str, Any], names: str, says: str
) -> None:
    with pytest.raises(SpaceError) as caught:
        small.find_params(values)
    assert str(caught.value).startswith(f"space: {names}: ")
    assert says in str(caught.value)
