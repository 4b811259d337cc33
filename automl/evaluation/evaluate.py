"""Evaluating trained models on a labelled data set: `automl.evaluate`."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from automl.errors import DataError, SpecError, shorten
from automl.evaluation.breakdown import measure_groups, split_by_value
from automl.evaluation.calibration import measure_calibration
from automl.evaluation.comparison import compare_aucs, compare_replicates, correct_p
from automl.evaluation.details import count_confusion, describe_classes, list_mistakes, trace_roc
from automl.evaluation.evaluation import Comparison, Evaluation, ModelFigures
from automl.evaluation.measures import NAMES, TPR_AT, Measured, explain_no_interval, measure_metrics
from automl.evaluation.predictions import ModelScores, check_media, check_models, name_models, predict_samples
from automl.evaluation.report import check_folder, write_report
from automl.evaluation.robustness import choose_rows, keep_fitting, measure_robustness, read_degradations
from automl.evaluation.samples import LabelledSamples, open_samples
from automl.evaluation.thresholds import Threshold, apply_threshold, choose_threshold
from automl.files import check_weights_dir
from automl.models.folder import read_members, read_validation_scores
from automl.models.predict import Model, load
from automl.models.trained_on import digest_name_and_size, read_trained_on
from automl.reporter import ConsoleReporter, Reporter
from automl.schema import describe_errors
from automl.spec import METRICS, LabelledSpec
from automl.training.intervals import describe_method
from automl.training.metrics import default_metric
from automl.units import format_count

_SHOWN = 5
_UNUSED = {
    *("validation_fraction", "holdout_fraction", "min_class_samples", "shuffle_labels", "face_model", "real_class"),
    "positive_class",
}
"""Keys of `DataSpec` that are about training."""


def evaluate(
    models: str | Path | Sequence[str | Path],
    data: str | Path | dict[str, Any] | None,
    *,
    out: str | Path | None = None,
    split: str | None = None,
    by: str | Sequence[str] | None = None,
    fpr: float = 0.01,
    tta: str = "none",
    rename_label: Mapping[str, str] | Sequence[str] | None = None,
    ignore_unknown_classes: bool = False,
    degrade: str | Path | None = None,
    degrade_samples: int = 500,
    device: str = "auto",
    weights_dir: str | Path | None = None,
    overwrite: bool = False,
    reporter: Reporter | None = None,
) -> Evaluation:
    """Measures trained models on a labelled data set, another one than they were trained on, side by side.

        result = automl.evaluate("models/faces", "another/", by="generator", out="evaluations/another")
        result.models[0].measured.values["auc"]     # value, low, high
        result.predictions                          # a pandas DataFrame, a row a sample

    Args:
        models: A model folder, or several with the same classes.
        data: A folder or label file of any layout that `automl.search` reads, or a mapping with the keys of `DataSpec`.
        out: A folder for `metrics.json`, `predictions.csv` and `index.html`; None: nothing is written.
        split: Only this split of the data (train, validation, holdout); None: all there is.
        by: Columns of the label file, such as generator; each value of one is measured by itself
            (`automl.evaluation.breakdown` has the rule).
        fpr: Of two classes: the false-positive rate for which a threshold is chosen on each model's own validation
            samples, where its folder has them.
        tta: Test-time augmentation: none, flip or 5crop.
        rename_label: Classes of the models, by what the data call them: `{"0": "real", "1": "fake"}`, or each as
            `OLD=NEW`.
        ignore_unknown_classes: Leave out samples of classes that the models have not seen.
        degrade: Measure degraded copies too: `all` degradations that ship, a YAML file of others, or a name or wildcard
            such as `jpeg*`; None: not.
        degrade_samples: How many samples are degraded at most, in proportion to the classes.
        device: auto, cpu, cuda or cuda:N.
        weights_dir: As for `automl.load`.
        overwrite: Replace an earlier evaluation in `out`.
        reporter: Receives what is done; None: lines are printed.

    Returns:
        All figures.

    Raises:
        AutomlError: If models, data, labels, columns or folder do not fit; the message says what to change.
    """
    reporter = reporter or ConsoleReporter()
    paths = [Path(path).expanduser() for path in ([models] if isinstance(models, str | Path) else models)]
    if not paths or len(set(paths)) < len(paths):
        raise SpecError(f"give one model folder or several different ones, got {', '.join(map(str, paths)) or 'none'}")
    renamed = _read_renamed(rename_label or {})
    spec = _read_spec(data, [by] if isinstance(by, str) else by or ())
    choose_threshold([0.0], fpr)
    known = read_degradations(degrade) if degrade is not None else []
    check_weights_dir(Path(weights_dir).expanduser() if weights_dir is not None else None)
    folder = check_folder(Path(out).expanduser(), overwrite=overwrite) if out is not None else None
    # What may be wrong with the data is found before weights are loaded, which may have to be fetched.
    labels = max(read_members(paths[0]), key=lambda member: member[1])[0].labels
    samples = open_samples(spec, labels, split=split, renamed=renamed, ignore_unknown=ignore_unknown_classes)
    loaded = [load(path, device, weights_dir) for path in paths]
    check_models(loaded)
    first = loaded[0]
    check_media(loaded, samples)
    learned, unknown = _find_learned(loaded, samples)
    samples = replace(samples, problems=(*learned, *samples.problems), notes=(*samples.notes, *unknown))
    for line in samples.notes:
        reporter.print_line(f"note: {line}")
    for line in samples.problems:
        reporter.print_line(f"warning: {line}")
    degradations = keep_fitting(known, degrade, samples, loaded) if degrade is not None else []
    choose_rows(samples.labels, degrade_samples)
    names, scores = name_models(paths), list[ModelScores]()
    for name, model in zip(names, loaded, strict=True):
        reporter.print_line(f"predicting {len(samples.table)} {samples.media} files with {name}: {model!r}")
        with reporter.show_progress(f"predicting with {name}") as progress:
            scores.append(predict_samples(model, first.classes, samples, tta, progress))
    evaluation = _measure_all(names, loaded, samples, scores, fpr, reporter)
    if degradations:
        robustness = measure_robustness(
            loaded,
            names,
            evaluation.samples,
            [model.probabilities for model in evaluation.models],
            degradations,
            classes=evaluation.classes,
            positive=evaluation.positive,
            metric=evaluation.metric,
            wanted=degrade_samples,
            tta=tta,
            reporter=reporter,
        )
        evaluation = replace(evaluation, robustness=robustness)
    return evaluation if folder is None else write_report(evaluation, folder)


def _find_learned(models: Sequence[Model], samples: LabelledSamples) -> tuple[list[str], list[str]]:
    """Writes how many samples each model was trained on, by their names and sizes, and of which that is not known."""
    digests = [digest_name_and_size(Path(path)) for path in samples.table["path"]]
    lines, unknown = [], []
    for model in models:
        known = [read_trained_on(one.folder.path) for one in model.members]
        if None in known:
            why = "its folder, or a member's," if len(known) > 1 else "its folder"
            unknown.append(
                f"whether {model.path} was trained on these samples is not known: {why} has no trained_on.txt"
            )
        learned = frozenset[str]().union(*filter(None, known))
        if count := sum(digest in learned for digest in digests):
            which = f"{count} of {format_count(len(digests), 'sample')}"
            verb = "has" if count == 1 else "have"
            what = f"{verb} the name and size of files that {model.path} was trained on"
            lines.append(f"{which} {what}: its figures are too good")
    return lines, unknown


def _read_renamed(given: Mapping[str, str] | Sequence[str]) -> dict[str, str]:
    """Reads which class each label means, from a mapping or from texts `OLD=NEW`."""
    if isinstance(given, Mapping):
        return dict(given)
    if bad := [text for text in given if "=" not in text[1:-1]]:
        raise SpecError(f"--rename-label {bad[0]!r}: write OLD=NEW, such as 1=fake")
    return {old: new for old, _, new in (text.partition("=") for text in given)}


def _read_spec(data: str | Path | dict[str, Any] | None, by: Sequence[str]) -> LabelledSpec:
    """Reads which data set is meant."""
    values = data if isinstance(data, dict) else {"path": data}
    if unused := sorted(_UNUSED & values.keys()):
        raise SpecError(f"{', '.join(unused)} of data: an evaluation has no use for it; leave it out")
    if values.get("path") is None and values.get("format") != "demo":
        raise SpecError("name the labelled data set to evaluate on: --data")
    try:
        return LabelledSpec.model_validate({**values, "by": tuple(dict.fromkeys(by))})
    except ValidationError as exc:
        raise SpecError(describe_errors(exc, "automl evaluate", model=LabelledSpec)) from exc


def _measure_all(
    names: Sequence[str],
    models: Sequence[Model],
    samples: LabelledSamples,
    scores: Sequence[ModelScores],
    fpr: float,
    reporter: Reporter,
) -> Evaluation:
    """Computes every figure from the predictions."""
    samples, scores, unreadable = _leave_out_unreadable(samples, scores)
    warnings = [*samples.problems, *_describe_unseen(names, samples, scores, unreadable)]
    for line in warnings[len(samples.problems) :]:
        reporter.print_line(f"warning: {line}")
    first, labels, groups = models[0], samples.labels, samples.groups
    classes, positive = first.classes, first.labels.positive
    metric = str(first.metrics.get("metric"))
    metric = metric if metric in METRICS else default_metric(len(classes))
    notes, figures = list(samples.notes), list[ModelFigures]()
    for name, model, score in zip(names, models, scores, strict=True):
        with reporter.show_progress(f"intervals of {name}") as progress:
            measured = measure_metrics(labels, score.probabilities, positive, groups, progress=progress)
        threshold, why = _find_threshold(name, model, classes, positive, labels, score.probabilities, fpr)
        notes += [why] if why else []
        figures.append(_describe_model(name, model, samples, score, measured, threshold, classes, positive))
    if metric in figures[0].measured.missing:
        notes.append(f"not computed: {', '.join(figures[0].measured.missing)}; {figures[0].measured.missing[metric]}")
        metric = "accuracy"
    negatives = int((labels != positive).sum())
    if len(classes) == 2 and 0 < negatives * TPR_AT["tpr_at_fpr"] < 1:
        count = format_count(negatives, "sample")
        notes.append(
            f"class {classes[1 - positive]} has {count}: one of them is a false-positive rate of "
            f"{1 / negatives:.2g}, and the TPR at a smaller rate is that without any"
        )
    no_interval = explain_no_interval(labels, groups)
    notes += [no_interval] if no_interval else []
    predictions = [score.probabilities for score in scores]
    columns = {
        str(name): split_by_value(
            samples.by[name].to_numpy(str), labels, predictions, classes, positive, groups, metric
        )
        for name in samples.by
    }
    return Evaluation(
        samples,
        tuple(classes),
        positive,
        metric,
        tuple(figures),
        tuple(_compare_all(figures, labels, positive, groups)),
        columns,
        None if groups is None else measure_groups(labels, predictions, positive, groups, metric),
        None,
        unreadable,
        tuple(notes),
        tuple(warnings),
        "" if no_interval else describe_method(groups),
    )


def _leave_out_unreadable(
    samples: LabelledSamples, scores: Sequence[ModelScores]
) -> tuple[LabelledSamples, list[ModelScores], dict[str, str]]:
    """Leaves out images that cannot be read, as in training; a clip that shows nothing is scored by the prior."""
    reasons = {row: why for score in scores for row, why in score.problems.items()}
    if samples.media != "image" or not reasons:
        return samples, list(scores), {}
    kept = np.setdiff1d(np.arange(len(samples.table)), list(reasons))
    if not len(kept):
        raise DataError(f"{samples.root}: none of {len(reasons)} images can be read: {next(iter(reasons.values()))}")
    unreadable = {str(samples.table["name"][row]): why for row, why in sorted(reasons.items())}
    return samples.take_rows(kept), [ModelScores(score.probabilities[kept], {}) for score in scores], unreadable


def _describe_unseen(
    names: Sequence[str], samples: LabelledSamples, scores: Sequence[ModelScores], unreadable: Mapping[str, str]
) -> list[str]:
    """Writes which files were left out, and which a model sees nothing of, with their counts."""
    lines = []
    if unreadable:
        shown = shorten([f"{name} ({why})" for name, why in unreadable.items()], _SHOWN, "; ")
        lines.append(f"{format_count(len(unreadable), 'image')} left out that cannot be read: {shown}")
    for name, score in zip(names, scores, strict=True):
        if score.problems:
            rows = [f"{samples.table['name'][row]} ({why})" for row, why in score.problems.items()]
            shown = shorten(rows, _SHOWN, "; ")
            lines.append(
                f"{name} sees nothing of {format_count(len(rows), 'file')}, scored by the training prior: {shown}"
            )
    return lines


def _find_threshold(
    name: str,
    model: Model,
    classes: Sequence[str],
    positive: int,
    labels: NDArray[Any],
    probabilities: NDArray[Any],
    fpr: float,
) -> tuple[Threshold | None, str]:
    """Chooses a threshold by a model's own validation scores and applies it, or says why not."""
    if len(classes) != 2:
        return None, ""
    validation = read_validation_scores(model.path)
    if validation is None:
        why = f"no threshold for {name}: its folder has no validation scores (automl train keeps them where validation"
        return None, f"{why} was held out, --early-stopping, or the recipe was confirmed)"
    threshold = apply_threshold(validation, classes, positive, labels, probabilities[:, positive], fpr)
    return (
        threshold,
        "" if threshold else f"no threshold for {name}: its validation samples have no {classes[1 - positive]}",
    )


