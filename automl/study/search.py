"""The search, from data to the best recipe: what `automl search` and `automl.search()` both call.

What imports torch is imported after `read_start` has looked for mistakes, which shall be answered at once.
"""

import time
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna

from automl.data.dataset import SPLITS, Dataset
from automl.devices import find_devices, is_gpu
from automl.doctor.checks import find_usable_devices
from automl.errors import AutomlError, SpecError, StudyError, is_disk_full
from automl.files import write_atomically
from automl.recipe import Recipe
from automl.reporter import ConsoleReporter, OncePrinter, Reporter, catch_interrupts
from automl.spec import StudySpec, merge
from automl.study.artifacts import Artifacts, fetch_predictions, open_artifacts
from automl.study.claims import Claims, open_claims
from automl.study.folder import StudyFolder
from automl.study.ray_cluster import check_request, connect_to_ray
from automl.study.readiness import Start, plan_pool, read_start
from automl.study.storage import StorageLost, open_study, patience_of, read_storage_url
from automl.study.supervisor import Supervisor
from automl.study.tracking import StudyLog
from automl.study.trial_record import (
    best_first,
    best_trial,
    count_finished,
    read_spec,
    read_study_record,
    recipe_of,
    trials_table,
    write_study_record,
)
from automl.study.worker_process import Machine, Workplace
from automl.units import format_bytes, format_figure, format_seconds

if TYPE_CHECKING:
    import pandas as pd

    from automl.study.confirm import Confirmation
    from automl.study.setup import StudySetup

_IMPORT_SECONDS = 20.0
"""How long workers are waited for at most before backbones are timed."""

STOPPING = "stopping after this epoch; Ctrl-C again stops now; the same command continues"

_LOOK_SECONDS = 3.0
"""Between two looks for trials that have ended."""

_WRITES_APART = 50
"""Results are written so that it takes a fiftieth of the time at most."""


