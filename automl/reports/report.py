"""The report of a study: one HTML file that opens without a network."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from automl.errors import DataError, StudyError
from automl.evaluation.charts import draw_calibration, draw_confusion, draw_roc, draw_scores
from automl.evaluation.details import Mistake
from automl.evaluation.tables import Table
from automl.files import explain_write_errors, is_page_name, write_text
from automl.pages.figures import Chart
from automl.pages.templates import render_template
from automl.pages.thumbnails import make_thumbnails
from automl.reports.importance import LEAST_TRIALS, measure_importance
from automl.reports.mistake_maps import draw_mistake_maps
from automl.reports.parameter_charts import draw_importance, draw_parallel, draw_slices
from automl.reports.predictions import WinnerPredictions, read_winner
from automl.reports.search_charts import (
    GREY,
    describe_bytes,
    draw_best,
    draw_curves,
    draw_leaderboard,
    draw_memory,
    draw_speed,
)
from automl.reports.study_summary import StudySummary, TrialSummary, summarise_study, value_of
from automl.spec import describe_split
from automl.study.folder import find_study
from automl.study.search import open_result
from automl.study.trial_record import describe_ending
from automl.training.intervals import Interval, describe_method, metric_interval
from automl.units import format_bytes, format_count, format_seconds

_MISTAKES = 12
_TOP = 10
"""Trials in the table."""
_CONFUSIONS = 15
"""Pairs of classes in the table that stands for a matrix that nobody could read."""
_REASONS = 20
_FPR = 1e-3
_MANY_CLASSES = 12
"""From which on the table of classes is folded away."""


def report(study: str | None = None, *, runs: str | Path = "runs", out: str | Path | None = None) -> Path:
    """Writes the report of a study: one HTML file that holds all it shows.

        automl.report("photos")     # runs/photos/report.html

    Args:
        study: Name of the study; None: the latest.
        runs: The folder that holds the studies.
        out: The file; None: `report.html` in the study's folder. One that is there is replaced.

    Returns:
        The file.

    Raises:
        StudyError: If there is no such study, it cannot be read, or the file cannot be written.
    """
    folder = find_study(Path(runs).expanduser(), study)
    path = check_out(out, folder.report)
    page = render_report(summarise_study(open_result(folder)))
    with explain_write_errors(path, StudyError):
        write_text(path, page)
    return path


def check_out(out: str | Path | None, usual: Path) -> Path:
    """Returns the file that a page is written to, before the work.

    Raises:
        StudyError: If it is a folder, or has no name of a page: any other file could be one that is needed.
    """
    path = usual if out is None else Path(out).expanduser()
    if not path.is_dir() and not is_page_name(path):
        raise StudyError(f"--out {path}: a page is an HTML file; give a name such as {path.stem or 'report'}.html")
    if path.is_dir():
        raise StudyError(f"--out {path} is a folder; name a file, such as {path / usual.name}")
    return path


def render_report(summary: StudySummary) -> str:
    """Makes the text of the page."""
    importance = measure_importance(summary)
    progress = [draw_best(summary, over_time=False), draw_best(summary, over_time=True), draw_curves(summary)]
    costs = [draw_memory(summary), draw_speed(summary), draw_leaderboard(summary)]
    scored = len([trial for trial in summary.scored if trial.row.value is not None])
    return render_template(
        Path(__file__).with_name("report.html.jinja"),
        summary=summary,
        headline=describe_study(summary),
        winner=_describe_winner(summary),
        interval_method=interval_method(summary),
        steps=list_steps(summary),
        top=tabulate_top(summary) if summary.complete else None,
        progress=[chart for chart in progress if chart],
        costs=[chart for chart in costs if chart],
        importance=draw_importance(importance, summary.metric) if importance else None,
        no_importance=_explain_no_importance(scored),
        slices=draw_slices(summary, importance) if importance else [],
        parallel=draw_parallel(summary, importance),
        predictions=_show_predictions(summary),
        endings=_tabulate_endings(summary),
        classes=_tabulate_classes(summary),
        folded=len(summary.setup.dataset.classes) >= _MANY_CLASSES,
        checks=_list_checks(summary),
        environment=summary.record.environment,
        hosts=_count_hosts(summary),
        pool=_tabulate_pool(summary),
    )


def describe_study(summary: StudySummary) -> str:
    """Writes in a sentence what the study is and how far it came."""
    states = Counter(trial.row.state for trial in summary.trials)
    dataset = summary.setup.dataset
    counts = ", ".join(f"{count:,} {state}" for state, count in states.most_common()) or "none has begun"
    files = format_count(len(dataset.samples), f"{dataset.media} file")
    text = f"{format_count(len(summary.trials), 'trial')} ({counts}) on {files} of {len(dataset.classes)} classes"
    return f"{text}, in {format_seconds(summary.clock.total)}." if summary.trials else f"{text}."


# --- the winner ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Score:
    """A line of the winner's card."""

    name: str
    value: str
    note: str


