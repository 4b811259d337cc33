"""The search, from data to the best recipe: what `automl search` and `automl.search()` both call."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna

from automl.data.cache import Cache, build_cache
from automl.data.dataset import SPLITS, Dataset, open_dataset
from automl.data.near_duplicates import near_copies
from automl.data.picture_shapes import picture_sizes
from automl.devices import find_devices
from automl.doctor.environment import refuse_hopeless
from automl.errors import AutomlError, DataError, SpecError, StudyError
from automl.files import write_atomically
from automl.gpu.budget import budget_bytes
from automl.recipe import Recipe
from automl.reporter import ConsoleReporter, Reporter, interrupts
from automl.space.space import load_space
from automl.spec import StudySpec, merge
from automl.study.confirmation import Confirmation, load_confirmation
from automl.study.crops import describe_crops, first_crops, first_view
from automl.study.folder import StudyFolder, study_name
from automl.study.rows import trials_table
from automl.study.setup import Facts, digest, find_facts, load_facts, store_facts
from automl.study.storage import Patience, StorageLost, open_storage, patience_of
from automl.study.study import best_trial, freeze, make_pruner, open_study, recipe_of, stored_spec, stored_storage
from automl.study.supervisor import Supervisor
from automl.study.views import check_views, describe_view, space_name, with_face_model
from automl.training.metrics import direction
from automl.units import format_bytes, format_seconds
from automl.views.parameters import View

if TYPE_CHECKING:
    import pandas as pd

_NAMED = 5  # files that gave no image, and are named


@dataclass(frozen=True)
class SearchResult:
    """What a search found.

    Attributes:
        study: The Optuna study.
        folder: What it wrote.
        facts: Data, space and pool.
    """

    study: optuna.Study
    folder: StudyFolder
    facts: Facts = field(repr=False)

    @property
    def metric(self) -> str:
        """The name of the metric."""
        return self.facts.metric

    @property
    def trials_wanted(self) -> int:
        """How many trials the study shall have."""
        return stored_spec(self.study).budget.trials

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
        return trials_table(self.study, self.facts.space)


def search(
    data: str | Path | dict[str, Any] | None = None,
    *,
    gpu_mem: str | int | None = None,
    trials: int | None = None,
    timeout: str | float | None = None,
    spec: StudySpec | str | None = None,
    runs: str | Path = "runs",
    confirm: int = 3,
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
        reporter: Is told what is done; None: lines are printed.
        **overrides: Any other key of the study spec (`seed=1`, `weights_dir="weights"`, `pool={"size": 4}`).

    Returns:
        The study with its best recipe.

    Raises:
        AutomlError: If data, space, budgets or storage do not work out; the message says what to change.
    """
    began = time.time()
    if confirm < 0:
        raise SpecError(f"confirm is how many recipes are trained again, 0 or more; got {confirm}")
    budget = {"gpu_mem": gpu_mem, "trials": trials, "timeout": timeout}
    given: dict[str, Any] = {"budget": {key: value for key, value in budget.items() if value is not None}}
    if data is not None:
        given["data"] = data if isinstance(data, dict) else {"path": data}
    given = merge(given, overrides)
    if isinstance(spec, StudySpec):
        resolved = StudySpec.from_mapping(merge(spec.model_dump(), given))
    else:
        resolved = StudySpec.load(spec or ("demo" if data is None else "default"), given)
    return _Search(resolved, Path(runs).expanduser(), reporter or ConsoleReporter(), began, confirm).run()


def open_result(folder: StudyFolder) -> SearchResult:
    """Opens a study that exists.

    Raises:
        StudyError: If there is none.
    """
    study = open_study(folder)
    stored_spec(study)
    return SearchResult(study, folder, load_facts(study, folder))


