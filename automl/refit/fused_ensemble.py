"""Joining a study's models: the best recipe of each view or backbone, and a fusion of their scores, as one model.

Each of these recipes is trained once more on the training split, with the first seed that `automl confirm` takes. The
weights of the fusion are learned from the predictions of the validation split (`automl.models.combine`); then all is
scored once on the holdout, which was used for nothing else. The scores lie in the study's folder (`ensemble.json`).

The model is a folder of model folders, one for each view or backbone and called like it, with the fusion of their
scores. The members are the models that were scored; or, trained once more on all the data, models of the same recipes,
whose scores are taken to mean the same.
"""

from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, cast, get_args

import numpy as np
from numpy.typing import NDArray
from optuna.trial import FrozenTrial

from automl.errors import SpecError
from automl.files import write_text
from automl.models.card import render_ensemble_card
from automl.models.combine import Fusion, fit_fusion
from automl.models.folder import make_validation_scores, write_ensemble, write_validation_scores
from automl.models.fused_ensemble import FusedEnsemble, FusedMember, Kind, Scored
from automl.recipe import Recipe
from automl.refit.output_folder import OutputFolder
from automl.refit.plan import JOINED, TrainOptions, describe_score, plan_for_study
from automl.refit.train import describe_origin, train_plan, write_network
from automl.reporter import ConsoleReporter, Reporter
from automl.study.folder import StudyFolder, find_study
from automl.study.replicate import Replicate, ReplicateRunner, is_same_training, read_record
from automl.study.search import open_result
from automl.study.setup import StudySetup, StudyViews
from automl.study.trial_record import best_first, recipe_of
from automl.units import format_seconds

Floats = NDArray[np.float64]

MEMBERS = 5
"""At most: every view there is; of backbones each one more adds little."""


def ensemble(
    study: str | None = None,
    *,
    out: str | Path | None = None,
    by: str | None = None,
    members: int = MEMBERS,
    final: bool = False,
    timeout: str | float | None = None,
    gpu_mem: str | int | None = None,
    device: str = "auto",
    weights_dir: str | Path | None = None,
    overwrite: bool = False,
    runs: str | Path = "runs",
    reporter: Reporter | None = None,
) -> FusedEnsemble | None:
    """Joins the best recipe of each view or backbone of a study into one model, and scores it on the holdout.

    What `automl.confirm` trained is not trained again. Killed or interrupted, the same call goes on where it was; while
    the best trials are the same ones, it scores the holdout once. Of several GPUs, the first is used.

        scores = automl.ensemble("ffdv", out="models/ffdv")
        scores.holdout.interval                                # of all views together
        automl.load("models/ffdv").predict("clips/")

    Args:
        study: Name of the study; None: the latest.
        out: The folder to write; None: `models/` and the study's name with `-ensemble`.
        by: `view` or `backbone`: what the members differ in; None: the view where the study has several, else the
            backbone.
        members: How many there are at most, the best ones.
        final: Train each member once more, on train + validation, and on the holdout where it was scored.
        timeout: How long it may take, such as `1h`, without the trainings of `final`; None: as long as it needs.
            Members that are predicted not to fit are left out, the best ones last.
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
        SpecError: If there are more than two classes, or an argument has no meaning.
        WeightsError: If something else is in `out`, or it cannot be written.
        AutomlError: If a recipe cannot be trained.
        KeyboardInterrupt: If it was asked to stop in the trainings of `final`; the same call continues.
    """
    reporter, folder = reporter or ConsoleReporter(), find_study(Path(runs), study)
    output = OutputFolder(Path(out) if out is not None else Path("models") / f"{folder.name}-ensemble")
    options = TrainOptions(gpu_mem=gpu_mem, device=device)
    setup = open_result(folder).setup
    output.check_free(overwrite=overwrite)
    joined = join_members(folder, timeout, gpu_mem, device, reporter, by=by, members=members)
    if joined is None:
        return None
    recipes = {member.name: member.recipe.model_dump(mode="json") for member in joined.members}
    record = {"members": recipes, "fusion": asdict(joined.fusion), "final": final}
    if not output.start_training(record, overwrite=overwrite):
        splits: tuple[str, ...] = ("train",)
        if final:
            splits = ("train", "validation", "holdout") if joined.holdout else ("train", "validation")
        for member in joined.members:
            path = output.folder / member.name
            if OutputFolder(path).finished:  # before a kill: by the record it is this one
                continue
            if final:
                plan = plan_for_study(folder, member.recipe, Path(weights_dir) if weights_dir is not None else None)
                source = "a model of this recipe that learned from the training split alone (automl ensemble)"
                plan = replace(plan, scores=_list_scores(joined, member, source), train_splits=splits)
                train_plan(plan, options, path, reporter)
            else:
                _write_member(folder, setup, joined, member, path)
        if joined.validation_scores is not None:
            write_validation_scores(output.folder, joined.validation_scores)
        card = render_ensemble_card(joined, setup.dataset.name, splits)
        write_ensemble(output.folder, joined.fusion.weight_shares(), joined.fusion, card)
        output.end_training()
        reporter.print_line(f"written: {output.folder}")
    return joined.model_copy(update={"folder": output.folder})


