"""Figures of pages: Plotly figures, and a sentence that says what each one shows.

Colours are Okabe & Ito's (https://jfly.uni-koeln.de/color/), which colour-blind people can tell apart; lines differ in
symbol and dash as well. Colours of text and grid are left to the page, which has a light and a dark face.
"""

import html
from dataclasses import dataclass
from typing import Any

from automl.media.opening import require

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
_SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "x")
_HEIGHT = 420  # pixels
_NAME = 24  # characters of a name on an axis: more would leave no room on a phone


@dataclass(frozen=True)
class Chart:
    """A figure and what it shows."""

    title: str
    sentence: str
    """What the figure shows, for who cannot see it too."""
    figure: Any  # plotly.graph_objects.Figure: Plotly has no types


def make_figure(x_title: str, y_title: str) -> Any:
    """Makes an empty figure that leaves the colours of text and grid to the page."""
    figure = import_graphs().Figure()
    figure.update_layout(
        template="plotly_white", height=_HEIGHT, paper_bgcolor="rgba(0,0,0,0)", plot_bgcolor="rgba(0,0,0,0)",
        margin={"l": 56, "r": 16, "t": 40, "b": 56}, font={"family": "system-ui, sans-serif", "size": 13},
        legend={"orientation": "h", "y": 1.0, "yanchor": "bottom", "x": 0}, showlegend=True, hovermode="closest",
    )  # fmt: skip
    figure.update_xaxes(title_text=x_title, zeroline=False)
    figure.update_yaxes(title_text=y_title, zeroline=False)
    return figure


def make_line(number: int, name: str, **values: Any) -> Any:
    """Makes a trace in the style of this number; `values` are those of `plotly.graph_objects.Scatter`."""
    colour = COLOURS[number % len(COLOURS)]
    line = {"color": colour, "dash": DASHES[number % len(DASHES)], "width": 2}
    marker = {"color": colour, "symbol": _SYMBOLS[number % len(_SYMBOLS)], "size": 8}
    return import_graphs().Scatter(name=html.escape(name, quote=False), line=line, marker=marker, **values)


def cut_name(name: str) -> str:
    """Writes a name for an axis: escaped, and cut where it would leave no room on a phone."""
    return html.escape(name if len(name) <= _NAME else f"{name[: _NAME - 1]}…", quote=False)


def figure_json(figure: Any) -> str:
    """Writes a figure as JSON that may stand in a `<script>` element."""
    return str(figure.to_json()).replace("<", "\\u003c")


def import_graphs() -> Any:
    """Imports Plotly's kinds of traces."""
    return require("plotly.graph_objects")