def _describe_winner(summary: StudySummary) -> list[_Score] | None:
    """Lists what the winner's card says; None where no trial is complete."""
    winner, recipe = summary.winner, summary.winner_recipe
    if winner is None or recipe is None:
        return None
    shape = [f"{recipe.image_size} px", f"{recipe.epochs:.3g} epochs", *filter(None, [recipe.describe_trained()])]
    if recipe.view.media != "image":
        shape.insert(0, f"view {recipe.view.name}")
    lines = [_Score("backbone", recipe.backbone, ", ".join(shape)), *_describe_scores(summary, winner)]
    lines.append(_Score("peak memory", *describe_memory(summary, winner)))
    seconds = "" if winner.row.seconds is None else f"{format_seconds(winner.row.seconds)} for its trial"
    lines.append(_Score("time", format_seconds(summary.clock.total), f"of search; {seconds}".rstrip("; ")))
    return lines


def _describe_scores(summary: StudySummary, winner: TrialSummary) -> list[_Score]:
    """Lists the metric on validation and holdout, with intervals."""
    confirmation = summary.confirmation
    if confirmation is not None:
        seeds = format_count(len(confirmation.best.seeds), "fresh seed")
        kind = f" ({confirmation.validation_kind})" if confirmation.validation_kind else ""
        lines = [
            _Score(
                f"validation {confirmation.metric}{kind}",
                _format_interval(confirmation.validation),
                f"mean of {seeds}, {confirmation.validation_samples:,} samples",
            )
        ]
        if confirmation.holdout is None:
            return [*lines, _Score(f"holdout {confirmation.metric}", "–", f"no {confirmation.holdout_note}")]
        again = f"; scored {confirmation.times_scored} times, no longer unseen" if confirmation.times_scored > 1 else ""
        note = f"{confirmation.holdout_samples:,} samples that no trial saw{again}"
        return [*lines, _Score(f"holdout {confirmation.metric}", _format_interval(confirmation.holdout), note)]
    value, note = (
        f"{value_of(winner):.4f}",
        f"the best of {format_count(len(summary.complete), 'complete trial')}: expect less on new data",
    )
    if (interval := _find_interval(summary)) is not None:
        value = _format_interval(interval)
    name = f"{summary.kind} {summary.metric}"
    return [
        _Score(name, value, note),
        _Score(f"holdout {summary.metric}", "–", "not scored before the recipe is confirmed"),
    ]


def _find_interval(summary: StudySummary) -> Interval | None:
    """Computes the interval of a winner that was not confirmed, from its predictions; None where there is none."""
    setup = summary.setup
    if setup.robust or setup.folds > 1:  # its value is not the metric of these samples
        return None
    try:
        evaluation = read_winner(summary).evaluation
        groups = evaluation.samples.groups
        probabilities = [evaluation.models[0].probabilities]
        return metric_interval(setup.metric, evaluation.samples.labels, probabilities, evaluation.positive, groups)
    except (StudyError, DataError):
        return None


def _format_interval(interval: Interval) -> str:
    return f"{interval.value:.4f} ({interval.low:.3f} – {interval.high:.3f})"


def describe_memory(summary: StudySummary, trial: TrialSummary) -> tuple[str, str]:
    """Writes the peak memory of a trial's step within the budget, and how it is known."""
    budget = summary.record.memory_bytes
    entry = summary.setup.pool.find_entry(trial.row.backbone)
    how = "predicted for a GPU"
    if entry is not None and entry.memory.measured:
        how = "predicted, corrected by what was measured on the GPU"
    if trial.measured:
        how = "measured"
    if trial.peak_bytes is None:
        return "–", "nothing is known of this backbone"
    size = format_bytes(trial.peak_bytes)
    return (size, f"{how}; no budget was set") if budget is None else (f"{size} of {format_bytes(budget)}", how)


def list_steps(summary: StudySummary) -> list[tuple[str, str]]:
    """Lists the commands that follow, each with what it is for."""
    views = len({trial.row.view for trial in summary.complete})
    return summary.folder.list_next_commands(
        has_best=bool(summary.complete), confirmed=summary.confirmation is not None, views=views
    )


