"""Joining the views of a study: the best recipe of each view, and a fusion of their scores, as one model.

Each view's best recipe is trained once more on the training split, with the first seed that `automl confirm` takes. The
weights of the fusion are learned from the predictions of the validation split (`automl.models.combine`); then all is
scored once on the holdout, which was used for nothing else. The scores lie in the study's folder (`ensemble.json`).

The model is a folder of model folders, one for each view and called like it, with the fusion of their scores. The
members are the models that were scored; or, trained once more on all the data, models of the same recipes, whose scores
are taken to mean the same.
"""

from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.trial import FrozenTrial

from automl.errors import SpecError
from automl.files import write_text
from automl.models.card import render_ensemble_card
from automl.models.combine import Fusion, fit_fusion
from automl.models.folder import write_ensemble
from automl.models.view_ensemble import Scored, ViewEnsemble, ViewMember
from automl.refit.output_folder import OutputFolder
from automl.refit.plan import TrainOptions, describe_score, plan_for_study
from automl.refit.train import describe_origin, train_plan, write_network
from automl.reporter import ConsoleReporter, Reporter
from automl.study.folder import StudyFolder, find_study
from automl.study.replicate import Replicate, ReplicateRunner, is_same_training, read_record
from automl.study.search import open_result
from automl.study.setup import StudySetup, StudyViews
from automl.units import format_seconds

Floats = NDArray[np.float64]


def ensemble(
    study: str | None = None,
    *,
    out: str | Path | None = None,
    final: bool = False,
    timeout: str | float | None = None,
    gpu_mem: str | int | None = None,
    device: str = "auto",
    weights_dir: str | Path | None = None,
    overwrite: bool = False,
    runs: str | Path = "runs",
    reporter: Reporter | None = None,
) -> ViewEnsemble | None:
    """Joins the best recipe of each view of a study into one model, and scores it on the holdout.

    What `automl.confirm` trained is not trained again. Killed or interrupted, the same call goes on where it was; while
    the best trials are the same ones, it scores the holdout once. Of several GPUs, the first is used.

        scores = automl.ensemble("ffdv", out="models/ffdv")
        scores.holdout.interval                                # of all views together
        automl.load("models/ffdv").predict("clips/")

    Args:
        study: Name of the study; None: the latest.
        out: The folder to write; None: `models/` and the study's name with `-ensemble`.
        final: Train each member once more, on train + validation, and on the holdout where it was scored.
        timeout: How long it may take, such as `1h`, without the trainings of `final`; None: as long as it needs. Views
            that are predicted not to fit are left out, the best ones last.
        gpu_mem: GPU memory that training may take: `16GB`, `90%` of what is free, or `auto`; None: the study's budget.
        device: `auto`, `cpu`, `cuda` or `cuda:1`.
        weights_dir: A folder of safetensors files to look for weights in, for `final`.
        overwrite: Delete a model or an unfinished training of automl in `out` first.
        runs: The folder that holds the studies.
        reporter: Receives what is done; None: lines are printed.

    Returns:
        The members and their scores, also when they were joined before; None when it was interrupted, or there was no
        time: then nothing is written, and the reporter received why.

    Raises:
        StudyError: If there is no such study, it has no complete trial, or another process trains its recipes again.
        SpecError: If there are more than two classes, or `timeout` or `gpu_mem` cannot be read.
        WeightsError: If something else is in `out`, or it cannot be written.
        AutomlError: If a recipe cannot be trained.
        KeyboardInterrupt: If it was asked to stop in the trainings of `final`; the same call continues.
    """
    reporter, folder = reporter or ConsoleReporter(), find_study(Path(runs), study)
    output = OutputFolder(Path(out) if out is not None else Path("models") / f"{folder.name}-ensemble")
    options = TrainOptions(gpu_mem=gpu_mem, device=device)
    setup = open_result(folder).setup
    output.check_free(overwrite=overwrite)
    joined = join_views(folder, timeout, gpu_mem, device, reporter)
    if joined is None:
        return None
    recipes = {member.view: member.recipe.model_dump(mode="json") for member in joined.members}
    record = {"members": recipes, "fusion": asdict(joined.fusion), "final": final}
    if not output.start_training(record, overwrite=overwrite):
        splits: tuple[str, ...] = ("train",)
        if final:
            splits = ("train", "validation", "holdout") if joined.holdout else ("train", "validation")
        for member in joined.members:
            path = output.folder / member.view
            if OutputFolder(path).finished:  # before a kill: by the record it is this one
                continue
            if final:
                plan = plan_for_study(folder, member.recipe, Path(weights_dir) if weights_dir is not None else None)
                source = "a model of this recipe that learned from the training split alone (automl ensemble)"
                plan = replace(plan, scores=_list_scores(joined, member, source), train_splits=splits)
                train_plan(plan, options, path, reporter)
            else:
                _write_member(folder, setup, joined, member, path)
        card = render_ensemble_card(joined, setup.dataset.name, splits)
        write_ensemble(output.folder, joined.fusion.weight_shares(), joined.fusion, card)
        output.end_training()
        reporter.print_line(f"written: {output.folder}")
    return joined.model_copy(update={"folder": output.folder})


