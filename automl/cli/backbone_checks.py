"""What `automl backbones` says about what single backbones can do, and its check with the installed timm."""

import csv
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import fields
from importlib.metadata import version
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from automl.backbones.capabilities import Capabilities

_MOST_DIFFERENCES = 20

_TOLD_EVERY = 20
"""Backbones between two lines in a log."""

_TRAINED = {
    "learns": "learns",
    "every weight moves": "moves",
    "saved and loaded alike": "saves",
    "bf16 agrees": "bf16",
    "ONNX agrees": "onnx",
    "torch.export agrees": "torch",
    "memory as predicted": "memory",
}
"""What `studies/leaderboard/learning.csv` says of a family, by what it is called here."""


def print_capabilities(backbones: Mapping[str, str], *, to_stderr: bool) -> None:
    """Prints what backbones can do, as the shipped tables say; nothing of one that they do not have.

    Args:
        backbones: timm names with their weights tags, each with its family.
        to_stderr: Whether the standard output is for a table alone.
    """
    from automl.backbones.capabilities import shipped_capabilities

    for backbone, family in backbones.items():
        found = shipped_capabilities(backbone)
        if found is not None:
            typer.echo("\n" + "\n".join(describe_capabilities(found) + describe_training(family)), err=to_stderr)


def describe_training(family: str) -> list[str]:
    """Writes what came of training the smallest architecture of a family, and of exporting it; one line a point."""
    from automl.files import shipped

    path = shipped("studies", "leaderboard/learning.csv")
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        row = next((row for row in csv.DictReader(file) if row["family"] == family), None)
    if row is None:
        return []
    failed = [name for name, check in _TRAINED.items() if row[check] != "yes"]
    done = [name for name, check in _TRAINED.items() if row[check] == "yes"]
    lines = [f"  its family, trained:     {row['backbone']}: {', '.join(done)}"]
    return lines + ([f"  not so:                  {', '.join(failed)} ({row['why']})"] if failed else [])


def describe_capabilities(found: "Capabilities") -> list[str]:
    """Writes what a backbone can do, one line a point."""
    from automl.backbones.capabilities import REASON_CHARACTERS

    weights = _sizes(found.loads)
    sizes = weights if found.loads == found.runs else f"{weights} with its weights; from scratch {_sizes(found.runs)}"
    lines = [
        f"{found.backbone} (weights made for {found.weights_size} px)",
        f"  image sizes:             {sizes}",
        f"  drop path:               {_yes(found.drop_path)}",
        f"  gradient checkpointing:  {_yes(found.grad_checkpointing)}",
        f"  layer decay:             over {found.layer_groups} groups of layers",
        f"  images of one channel:   {_yes(found.other_channels)}",
        f"  timm's train.py:         starts its classifier {'from zero, as here' if found.plain_head else 'at random'}",
    ]
    if found.why_not:
        cut = "…" if len(found.why_not) >= REASON_CHARACTERS else ""
        lines.append(f"  why not at other sizes:  {found.why_not}{cut}")
    return lines


def check_backbones(backbones: Sequence[str]) -> bool:
    """Examines backbones with the installed timm, and prints what differs from the shipped table.

    Args:
        backbones: timm names with their weights tags.

    Returns:
        Whether all of them can be built and none differs.
    """
    from automl.backbones.capabilities import SHIPPED, load_capabilities
    from automl.backbones.examine import examine_all
    from automl.cli.data import progress_bar
    from automl.files import read_header

    with progress_bar("examining backbones") as progress:

        def told(done: int, total: int) -> None:
            progress(done, total)
            if not sys.stderr.isatty() and (done % _TOLD_EVERY == 0 or done == total):
                typer.echo(f"examined {done} of {total} backbones", err=True)

        try:
            found = examine_all(backbones, os.cpu_count() or 1, told)
        except KeyboardInterrupt:
            typer.echo("what was examined is kept; the same command goes on", err=True)
            raise
    shipped = {row.backbone: row for row in load_capabilities()}
    troubled = [f"{row.backbone}: {row.trouble}" for row in found if row.trouble]
    differing = [line for row in found if row.backbone in shipped for line in _differences(shipped[row.backbone], row)]
    typer.echo(
        f"timm {version('timm')}: {len(found):,} backbones examined, {len(troubled)} cannot be built, "
        f"{len(differing)} differences from the table, which was made with timm {read_header(SHIPPED).get('timm', '?')}"
    )
    lines = troubled + differing
    for line in lines[:_MOST_DIFFERENCES]:
        typer.echo(f"  {line}")
    if len(lines) > _MOST_DIFFERENCES:
        typer.echo(f"  and {len(lines) - _MOST_DIFFERENCES} more")
    return not lines


def _differences(before: "Capabilities", now: "Capabilities") -> list[str]:
    """What differs, one line a field; reasons are words of timm's or torch's, and change."""
    return [
        f"{now.backbone}: {field.name.replace('_', ' ')} {_value(getattr(before, field.name))} → "
        f"{_value(getattr(now, field.name))}"
        for field in fields(now)
        if field.name not in ("why_not", "trouble") and getattr(before, field.name) != getattr(now, field.name)
    ]


def _value(value: object) -> str:
    if isinstance(value, tuple):
        return _sizes(value)
    return _yes(value) if isinstance(value, bool) else str(value)


def _sizes(sizes: tuple[int, ...]) -> str:
    return f"{', '.join(map(str, sizes))} px" if sizes else "none"


def _yes(value: bool) -> str:
    return "yes" if value else "no"
