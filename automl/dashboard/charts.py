"""Charts as SVG text, a few kilobytes each: a browser draws them, and nothing else is needed.

optuna-dashboard shows artifacts that are images, sounds or videos in the page, and tables (`.csv`) on a click; pages of
HTML, which could hold Plotly's figures, it only offers to download.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from automl.pages.figures import COLOURS
from automl.pages.templates import render_template

_WIDTH, _HEIGHT = 640, 400  # pixels
_LEFT, _TOP, _RIGHT, _BOTTOM = 64, 64, 616, 344  # of the axes
_DASHES = ("", "7 5", "2 4")
_TICKS = 5
_NAME = 11  # characters of a class on an axis
_CELLS = 320  # pixels of a confusion matrix


@dataclass(frozen=True)
class Line:
    """A line of a chart: its points in the order of x."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    marked: bool = False
    """Whether each point has a mark."""


def draw_lines(
    title: str, x_title: str, y_title: str, lines: Sequence[Line], x_log: bool = False, y_shares: bool = False
) -> str:
    """Draws up to three lines as SVG.

    Args:
        title: What the chart shows, in a few words.
        x_title: Of the horizontal axis.
        y_title: Of the vertical axis.
        lines: At least one, with a point or more.
        x_log: Whether the horizontal axis is logarithmic, up to 1; all x are above 0.
        y_shares: Whether the vertical axis is from 0 to 1; else it spans the values.
    """
    xs, ys = [x for line in lines for x in line.x], [y for line in lines for y in line.y]
    if x_log:
        low, high = math.log10(min(xs)), 0.0
        x_ticks = [(float(exponent), f"{10.0**exponent:g}") for exponent in range(math.ceil(low), 1)]
    else:
        x_ticks, low, high = _choose_ticks(0.0, max(xs))
    y_ticks, bottom, top = _choose_ticks(0.0, 1.0) if y_shares else _choose_ticks(min(ys), max(ys))
    place_x = _scale(low, high, _LEFT, _RIGHT)
    place_y = _scale(bottom, top, _BOTTOM, _TOP)
    drawn = []
    for number, line in enumerate(lines):
        points = [(place_x(math.log10(x) if x_log else x), place_y(y)) for x, y in zip(line.x, line.y, strict=True)]
        drawn.append(
            {
                "name": line.name,
                "points": " ".join(f"{x},{y}" for x, y in points),
                "marks": points if line.marked else [],
                "colour": COLOURS[number],
                "dash": _DASHES[number],
            }
        )
    return render_template(
        Path(__file__).parent / "lines.svg.jinja",
        title=title, x_title=x_title, y_title=y_title, lines=drawn, width=_WIDTH, height=_HEIGHT, left=_LEFT, top=_TOP,
        right=_RIGHT, bottom=_BOTTOM, x_ticks=[(place_x(value), label) for value, label in x_ticks],
        y_ticks=[(place_y(value), label) for value, label in y_ticks],
    )  # fmt: skip


def draw_confusion(title: str, classes: Sequence[str], counts: NDArray[np.int64]) -> str:
    """Draws a confusion matrix as SVG: truth in the rows, shades by the share of the row.

    Args:
        title: What it shows, in a few words.
        classes: Their names, C of them.
        counts: (C, C) samples by true class and predicted class.
    """
    side = min(110, _CELLS // len(classes) + 20)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    cells = [
        {"row": row, "column": column, "count": int(counts[row, column]), "share": round(float(share), 3)}
        for (row, column), share in np.ndenumerate(shares)
    ]
    left, top = 110, 76
    return render_template(
        Path(__file__).parent / "confusion.svg.jinja",
        title=title, classes=[name if len(name) <= _NAME else f"{name[: _NAME - 1]}…" for name in classes], cells=cells,
        side=side, left=left, top=top, width=max(520, left + side * len(classes) + 24),
        height=top + side * len(classes) + 24,
    )  # fmt: skip


def _choose_ticks(low: float, high: float) -> tuple[list[tuple[float, str]], float, float]:
    """Chooses round numbers that enclose a range: with their texts, the lowest, the highest."""
    span = high - low or abs(high) or 1.0
    rough = span / _TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    numbers = range(first, max(last, first + 1) + 1)
    digits = max(0, -math.floor(math.log10(step)))
    return [(k * step, f"{k * step:.{digits}f}") for k in numbers], numbers[0] * step, numbers[-1] * step


def _scale(low: float, high: float, start: int, end: int) -> Callable[[float], float]:
    """Makes the function that turns a value into a position in pixels."""
    factor = (end - start) / (high - low) if high > low else 0.0
    return lambda value: round(start + (value - low) * factor, 1)
