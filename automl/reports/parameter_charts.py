"""Figures of the parameters: which matter, slices through those, and all of them at once."""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from automl.pages.figures import COLOURS, Chart, cut_name, import_graphs, make_figure, make_line
from automl.reports.importance import LEAST_WITH, Importance
from automl.reports.search_charts import GREY, count_left_out, draw_trials, escape, fit_axis, round_all
from automl.reports.study_summary import StudySummary, TrialSummary, value_of
from automl.space.nodes import Branches, Float, Int
from automl.units import format_count, format_figure

_BARS = 12
_SLICES = 4
_BOXES = 6
"""Values of a number up to which they are drawn as options."""
_POINTS = 200
"""Trials up to which each is drawn beside the boxes."""
_BEST_LINES = 40
_AXES = 9
"""Parameters of the figure of all of them, beside the value."""
_LINES = 600
"""Trials in it: more would be one grey area."""
_ROW = 62
"""Pixels between two of its axes."""
_ABSENT = -0.12
"""Where a trial stands that did not draw a parameter; the axis itself goes from 0 to 1."""
_JITTER = 0.012
"""By which trials of the same value are drawn apart."""


def draw_importance(importance: Importance, metric: str) -> Chart:
    """Draws the share of each parameter, and the level that chance reaches."""
    shown = list(importance.shares.items())[:_BARS][::-1]
    figure = make_figure("importance", "")
    colours = [COLOURS[0] if share > importance.chance else GREY for _, share in shown]
    figure.add_trace(
        import_graphs().Bar(
            x=round_all([share for _, share in shown]), y=[cut_param(name) for name, _ in shown], orientation="h",
            marker_color=colours, showlegend=False, hovertemplate="%{y}: %{x:.3f}<extra></extra>",
        )
    )  # fmt: skip
    figure.add_vline(importance.chance, line_dash="dash", line_color=GREY)
    figure.update_layout(height=150 + 26 * len(shown))
    figure.update_yaxes(automargin=True)
    figure.update_xaxes(rangemode="tozero")
    above = [escape(name) for name in importance.above_chance[:4]]
    verdict = f"No parameter matters more for {metric} than chance would show"
    if above:
        verdict = f"{join_names(above)} {'matter' if len(above) > 1 else 'matters'} more than chance would show"
    return Chart("Which parameters matter", f"{verdict} (dashed line). {_describe_basis(importance)}", figure)


def _describe_basis(importance: Importance) -> str:
    """Writes on how many trials it rests, and what is left out."""
    trials = format_count(importance.trials, "trial")
    sampled = f", spread over all {importance.sampled_of:,}" if importance.sampled_of else ""
    pruned = f", {importance.pruned:,} of them pruned, with their last value" if importance.pruned else ""
    rest = count_left_out(importance.left_out, "parameter", f"that fewer than {LEAST_WITH} trials drew")
    how = "PED-ANOVA; what a parameter of one branch does is seen in that branch"
    return f"It rests on {trials}{sampled}{pruned} ({how}).{rest}"


def draw_slices(summary: StudySummary, importance: Importance) -> list[Chart]:
    """Draws the value against each of the most important parameters."""
    return [_draw_slice(summary, name) for name in list(importance.shares)[:_SLICES]]


