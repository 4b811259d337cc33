"""Each augmentation alone: weak, middle and strong, as a search space or a recipe sets its limits.

An augmentation draws what it does to an image within limits. Where a space lets a limit vary, its levels are the least
value that does anything, the middle one and the most. Where it is one value, as in a recipe, they are a third of it,
two thirds, and all of it. What is a probability says how often, not how strongly: it is shown in words.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from automl.recipe.augmentation import Augmentation
from automl.schema import Part
from automl.space.nodes import Branch, Branches, Constant, Float, Group, Int, Node, list_values

PLAIN: dict[str, Any] = {"crop": {"name": "resize"}, "horizontal_flip": 0}
"""An augmentation that does nothing but cut the middle out."""

_NEUTRAL: dict[str, float] = {
    **dict.fromkeys(("min_scale", "max_aspect", "downscale_min"), 1.0),
    **dict.fromkeys(("rotate_degrees", "shear_degrees", "translate"), 0.0),
    **dict.fromkeys(("brightness", "contrast", "saturation", "hue"), 0.0),
    **dict.fromkeys(("time_mask", "frequency_mask", "time_shift", "gain"), 0.0),
    "jpeg_min_quality": 100.0,
}
"""Limits, and the value at which each of them does nothing."""
_LIMIT_OF = {"jpeg": "jpeg_min_quality", "downscale": "downscale_min"}
"""The limit that belongs to a probability."""
_RANGE_POINTS = 11
"""Of a range without steps, how many values are looked at."""


@dataclass(frozen=True)
class Level:
    """One augmentation alone, at one strength; the caption says at which, "" where there is one strength only."""

    caption: str
    augmentation: Augmentation


@dataclass(frozen=True)
class Unit:
    """One augmentation, such as `jpeg` or a branch of `policy`."""

    field: str
    name: str
    text: str
    """How often it is done."""
    levels: tuple[Level, ...]
    """One to three, the weakest first."""


def make_group(augmentation: Augmentation) -> Group:
    """Writes a recipe's augmentation as a space has it in which nothing varies."""
    values = ((name, getattr(augmentation, name)) for name in Augmentation.model_fields)
    return Group({name: make_branches(value) if isinstance(value, Part) else Constant(value) for name, value in values})


def make_branches(choice: Part) -> Branches:
    """Writes a choice of a recipe as a space has it in which nothing varies."""
    values = choice.model_dump()
    return Branches({values.pop("name"): Branch({key: Constant(value) for key, value in values.items()})})


def list_units(augmentation: Group) -> list[Unit]:
    """Lists what an `augmentation` of a space can do, in the order of the recipe's fields."""
    return [unit for name in Augmentation.model_fields for unit in _make_units(name, augmentation.children)]


def _make_units(field: str, nodes: Mapping[str, Node]) -> Iterator[Unit]:
    """Yields a unit for a field that can do something, or one for each of its branches that can."""
    node = nodes[field]
    if isinstance(node, Branches):
        for taken, branch in node.branches.items():
            limits = {key: child for key, child in branch.children.items() if key != "probability"}
            always = {"probability": 1} if "probability" in branch.children else {}
            levels = tuple(
                Level(caption, Augmentation.model_validate(PLAIN | {field: {"name": taken} | always | values}))
                for caption, values in _list_levels(limits)
            )
            if taken != "none":
                yield Unit(field, f"{field}: {taken}", _describe_share(branch.children.get("probability")), levels)
    elif field not in _LIMIT_OF.values() and any(list_values(node)):
        if field in _NEUTRAL:
            limits, always, text = {field: node}, {}, _describe_share(None)
        else:
            limits = {name: nodes[name] for key, name in _LIMIT_OF.items() if key == field}
            always, text = {field: 1}, _describe_share(node)
        levels = tuple(
            Level(caption, Augmentation.model_validate(PLAIN | always | values))
            for caption, values in _list_levels(limits)
        )
        if field == "self_blend":
            text = text.replace("images", "genuine images, which then are labelled forged")
        yield Unit(field, field, text, levels)


def _list_levels(limits: Mapping[str, Node]) -> list[tuple[str, dict[str, Any]]]:
    """Lists the different levels of some limits together: what stands below the picture, and their values."""
    chosen = {name: _choose_values(name, node) for name, node in limits.items()}
    levels: list[tuple[str, dict[str, Any]]] = []
    for number in range(3):
        values = {name: three[number] for name, three in chosen.items()}
        shown = [f"{name} {_write_number(value)}" for name, value in values.items() if value != _NEUTRAL.get(name)]
        if all(values != other for _, other in levels):
            levels.append((", ".join(shown), values))
    return levels if len(levels) > 1 else [("", levels[0][1])]


def _choose_values(name: str, node: Node) -> tuple[Any, Any, Any]:
    """Chooses three values of a limit, the one that does least first."""
    neutral = _NEUTRAL.get(name)
    values = sorted(list_numbers(node), key=lambda value: abs(value - (neutral or 0)))
    values = [value for value in values if value != neutral] or values
    if neutral is None or len(values) > 1:
        return values[0], values[len(values) // 2], values[-1]
    weak, middle, strong = (neutral + (float(values[0]) - neutral) * part / 3 for part in (1, 2, 3))
    return (round(weak), round(middle), round(strong)) if name == "jpeg_min_quality" else (weak, middle, strong)


def _write_number(value: float) -> str:
    """Writes a limit, a small one with two digits that are not 0."""
    return f"{round(value, 2) if abs(value) >= 0.1 else float(f'{value:.2g}'):g}"


def list_numbers(node: Node) -> list[Any]:
    """Lists values that a node can draw; of a range without steps, some from one end to the other."""
    if isinstance(node, Int):
        return list(range(node.low, node.high + 1, node.step))
    if isinstance(node, Float):
        points = _RANGE_POINTS if node.step is None else round((node.high - node.low) / node.step) + 1
        return [round(float(value), 6) for value in np.linspace(node.low, node.high, points)]
    return list(list_values(node))


def _describe_share(node: Node | None) -> str:
    """Writes how often something is done, by the values that its probability can have."""
    if node is None:
        return "in every image"
    shares = sorted({round(100 * float(value)) for value in list_values(node)})
    return f"in {shares[0]} to {shares[-1]} % of the images" if len(shares) > 1 else f"in {shares[0]} % of the images"
