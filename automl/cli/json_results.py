"""Makes the objects of `automl.cli.json_objects` of what the library returns."""

import dataclasses
import json
import shlex
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from automl.cli import json_objects as objects

if TYPE_CHECKING:  # the library is imported late: `automl --help` is instant
    from automl.audit.audit import Audit
    from automl.audit.normalise import Normalised
    from automl.data.near_duplicates import NearCopy
    from automl.data.summary import Duplicate, Summary
    from automl.evaluation.label_check import LabelCheck
    from automl.gpu.compare import Comparison
    from automl.models.fused_ensemble import FusedEnsemble
    from automl.space.space import Space
    from automl.study.confirm import Confirmation
    from automl.study.folder import StudyFolder
    from automl.study.search import SearchResult
    from automl.study.setup import StudySetup
    from automl.study.trial_record import TrialRow
    from automl.training.intervals import Interval


# --- studies ----------------------------------------------------------------------------------------------------------


def describe_trial(row: "TrialRow") -> objects.Trial:
    """Makes the object of a trial."""
    return objects.Trial(**_pick_fields(row))


def describe_ended(row: "TrialRow") -> objects.TrialEnded:
    """Makes the event that a trial ended."""
    return objects.TrialEnded(**_pick_fields(row))


def _pick_fields(row: "TrialRow") -> dict[str, Any]:
    return {item.name: getattr(row, item.name) for item in dataclasses.fields(objects.Trial)}


def describe_pool(setup: "StudySetup") -> objects.PoolChosen:
    """Makes the event of the pool."""
    train = int((setup.dataset.samples["split"] == "train").sum())
    backbones = [
        objects.Backbone(
            rank=rank,
            backbone=entry.backbone,
            score=entry.score,
            params_m=entry.params_m,
            weights=entry.weights,
            peak_bytes=entry.memory.peak_bytes,
            fits=entry.memory.fits_all,
            measured=entry.memory.measured,
            epoch_seconds=entry.timing.train_seconds * train,
            image_size=entry.timing.image_size,
            precision=entry.timing.precision,
        )
        for rank, entry in enumerate(setup.pool.entries)
    ]
    return objects.PoolChosen(memory_bytes=setup.memory_bytes, backbones=backbones, notes=list(setup.pool.notes))


def describe_opened(result: "SearchResult", maximize: bool, ended: int) -> objects.StudyOpened:
    """Makes the event of a study that is created or opened again, where so many trials had ended."""
    from automl.study.trial_record import read_spec

    dataset = result.setup.dataset
    return objects.StudyOpened(
        study=result.folder.name,
        folder=str(result.folder.path),
        metric=result.metric,
        maximize=maximize,
        trials_wanted=result.trials_wanted,
        trials_ended=ended,
        timeout_seconds=read_spec(result.study).budget.timeout,
        data=str(dataset.root),
        media=dataset.media,
        classes=list(dataset.classes),
        samples={str(split): int(count) for split, count in dataset.samples["split"].value_counts().items()},
    )


def describe_study(result: "SearchResult") -> dict[str, Any]:
    """Returns the fields of `StudyResult`."""
    from automl.cli.output import count_reasons, list_next_commands, sort_best_first
    from automl.spec import describe_validation
    from automl.study.trial_record import read_spec, read_trial_record, trial_rows

    study, folder, recipe = result.study, result.folder, result.best
    maximize = study.direction.name == "MAXIMIZE"
    rows = trial_rows(study.get_trials(deepcopy=False), maximize, running="unfinished")
    top, confirmation = sort_best_first(rows, maximize)[:5], result.confirmation
    steps = list_next_commands(
        folder,
        has_best=bool(top),
        confirmed=confirmation is not None,
        views=len({row.view for row in rows if row.state == "complete"}),
    )
    return {
        "study": folder.name,
        "folder": str(folder.path),
        "metric": result.metric,
        "maximize": maximize,
        "validation": describe_validation(read_spec(study)),
        "value": top[0].value if top else None,
        "best": describe_trial(top[0]) if top else None,
        "recipe": recipe.model_dump(mode="json") if recipe else None,
        "recipe_path": str(folder.best) if top else None,
        "top": [describe_trial(row) for row in top],
        "trials_wanted": result.trials_wanted,
        "trials_by_state": dict(Counter(row.state for row in rows)),
        "endings": [
            objects.Ending(state=state, reason=reason, count=count)
            for (state, reason), count in count_reasons(rows).most_common()
        ],
        "degraded": read_trial_record(study.trials[top[0].number]).degraded if top else {},
        "trials_path": str(folder.trials),
        "confirmation": describe_confirmation(confirmation, folder) if confirmation else None,
        "next": describe_commands(steps),
    }