def join_members(
    folder: StudyFolder,
    timeout: str | float | None = None,
    gpu_mem: str | int | None = None,
    device: str = "auto",
    reporter: Reporter | None = None,
    *,
    by: str | None = None,
    members: int = MEMBERS,
) -> FusedEnsemble | None:
    """Joins models of the study in a folder, without writing one; all else as for `ensemble`."""
    if by not in (None, *get_args(Kind)):
        raise SpecError(f"--by {by}: models are joined by {' or '.join(get_args(Kind))}")
    if members < 1:
        raise SpecError(f"--members {members}: give 1 or more")
    with _JoinRunner.open_study(folder, timeout, gpu_mem, device, reporter) as runner:
        return runner.join_best(cast(Kind | None, by), members)


def load_fused_ensemble(folder: StudyFolder) -> FusedEnsemble | None:
    """Reads `ensemble.json`; None if none of the study's models were joined."""
    return read_record(folder.ensemble, FusedEnsemble, "run automl ensemble again")


def store_fused_ensemble(folder: StudyFolder, joined: FusedEnsemble) -> None:
    """Writes `ensemble.json`."""
    write_text(folder.ensemble, joined.model_dump_json(indent=2) + "\n")


class _JoinRunner(ReplicateRunner):
    """Trains a replicate of the best recipe of each view or backbone, and joins their scores."""

    by: Kind = "view"

    def join_best(self, by: Kind | None, members: int) -> FusedEnsemble | None:
        """Trains, learns the weights, scores and stores; see `ensemble`."""
        classes = len(self.setup.dataset.classes)
        if classes != 2:
            raise SpecError(
                f"models are joined by the log-odds of two classes, and study {self.folder.name} has {classes}; "
                f"{self.folder.command_line('train')} --ensemble K joins models of any number"
            )
        views = {recipe_of(trial).view.name for trial in best_first(self.study)}
        self.by = by or ("view" if len(views) > 1 else "backbone")
        trials = self.best_trials(self._name_member, members)
        if len(trials) == 1 < members:
            self.print_line(
                f"note: one {self.by} alone has a complete trial: there is nothing to join it with, and its scores are "
                "calibrated"
            )
        planned = self._plan_replicates(trials)
        if not planned:
            return None
        earlier = load_fused_ensemble(self.folder)
        if earlier is not None and self._is_current(earlier, planned):
            return earlier
        times_scored = earlier.times_scored if earlier else 0
        self.warn_of_holdout(times_scored)
        done: dict[str, Replicate] = {self._name_member(one.recipe): one for one in self.train_all(planned, "ensemble")}
        if not done:
            return None
        return self._conclude(done, {trial.number: trial.value or 0.0 for trial in trials}, times_scored)

    def _name_member(self, recipe: Recipe) -> str:
        """Names the member that a recipe is: members of one name would be of one kind."""
        return recipe.backbone if self.by == "backbone" else recipe.view.name

    def is_done(self, replicate: Replicate) -> bool:
        """Reports whether there are predictions and their weights: a confirmation drops those it does not choose."""
        return super().is_done(replicate) and replicate.weights.is_file()

    def _plan_replicates(self, trials: Iterable[FrozenTrial]) -> list[Replicate]:
        """Plans what there is time for, the best first."""
        planned, left, total = list[Replicate](), self.seconds_left, 0.0
        for trial in trials:
            replicate = self.make_replicate(trial, 0)
            cost = self.needed_seconds(replicate)
            if cost > left - total:
                self.print_line(
                    f"{self.by} {self._name_member(replicate.recipe)} is left out: training it again takes about "
                    f"{format_seconds(cost)}, and {format_seconds(left - total)} are left; "
                    f"{self.folder.command_line('ensemble')} has no limit"
                )
            else:
                planned.append(replicate)
                total += cost
        if planned:
            names = ", ".join(self._name_member(replicate.recipe) for replicate in planned)
            about = f"about {format_seconds(total)} of training" if total else "all are trained"
            self.print_line(f"joining the {self.by}s of study {self.folder.name} on {self.device}: {names}; {about}")
        return planned

    def _is_current(self, earlier: FusedEnsemble, planned: list[Replicate]) -> bool:
        """Reports whether an ensemble is what training these would give, and its weights are there."""
        return (earlier.by, len(earlier.members)) == (self.by, len(planned)) and all(
            replicate.trial == member.trial
            and is_same_training(replicate.recipe, member.recipe.model_dump(mode="json"))
            and self.is_done(replicate)
            for replicate, member in zip(planned, earlier.members, strict=True)
        )

    def _conclude(self, done: dict[str, Replicate], values: dict[int, float], times_scored: int) -> FusedEnsemble:
        """Learns the weights, scores and stores, given replicates by member and the trials' values by number."""
        labels, positive = self.data.labels("validation"), self.data.positive
        priors = {name: float((self._train_labels(one) == positive).mean()) for name, one in done.items()}
        fusion = fit_fusion(self._predict_members("validation", done), labels, priors, positive)
        validation, fused, probabilities = self._score_members("validation", fusion, done)
        scored, note = self.score_holdout(lambda: self._score_members("holdout", fusion, done))
        holdout, fused_holdout, _ = scored or ({}, None, None)
        kept = make_validation_scores(JOINED, labels, [probabilities], self.setup.dataset.classes, positive)
        members = tuple(
            FusedMember(
                name=name,
                trial=one.trial,
                search_value=values[one.trial],
                recipe=one.recipe,
                seen=int(self.views.open_view(one.recipe.view).cache.readable.sum()),
                train_samples=len(self._train_labels(one)),
                validation=validation[name],
                holdout=holdout.get(name),
            )
            for name, one in done.items()
        )
        joined = FusedEnsemble(
            **self.describe_scoring(times_scored, note),
            by=self.by,
            members=members,
            fusion=fusion,
            validation=fused,
            holdout=fused_holdout,
            samples=len(self.setup.dataset.samples),
            validation_scores=kept,
        )
        store_fused_ensemble(self.folder, joined)
        self.print_line(f"written: {self.folder.ensemble}")
        return joined

    def _score_members(
        self, split: str, fusion: Fusion, done: dict[str, Replicate]
    ) -> tuple[dict[str, Scored], Scored, Floats]:
        """Measures each member, and all joined, whose probabilities (N, 2) come last.

        Where nothing is seen, the classes' shares in training stand.
        """
        scores = self._predict_members(split, done)
        counts = {name: np.bincount(self._train_labels(one), minlength=2) for name, one in done.items()}
        shares = {name: count / count.sum() for name, count in counts.items()}
        blind = sum(share * shares[name] for name, share in fusion.weight_shares().items())
        seen = ~np.all([np.isnan(values) for values in scores.values()], axis=0)  # (N, 2)
        alone = {name: np.where(np.isnan(values), shares[name], values) for name, values in scores.items()}
        joined = np.where(seen, fusion.join_scores(scores, self.data.positive), blind)
        alone_scores = {name: self.score_split(split, [values]) for name, values in alone.items()}
        return alone_scores, self.score_split(split, [joined]), joined

    def _predict_members(self, split: str, done: dict[str, Replicate]) -> dict[str, Floats]:
        """Predicts each member's scores (N, 2) of a split; NaN where it sees nothing of a sample."""
        scores = {}
        for name, one in done.items():
            data = self.views.open_view(one.recipe.view)
            known = split == "validation"
            probabilities = self.read_validation(one) if known else one.predict_split(data, split, self.device)
            scores[name] = np.where(data.counts(split)[:, None] > 0, probabilities, np.nan)
        return scores

    def _train_labels(self, replicate: Replicate) -> NDArray[np.int64]:
        """Returns the labels (N,) of what a member was trained on."""
        return self.views.open_view(replicate.recipe.view).labels("train")


def _list_scores(joined: FusedEnsemble, member: FusedMember, source: str) -> dict[str, Any]:
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


def _write_member(
    folder: StudyFolder, setup: StudySetup, joined: FusedEnsemble, member: FusedMember, path: Path
) -> None:
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
