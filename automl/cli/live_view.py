"""The live view of a search: a few lines that fit the terminal, none of which is wrapped."""

from itertools import accumulate

from rich.cells import cell_len
from rich.console import ConsoleDimensions
from rich.text import Text

from automl.cli.output import sort_best_first
from automl.cli.study_progress import StudyProgress, WorkerState, describe_trial
from automl.study.trial_record import TrialRow
from automl.units import format_seconds, format_share

_EVENTS = 5
"""Trials that ended, at most; fewer in a low window."""
_LABEL = 7
_WORKER = 20
"""Characters of a worker's name, which may hold its machine's."""
_NAME = 16
"""Characters of a name that a bar leaves room for."""
_BARS = "▁▂▃▄▅▆▇█"
_STYLES = {"complete": "green", "pruned": "dim", "failed": "red"}
_HINT = "Ctrl-C stops after this epoch; the same command then continues"


def draw_study(
    progress: StudyProgress, news: list[TrialRow], stop_line: str, elapsed_seconds: float, size: ConsoleDimensions
) -> list[Text]:
    """Draws budget, best, workers and the last events, as lines narrower than a terminal and fewer than its lines.

    Args:
        progress: What is happening in the study.
        news: Trials that ended since the view began, by number.
        stop_line: What was answered to Ctrl-C; "": nothing yet.
        elapsed_seconds: Since the search began.
        size: Of the terminal.
    """
    width, height = max(10, size.width - 1), max(3, size.height - 1)
    answer = _wrap_line(Text(stop_line, "bold yellow") if stop_line else Text(_HINT, "dim"), width)
    budget = [_draw_trials(progress, width), _draw_time(progress, elapsed_seconds, width)]
    ranked = sort_best_first(progress.rows, progress.maximize)
    best = _draw_best(progress, ranked, width)
    room = max(1, height - len(budget) - len(answer))
    workers = _draw_workers(progress, width, room)
    parts = [budget, workers, answer]
    left = height - sum(map(len, parts))
    if left > len(best):
        parts.insert(1, best)
        left -= len(best)
    if (shown := min(_EVENTS, left - len(parts), len(news))) > 0:
        parts.insert(-1, [_draw_event(row, progress.metric, row in ranked[:1]) for row in news[-shown:]])
        left -= shown
    gaps = left >= len(parts) - 1
    lines = [line for k, part in enumerate(parts) for line in ([Text()] if k and gaps else []) + part]
    for line in lines[:height]:
        line.truncate(width, overflow="ellipsis")
    return lines[:height]


def _draw_bar(share: float, width: int) -> Text:
    """Draws how much is done."""
    done = round(min(1.0, max(0.0, share)) * width)
    return Text.assemble(("━" * done, "cyan"), ("─" * (width - done), "dim"))


