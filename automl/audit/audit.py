"""Which properties of the files that say nothing of their content predict the label of a data set.

A network learns what is easiest. In ASVspoof 2019, the silence at the beginning and the end alone gives an accuracy of
85 % (Müller et al. 2021, arXiv 2106.12914); in GenImage, JPEG quality and size tell generated images from photographs
(Grommelt et al. 2024, arXiv 2403.17608). Such a network scores well on its own data and on no other.
"""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from automl.audit.clip_files import read_clip_properties
from automl.audit.image_files import read_image_properties
from automl.audit.properties import PROPERTIES, Property, Value, Values, format_number
from automl.audit.separation import Folds, divide_samples, measure_separation
from automl.audit.stored_values import StoredValues
from automl.data.dataset import Dataset
from automl.errors import DataError
from automl.media.decoding import decode_files
from automl.media.opening import require
from automl.processes import cpu_threads
from automl.reporter import Progress
from automl.training.intervals import Interval

CLEAR = 0.6
"""A property is a finding if the lower bound of its interval is above this. At .5 it predicts nothing; but with
thousands of files, a bound of .51 is reached by bytes a pixel or by sizes, which follow a little from what is shown (in
ffdi_faces, an AUC of .527 with the bounds .499 and .555). What a network would learn in place of the content is far
above."""

_MISSING = 0.5  # of the files: a property that more of them lack is not tried
_TYPICAL = 0.5  # of a class: a number that so many of its files have is written as a value
_BLOCK = 4  # files a core that are begun and not yet counted


@dataclass(frozen=True)
class Row:
    """One property that was tried."""

    kind: Property
    auc: Interval
    """Cross-validated AUC of predicting the label from it alone; the interval is corrected for all that were tried."""
    by_class: str
    """What the classes have: `fake: 30 fps in 100 %, real: 25 fps in 96 %`."""
    sentence: str
    """What it means, without a full stop."""

    @property
    def is_finding(self) -> bool:
        """Whether a network could clearly learn it in place of the content."""
        return self.auc.low > CLEAR


@dataclass(frozen=True)
class Audit:
    """What `automl data` shows of the files' properties."""

    rows: tuple[Row, ...] = ()
    """The properties that were tried, those that tell most first."""
    constant: tuple[str, ...] = ()
    """Names of those that are the same in all files."""
    missing: tuple[str, ...] = ()
    """Names of those that most files lack, though not all."""
    read: int = 0
    """Files that were read."""
    total: int = 0
    """Files of the data set."""
    unreadable: int = 0
    """Files that could not be read, of those that were tried."""
    reason: str = ""
    """Why nothing was tried; "" if something was."""

    @property
    def coverage(self) -> str:
        """What was looked at, in words: `1600 files`, `2000 of 9000 files, drawn at random, 3 of them unreadable`."""
        left_out = self.read + self.unreadable < self.total
        text = (
            f"{self.read + self.unreadable} of {self.total} files, drawn at random"
            if left_out
            else f"{self.total} files"
        )
        return f"{text}, {self.unreadable} of them unreadable" if self.unreadable else text

    @property
    def findings(self) -> tuple[Row, ...]:
        """The properties that a network could clearly learn in place of the content."""
        return tuple(row for row in self.rows if row.is_finding)


def audit_dataset(dataset: Dataset, most: int, seconds: float | None = None, progress: Progress | None = None) -> Audit:
    """Looks for properties of the files that predict the label; a file that cannot be read is left out and counted.

    What was read is kept in the cache, so that a second audit of the same files reads nothing.

    Args:
        dataset: Its samples of all splits; labels are used, predictions of networks are not.
        most: Files to look at, drawn at random, the same ones each time; a larger number adds to them.
        seconds: Reading ends after so long with what was read until then; None: no limit.
        progress: Called while files are read.

    Raises:
        DataError: If the package that reads videos and sounds is not installed.
    """
    order = np.random.default_rng(0).permutation(len(dataset.samples))[:most]
    samples = dataset.samples.iloc[order]
    outcomes = _read_values(dataset, samples["path"].tolist(), seconds, progress)
    kept = np.array([value is not None and not isinstance(value, DataError) for value in outcomes], dtype=bool)
    values = [value for value in outcomes if isinstance(value, dict)]
    used = samples[kept]
    failed = sum(isinstance(value, DataError) for value in outcomes)
    counts: dict[str, Any] = {"read": len(values), "total": len(dataset.samples), "unreadable": failed}
    labels = used["label"].to_numpy(dtype=np.int64)
    folds = divide_samples(labels, used["group"].tolist(), len(dataset.classes)) if len(values) else None
    if folds is None:
        what = "groups" if dataset.grouped else "files"
        return Audit(**counts, reason=f"it takes two {what} of each class that can be read")
    return _try_properties(values, folds, dataset.classes, counts)


