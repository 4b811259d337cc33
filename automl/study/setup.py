"""What is decided before the first trial and stays the same until a study ends: samples, space, pool, limits.

It is stored with the study, so that every worker, and the same command on another day, works with the same.
"""

import json
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import optuna
import pandas as pd
from optuna.exceptions import ExperimentalWarning

from automl.data.cache import Cache, build_cache
from automl.data.dataset import Dataset
from automl.data.fingerprint import digest_files, digest_rows, measure_files
from automl.data.loader import ImageData
from automl.devices import is_gpu
from automl.errors import PoolError, SpaceError, StudyError
from automl.files import write_atomically, write_text
from automl.media.kinds import Medium
from automl.reporter import Progress
from automl.space.nodes import Branches, Constant
from automl.space.space import Space, load_space, parse_space
from automl.spec import StudySpec
from automl.study.artifacts import absolute_artifacts, hide_credentials, name_folder
from automl.study.folder import StudyFolder
from automl.study.local_setup import LocalSetup
from automl.study.pool import Pool, PoolLimits, build_pool
from automl.study.storage import (
    Patience,
    absolute_storage,
    hide_password,
    is_same_storage,
    open_storage,
    read_storage_url,
)
from automl.study.stored_samples import store_samples
from automl.study.trial_record import has_study_record, read_spec, read_study_record, write_study_record
from automl.training.metrics import default_metric, metric_direction
from automl.views.base import BaseView
from automl.views.registry import View, make_view

SPACES: dict[Medium, str] = {"image": "image", "video": "video", "sound": "audio"}
"""The shipped search space for each kind of files."""

ROBUST = "robust_auc"
"""The objective that is measured on degraded copies."""

_CPU_TRIAL_SECONDS = 3600.0
"""Longest trial on a CPU when no timeout says more: a large backbone would take days unnoticed."""

_ALL = 1_000_000
"""Backbones: where the search space names them, no rule but the budgets leaves one out."""

_GPU_LOADERS = 4
_OPEN_VIEWS = 8

_BUDGETS = {"trials", "timeout", "log"}
"""What may change from one call to the next of the same study."""

_PATHS = {"path", "files_folder", "groups", "face_model", "weights_dir"}
"""What is a path, in a spec and in its data."""

