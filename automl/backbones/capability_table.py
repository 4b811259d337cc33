"""What each architecture can do, as the package ships it: the record and its table; imports no torch.

The table was made with one version of timm (`studies/leaderboard/capabilities.py`), and only speaks for that one.
"""

from contextlib import suppress
from dataclasses import dataclass, fields
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from automl.backbones.table import read_rows
from automl.files import read_header

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


def shipped_capabilities(backbone: str) -> Capabilities | None:
    """Looks a backbone up in the shipped table; None where it is not there, or the table was made with another timm."""
    return _read_shipped().get(backbone)


@cache
def _read_shipped() -> dict[str, Capabilities]:
    made_with: dict[str, str] = {}
    with suppress(OSError, UnicodeDecodeError):
        made_with = read_header(SHIPPED)
    if (made_with.get("timm"), made_with.get("method")) != (version("timm"), str(METHOD)):
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


def parse_capabilities(values: dict[str, Any]) -> Capabilities:
    """Reads what `rename_problem` made of a record for a cache file."""
    sizes = {name: tuple(values[name]) for name in ("runs", "loads")}
    return Capabilities(**({"problem": values.pop("trouble"), **values} | sizes))
