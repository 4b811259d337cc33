"""Prepares the study that a search works on: opens it again, or decodes, warns, and chooses the pool of a new one."""

import json
import shlex
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import optuna

from automl.audit.audit import audit_dataset
from automl.data.cache import Cache, build_cache
from automl.data.dataset import Dataset
from automl.data.drop_copies import drop_copies
from automl.data.near_duplicates import compare_splits
from automl.data.picture_shapes import picture_sizes
from automl.errors import DataError
from automl.reporter import Reporter
from automl.study.folder import StudyFolder
from automl.study.joining import join_study, measure_memory
from automl.study.known_good import (
    describe_crops,
    enqueue_earlier,
    enqueue_known_good,
    show_all_frames,
    suggest_space,
)
from automl.study.readiness import PoolPlan, Start
from automl.study.robustness import degrade_validation, plan_samples
from automl.study.screening import describe_rows, plan_screening, screen_pool, store_rows
from automl.study.setup import StudySetup, StudyViews, create_study, make_setup
from automl.study.spaces import describe_view, list_views
from automl.study.trial_record import count_finished, read_study_record, write_study_record
from automl.study.validation import hold_out_clusters, take_splits
from automl.study.worker_process import Workplace
from automl.training.metrics import default_metric
from automl.units import format_count, format_seconds, format_share
from automl.views.registry import View

_SHOWN = 5
"""Unreadable files, leaks and shortcuts that are named."""

_AUDITED, _AUDIT_SECONDS = 2000, 3.0
"""Files at most whose properties are looked at, and how long; those that `automl data` has read cost nothing."""


