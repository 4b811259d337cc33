"""Several studies side by side on one page."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from automl.errors import SpecError, StudyError
from automl.evaluation.tables import Table
from automl.files import explain_write_errors, write_text
from automl.pages.figures import Chart, cut_name, import_graphs, make_figure, make_line
from automl.pages.templates import render_template
from automl.reports.importance import Importance, measure_importance
from automl.reports.parameter_charts import cut_param, join_names
from automl.reports.report import check_out, describe_memory, describe_study
from automl.reports.search_charts import choose_time_unit, draw_trials, find_front, fit_axis, round_all, trace_steps
from automl.reports.study_summary import StudySummary, check_same_metric, summarise_study, value_of
from automl.study.folder import find_study
from automl.study.search import open_result
from automl.units import format_count, format_seconds

_MOST = 6
"""Studies that figures can tell apart."""
_BARS = 10


def compare(studies: Sequence[str], *, runs: str | Path = "runs", out: str | Path | None = None) -> Path:
    """Writes a page that shows several studies side by side: one HTML file that holds all it shows.

        automl.compare(["photos", "photos-gp"])     # runs/compare-photos-photos-gp.html

    Args:
        studies: Names of two to six studies of one metric.
        runs: The folder that holds the studies.
        out: The file; None: `compare-` and the names, beside the studies. One that is there is replaced.

    Returns:
        The file.

    Raises:
        SpecError: If there are not two to six names, or one is given twice.
        StudyError: If there is no such study, one cannot be read, their metrics differ, or the file cannot be written.
    """
    names = list(studies)
    if not 2 <= len(names) <= _MOST:
        raise SpecError(f"give 2 to {_MOST} studies to compare, got {len(names)}")
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise SpecError(f"{twice[0]} is given twice; name each study once")
    folders = [find_study(Path(runs).expanduser(), name) for name in names]
    path = check_out(out, folders[0].path.parent / f"compare-{'-'.join(folder.name for folder in folders)}.html")
    summaries = [summarise_study(open_result(folder)) for folder in folders]
    check_same_metric(summaries)
    page = render_comparison(summaries)
    with explain_write_errors(path, StudyError):
        write_text(path, page)
    return path


def render_comparison(summaries: Sequence[StudySummary]) -> str:
    """Makes the text of the page."""
    charts = [
        _draw_best(summaries, over_time=False),
        _draw_best(summaries, over_time=True),
        _draw_scores(summaries),
        _draw_memory(summaries),
        _draw_importance(summaries),
    ]
    return render_template(
        Path(__file__).with_name("compare.html.jinja"),
        summaries=summaries,
        headlines=[(summary.name, describe_study(summary)) for summary in summaries],
        winners=_tabulate_winners(summaries),
        differences=_list_differences(summaries),
        charts=[chart for chart in charts if chart],
    )


def _draw_best(summaries: Sequence[StudySummary], *, over_time: bool) -> Chart | None:
    """Overlays the best value so far of each study, over trials or over time."""
    having = [(number, summary) for number, summary in enumerate(summaries) if summary.complete]
    if not having:
        return None
    longest = max((summary for _, summary in having), key=lambda summary: summary.clock.total)
    unit, name = choose_time_unit(longest.clock.total)
    figure = make_figure(f"{name} spent" if over_time else "trials that have ended", summaries[0].metric)
    for number, summary in having:
        trace = trace_steps(summary, over_time=over_time, number=number, name=summary.name)
        if over_time:  # all studies in one unit
            scale = choose_time_unit(summary.clock.total)[0] / unit
            trace.update(x=round_all([spot * scale for spot in trace.x]))
        figure.add_trace(trace)
    figure.update_xaxes(rangemode="tozero")
    sentence = _rank_in_time([summary for _, summary in having]) if over_time else _rank([one for _, one in having])
    return Chart("Best so far over time" if over_time else "Best so far over trials", sentence, figure)


def _rank(having: Sequence[StudySummary]) -> str:
    """Writes the studies in the order of their best values."""
    ordered = sorted(having, key=lambda one: value_of(one.complete[0]) * (-1 if one.maximize else 1))
    named = [
        f"{one.name} reaches {value_of(one.complete[0]):.4f} in {format_count(len(one.ended), 'trial')}"
        for one in ordered
    ]
    return f"{'; '.join(named)}."


def _rank_in_time(having: Sequence[StudySummary]) -> str:
    """Writes how the studies stand at the end of the shortest one: the same time for all."""
    shared = min(summary.clock.total for summary in having)
    reached = []
    for summary in having:
        values = [value for _, spent, value, _ in summary.trace_best() if spent <= shared]
        reached.append(f"{summary.name} {values[-1]:.4f}" if values else f"{summary.name} nothing yet")
    return f"After {format_seconds(shared)}, when the shortest of them ended: {', '.join(reached)}."


def _draw_scores(summaries: Sequence[StudySummary]) -> Chart | None:
    """Draws how the values of the complete trials of each study are spread."""
    having = [(number, summary) for number, summary in enumerate(summaries) if summary.complete]
    if not having:
        return None
    figure = make_figure(summaries[0].metric, "")
    parts = []
    for number, summary in having:
        values = [value_of(trial) for trial in summary.complete]
        colour = make_line(number, "").line.color
        figure.add_trace(
            import_graphs().Box(
                x=round_all(values), name=cut_name(summary.name), orientation="h", marker={"color": colour, "size": 4},
                boxpoints="all" if len(values) <= 200 else "outliers", jitter=0.4, showlegend=False, hoverinfo="x",
            )
        )  # fmt: skip
        side = "score above" if summary.maximize else "stay below"
        trials = format_count(len(values), "complete trial")
        parts.append(f"half of the {trials} of {summary.name} {side} {median(values):.4f}")
    figure.update_layout(height=170 + 70 * len(having))
    figure.update_yaxes(automargin=True, autorange="reversed")
    text = "; ".join(parts)
    return Chart("Scores of complete trials", f"{text[:1].upper()}{text[1:]}.", figure)


def _draw_memory(summaries: Sequence[StudySummary]) -> Chart | None:
    """Draws value against peak memory, each study in its colour."""
    figure, parts, every = make_figure("peak memory of a training step, GB", summaries[0].metric), [], []
    for number, summary in enumerate(summaries):
        known = [trial for trial in summary.complete if trial.peak_bytes]
        if not known:
            continue
        every += [value_of(trial) for trial in known]
        style = make_line(number, summary.name)
        trace = draw_trials(known, [(trial.peak_bytes or 0) / 1e9 for trial in known], style.name, size=7)
        trace.update(marker={"color": style.marker.color, "symbol": style.marker.symbol})
        figure.add_trace(trace)
        front = find_front(known, lambda trial: trial.peak_bytes or 0)
        parts.append(f"of {summary.name} takes {(front[0].peak_bytes or 0) / 1e9:.3g} GB")
    if not parts:
        return None
    measured = all(trial.measured for summary in summaries for trial in summary.complete)
    how = "was measured" if measured else "is predicted for a GPU"
    sentence = f"The best trial {', '.join(parts)}. Memory {how}.{fit_axis(figure, every)}"
    return Chart("Score against memory", sentence, figure)


def _draw_importance(summaries: Sequence[StudySummary]) -> Chart | None:
    """Draws the importance of parameters in each study, side by side."""
    measured = [(number, one, measure_importance(one)) for number, one in enumerate(summaries)]
    known: list[tuple[int, StudySummary, Importance]] = []
    known += [(number, one, each) for number, one, each in measured if each is not None]
    if not known:
        return None
    sums: Counter[str] = Counter()
    for *_, importance in known:
        sums.update(importance.shares)
    names = [name for name, _ in sums.most_common(_BARS)][::-1]
    figure = make_figure("importance (shares add up to 1 in each study)", "")
    parts = []
    for number, summary, importance in known:
        shares = [importance.shares.get(name, 0.0) for name in names]
        figure.add_trace(
            import_graphs().Bar(
                x=round_all(shares), y=[cut_param(name) for name in names], orientation="h",
                name=cut_name(summary.name), marker_color=make_line(number, "").line.color,
            )
        )  # fmt: skip
        above = importance.above_chance[:3]
        what = join_names(above) if above else "no parameter"
        matter = "matter" if len(above) > 1 else "matters"
        trials = format_count(importance.trials, "trial")
        parts.append(f"in {summary.name} {what} {matter} more than chance would show ({trials})")
    figure.update_layout(height=170 + (14 + 12 * len(known)) * len(names), barmode="group", legend_traceorder="normal")
    figure.update_yaxes(automargin=True)
    lacking = [one.name for _, one, each in measured if each is None]
    left_out = f" {join_names(lacking)} {'has' if len(lacking) == 1 else 'have'} too few trials." if lacking else ""
    text = "; ".join(parts)
    return Chart("Which parameters matter", f"{text[:1].upper()}{text[1:]}.{left_out}", figure)


def _tabulate_winners(summaries: Sequence[StudySummary]) -> Table:
    """Lists the winner of each study."""
    rows = []
    for summary in summaries:
        winner, recipe, confirmation = summary.winner, summary.winner_recipe, summary.confirmation
        if winner is None or recipe is None:
            rows.append([summary.name, "no complete trial", *[""] * 6])
            continue
        holdout = confirmation.holdout if confirmation else None
        rows.append(
            [
                summary.name,
                recipe.backbone,
                f"{recipe.image_size}",
                f"{value_of(summary.complete[0]):.4f}",
                f"{confirmation.validation.value:.4f}" if confirmation else "not confirmed",
                f"{holdout.value:.4f} ({holdout.low:.3f} – {holdout.high:.3f})" if holdout else "–",
                describe_memory(summary, winner)[0],
                format_seconds(summary.clock.total),
            ]
        )
    metric = summaries[0].metric
    header = ["study", "backbone", "px", f"best {metric}", "confirmed", "holdout", "peak memory", "search"]
    return Table(
        "Winners",
        "best: of its trials, so too good; confirmed: the same recipe with fresh seeds",
        header,
        rows,
        ("study", "backbone"),
    )


def _list_differences(summaries: Sequence[StudySummary]) -> list[str]:
    """Lists in what the studies differ, which may be why their scores do."""
    lines = [
        f"{summary.name} has no complete trial, and is in no figure." for summary in summaries if not summary.complete
    ]
    if len({summary.record.samples for summary in summaries}) > 1:
        named = [f"{summary.name} {summary.setup.dataset.root}" for summary in summaries]
        lines.append(f"The samples or their splits differ, so scores differ for that alone: {'; '.join(named)}.")
    settings: dict[str, list[str]] = {
        "search space": [summary.spec.space for summary in summaries],
        "sampler": [summary.spec.sampler for summary in summaries],
        "pruner": [summary.spec.pruner for summary in summaries],
        "seed": [str(summary.spec.seed) for summary in summaries],
        "scored on": [summary.kind for summary in summaries],
        "views": [", ".join(sorted({trial.row.view for trial in summary.trials})) for summary in summaries],
        "pool": [f"{len(summary.setup.pool.entries)} backbones" for summary in summaries],
        "memory budget": [describe_budget(summary) for summary in summaries],
        "timeout": [_describe_timeout(summary) for summary in summaries],
        "trials wanted": [str(summary.spec.budget.trials) for summary in summaries],
    }
    for what, values in settings.items():
        if len(set(values)) > 1:
            shown = [f"{summary.name} {value}" for summary, value in zip(summaries, values, strict=True)]
            lines.append(f"{what[:1].upper()}{what[1:]}: {'; '.join(shown)}.")
    if len({summary.record.space for summary in summaries}) > 1 and len(set(settings["search space"])) == 1:
        lines.append("The search spaces differ in what they hold, though they are called alike.")
    return lines or ["They have the same data, space, sampler, pruner, seed, pool and budgets."]


def _describe_timeout(summary: StudySummary) -> str:
    timeout = summary.spec.budget.timeout
    return "none" if timeout is None else format_seconds(timeout)


def describe_budget(summary: StudySummary) -> str:
    """Writes the memory budget of a study."""
    budget = summary.record.memory_bytes
    return "none" if budget is None else f"{budget / 1e9:.3g}GB"