def _draw_slice(summary: StudySummary, name: str) -> Chart:
    having = [trial for trial in summary.scored if name in trial.params and trial.row.value is not None]
    values = {trial.params[name] for trial in having}
    plain = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    as_boxes = not plain or len(values) <= _BOXES
    figure = make_figure("", summary.metric)
    for state, symbol, number in (("pruned", "x-thin-open", 4), ("complete", "circle", 0)):
        group = [trial for trial in having if trial.row.state == state]
        if group and as_boxes:
            figure.add_trace(_draw_boxes(group, name, state, make_line(number, "").line.color))
        elif group:
            colour = make_line(number, "").line.color
            places = [trial.params[name] for trial in group]
            figure.add_trace(draw_trials(group, places, state, symbol=symbol, color=colour, size=7, line_width=1.5))
    node = dict(summary.setup.space.iterate_parameters()).get(name)
    if as_boxes:
        order = sorted(values) if plain else sorted(values, key=str)
        figure.update_xaxes(type="category", categoryorder="array", categoryarray=[_name_option(one) for one in order])
        figure.update_layout(boxmode="group")
    elif isinstance(node, Float | Int) and node.log:
        figure.update_xaxes(type="log", exponentformat="power")
    figure.update_layout(height=340)
    hidden = fit_axis(figure, [value_of(trial) for trial in having])
    return Chart(escape(name), f"{_describe_slice(summary, name, having, plain=plain)}{hidden}", figure)


def _draw_boxes(trials: Sequence[TrialSummary], name: str, state: str, colour: str) -> Any:
    """Draws how the values are spread at each of a few options; of few trials each one, too."""
    return import_graphs().Box(
        x=[_name_option(trial.params[name]) for trial in trials], y=round_all([value_of(trial) for trial in trials]),
        name=state, marker={"color": colour, "size": 4}, line={"width": 1.5}, jitter=0.5, hoverinfo="y",
        boxpoints="all" if len(trials) <= _POINTS else "outliers",
    )  # fmt: skip


def _name_option(value: Any) -> str:
    """Writes an option below an axis: of a backbone without the tag of its weights."""
    return cut_name(str(value).partition(".")[0] if isinstance(value, str) else str(value))[:18]


def _describe_slice(summary: StudySummary, name: str, having: list[TrialSummary], *, plain: bool) -> str:
    """Writes where the best trials lie."""
    sign = -1 if summary.maximize else 1
    ordered = sorted(having, key=lambda trial: (trial.row.state != "complete", sign * value_of(trial)))
    top = ordered[: max(2, math.ceil(len(ordered) / 10))]
    values, drawn = [trial.params[name] for trial in top], f"of {format_count(len(having), 'trial')} that drew it"
    if plain:
        low, high = min(values), max(values)
        every = [trial.params[name] for trial in having]
        where = format_figure(low) if low == high else f"between {format_figure(low)} and {format_figure(high)}"
        ends = f"tried {format_figure(min(every))} to {format_figure(max(every))}"
        return f"The best {len(top)} {drawn} have {where} ({ends})."
    value, count = Counter(map(str, values)).most_common(1)[0]
    tried = sum(str(trial.params[name]) == value for trial in having)
    return f"{count} of the best {len(top)} {drawn} have {value}, which {tried} tried."


# --- all at once --------------------------------------------------------------------------------------------------


def draw_parallel(summary: StudySummary, importance: Importance | None) -> Chart | None:
    """Draws each trial as a line through its parameters, one below the other, so that it fits a phone.

    A parameter that a trial did not draw, because it took another branch, has a mark of its own left of the axis.
    """
    scored = [trial for trial in summary.scored if trial.row.value is not None and trial.params]
    names = _choose_axes(summary, scored, importance)
    if len(scored) < 2 or not names:
        return None
    sign = -1 if summary.maximize else 1
    ordered = sorted(scored, key=lambda trial: (trial.row.state != "complete", sign * value_of(trial)))
    best = ordered[: min(_BEST_LINES, max(1, math.ceil(len(ordered) / 10)))]
    others = ordered[len(best) :]
    drawn = others
    if len(others) > _LINES:
        drawn = [others[row] for row in np.linspace(0, len(others) - 1, _LINES).astype(int)]
    axes = [_Axis.of_param(summary, name, scored) for name in names]
    axes.append(_Axis.of_values(summary.metric, [value_of(trial) for trial in scored]))
    figure = make_figure("", "")
    for number, axis in enumerate(axes):
        axis.lacking = len(scored) - len(axis.places)
        axis.draw(figure, -number)
    figure.add_trace(_draw_polylines(drawn, axes, f"other trials ({len(drawn)})", GREY, 0.7, 0.5))
    figure.add_trace(_draw_polylines(best, axes, f"the best ({len(best)})", COLOURS[1], 1.4, 0.8))
    figure.update_xaxes(visible=False, range=[_ABSENT - 0.06, 1.06])
    figure.update_yaxes(visible=False, range=[-len(axes) + 0.4, 0.75])
    figure.update_layout(height=90 + _ROW * len(axes), margin={"l": 8, "r": 8, "t": 40, "b": 8})
    return Chart("All parameters at once", _describe_parallel(scored, best, names, drawn, others), figure)


