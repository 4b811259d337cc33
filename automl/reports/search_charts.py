"""Figures of how a search went: what it reached and when, every learning curve, and what a score costs.

Each function returns None where the study has too little for the figure.
"""

import html
import math
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from automl.pages.figures import Chart, cut_name, import_graphs, make_figure, make_line
from automl.reports.study_summary import StudySummary, TrialSummary, value_of
from automl.units import format_bytes, format_count, format_figure, format_seconds

GREY = "#888888"
"""Of what is there for comparison; it shows on light and dark pages."""
_CURVES = 300
"""Learning curves that are drawn; more would hide one another."""
_BEST_CURVES = 60
"""Of these, so many are the best trials; the others are spread over the study."""
_BACKBONES = 5
"""That have a colour of their own."""
_LEAST_RANKED = 4
"""Backbones for a rank correlation."""
_FAR = 8.0
"""Values further from the middle half than so many times its width are left outside of a figure."""
_CHANCE = 0.05


def draw_best(summary: StudySummary, *, over_time: bool) -> Chart | None:
    """Draws the best value so far, over trials or over the time that was spent."""
    if not summary.complete:
        return None
    unit, name = choose_time_unit(summary.clock.total)
    figure = make_figure(f"{name} spent" if over_time else "trials that have ended", summary.metric)
    scored = {trial.row.number for trial in summary.scored if trial.row.value is not None}
    ended = [(k, each) for k, each in enumerate(summary.ended, 1) if each.row.number in scored]
    for state, symbol, colour in (("complete", "circle-open", GREY), ("pruned", "x-thin-open", "#E69F00")):
        shown = [(k, each) for k, each in ended if each.row.state == state]
        if shown:
            places = [summary.clock.spent(each.ended or 0.0) / unit if over_time else k for k, each in shown]
            figure.add_trace(
                draw_trials(
                    [each for _, each in shown], places, state, symbol=symbol, color=colour, size=6, line_width=1.5
                )
            )
    figure.add_trace(trace_steps(summary, over_time=over_time, number=0, name="best so far"))
    figure.update_xaxes(rangemode="tozero")
    if not over_time and len(summary.ended) <= 10:
        figure.update_xaxes(dtick=1)
    hidden = fit_axis(figure, [value_of(each) for each in summary.scored])
    title = "Best so far over time" if over_time else "Best so far over trials"
    return Chart(title, f"{_describe_time(summary) if over_time else _describe_progress(summary)}{hidden}", figure)


def trace_steps(summary: StudySummary, *, over_time: bool, number: int, name: str) -> Any:
    """Makes the line of the best value so far, in the style of a number."""
    steps, unit = summary.trace_best(), choose_time_unit(summary.clock.total)[0]
    places = [step[1] / unit if over_time else step[0] for step in steps]
    values, labels = [step[2] for step in steps], [step[3].label for step in steps]
    places.append(summary.clock.total / unit if over_time else len(summary.ended))
    return make_line(
        number, name, x=round_all(places), y=round_all([*values, values[-1]]), text=[*labels, labels[-1]],
        mode="lines+markers", line_shape="hv", hovertemplate="%{text}: %{y:.4f}",
    )  # fmt: skip


def choose_time_unit(seconds: float) -> tuple[float, str]:
    """Chooses the unit of a time axis: its seconds and its name."""
    return (3600.0, "hours") if seconds > 2 * 3600 else (60.0, "minutes")


def _describe_progress(summary: StudySummary) -> str:
    steps = summary.trace_best()
    first, last = steps[0], steps[-1]
    after = len(summary.ended) - last[0]
    if len(steps) == 1:
        return f"{last[3].label.capitalize()} is the best, with {last[2]:.4f}; no later trial was better."
    return (
        f"The best {summary.metric} went from {first[2]:.4f} ({first[3].label}) to {last[2]:.4f} ({last[3].label}) in "
        f"{format_count(len(steps) - 1, 'step')}; {_describe_rest(after)}."
    )


