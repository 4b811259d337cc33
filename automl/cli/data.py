"""`automl data`: what was understood of a data set, before anything is trained on it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from automl.cli.options import Runs, options_from
from automl.errors import shorten

if TYPE_CHECKING:  # the library is imported late: `automl --help` is instant
    from automl.data.dataset import Dataset
    from automl.data.summary import Clips, Summary
    from automl.reporter import Reporter

_MOST_FILES = 10
"""Files listed for each kind of problem."""
_MOST_COLUMNS = 8
"""Classes that have a column of their own."""
_INTERRUPTED = "stopping; the same command begins again, and reads faster what it has read{}"


@options_from("data", "seed", "weights_dir", exclude=("data.path",))
def data(
    path: Annotated[
        Path | None,
        typer.Argument(help="Folder or label file of images, videos or sounds. Default: the embedded demo."),
    ] = None,
    near_copies: Annotated[
        bool, typer.Option(help="Look for files that are nearly the same in two splits: decodes them.")
    ] = True,
    audit: Annotated[
        bool, typer.Option(help="Look for properties of the files, not of their content, that predict the label.")
    ] = True,
    normalise: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write a copy of the data there in which all files are encoded alike."),
    ] = None,
    normalise_size: Annotated[
        int | None,
        typer.Option(
            help="Pixels per side of the square that each picture of the copy becomes. Default: its own size."
        ),
    ] = None,
    normalise_seconds: Annotated[
        float | None,
        typer.Option(help="Length at which each video or sound of the copy is cut off. Default: its own length."),
    ] = None,
    check_labels: Annotated[
        bool, typer.Option("--check-labels", help="Look for labels that are likely wrong: by a network's features.")
    ] = False,
    labels_html: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write the likely wrong labels as a page with pictures, too. Default: none."),
    ] = None,
    study: Annotated[
        str | None,
        typer.Option(
            help="Check labels by what this study predicted: of all samples with --folds. Default: by a probe."
        ),
    ] = None,
    runs: Runs = Path("runs"),
    **settings: Any,
) -> None:
    """Shows what automl understands of a data set, and what is wrong with it.

    Example: automl data photos/ --holdout-fraction 0
    """
    from automl.cli.data_audit import check_normalise, print_audit, write_normalised
    from automl.cli.data_labels import LabelFlags, print_labels, read_study_data
    from automl.cli.json_output import wants_json, write_result
    from automl.cli.json_results import describe_audit, describe_copy, describe_data, describe_labels
    from automl.cli.progress import SearchProgress
    from automl.data.drop_copies import open_samples
    from automl.spec import StudySpec, merge

    flags = LabelFlags(check_labels, labels_html, study, runs)
    flags.check_use(settings.get("weights_dir"))
    given = {"data": {"path": path}} if path is not None or study is None else read_study_data(runs, study)
    spec = StudySpec.from_mapping(merge(given, settings), "automl data", settings)
    with SearchProgress(_INTERRUPTED.format("; what is written of the copy is kept" if normalise else "")) as reporter:
        with reporter.show_progress("comparing") as progress:
            dataset = open_samples(spec.data, spec.seed, progress)
        shape = check_normalise(dataset, normalise, normalise_size, normalise_seconds)
        summary = _print_summary(dataset, reporter, near_copies)
        audited = print_audit(dataset, normalise is None) if audit else None
        checked = print_labels(dataset, spec, flags, reporter) if check_labels else None
        copied = write_normalised(dataset, normalise, shape, audit) if normalise is not None else None
    if wants_json():
        copy, of_copy = copied or (None, None)
        result = describe_data(
            summary,
            describe_audit(audited) if audited else None,
            describe_labels(checked, labels_html) if checked else None,
            describe_copy(copy, describe_audit(of_copy) if of_copy else None) if copy else None,
        )
        write_result(result)


def _print_summary(dataset: "Dataset", reporter: "Reporter", near_copies: bool) -> "Summary":
    """Reads every file, prints what was understood and what is wrong, and returns it."""
    from automl.cli.output import print_line
    from automl.data.summary import summarise, with_near_copies

    with reporter.show_progress("reading") as progress:
        summary = summarise(dataset, progress)
    for line in _describe_data(summary):
        print_line(line)
    _print_counts(summary)  # before the comparison, which takes longer
    if near_copies:
        with reporter.show_progress("comparing") as progress:
            summary = with_near_copies(summary, progress)
    for line in _list_problems(summary):
        print_line(line, style="yellow")
    return summary


def _print_counts(summary: "Summary") -> None:
    """Prints how many samples each split has, by class where there are few classes."""
    from automl.cli.output import print_table

    names = summary.dataset.classes
    many = len(names) > _MOST_COLUMNS
    header = ["split", *(["a class"] if many else names), "samples", *(["groups"] if summary.groups else [])]
    rows = []
    for split, counts in summary.counts.items():
        classes = [f"{min(counts.values())} to {max(counts.values())}"] if many else [*map(str, counts.values())]
        groups = [f"{summary.groups[split]}"] if summary.groups else []
        rows.append([split, *classes, str(sum(counts.values())), *groups])
    print_table(header, rows, left=("split",))


def _describe_data(summary: "Summary") -> list[str]:
    """Writes the lines about the whole data set."""
    dataset = summary.dataset
    positive = dataset.positive_class_name
    lines = [
        f"data: {dataset.root}",
        f"format: {dataset.format}",
        *(f"read: {line}" for line in dataset.remarks),
        f"classes: {len(dataset.classes)} ({shorten(dataset.classes, 20)})",
        *([f"positive class: {positive}"] if positive else []),
        f"real class: {dataset.real_class_name or 'unknown (--real-class names it)'}",
    ]
    if summary.sizes:
        (narrow, width, wide), (low, height, high) = summary.sizes.width, summary.sizes.height
        lines.append(f"width: {narrow} to {wide} pixels, median {width}")
        lines.append(f"height: {low} to {high} pixels, median {height}")
    return lines + (_describe_clips(summary.clips) if summary.clips else [])


def _describe_clips(clips: "Clips") -> list[str]:
    """Writes the lines about videos and sounds."""
    lines = []
    if clips.seconds:
        shortest, median, longest = clips.seconds
        lines.append(f"duration: {shortest:.2f} to {longest:.2f} s, median {median:.2f}")
    if clips.frames_per_second:
        slowest, fastest = clips.frames_per_second
        lines.append(f"frame rate: {slowest:.4g} to {fastest:.4g} frames a second")
    for what, count, total, remark in (
        ("variable frame rate", clips.variable_rate, clips.pictures, ""),
        ("rotated", clips.rotated, clips.pictures, "; they are turned upright"),
        ("pixels that are not square", clips.stretched, clips.pictures, "; they are widened"),
        ("several tracks of pictures", clips.several_pictures, clips.count, "; the default one is read"),
        ("several tracks of sound", clips.several_sounds, clips.count, "; the default one is read"),
    ):
        if count:
            lines.append(f"{what}: {count} of {total} clips{remark}")
    if 0 < clips.pictures < clips.count:
        lines.append(f"pictures: in {clips.pictures} of {clips.count} clips")
    if clips.sound:
        rates = ", ".join(f"{rate} Hz" for rate in clips.sample_rates_hz[:6])
        more = ", …" if len(clips.sample_rates_hz) > 6 else ""
        lines.append(f"sound: in {clips.sound} of {clips.count} clips, {rates}{more}")
    elif clips.count:
        lines.append("sound: none")
    return lines


def _list_problems(summary: "Summary") -> list[str]:
    """Writes what is wrong, one line each; a line that nothing is if so."""
    medium = "image" if summary.clips is None else "clip"
    same = [(shorten(copy.names, 4, " = ") + f": the same {medium}", copy) for copy in summary.leaks]
    unlike = [(shorten(copy.names, 4, " = ") + f": the same {medium}", copy) for copy in summary.conflicts]
    lines = [f"warning: {problem}" for problem in summary.problems]
    for kind, texts in (
        ("unreadable", [f"{name}: {reason}" for name, reason in summary.unreadable]),
        ("leak", [f"{files} in {' and '.join(copy.splits)}" for files, copy in same]),
        ("leak", [copy.sentence for copy in summary.near_copies]),
        ("conflict", [f"{files} as {' and as '.join(copy.labels)}" for files, copy in unlike]),
    ):
        lines += [f"{kind}: {text}" for text in texts[:_MOST_FILES]]
        lines += [f"{kind}: … and {len(texts) - _MOST_FILES} more"] if len(texts) > _MOST_FILES else []
    if summary.copies:
        lines.append(f"note: {summary.copies} {medium}s are copies of another one of their class and split")
    lines += [f"note: {note}" for note in summary.notes]
    return lines or ["no damaged files, leaks or contradicting labels found"]