def tabulate_top(summary: StudySummary) -> Table:
    """Lists the best trials."""
    rows = [
        [
            str(trial.row.number),
            trial.row.backbone,
            str(trial.row.image_size or ""),
            f"{trial.row.epochs or 0:.3g}",
            f"{value_of(trial):.4f}",
            "" if trial.row.seconds is None else format_seconds(trial.row.seconds),
            describe_bytes(trial.peak_bytes),
        ]
        for trial in summary.complete[:_TOP]
    ]
    header = ["trial", "backbone", "px", "epochs", summary.metric, "time", "peak memory"]
    left = len(summary.complete) - len(rows)
    note = (
        f"{format_count(left, 'other complete trial')} and those that ended early stand in {summary.folder.trials.name}"
        if left
        else ""
    )
    return Table("The best trials", note, header, rows, ("backbone",))


# --- what it predicts ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Predictions:
    """What the page shows of the winner's predictions; `problem` where there are none."""

    source: str = ""
    problem: str = ""
    charts: tuple[tuple[Chart, str], ...] = ()
    """Each with its kind: `narrow` or nothing."""
    confusions: Table | None = None
    mistakes: tuple[Mistake, ...] = ()
    mistakes_note: str = ""
    images: Mapping[str, str] = field(default_factory=dict)
    heat_maps: Mapping[str, str] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)
    """Of the mistaken samples, by their paths."""


def _show_predictions(summary: StudySummary) -> _Predictions:
    try:
        winner = read_winner(summary)
    except StudyError as exc:
        return _Predictions(problem=str(exc))
    one = replace(winner.evaluation, models=(winner.evaluation.models[winner.middle],))
    charts: list[tuple[Chart | None, str]] = [(_draw_roc(winner), ""), (draw_scores(one), "")]
    charts += [(draw_confusion(one, 0), "narrow"), (draw_calibration(winner.evaluation), "")]
    figures, media = one.models[0], summary.setup.dataset.media
    mistakes = tuple(figures.mistakes[:_MISTAKES])
    images = make_thumbnails([each.path for each in mistakes]) if media in ("image", "video") else {}
    return _Predictions(
        source=winner.source,
        charts=tuple((_begin_sentence(chart), kind) for chart, kind in charts if chart is not None),
        confusions=_tabulate_confusions(winner) if len(one.classes) > 2 else None,
        mistakes=mistakes,
        mistakes_note=_describe_mistakes(winner, len(images), media),
        images=images,
        heat_maps=draw_mistake_maps(summary, winner, mistakes),
        names={each.path: one.samples.table["name"][each.row] for each in mistakes},
    )


def _begin_sentence(chart: Chart) -> Chart:
    """Begins the sentence of a chart of `automl evaluate`, which begins with a model's name, with a capital."""
    return replace(chart, sentence=f"{chart.sentence[:1].upper()}{chart.sentence[1:]}")


def _draw_roc(winner: WinnerPredictions) -> Chart | None:
    """Draws the ROC curve with the rate that competitions look at."""
    chart = draw_roc(winner.evaluation)
    if chart is None:
        return None
    negatives = int((winner.evaluation.samples.labels != winner.evaluation.positive).sum())
    if negatives < 1 / _FPR:
        note = f" With {format_count(negatives, 'negative sample')}, a false-positive rate of {_FPR} means none at all."
        return replace(chart, sentence=chart.sentence + note)
    chart.figure.add_vline(_FPR, line_dash="dash", line_color=GREY)
    return chart