@dataclass(frozen=True)
class SearchResult:
    """A study with its trials."""

    study: optuna.Study
    folder: StudyFolder
    setup: "StudySetup" = field(repr=False)
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
    def confirmation(self) -> "Confirmation | None":
        """The best recipes trained again, and the chosen one's score on the holdout; None until then."""
        from automl.study.confirm import load_confirmation

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
    if on is not None:
        check_request(on, workers, worker_cpus)
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
    from automl.study.setup import load_setup

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
    write_at: float = 0.0
    """When results are written next, at the earliest."""
    warned_of_disk: bool = False
    log: StudyLog = field(init=False)
    artifacts: Artifacts = field(init=False)

    def __post_init__(self) -> None:
        self.print_line = self.reporter.print_line

    def run_study(self) -> SearchResult:
        start = read_start(self.spec, self.runs, self.print_line)
        self._print_dataset(start.dataset)
        deadline = self.started + self.spec.budget.timeout if self.spec.budget.timeout else None
        with closing(self._open_workplace()) as workplace:
            result = self._train_trials(start, workplace, deadline)
        _write_results(result, running="unfinished")
        self._copy_results(result, last=True)
        if stopped := read_study_record(result.study).stopped:
            raise StudyError(stopped)
        if self.recipes_to_confirm and result.best is not None and not self.stopping:
            self._confirm_best(result, workplace, deadline)
        return replace(result, interrupted=self.stopping)

    def _open_workplace(self) -> Workplace:
        """Opens where the workers are."""
        if self.on is None:
            return Machine(find_usable_devices(self.spec.device, self.print_line), self.print_line)
        if self.spec.device != "auto":
            raise SpecError(
                f"--device {self.spec.device} is one of this machine; with --on {self.on} give --worker-cpus N for "
                "workers on CPU cores, or nothing for workers with a GPU each"
            )
        return connect_to_ray(self.on, self.workers, self.worker_cpus, self.spec.budget.trials, self.print_line)

    def _train_trials(self, start: Start, workplace: Workplace, deadline: float | None) -> SearchResult:
        """Opens or creates the study, and has its trials trained."""
        folder = start.folder
        workplace.check_storage(
            self.spec.storage or (read_storage_url(folder) if folder.has_study else folder.storage_url)
        )
        plan = None if start.study else workplace.call(plan_pool, start.spec, start.space, workplace.devices)
        supervisor = Supervisor(folder, workplace.devices, deadline, workplace.start_worker, workplace.labels)
        is_done = start.study is not None and count_finished(start.study) >= self.spec.budget.trials
        try:
            if workplace.starts_early and not is_done:
                supervisor.start_workers()
            from automl.study.preparation import Preparation  # beside the workers' own imports

            wait = partial(supervisor.wait_for_imports, _IMPORT_SECONDS)
            study, setup = Preparation(start, self.reporter).prepare_study(workplace, plan, wait)
            result = SearchResult(study, folder, setup)
        except BaseException:
            supervisor.kill_workers()
            folder.remove_unused()
            raise
        self._print_pool(result.setup, workplace.devices)
        patience = patience_of(result.study)
        patience.should_stop = lambda: self.stopping
        patience.print_line = supervisor.print_line = OncePrinter(self.print_line).print_line
        self.log = StudyLog(self.spec.log, result.study, folder, result.setup, self.print_line)
        self.artifacts = open_artifacts(result.study, folder, self.print_line)
        self.artifacts.upload_missing()
        show = partial(self._show_progress, result, deadline)

        def tick() -> None:
            workplace.look()
            show()

        write_study_record(study, deadline=deadline)  # other machines keep to it as well
        with catch_interrupts(partial(self._stop, supervisor)):
            try:
                if not is_done:
                    supervisor.watch_workers(result.study, read_storage_url(folder), tick)
            except AutomlError:
                self.log.close()
                raise
            show(last=True)
            self.log.close()  # not at a second Ctrl-C, which waits for nothing
        return result

    def _confirm_best(self, result: SearchResult, workplace: Workplace, deadline: float | None) -> None:
        """Trains the best recipes again, on this machine."""
        from automl.study.confirm import confirm

        name, runs, device = result.folder.name, result.folder.path.parent, self.spec.device
        if is_gpu(workplace.devices[0]) and not is_gpu(find_devices(device)[0]):
            line = result.folder.command_line("confirm")
            self.print_line(f"note: not confirmed, because there is no GPU here; where there is one: {line}")
            return
        left = None if deadline is None else max(1e-3, deadline - time.time())
        top = self.recipes_to_confirm
        try:
            confirm(name, top=top, timeout=left, device=device, runs=runs, reporter=self.reporter)
        except AutomlError as exc:  # it takes nothing from the search
            self.print_line(f"warning: not confirmed: {exc}")

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
            ended = count_finished(result.study)
            if ended != self.written and time.monotonic() >= self.write_at:
                self.written, started = ended, time.monotonic()
                _write_results(result)
                self._copy_results(result)
                # A table of thousands of trials takes a second, and many workers end one each second.
                self.write_at = time.monotonic() + _WRITES_APART * (time.monotonic() - started)
        except StorageLost:
            if not self.stopping:  # else the workers end without it
                raise
        except (OSError, AutomlError) as exc:
            if not is_disk_full(exc):
                raise
            if not self.warned_of_disk:
                self.print_line(f"warning: the disk is full: best.yaml and trials.csv are behind ({exc})")
            self.warned_of_disk, self.written = True, -1

    def _copy_results(self, result: SearchResult, last: bool = False) -> None:
        """Copies the best recipe to the artifacts, and from there the predictions that other machines made.

        At the end that is waited for.
        """
        if result.folder.best.exists():
            self.artifacts.upload(result.folder.best)
        complete = [trial.number for trial in best_first(result.study)]
        for number in complete:
            self.artifacts.fetch_soon(result.folder.predictions_file(number))
        if last and self.artifacts.flush(lambda: self.stopping):
            fetch_predictions(result.study, result.folder, complete)  # one may have come while they were looked for

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

    def _print_pool(self, setup: "StudySetup", devices: tuple[str, ...]) -> None:
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


def _write_results(result: SearchResult, running: str = "running") -> None:
    """Writes `best.yaml` and `trials.csv`; `running` is what a trial is called that has not ended."""
    trial = best_trial(result.study)
    if trial is not None:
        header = f"Study {result.folder.name}, trial {trial.number}: validation {result.metric} {trial.value:.6f}"
        recipe_of(trial).save(result.folder.best, header)
    with write_atomically(result.folder.trials) as temporary:
        trials_table(result.study, result.setup.space, running).to_csv(temporary, index=False)
