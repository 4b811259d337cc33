"""Opening a data set without the validation and holdout samples that are copies of training samples.

A network that was trained on an image knows its copy: such samples measure memory. What stands in a given validation
set beside its training set is not for automl to change unasked, so this is done where `DataSpec.drop_copies` is set.
"""

from collections import defaultdict
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace

import pandas as pd

from automl.data.cache import Cache
from automl.data.content import digest_file
from automl.data.dataset import Dataset, open_dataset
from automl.data.near_duplicates import compare_splits
from automl.data.splits import check_counts
from automl.errors import DataError, shorten
from automl.reporter import Progress
from automl.spec import DataSpec


def open_samples(spec: DataSpec, seed: int, progress: Progress | None = None) -> Dataset:
    """Opens a data set as `open_dataset` does, and takes out copies where the spec says so.

    Raises:
        DataError: As `open_dataset`; and if too few samples are left.
        AutomlError: If the disk is too full to decode the files, or the cache's folder cannot be written.
    """
    dataset = open_dataset(spec, seed)
    return drop_copies(dataset, progress) if spec.drop_copies else dataset


def drop_copies(dataset: Dataset, progress: Progress | None = None) -> Dataset:
    """Takes the samples out of validation and holdout that are copies of training samples; a remark names some.

    Raises:
        DataError: If too few samples of a class are left.
        AutomlError: As `open_samples`.
    """
    copies = find_copies(dataset, progress)
    rows, names = list(copies), dataset.samples["name"].to_numpy()
    splits = dataset.samples["split"].iloc[rows].value_counts()
    counted = " and ".join(f"{count} of {split}" for split, count in splits.sort_index(ascending=False).items())
    remark = f"taken out, as copies or near copies of training samples: {counted or 'none'} (--drop-copies)"
    samples = dataset.samples.drop(index=dataset.samples.index[rows]).reset_index(drop=True)
    try:
        check_counts(samples, dataset.classes)
    except DataError as exc:
        raise DataError(f"{remark}; {exc}; or leave out --drop-copies") from exc
    pairs = shorten([f"{names[row]} ~ {names[original]}" for row, original in copies.items()])
    remark += f": {pairs}" * bool(pairs)
    return replace(dataset, samples=samples, remarks=(*dataset.remarks, remark))


def find_copies(dataset: Dataset, progress: Progress | None = None, cache: Cache | None = None) -> dict[int, int]:
    """Finds the rows of validation and holdout that are copies or near copies of training samples, ascending.

    Args:
        dataset: The samples.
        progress: Receives what is done.
        cache: Images that are decoded already; None: they are decoded, small.

    Returns:
        Of each such row, the first row of training that belongs together with it.

    Raises:
        AutomlError: As `open_samples`.
    """
    splits = dataset.samples["split"].to_numpy()
    compared = compare_splits(dataset, progress, cache)
    groups = [*(rows for rows, _ in compared.groups), *_group_equal_files(dataset.samples, compared.unseen)]
    originals = dict[int, int]()
    for rows in groups:
        if trained := [row for row in rows if splits[row] == "train"]:
            originals |= {row: min(trained) for row in rows if splits[row] != "train"}
    return dict(sorted(originals.items()))


def _group_equal_files(samples: pd.DataFrame, rows: Iterable[int]) -> list[tuple[int, ...]]:
    """Groups those of some rows whose files have the same bytes: of black images and silence, hashes say nothing."""
    paths, by_content = samples["path"].to_numpy(), defaultdict[bytes, list[int]](list)
    for row in rows:
        with suppress(DataError):  # what cannot be read is nobody's copy
            by_content[digest_file(paths[row])].append(row)
    return [tuple(equal) for equal in by_content.values() if len(equal) > 1]
