"""What a search shows on a terminal or writes to a log, while it runs and at its end."""

from collections import Counter
from dataclasses import dataclass
from statistics import stdev

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from automl.study.confirmation import Candidate, Confirmation
from automl.study.rows import TrialRow
from automl.units import format_seconds

_STYLES = {"complete": "green", "pruned": "dim", "failed": "red", "running": "cyan", "unfinished": "yellow"}


@dataclass(frozen=True)
class Live:
    """What is happening in a study now."""

    metric: str
    maximize: bool
    rows: list[TrialRow]
    running: dict[int, float]
    """Epochs done, by trial, as the workers say."""
    trials: int
    seconds_left: float | None
    stopping: bool = False
    doing: tuple[str, ...] = ()
    """What workers do that is no training yet, in words."""


def best_first(rows: list[TrialRow], maximize: bool) -> list[TrialRow]:
    """The complete trials, best first."""
    complete = [row for row in rows if row.state == "complete" and row.value is not None]
    return sorted(complete, key=lambda row: ((row.value or 0.0) * (-1 if maximize else 1), row.number))


def live_table(live: Live, height: int = 12) -> RenderableType:
    """The latest trials under one line of totals.

    Args:
        live: What is happening.
        height: Rows of trials at most.
    """
    table, viewed = _trial_table(live.metric, live.rows), _viewed(live.rows)
    best = best_first(live.rows, live.maximize)[:1]
    for row in live.rows[-height:]:
        cells = _cells(row, viewed, live.running.get(row.number))
        table.add_row(*cells, style="bold" if row in best else _STYLES[row.state])
    return Group(table, Text(progress_line(live)))


def progress_line(live: Live) -> str:
    """Totals in one line: trials done, best so far, time left."""
    done = sum(row.state != "running" for row in live.rows)
    parts = [f"{done} of {live.trials} trials"]
    if best := best_first(live.rows, live.maximize):
        parts.append(f"best {live.metric} {best[0].value:.4f} (trial {best[0].number}, {best[0].backbone})")
    if live.seconds_left is not None:
        parts.append(f"{format_seconds(max(0.0, live.seconds_left))} left")
    parts += live.doing
    if live.stopping:
        parts.append("stopping after this epoch; Ctrl-C again stops now")
    return " · ".join(parts)


def trial_line(row: TrialRow, metric: str) -> str:
    """A trial that ended, in one line of a log."""
    value = f" {metric} {row.value:.4f}" if row.value is not None else ""
    seen = f"{row.view}, " if row.view != "image" else ""
    what = f" {seen}{row.backbone}" + (f" {row.image_size} px" if row.image_size else "")
    length = f" {row.epochs:.3g} epochs" if row.epochs and row.state == "complete" else ""
    took = f" in {format_seconds(row.seconds)}" if row.seconds else ""
    short = f", out of memory {row.out_of_memory} ×" if row.out_of_memory else ""
    reason = f" ({row.reason})" if row.reason else ""
    return f"trial {row.number} {row.state}:{value}{what}{length}{took}{short}{reason}"


def top_table(rows: list[TrialRow], metric: str, maximize: bool, count: int = 5) -> Table:
    """The best complete trials."""
    table, viewed = _trial_table(metric, rows), _viewed(rows)
    for row in best_first(rows, maximize)[:count]:
        table.add_row(*_cells(row, viewed))
    return table


def ends(rows: list[TrialRow]) -> list[str]:
    """How the trials ended, and why those that did not complete did not, most frequent first."""
    states = Counter(row.state for row in rows)
    lines = [", ".join(f"{count} {state}" for state, count in states.most_common())]
    reasons = Counter(_kind(row) for row in rows if row.state in ("pruned", "failed"))
    return lines + [f"{count} × {reason}" for reason, count in reasons.most_common(6)]