@dataclass
class Preparation:
    """Prepares one study."""

    start: Start
    reporter: Reporter
    checks: list[str] = field(default_factory=list)
    """What the checks of the files showed, to be kept with the study."""

    def __post_init__(self) -> None:
        self.print_line = self.reporter.print_line

    def prepare_study(
        self, workplace: Workplace, plan: PoolPlan | None, wait_for_imports: Callable[[], None]
    ) -> tuple[optuna.Study, StudySetup]:
        """Opens the study again, or creates it; one without trials gets those that are tried first.

        Args:
            workplace: Where the workers are.
            plan: What the pool of a new study is chosen from; None: the study is there.
            wait_for_imports: Called before anything is timed, which other processes would disturb.

        Raises:
            AutomlError: If the data cannot be decoded or used, no backbone fits, or the study began with other data.
        """
        dataset = self._drop_copies()
        study, setup = (
            self._continue_study(dataset, workplace)
            if plan is None
            else self._create_study(dataset, workplace, plan, wait_for_imports)
        )
        if not study.get_trials(deepcopy=False):
            self._enqueue_trials(study, setup)
        return study, setup

    def _continue_study(self, dataset: Dataset, workplace: Workplace) -> tuple[optuna.Study, StudySetup]:
        """Opens the study again, with the budgets of now."""
        spec, folder, study = self.start.spec, self.start.folder, self.start.study
        assert study is not None  # noqa: S101 - the caller looked
        setup = join_study(
            study,
            folder,
            dataset,
            measure=partial(workplace.call, measure_memory, spec.budget.gpu_mem, workplace.devices),
            weights_dir=spec.weights_dir,
            face_model=spec.data.face_model,
            artifacts=spec.artifacts,
            print_line=self.print_line,
        )
        # Of a study that an earlier version began, its samples are compared there.
        dataset = setup.dataset if read_study_record(study).files else dataset
        if spec.validation == "hard":  # its split is the study's own
            dataset = take_splits(dataset, setup.dataset)
        study = create_study(folder, spec, replace(setup, space=self.start.space, dataset=dataset))
        ended = count_finished(study)
        wanted = spec.budget.trials
        left = "" if ended < wanted else f"; none is left to train: give more than --trials {wanted} to go on"
        self.print_line(f"continuing study {folder.name}: {format_share(ended, wanted, 'trial')} done{left}")
        return study, setup

    def _create_study(
        self, dataset: Dataset, workplace: Workplace, plan: PoolPlan, wait_for_imports: Callable[[], None]
    ) -> tuple[optuna.Study, StudySetup]:
        """Decodes and checks the files, chooses the pool, and creates the study."""
        spec, space = self.start.spec, self.start.space
        sizes = picture_sizes(dataset)
        views = [show_all_frames(space, sizes, view) for view in list_views(space)]
        cache = self._decode_views(dataset, space.image_sizes()[-1], views)
        self._warn_of_copies(dataset, cache)
        self._warn_of_shortcuts(dataset)
        for line in plan.memory.notes:
            self.print_line(line)
        wait_for_imports()
        devices = workplace.devices
        setup = make_setup(spec, dataset, cache, space, devices, plan.memory.bytes, plan.candidates, workplace.call)
        if spec.validation == "hard":
            setup = replace(setup, dataset=workplace.call(hold_out_clusters, setup, spec, devices[0]))
        self._describe_validation(dataset)
        if setup.robust and spec.folds == 1 and not spec.resplit:  # else each trial's own samples, as it comes
            self._degrade_samples(setup, views)
        setup, screening = self._screen_pool(setup, workplace)
        study = create_study(self.start.folder, spec, setup)
        if screening is not None:
            write_study_record(study, screening=json.dumps(screening))
        write_study_record(study, checks=self.checks, environment=plan.environment)
        return study, setup

    def _describe_validation(self, dataset: Dataset) -> None:
        """Prints what trials are validated on, where that is not one split for all."""
        folds = self.start.spec.folds
        if folds > 1:
            samples = int((dataset.samples["split"] != "holdout").sum())
            self.print_line(
                f"each trial is trained {folds} times, without another part of about {samples // folds} of the "
                f"{samples} samples of train and validation, which it is scored on"
            )
        if self.start.spec.resplit:
            self.print_line("each trial is validated on another split of the same size")

    def _enqueue_trials(self, study: optuna.Study, setup: StudySetup) -> None:
        """Enqueues what is tried first in a study without trials, and prints what is to know about it."""
        spec = self.start.spec
        sizes = picture_sizes(setup.dataset)
        crops = describe_crops(setup.space, sizes, setup.dataset.media)
        if crops:
            self.print_line(crops)
        if spec.warm_start:
            runs = self.start.folder.path.parent
            for line in enqueue_earlier(study, setup, StudyFolder(runs / spec.warm_start)):
                self.print_line(line)
        if hint := suggest_space(spec, setup):
            self.print_line(hint)
        for reason in enqueue_known_good(study, setup, sizes):
            self.print_line(f"not tried first: the known-good recipe {reason}")

    def _drop_copies(self) -> Dataset:
        """Takes copies out of the samples, where that is wanted."""
        dataset = self.start.dataset
        if not self.start.spec.data.drop_copies:
            return dataset
        with self.reporter.show_progress("looking for copies of training samples") as progress:
            dataset = drop_copies(dataset, progress)
        self.print_line(f"read: {dataset.remarks[-1]}")
        return dataset

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
        if self.start.spec.data.drop_copies:
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

    def _screen_pool(self, setup: StudySetup, workplace: Workplace) -> tuple[StudySetup, list[dict[str, Any]] | None]:
        """Puts the pool into the order that its backbones' frozen features suggest, where that is wanted."""
        seconds = plan_screening(self.start.spec, setup.pool)
        if not seconds:
            return setup, None
        count = len(setup.pool.entries)
        self.print_line(
            f"screening {format_count(count, 'backbone')} on training images, in at most {format_seconds(seconds)}"
        )
        started = time.monotonic()
        pool, rows = workplace.call(screen_pool, setup, workplace.devices[0], seconds)
        metric = default_metric(len(setup.dataset.classes))
        for line in describe_rows(rows, metric, time.monotonic() - started, seconds):
            self.print_line(line)
        return replace(setup, pool=pool), store_rows(rows)

    def _print_checks(self, warnings: list[str], more: str = "") -> None:
        """Prints warnings as `_print_warnings` does, and keeps what it printed for the study."""
        self.checks += [*warnings[:_SHOWN], *([more] if len(warnings) > _SHOWN else [])]
        self._print_warnings(warnings, more)

    def _print_warnings(self, warnings: list[str], more: str) -> None:
        """Prints the first warnings and, where there are others, one line about all of them."""
        for line in [*warnings[:_SHOWN], *([more] if len(warnings) > _SHOWN else [])]:
            self.print_line(f"warning: {line}")
