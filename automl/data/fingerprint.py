"""What the files of a data set hold, so that another copy of them, or one that changed since, is recognised.

Reading everything takes too long: looked at are the sizes of all files, and the contents of some, which their names
choose, so that every machine reads the same ones.
"""

import hashlib
import heapq
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pandas as pd

from automl.data.dataset import Dataset
from automl.errors import DataError
from automl.files import digest_pieces

CONTENTS = 256
"""Files that are read."""

ABSENT = -1
"""The size of a file that is not there."""

_THREADS = 16
"""A network folder answers many questions at once; a local disk is no slower for it."""

_CHUNK = 500
"""Sizes that a thread asks for at once."""


def measure_files(samples: pd.DataFrame, contents: int = CONTENTS) -> pd.DataFrame:
    """Looks at the files of samples, of which `contents` are read.

    Args:
        samples: As in `Dataset.samples`.
        contents: How many files are read.

    Returns:
        The samples with two more columns: `bytes` (int64; -1: there is no such file) and `content` (str, a digest; ""
        of a file that was not read).
    """
    paths = samples["path"].tolist()
    chosen = choose_names(samples["name"].tolist(), contents)
    content = [""] * len(paths)
    with ThreadPoolExecutor(_THREADS) as threads:
        parts = [paths[start : start + _CHUNK] for start in range(0, len(paths), _CHUNK)]
        sizes = [size for part in threads.map(_read_sizes, parts) for size in part]
        digests = threads.map(digest_pieces, [paths[row] for row in chosen], [sizes[row] for row in chosen])
        for row, digest in zip(chosen, digests, strict=True):
            content[row] = digest
    return samples.assign(bytes=np.array(sizes, np.int64), content=content)


def choose_names(names: Sequence[str], wanted: int) -> list[int]:
    """Chooses some names by their digests, whatever their order; returns their positions, ascending."""
    digests = [(hashlib.blake2b(_encode(name), digest_size=8).digest(), row) for row, name in enumerate(names)]
    return sorted(row for _, row in heapq.nsmallest(wanted, digests))


def digest_files(measured: pd.DataFrame) -> str:
    """Returns one digest of what `measure_files` saw; it is the same for the same files under another folder."""
    return digest_rows(measured, ("name", "bytes", "content"))


def digest_rows(table: pd.DataFrame, columns: Sequence[str]) -> str:
    """Returns the digest of some columns of a table."""
    rows = zip(*(table[column].astype(str).tolist() for column in columns), strict=True)
    return hashlib.sha256(_encode("\n".join(map("\t".join, rows)))).hexdigest()[:16]


def match_samples(
    dataset: Dataset,
    stored: pd.DataFrame,
    classes: Sequence[str],
    *,
    any_label: bool = False,
    may_have_more: bool = False,
) -> Dataset:
    """Finds the samples of a study in a copy of its data.

    Args:
        dataset: The copy, as it was read.
        stored: The study's samples: name, label, group ("" for none), split and domain, in the study's order.
        classes: The study's, in the order of its labels.
        any_label: Whether the labels are not compared: they were permuted.
        may_have_more: Whether samples that the study has not are left out; else they are a difference, too.

    Returns:
        The copy's files as the study's samples, in its order and with its splits.

    Raises:
        DataError: If a sample is missing, new, or has another label; of each kind with a count and an example.
    """
    own = dataset.samples.drop_duplicates("name").set_index("name")
    own = own.reindex(stored["name"])
    missing = own["path"].isna().to_numpy()
    named = np.array([*dataset.classes, ""], dtype=object)[own["label"].fillna(-1).to_numpy(int)]
    wanted = np.array(classes, dtype=object)[stored["label"].to_numpy(int)]
    relabelled = ~missing & (named != wanted) & (not any_label)
    names = stored["name"].to_numpy()
    new = dataset.samples["name"][~dataset.samples["name"].isin(stored["name"])].tolist()
    lines = []
    if missing.any():
        lines.append(f"{_count(missing.sum())} missing, such as {_point_to_moved(names[missing].tolist(), new)}")
    if relabelled.any():
        row = np.flatnonzero(relabelled)[0]
        text = f"{names[row]}: {named[row]} here, {wanted[row]} in the study"
        lines.append(f"{_count(relabelled.sum())} labelled otherwise, such as {text}")
    if new and not may_have_more:
        lines.append(f"{_count(len(new))} new, such as {new[0]}")
    if lines:
        raise DataError("; ".join(lines))
    samples = stored[["name", "label", "group", "split", "domain"]].assign(path=own["path"].to_numpy())
    samples["group"] = samples["group"].where(samples["group"] != "", samples["path"])
    columns = ["path", "name", "label", "group", "split", "domain"]
    return replace(dataset, samples=samples[columns], classes=tuple(classes))


def compare_files(measured: pd.DataFrame, stored: pd.DataFrame) -> list[str]:
    """Compares the files of matched samples with what the study knows of them.

    Args:
        measured: As `measure_files` returns it.
        stored: The same of the files that the study began with, in the same order.

    Returns:
        One line a kind of difference, with a count and an example; none: the files are the same.
    """
    names, sizes, known = (frame.to_numpy() for frame in (measured["name"], measured["bytes"], stored["bytes"]))
    absent = (sizes == ABSENT) & (known != ABSENT)
    resized = (sizes != known) & ~absent
    changed = (measured["content"].to_numpy() != stored["content"].to_numpy()) & (sizes == known)
    lines = []
    if absent.any():
        lines.append(f"{_count(absent.sum())} missing, such as {names[absent][0]}")
    if resized.any():
        row = np.flatnonzero(resized)[0]
        was = "no such file" if known[row] == ABSENT else f"{known[row]:,} bytes"
        text = f"{names[row]}: {sizes[row]:,} bytes here, {was} in the study"
        lines.append(f"{_count(resized.sum())} of another size, such as {text}")
    if changed.any():
        read = int((stored["content"] != "").sum())
        text = f"(of {read:,} that were read), such as {names[changed][0]}"
        lines.append(f"{_count(changed.sum())} of other content {text}")
    return lines


def _point_to_moved(missing: Sequence[str], new: Sequence[str]) -> str:
    """Names one of the missing samples, if possible one of which a new sample elsewhere has the file's name."""
    elsewhere = {name.rpartition("/")[2]: name for name in new}
    for name in missing:
        if moved := elsewhere.get(name.rpartition("/")[2]):
            return f"{name} (moved to {moved}?)"
    return missing[0]


def _count(number: int) -> str:
    """Writes how many files a line is about."""
    return f"{number:,} file{'s are' if number > 1 else ' is'}"


def _read_sizes(paths: Sequence[str]) -> list[int]:
    """Reads the sizes of files in bytes."""
    return [_read_size(path) for path in paths]


def _read_size(path: str) -> int:
    try:
        return os.stat(path).st_size  # noqa: PTH116 - twice as fast as Path.stat
    except OSError:
        return ABSENT


def _encode(text: str) -> bytes:
    return text.encode(errors="surrogateescape")