def _describe_model(
    name: str,
    model: Model,
    samples: LabelledSamples,
    score: ModelScores,
    measured: Measured,
    threshold: Threshold | None,
    classes: Sequence[str],
    positive: int,
) -> ModelFigures:
    """Computes what needs no replicates."""
    labels, probabilities = samples.labels, score.probabilities
    return ModelFigures(
        name,
        model.path,
        tuple(member.folder.recipe.backbone for member in model.members),
        probabilities,
        measured,
        describe_classes(labels, probabilities, classes),
        count_confusion(labels, probabilities),
        trace_roc(labels == positive, probabilities[:, positive]) if len(classes) == 2 else None,
        measure_calibration(labels, probabilities),
        threshold,
        list_mistakes(labels, probabilities, classes, samples.table["path"].tolist()),
        score.problems,
    )


def _compare_all(
    models: Sequence[ModelFigures], labels: NDArray[Any], positive: int, groups: NDArray[Any] | None
) -> list[Comparison]:
    """Compares each pair of models by each metric that has replicates."""
    pairs, comparisons = list(combinations(models, 2)), list[Comparison]()
    for metric in NAMES:
        if not pairs or any(metric not in model.measured.replicates for model in models):
            continue
        differences = []
        for one, other in pairs:
            if metric == "auc" and groups is None and one.probabilities.shape[1] == 2:
                scores = [model.probabilities[:, positive] for model in (one, other)]
                differences.append(compare_aucs(labels == positive, *scores))
                continue
            value = one.measured.values[metric].value - other.measured.values[metric].value
            replicates = one.measured.replicates[metric] - other.measured.replicates[metric]
            differences.append(compare_replicates(value, replicates))
        corrected = correct_p([each.p for each in differences]) if len(pairs) > 1 else [None]
        comparisons += [
            Comparison(one.name, other.name, metric, difference, p)
            for (one, other), difference, p in zip(pairs, differences, corrected, strict=True)
        ]
    return comparisons
