"""The search, from data to the best recipe: what `automl search` and `automl.search()` both call."""

import json
import shlex
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import optuna

from automl.audit.audit import audit_dataset
from automl.data.cache import Cache, build_cache
from automl.data.dataset import SPLITS, Dataset
from automl.data.drop_copies import open_samples
from automl.data.near_duplicates import compare_splits
from automl.data.picture_shapes import picture_sizes
from automl.devices import find_devices, is_gpu
from automl.doctor.checks import refuse_hopeless
from automl.errors import AutomlError, DataError, SpecError, StudyError
from automl.files import check_weights_dir, write_atomically
from automl.gpu.budget import MemoryBudget, decide_budget
from automl.recipe import Recipe
from automl.reporter import ConsoleReporter, Reporter, catch_interrupts
from automl.space.space import Space
from automl.spec import StudySpec, merge
from automl.study.claims import Claims, open_claims
from automl.study.confirm import Confirmation, confirm, load_confirmation
from automl.study.environment import describe_environment
from automl.study.folder import StudyFolder, study_name
from automl.study.known_good import (
    describe_crops,
    enqueue_earlier,
    enqueue_known_good,
    list_earlier,
    show_all_frames,
    suggest_space,
)
from automl.study.ray_cluster import connect_to_ray
from automl.study.robustness import degrade_validation, plan_samples
from automl.study.samplers import make_pruner
from automl.study.screening import describe_rows, plan_screening, screen_pool, store_rows
from automl.study.setup import (
    StudySetup,
    StudyViews,
    create_study,
    describe_view,
    list_views,
    load_setup,
    make_setup,
    open_space,
)
from automl.study.storage import Patience, StorageLost, open_storage, open_study, patience_of, read_storage_url
from automl.study.supervisor import Supervisor
from automl.study.tracking import StudyLog
from automl.study.trial_record import (
    best_trial,
    has_study_record,
    read_spec,
    read_study_record,
    recipe_of,
    trials_table,
    write_study_record,
)
from automl.study.validation import hold_out_clusters, take_splits
from automl.study.worker_process import Machine, Workplace
from automl.trackers.registry import check_trackers
from automl.training.metrics import default_metric
from automl.units import Share, format_bytes, format_count, format_figure, format_seconds, format_share
from automl.views.registry import View

if TYPE_CHECKING:
    import pandas as pd

_IMPORT_SECONDS = 20.0
"""How long workers are waited for at most before backbones are timed."""

STOPPING = "stopping after this epoch; Ctrl-C again stops now; the same command continues"

_LOOK_SECONDS = 3.0
"""Between two looks for trials that have ended."""

_SHOWN = 5
"""Unreadable files, leaks and shortcuts that are named."""

_AUDITED, _AUDIT_SECONDS = 2000, 3.0
"""Files at most whose properties are looked at, and how long; those that `automl data` has read cost nothing."""


@dataclass(frozen=True)
class SearchResult:
    """A study with its trials."""

    study: optuna.Study
    folder: StudyFolder
    setup: StudySetup = field(repr=False)
    """Data, space and pool."""
    interrupted: bool = False
    """Whether somebody stopped it (Ctrl-C) before its budget was spent."""

    @cached_property
    def claims(self) -> Claims:
        """Which worker has which trial."""
        return open_claims(self.study)

    @property
    def metric(self) -> str:
        """The name of the metric."""
        return self.setup.objective

    @property
    def trials_wanted(self) -> int:
        """How many trials the study shall have."""
        return read_spec(self.study).budget.trials

    @property
    def best(self) -> Recipe | None:
        """The recipe of the best complete trial; None while there is none."""
        trial = best_trial(self.study)
        return recipe_of(trial) if trial else None

    @property
    def best_value(self) -> float | None:
        """Its metric on the validation split."""
        trial = best_trial(self.study)
        return trial.value if trial else None

    @property
    def confirmation(self) -> Confirmation | None:
        """The best recipes trained again, and the chosen one's score on the holdout; None until then."""
        return load_confirmation(self.folder)

    @property
    def trials(self) -> "pd.DataFrame":
        """Every trial: parameters, metrics, state, reason."""
        return trials_table(self.study, self.setup.space)