def _choose_axes(summary: StudySummary, scored: list[TrialSummary], importance: Importance | None) -> list[str]:
    """Chooses the backbone, the most important parameters and the choices of branches above them, in that order."""
    present = list(dict.fromkeys(name for trial in scored for name in trial.params))
    varying = [
        name for name in present if len({str(trial.params[name]) for trial in scored if name in trial.params}) > 1
    ]
    ranked = [name for name in (importance.shares if importance else varying) if name in varying]
    chosen: list[str] = ["backbone"] if "backbone" in varying else []
    for name in ranked:
        above = [other for other in varying if name.startswith(f"{other}.") and other not in chosen]
        if name not in chosen and len(chosen) + len(above) < _AXES:
            chosen += [*above, name]
    nodes = dict(summary.setup.space.iterate_parameters())
    # a choice of branches stands above what is in them
    return sorted(
        chosen,
        key=lambda name: (
            name != "backbone",
            min(map(chosen.index, _family(name, chosen))),
            not isinstance(nodes.get(name), Branches),
        ),
    )


def _family(name: str, chosen: list[str]) -> list[str]:
    """Lists the chosen parameters of the same first name, such as `optimizer`."""
    return [other for other in chosen if other.partition(".")[0] == name.partition(".")[0]]


class _Axis:
    """Where the values of one parameter lie, from 0 to 1, and what stands beside them."""

    ends: tuple[float, float] | None = None
    """Of the axis of the value, which every trial has."""
    lacking = 0
    """Trials that did not draw the parameter."""

    def __init__(self, name: str, ticks: list[tuple[float, str]], places: dict[int, float]) -> None:
        self.name, self.ticks, self.places = name, ticks, places

    @classmethod
    def of_param(cls, summary: StudySummary, name: str, trials: list[TrialSummary]) -> "_Axis":
        having = {trial.row.number: trial.params[name] for trial in trials if name in trial.params}
        if any(isinstance(value, str | bool) for value in having.values()):
            options = sorted(set(map(str, having.values())))
            steps = {option: (k + 0.5) / len(options) for k, option in enumerate(options)}
            shown = [(spot, _shorten_option(option, len(options))) for option, spot in steps.items()]
            return cls(name, shown, {number: steps[str(value)] for number, value in having.items()})
        node = dict(summary.setup.space.iterate_parameters()).get(name)
        log = isinstance(node, Float | Int) and node.log
        return cls(name, *_scale({number: float(value) for number, value in having.items()}, log=log))

    @classmethod
    def of_values(cls, metric: str, values: list[float]) -> "_Axis":
        ticks, _ = _scale(dict(enumerate(values)), log=False)
        low, high = min(values), max(values)
        axis = cls(metric, ticks, {})
        axis.ends = (low, high)
        return axis

    def place_of(self, trial: TrialSummary) -> float:
        if self.ends is not None:
            low, high = self.ends
            return (value_of(trial) - low) / ((high - low) or 1.0)
        spot = self.places.get(trial.row.number, _ABSENT)
        return spot + _JITTER * math.sin(7.0 * trial.row.number)

    def draw(self, figure: Any, y: float) -> None:
        """Draws the line, the name above it and the values below."""
        figure.add_shape(type="line", x0=0, x1=1, y0=y, y1=y, line={"color": GREY, "width": 1})
        text = {"showarrow": False, "y": y, "font": {"size": 11}}
        figure.add_annotation(x=0, xanchor="left", yshift=24, text=f"<b>{escape(self.name)}</b>", **text)
        for spot, shown in self.ticks:
            anchor = "left" if spot == 0 else "right" if spot == 1 else "center"
            figure.add_annotation(x=spot, xanchor=anchor, yshift=-10, text=escape(shown), **text)
        if self.ends is None and self.lacking:
            figure.add_annotation(x=_ABSENT, yshift=-10, text="none", **text)
            figure.add_trace(
                import_graphs().Scatter(
                    x=[_ABSENT], y=[y], mode="markers", showlegend=False, hoverinfo="skip",
                    marker={"symbol": "diamond-open", "size": 9, "color": GREY},
                )
            )  # fmt: skip