def join_views(
    folder: StudyFolder,
    timeout: str | float | None = None,
    gpu_mem: str | int | None = None,
    device: str = "auto",
    reporter: Reporter | None = None,
) -> ViewEnsemble | None:
    """Joins the views of the study in a folder, without writing a model; all else as for `ensemble`."""
    with _ViewRunner.open_study(folder, timeout, gpu_mem, device, reporter) as runner:
        return runner.join_best()


def load_view_ensemble(folder: StudyFolder) -> ViewEnsemble | None:
    """Reads `ensemble.json`; None if the study's views were not joined."""
    return read_record(folder.ensemble, ViewEnsemble, "join the views again")


def store_view_ensemble(folder: StudyFolder, joined: ViewEnsemble) -> None:
    """Writes `ensemble.json`."""
    write_text(folder.ensemble, joined.model_dump_json(indent=2) + "\n")


class _ViewRunner(ReplicateRunner):
    """Trains a replicate of the best recipe of each view, and joins their scores."""

    def join_best(self) -> ViewEnsemble | None:
        """Trains, learns the weights, scores and stores; see `ensemble`."""
        classes = len(self.setup.dataset.classes)
        if classes != 2:
            raise SpecError(
                f"views are joined by the log-odds of two classes, and study {self.folder.name} has {classes}; "
                f"{self.folder.command_line('train')} --ensemble K joins models of any number"
            )
        trials = self.best_trials(lambda recipe: recipe.view.name)
        planned = self._plan_replicates(trials)
        if not planned:
            return None
        earlier = load_view_ensemble(self.folder)
        if earlier is not None and self._is_current(earlier, planned):
            return earlier
        times_scored = earlier.times_scored if earlier else 0
        self.warn_of_holdout(times_scored)
        done: dict[str, Replicate] = {one.recipe.view.name: one for one in self.train_all(planned, "ensemble")}
        if not done:
            return None
        return self._conclude(done, {trial.number: trial.value or 0.0 for trial in trials}, times_scored)

    def is_done(self, replicate: Replicate) -> bool:
        """Reports whether there are predictions and their weights: a confirmation drops those it does not choose."""
        return super().is_done(replicate) and replicate.weights.is_file()

    def _plan_replicates(self, trials: Iterable[FrozenTrial]) -> list[Replicate]:
        """Plans what there is time for, the best view first."""
        planned, left, total = list[Replicate](), self.seconds_left, 0.0
        for trial in trials:
            replicate = self.make_replicate(trial, 0)
            cost = self.needed_seconds(replicate)
            if cost > left - total:
                self.print_line(
                    f"view {replicate.recipe.view.name} is left out: training it again takes about "
                    f"{format_seconds(cost)}, and {format_seconds(left - total)} are left; "
                    f"{self.folder.command_line('ensemble')} has no limit"
                )
            else:
                planned.append(replicate)
                total += cost
        if planned:
            views = ", ".join(replicate.recipe.view.name for replicate in planned)
            about = f"about {format_seconds(total)} of training" if total else "all are trained"
            self.print_line(f"joining the views of study {self.folder.name} on {self.device}: {views}; {about}")
        return planned

    def _is_current(self, earlier: ViewEnsemble, planned: list[Replicate]) -> bool:
        """Reports whether an ensemble is what training these would give, and its weights are there."""
        return len(planned) == len(earlier.members) and all(
            replicate.trial == member.trial
            and is_same_training(replicate.recipe, member.recipe.model_dump(mode="json"))
            and self.is_done(replicate)
            for replicate, member in zip(planned, earlier.members, strict=True)
        )

    def _conclude(self, done: dict[str, Replicate], values: dict[int, float], times_scored: int) -> ViewEnsemble:
        """Learns the weights, scores and stores, given replicates by view and the trials' values by number."""
        labels, positive = self.data.labels("validation"), self.data.positive
        priors = {view: float((self._train_labels(one) == positive).mean()) for view, one in done.items()}
        fusion = fit_fusion(self._predict_views("validation", done), labels, priors, positive)
        validation, fused = self._score_views("validation", fusion, done)
        scored, note = self.score_holdout(lambda: self._score_views("holdout", fusion, done))
        holdout, fused_holdout = scored or ({}, None)
        members = tuple(
            ViewMember(
                view=view,
                trial=one.trial,
                search_value=values[one.trial],
                recipe=one.recipe,
                seen=int(self.views.open_view(one.recipe.view).cache.readable.sum()),
                train_samples=len(self._train_labels(one)),
                validation=validation[view],
                holdout=holdout.get(view),
            )
            for view, one in done.items()
        )
        joined = ViewEnsemble(
            **self.describe_scoring(times_scored, note),
            members=members,
            fusion=fusion,
            validation=fused,
            holdout=fused_holdout,
            samples=len(self.setup.dataset.samples),
        )
        store_view_ensemble(self.folder, joined)
        self.print_line(f"written: {self.folder.ensemble}")
        return joined

    def _score_views(self, split: str, fusion: Fusion, done: dict[str, Replicate]) -> tuple[dict[str, Scored], Scored]:
        """Measures each view on a split, and all joined; the classes' shares in training stand for what nobody sees."""
        scores = self._predict_views(split, done)
        counts = {view: np.bincount(self._train_labels(one), minlength=2) for view, one in done.items()}
        shares = {view: count / count.sum() for view, count in counts.items()}
        blind = sum(share * shares[view] for view, share in fusion.weight_shares().items())
        seen = ~np.all([np.isnan(values) for values in scores.values()], axis=0)  # (N, 2)
        alone = {view: np.where(np.isnan(values), shares[view], values) for view, values in scores.items()}
        joined = np.where(seen, fusion.join_scores(scores, self.data.positive), blind)
        views = {view: self.score_split(split, [values]) for view, values in alone.items()}
        return views, self.score_split(split, [joined])

    def _predict_views(self, split: str, done: dict[str, Replicate]) -> dict[str, Floats]:
        """Predicts each view's scores (N, 2) of a split; NaN where it sees nothing of a sample."""
        scores = {}
        for view, one in done.items():
            data = self.views.open_view(one.recipe.view)
            known = split == "validation"
            probabilities = self.read_validation(one) if known else one.predict_split(data, split, self.device)
            scores[view] = np.where(data.counts(split)[:, None] > 0, probabilities, np.nan)
        return scores

    def _train_labels(self, replicate: Replicate) -> NDArray[np.int64]:
        """Returns the labels (N,) of what a view was trained on."""
        return self.views.open_view(replicate.recipe.view).labels("train")


def _list_scores(joined: ViewEnsemble, member: ViewMember, source: str) -> dict[str, Any]:
    """Lists a member's scores by split, as they stand in metrics.json."""
    splits = {
        "validation": (member.validation, joined.validation_samples),
        "holdout": (member.holdout, joined.holdout_samples),
    }
    return {
        split: describe_score(source, scored.interval, samples, scored.metrics)
        for split, (scored, samples) in splits.items()
        if scored is not None
    }


def _write_member(folder: StudyFolder, setup: StudySetup, joined: ViewEnsemble, member: ViewMember, path: Path) -> None:
    """Writes a member with the weights that were scored."""
    recipe, data = member.recipe, StudyViews(setup, "cpu").open_view(member.recipe.view)
    replicate = Replicate(member.trial, recipe, folder.replicate_folder(member.trial, recipe.seed))
    entry = setup.pool.find_entry(recipe.backbone)
    metrics = {
        "trained_on": {"samples": member.train_samples, "splits": "train"},
        "metric": joined.metric,
        **_list_scores(joined, member, "this model"),
        **describe_origin(recipe, entry.weights if entry is not None and recipe.pretrained else None),
    }
    write_network(path, replicate.load_network(data.classes), recipe, data, metrics, setup.dataset)