def _describe_rest(after: int) -> str:
    return f"{format_count(after, 'later trial')} brought nothing better" if after else "it came with the last trial"


def _describe_time(summary: StudySummary) -> str:
    steps, total = summary.trace_best(), summary.clock.total
    gain, moment = steps[-1][2] - steps[0][2], 0.0
    if gain:
        moment = next(step[1] for step in steps if abs(step[2] - steps[0][2]) >= 0.9 * abs(gain))
    pauses = sum(b - a for a, b in zip(summary.clock.ends, summary.clock.starts[1:], strict=False))
    left_out = f" Pauses of {format_seconds(pauses)} between trials are left out." if pauses > 0.1 * total else ""
    if not gain:
        return f"The first complete trial, after {format_seconds(steps[0][1])}, is the best one.{left_out}"
    best = f"the best was there after {format_seconds(steps[-1][1])} of {format_seconds(total)}"
    if moment == steps[-1][1]:
        return f"{best.capitalize()}, and only then more than nine tenths of the gain.{left_out}"
    return f"Nine tenths of the gain were there after {format_seconds(moment)}; {best}.{left_out}"


def draw_curves(summary: StudySummary) -> Chart | None:
    """Draws the learning curves; those of pruned trials end where they were pruned."""
    with_curve = [trial for trial in summary.trials if trial.curve]
    if not with_curve:
        return None
    metric = summary.setup.metric
    figure = make_figure("epochs", metric)
    chosen = _choose_curves(summary, with_curve)
    best = summary.best
    styles = {"complete": ("#56B4E9", "solid"), "pruned": ("#E69F00", "dot")}
    for state in ("pruned", "complete", "other"):
        group = [
            each
            for each in chosen
            if each is not best and (each.row.state if each.row.state in styles else "other") == state
        ]
        if group:
            colour, dash = styles.get(state, (GREY, "dash"))
            figure.add_trace(_draw_lines(group, state, colour, dash))
    if best is not None and best.curve:
        trace = make_line(0, f"best: {best.label}", x=round_all([x for x, _ in best.curve]))
        trace.update(y=round_all([y for _, y in best.curve]), mode="lines+markers", line_width=3)
        trace.update(hovertemplate="%{y:.4f} after %{x:.3g} epochs")
        figure.add_trace(trace)
    figure.update_xaxes(rangemode="tozero")
    hidden = fit_axis(figure, [value for each in chosen for _, value in each.curve])
    pruned = [each for each in with_curve if each.row.state == "pruned"]
    parts = [f"{format_count(len(with_curve), 'trial')} {'were' if len(with_curve) != 1 else 'was'} validated"]
    if pruned:
        share = np.median([each.curve[-1][0] / (each.row.epochs or each.curve[-1][0]) for each in pruned])
        parts.append(f"{len(pruned):,} ended early, half of them before {share:.0%} of their run")
    if all(len(each.curve) == 1 for each in with_curve):
        parts.append("each once, at its end")
    if best is not None and len(best.curve) > 1:
        top = (max if summary.maximize else min)(best.curve, key=lambda point: point[1])
        parts.append(
            f"the best one had its best validation, {top[1]:.4f}, after {top[0]:.3g} epochs of {best.curve[-1][0]:.3g}"
        )
    if summary.setup.folds > 1:
        parts.append("of each the first fold is drawn")
    if summary.setup.robust:
        parts.append(f"curves are of {metric}, while trials are compared by {summary.metric}")
    if len(chosen) < len(with_curve):
        parts.append(f"drawn are {len(chosen)}: the {_BEST_CURVES} best, and others from all over the study")
    return Chart("Learning curves", "; ".join(parts) + f".{hidden}", figure)