def _read_values(
    dataset: Dataset, paths: Sequence[str], seconds: float | None, progress: Progress | None
) -> list[Values | DataError | None]:
    """Reads the properties of files, or why they cannot be read; None of those for which there was no time."""
    if dataset.media != "image":
        require("av")
    read = read_image_properties if dataset.media == "image" else read_clip_properties
    stored = StoredValues(dataset.root)
    outcomes: list[Values | DataError | None] = [stored.find_values(path) for path in paths]
    wanted = [i for i, value in enumerate(outcomes) if value is None]
    results = decode_files(read, [paths[i] for i in wanted], ahead=_BLOCK * cpu_threads())
    deadline = None if seconds is None else time.monotonic() + seconds
    try:
        for done, (i, result) in enumerate(zip(wanted, results, strict=True), start=1):
            outcomes[i] = result
            if not isinstance(result, DataError):
                stored.add_values(paths[i], result)
            if progress:
                progress(done, len(wanted))
            if deadline is not None and time.monotonic() > deadline:
                break
    finally:
        del results  # nobody waits for what is under way
        stored.save()
    return outcomes


def _try_properties(values: Sequence[Values], folds: Folds, classes: Sequence[str], counts: dict[str, Any]) -> Audit:
    """Tries each property that differs between files and that most of them have."""
    columns = {one.key: [value.get(one.key) for value in values] for one in PROPERTIES}
    known = [one for one in PROPERTIES if any(value is not None for value in columns[one.key])]
    constant = [one for one in known if len(set(columns[one.key])) == 1]
    missing = [
        one
        for one in known
        if one not in constant and one.is_number and columns[one.key].count(None) > _MISSING * len(values)
    ]
    tried = [one for one in known if one not in constant and one not in missing]
    rows = []
    for one in tried:
        column = columns[one.key]
        auc = measure_separation(column, one.is_number, folds, len(tried))
        rows.append(
            Row(
                one,
                auc,
                describe_classes(one, column, folds.labels, classes),
                describe_finding(one, column, folds.labels, classes, auc),
            )
        )
    rows.sort(key=lambda row: (-row.auc.low, -row.auc.value))
    return Audit(tuple(rows), tuple(one.name for one in constant), tuple(one.name for one in missing), **counts)


def describe_classes(one: Property, values: Sequence[Value], labels: np.ndarray, classes: Sequence[str]) -> str:
    """Writes what each class has: its most frequent value and its share, or of a number the median and the range."""
    parts = []
    for label, name in enumerate(classes):
        own = [value for value, of in zip(values, labels, strict=True) if of == label]
        (value, count), *_ = Counter(own).most_common(1)
        numbers = [float(value) for value in own if value is not None] if one.is_number else []
        if numbers and count < _TYPICAL * len(own):
            low, middle, high = (float(x) for x in np.percentile(numbers, [5, 50, 95]))
            parts.append(f"{name}: {one.format_value(middle)} ({format_number(low)} to {format_number(high)})")
        else:
            parts.append(f"{name}: {one.format_value(value)} in {_format_share(count, len(own))}")
    return ", ".join(parts)


def describe_finding(
    one: Property, values: Sequence[Value], labels: np.ndarray, classes: Sequence[str], auc: Interval
) -> str:
    """Writes in a sentence, without a full stop, what a property tells."""
    learns = "a network can learn that alone"
    of_class = [{value for value, of in zip(values, labels, strict=True) if of == k} for k in range(len(classes))]
    for k, own in enumerate(of_class):
        others = set().union(*(other for j, other in enumerate(of_class) if j != k))
        if len(own) == 1 and not own & others:
            value = one.format_value(next(iter(own)))
            return f"every file of class {classes[k]} has {one.name}: {value}, and none of another class: {learns}"
    numbers = [[value for value in own if isinstance(value, int | float)] for own in of_class]
    if one.is_number and len(classes) == 2 and [*map(len, numbers)] == [*map(len, of_class)]:
        low, high = sorted((0, 1), key=lambda k: min(numbers[k]))
        if (end := max(numbers[low])) < (begin := min(numbers[high])):
            limit = one.format_value((end + begin) / 2)
            return f"{one.name}: every {classes[low]} is below {limit}, every {classes[high]} above: {learns}"
    return f"{one.name} alone predicts the class with AUC {format_auc(auc.value)}: a network can learn that"


def format_auc(value: float) -> str:
    """Writes an AUC with three digits: `.913`, `1.0`."""
    text = f"{value:.3f}"
    return "1.0" if text == "1.000" else text.removeprefix("0")


def _format_share(count: int, total: int) -> str:
    """Writes a share in percent; 100 only if it is all, 0 only if it is nothing."""
    percent = 100 * count / total
    return f"{min(max(round(percent), 1), 99) if 0 < count < total else percent:.0f} %"
