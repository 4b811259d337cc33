"""What makes a call continue a study: the same spec but for the budgets, the same space and samples, in its storage."""

import os
from pathlib import Path
from typing import Any

import optuna

from automl.data.dataset import Dataset
from automl.data.fingerprint import digest_rows
from automl.errors import StudyError
from automl.space.space import Space
from automl.spec import StudySpec
from automl.study.artifacts import absolute_artifacts, hide_credentials
from automl.study.folder import StudyFolder
from automl.study.local_setup import LocalSetup
from automl.study.storage import absolute_storage, hide_password, is_same_storage, read_storage_url
from automl.study.trial_record import read_spec, read_study_record

_BUDGETS = {"trials", "timeout", "log"}
"""What may change from one call to the next of the same study."""

_PATHS = {"path", "files_folder", "groups", "face_model", "weights_dir"}
"""What is a path, in a spec and in its data."""

_MOVABLE = {"path", "files_folder", "groups", "artifacts", "space"}
"""What may have another name as well: the files are compared themselves, and the text of the space."""


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
    record = read_study_record(study)
    may_change = _BUDGETS | (_MOVABLE if record.files else set()) | (_PATHS if has_joined(folder) else set())
    _check_spec(folder, root_paths(read_spec(study)), root_paths(spec), may_change)
    changed = ["space"] if space.text != record.space else []
    changed += ["samples"] if dataset is not None and digest_samples(dataset) != record.samples else []
    if changed:
        raise StudyError(
            f"the {' and the '.join(changed)} of study {folder.name!r} changed since it began; "
            f"give --name for a new study, or delete {folder.path}"
        )


def digest_samples(dataset: Dataset) -> str:
    """Returns the digest of names, labels and splits: what makes two data sets the same for a study."""
    return digest_rows(dataset.samples, ("name", "label", "split"))


def has_joined(folder: StudyFolder) -> bool:
    """Returns whether a study was begun on another machine, by what this one's folder holds."""
    local = LocalSetup.load(folder)
    return local.joined if local else not folder.samples.exists()


def merge_spec(study: optuna.Study, folder: StudyFolder, spec: StudySpec) -> dict[str, Any]:
    """Returns the values that a study goes on with: those of the spec, with paths by which its recipes name files.

    Those are the ones of the machine that began it.
    """
    stored, wanted = root_paths(read_spec(study)), root_paths(spec)
    wanted["artifacts"] = wanted["artifacts"] or stored.get("artifacts")  # given once is enough
    if not has_joined(folder):
        return wanted
    kept = wanted | {name: stored[name] for name in _PATHS & stored.keys()}
    kept["artifacts"] = stored.get("artifacts") or wanted["artifacts"]
    return kept | {"data": wanted["data"] | {name: stored["data"][name] for name in _PATHS & stored["data"].keys()}}


def root_paths(spec: StudySpec) -> dict[str, Any]:
    """Returns a spec's values without a password, and with absolute paths: the next command may be given elsewhere."""

    def root_in(values: dict[str, Any]) -> dict[str, Any]:
        given = {name: Path(values[name]).expanduser() for name in _PATHS & values.keys() if values[name]}
        return values | {name: os.path.abspath(path) for name, path in given.items()}  # noqa: PTH100 - links stay links

    values = root_in(spec.model_dump(mode="json"))
    if spec.artifacts:
        values["artifacts"] = hide_credentials(absolute_artifacts(spec.artifacts))
    storage = values["storage"] and hide_password(values["storage"])
    return values | {"data": root_in(values["data"]), "storage": storage}


def _check_spec(folder: StudyFolder, stored: dict[str, Any], wanted: dict[str, Any], may_change: set[str]) -> None:
    """Refuses a spec in which more changed than may; the storage is compared elsewhere, by its whole path."""
    changed = [
        f"{path} was {was}, is {now}"
        for path, was, now in _list_differences(stored, wanted)
        if path.split(".")[-1] not in may_change and path != "storage"
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
