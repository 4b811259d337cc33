"""What each architecture can do, found out on tensors without data and shipped as a table.

A backbone of timm's takes images of any size, of some sizes or of one; it may know stochastic depth and gradient
checkpointing or not; and where its position embeddings or attention biases have the shape of one image size, its
pretrained weights may not load at another. The search asks here before it draws a recipe.

The table was made with one version of timm (`studies/leaderboard/capabilities.py`). With another one, and for image
sizes that it does not have, a backbone is examined in about a second, and the result is kept in the cache.
"""

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from automl.backbones.table import read_rows
from automl.errors import RecipeError
from automl.files import CacheEntry, read_header
from automl.recipe import Recipe

SHIPPED = Path(__file__).with_name("capabilities.csv")

SIZES = (64, 96, 128, 160, 192, 224, 240, 256, 288, 320, 384, 448, 512)
"""Image sizes of the table, in pixels."""

COMMAND = "python studies/leaderboard/capabilities.py"

REASON_CHARACTERS = 160
"""A longer reason why something cannot be done is cut."""

METHOD = 1
"""Raised whenever the examination changes, so that older cache files are passed over."""


@dataclass(frozen=True)
class Capabilities:
    """What a backbone can do.

    Attributes:
        backbone: timm's name, with the tag of its weights where there are several.
        default_weights: Whether these are the weights that the architecture's name stands for without a tag.
        weights_size: Pixels per side that its pretrained weights are made for.
        runs: Image sizes, of those tried, at which it can be built and run.
        loads: Those of `runs` at which its pretrained weights load as well.
        takes_size: Whether timm needs the image size when the network is built (`img_size`).
        drop_path: Whether it has stochastic depth.
        grad_checkpointing: Whether it can compute activations again in the backward pass.
        layer_groups: Groups of layers that layer-wise learning rate decay tells apart; 1: it does nothing.
        plain_head: Whether its classifier is one layer with weight and bias, which timm's train.py can scale.
        other_channels: Whether it can be built for images of one channel.
        why_not: Why the first size that is missing in `loads` is missing; "" if none is.
        problem: Why it could not be examined (`trouble` in tables and cache files); "" if it could.
    """

    backbone: str
    weights_size: int
    default_weights: bool = True
    runs: tuple[int, ...] = ()
    loads: tuple[int, ...] = ()
    takes_size: bool = False
    drop_path: bool = True
    grad_checkpointing: bool = True
    layer_groups: int = 1
    plain_head: bool = True
    other_channels: bool = True
    why_not: str = ""
    problem: str = ""

    @property
    def arch(self) -> str:
        """Timm's name of the architecture, without the tag of weights."""
        return self.backbone.partition(".")[0]

    def trainable_sizes(self, *, pretrained: bool) -> tuple[int, ...]:
        """Returns the image sizes that can be trained at, from its weights (`pretrained`) or from scratch."""
        return self.loads if pretrained else self.runs


def find_capabilities(backbone: str, sizes: Iterable[int] = (), *, shipped: bool = True) -> Capabilities:
    """Looks an architecture up, or examines it (about a second); imports torch only for the latter.

    Args:
        backbone: A timm name, with or without its weights tag; the tag decides the image size of the weights.
        sizes: Image sizes to be tried, besides that of its weights; none: all of `SIZES`.
        shipped: Whether the shipped table may answer.

    Returns:
        Its capabilities, with `runs` and `loads` among the sizes asked for and the weights' own size.

    Raises:
        RecipeError: If timm has no such backbone.
    """
    wanted = tuple(sorted(set(sizes) or SIZES))
    known = shipped_capabilities(backbone) if shipped else None
    if known is not None and set(wanted) <= {*SIZES, known.weights_size}:
        asked = {*wanted, known.weights_size}
        return replace(known, runs=_keep_sizes(known.runs, asked), loads=_keep_sizes(known.loads, asked))
    cached = CacheEntry("capabilities", [METHOD, version("timm"), backbone, wanted])
    capabilities = cached.load_json(_parse_json)
    if capabilities is None:
        from automl.backbones.examine import examine_backbone  # imports torch

        capabilities = examine_backbone(backbone, wanted)
        cached.save_json(rename_problem(asdict(capabilities)))
    return capabilities


