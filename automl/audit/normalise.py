"""A copy of a data set in which all files are encoded alike: `automl data PATH --normalise DIR`."""

import csv
import hashlib
import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from automl.audit.copied_files import ENDINGS, CopyJob, copy_file, measure_file_floors
from automl.data.dataset import Dataset
from automl.errors import DataError, SpecError
from automl.files import explain_write_errors, write_text
from automl.media.decoding import decode_files
from automl.media.images import describe_alone
from automl.media.opening import require
from automl.processes import cpu_threads
from automl.reporter import ShowProgress

LABELS, FOLDER, SETTINGS = "labels.csv", "files", ".normalised.json"
"""What a copy holds: its label file, the folder of its files, and how it was made."""

_LOCK = ".lock"
_VERSION = 1  # raise it when the same file gives another copy
_QUIET = 98  # percent of the sounds whose noise floor is at the common level, or is raised to it
_BLOCK = 2  # files a core that are begun and not yet counted
_FLAG = "--normalise"
_LARGEST_STEM = 80


@dataclass(frozen=True)
class Shape:
    """What else becomes the same in all files of a copy, where it is wanted."""

    size: int | None = None
    """Pixels per side of the square that pictures become: the middle of each; None: their own size."""
    seconds: float | None = None
    """Length at which sounds and videos are cut off; shorter ones stay as they are. None: their own length."""


@dataclass(frozen=True)
class Normalised:
    """A copy of a data set."""

    folder: Path
    written: int
    """Files that were written by this call."""
    kept: int
    """Files that an earlier call had written."""
    unreadable: tuple[tuple[str, str], ...]
    """(name, reason) of files that could not be read, and are left out."""
    levels: tuple[float, ...] = ()
    """The common noise floor of sounds, a power for each band; empty where nothing is heard."""


def normalise_dataset(dataset: Dataset, folder: Path, shape: Shape, show_progress: ShowProgress) -> Normalised:
    """Writes a copy of a data set in which all files are encoded alike; see `copied_files`.

    Labels, groups and splits are the same. What an earlier, interrupted call has written is kept. The label file is
    written last: a folder without it is not complete.

    Args:
        dataset: The data set.
        folder: Of the copy: a new or empty one, or one that a call with the same arguments has begun.
        shape: What else becomes the same in all files.
        show_progress: Yields a callback for a long piece of work, given its name.

    Raises:
        DataError: If no file of a class can be read, or the folder holds something else or cannot be written.
        SpecError: If the folder lies in the data set, or the shape makes no sense.
    """
    folder = folder.expanduser().absolute()
    check_target(dataset, folder, shape)
    if dataset.media != "image":
        require("av")
    with explain_write_errors(folder, DataError, _FLAG):
        (folder / FOLDER).mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(folder / _LOCK, timeout=0):
                return _write_copy(dataset, folder, shape, show_progress)
        except Timeout:
            raise DataError(f"{folder} is being written by another process; wait for it") from None


def check_target(dataset: Dataset, folder: Path, shape: Shape) -> None:
    """Refuses a folder that a copy cannot be written to, and a shape that makes no sense; see `normalise_dataset`."""
    size, seconds = shape.size, shape.seconds
    if seconds is not None and not 0.5 <= seconds <= 3600:
        raise SpecError(f"--normalise-seconds {seconds:g} is a length from 0.5 to 3600 seconds")
    if seconds is not None and dataset.media == "image":
        raise SpecError("--normalise-seconds is for videos and sounds, and the data are images; leave it out")
    if size is not None and not 16 <= size <= 4096:
        raise SpecError(f"--normalise-size {size} is the side of a square, from 16 to 4096 pixels")
    if size is not None and dataset.media == "sound":
        raise SpecError("--normalise-size is for pictures, and the data are sounds; leave it out")
    if size is not None and dataset.media == "video" and size % 2:
        raise SpecError(f"--normalise-size {size}: a video has an even number of pixels; give {size + 1}")
    root, target = dataset.root.resolve(), folder.resolve()
    # beside a label file it is of no harm: nothing is read there that the file does not name
    if root.is_dir() and (target == root or root in target.parents or target in root.parents):
        raise SpecError(f"{_FLAG} {folder} and the data, {root}, lie in each other; give a folder beside it")
    if not folder.exists():
        return
    if not folder.is_dir():
        raise SpecError(f"{_FLAG} {folder} is a file; give a folder")
    others = [path for path in folder.iterdir() if path.name not in (FOLDER, _LOCK)]
    if not (folder / SETTINGS).is_file() and (others or any((folder / FOLDER).glob("*"))):
        raise DataError(f"{folder} is not empty and no copy that automl began; give another {_FLAG}")