def search(
    data: str | Path | dict[str, Any] | None = None,
    *,
    gpu_mem: str | int | None = None,
    trials: int | None = None,
    timeout: str | float | None = None,
    spec: StudySpec | str | None = None,
    runs: str | Path = "runs",
    confirm: int = 3,
    on: str | None = None,
    workers: int | None = None,
    worker_cpus: int | None = None,
    reporter: Reporter | None = None,
    **overrides: Any,
) -> SearchResult:
    """Searches for the best backbone and recipe; the same call again continues the study.

    Args:
        data: A folder or label file, or a mapping with the keys of `DataSpec`; None: the embedded demo.
        gpu_mem: GPU memory that training may take: a size such as `16GB`, a share of what is free such as `90%`, or
            `auto`, all that is free; None: `auto` on a GPU, and no limit without one.
        trials: How many trials the study has.
        timeout: When it ends at the latest, such as `8h30m`.
        spec: A study spec, the path of one, or the name of a shipped one.
        runs: The folder that holds the study's folder.
        confirm: How many of the best recipes are trained again when the trials are done, within what is left of the
            timeout, to choose one and score it on the holdout (`automl.study.confirm`); 0: none.
        on: Where trials are trained: `ray`, a Ray that runs on this machine or is started there; `ray://head:10001`, a
            cluster elsewhere; None: on the devices of this machine. It may be another one each time.
        workers: How many workers on Ray; None: one for each GPU that it has or can have, or so many CPU cores.
        worker_cpus: CPU cores of each worker on Ray, which then has no GPU; None: it has one GPU.
        reporter: Receives what is done; None: lines are printed.
        **overrides: Any other key of the study spec (`seed=1`, `weights_dir="weights"`, `pool={"size": 4}`).

    Returns:
        The study with its best recipe.

    Raises:
        AutomlError: If data, space, budgets or storage do not work out; the message says what to change.
    """
    started = time.time()
    if on is None and (workers is not None or worker_cpus is not None):
        raise SpecError(
            "--workers and --worker-cpus are for --on ray; two workers on this machine are --device cuda:0,cuda:1"
        )
    if confirm < 0:
        raise SpecError(f"confirm is how many recipes are trained again, 0 or more; got {confirm}")
    budget = {"gpu_mem": gpu_mem, "trials": trials, "timeout": timeout}
    given: dict[str, Any] = {"budget": {key: value for key, value in budget.items() if value is not None}}
    twice = given["budget"].keys() & dict(overrides.get("budget") or {}).keys()
    if twice:
        raise SpecError(f"{', '.join(sorted(twice))} is given twice: by itself, and in budget; give it once")
    if data is not None:
        given["data"] = data if isinstance(data, dict) else {"path": data}
    given = merge(given, overrides)
    if isinstance(spec, StudySpec):
        merged = merge(spec.model_dump(), given)
        resolved = StudySpec.from_mapping(merged, flags=given) if given != {"budget": {}} else spec
    else:
        resolved = StudySpec.load(spec or ("demo" if data is None else "default"), given)
    runs, reporter = Path(runs).expanduser(), reporter or ConsoleReporter()
    return _Search(resolved, runs, reporter, started, confirm, on, workers, worker_cpus).run_study()


def open_result(folder: StudyFolder) -> SearchResult:
    """Opens a study that exists."""
    study = open_study(folder)
    return SearchResult(study, folder, load_setup(study, folder))


