"""What each architecture can do, found out on tensors without data and shipped as a table.

A backbone of timm's takes images of any size, of some sizes or of one; it may know stochastic depth and gradient
checkpointing or not; and where its position embeddings or attention biases have the shape of one image size, its
pretrained weights may not load at another. The search asks here before it draws a recipe.

The table was made with one version of timm (`studies/leaderboard/sweep.py`). With another one, and for image sizes that
it does not have, the same is found out again in about a second a backbone, and kept in the cache.
"""

import csv
import io
import json
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from functools import cache
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

from automl.errors import RecipeError, SpecError
from automl.files import cache_dir, read_header, write_text
from automl.recipe import Recipe

SHIPPED = Path(__file__).with_name("capabilities.csv")

SIZES = (64, 96, 128, 160, 192, 224, 240, 256, 288, 320, 384, 448, 512)
"""Image sizes of the table, in pixels."""

COMMAND = "python studies/leaderboard/sweep.py"

REASON_CHARACTERS = 160
"""A longer reason why something cannot be done is cut."""

METHOD = 1
"""Raised whenever what is found out changes, so that older cache files are passed over."""


@dataclass(frozen=True)
class Capabilities:
    """What a backbone can do.

    Attributes:
        backbone: timm's name, with the tag of its weights where there are several.
        default_weights: Whether these are the weights that the architecture's name stands for without a tag.
        weights_size: Pixels per side that its pretrained weights are made for.
        runs: Image sizes, of those tried, at which it can be built and run.
        loads: Those of `runs` at which its pretrained weights load as well.
        takes_size: Whether timm must be told the image size when the network is built (`img_size`).
        drop_path: Whether it has stochastic depth.
        grad_checkpointing: Whether it can compute activations again in the backward pass.
        layer_groups: Groups of layers between which layer-wise learning rate decay tells; 1: it does nothing.
        plain_head: Whether its classifier is one layer with weight and bias, which timm's train.py can scale.
        other_channels: Whether it can be built for images of one channel.
        why_not: Why the first size that is missing in `loads` is missing; "" if none is.
        trouble: Why nothing could be found out; "" if something could.
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
    trouble: str = ""

    @property
    def arch(self) -> str:
        """Timm's name of the architecture, without the tag of weights."""
        return self.backbone.partition(".")[0]

    def sizes(self, *, pretrained: bool) -> tuple[int, ...]:
        """Gives the image sizes that can be trained at.

        Args:
            pretrained: Whether from its weights.
        """
        return self.loads if pretrained else self.runs


def find_capabilities(backbone: str, sizes: Iterable[int] = (), *, shipped: bool = True) -> Capabilities:
    """Looks an architecture up, or finds out what it can do (about a second); imports torch only for the latter.

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
        return replace(known, runs=_among(known.runs, asked), loads=_among(known.loads, asked))
    key = json.dumps([METHOD, version("timm"), backbone, wanted])
    path = cache_dir() / "capabilities" / f"{sha256(key.encode()).hexdigest()[:32]}.json"
    with suppress(OSError, ValueError, TypeError, KeyError):
        return _from_json(json.loads(path.read_text(encoding="utf-8")))
    from automl.backbones.examine import examine  # imports torch

    found = examine(backbone, wanted)
    with suppress(OSError):  # a cache that cannot be written is none
        write_text(path, json.dumps(asdict(found)))
    return found


def check_image_size(recipe: Recipe) -> None:
    """Makes sure that a recipe's backbone can be trained at its image size.

    Raises:
        RecipeError: If not, with the image sizes at which it can; or if timm has no such backbone.
    """
    can = find_capabilities(recipe.backbone, (recipe.image_size,))
    if can.trouble or recipe.image_size in can.sizes(pretrained=recipe.pretrained):
        return
    sizes = find_capabilities(recipe.backbone)
    if recipe.pretrained:
        fix = f"the weights of {recipe.backbone} load at {_pixels(sizes.loads)} only: set image_size"
        fix += ", or pretrained: false" if recipe.image_size in can.runs else ""
    else:
        fix = f"{recipe.backbone} runs at {_pixels(sizes.runs)}: set image_size"
    raise RecipeError(f"image_size {recipe.image_size}: {fix}")


def without_unsupported(recipe: Recipe) -> tuple[Recipe, tuple[str, ...]]:
    """Takes out of a recipe what its backbone does not have: it could not be trained, and had no effect before.

    Args:
        recipe: Written by hand, or by a search of an earlier version.

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
        numerics = recipe.numerics.model_copy(update={"grad_checkpointing": False})
        recipe = recipe.model_copy(update={"numerics": numerics})
    return recipe, tuple(without)


def shipped_capabilities(backbone: str) -> Capabilities | None:
    """Looks a backbone up in the shipped table; imports no torch.

    Args:
        backbone: A timm name; without a weights tag it stands for its default weights.

    Returns:
        None where the table has no such backbone, or was made with another timm than the installed one.
    """
    return _by_name().get(backbone)


@cache
def _by_name() -> dict[str, Capabilities]:
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
    try:
        with path.open(encoding="utf-8", newline="") as lines:
            return [_from_row(row) for row in csv.DictReader(line for line in lines if not line.startswith("#"))]
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise SpecError(f"{path} is not a table of capabilities ({exc}); make it with: {COMMAND}") from exc


def write_capabilities(rows: Iterable[Capabilities], path: Path = SHIPPED) -> None:
    """Writes a table, atomically, with the versions it was made with on top."""
    text = io.StringIO()
    for key, value in {"method": METHOD, "timm": version("timm"), "command": COMMAND, "licence": "Apache-2.0"}.items():
        text.write(f"# {key}: {value}\n")
    writer = csv.DictWriter(text, [field.name for field in fields(Capabilities)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(_to_row(row) for row in sorted(rows, key=lambda row: row.backbone))
    write_text(path, text.getvalue())


def _pixels(sizes: tuple[int, ...]) -> str:
    return f"{', '.join(map(str, sizes))} px"


def _among(sizes: tuple[int, ...], asked: set[int]) -> tuple[int, ...]:
    return tuple(size for size in sizes if size in asked)


def _to_row(row: Capabilities) -> dict[str, str | int]:
    """A row as the table has it: truths as 1 and 0, image sizes in one cell, `all` for all of them."""
    everything = tuple(sorted({*SIZES, row.weights_size}))
    cells: dict[str, str | int] = {}
    for field in fields(row):
        value = getattr(row, field.name)
        if isinstance(value, tuple):
            cells[field.name] = "all" if value == everything else " ".join(map(str, value))
        else:
            cells[field.name] = int(value) if isinstance(value, bool) else value
    return cells


def _from_row(cells: dict[str, str]) -> Capabilities:
    everything = tuple(sorted({*SIZES, int(cells["weights_size"])}))
    values: dict[str, Any] = {}
    for field in fields(Capabilities):
        text = cells[field.name]
        if isinstance(field.default, tuple):
            values[field.name] = everything if text == "all" else tuple(map(int, text.split()))
        elif isinstance(field.default, bool):
            values[field.name] = text == "1"
        else:
            values[field.name] = int(text) if field.type == "int" or field.type is int else text
    return Capabilities(**values)


def _from_json(values: dict[str, Any]) -> Capabilities:
    return Capabilities(**(values | {name: tuple(values[name]) for name in ("runs", "loads")}))
