"""What is decided before the first trial and stays the same until a study ends: samples, space, pool, limits.

It is stored with the study, so that every worker, and the same command on another day, works with the same.
"""

import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
from optuna.exceptions import ExperimentalWarning

from automl.data.cache import Cache, build_cache
from automl.data.dataset import Dataset
from automl.data.fingerprint import digest_files, measure_files
from automl.data.loader import ImageData
from automl.devices import is_gpu
from automl.errors import PoolError, StudyError
from automl.files import write_atomically, write_text
from automl.reporter import Progress
from automl.space.space import Space, parse_space
from automl.spec import StudySpec
from automl.study.artifacts import absolute_artifacts, name_folder
from automl.study.candidates import Candidates, name_backbones
from automl.study.folder import StudyFolder
from automl.study.identity import check_same, check_storage, digest_samples, merge_spec, root_paths
from automl.study.local_setup import LocalSetup
from automl.study.pool import Pool, PoolLimits, build_pool
from automl.study.spaces import enter_face_model, usual_image_size
from automl.study.storage import Patience, open_storage
from automl.study.stored_samples import store_samples
from automl.study.trial_record import has_study_record, read_spec, read_study_record, write_study_record
from automl.training.metrics import default_metric, metric_direction
from automl.views.base import BaseView

ROBUST = "robust_auc"
"""The objective that is measured on degraded copies."""

_CPU_TRIAL_SECONDS = 3600.0
"""Longest trial on a CPU when no timeout says more: a large backbone would take days unnoticed."""

_GPU_LOADERS = 4
_OPEN_VIEWS = 8

_DATASET_KEYS = ("root", "format", "classes", "real_class", "positive", "problems", "name", "media")
"""What is stored of a data set beside its samples."""


@dataclass(frozen=True)
class StudySetup:
    """What a study has fixed."""

    dataset: Dataset
    """The samples, split."""
    space: Space
    """What may vary; with the data's face detector in its views."""
    pool: Pool
    metric: str
    """Of the validation split, by which trials are compared."""
    cache_size: int
    """Pixels per side at which images are decoded."""
    memory_bytes: int | None = None
    """What training may take of a GPU, the CUDA context included; None: no limit."""
    trial_seconds: float | None = None
    """How long one trial may train; None: no limit."""
    folds: int = 1
    """Trainings of a trial."""
    robust: bool = False
    """Whether trials are compared by `robust_auc`; each training is then scored by `metric` until its end."""
    local: LocalSetup | None = None
    """What is this machine's own; None: the study's paths and limits are valid here."""

    @property
    def objective(self) -> str:
        """What the value of a trial is of."""
        return ROBUST if self.robust else self.metric

    @property
    def training_seconds(self) -> float | None:
        """How long one training of a trial may take; None: no limit."""
        return self.trial_seconds / self.folds if self.trial_seconds else None


def make_setup(
    spec: StudySpec,
    dataset: Dataset,
    cache: Cache,
    space: Space,
    devices: tuple[str, ...],
    memory_bytes: int | None,
    candidates: Candidates | None = None,
    call: "Callable[..., Any]" = lambda function, *args: function(*args),
) -> StudySetup:
    """Chooses the pool, timed on the first device, and fixes the limits.

    `cache` is that of any one view; without the candidates for the pool, these are looked for. `call` calls a function
    where that device is (`automl.study.worker_process.Workplace.call`).
    """
    trial_seconds = spec.budget.trial_time or (spec.budget.timeout and spec.budget.timeout / 4)
    if not trial_seconds and not is_gpu(devices[0]):
        trial_seconds = _CPU_TRIAL_SECONDS
    image_sizes = space.image_sizes()
    usable = (dataset.samples["split"] == "train").to_numpy() & cache.readable
    limits = PoolLimits(
        memory_bytes=memory_bytes,
        trial_seconds=trial_seconds / spec.folds if trial_seconds else None,
        min_epochs=min(1.0, space.find_bounds("epochs")[0]),
        image_sizes=image_sizes,
        reference_image_size=usual_image_size(space),
        max_batch_size=int(space.find_bounds("batch_size")[1]),
        train_images=int(usable.sum()),
        tunes=space.list_tunes(),
    )
    spec = name_backbones(spec, space)
    pool: Pool = call(build_pool, spec, limits, len(dataset.classes), devices[0], candidates)
    for name in space.list_backbones():
        if pool.find_entry(name) is None:
            raise PoolError("\n".join((f"the search space names {name}, which cannot be in the pool", *pool.notes)))
    return StudySetup(
        dataset=dataset,
        space=space,
        pool=pool,
        metric=default_metric(len(dataset.classes)) if spec.metric == "auto" else spec.metric.removeprefix("robust_"),
        # A backbone that runs at a larger size alone needs larger images; whoever opens the cache decodes them.
        cache_size=max([cache.size, *(size for entry in pool.entries for size in entry.image_sizes)]),
        memory_bytes=memory_bytes,
        trial_seconds=trial_seconds,
        folds=spec.folds,
        robust=spec.metric == ROBUST,
    )


# --- stored with the study ----------------------------------------------------------------------------------------


