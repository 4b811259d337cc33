"""`automl data`: what the files give away of the label, and a copy in which they are alike."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from automl.errors import SpecError, shorten
from automl.units import format_count

if TYPE_CHECKING:  # the library is imported late: `automl --help` is instant
    from automl.audit.audit import Audit
    from automl.audit.normalise import Normalised, Shape
    from automl.data.dataset import Dataset

_MOST = 10_000
"""Files that are looked at; more would hardly narrow an interval."""
_MOST_LISTED = 10


def check_normalise(dataset: "Dataset", folder: Path | None, size: int | None, seconds: float | None) -> "Shape":
    """Refuses flags of a copy that cannot be written, before anything is read; returns the shape of its files."""
    from automl.audit.normalise import Shape, check_target

    shape = Shape(size, seconds)
    if folder is not None:
        check_target(dataset, folder, shape)
    elif shape != Shape():
        flag = f"--normalise-size {size}" if size is not None else f"--normalise-seconds {seconds:g}"
        raise SpecError(f"{flag} is for a copy; give --normalise DIR as well")
    return shape


def print_audit(dataset: "Dataset", advise: bool) -> "Audit":
    """Prints which properties of the files predict the label; `advise` says whether to name the remedy."""
    from automl.audit.audit import audit_dataset, format_auc
    from automl.cli.output import print_line, print_table, progress_bar

    with progress_bar("auditing") as progress:
        audit = audit_dataset(dataset, _MOST, progress=progress)
    if audit.reason:
        print_line(f"audit: nothing tried: {audit.reason}")
        return audit
    print_line(f": {_describe_tried(audit)}", title="audit")
    if audit.rows:
        rows = [
            [
                row.kind.name,
                format_auc(row.auc.value),
                f"{format_auc(row.auc.low)} to {format_auc(row.auc.high)}",
                row.by_class,
            ]
            for row in audit.rows
        ]
        words = ("property", "interval", "what the classes have")
        print_table(["property", "auc", "interval", "what the classes have"], rows, left=words)
    for row in audit.findings:
        print_line(f"shortcut: {row.sentence}", style="yellow")
    if audit.findings and advise:
        for line in _advise(audit, dataset):
            print_line(line)
    elif not audit.findings:
        print_line("audit: no property of the files clearly predicts the label")
    return audit


def write_normalised(
    dataset: "Dataset", folder: Path, shape: "Shape", audit: bool
) -> "tuple[Normalised, Audit | None]":
    """Writes the copy, says what came of it and, if wanted, what the audit says of it; returns both."""
    from automl.audit.normalise import normalise_dataset
    from automl.cli.output import print_line, progress_bar
    from automl.data.dataset import open_dataset
    from automl.spec import DataSpec

    copy = normalise_dataset(dataset, folder, shape, progress_bar)
    for line in _describe_copy(copy):
        print_line(line)
    opened = open_dataset(DataSpec(path=copy.folder), 0)
    result = print_audit(opened, advise=False) if audit else None
    if result is not None and result.findings:
        print_line(_describe_rest([row.kind.name for row in result.findings]))
    for line in _list_remains(dataset, shape):
        print_line(f"not removed: {line}")
    flags = ""
    if dataset.real_class_name and opened.real_class_name != dataset.real_class_name:
        flags += f" --real-class {shlex.quote(dataset.real_class_name)}"
    if dataset.positive_class_name and opened.positive_class_name != dataset.positive_class_name:
        flags += f" --positive-class {shlex.quote(dataset.positive_class_name)}"
    print_line(f"next: automl search --data {shlex.quote(str(copy.folder))}{flags}")
    return copy, result


def _describe_tried(audit: "Audit") -> str:
    """Writes how many properties were tried on how many files, and which were not."""
    text = f"{format_count(len(audit.rows), 'property', 'properties')} of {audit.coverage}"
    if audit.constant:
        text += f"; the same in all files: {len(audit.constant)} ({shorten(audit.constant, 4)})"
    if audit.missing:
        text += f"; most files have none: {len(audit.missing)} ({shorten(audit.missing, 4)})"
    return text


def _advise(audit: "Audit", dataset: "Dataset") -> list[str]:
    """Writes what takes the shortcuts away, and what nothing does."""
    remedies = {row.kind.remedy for row in audit.findings}
    flags = ["--normalise DIR", *sorted(remedies - {"", "copy"})]
    lines = []
    if remedies - {""}:
        command = f"automl data {shlex.quote(str(dataset.root))} {' '.join(flags)}"
        lines.append(f"what to do: {command} writes a copy whose files are alike")
    if "" in remedies:
        lines.append(_describe_rest([row.kind.name for row in audit.findings if not row.kind.remedy]))
    return lines


def _describe_rest(names: list[str]) -> str:
    """Writes what no copy takes away."""
    return f"what a copy does not take away: {shorten(names)}; look for data of all classes in which it is alike"


def _describe_copy(copy: "Normalised") -> list[str]:
    """Writes what was written, what was kept, and what was left out."""
    lines = [f"written: {copy.folder}, {copy.written} files" + (f"; {copy.kept} were there" if copy.kept else "")]
    lines += [f"unreadable, left out: {name}: {reason}" for name, reason in copy.unreadable[:_MOST_LISTED]]
    if len(copy.unreadable) > _MOST_LISTED:
        lines.append(f"unreadable, left out: … and {len(copy.unreadable) - _MOST_LISTED} more")
    return lines


def _list_remains(dataset: "Dataset", shape: "Shape") -> list[str]:
    """Lists what is in the copy as it was in the data, whatever the audit says of it."""
    pictures = [
        "what an earlier compression or resizing left in the pixels",
        *([] if shape.size else ["width and height (--normalise-size 256 makes them alike)"]),
    ]
    if dataset.media == "image":
        return pictures
    length = "the length of files shorter than that" if shape.seconds else "the length of the files"
    advice = "" if shape.seconds else " (--normalise-seconds 3 cuts them off)"
    sounds = ["what an earlier codec left in the sound", length + advice]
    if dataset.media == "sound":
        return sounds
    return [
        *pictures,
        *sounds,
        "frames that were left out or repeated for 25 a second",
        "whether there is a sound track",
    ]