def describe_commands(steps: Iterable[tuple[str, str]]) -> list[objects.Command]:
    """Makes objects of commands and their purposes."""
    return [objects.Command(argv=shlex.split(command), purpose=purpose) for command, purpose in steps]


def describe_confirmation(confirmation: "Confirmation", folder: "StudyFolder") -> objects.Confirmation:
    """Makes the object of a confirmation."""
    holdout = confirmation.holdout
    return objects.Confirmation(
        metric=confirmation.metric,
        trial=confirmation.best.trial,
        recipe_path=str(folder.confirmed),
        candidates=[
            objects.Candidate(
                trial=one.trial,
                backbone=one.recipe.backbone,
                seeds=list(one.seeds),
                validation=list(one.validation),
                mean=one.mean,
                search_value=one.search_value,
                robust=list(one.robust),
                chosen=one is confirmation.best,
            )
            for one in confirmation.candidates
        ],
        validation=_describe_interval(confirmation.validation),
        validation_samples=confirmation.validation_samples,
        validation_metrics=confirmation.validation_metrics,
        holdout=_describe_interval(holdout) if holdout else None,
        holdout_samples=confirmation.holdout_samples,
        holdout_metrics=confirmation.holdout_metrics,
        holdout_note=confirmation.holdout_note,
        times_scored=confirmation.times_scored,
        optimism=confirmation.optimism,
        interval_method=confirmation.interval_method,
    )


def _describe_interval(interval: "Interval") -> objects.Interval:
    return objects.Interval(value=interval.value, low=interval.low, high=interval.high)


# --- models -----------------------------------------------------------------------------------------------------------


def describe_model(folder: Path) -> objects.TrainFinished:
    """Makes the last event of a training, of the folder that it wrote."""
    members = sorted(path.parent for path in folder.glob("*/metrics.json"))
    whole = folder / "metrics.json"
    metrics = {path.name: _read_metrics(path / "metrics.json") for path in members}
    return objects.TrainFinished(
        folder=str(folder),
        members=[str(path) for path in members],
        metrics=_read_metrics(whole) if whole.is_file() else metrics,
        next=describe_commands([_predict_with(folder)]),
    )


def _read_metrics(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text(encoding="utf-8")))


def _predict_with(folder: Path) -> tuple[str, str]:
    command = shlex.join(["automl", "predict", str(folder), "--data", "DIR", "--out", "submission.csv"])
    return command, "predictions of that model"


def describe_ensemble(joined: "FusedEnsemble | None", interrupted: bool) -> objects.EnsembleFinished:
    """Makes the last event of joining models; None: nothing was written."""
    if joined is None:
        nothing = ("folder", "by", "metric", "validation", "validation_samples", "holdout", "holdout_samples")
        given: dict[str, Any] = dict.fromkeys((*nothing, "times_scored", "interval_method"))
        return objects.EnsembleFinished(**given, interrupted=interrupted, members=[], holdout_note="", next=[])
    holdout, folder = joined.holdout, joined.folder
    return objects.EnsembleFinished(
        folder=str(folder) if folder else None,
        interrupted=interrupted,
        by=joined.by,
        metric=joined.metric,
        members=[
            objects.Member(
                name=member.name,
                trial=member.trial,
                backbone=member.recipe.backbone,
                view=member.recipe.view.name,
                weight=joined.fusion.weights[member.name],
                seen=member.seen,
                search_value=member.search_value,
                validation=_describe_interval(member.validation.interval),
                holdout=_describe_interval(member.holdout.interval) if member.holdout else None,
            )
            for member in joined.members
        ],
        validation=_describe_interval(joined.validation.interval),
        validation_samples=joined.validation_samples,
        holdout=_describe_interval(holdout.interval) if holdout else None,
        holdout_samples=joined.holdout_samples,
        holdout_note=joined.holdout_note,
        times_scored=joined.times_scored,
        interval_method=joined.interval_method,
        next=describe_commands([_predict_with(folder)] if folder else []),
    )


# --- data -------------------------------------------------------------------------------------------------------------