def _tabulate_confusions(winner: WinnerPredictions) -> Table | None:
    """Lists the pairs of classes that are confused most; None where none are."""
    figures = winner.evaluation.models[winner.middle]
    counts, names = np.array(figures.confusion), winner.evaluation.classes
    off = counts - np.diag(np.diag(counts))
    order = np.argsort(-off, axis=None, kind="stable")[:_CONFUSIONS]
    pairs = [(int(spot) // len(names), int(spot) % len(names)) for spot in order]
    rows = [
        [names[true], names[predicted], str(off[true, predicted]), str(counts[true].sum())]
        for true, predicted in pairs
        if off[true, predicted]
    ]
    if not rows:
        return None
    listed, wrong = sum(int(row[2]) for row in rows), int(off.sum())
    note = f"{wrong} of {counts.sum()} samples are predicted wrong; these pairs are {listed} of them"
    return Table("Most confused classes", note, ["truth", "predicted", "samples", "of"], rows, ("truth", "predicted"))


def _describe_mistakes(winner: WinnerPredictions, pictures: int, media: str) -> str:
    figures = winner.evaluation.models[winner.middle]
    counts = np.array(figures.confusion)
    wrong, total = int(counts.sum() - np.trace(counts)), int(counts.sum())
    if not wrong:
        return f"None: all {total} validation samples are predicted right."
    shown = min(wrong, _MISTAKES)
    text = f"{wrong} of {total} validation samples are predicted wrong; "
    text += f"here are the {shown} that {figures.name} is most sure of."
    if media == "sound":
        return f"{text} Of sounds only the names are shown."
    if pictures < shown:
        return f"{text} {shown - pictures} cannot be shown: the files are not where they were, or cannot be read."
    return text + (" Of a clip, its first frame." if media == "video" else "")


# --- what else ----------------------------------------------------------------------------------------------------


def _explain_no_importance(scored: int) -> str:
    if scored < LEAST_TRIALS:
        return (
            f"Which parameters matter cannot be said from {format_count(scored, 'trial')} with a score: "
            f"{LEAST_TRIALS} are the least, and some hundred are wanted."
        )
    return "Which parameters matter cannot be said: no parameter varies in enough trials."


def _tabulate_endings(summary: StudySummary) -> Table | None:
    """Lists why trials did not complete, with counts; None where all did."""
    ended = [trial.row for trial in summary.trials if trial.row.state in ("pruned", "failed")]
    reasons = Counter(describe_ending(row) for row in ended)
    numbers = {reason: [row.number for row in ended if describe_ending(row) == reason][:5] for reason in reasons}
    rows = [
        [str(count), reason, ", ".join(map(str, numbers[reason]))] for reason, count in reasons.most_common(_REASONS)
    ]
    if not rows:
        return None
    left = len(reasons) - len(rows)
    note = f"{format_count(left, 'rarer reason')} left out; {summary.folder.trials.name} has all" if left else ""
    return Table("What ended early and why", note, ["trials", "why", "such as trial"], rows, ("why", "such as trial"))


def _tabulate_classes(summary: StudySummary) -> Table:
    """Counts the samples by class and split."""
    dataset = summary.setup.dataset
    samples = dataset.samples
    counts = Counter(zip(samples["label"].tolist(), samples["split"].tolist(), strict=True))
    splits = [split for split in ("train", "validation", "holdout") if (samples["split"] == split).any()]
    rows = [[name, *(f"{counts[label, split]:,}" for split in splits)] for label, name in enumerate(dataset.classes)]
    total = ["all", *(f"{int((samples['split'] == split).sum()):,}" for split in splits)]
    return Table("Samples", "", ["class", *splits], [*rows, total], ("class",))


def _list_checks(summary: StudySummary) -> list[str]:
    """Lists what is known of the data beside their number: groups, warnings, leaks, shortcuts."""
    dataset, confirmation = summary.setup.dataset, summary.confirmation
    lines = []
    if dataset.grouped:
        splits = dataset.samples.groupby("group")["split"].nunique()
        shared = int((splits > 1).sum())
        lines.append(f"groups: {len(splits):,}, {f'{shared:,} of them' if shared else 'none of them'} in two splits")
    if kind := describe_split(summary.spec):
        lines.append(f"validated on: {kind}")
    lines += [f"warning: {line}" for line in dataset.problems]
    checks = summary.record.checks
    lines += (
        checks
        if checks is not None
        else [f"leaks and shortcuts: an earlier version kept none; automl data {dataset.root} looks for them"]
    )
    if confirmation is not None and (copies := confirmation.describe_copies()):
        lines.append(copies)
    return lines


def _count_hosts(summary: StudySummary) -> str:
    """Writes which machines trained how many trials; "" where that is not known."""
    hosts = Counter(trial.host for trial in summary.trials if trial.host)
    return ", ".join(f"{host} ({format_count(count, 'trial')})" for host, count in hosts.most_common())


def _tabulate_pool(summary: StudySummary) -> Table:
    """Lists the backbones that the study could draw."""
    drawn = Counter(trial.row.backbone for trial in summary.trials)
    budget = summary.record.memory_bytes
    rows = [
        [entry.backbone, "–" if entry.score is None else f"{entry.score:+.2f}", f"{entry.params_m:.3g}M",
         entry.memory.describe(budget), str(drawn[entry.backbone])]
        for entry in summary.setup.pool.entries
    ]  # fmt: skip
    words = ("backbone", "memory of the largest step")
    return Table("Backbones", "", ["backbone", "leaderboard", "parameters", words[1], "trials"], rows, words)


def interval_method(summary: StudySummary) -> str:
    """Names how the winner's intervals were computed, which may differ between the splits."""
    if summary.confirmation is not None:
        return summary.confirmation.interval_method
    samples = summary.setup.dataset.samples
    return describe_method(samples.loc[samples["split"] == "validation", "group"].to_numpy(str))