def _choose_curves(summary: StudySummary, with_curve: list[TrialSummary]) -> list[TrialSummary]:
    if len(with_curve) <= _CURVES:
        return with_curve
    best = {trial.row.number for trial in summary.complete[:_BEST_CURVES]}
    others = [trial for trial in with_curve if trial.row.number not in best]
    rows = np.linspace(0, len(others) - 1, _CURVES - len(best)).astype(int)
    spread = {others[row].row.number for row in rows}
    return [trial for trial in with_curve if trial.row.number in best | spread]


def _draw_lines(trials: Sequence[TrialSummary], name: str, colour: str, dash: str) -> Any:
    """Draws many curves as one trace, with gaps between them, and a mark where each ends."""
    points = [[*each.curve, (None, None)] for each in trials]
    labels = [each.label for each in trials for _ in range(len(each.curve) + 1)]
    ends = [size for each in trials for size in [*[0] * (len(each.curve) - 1), 6, 0]]
    flat = list(chain.from_iterable(points))
    return import_graphs().Scatter(
        name=name, x=round_all([x for x, _ in flat]), y=round_all([y for _, y in flat]), text=labels,
        mode="lines+markers", line={"color": colour, "width": 1, "dash": dash}, opacity=0.75,
        marker={"color": colour, "size": ends, "symbol": "x" if name == "pruned" else "circle", "line": {"width": 0}},
        hovertemplate="%{text}: %{y:.4f} after %{x:.3g} epochs",
    )  # fmt: skip


def draw_memory(summary: StudySummary) -> Chart | None:
    """Draws the value of complete trials against the peak memory of a training step."""
    known = [trial for trial in summary.complete if trial.peak_bytes]
    if len(known) < 2:
        return None
    figure = make_figure("peak memory of a training step, GB", summary.metric)
    costs = {trial.row.number: (trial.peak_bytes or 0) / 1e9 for trial in known}
    front = _draw_costs(figure, known, costs, less_is_better=True)
    if summary.record.memory_bytes and max(costs.values()) > 0.5 * summary.record.memory_bytes / 1e9:
        figure.add_vline(summary.record.memory_bytes / 1e9, line_dash="dash", line_color=GREY)
    hidden = fit_axis(figure, [value_of(trial) for trial in known])
    measured = sum(entry.memory.measured for entry in summary.setup.pool.entries)
    how = "Memory is predicted for a GPU"
    if all(trial.measured for trial in known):
        how = "Memory was measured on the GPU"
    elif measured:
        how += f", corrected by what was measured on the GPU for {format_count(measured, 'backbone')}"
    left_out = count_left_out(len(summary.complete) - len(known), "trial", "of which no memory is known")
    sentence = _describe_front(front, lambda trial: f"{costs[trial.row.number]:.3g} GB", "more memory")
    return Chart("Score against memory", f"{sentence} {how}.{left_out}{hidden}", figure)


def draw_speed(summary: StudySummary) -> Chart | None:
    """Draws the value of complete trials against the images a second of training."""
    known = [trial for trial in summary.complete if trial.images_per_second]
    if len(known) < 2:
        return None
    figure = make_figure("images a second, in training steps", summary.metric)
    costs = {trial.row.number: trial.images_per_second or 0.0 for trial in known}
    front = _draw_costs(figure, known, costs, less_is_better=False)
    figure.update_xaxes(type="log")
    hidden = fit_axis(figure, [value_of(trial) for trial in known])
    sentence = _describe_front(
        front, lambda trial: f"{format_figure(costs[trial.row.number])} images a second", "more time"
    )
    why = "whose steps were not timed, or that went on from another,"
    left_out = count_left_out(len(summary.complete) - len(known), "trial", why)
    return Chart("Score against speed", f"{sentence} Measured while the trials trained.{left_out}{hidden}", figure)


