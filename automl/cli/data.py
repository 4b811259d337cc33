"""`automl data`: what was understood of a data set, before anything is trained on it."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from automl.cli import options as data_flags

if TYPE_CHECKING:  # the library is imported late: `automl --help` is instant
    from automl.data.summary import Clips, Duplicate, Summary

_SHOWN = 10  # files listed of each kind


def data(
    path: Annotated[
        Path | None,
        typer.Argument(help="Folder or label file of images, videos or sounds. Default: the embedded demo."),
    ] = None,
    format: data_flags.Format = None,
    file_column: data_flags.FileColumn = None,
    label_column: data_flags.LabelColumn = None,
    group_column: data_flags.GroupColumn = None,
    groups: data_flags.Groups = None,
    split_column: data_flags.SplitColumn = None,
    files_folder: data_flags.FilesFolder = None,
    real_class: data_flags.RealClass = None,
    positive_class: data_flags.PositiveClass = None,
    validation_fraction: data_flags.ValidationFraction = None,
    holdout_fraction: data_flags.HoldoutFraction = None,
    min_class_samples: data_flags.MinClassSamples = None,
    seed: Annotated[int, typer.Option(help="Chooses the splits that are not given.")] = 0,
    near_copies: Annotated[
        bool, typer.Option(help="Look for videos and sounds that are nearly the same in two splits: decodes them.")
    ] = True,
) -> None:
    """Show what automl understands of a data set, and what is wrong with it.

    Example: automl data photos/ --holdout-fraction 0
    """
    from automl.data.dataset import open_dataset
    from automl.data.summary import summarise, with_near_copies
    from automl.spec import StudySpec

    keys = data_flags.data_keys(
        path=path,
        format=format,
        file_column=file_column,
        label_column=label_column,
        group_column=group_column,
        groups=groups,
        split_column=split_column,
        files_folder=files_folder,
        real_class=real_class,
        positive_class=positive_class,
        validation_fraction=validation_fraction,
        holdout_fraction=holdout_fraction,
        min_class_samples=min_class_samples,
    )
    spec = StudySpec.from_mapping({"data": keys, "seed": seed}, "automl data")
    dataset = open_dataset(spec.data, spec.seed)
    with progress_bar("reading") as progress:
        summary = summarise(dataset, progress)
    console = Console(soft_wrap=True)
    _show_facts(summary, console)  # before what takes longer
    if near_copies and dataset.media != "image":
        with progress_bar("comparing") as progress:
            summary = with_near_copies(summary, dataset, progress)
    _show(_warnings(summary), console, style="yellow")


@contextmanager
def progress_bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """Yields a callback (done, all) that draws a bar on stderr, on a terminal only; it vanishes at the end."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _show(lines: list[str], console: Console, style: str | None = None) -> None:
    """Prints lines, with a colour on a terminal."""
    if console.is_terminal:
        for line in lines:
            console.print(line, style=style, markup=False, highlight=False)
    else:
        sys.stdout.write("".join(f"{line}\n" for line in lines))
        sys.stdout.flush()


def _show_facts(summary: "Summary", console: Console) -> None:
    """Prints what is known of a data set, and how many samples there are: on a terminal in a table."""
    _show(_facts(summary), console)
    if not console.is_terminal:
        _show(_counts(summary), console)
        return
    names = [] if _many(summary) else [escape(name) for name in summary.classes]
    table = Table("split", *names, "samples")
    if summary.groups:
        table.add_column("groups")
    for column in table.columns[1:]:
        column.justify = "right"
    for split, counts in summary.counts.items():
        cells: list[Any] = [*([] if _many(summary) else counts.values()), sum(counts.values())]
        cells += [summary.groups[split]] if summary.groups else []
        table.add_row(split, *map(str, cells))
    console.print(table)


def _many(summary: "Summary") -> bool:
    """Whether there are too many classes for a column each."""
    return len(summary.classes) > 8