def describe_data(
    summary: "Summary",
    audit: objects.Audit | None,
    label_check: objects.LabelCheck | None,
    normalised: objects.NormalisedCopy | None,
) -> objects.DataResult:
    """Makes the object of a data set."""
    dataset, sizes = summary.dataset, summary.sizes
    return objects.DataResult(
        path=str(dataset.root),
        format=dataset.format,
        media=dataset.media,
        classes=list(dataset.classes),
        positive_class=dataset.positive_class_name or None,
        real_class=dataset.real_class_name or None,
        counts=summary.counts,
        groups=summary.groups,
        width=list(sizes.width) if sizes else None,
        height=list(sizes.height) if sizes else None,
        clips=vars(summary.clips) if summary.clips else None,
        remarks=list(dataset.remarks),
        warnings=list(summary.problems),
        unreadable=_describe_unreadable(summary.unreadable),
        leaks=[_describe_copies(copy) for copy in summary.leaks],
        near_copies=[_describe_copies(copy) for copy in summary.near_copies],
        conflicts=[_describe_copies(copy) for copy in summary.conflicts],
        copies=summary.copies,
        notes=list(summary.notes),
        audit=audit,
        label_check=label_check,
        normalised=normalised,
    )


def _describe_unreadable(files: Iterable[tuple[str, str]]) -> list[objects.UnreadableFile]:
    return [objects.UnreadableFile(name=name, reason=reason) for name, reason in files]


def _describe_copies(copy: "Duplicate | NearCopy") -> objects.CopiedFiles:
    return objects.CopiedFiles(
        names=list(copy.names),
        splits=list(copy.splits),
        labels=list(copy.labels),
        similarity=getattr(copy, "similarity", 1.0),
    )


def describe_audit(audit: "Audit") -> objects.Audit:
    """Makes the object of an audit."""
    return objects.Audit(
        properties=[
            objects.AuditedProperty(
                name=row.kind.name,
                auc=_describe_interval(row.auc),
                by_class=row.by_class,
                finding=row.is_finding,
                sentence=row.sentence,
                remedy=row.kind.remedy,
            )
            for row in audit.rows
        ],
        constant=list(audit.constant),
        missing=list(audit.missing),
        files_read=audit.read,
        files=audit.total,
        unreadable=audit.unreadable,
        reason=audit.reason,
    )


def describe_labels(check: "LabelCheck", page: Path | None) -> objects.LabelCheck:
    """Makes the object of a check of labels."""
    names, classes = check.dataset.samples["name"], check.dataset.classes
    return objects.LabelCheck(
        judge=check.judge,
        checked=check.checked,
        agreement=check.agreement,
        issues=[
            objects.LabelIssue(
                name=str(names.iloc[one.row]),
                label=classes[one.label],
                likelier_label=classes[one.suggested],
                probability=one.probability,
            )
            for one in check.issues
        ],
        page=str(page) if page else None,
    )


def describe_copy(copy: "Normalised", audit: objects.Audit | None) -> objects.NormalisedCopy:
    """Makes the object of a normalised copy."""
    unreadable = _describe_unreadable(copy.unreadable)
    return objects.NormalisedCopy(
        folder=str(copy.folder), written=copy.written, kept=copy.kept, unreadable=unreadable, audit=audit
    )


# --- the rest ---------------------------------------------------------------------------------------------------------


def describe_steps(rows: "Sequence[Comparison]", left_out: Sequence[str]) -> objects.ProbeResult:
    """Makes the object of training steps."""
    steps = []
    for row in rows:
        recipe, step = row.recipe, row.step
        one = objects.Step(
            backbone=recipe.backbone,
            image_size=recipe.image_size,
            batch_size=recipe.batch_size,
            precision=recipe.numerics.precision,
            memory_format=recipe.numerics.memory_format,
            whole_bytes=row.whole_bytes,
            budget_bytes=row.budget_bytes,
            micro_batch=row.micro_batch,
            predicted_bytes=row.predicted_bytes,
            measured_bytes=row.peak_bytes if step else None,
            error_percent=row.error_percent,
            reserved_bytes=row.context_bytes + step.reserved if step else None,
            process_bytes=step.process if step else None,
            margin_bytes=row.margin_bytes,
            images_per_second=1 / step.seconds if step else None,
            why_predicted=row.why_predicted,
        )
        steps.append(one)
    return objects.ProbeResult(steps=steps, left_out=list(left_out))


def describe_space(space: "Space", outside_branches: int) -> objects.SpaceResult:
    """Makes the object of a search space."""
    from automl.space.nodes import Branches, Choice, Float, Int, Ordered

    parameters = []
    for name, node in space.iterate_parameters():
        values: list[Any] = []
        if isinstance(node, Float | Int):
            values = [node.low, node.high]
        elif isinstance(node, Choice | Ordered):
            values = list(node.options)
        elif isinstance(node, Branches):
            values = list(node.branches)
        log, step = getattr(node, "log", False), getattr(node, "step", None)
        kind = type(node).__name__.lower()
        parameters.append(objects.Parameter(name=name, kind=kind, values=values, log=log, step=step))
    return objects.SpaceResult(
        source=str(space.source),
        parameters=parameters,
        outside_branches=outside_branches,
        known_good=len(space.known_good),
    )