@dataclass
class _Search:
    """One call of `search`."""

    spec: StudySpec
    runs: Path
    reporter: Reporter
    began: float
    recipes_to_confirm: int
    stopping: bool = False

    def run(self) -> SearchResult:
        print_line = self.reporter.print_line
        devices = find_devices(self.spec.device)
        refuse_hopeless(devices, self.runs)
        make_pruner(self.spec)  # one that is no more should not wait for the images to be decoded either
        if self.spec.storage:
            open_storage(self.spec.storage)  # a mistake in it should not wait for the images to be decoded
        dataset = open_dataset(self.spec.data, self.spec.seed)
        _describe(dataset, print_line)
        folder = StudyFolder(self.runs / (self.spec.name or study_name(dataset.name)))
        facts, study = self._ground(dataset, folder, devices)
        result = SearchResult(study, folder, facts)
        _describe_pool(facts, devices, print_line)
        deadline = self.began + self.spec.budget.timeout if self.spec.budget.timeout else None
        supervisor = Supervisor(folder, stored_storage(folder), devices, deadline)
        patience = patience_of(study)
        patience.print_line, patience.should_stop = print_line, lambda: self.stopping
        with interrupts(self._stop(supervisor)):
            supervisor.watch(self._ticker(result, deadline))
        _write(result)
        stopped = study.user_attrs.get("stopped")
        if stopped:
            raise StudyError(stopped)
        if self.recipes_to_confirm and result.best is not None and not self.stopping:
            self._confirm(result, deadline)
        return result

    def _confirm(self, result: SearchResult, deadline: float | None) -> None:
        """Trains the best recipes again in the time left; what goes wrong here takes nothing from the search."""
        from automl.study.confirm import confirm  # which needs this module

        top, device = self.recipes_to_confirm, self.spec.device
        try:
            confirm(result.folder, top=top, deadline=deadline, device=device, reporter=self.reporter)
        except AutomlError as exc:
            self.reporter.print_line(f"warning: not confirmed: {exc}")

    def _ground(self, dataset: Dataset, folder: StudyFolder, devices: tuple[str, ...]) -> tuple[Facts, optuna.Study]:
        """The facts and the study: found and made, or recalled and opened."""
        spec = self.spec.model_copy(update={"name": folder.name})
        space = load_space(space_name(spec.space, dataset.media))
        views = [with_face_model(view, spec.data.face_model) for view in check_views(space, dataset)]
        try:
            study = open_study(folder, self.spec.storage, Patience(print_line=self.reporter.print_line))
        except StorageLost:
            raise
        except StudyError:
            study = None
        if study is not None and "spec" in study.user_attrs:
            facts = load_facts(study, folder)
            study = freeze(folder, spec, _direction(facts), {"space": space.text, "samples": digest(dataset)})
            study.set_user_attr("stopped", None)
            done = sum(trial.state.is_finished() for trial in study.get_trials(deepcopy=False))
            self.reporter.print_line(f"continuing study {folder.name}: {done} of {spec.budget.trials} trials are done")
        else:
            memory = budget_bytes(spec.budget.gpu_mem, devices)  # one that cannot be given waits for no decoding
            sizes = picture_sizes(dataset)
            views = [first_view(space, sizes, view) for view in views]
            cache = self._decode(dataset, space.image_sizes()[-1], views)
            self._tell_copies(dataset)
            facts = find_facts(spec, dataset, cache, space, devices, memory, self.reporter.print_line)
            folder.create()
            study = freeze(folder, spec, _direction(facts), store_facts(facts, folder))
        if not study.get_trials(deepcopy=False):
            sizes = picture_sizes(facts.dataset)
            line = describe_crops(facts.space, sizes, facts.dataset.media)
            if line:
                self.reporter.print_line(line)
            _enqueue_known_good(study, facts, sizes)
        return facts, study

    def _decode(self, dataset: Dataset, size: int, views: list[View]) -> Cache:
        """Decodes each view as the first trials want it, so that what is wrong is told before anything is trained.

        Raises:
            DataError: If no view shows enough to train on.
        """
        caches: list[Cache] = []
        for view in views:
            try:
                with self.reporter.show_progress(f"decoding {describe_view(view)}") as progress:
                    caches.append(build_cache(dataset, size, progress, view))
            except DataError as exc:
                if len(views) == 1 or (view is views[-1] and not caches):
                    raise
                self.reporter.print_line(f"warning: view {view.name} is of no use: {exc}")
                continue
            self._tell_unreadable(caches[-1], "" if view.media == "image" else f"view {view.name}: ")
        return caches[0]

    def _tell_copies(self, dataset: Dataset) -> None:
        """Warns of clips that are nearly the same in two splits: the validation would measure memory."""
        if dataset.media == "image":
            return
        with self.reporter.show_progress("comparing the clips of the splits") as progress:
            found = near_copies(dataset, progress)
        for copy in found[:_NAMED]:
            self.reporter.print_line(f"warning: leak: {copy.sentence}")
        if len(found) > _NAMED:
            self.reporter.print_line(f"warning: {len(found)} such leaks in all; automl data lists them")

    def _tell_unreadable(self, cache: Cache, where: str) -> None:
        """Names the first files that gave no image."""
        for name, reason in cache.unreadable[:_NAMED]:
            self.reporter.print_line(f"warning: {where or 'unreadable, skipped: '}{name} ({reason})")
        if len(cache.unreadable) > _NAMED:
            what = (
                "clips show it nothing, and are scored by the classes' shares" if where else "unreadable files in all"
            )
            self.reporter.print_line(f"warning: {where}{len(cache.unreadable)} {what}")

    def _stop(self, supervisor: Supervisor) -> Callable[[], None]:
        """What Ctrl-C does: first a wish, then an order."""

        def stop() -> None:
            if self.stopping:
                raise KeyboardInterrupt
            self.stopping = True
            supervisor.stop()

        return stop

    def _ticker(self, result: SearchResult, deadline: float | None) -> Callable[[], None]:
        """Shows progress, and keeps `best.yaml` and `trials.csv` current."""
        written = -1

        def look() -> None:
            nonlocal written
            self.reporter.show_study(result, deadline, self.stopping)
            done = sum(trial.state.is_finished() for trial in result.study.get_trials(deepcopy=False))
            if done != written:
                written = done
                _write(result)

        def tick() -> None:
            try:
                look()
            except StorageLost:
                if not self.stopping:  # else the workers come to their end without it
                    raise

        return tick


