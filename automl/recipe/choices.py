"""The choices of a recipe (`loss`, `augmentation.crop`, …), and the error for one that code does not know.

Training and each exporter name the classes that they know. A class that is new in a union is then refused by name, and
not taken for another one.
"""

from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING, TypeVar

from automl.errors import RecipeError
from automl.schema import Part

if TYPE_CHECKING:
    from automl.recipe.recipe import Recipe

Entry = TypeVar("Entry")


def list_choices(part: Part, prefix: str = "") -> Iterator[tuple[str, Part]]:
    """Yields each choice of a recipe with its dotted name, such as `loss` or `augmentation.crop`."""
    for name in type(part).model_fields:
        value = getattr(part, name)
        if isinstance(value, Part):
            if "name" in type(value).model_fields:
                yield prefix + name, value
            yield from list_choices(value, f"{prefix}{name}.")


def find_entry(who: str, name: str, choice: Part, entries: Mapping[type[Part], Entry], advice: str = "") -> Entry:
    """Returns what a table has for the class of a choice.

    Args:
        who: Whose table it is, such as `training` or `--format python`.
        name: Dotted name of the choice in the recipe.
        choice: What the recipe has there.
        entries: By the classes that are known.
        advice: What to do where there is none.

    Raises:
        RecipeError: If there is none for this class.
    """
    if type(choice) in entries:
        return entries[type(choice)]
    names = ", ".join(sorted(str(kind.model_fields["name"].default) for kind in entries))
    chosen = getattr(choice, "name", type(choice).__name__)
    raise RecipeError(f"{who} does not know {name} {chosen!r} of the recipe, only: {names}{advice}")


def check_choices(
    who: str, recipe: "Recipe", known: Mapping[str, Collection[type[Part]]], augmentations: Collection[str]
) -> None:
    """Raises an error if a recipe has a choice, or uses an augmentation, that an exporter does not know.

    Args:
        who: Names the exporter in the error.
        recipe: What is to be written.
        known: The classes by the dotted name of the choice; a choice without an entry is not checked.
        augmentations: The fields of `augmentation`, besides the choices, that it knows.

    Raises:
        RecipeError: With the choice, its name, and what the exporter knows.
    """
    advice = "; train it with automl train, or export the trained network with --format onnx or torch"
    for name, choice in list_choices(recipe):
        if name in known:
            find_entry(who, name, choice, dict.fromkeys(known[name]), advice)
    if recipe.pooling != "default":
        raise RecipeError(f"{who} does not know pooling {recipe.pooling!r} of the recipe, only: default{advice}")
    for name, field in type(recipe.augmentation).model_fields.items():
        value = getattr(recipe.augmentation, name)
        if not isinstance(value, Part) and name not in augmentations and value != field.default:
            raise RecipeError(f"{who} does not know augmentation.{name}, which is {value} in the recipe{advice}")
