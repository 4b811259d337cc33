"""The choices of a recipe (`loss`, `augmentation.crop`, …), and the error for one that code does not know.

Training and each exporter name the classes that they know. A class that is new in a union is then refused by name, and
not taken for another one.
"""

from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Any, get_args

from automl.errors import RecipeError
from automl.schema import Part

if TYPE_CHECKING:
    from automl.recipe.recipe import Recipe


def list_choices(part: Part, prefix: str = "") -> Iterator[tuple[str, Part]]:
    """Yields each choice of a recipe with its dotted name, such as `loss` or `augmentation.crop`."""
    for name in type(part).model_fields:
        value = getattr(part, name)
        if isinstance(value, Part):
            if "name" in type(value).model_fields:
                yield prefix + name, value
            yield from list_choices(value, f"{prefix}{name}.")


def choice_classes(union: Any) -> tuple[type[Part], ...]:
    """Returns the classes of one of the recipe's unions, such as `automl.recipe.loss.Loss`."""
    return get_args(get_args(union)[0])


def unknown_choice(who: str, name: str, choice: Part, known: Collection[type[Part]]) -> RecipeError:
    """Makes the error for a choice that training or an exporter does not know.

    Args:
        who: The code that does not know it, such as `training` or `--format python`.
        name: Dotted name of the choice in the recipe.
        choice: What the recipe has there.
        known: The classes that `who` knows.
    """
    names = ", ".join(sorted(str(kind.model_fields["name"].default) for kind in known))
    chosen = getattr(choice, "name", type(choice).__name__)
    return RecipeError(f"{who} does not know {name} {chosen!r} of the recipe, only: {names}")


def check_choices(
    who: str, recipe: "Recipe", known: Mapping[str, Collection[type[Part]]], augmentations: Collection[str]
) -> None:
    """Raises an error if a recipe has what the writer of a training does not know.

    Args:
        who: Names the exporter in the error.
        recipe: Of which each choice is checked, and each field of `augmentation` that is in use.
        known: The classes by the dotted name of the choice; a choice without an entry is not checked.
        augmentations: The fields of `augmentation` besides the choices that it knows.

    Raises:
        RecipeError: With the choice, its name, and what the exporter knows.
    """
    advice = "train it with automl train, or export the trained network with --format onnx or torch"
    for name, choice in list_choices(recipe):
        if name in known and type(choice) not in known[name]:
            raise RecipeError(f"{unknown_choice(who, name, choice, known[name])}; {advice}")
    for name, field in type(recipe.augmentation).model_fields.items():
        value = getattr(recipe.augmentation, name)
        if not isinstance(value, Part) and name not in augmentations and value != field.default:
            raise RecipeError(f"{who} does not know augmentation.{name}, which is {value} in the recipe; {advice}")