@dataclass
class _Search:
    """One call of `search`."""

    spec: StudySpec
    runs: Path
    reporter: Reporter
    started: float
    recipes_to_confirm: int
    on: str | None
    workers: int | None
    worker_cpus: int | None
    stopping: bool = False
    written: int = -1
    """Trials that had ended when the results were last written."""
    look_at: float = 0.0
    """When the storage is looked into next."""
    checks: list[str] = field(default_factory=list)
    """What the checks of the files showed, to be kept with the study."""
    log: StudyLog = field(init=False)

    def __post_init__(self) -> None:
        self.print_line = self.reporter.print_line

    def run_study(self) -> SearchResult:
        refuse_hopeless((), self.runs)
        check_weights_dir(self.spec.weights_dir)
        check_trackers(self.spec.log)
        if self.spec.validation == "hard" and (column := self.spec.data.validation_by):
            raise SpecError(f"--validation hard and --validation-by {column} both choose what to validate on; give one")
        make_pruner(self.spec)  # a mistake should not wait for the images to be decoded
        if self.spec.storage:
            open_storage(self.spec.storage)  # nor should one in this
        deadline = self.started + self.spec.budget.timeout if self.spec.budget.timeout else None
        with closing(self._open_place()) as place:
            result = self._train_trials(place, deadline)
        _write_results(result, running="unfinished")
        if stopped := read_study_record(result.study).stopped:
            raise StudyError(stopped)
        if self.recipes_to_confirm and result.best is not None and not self.stopping:
            self._confirm_best(result, place, deadline)
        return replace(result, interrupted=self.stopping)

    def _open_place(self) -> Workplace:
        """Opens where the workers are."""
        if self.on is None:
            devices = find_devices(self.spec.device)
            refuse_hopeless(devices, self.runs)
            return Machine(devices, self.print_line)
        if self.spec.device != "auto":
            raise SpecError(
                f"--device {self.spec.device} is one of this machine; with --on {self.on} give --worker-cpus N for "
                "workers on CPU cores, or nothing for workers with a GPU each"
            )
        return connect_to_ray(self.on, self.workers, self.worker_cpus, self.spec.budget.trials, self.print_line)

    def _train_trials(self, place: Workplace, deadline: float | None) -> SearchResult:
        """Opens or creates the study, and has its trials trained."""
        dataset = self._open_samples()
        self._print_dataset(dataset)
        folder = StudyFolder(self.runs / (self.spec.name or study_name(dataset.name)))
        place.check_storage(self.spec.storage or (read_storage_url(folder) if folder.has_study else folder.storage_url))
        supervisor = Supervisor(folder, place.devices, deadline, place.start_worker, place.labels)
        try:
            if place.starts_early:
                supervisor.start_workers()
            result = self._open_or_create(dataset, folder, place, supervisor)
        except BaseException:
            supervisor.kill_workers()
            folder.remove_unused()
            raise
        self._print_pool(result.setup, place.devices)
        patience = patience_of(result.study)
        patience.print_line, patience.should_stop = self.print_line, lambda: self.stopping
        self.log = StudyLog(self.spec.log, result.study, folder, result.setup, self.print_line)
        show = partial(self._show_progress, result, deadline)

        def tick() -> None:
            place.look()
            show()

        with catch_interrupts(partial(self._stop, supervisor)):
            try:
                supervisor.watch_workers(result.study, read_storage_url(folder), tick)
            except AutomlError:
                self.log.close()
                raise
            show(last=True)
            self.log.close()  # not at a second Ctrl-C, which waits for nothing
        return result

    def _confirm_best(self, result: SearchResult, place: Workplace, deadline: float | None) -> None:
        """Trains the best recipes again, on this machine."""
        name, runs, device = result.folder.name, result.folder.path.parent, self.spec.device
        if is_gpu(place.devices[0]) and not is_gpu(find_devices(device)[0]):
            line = result.folder.command_line("confirm")
            self.print_line(f"note: not confirmed, because there is no GPU here; where there is one: {line}")
            return
        left = None if deadline is None else max(1e-3, deadline - time.time())
        top = self.recipes_to_confirm
        try:
            confirm(name, top=top, timeout=left, device=device, runs=runs, reporter=self.reporter)
        except AutomlError as exc:  # it takes nothing from the search
            self.print_line(f"warning: not confirmed: {exc}")

    def _open_or_create(
        self, dataset: Dataset, folder: StudyFolder, place: Workplace, supervisor: Supervisor
    ) -> SearchResult:
        """Opens the study again after checking that it is the same, or creates it."""
        spec = self.spec.model_copy(update={"name": folder.name})
        space = self._open_space(dataset)
        if spec.warm_start == folder.name:
            raise StudyError(f"--warm-start {folder.name}: a study cannot begin with itself; name another one")
        if spec.warm_start and not folder.has_study:  # a mistake here leaves no study behind
            list_earlier(StudyFolder(self.runs / spec.warm_start), space)
        try:
            study = open_study(folder, self.spec.storage, Patience(print_line=self.print_line))
        except StorageLost:
            raise
        except StudyError:
            study = None
        if study is not None and has_study_record(study):
            setup = load_setup(study, folder)
            if spec.validation == "hard":  # its split is the study's own
                dataset = take_splits(dataset, setup.dataset)
            study = create_study(folder, spec, replace(setup, space=space, dataset=dataset))
            ended = sum(trial.state.is_finished() for trial in study.get_trials(deepcopy=False))
            self.print_line(f"continuing study {folder.name}: {format_share(ended, spec.budget.trials, 'trial')} done")
        else:
            # One that cannot be given waits for no decoding.
            memory, environment = place.call(_look_at_devices, spec.budget.gpu_mem, place.devices)
            sizes = picture_sizes(dataset)
            views = [show_all_frames(space, sizes, view) for view in list_views(space)]
            cache = self._decode_views(dataset, space.image_sizes()[-1], views)
            self._warn_of_copies(dataset, cache)
            self._warn_of_shortcuts(dataset)
            for line in memory.notes:
                self.print_line(line)
            supervisor.wait_for_imports(_IMPORT_SECONDS)
            setup = make_setup(spec, dataset, cache, space, place.devices, memory.bytes, place.call)
            if spec.validation == "hard":
                setup = replace(setup, dataset=place.call(hold_out_clusters, setup, spec, place.devices[0]))
            if spec.folds > 1:
                samples = int((dataset.samples["split"] != "holdout").sum())
                self.print_line(
                    f"each trial is trained {spec.folds} times, without another part of about "
                    f"{samples // spec.folds} of the {samples} samples of train and validation, which it is scored on"
                )
            if spec.resplit:
                self.print_line("each trial is validated on another split of the same size")
            if setup.robust and spec.folds == 1 and not spec.resplit:  # else each trial's own samples, as it comes
                self._degrade_samples(setup, views)
            setup, screening = self._screen_pool(spec, setup, place)
            study = create_study(folder, spec, setup)
            if screening is not None:
                write_study_record(study, screening=json.dumps(screening))
            write_study_record(study, checks=self.checks, environment=environment)
        if not study.get_trials(deepcopy=False):
            sizes = picture_sizes(setup.dataset)
            crops = describe_crops(setup.space, sizes, setup.dataset.media)
            if crops:
                self.print_line(crops)
            if spec.warm_start:
                for line in enqueue_earlier(study, setup, StudyFolder(self.runs / spec.warm_start)):
                    self.print_line(line)
            if hint := suggest_space(spec, setup):
                self.print_line(hint)
            for reason in enqueue_known_good(study, setup, sizes):
                self.print_line(f"not tried first: the known-good recipe {reason}")
        return SearchResult(study, folder, setup)

    def _screen_pool(
        self, spec: StudySpec, setup: StudySetup, place: Workplace
    ) -> tuple[StudySetup, list[dict[str, Any]] | None]:
        """Puts the pool into the order that its backbones' frozen features suggest, where that is wanted."""
        seconds = plan_screening(spec, setup.pool)
        if not seconds:
            return setup, None
        count = len(setup.pool.entries)
        self.print_line(
            f"screening {format_count(count, 'backbone')} on training images, in at most {format_seconds(seconds)}"
        )
        started = time.monotonic()
        pool, rows = place.call(screen_pool, setup, place.devices[0], seconds)
        metric = default_metric(len(setup.dataset.classes))
        for line in describe_rows(rows, metric, time.monotonic() - started, seconds):
            self.print_line(line)
        return replace(setup, pool=pool), store_rows(rows)

    def _degrade_samples(self, setup: StudySetup, views: list[View]) -> None:
        """Makes the degraded copies that every trial is scored on before the first one, which would seem to be slow."""
        opened = StudyViews(setup, "cpu")
        for view in views:
            samples = plan_samples(setup, view)
            with self.reporter.show_progress(f"degraded copies of {samples} validation samples") as progress:
                try:
                    degrade_validation(opened.open_view(view), samples, view, progress)
                except DataError as exc:
                    self.print_line(f"warning: {describe_view(view)}: {exc}")

    def _open_samples(self) -> Dataset:
        """Opens the data set, without copies where that is wanted."""
        if not self.spec.data.drop_copies:
            return open_samples(self.spec.data, self.spec.seed)
        with self.reporter.show_progress("looking for copies of training samples") as progress:
            return open_samples(self.spec.data, self.spec.seed, progress)

    def _open_space(self, dataset: Dataset) -> Space:
        """Opens the search space, and warns of what is drawn in vain."""
        space = open_space(self.spec, dataset.media)
        for note in space.notes:
            self.print_line(f"warning: {note}")
        return space

    def _decode_views(self, dataset: Dataset, size: int, views: list[View]) -> Cache:
        """Decodes each view as the first trials need it, so that mistakes are shown before anything is trained."""
        caches: list[Cache] = []
        for view in views:
            try:
                with self.reporter.show_progress(f"decoding {describe_view(view)}") as progress:
                    caches.append(build_cache(dataset, size, progress, view))
            except DataError as exc:
                if len(views) == 1 or (view is views[-1] and not caches):
                    raise
                self.print_line(f"warning: view {view.name} cannot be used: {exc}")
                continue
            count = len(caches[-1].unreadable)
            label, more = "unreadable, skipped", f"{count} unreadable files in all"
            if view.media != "image":
                label = f"view {view.name}"
                more = f"{label}: {count} clips give no image; their scores are the shares of the classes"
            self._print_warnings([f"{label}: {name} ({reason})" for name, reason in caches[-1].unreadable], more)
        return caches[0]

    def _warn_of_copies(self, dataset: Dataset, cache: Cache) -> None:
        """Warns of files that are nearly the same in two splits: the validation would measure memory.

        The cache holds the images that are decoded already.
        """
        if self.spec.data.drop_copies:
            self.checks.append("copies: near copies of training samples were left out (--drop-copies)")
            return
        media = "images" if dataset.media == "image" else "clips"
        with self.reporter.show_progress(f"comparing the {media} of the splits") as progress:
            compared = compare_splits(dataset, progress, cache)
        for note in compared.notes:
            self.print_line(f"note: {note}")
        if not compared.groups:
            self.checks.append(f"copies: no {media} are nearly the same in two splits")
        if dataset.media == "image":
            if compared.groups:
                count, names = len(compared.groups), compared.name_groups(dataset)[0].sentence
                self._print_checks(
                    [
                        f"{count} leak{'s' * (count > 1)}, images that are nearly the same in two splits, such as "
                        f"{names}; automl data lists them, --drop-copies takes them out"
                    ]
                )
            return
        copies = compared.name_groups(dataset)
        more = f"{len(copies)} such leaks in all; automl data lists them"
        self._print_checks([f"leak: {copy.sentence}" for copy in copies], more)

    def _warn_of_shortcuts(self, dataset: Dataset) -> None:
        """Warns of properties of the files that predict the label: the network may learn them and nothing else."""
        with self.reporter.show_progress("auditing the files") as progress:
            audit = audit_dataset(dataset, _AUDITED, _AUDIT_SECONDS, progress)
        findings = audit.findings
        more = f"{len(findings)} such shortcuts in all; automl data lists them"
        self._print_checks([f"shortcut: {row.sentence}" for row in findings], more)
        if not findings:
            self.checks.append(
                f"shortcuts: no property of the files clearly predicts the label (audited {audit.coverage})"
            )
        else:
            command = f"automl data {shlex.quote(str(dataset.root))} --normalise DIR"
            self.print_line(f"note: audited {audit.coverage}; {command} writes a copy whose files are alike")

    def _print_checks(self, warnings: list[str], more: str = "") -> None:
        """Prints warnings as `_print_warnings` does, and keeps what it printed for the study."""
        self.checks += [*warnings[:_SHOWN], *([more] if len(warnings) > _SHOWN else [])]
        self._print_warnings(warnings, more)

    def _print_warnings(self, warnings: list[str], more: str) -> None:
        """Prints the first warnings and, where there are others, one line about all of them."""
        for line in [*warnings[:_SHOWN], *([more] if len(warnings) > _SHOWN else [])]:
            self.print_line(f"warning: {line}")

    def _stop(self, supervisor: Supervisor) -> None:
        """Stops the workers after their epochs."""
        self.stopping = True
        supervisor.stop()
        self.reporter.show_stop(STOPPING)

    def _show_progress(self, result: SearchResult, deadline: float | None, last: bool = False) -> None:
        """Shows where the study is, and keeps `best.yaml` and `trials.csv` current."""
        try:
            self.reporter.show_study(result, deadline, self.stopping, last)
            if time.monotonic() < self.look_at:  # reading every trial twice a second took a hundredth of a core
                return
            self.look_at = time.monotonic() + _LOOK_SECONDS
            self.log.update()
            ended = sum(trial.state.is_finished() for trial in result.study.get_trials(deepcopy=False))
            if ended != self.written:
                self.written = ended
                _write_results(result)
        except StorageLost:
            if not self.stopping:  # else the workers end without it
                raise

    def _print_dataset(self, dataset: Dataset) -> None:
        """Prints what was read: samples by split and class, then notes and warnings."""
        samples, parts = dataset.samples, []
        for split in SPLITS:
            counts = samples.loc[samples["split"] == split, "label"].value_counts().sort_index()
            if len(counts):
                numbers = zip(counts.index, counts, strict=True)
                classes = ", ".join(f"{number} {dataset.classes[label]}" for label, number in numbers)
                parts.append(f"{split} {counts.sum()} ({classes})")
        self.print_line(f"data: {dataset.name}, {dataset.format} format; {'; '.join(parts)}")
        for line in dataset.remarks:
            self.print_line(f"read: {line}")
        for problem in dataset.problems:
            self.print_line(f"warning: {problem}")

    def _print_pool(self, setup: StudySetup, devices: tuple[str, ...]) -> None:
        """Prints each backbone of the pool with its needs, and what a CPU means for the search."""
        for note in setup.pool.notes:
            self.print_line(f"note: {note}")
        train = int((setup.dataset.samples["split"] == "train").sum())
        for rank, entry in enumerate(setup.pool.entries):
            timing = entry.timing
            epoch = f"{'' if timing.measured else 'about '}{format_seconds(timing.train_seconds * train)}"
            limits, score = entry.describe_limits(), entry.describe_score()
            self.print_line(
                f"pool {rank}: {entry.backbone} · {score} · {format_figure(entry.params_m)}M parameters · "
                f"{entry.memory.describe(setup.memory_bytes)} · {epoch} an epoch at {timing.image_size} px · "
                f"{timing.precision} {timing.memory_format}{f' · {limits}' if limits else ''}"
            )
        if not is_gpu(devices[0]):
            limit = f"; one trial may take {format_seconds(setup.trial_seconds)}" if setup.trial_seconds else ""
            memory = f"{format_bytes(setup.memory_bytes)} of GPU memory" if setup.memory_bytes else ""
            budget = f" {memory} still decide, by prediction, which recipes fit;" if memory else ""
            self.print_line(
                f"training on the CPU: no GPU here;{budget} recipes too long for the time budget are shortened{limit}"
            )


def _look_at_devices(
    gpu_mem: int | Share | Literal["auto"] | None, devices: tuple[str, ...], _: Callable[[str], None]
) -> tuple[MemoryBudget, dict[str, str]]:
    """Decides the memory budget, and describes the machine, where the devices are."""
    return decide_budget(gpu_mem, devices), describe_environment(devices)


def _write_results(result: SearchResult, running: str = "running") -> None:
    """Writes `best.yaml` and `trials.csv`; `running` is what a trial is called that has not ended."""
    trial = best_trial(result.study)
    if trial is not None:
        header = f"Study {result.folder.name}, trial {trial.number}: validation {result.metric} {trial.value:.6f}"
        recipe_of(trial).save(result.folder.best, header)
    with write_atomically(result.folder.trials) as temporary:
        trials_table(result.study, result.setup.space, running).to_csv(temporary, index=False)
