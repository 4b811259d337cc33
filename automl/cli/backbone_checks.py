"""What `automl backbones` prints about what single backbones can do, and its check with the installed timm."""

import csv
import sys
from collections.abc import Mapping, Sequence
from dataclasses import fields
from importlib.metadata import version
from typing import TYPE_CHECKING

import typer

from automl.errors import shorten

if TYPE_CHECKING:
    from automl.backbones.capability_table import Capabilities

_MOST_DIFFERENCES = 20
_LINE_EVERY = 20
"""Backbones between two lines in a log."""

_TRAINING_CHECKS = {
    "learns": "learns",
    "every weight moves": "moves",
    "saved and loaded alike": "saves",
    "bf16 agrees": "bf16",
    "ONNX agrees": "onnx",
    "torch.export agrees": "torch",
    "memory as predicted": "memory",
}
"""Checks of a trained family by their name here, and their columns in `studies/leaderboard/learning.csv`."""


def describe_backbones(backbones: Mapping[str, str]) -> list[str]:
    """Writes what backbones (each with its family) can do, by the shipped tables; nothing of one they do not have."""
    from automl.backbones.capability_table import shipped_capabilities

    rows = [(shipped_capabilities(backbone), family) for backbone, family in backbones.items()]
    return [line for row, family in rows if row for line in ("", *_describe_row(row), *_describe_training(family))]


def _describe_training(family: str) -> list[str]:
    """Writes what came of training the smallest architecture of a family, and of exporting it; one line a point."""
    from automl.files import shipped

    path = shipped("studies", "leaderboard/learning.csv")
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    row = next((row for row in csv.DictReader(text.splitlines()) if row["family"] == family), None)
    if row is None:
        return []
    passed = [name for name, column in _TRAINING_CHECKS.items() if row[column] == "yes"]
    failed = [name for name in _TRAINING_CHECKS if name not in passed]
    lines = [f"  its family, trained:     {row['backbone']}: {', '.join(passed)}"]
    return lines + ([f"  not so:                  {', '.join(failed)} ({row['why']})"] if failed else [])


def _describe_row(row: "Capabilities") -> list[str]:
    """Writes what a backbone can do, one line a point."""
    from automl.backbones.capability_table import REASON_CHARACTERS

    weights = _format_value(row.loads)
    sizes = weights if row.loads == row.runs else f"{weights} with its weights; from scratch {_format_value(row.runs)}"
    classifier = "from zero, as here" if row.plain_head else "at random"
    lines = [
        f"{row.backbone} (weights made for {row.weights_size} px)",
        f"  image sizes:             {sizes}",
        f"  drop path:               {_format_value(row.drop_path)}",
        f"  gradient checkpointing:  {_format_value(row.grad_checkpointing)}",
        f"  layer decay:             over {row.layer_groups} groups of layers",
        f"  images of one channel:   {_format_value(row.other_channels)}",
        f"  timm's train.py:         starts its classifier {classifier}",
    ]
    cut = "…" if len(row.why_not) >= REASON_CHARACTERS else ""
    return lines + ([f"  why not at other sizes:  {row.why_not}{cut}"] if row.why_not else [])


def check_backbones(backbones: Sequence[str]) -> list[str]:
    """Prints and returns what differs from the shipped table with the installed timm, or cannot be built."""
    from automl.backbones.capabilities import examine_backbones
    from automl.backbones.capability_table import SHIPPED, load_capabilities
    from automl.cli.output import progress_bar
    from automl.files import read_header
    from automl.processes import cpu_threads

    with progress_bar("examining backbones") as progress:

        def show(done: int, total: int) -> None:
            progress(done, total)
            if not sys.stderr.isatty() and (done % _LINE_EVERY == 0 or done == total):
                typer.echo(f"examined {done} of {total} backbones", err=True)

        try:
            rows = examine_backbones(backbones, cpu_threads(), show)
        except KeyboardInterrupt:
            typer.echo("the examined backbones are kept; the same command continues", err=True)
            raise
    shipped = {row.backbone: row for row in load_capabilities()}
    broken = [f"{row.backbone}: {row.problem}" for row in rows if row.problem]
    pairs = [(shipped[row.backbone], row) for row in rows if row.backbone in shipped]
    differences = [line for before, now in pairs for line in _list_differences(before, now)]
    typer.echo(
        f"timm {version('timm')}: {len(rows):,} backbones examined, {len(broken)} cannot be built, "
        f"{len(differences)} differences from the table, which was made with timm "
        f"{read_header(SHIPPED).get('timm', '?')}"
    )
    if lines := broken + differences:
        typer.echo("  " + shorten(lines, _MOST_DIFFERENCES, "\n  "))
    return lines


def _list_differences(before: "Capabilities", now: "Capabilities") -> list[str]:
    """Writes the differences, one line a field; reasons are words of timm or torch, and change."""
    return [
        f"{now.backbone}: {field.name.replace('_', ' ')} {_format_value(getattr(before, field.name))} → "
        f"{_format_value(getattr(now, field.name))}"
        for field in fields(now)
        if field.name not in ("why_not", "problem") and getattr(before, field.name) != getattr(now, field.name)
    ]


def _format_value(value: object) -> str:
    if isinstance(value, tuple):
        return f"{', '.join(map(str, value))} px" if value else "none"
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)