def check_image_size(recipe: Recipe) -> None:
    """Makes sure that a recipe's backbone can be trained at its image size.

    Raises:
        RecipeError: If not, with the image sizes at which it can; or if timm has no such backbone.
    """
    can = find_capabilities(recipe.backbone, (recipe.image_size,))
    if can.problem or recipe.image_size in can.trainable_sizes(pretrained=recipe.pretrained):
        return
    sizes = find_capabilities(recipe.backbone)
    if recipe.pretrained:
        fix = f"the weights of {recipe.backbone} load at {_format_sizes(sizes.loads)} only: set image_size"
        fix += ", or pretrained: false" if recipe.image_size in can.runs else ""
    else:
        fix = f"{recipe.backbone} runs at {_format_sizes(sizes.runs)}: set image_size"
    raise RecipeError(f"image_size {recipe.image_size}: {fix}")


def without_unsupported(recipe: Recipe) -> tuple[Recipe, tuple[str, ...]]:
    """Takes out of a recipe what its backbone does not have: it could not be trained, and had no effect before.

    Returns:
        The recipe, and what was taken out, in words: `drop_path 0.2 (vgg11 has no stochastic depth)`.

    Raises:
        RecipeError: If timm has no such backbone.
    """
    wanted = recipe.drop_path > 0, recipe.numerics.grad_checkpointing
    if not any(wanted):
        return recipe, ()
    can = find_capabilities(recipe.backbone, (recipe.image_size,))
    without: list[str] = []
    if wanted[0] and not can.drop_path:
        without.append(f"drop_path {recipe.drop_path} ({recipe.backbone} has no stochastic depth)")
        recipe = recipe.model_copy(update={"drop_path": 0.0})
    if wanted[1] and not can.grad_checkpointing:
        without.append(f"numerics.grad_checkpointing ({recipe.backbone} has none)")
        recipe = recipe.with_numerics(grad_checkpointing=False)
    return recipe, tuple(without)


def shipped_capabilities(backbone: str) -> Capabilities | None:
    """Looks a backbone up in the shipped table; None where it is not there, or the table was made with another timm."""
    return _read_shipped().get(backbone)


@cache
def _read_shipped() -> dict[str, Capabilities]:
    made_with: dict[str, str] = {}
    with suppress(OSError, UnicodeDecodeError):
        made_with = read_header(SHIPPED)
    if made_with.get("timm") != version("timm") or made_with.get("method") != str(METHOD):
        return {}
    rows = load_capabilities()
    return {row.backbone: row for row in rows} | {row.arch: row for row in rows if row.default_weights}


def load_capabilities(path: Path = SHIPPED) -> list[Capabilities]:
    """Reads a table.

    Raises:
        SpecError: If it cannot be read.
    """
    return read_rows(path, _parse_row, "capabilities", COMMAND)


def rename_problem(values: dict[str, Any]) -> dict[str, Any]:
    """Gives `problem` the name that it has in tables and cache files."""
    return {("trouble" if name == "problem" else name): value for name, value in values.items()}


def _format_sizes(sizes: tuple[int, ...]) -> str:
    return f"{', '.join(map(str, sizes))} px"


def _keep_sizes(sizes: tuple[int, ...], asked: set[int]) -> tuple[int, ...]:
    return tuple(size for size in sizes if size in asked)


def _parse_row(cells: dict[str, str]) -> Capabilities:
    """Reads a row: truths are 1 and 0, and image sizes one cell, `all` for all of them."""
    all_sizes = tuple(sorted({*SIZES, int(cells["weights_size"])}))
    values: dict[str, Any] = {}
    for field in fields(Capabilities):
        text = cells["trouble" if field.name == "problem" else field.name]
        if isinstance(field.default, tuple):
            values[field.name] = all_sizes if text == "all" else tuple(map(int, text.split()))
        elif isinstance(field.default, bool):
            values[field.name] = text == "1"
        else:
            values[field.name] = int(text) if field.type == "int" or field.type is int else text
    return Capabilities(**values)


def _parse_json(values: dict[str, Any]) -> Capabilities:
    sizes = {name: tuple(values[name]) for name in ("runs", "loads")}
    return Capabilities(**({"problem": values.pop("trouble"), **values} | sizes))
