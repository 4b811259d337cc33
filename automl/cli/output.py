"""What commands print: tables that are never cut, lines, bars, and what came of a study."""

import os
import sys
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from statistics import fmean, stdev
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as ProgressBar
from rich.table import Table
from rich.text import Text

from automl.units import format_seconds

if TYPE_CHECKING:  # the library is imported late: `automl --help` is instant
    from automl.reporter import Progress
    from automl.study.confirm import Candidate, Confirmation
    from automl.study.folder import StudyFolder
    from automl.study.search import SearchResult
    from automl.study.trial_record import TrialRow

_PIPE_WIDTH = 400
"""Characters; wider than any row."""


# --- tables, lines and bars ------------------------------------------------------------------------------------------


def print_line(text: str = "", title: str = "", style: str = "") -> None:
    """Prints a title in bold and plain text, in one line but on a terminal, which would break it within words."""
    console = make_console()
    console.print(Text.assemble((title, "bold"), (text, style)), soft_wrap=not console.is_terminal)


def make_table(header: Iterable[str], left: Collection[str]) -> Table:
    """Makes an empty table; the columns that are not named in `left` are justified to the right."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in header:
        # a name that is cut off could not be copied
        table.add_column(title, justify="left" if title in left else "right", overflow="fold")
    return table


def make_console(stderr: bool = False) -> Console:
    """Makes a console that draws on a terminal only: notebooks force colours on what they start, and read a pipe."""
    stream = sys.stderr if stderr else sys.stdout
    # on a dumb terminal, such as an editor's, nothing can be drawn anew: it gets the lines of a log
    drawn = stream.isatty() and os.environ.get("TERM", "").lower() not in ("dumb", "unknown")
    return Console(stderr=stderr, highlight=False, force_terminal=drawn)


def print_table(header: Iterable[str], rows: Iterable[Iterable[str]], left: Collection[str] = ("",)) -> None:
    """Prints a table: drawn on a terminal, aligned words in a pipe; `left` names the columns that hold words."""
    console, table = make_console(), make_table(header, left)
    for row in rows:
        table.add_row(*map(Text, row))
    if console.is_terminal:
        table.box = SIMPLE_HEAD
        console.print(table)
        return
    plain = Console(width=_PIPE_WIDTH, color_system=None)
    with plain.capture() as captured:
        plain.print(table)
    sys.stdout.write("".join(f"{line.rstrip()}\n" for line in captured.get().splitlines()))


@contextmanager
def progress_bar(label: str) -> "Iterator[Progress]":
    """Yields a callback (done, all) that draws a bar on stderr, on a terminal only; it vanishes at the end."""
    console = make_console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with ProgressBar(
        *columns, console=console, transient=True, disable=not console.is_terminal, refresh_per_second=2
    ) as bar:
        task = bar.add_task(label, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


# --- trials ----------------------------------------------------------------------------------------------------------

TRIAL_WORDS = ("view", "backbone", "state")
"""Columns of a table of trials that hold words."""


def tabulate_trials(rows: "Sequence[TrialRow]", metric: str) -> tuple[list[str], list[list[str]]]:
    """Returns the titles and rows of a table of trials; where they look at clips, there is a column for the view."""
    with_view = any(row.view != "image" for row in rows)
    with_trained = any(row.trained for row in rows)
    extra = [*(["view"] if with_view else []), "backbone", *(["trained"] if with_trained else [])]
    header = ["trial", *extra, "px", "epoch", metric, "state", "time"]
    cells = [
        [
            f"{row.number}" + ("*" if row.known_good else ""),
            *([row.view] if with_view else []),
            row.backbone,
            *([row.trained or "all"] if with_trained else []),
            str(row.image_size or ""),
            f"{row.epochs_done:.2f}/{row.epochs:.3g}" if row.epochs else "",
            "" if row.value is None else f"{row.value:.4f}",
            row.state,
            "" if row.seconds is None else format_seconds(row.seconds),
        ]
        for row in rows
    ]
    return header, cells


def sort_best_first(rows: "Sequence[TrialRow]", maximize: bool) -> "list[TrialRow]":
    """Returns the complete trials, the best one first."""
    complete = [row for row in rows if row.state == "complete" and row.value is not None]
    return sorted(complete, key=lambda row: ((row.value or 0.0) * (-1 if maximize else 1), row.number))


def count_endings(rows: "Sequence[TrialRow]") -> list[str]:
    """Writes how the trials ended, and why those that did not complete did not, most frequent first."""
    states = Counter(row.state for row in rows)
    lines = [", ".join(f"{count} {state}" for state, count in states.most_common())]
    return lines + [f"{count} × {state}: {reason}" for (state, reason), count in count_reasons(rows).most_common(6)]


def count_reasons(rows: "Sequence[TrialRow]") -> Counter[tuple[str, str]]:
    """Counts the trials that did not complete by state and reason, without the figures that make each one different."""
    from automl.study.trial_record import explain_ending

    return Counter((row.state, explain_ending(row)) for row in rows if row.state in ("pruned", "failed"))


# --- what came of a study --------------------------------------------------------------------------------------------


def print_result(result: "SearchResult") -> None:
    """Prints the best recipe, the top five, how the others ended, what was confirmed, and what to do next."""
    from automl.spec import describe_validation
    from automl.study.trial_record import read_spec, trial_rows

    maximize, folder = result.study.direction.name == "MAXIMIZE", result.folder
    rows = trial_rows(result.study.get_trials(deepcopy=False), maximize, running="unfinished")
    best = sort_best_first(rows, maximize)
    print_line()
    if best and result.best is not None:
        kind = describe_validation(read_spec(result.study))
        kind += ":" * ("," in kind)
        print_line(f": trial {best[0].number}, {kind} {result.metric} {best[0].value:.4f}", "best recipe")
        print_line(result.best.to_yaml())
        print_line(title="top five")
        print_table(*tabulate_trials(best[:5], result.metric), TRIAL_WORDS)
    else:
        print_line(_explain_no_best(rows, result.trials_wanted, interrupted=result.interrupted))
    if best and result.setup.robust:
        for line in _describe_robustness(result, best[0].number):
            print_line(line)
    print_line(title="\nall trials")
    for line in count_endings(rows):
        print_line(f"  {line}")
    for path in [folder.best] * bool(best) + [folder.trials]:
        print_line(f"written: {path}")
    confirmation = result.confirmation
    if confirmation is not None:
        print_confirmation(confirmation, folder)
        if best and best[0].number not in [candidate.trial for candidate in confirmation.candidates]:
            print_line(f"trial {best[0].number} is not in it; {folder.command_line('confirm')} --again takes it in")
    views = len({row.view for row in rows if row.state == "complete"})
    confirmed = confirmation is not None
    print_next_commands(list_next_commands(folder, has_best=bool(best), confirmed=confirmed, views=views))


def _explain_no_best(rows: "Sequence[TrialRow]", wanted: int, *, interrupted: bool) -> str:
    """Explains why no trial is complete, and what to do."""
    reasons = count_reasons(rows)
    if not interrupted and reasons.total() >= wanted:
        ((state, reason), count), *_ = reasons.most_common(1)
        return (
            f"no trial is complete, and all {wanted} have ended; {count} {state}: {reason}; "
            "mend that, and give more --trials to go on"
        )
    longer = "" if interrupted else ", perhaps with a longer --timeout"
    return f"no trial is complete yet; run the same command again to continue{longer}"


def _describe_robustness(result: "SearchResult", best: int) -> Iterator[str]:
    """Yields lines about the best trial on degraded copies, and what robustness costs on clean samples."""
    from automl.study.robustness import find_front
    from automl.study.trial_record import read_trial_record

    degraded = read_trial_record(result.study.trials[best]).degraded
    worst_first = sorted(degraded.items(), key=lambda item: item[1])
    yield f"\ndegraded copies, trial {best}: " + ", ".join(f"{name} {score:.3f}" for name, score in worst_first)
    front = find_front(result.study, result.setup.metric)
    shown = "; ".join(f"trial {number}: {clean:.4f} and {robust:.4f}" for number, clean, robust in front)
    yield f"{result.setup.metric} and robust_auc that no other trial beats in both: {shown}"


def print_confirmation(confirmation: "Confirmation", folder: "StudyFolder") -> None:
    """Prints what each recipe scored with fresh seeds, and what the chosen one did on validation and holdout."""
    print_line(": validation", "\ntrained again with fresh seeds")
    seeds = [f"seed {seed}" for seed in confirmation.best.seeds]
    robust = ["robust_auc"] if confirmation.best.robust else []
    header = ["trial", "backbone", *seeds, f"mean {confirmation.metric}", "in the search", *robust, ""]
    chosen_by = ", chosen by robust_auc, the mean over degraded copies" if robust else ""
    rows = [_candidate_cells(candidate, candidate is confirmation.best) for candidate in confirmation.candidates]
    print_table(header, rows, ("backbone", ""))
    print_line(f": the recipe of trial {confirmation.best.trial}{chosen_by}", "\nconfirmed")
    splits = [("validation", confirmation.validation, confirmation.validation_samples, confirmation.validation_metrics)]
    if confirmation.holdout is not None:
        splits.append(("holdout", confirmation.holdout, confirmation.holdout_samples, confirmation.holdout_metrics))
    scores = [
        ["samples", *(str(samples) for _, _, samples, _ in splits)],
        [confirmation.metric, *(f"{interval.value:.4f}" for _, interval, _, _ in splits)],
        ["95 % interval", *(f"{interval.low:.4f} – {interval.high:.4f}" for _, interval, _, _ in splits)],
    ]
    others = [name for name in confirmation.validation_metrics if name != confirmation.metric]
    scores += [[name, *(f"{metrics[name]:.4f}" for *_, metrics in splits)] for name in others]
    kind = f" ({confirmation.validation_kind})" if confirmation.validation_kind else ""
    print_table(["", *(split + (kind if split == "validation" else "") for split, *_ in splits)], scores)
    if kind and confirmation.holdout is not None:
        print_line("validation is unlike what was trained on, the holdout is like it: new data may be either")
    copies = confirmation.describe_copies()
    for line in [
        *[copies] * bool(copies),
        *_explain_scores(confirmation),
        f"written: {folder.confirmed}, {folder.confirmation}",
    ]:
        print_line(line)


def _candidate_cells(candidate: "Candidate", chosen: bool) -> list[str]:
    """Writes a recipe's score with each seed, their mean with the standard deviation, and the search's score."""
    spread = f" ± {stdev(candidate.validation):.4f}" if len(candidate.validation) > 1 else ""
    values = [f"{value:.4f}" for value in candidate.validation]
    mean, search = f"{candidate.mean:.4f}{spread}", f"{candidate.search_value:.4f}"
    robust = [f"{fmean(candidate.robust):.4f}"] if candidate.robust else []
    return [str(candidate.trial), candidate.recipe.backbone, *values, mean, search, *robust, "chosen" if chosen else ""]


def _explain_scores(confirmation: "Confirmation") -> list[str]:
    """Writes what the scores mean: optimism, method, and whether the holdout is still unseen."""
    from automl.units import format_count

    means = f"means over {format_count(len(confirmation.best.seeds), 'seed')}"
    lines = [f"{means}; intervals over samples: {confirmation.interval_method}"]
    if confirmation.optimism is None:
        why = "validation chose the recipe, so expect a lower score on new data"
        return [*lines, f"no {confirmation.holdout_note}; {why}"]
    lines.append(
        f"optimism (how much better than the holdout): the search's {confirmation.search_value:.4f} by "
        f"{confirmation.optimism:+.4f}, validation with fresh seeds by {confirmation.validation_optimism:+.4f}"
    )
    if confirmation.times_scored > 1:
        lines.append(f"the holdout was scored {confirmation.times_scored} times: it is no longer unseen")
    return lines


def list_next_commands(
    folder: "StudyFolder", *, has_best: bool, confirmed: bool, views: int = 1
) -> list[tuple[str, str]]:
    """Lists the commands that come after a search or a confirmation, each with its purpose."""
    steps = folder.list_next_commands(has_best=has_best, confirmed=confirmed, views=views)
    return [(folder.command_line("best"), "this summary again"), *steps]


def print_next_commands(steps: Sequence[tuple[str, str]]) -> None:
    """Prints commands and their purposes: side by side, or below each other where a terminal is too narrow for that."""
    width, console = max(len(command) for command, _ in steps), make_console()
    fits = not console.is_terminal or all(width + len(purpose) + 4 <= console.width for _, purpose in steps)
    print_line(title="\nnext")
    for command, purpose in steps:
        print_line(f"  {command:{width}}  {purpose}" if fits else f"  {command}\n      {purpose}")
