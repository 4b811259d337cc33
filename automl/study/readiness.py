"""What a search begins with, and what can be refused before anything is decoded or a process is started.

What needs no torch is looked at first: a mistake costs a second, not the four or five that importing torch takes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import optuna

from automl.data.dataset import Dataset, open_dataset
from automl.doctor.checks import refuse_machine, refuse_unusable
from automl.errors import PoolError, SpecError, StudyError
from automl.files import check_weights_dir
from automl.gpu.budget import MemoryBudget, decide_budget
from automl.space.space import Space
from automl.spec import StudySpec
from automl.study.artifacts import check_artifacts
from automl.study.candidates import (
    Candidates,
    find_candidates,
    name_backbones,
    refuse_without_weights,
    select_backbones,
)
from automl.study.environment import describe_environment
from automl.study.folder import StudyFolder, study_name
from automl.study.identity import check_same, check_storage
from automl.study.known_good import list_earlier
from automl.study.samplers import make_pruner
from automl.study.spaces import open_space, usual_image_size
from automl.study.storage import Patience, StorageLost, absolute_storage, find_sqlite_file, open_storage, open_study
from automl.study.trial_record import has_study_record, read_study_record
from automl.trackers.registry import check_trackers
from automl.units import format_bytes

Printer = Callable[[str], None]
"""Receives a line for a person."""


@dataclass(frozen=True)
class Start:
    """What a search begins with."""

    spec: StudySpec
    """With the study's name."""
    folder: StudyFolder
    dataset: Dataset
    """As it was read: without copies taken out."""
    space: Space
    study: optuna.Study | None
    """The study that is continued; None: a new one."""


@dataclass(frozen=True)
class PoolPlan:
    """What the pool of a new study is chosen from."""

    memory: MemoryBudget
    candidates: Candidates
    environment: dict[str, str]
    """The machine and its versions, by names for people."""


def read_start(spec: StudySpec, runs: Path, print_line: Printer) -> Start:
    """Reads what a search begins with, and refuses what does not work out; imports no torch and decodes nothing.

    Raises:
        AutomlError: If data, space, storage, backbones or disks do not work out, or the study exists with another spec.
    """
    check_weights_dir(spec.weights_dir)
    check_trackers(spec.log)
    if spec.validation == "hard" and (column := spec.data.validation_by):
        raise SpecError(f"--validation hard and --validation-by {column} both choose what to validate on; give one")
    make_pruner(spec)
    refuse_machine(runs, _find_storage_folder(spec.storage))
    if spec.storage:
        open_storage(spec.storage)
    if spec.artifacts:
        check_artifacts(spec.artifacts, StudyFolder(runs))
    dataset = open_dataset(spec.data, spec.seed)
    folder = StudyFolder(runs / (spec.name or study_name(dataset.name)))
    spec = spec.model_copy(update={"name": folder.name})
    space = open_space(spec, dataset.media)
    if spec.warm_start == folder.name:
        raise StudyError(f"--warm-start {folder.name}: a study cannot begin with itself; name another one")
    study = _open_existing(folder, spec, print_line)
    if study is not None:
        # Samples without copies, or of a split by clusters, are known later; files are compared there as well.
        samples_known = not (spec.data.drop_copies or spec.validation == "hard" or read_study_record(study).files)
        check_same(study, folder, spec, space, dataset if samples_known else None)
    else:
        rules = name_backbones(spec, space)
        rows, _ = select_backbones(rules, usual_image_size(space))
        refuse_without_weights(rows, rules)
        if spec.warm_start and not folder.has_study:
            list_earlier(StudyFolder(runs / spec.warm_start), space)
    for note in space.notes:
        print_line(f"warning: {note}")
    return Start(spec, folder, dataset, space, study)


def plan_pool(spec: StudySpec, space: Space, devices: tuple[str, ...], _: Printer) -> PoolPlan:
    """Plans what the pool of a new study is chosen from, where the devices are, and refuses what leaves none.

    Raises:
        SpecError: If the memory budget cannot be given.
        StudyError: If torch cannot compute on a device.
        PoolError: If no backbone has weights where they are required, or none can fit the memory budget.
        WeightsError: If the file of a backbone's weights cannot be read.
    """
    from automl.study.pool import count_least_bytes  # late: it imports torch

    refuse_unusable(devices)
    memory = decide_budget(spec.budget.gpu_mem, devices)
    candidates = find_candidates(name_backbones(spec, space), usual_image_size(space))
    tunes = space.list_tunes()
    need, name = min((count_least_bytes(row, tunes), row["model"]) for row, _ in candidates.backbones)
    if memory.bytes is not None and need > memory.bytes:
        smallest = f"the smallest, {name}, needs more than {format_bytes(need)}, CUDA context included"
        text = f"no backbone fits --gpu-mem {format_bytes(memory.bytes)}: {smallest}"
        raise PoolError("\n".join([text, *memory.notes]))
    return PoolPlan(memory, candidates, describe_environment(devices))


def _find_storage_folder(storage: str | None) -> Path | None:
    """Finds the folder of a storage that is a file; None: it is a database elsewhere, or the study's own."""
    if storage is None:
        return None
    file = find_sqlite_file(storage) if "://" in storage else Path(absolute_storage(storage))
    return file.parent if file is not None else None


def _open_existing(folder: StudyFolder, spec: StudySpec, print_line: Printer) -> optuna.Study | None:
    """Opens the study of this name, if there is a whole one."""
    check_storage(folder, spec.storage)
    try:
        study = open_study(folder, spec.storage, Patience(print_line=print_line))
    except StorageLost:
        raise
    except StudyError:
        return None
    return study if has_study_record(study) else None
