"""Joining a study from any machine: its own copy of the data and of the weights, checked, and what its card holds.

A study that was begun elsewhere stays as it is: its pool is frozen, so that the sampler can compare trials. What a
machine cannot train of it is left to the others.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import optuna

from automl.backbones.weights import locate_file
from automl.data.dataset import Dataset
from automl.data.fingerprint import compare_files, digest_files, match_samples, measure_files
from automl.devices import is_gpu
from automl.errors import DataError, PoolError, StudyError, shorten
from automl.gpu.budget import decide_budget
from automl.memory.estimate import estimate_training
from automl.space.space import Space
from automl.study.artifacts import absolute_artifacts
from automl.study.folder import StudyFolder
from automl.study.local_setup import LocalSetup, find_own_weights, has_weights_of
from automl.study.pool import Pool, PoolEntry, PoolLimits, smallest_step
from automl.study.setup import StudySetup, load_setup, write_samples
from automl.study.stored_samples import load_samples
from automl.study.trial_record import read_spec, read_study_record
from automl.units import Share, format_bytes


def check_copy(study: optuna.Study, dataset: Dataset, *, may_have_more: bool = False) -> Dataset:
    """Checks that a data set, as read on this machine, is the study's.

    Args:
        study: It has begun, not by an earlier version.
        dataset: This machine's copy of its data.
        may_have_more: Whether the copy may have samples that the study has not: they are left out.

    Returns:
        The samples of the study, with their splits and with the paths of this machine.

    Raises:
        StudyError: If a file is missing, or its label or content is another one; it names an example of each.
    """
    record, stored = read_study_record(study), load_samples(study)
    if stored is None:
        raise StudyError(f"the storage of study {study.study_name!r} has lost its samples; begin a new study")
    classes = json.loads(record.dataset)["classes"]
    permuted = read_spec(study).data.shuffle_labels
    try:
        matched = match_samples(dataset, stored, classes, any_label=permuted, may_have_more=may_have_more)
        measured = measure_files(matched.samples)
        if digest_files(measured) != record.files:
            raise DataError("; ".join(compare_files(measured, stored)))
    except DataError as exc:
        raise StudyError(
            f"the data in {dataset.root} are not those with which study {study.study_name!r} began: {exc}; restore "
            "them, or let a search begin a new study with these"
        ) from exc
    return matched


def join_study(
    study: optuna.Study,
    folder: StudyFolder,
    dataset: Dataset,
    *,
    measure: Callable[[], int | None] = lambda: None,
    weights_dir: Path | None = None,
    face_model: Path | None = None,
    artifacts: str | None = None,
    may_have_more: bool = False,
    print_line: Callable[[str], None] = print,
) -> StudySetup:
    """Makes this machine ready to train trials of a study, and keeps what is its own in its folder of the study.

    Args:
        study: It has begun, here or on another machine.
        folder: This machine's.
        dataset: This machine's copy of the data, as it was read.
        measure: Measures what training may take of this machine's cards (`measure_memory`); called where the study was
            begun on another machine.
        weights_dir: Where this machine has pretrained weights.
        face_model: Its YuNet file.
        artifacts: The URL under which it reaches the artifacts, if that is not the study's.
        may_have_more: As for `check_copy`.
        print_line: Called with what a person should know.

    Returns:
        The study's setup as it is on this machine.

    Raises:
        StudyError: If the data are other ones.
        PoolError: If it can train none of the pool's backbones.
    """
    if not read_study_record(study).files:  # an earlier version began it
        return load_setup(study, folder)
    known = LocalSetup.load(folder)
    joined = known.joined if known else not folder.samples.exists()
    dataset = check_copy(study, dataset, may_have_more=may_have_more)
    own = LocalSetup(
        root=str(dataset.root),
        face_model=str(face_model.expanduser().absolute()) if face_model else None,
        artifacts=absolute_artifacts(artifacts) if artifacts else known and known.artifacts,
        joined=joined,
    )
    _keep_samples(folder, dataset)
    own.save(folder)
    setup = load_setup(study, folder)
    if not joined:
        _check_weights(study, setup.pool)
        return setup
    try:
        own = _measure_machine(own, setup, weights_dir, measure())
        _print_unusable(setup.pool, own.unusable, print_line)
    except BaseException:
        if known is None:  # it has not joined: the next try begins anew
            folder.samples.unlink()
            folder.local.unlink()
        raise
    own.save(folder)
    return load_setup(study, folder)


def _check_weights(study: optuna.Study, pool: Pool) -> None:
    """Refuses to go on where a file of weights was replaced since the study began."""
    for entry in pool.entries:
        weights = entry.locate_weights()
        if weights is not None and not has_weights_of(entry, weights):
            raise StudyError(
                f"the weights of {entry.backbone} in {locate_file(entry.backbone, weights)} are not those with which "
                f"study {study.study_name!r} began: restore them, or give --name for a new study"
            )


def _measure_machine(
    own: LocalSetup, setup: StudySetup, weights_dir: Path | None, memory_bytes: int | None
) -> LocalSetup:
    """Adds what this machine can train of a study that was begun elsewhere."""
    if setup.memory_bytes is not None and memory_bytes is not None and memory_bytes >= setup.memory_bytes:
        memory_bytes = None  # the study's is what it keeps to
    limit = setup.memory_bytes if memory_bytes is None else memory_bytes
    weights, missing = find_own_weights(setup.pool, weights_dir)
    unusable = missing | _find_too_large(setup.pool, setup.space, len(setup.dataset.classes), limit)
    return own.model_copy(update={"memory_bytes": memory_bytes, "weights": weights, "unusable": unusable})


def _keep_samples(folder: StudyFolder, dataset: Dataset) -> None:
    """Writes the samples into the study's folder, if they are not there as they are here."""
    text = dataset.samples.to_csv(index=False)
    if not folder.samples.exists() or folder.samples.read_text(encoding="utf-8", errors="replace") != text:
        write_samples(folder, dataset)