def _enqueue_known_good(study: optuna.Study, facts: Facts, sizes: list[tuple[int, int]]) -> None:
    """Puts the space's known-good recipes first, each on the backbone it wishes for and seeing all of long pictures."""
    samples = facts.dataset.samples
    train = int((samples["split"] == "train").sum())
    for number, good in enumerate(facts.space.known_good):
        recipe = {"image_size": 224, "epochs": 5} | good
        images = train * float(recipe["epochs"])
        affordable = facts.pool.affordable(int(recipe["image_size"]), images, facts.trial_seconds)
        ranks = {"best": 0, "fastest": facts.pool.fastest(), "affordable": affordable}
        params = facts.space.enqueued(ranks, lambda chosen: facts.pool.chosen(chosen).restriction)[number]
        params = first_crops(facts.space, sizes, facts.dataset.media, params)
        study.enqueue_trial(params, user_attrs={"known_good": good["tier"]})


def _write(result: SearchResult) -> None:
    """Writes `best.yaml` and `trials.csv`."""
    trial = best_trial(result.study)
    if trial is not None:
        header = f"Study {result.folder.name}, trial {trial.number}: validation {result.metric} {trial.value:.6f}"
        recipe_of(trial).save(result.folder.best, header)
    with write_atomically(result.folder.trials) as temporary:
        result.trials.to_csv(temporary, index=False)


def _describe(dataset: Dataset, print_line: Callable[[str], None]) -> None:
    samples = dataset.samples
    parts = []
    for split in SPLITS:
        counts = samples.loc[samples["split"] == split, "label"].value_counts().sort_index()
        if len(counts):
            classes = ", ".join(f"{n} {dataset.classes[label]}" for label, n in zip(counts.index, counts, strict=True))
            parts.append(f"{split} {counts.sum()} ({classes})")
    print_line(f"data: {dataset.name}, {dataset.format} format; {'; '.join(parts)}")
    for line in dataset.told:
        print_line(f"read: {line}")
    for problem in dataset.problems:
        print_line(f"warning: {problem}")


def _describe_pool(facts: Facts, devices: tuple[str, ...], print_line: Callable[[str], None]) -> None:
    for note in facts.pool.notes:
        print_line(f"note: {note}")
    train = int((facts.dataset.samples["split"] == "train").sum())
    for rank, entry in enumerate(facts.pool.entries):
        timing = entry.timing
        epoch = format_seconds(timing.train_seconds * train)
        print_line(
            f"pool {rank}: {entry.backbone} · score {entry.score:+.2f} · {entry.params_m:.3g}M parameters · "
            f"{entry.describe_memory(facts.memory_bytes)} · {epoch} an epoch at {timing.image_size} px · "
            f"{timing.precision} {timing.memory_format}{f' · {limits}' if (limits := entry.describe_limits()) else ''}"
        )
    if devices[0] == "cpu":
        limit = f"; one trial may take {format_seconds(facts.trial_seconds)}" if facts.trial_seconds else ""
        budget = ""
        if facts.memory_bytes:
            budget = (
                f" {format_bytes(facts.memory_bytes)} of GPU memory still decide, by prediction, which recipes fit;"
            )
        print_line(
            f"training on the CPU: no GPU here;{budget} recipes too long for the time budget are shortened{limit}"
        )


def _direction(facts: Facts) -> Any:
    return direction(facts.metric)