def candidates_table(confirmation: Confirmation) -> Table:
    """Each recipe that was trained again: its score with each seed, their mean and spread, and the search's score."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("trial", justify="right", no_wrap=True)
    table.add_column("backbone", overflow="fold")
    for seed in confirmation.best.seeds:
        table.add_column(f"seed {seed}", justify="right", no_wrap=True)
    for name in (f"mean {confirmation.metric}", "in the search"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("")
    for number, candidate in enumerate(confirmation.candidates):
        table.add_row(
            str(candidate.trial),
            candidate.recipe.backbone,
            *(f"{value:.4f}" for value in candidate.validation),
            _mean(candidate),
            f"{candidate.search_value:.4f}",
            "chosen" if number == confirmation.chosen else "",
        )
    return table


def _mean(candidate: Candidate) -> str:
    """The mean over the seeds with their standard deviation, where there are several."""
    spread = f" ± {stdev(candidate.validation):.4f}" if len(candidate.validation) > 1 else ""
    return f"{candidate.mean:.4f}{spread}"


def scores_table(confirmation: Confirmation) -> Table:
    """The chosen recipe on validation and holdout, side by side."""
    splits = [("validation", confirmation.validation, confirmation.validation_samples, confirmation.validation_metrics)]
    if confirmation.holdout is not None:
        splits.append(("holdout", confirmation.holdout, confirmation.holdout_samples, confirmation.holdout_metrics))
    table = Table("", *(split for split, *_ in splits), box=None, pad_edge=False, header_style="bold")
    for column in table.columns[1:]:
        column.justify = "right"
    table.add_row("samples", *(str(samples) for _, _, samples, _ in splits))
    table.add_row(confirmation.metric, *(f"{interval.value:.4f}" for _, interval, _, _ in splits), style="bold")
    table.add_row("95 % interval", *(f"{interval.low:.4f} – {interval.high:.4f}" for _, interval, _, _ in splits))
    for name in confirmation.validation_metrics:
        if name != confirmation.metric:
            table.add_row(name, *(f"{metrics[name]:.4f}" for *_, metrics in splits))
    return table


def confirmation_lines(confirmation: Confirmation) -> list[str]:
    """What the scores mean: optimism, method, and whether the holdout is still unseen."""
    lines = [f"means over {len(confirmation.best.seeds)} seeds; intervals over samples: {confirmation.interval_method}"]
    if confirmation.optimism is None:
        return [*lines, f"no {confirmation.holdout_note}; validation chose the recipe, so its score flatters"]
    lines.append(
        f"optimism (how much better than the holdout): the search's {confirmation.search_value:.4f} by "
        f"{confirmation.optimism:+.4f}, validation with fresh seeds by {confirmation.validation_optimism:+.4f}"
    )
    if confirmation.times_scored > 1:
        lines.append(f"the holdout was looked at {confirmation.times_scored} times: it is no longer unseen")
    return lines


def _kind(row: TrialRow) -> str:
    """A reason without the figures that make each one different."""
    if row.state == "pruned" and row.reason.endswith("is behind"):
        return "pruned: behind the others at the same point of the run"
    return f"{row.state}: {row.reason or 'no reason given'}"


def _viewed(rows: list[TrialRow]) -> bool:
    """Whether the trials look at clips, through views that differ."""
    return any(row.view != "image" for row in rows)


def _trial_table(metric: str, rows: list[TrialRow]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    left = ("view", "backbone", "state")
    for name in ("trial", *(["view"] if _viewed(rows) else []), "backbone", "px", "epoch", metric, "state", "time"):
        table.add_column(name, justify="left" if name in left else "right", no_wrap=True)
    return table


def _cells(row: TrialRow, viewed: bool, epochs_done: float | None = None) -> list[str]:
    done = row.epochs_done if epochs_done is None else epochs_done
    return [
        f"{row.number}" + ("*" if row.known_good else ""),
        *([row.view] if viewed else []),
        row.backbone,
        str(row.image_size or ""),
        f"{done:.2f}/{row.epochs:.3g}" if row.epochs else "",
        "" if row.value is None else f"{row.value:.4f}",
        row.state,
        "" if row.seconds is None else format_seconds(row.seconds),
    ]
