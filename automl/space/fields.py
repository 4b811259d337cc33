"""What the recipe allows, asked of its pydantic classes so that a space can never promise what a recipe refuses."""

from functools import cache
from types import UnionType
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel, TypeAdapter, ValidationError

from automl.errors import suggest_name
from automl.recipe import Recipe
from automl.schema import describe_mistake

STUDY_FIELDS = frozenset({"pretrained", "seed", "numerics", "restarts"})
"""Recipe fields that the study decides (flags, timing, continued trials), not the space."""

Model = type[BaseModel]


def find_field_model(model: Model, key: str) -> Model | dict[str, Model] | None:
    """Finds what a field holds: a class (a group of fields), the classes of its branches by name, or None (a value)."""
    annotation = model.model_fields[key].annotation
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if get_origin(annotation) in (Union, UnionType):
        parts = [part for part in get_args(annotation) if isinstance(part, type) and issubclass(part, BaseModel)]
        return {part.model_fields["name"].default: part for part in parts} or None
    return None


def list_field_names(model: Model) -> list[str]:
    """Lists the fields of a class that a space may name."""
    hidden = STUDY_FIELDS if model is Recipe else {"name"}
    return [key for key in model.model_fields if key not in hidden]


_PLAIN = (key for key in list_field_names(Recipe) if key != "backbone" and find_field_model(Recipe, key) is None)
LIFTABLE = frozenset({*_PLAIN, "augmentation"})
"""Top-level fields that a branch may set in the recipe's stead: the plain ones (`optimizer.sgd.learning_rate`), and the
augmentation, because what is good for a picture of sound is none for a face (`view.mel.augmentation.time_mask`)."""


@cache
def _make_adapter(model: Model, key: str) -> TypeAdapter[Any]:
    return TypeAdapter(model.model_fields[key].rebuild_annotation())


def check_value(model: Model, key: str, value: object) -> str | None:
    """Explains what is wrong with a value for a field; None if it is right; true is no number and 1.5 no whole one."""
    try:
        _make_adapter(model, key).validate_python(value, strict=True)
    except ValidationError as exc:
        return describe_mistake(exc.errors()[0], model.model_fields[key])
    return None


def list_known(name: str, known: list[str]) -> str:
    """Writes the end of an `unknown …` message: all known names, and the one that was probably meant."""
    return f"known: {', '.join(known) or 'none'}{suggest_name(name, known)}"