_MOVABLE = {"path", "files_folder", "groups", "artifacts"}
"""What may change as well, where the samples and what is in their files stay the same."""

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
    call: "Callable[..., Any]" = lambda function, *args: function(*args),
) -> StudySetup:
    """Chooses the pool, timed on the first device, and fixes the limits; of several views, the cache is of any one.

    `call` calls a function where that device is (`automl.study.worker_process.Workplace.call`).
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
        reference_image_size=image_sizes[len(image_sizes) // 2],
        max_batch_size=int(space.find_bounds("batch_size")[1]),
        train_images=int(usable.sum()),
        tunes=space.list_tunes(),
    )
    named = space.list_backbones()
    if named:
        pool_spec = spec.pool.model_copy(update={"names": named, "size": _ALL, "per_family": _ALL})
        spec = spec.model_copy(update={"pool": pool_spec})
    pool: Pool = call(build_pool, spec, limits, len(dataset.classes), devices[0])
    for name in named:
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


def digest_samples(dataset: Dataset) -> str:
    """Returns the digest of names, labels and splits: what makes two data sets the same for a study."""
    return digest_rows(dataset.samples, ("name", "label", "split"))


# --- stored with the study ----------------------------------------------------------------------------------------


def create_study(folder: StudyFolder, spec: StudySpec, setup: StudySetup) -> optuna.Study:
    """Creates a study with its setup, or opens it again after checking that it is the same one but for the budgets."""
    folder.make_folders()
    study = _open_or_create(folder, spec, metric_direction(setup.metric))
    dataset, rooted = setup.dataset, _root_paths(spec)
    compared, named = {"space": setup.space.text, "samples": digest_samples(dataset)}, ""
    if has_study_record(study):
        stored, record, local = _root_paths(read_spec(study)), read_study_record(study), LocalSetup.load(folder)
        joined, named = local is not None and local.joined, record.artifacts
        movable = (_MOVABLE if record.files else set()) | (_PATHS if joined else set())
        _check_same(folder, stored, rooted, _BUDGETS | movable)
        rooted["artifacts"] = rooted["artifacts"] or stored.get("artifacts")  # given once is enough
        if joined:  # the paths of the machine that began it stay, by which recipes name them
            rooted = _keep_paths(stored, rooted)
        for name, value in compared.items():
            if value != getattr(record, name):
                raise StudyError(
                    f"the {name} of study {folder.name!r} changed since it began; give --name for a new study, "
                    f"or delete {folder.path}"
                )
    else:
        with warnings.catch_warnings(action="ignore", category=ExperimentalWarning):
            study.set_metric_names([setup.objective])  # else whoever shows the study calls it "Objective 0"
        write_samples(folder, dataset)
        own = {
            "face_model": rooted["data"]["face_model"],
            "artifacts": spec.artifacts and absolute_artifacts(spec.artifacts),
        }
        LocalSetup.model_validate({"root": str(dataset.root)} | own).save(folder)
        measured = measure_files(dataset.samples)
        store_samples(study, measured)
        write_study_record(
            study,
            **compared,
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
    write_study_record(study, spec=json.dumps(rooted), stopped=None)  # last: a study with a spec is whole
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
        space=_enter_face_model(space, spec.data.face_model),
        pool=pool,
        metric=record.metric,
        cache_size=record.cache_size,
        memory_bytes=memory_bytes,
        trial_seconds=record.trial_seconds,
        folds=spec.folds,
        robust=spec.metric == ROBUST,
        local=local,
    )


def _open_or_create(folder: StudyFolder, spec: StudySpec, direction: Literal["maximize", "minimize"]) -> optuna.Study:
    """Opens the study in the storage that the spec names."""
    known, wanted = read_storage_url(folder), absolute_storage(spec.storage or folder.storage_url)
    if folder.has_study and not is_same_storage(known, wanted):
        name = hide_password(known)
        raise StudyError(
            f"study {folder.name!r} exists in the storage {name}; give --storage {name}, or --name for a new study"
        )
    storage = open_storage(wanted, Patience() if spec.storage else None)  # a search has opened it before
    if spec.storage:
        write_text(folder.storage_note, wanted + "\n", mode=0o600)  # it may hold a password
    return optuna.create_study(study_name=folder.name, storage=storage, direction=direction, load_if_exists=True)


def _root_paths(spec: StudySpec) -> dict[str, Any]:
    """Returns a spec's values without a password, and with absolute paths: the next command may be given elsewhere."""

    def root_in(values: dict[str, Any]) -> dict[str, Any]:
        given = {name: Path(values[name]).expanduser() for name in _PATHS & values.keys() if values[name]}
        return values | {name: os.path.abspath(path) for name, path in given.items()}  # noqa: PTH100 - links stay links

    values = root_in(spec.model_dump(mode="json"))
    if spec.artifacts:
        values["artifacts"] = hide_credentials(absolute_artifacts(spec.artifacts))
    storage = values["storage"] and hide_password(values["storage"])
    return values | {"data": root_in(values["data"]), "storage": storage}


def _keep_paths(stored: dict[str, Any], wanted: dict[str, Any]) -> dict[str, Any]:
    """Returns the wanted spec with the stored paths."""
    kept = wanted | {name: stored[name] for name in _PATHS & stored.keys()}
    kept["artifacts"] = stored.get("artifacts") or wanted["artifacts"]
    return kept | {"data": wanted["data"] | {name: stored["data"][name] for name in _PATHS & stored["data"].keys()}}


def _check_same(folder: StudyFolder, stored: dict[str, Any], wanted: dict[str, Any], may_change: set[str]) -> None:
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


# --- views --------------------------------------------------------------------------------------------------------


def open_space(spec: StudySpec, media: Medium) -> Space:
    """Loads the search space of a study: the named one, or for `auto` the shipped one for its files and backbones."""
    usual = "encoders" if media == "image" and spec.pool.encoders == "only" else SPACES[media]
    space = load_space(usual if spec.space == "auto" else spec.space)
    for view in list_views(space):
        if view.media != media and (view.media, media) != ("sound", "video"):  # videos hold sound, too
            raise SpaceError(
                f"{space.source}: view {view.name} looks at {view.media}s, and the data are {media}s; "
                f"give --space {SPACES[media]}, or leave out --space"
            )
    return _enter_face_model(space, spec.data.face_model)


def list_views(space: Space) -> list[View]:
    """Makes one of each view that a space can draw, with the first of its options."""
    return [make_view(values) for values in space.list_views()]


def _enter_face_model(space: Space, face_model: Path | None) -> Space:
    """Enters the data's face detector into the views of a space that look for faces and name none themselves."""
    views = space.root.children["view"]
    if face_model is not None and isinstance(views, Branches):
        for branch in views.branches.values():
            known = branch.children.get("face_model")
            if isinstance(known, Constant) and known.value is None:
                branch.children["face_model"] = Constant(str(face_model.expanduser().absolute()))
    return space


def describe_view(view: BaseView) -> str:
    """Returns the name of what is decoded for a view."""
    return "images" if view.media == "image" else f"view {view.name}"


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