def measure_memory(
    wanted: int | Share | Literal["auto"] | None, devices: Sequence[str], print_line: Callable[[str], None]
) -> int | None:
    """Measures what training may take of each of some GPUs, in bytes; None without one.

    `wanted` is the study's `gpu_mem`: a share is one of these cards, a size is compared with what is here elsewhere.
    """
    if not any(map(is_gpu, devices)):
        return None
    budget = decide_budget(wanted if isinstance(wanted, Share) else None, devices)
    for note in budget.notes:
        print_line(note)
    return budget.bytes


def _find_too_large(pool: Pool, space: Space, classes: int, memory_bytes: int | None) -> dict[str, str]:
    """Finds the backbones of which not even the smallest step fits this machine; returns why, by backbone."""
    if memory_bytes is None:
        return {}
    needs = {entry.backbone: _predict_least(entry, space, classes, memory_bytes) for entry in pool.entries}
    limit = format_bytes(memory_bytes)
    return {name: f"needs {format_bytes(need)} of {limit}" for name, need in needs.items() if need > memory_bytes}


def _predict_least(entry: PoolEntry, space: Space, classes: int, memory_bytes: int) -> int:
    """Predicts the bytes that the smallest step of a backbone needs, where it is not known already."""
    need = entry.memory
    if need.peak_bytes <= memory_bytes or not need.fits_all:  # of its largest step, or known to be of the smallest
        return need.peak_bytes
    limits = PoolLimits(
        memory_bytes=memory_bytes,
        trial_seconds=None,
        min_epochs=0.0,
        image_sizes=entry.image_sizes or space.image_sizes(),
        reference_image_size=0,
        max_batch_size=2,
        train_images=0,
        tunes=entry.tunes or space.list_tunes(),
    )
    predicted = estimate_training(smallest_step(entry.backbone, limits), classes)
    return predicted + memory_bytes - need.prediction_limit(memory_bytes)  # less than that is left for a prediction


def _print_unusable(pool: Pool, unusable: dict[str, str], print_line: Callable[[str], None]) -> None:
    """Prints which backbones are left to other machines; raises PoolError if these are all."""
    reasons = [f"{name} {reason}" for name, reason in unusable.items()]
    if len(unusable) == len(pool.entries):
        raise PoolError(
            f"none of the study's {len(reasons)} backbones can be trained here: {shorten(reasons, 3, '; ')}"
        )
    if reasons:
        be = "is" if len(reasons) == 1 else "are"
        of = f"{len(reasons)} of the study's {len(pool.entries)} backbones {be} left to other machines"
        print_line(f"{of}: {shorten(reasons, 3, '; ')}")