def _write_copy(dataset: Dataset, folder: Path, shape: Shape, show_progress: ShowProgress) -> Normalised:
    """Writes what is missing."""
    samples = dataset.samples
    paths, names = samples["path"].tolist(), samples["name"].tolist()
    levels = _settle_levels(dataset, folder, shape, show_progress)
    sources = _list_sources(dataset)
    targets = [folder / FOLDER / _name_copy(source, ENDINGS[dataset.media]) for source in sources]
    wanted = [i for i, target in enumerate(targets) if not _is_current(paths[i], target)]
    jobs = [CopyJob(paths[i], str(targets[i]), dataset.media, shape.size, shape.seconds, levels) for i in wanted]
    reasons: dict[int, str] = {}
    with show_progress("writing the copy") as progress:
        results = decode_files(copy_file, jobs, ahead=_BLOCK * cpu_threads())
        for done, (i, result) in enumerate(zip(wanted, results, strict=True), start=1):
            if isinstance(result, DataError):
                reasons[i] = describe_alone(result, paths[i])
            progress(done, len(wanted))
    for path in (folder / FOLDER).glob(".*.tmp"):  # of a decoder that was ended while it wrote; nobody writes now
        path.unlink(missing_ok=True)
    kept = [i for i in range(len(samples)) if i not in reasons]
    for label, name in enumerate(dataset.classes):
        if not (samples["label"].to_numpy()[kept] == label).any():
            raise DataError(f"no file of class {name} can be read, such as {next(iter(reasons.values()), '')}")
    write_text(folder / LABELS, _make_label_file(dataset, sources, targets, kept))
    return Normalised(
        folder,
        len(wanted) - len(reasons),
        len(samples) - len(wanted),
        tuple((names[i], reason) for i, reason in reasons.items()),
        levels,
    )


def _settle_levels(dataset: Dataset, folder: Path, shape: Shape, show_progress: ShowProgress) -> tuple[float, ...]:
    """Returns the common noise floor in each band, which is settled once for a copy; () where nothing is heard."""
    kind = {"version": _VERSION, "data": str(dataset.root), "media": dataset.media, **vars(shape)}
    file = folder / SETTINGS
    if file.is_file():
        stored = _read_settings(file)
        different = [name for name, value in kind.items() if stored.get(name) != value]
        if different:
            name = different[0]
            raise DataError(
                f"{folder} holds a copy of another kind ({name}: {stored.get(name)}, now {kind[name]}); "
                f"give another {_FLAG}, or delete it"
            )
        return tuple(stored["levels"])
    levels: tuple[float, ...] = ()
    if dataset.media != "image":
        paths = dataset.samples["path"].tolist()
        floors: list[list[float]] = []
        with show_progress("measuring the noise floors") as progress:
            results = decode_files(measure_file_floors, paths, ahead=_BLOCK * cpu_threads())
            for done, result in enumerate(results, start=1):
                floors += [result] if not isinstance(result, DataError) and result else []
                progress(done, len(paths))
        levels = tuple(np.percentile(floors, _QUIET, axis=0).tolist()) if floors else ()
    write_text(file, json.dumps(kind | {"levels": levels}, indent=1) + "\n")
    return levels


def _read_settings(file: Path) -> dict[str, Any]:
    """Reads how a copy was made."""
    try:
        stored = json.loads(file.read_text(encoding="utf-8"))
        if isinstance(stored, dict) and all(isinstance(level, float) for level in stored["levels"]):
            return stored
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        pass
    raise DataError(f"{file} is damaged; delete {file.parent}, or give another {_FLAG}")


def _list_sources(dataset: Dataset) -> list[str]:
    """Lists the files relative to the data's folder: names in a label file may be the same in two of its sets."""
    root = dataset.root if dataset.root.is_dir() else dataset.root.parent
    return [os.path.relpath(path, root) for path in dataset.samples["path"]]


def _name_copy(name: str, ending: str) -> str:
    """Returns the name of a file's copy: that of the file, and a digest of it with its folders."""
    digest = hashlib.blake2b(name.encode(errors="surrogateescape"), digest_size=5).hexdigest()
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", Path(name).stem).strip("-._")[:_LARGEST_STEM]
    return f"{stem or 'file'}-{digest}{ending}"


def _is_current(source: str, target: Path) -> bool:
    """Returns whether a copy is there and was written after its file."""
    try:
        return target.stat().st_mtime_ns >= os.stat(source).st_mtime_ns  # noqa: PTH116 - twice as fast as Path.stat
    except OSError:
        return False


def _make_label_file(dataset: Dataset, sources: Sequence[str], targets: Sequence[Path], kept: Sequence[int]) -> str:
    """Returns the label file of a copy as text."""
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    grouped = dataset.grouped
    writer.writerow(["file", "label", "split", *(["group"] if grouped else []), "copied_from"])
    rows = dataset.samples.to_dict("records")
    for i in kept:
        row = rows[i]
        group = ["" if row["group"] == row["path"] else row["group"]] if grouped else []
        file = f"{FOLDER}/{targets[i].name}"
        writer.writerow([file, dataset.classes[row["label"]], row["split"], *group, sources[i]])
    return text.getvalue()