def _draw_costs(
    figure: Any, known: list[TrialSummary], costs: dict[int, float], *, less_is_better: bool
) -> list[TrialSummary]:
    """Draws trials by backbone, and the front; returns the trials of the front, the best value first."""
    for number, (name, trials) in enumerate(group_backbones(known).items()):
        places = [costs[trial.row.number] for trial in trials]
        trace = draw_trials(trials, places, cut_name(name), size=7)
        style = make_line(number, name)
        trace.update(marker={"color": style.marker.color, "symbol": style.marker.symbol})
        figure.add_trace(trace)
    figure.update_layout(height=480)  # on a phone the legend takes a part of it
    front = find_front(known, lambda trial: costs[trial.row.number] * (1 if less_is_better else -1))
    figure.add_trace(
        import_graphs().Scatter(
            name="no trial beats it in both", x=round_all([costs[each.row.number] for each in front]),
            y=round_all([value_of(each) for each in front]), mode="lines+markers", hoverinfo="skip",
            line={"color": GREY, "width": 1.5, "shape": "hv" if less_is_better else "vh"},
            marker={"symbol": "circle-open", "size": 14, "color": GREY, "line": {"width": 2}},
        )
    )  # fmt: skip
    return front


def find_front(best_first: Sequence[TrialSummary], cost: Callable[[TrialSummary], float]) -> list[TrialSummary]:
    """Finds the trials that no other one beats in value and in cost, the best value first."""
    front: list[TrialSummary] = []
    for trial in best_first:
        if not front or cost(trial) < cost(front[-1]):
            front.append(trial)
    return front


def _describe_front(front: list[TrialSummary], show: Callable[[TrialSummary], str], price: str) -> str:
    best, last = front[0], front[-1]
    first = f"{best.label.capitalize()} is best: {value_of(best):.4f} with {show(best)}"
    if len(front) == 1:
        return f"{first}; no trial does with less, so {price} bought nothing here."
    gap = abs(value_of(best) - value_of(last))
    return (
        f"{first}; {last.label} is {gap:.4f} worse with {show(last)}, and "
        f"{format_count(len(front) - 2, 'other')} on the front lie between."
        if len(front) > 2
        else f"{first}; {last.label} is {gap:.4f} worse with {show(last)}."
    )


def draw_leaderboard(summary: StudySummary) -> Chart | None:
    """Draws the leaderboard score of each backbone against the best value that it reached."""
    best: dict[str, TrialSummary] = {}
    for trial in summary.complete:
        best.setdefault(trial.row.backbone, trial)
    entries = {entry.backbone: entry for entry in summary.setup.pool.entries if entry.score is not None}
    ranked = [(name, entries[name].score or 0.0, value_of(best[name])) for name in entries if name in best]
    if len(ranked) < 2:
        return None
    counts = Counter(trial.row.backbone for trial in summary.complete)
    figure = make_figure("leaderboard score", f"best {summary.metric}")
    trace = make_line(0, "backbone", x=round_all([score for _, score, _ in ranked]), y=[value for *_, value in ranked])
    trace.update(mode="markers", marker_size=11, customdata=[counts[name] for name, *_ in ranked])
    trace.update(text=[cut_name(name) for name, *_ in ranked], showlegend=False)
    trace.update(hovertemplate="%{text}: %{y:.4f}, leaderboard %{x:+.2f}, %{customdata} complete trials<extra></extra>")
    figure.add_trace(trace)
    _name_points(figure, ranked)
    why = "without a complete trial or a leaderboard score"
    left_out = count_left_out(len(summary.setup.pool.entries) - len(ranked), "backbone", why)
    return Chart("Leaderboard score against the score reached here", f"{_correlate(summary, ranked)}{left_out}", figure)


def _name_points(figure: Any, ranked: Sequence[tuple[str, float, float]]) -> None:
    """Writes names beside the points, on the side where there is room."""
    middle = np.mean([min(score for _, score, _ in ranked), max(score for _, score, _ in ranked)])
    for name, score, value in ranked:
        left = score > middle
        figure.add_annotation(
            x=score, y=value, text=cut_name(name.partition(".")[0]), showarrow=False, yshift=12,
            xanchor="right" if left else "left", font={"size": 11},
        )  # fmt: skip