def _facts(summary: "Summary") -> list[str]:
    """The lines about the whole data set."""
    shown = ", ".join(summary.classes[:20]) + (" …" if len(summary.classes) > 20 else "")
    lines = [f"data: {summary.root}", f"format: {summary.format}", *(f"read: {line}" for line in summary.told)]
    lines += [f"classes: {len(summary.classes)} ({shown})"]
    if summary.positive_class:
        lines.append(f"positive class: {summary.positive_class}")
    lines.append(f"real class: {summary.real_class or 'unknown (--real-class names it)'}")
    if summary.sizes:
        (narrow, width, wide), (low, height, high) = summary.sizes.width, summary.sizes.height
        lines.append(f"width: {narrow} to {wide} pixels, median {width}")
        lines.append(f"height: {low} to {high} pixels, median {height}")
    return lines + (_clips(summary.clips) if summary.clips else [])


def _clips(clips: "Clips") -> list[str]:
    """The lines about videos and sounds."""
    lines = []
    if clips.seconds:
        shortest, median, longest = clips.seconds
        lines.append(f"duration: {shortest:.2f} to {longest:.2f} s, median {median:.2f}")
    if clips.frames_per_second:
        slowest, fastest = clips.frames_per_second
        lines.append(f"frame rate: {slowest:.4g} to {fastest:.4g} frames a second")
    if clips.variable_rate:
        lines.append(f"variable frame rate: {clips.variable_rate} of {clips.pictures} clips")
    if clips.rotated:
        lines.append(f"rotated: {clips.rotated} of {clips.pictures} clips; they are turned upright")
    if clips.stretched:
        lines.append(f"pixels that are not square: {clips.stretched} of {clips.pictures} clips; they are widened")
    for count, what in ((clips.several_pictures, "pictures"), (clips.several_sounds, "sound")):
        if count:
            lines.append(f"several tracks of {what}: {count} of {clips.count} clips; the default one is read")
    if 0 < clips.pictures < clips.count:
        lines.append(f"pictures: in {clips.pictures} of {clips.count} clips")
    if clips.sound:
        rates = ", ".join(f"{rate} Hz" for rate in clips.sample_rates_hz[:6])
        more = ", …" if len(clips.sample_rates_hz) > 6 else ""
        lines.append(f"sound: in {clips.sound} of {clips.count} clips, {rates}{more}")
    elif clips.count:
        lines.append("sound: none")
    return lines


def _counts(summary: "Summary") -> list[str]:
    """One line per split."""
    lines = []
    for split, counts in summary.counts.items():
        classes = "" if _many(summary) else ", ".join(f"{name} {count}" for name, count in counts.items())
        if _many(summary):
            classes = f"{min(counts.values())} to {max(counts.values())} a class"
        groups = f" in {summary.groups[split]} groups" if summary.groups else ""
        lines.append(f"{split}: {sum(counts.values())} samples{groups} ({classes})")
    return lines


def _warnings(summary: "Summary") -> list[str]:
    """What is wrong, one line each; "no problems found" if nothing is."""
    lines = [f"warning: {problem}" for problem in summary.problems]
    lines += _few([f"unreadable: {name}: {reason}" for name, reason in summary.unreadable])
    what = "image" if summary.clips is None else "clip"
    lines += _few(
        [f"leak: {_describe(copy)}: the same {what} in {' and '.join(copy.splits)}" for copy in summary.leaks]
    )
    lines += _few([f"leak: {copy.sentence}" for copy in summary.near_copies])
    lines += _few(
        [
            f"conflict: {_describe(copy)}: the same {what} as {' and as '.join(copy.labels)}"
            for copy in summary.conflicts
        ]
    )
    if summary.copies:
        lines.append(f"note: {summary.copies} {what}s are copies of another one of their class and split")
    lines += [f"note: {note}" for note in summary.notes]
    return lines or ["no problems found"]


def _few(lines: list[str]) -> list[str]:
    """The first lines, and how many more there are."""
    more = len(lines) - _SHOWN
    return [*lines[:_SHOWN], *([f"{lines[0].partition(':')[0]}: … and {more} more"] if more > 0 else [])]


def _describe(copy: "Duplicate") -> str:
    """Names up to four of the files that are equal."""
    return " = ".join(copy.names[:4]) + (" = …" if len(copy.names) > 4 else "")
