"""What does not go together in a space: what a recipe refuses, so that trials would fail, and what has no effect."""

from collections.abc import Iterator
from itertools import islice, product
from typing import Any

from pydantic import ValidationError

from automl.recipe.recipe import AUGMENTED_MEDIA, WITHOUT_EFFECT, Recipe
from automl.space.fields import find_field_model
from automl.space.nodes import Branch, Branches, Float, Group, Int, Node, Ordered, iterate_nodes, list_values

_MOST_CORNERS = 4096
"""Of the values of a view, how many combinations are looked at."""


def find_conflicts(root: Group) -> Iterator[tuple[str, str]]:
    """Yields the Optuna name of what makes some draws invalid, and what is wrong with it and how it is mended."""
    yield from _find_unused_poolings(root)
    yield from _find_foreign_augmentations(root)
    yield from _find_invalid_views(root)


def find_unused(root: Group) -> Iterator[tuple[str, str]]:
    """Yields the Optuna name of what is set or drawn in vain, and beside what it has no effect.

    One value for several branches is not drawn in vain where the others use it.
    """
    for (owner, taken), keys in WITHOUT_EFFECT.items():
        several = len(_list_branches(root, owner)) > 1
        for key in keys:
            for branch, name, node in _list_beside(root, owner, key):
                values = list(node.branches) if isinstance(node, Branches) else list_values(node)
                default = Recipe.model_fields[key].default
                useless = [value for value in values if value != getattr(default, "name", default)]
                shared = several and not name.startswith(f"{owner}.{taken}.")
                if branch == taken and useless and (len(values) > 1 or not shared):
                    advice = f"; set it in the other branches of {owner}" if shared else ""
                    yield name, f"has no effect beside {owner} {taken}{advice}"


def _find_unused_poolings(root: Group) -> Iterator[tuple[str, str]]:
    """Finds poolings beside a head that pools by itself."""
    models = _list_models("head")
    apart = ", ".join(name for name in _list_branches(root, "head") if not models[name].pools) or "linear, l2, mlp"
    for taken, name, node in _list_beside(root, "head", "pooling"):
        others = [str(value) for value in list_values(node) if value != "default"]
        if models[taken].pools and others:
            message = f"head {taken} pools by itself, and pooling {', '.join(others)} may be drawn beside it"
            yield name, f"{message}; set pooling in the branches of head that take it: {apart}"


def _find_foreign_augmentations(root: Group) -> Iterator[tuple[str, str]]:
    """Finds augmentations beside a view whose images cannot have them."""
    models = _list_models("view")
    for taken, name, group in _list_beside(root, "view", "augmentation"):
        children = group.children if isinstance(group, Group) else {}  # the parser makes nothing else of it
        for key, media in AUGMENTED_MEDIA.items():
            if models[taken].media != media and any(list_values(children[key])):
                message = f"is for views of {media}, and may be drawn beside view {taken}"
                yield f"{name}.{key}", f"{message}; give the branch {taken} of view an augmentation of its own"


def _find_invalid_views(root: Group) -> Iterator[tuple[str, str]]:
    """Finds views whose parameters do not go together, by the ends of what each may be."""
    for taken, branch in _list_branches(root, "view").items():
        corners = product(*map(_list_ends, branch.children.values()))
        for values in islice(corners, _MOST_CORNERS):
            try:
                _list_models("view")[taken].model_validate(dict(zip(branch.children, values, strict=True)))
            except ValidationError as exc:
                yield f"view.{taken}", f"{exc.errors()[0]['msg'].removeprefix('Value error, ')}; narrow the ranges"
                break


def _list_beside(root: Group, owner: str, key: str) -> Iterator[tuple[str, str, Node]]:
    """Yields, for each branch of a field, each node of another field that may be drawn beside it, and its name."""
    top = key, root.children[key]
    lifters = [(name, node) for name, node in iterate_nodes(root) if isinstance(node, Branches) and key in node.lifted]
    name, lifter = lifters[0] if lifters else ("", Branches({}))  # a second one is a mistake of its own
    for taken in _list_branches(root, owner):
        branches = {taken: lifter.branches[taken]} if name == owner else lifter.branches
        beside = {
            f"{name}.{other}.{key}": branch.lifted[key] for other, branch in branches.items() if key in branch.lifted
        }
        # A choice inside of another field may itself not be drawn, and then nothing is lifted.
        if len(beside) < len(branches) or not lifters or "." in name:
            beside |= [top]
        for full_name, node in beside.items():
            yield taken, full_name, node


def _list_branches(root: Group, key: str) -> dict[str, Branch]:
    """Returns the branches of a field that has some."""
    node = root.children[key]
    assert isinstance(node, Branches)  # noqa: S101 - the parser makes nothing else of it
    return node.branches


def _list_models(key: str) -> dict[str, Any]:
    """Returns the classes of a field's branches by their names."""
    models = find_field_model(Recipe, key)
    assert isinstance(models, dict)  # noqa: S101 - as above
    return models


def _list_ends(node: Node) -> tuple[Any, ...]:
    """Lists the values of a plain node; of numbers, the least and the largest."""
    values = list_values(node)
    return (min(values), max(values)) if isinstance(node, Float | Int | Ordered) else values