def _bar_width(width: int) -> int:
    return min(30, max(4, width // 4))


def _draw_trials(progress: StudyProgress, width: int) -> Text:
    ended = len(progress.ended)
    bar = _draw_bar(ended / max(1, progress.trials), _bar_width(width))
    counts = {state: sum(row.state == state for row in progress.ended) for state in _STYLES}
    states = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
    text = format_share(ended, progress.trials, "trial") + (f": {states}" if states else "")
    return Text.assemble(f"{'trials':{_LABEL}} ", bar, f"  {text}")


def _draw_time(progress: StudyProgress, elapsed_seconds: float, width: int) -> Text:
    left, timeout = progress.seconds_left, progress.timeout_seconds
    if left is None or not timeout:
        return Text(f"{'time':{_LABEL}} {format_seconds(elapsed_seconds)}")
    bar, left = _draw_bar(1 - left / timeout, _bar_width(width)), max(0.0, left)
    text = f"{format_seconds(timeout - left)} of {format_seconds(timeout)}, {format_seconds(left)} left"
    return Text.assemble(f"{'time':{_LABEL}} ", bar, f"  {text}")


def _draw_best(progress: StudyProgress, best: list[TrialRow], width: int) -> list[Text]:
    """Draws the best trial so far, and how the best value rose over the trials."""
    if not best:
        return [Text(f"{'best':{_LABEL}} no trial is complete yet")]
    row, label = best[0], f"{'best':{_LABEL}} "
    start, end = f"{progress.metric} {row.value:.4f}  trial {row.number}, ", f" {row.image_size} px"
    lines = [Text.assemble(label, (start, "bold"), _cut_name(row.backbone, width - len(label + start + end)), end)]
    complete = sorted(best, key=lambda one: one.number)
    if len(complete) > 1:
        values = accumulate((one.value or 0.0 for one in complete), max if progress.maximize else min)
        curve = list(values)
        first, last = f"{' ' * _LABEL} {curve[0]:.4f} ", f" {curve[-1]:.4f}"
        spark = draw_sparkline(curve, min(60, width - len(first) - len(last)), progress.maximize)
        lines.append(Text.assemble(first, (spark, "green"), last))
    return lines


def draw_sparkline(values: list[float], width: int, maximize: bool = True) -> str:
    """Draws values as a row of bars, at most `width`; the better the higher."""
    count = min(len(values), max(1, width))
    picked = [values[round(k * (len(values) - 1) / max(1, count - 1))] for k in range(count)]
    low, high = min(values), max(values)
    shares = [(value - low) / (high - low) if high > low else 1.0 for value in picked]
    return "".join(_BARS[round((share if maximize else 1 - share) * (len(_BARS) - 1))] for share in shares)


def _draw_workers(progress: StudyProgress, width: int, most: int) -> list[Text]:
    """Draws a line for each worker; the last one counts those that have no room."""
    rows = {row.number: row for row in progress.rows}
    shown = progress.workers if len(progress.workers) <= most else progress.workers[: most - 1]
    texts = [_describe_worker(worker, rows.get(worker.trial)) for worker in shown]
    label = min(_WORKER, max([_LABEL, *(len(worker.device) for worker in shown)]))
    rooms = [width - label - 1 - cell_len(start + end) for start, _, end, _ in texts]  # for a bar and a name
    needed = [room - min(_NAME, cell_len(name)) for room, (_, name, _, _) in zip(rooms, texts, strict=True)]
    bar = max(4, min([_bar_width(width), *needed]))
    lines = [
        Text.assemble(
            f"{worker.device:{label}.{label}} ", _draw_bar(share, bar), start, _cut_name(name, room - bar), end
        )
        for worker, room, (start, name, end, share) in zip(shown, rooms, texts, strict=True)
    ]
    if more := len(progress.workers) - len(shown):
        lines.append(Text(f"… and {more} more workers"))
    return lines or [Text("the next trial is being prepared", "dim")]


def _describe_worker(worker: WorkerState, row: TrialRow | None) -> tuple[str, str, str, float]:
    """Writes what stands before and after the name of a worker's backbone; returns how much it has done, too."""
    epochs = row.epochs if row is not None else None
    share = worker.share if worker.doing and not worker.epoch else worker.epoch / epochs if epochs else None
    parts = [f"{row.image_size} px"] if row is not None and row.image_size else []
    if epochs and (worker.epoch or not worker.doing):
        parts.append(f"epoch {worker.epoch:.2f} of {epochs:.3g}")
    parts += [worker.doing] if worker.doing else []
    return f"  trial {worker.trial} ", row.backbone if row is not None else "", f" {', '.join(parts)}", share or 0.0


def _draw_event(row: TrialRow, metric: str, is_best: bool) -> Text:
    return Text(describe_trial(row, metric), "bold green" if is_best else _STYLES.get(row.state, ""))


def _cut_name(name: str, room: int) -> str:
    """Cuts a name that is too long."""
    text = Text(name)
    text.truncate(max(2, room), overflow="ellipsis")
    return text.plain


def _wrap_line(line: Text, width: int) -> list[Text]:
    """Breaks a line at its parts, each of which is a sentence of its own."""
    lines = [Text("", line.style)]
    for part in line.plain.split("; "):
        text = f"{lines[-1].plain}; {part}" if lines[-1].plain else part
        if cell_len(text) <= width or not lines[-1].plain:
            lines[-1] = Text(text, line.style)
        else:
            lines.append(Text(part, line.style))
    return lines