def _scale(values: dict[int, float], *, log: bool) -> tuple[list[tuple[float, str]], dict[int, float]]:
    """Brings numbers to 0 … 1; returns what to write at both ends, and each spot."""
    log = log and min(values.values()) > 0
    scaled = {number: math.log(value) if log else value for number, value in values.items()}
    low, high = min(scaled.values()), max(scaled.values())
    ticks = [(0.0, format_figure(min(values.values()))), (1.0, format_figure(max(values.values())))]
    return ticks, {number: (value - low) / ((high - low) or 1.0) for number, value in scaled.items()}


def _shorten_option(option: str, options: int) -> str:
    """Cuts the name of an option so that all of them stand side by side on a phone."""
    most = max(4, 44 // options)
    name = option.partition(".")[0] if len(option) > most else option
    return name if len(name) <= most else f"{name[: most - 1]}…"


def _draw_polylines(
    trials: Sequence[TrialSummary], axes: Sequence[_Axis], name: str, colour: str, width: float, opacity: float
) -> Any:
    """Draws trials as one trace, with gaps between them."""
    places = [[*(axis.place_of(trial) for axis in axes), None] for trial in trials]
    rows = [*(-number for number in range(len(axes))), None]
    labels = [f"{trial.label}: {value_of(trial):.4f}" for trial in trials for _ in rows]
    return import_graphs().Scatter(
        name=name, x=[None if x is None else round(x, 3) for line in places for x in line], y=rows * len(trials),
        text=labels, mode="lines", line={"color": colour, "width": width}, opacity=opacity,
        hovertemplate="%{text}<extra></extra>",
    )  # fmt: skip


def _describe_parallel(
    scored: list[TrialSummary],
    best: list[TrialSummary],
    names: list[str],
    drawn: list[TrialSummary],
    others: list[TrialSummary],
) -> str:
    """Writes what the best trials share, and what is not drawn."""
    shared = []
    for name in names:
        values = Counter(str(trial.params.get(name)) for trial in best if isinstance(trial.params.get(name), str))
        if values and values.most_common(1)[0][1] == len(best) > 1:
            shared.append(f"{name} {values.most_common(1)[0][0]}")
    text = f"In orange the best of {format_count(len(scored), 'trial')}."
    if len(best) > 1:
        text = f"The best {len(best)} of {format_count(len(scored), 'trial')}, in orange, "
        text += f"all have {join_names(shared)}." if shared else "share no choice."
    if any(name not in trial.params for trial in scored for name in names):
        text += " A line that passes left of an axis (none) is of a trial that took another branch."
    total = len({name for trial in scored for name in trial.params})
    if total > len(names):
        text += count_left_out(total - len(names), "parameter", "for want of room, or because they do not vary,")
    if len(drawn) < len(others):
        text += f" Of the other {len(others):,} trials {len(drawn)} are drawn."
    return text


def cut_param(name: str) -> str:
    """Writes the name of a parameter for an axis: of a long one the end says most."""
    return escape(name if len(name) <= 26 else f"…{name[-25:]}")


def join_names(names: Sequence[str]) -> str:
    """Writes names as a sentence lists them."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