def create_study(folder: StudyFolder, spec: StudySpec, setup: StudySetup) -> optuna.Study:
    """Creates a study with its setup, or opens it again after checking that it is the same one but for the budgets."""
    folder.make_folders()
    storage = check_storage(folder, spec.storage)
    opened = open_storage(storage, Patience() if spec.storage else None)  # a search has opened it before
    if spec.storage:
        write_text(folder.storage_note, storage + "\n", mode=0o600)  # it may hold a password
    direction = metric_direction(setup.metric)
    study = optuna.create_study(study_name=folder.name, storage=opened, direction=direction, load_if_exists=True)
    dataset, goes_on, named = setup.dataset, has_study_record(study), ""
    if goes_on:
        check_same(study, folder, spec, setup.space, dataset)
        named = read_study_record(study).artifacts
    else:
        with warnings.catch_warnings(action="ignore", category=ExperimentalWarning):
            study.set_metric_names([setup.objective])  # else whoever shows the study calls it "Objective 0"
        write_samples(folder, dataset)
        rooted = root_paths(spec)
        own = {
            "face_model": rooted["data"]["face_model"],
            "artifacts": spec.artifacts and absolute_artifacts(spec.artifacts),
        }
        LocalSetup.model_validate({"root": str(dataset.root)} | own).save(folder)
        measured = measure_files(dataset.samples)
        store_samples(study, measured)
        write_study_record(
            study,
            space=setup.space.text,
            samples=digest_samples(dataset),
            files=digest_files(measured),
            pool=json.dumps(setup.pool.to_json()),
            dataset=json.dumps({key: getattr(dataset, key) for key in _DATASET_KEYS}, default=str),
            metric=setup.metric,
            cache_size=setup.cache_size,
            memory_bytes=setup.memory_bytes,
            trial_seconds=setup.trial_seconds,
        )
    if spec.artifacts and not named:
        write_study_record(study, artifacts=name_folder(folder.name))
    values = merge_spec(study, folder, spec) if goes_on else root_paths(spec)
    write_study_record(study, spec=json.dumps(values), stopped=None)  # last: a study with a spec is whole
    return study


def write_samples(folder: StudyFolder, dataset: Dataset) -> None:
    """Writes the samples into the study's folder, with their paths on this machine."""
    with write_atomically(folder.samples) as temporary:
        dataset.samples.to_csv(temporary, index=False)


def load_setup(study: optuna.Study, folder: StudyFolder) -> StudySetup:
    """Reads what `create_study` wrote, as it is on this machine."""
    record, local = read_study_record(study), LocalSetup.load(folder)
    try:
        samples = pd.read_csv(
            folder.samples, dtype={"group": str, "name": str, "path": str, "domain": str}, keep_default_na=False
        )
    except (OSError, ValueError) as exc:
        raise StudyError(f"cannot read {folder.samples}, which holds the samples of the study: {exc}") from exc
    values = json.loads(record.dataset)
    tuples = {key: tuple(values[key]) for key in ("classes", "problems")}
    root = Path(local.root if local else values["root"])
    dataset = Dataset(**(values | tuples | {"root": root, "samples": samples}))
    if digest_samples(dataset) != record.samples:
        raise StudyError(f"{folder.samples} was changed since the study began; restore it or start a new study")
    space = parse_space(record.space, "the study's search space", may_conflict=True)
    spec, pool, memory_bytes = read_spec(study), Pool.from_json(json.loads(record.pool)), record.memory_bytes
    if local is not None:
        memory_bytes = memory_bytes if local.memory_bytes is None else local.memory_bytes
        pool = local.adapt_pool(pool, memory_bytes)
    return StudySetup(
        dataset=dataset,
        space=enter_face_model(space, spec.data.face_model),
        pool=pool,
        metric=record.metric,
        cache_size=record.cache_size,
        memory_bytes=memory_bytes,
        trial_seconds=record.trial_seconds,
        folds=spec.folds,
        robust=spec.metric == ROBUST,
        local=local,
    )


# --- views --------------------------------------------------------------------------------------------------------


class StudyViews:
    """A study's samples through its views; each view is decoded when it is first opened, once for all processes."""

    def __init__(self, setup: StudySetup, device: str) -> None:
        self.dataset, self._size = setup.dataset, setup.cache_size
        self._face_model = setup.local.face_model if setup.local else None
        self._loaders = _GPU_LOADERS if is_gpu(device) else 0
        self._open: dict[BaseView, ImageData] = {}

    def open_view(self, view: BaseView, progress: Progress | None = None) -> ImageData:
        """Opens the samples through a view; decodes them, if they never were.

        What `progress` raises ends the decoding, which can go on later.

        Raises:
            DataError: If too many samples show nothing in the view to train on.
            AutomlError: If the cache cannot be written.
        """
        if view not in self._open:
            while len(self._open) >= _OPEN_VIEWS:
                del self._open[next(iter(self._open))]
            cache = build_cache(self.dataset, self._size, progress, self._find_own(view))
            self._open[view] = ImageData(self.dataset, cache, self._loaders)
        return self._open[view]

    def _find_own(self, view: BaseView) -> BaseView:
        """Returns the view with this machine's face detector, where the one that it names is another machine's."""
        named = getattr(view, "face_model", None)
        if named is None or self._face_model is None or Path(named).exists():
            return view
        return view.model_copy(update={"face_model": self._face_model})
