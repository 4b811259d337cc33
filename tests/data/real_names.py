"""Small data sets laid out as people have them; shared by the tests of how they are read."""

import csv
from pathlib import Path

from PIL import Image

from automl.data.samples import Dataset, open_dataset
from automl.spec import DataSpec


def fill(folder: Path, names) -> list[str]:
    """Writes an image file for each name."""
    for name in names:
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (2, 2)).save(file, format=None if file.suffix else "PNG")
    return list(names)


def files(folder: Path, names) -> list[str]:
    """Writes an empty file for each name: of what is no image, only the name counts until it is decoded."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return list(names)


def tab(file: Path, rows, separator: str = ",") -> Path:
    """Writes a table."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", newline="", encoding="utf-8") as handle:
        csv.writer(handle, delimiter=separator).writerows(rows)
    return file


def read(path: Path, **options) -> Dataset:
    return open_dataset(DataSpec(path=path, **options), 0)


def classes_of(found: Dataset) -> dict[str, str]:
    """The class of each file, by the file's name without folders."""
    pairs = zip(found.samples["path"], found.samples["label"], strict=True)
    return {Path(path).name: found.classes[label] for path, label in pairs}