def _correlate(summary: StudySummary, ranked: Sequence[tuple[str, float, float]]) -> str:
    """Writes the rank correlation of leaderboard score and value, and whether it may be chance."""
    sign = 1 if summary.maximize else -1
    scores, values = [score for _, score, _ in ranked], [sign * value for *_, value in ranked]
    reached = max(ranked, key=lambda one: sign * one[2])[0]
    if len(ranked) < _LEAST_RANKED or len(set(scores)) < 2 or len(set(values)) < 2:
        return f"{reached} did best of {len(ranked)} backbones: too few to see whether the leaderboard predicts here."
    result = spearmanr(scores, values)
    word = "predicts" if result.statistic > 0 else "does not predict"
    p = result.pvalue
    chance = f"p {p:.3f}" if p >= 1e-3 else "p below 0.001"
    if p > _CHANCE:
        chance = f"so few may show that by chance (p {p:.2f})"
    return (
        f"Over {len(ranked)} backbones the rank correlation is {result.statistic:+.2f}: the leaderboard {word} the "
        f"order here; {chance}. {reached} did best. Backbones with more trials had more chances."
    )


# --- what figures share -------------------------------------------------------------------------------------------


def draw_trials(trials: Sequence[TrialSummary], places: Sequence[float], name: str, **marker: Any) -> Any:
    """Makes a mark for each trial, at a spot of the x axis and its value."""
    return import_graphs().Scatter(
        name=name, x=round_all(places), y=round_all([value_of(each) for each in trials]), mode="markers",
        customdata=[each.row.number for each in trials], text=[cut_name(each.row.backbone) for each in trials],
        marker=marker, hovertemplate="trial %{customdata}, %{text}: %{y:.4f} at %{x}",
    )  # fmt: skip


def group_backbones(trials: Sequence[TrialSummary]) -> dict[str, list[TrialSummary]]:
    """Groups trials, best first, by backbone: those of the best trials, and what is left as one group."""
    names = list(dict.fromkeys(trial.row.backbone for trial in trials))
    shown = names if len(names) <= _BACKBONES + 1 else names[:_BACKBONES]
    groups = {name: [trial for trial in trials if trial.row.backbone == name] for name in shown}
    if len(shown) < len(names):
        groups[f"{len(names) - len(shown)} others"] = [trial for trial in trials if trial.row.backbone not in shown]
    return groups


def fit_axis(figure: Any, values: Sequence[float]) -> str:
    """Leaves what lies far from the others outside of the y axis, and returns a sentence that counts it."""
    finite = np.array([value for value in values if math.isfinite(value)])
    if len(finite) < 8:
        return ""
    low, high = np.quantile(finite, [0.25, 0.75])
    reach = _FAR * max(high - low, 1e-3)
    inside = finite[(finite >= low - reach) & (finite <= high + reach)]
    hidden = len(values) - len(inside)
    if not hidden:
        return ""
    margin = 0.05 * (inside.max() - inside.min() or 1e-3)
    figure.update_yaxes(range=[float(inside.min() - margin), float(inside.max() + margin)])
    lie = "lies" if hidden == 1 else "lie"
    return f" {format_count(hidden, 'value')} far from the others {lie} outside of the figure."


def count_left_out(count: int, noun: str, why: str) -> str:
    """Writes a sentence about what a figure leaves out; "" where that is nothing."""
    return f" {format_count(count, noun)} {why} {'is' if count == 1 else 'are'} left out." if count else ""


def round_all(values: Sequence[float | None]) -> list[float | None]:
    """Rounds to five significant digits: more is not seen, and makes the page larger."""
    return [None if value is None else float(f"{value:.5g}") for value in values]


def escape(text: str) -> str:
    """Writes a text so that Plotly takes nothing in it for a tag."""
    return html.escape(text, quote=False)


def describe_bytes(size: int | None) -> str:
    """Writes bytes, or a dash."""
    return "–" if size is None else format_bytes(size)
