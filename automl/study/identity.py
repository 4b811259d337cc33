"""What makes a call continue a study: the same spec but for the budgets, the same space and samples, in its storage."""

import hashlib
import os
from pathlib import Path
from typing import Any

import optuna

from automl.data.dataset import Dataset
from automl.errors import StudyError
from automl.space.space import Space
from automl.spec import StudySpec
from automl.study.folder import StudyFolder
from automl.study.storage import absolute_storage, hide_password, is_same_storage, read_storage_url
from automl.study.trial_record import read_spec, read_study_record

_BUDGETS = {"trials", "timeout", "log"}
"""What may change from one call to the next of the same study."""

_PATHS = {"path", "files_folder", "groups", "face_model", "weights_dir"}
"""What is a path, in a spec and in its data."""


def check_storage(folder: StudyFolder, wanted: str | None) -> str:
    """Returns the storage of a study, as an absolute path or a URL; None: the one that belongs to its folder.

    Raises:
        StudyError: If the study exists in another one.
    """
    storage, known = absolute_storage(wanted or folder.storage_url), read_storage_url(folder)
    if folder.has_study and not is_same_storage(known, storage):
        name = hide_password(known)
        raise StudyError(
            f"study {folder.name!r} exists in the storage {name}; give --storage {name}, or --name for a new study"
        )
    return storage


def check_same(
    study: optuna.Study, folder: StudyFolder, spec: StudySpec, space: Space, dataset: Dataset | None
) -> None:
    """Refuses to continue a study with what it was not begun with; None: the samples are not known yet.

    Raises:
        StudyError: If more than the budgets changed, in the spec, the space or the samples.
    """
    _check_spec(folder, root_paths(read_spec(study)), root_paths(spec))
    record = read_study_record(study)
    changed = ["space"] if space.text != record.space else []
    changed += ["samples"] if dataset is not None and digest_samples(dataset) != record.samples else []
    if changed:
        raise StudyError(
            f"the {' and the '.join(changed)} of study {folder.name!r} changed since it began; "
            f"give --name for a new study, or delete {folder.path}"
        )


def digest_samples(dataset: Dataset) -> str:
    """Returns the digest of names, labels and splits: what makes two data sets the same for a study."""
    rows = dataset.samples[["name", "label", "split"]].astype(str).agg("\t".join, axis=1)
    return hashlib.sha256("\n".join(rows).encode()).hexdigest()[:16]


def root_paths(spec: StudySpec) -> dict[str, Any]:
    """Returns a spec's values without a password, and with absolute paths: the next command may be given elsewhere."""

    def root_in(values: dict[str, Any]) -> dict[str, Any]:
        given = {name: Path(values[name]).expanduser() for name in _PATHS & values.keys() if values[name]}
        return values | {name: os.path.abspath(path) for name, path in given.items()}  # noqa: PTH100 - links stay links

    values = root_in(spec.model_dump(mode="json"))
    storage = values["storage"] and hide_password(values["storage"])
    return values | {"data": root_in(values["data"]), "storage": storage}


def _check_spec(folder: StudyFolder, stored: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Refuses a spec in which more than the budgets changed; the storage is compared elsewhere, by its whole path."""
    changed = [
        f"{path} was {was}, is {now}"
        for path, was, now in _list_differences(stored, wanted)
        if path.split(".")[-1] not in _BUDGETS and path != "storage"
    ]
    if changed:
        raise StudyError(
            f"study {folder.name!r} exists with another spec ({'; '.join(changed)}); "
            f"give --name for a new study, or delete {folder.path}"
        )


def _list_differences(was: Any, now: Any, path: str = "") -> list[tuple[str, Any, Any]]:
    if isinstance(was, dict) and isinstance(now, dict):
        keys = sorted(was.keys() | now.keys())
        paths = {key: f"{path}.{key}".strip(".") for key in keys}
        return [row for key in keys for row in _list_differences(was.get(key), now.get(key), paths[key])]
    return [] if was == now else [(path, was, now)]
