"""The tables of an evaluation as text cells, for a terminal and for a page."""

from collections.abc import Sequence
from dataclasses import dataclass

from automl.evaluation.breakdown import Part
from automl.evaluation.calibration import TEMPERATURES
from automl.evaluation.evaluation import Comparison, Evaluation, ModelFigures
from automl.evaluation.measures import COMPARES_CLASSES, NAMES, Value, sign_of
from automl.evaluation.thresholds import Threshold
from automl.units import format_count

_MAY_BE_CHANCE = 0.05
"""A p from which on a difference is called no more than chance may give."""
_TITLES = {"tpr_at_fpr": "tpr at fpr 0.001", "tpr_at_fpr_0.01": "tpr at fpr 0.01"}


@dataclass(frozen=True)
class Table:
    """A table: its title, a line that explains it, the header and the rows."""

    title: str
    note: str
    header: list[str]
    rows: list[list[str]]
    words: tuple[str, ...] = ("",)
    """Columns that hold words."""


def format_value(value: Value | None) -> str:
    """Writes a metric with its interval; a dash where there is none."""
    if value is None:
        return "–"
    if value.low is None or value.high is None:
        return f"{value.value:.4f}"
    return f"{value.value:.4f} ({value.low:.3f} – {value.high:.3f})"


def _format_temperature(temperature: float) -> str:
    """Writes a temperature; one at an end of what was tried is not the best one."""
    low, high = TEMPERATURES
    if temperature > 0.99 * high:
        return f"≥ {high:g}"
    return f"≤ {low:g}" if temperature < 1.01 * low else f"{temperature:.3f}"


def describe_calibration(name: str, gap: float, temperature: float) -> str:
    """Writes whether a model is too sure, given its mean confidence less its accuracy, and its best temperature.

    The two may differ: accuracy counts an answer as right or wrong, log loss counts how sure each one was.
    """
    side, best = "above" if gap > 0 else "below", _format_temperature(temperature)
    figures = f"mean confidence {abs(gap):.3f} {side} accuracy, best temperature {best}"
    if (gap > 0) == (temperature > 1):
        return f"{name} is {'too sure' if gap > 0 else 'not sure enough'}: {figures}"
    return (
        f"{name} is too sure by one measure, not sure enough by the other: {figures} "
        "(accuracy counts answers as right or wrong, the temperature's log loss counts how sure each one was)"
    )


def format_p(p: float) -> str:
    """Writes a p."""
    return "< 0.0001" if p < 1e-4 else f"{p:.4f}"


def title_of(metric: str) -> str:
    """Writes a metric's name for people."""
    return _TITLES.get(metric, metric)


def tabulate_metrics(evaluation: Evaluation) -> Table:
    """Lists every metric of each model, the main one first."""
    models = evaluation.models
    names = sorted(NAMES, key=lambda name: name != evaluation.metric)
    rows = [
        [title_of(name), *(format_value(model.measured.values.get(name)) for model in models)]
        for name in names
        if name in models[0].measured.values
    ]
    rows.append(["ece (15 bins)", *(f"{model.calibration.ece:.4f}" for model in models)])
    rows.append(["best temperature", *(_format_temperature(model.calibration.temperature) for model in models)])
    if evaluation.groups is not None:
        rows.append([f"{evaluation.metric} of group means", *map(format_value, evaluation.groups.metrics)])
    note = evaluation.interval_method
    return Table("metrics", note, ["", *(model.name for model in models)], rows)


def tabulate_comparisons(evaluation: Evaluation, every: bool = False) -> Table:
    """Lists the differences between models, by the main metric or by every one."""
    shown = [one for one in evaluation.comparisons if every or one.metric == evaluation.metric]
    corrected = any(one.corrected_p is not None for one in shown)
    header = ["models", "metric", "difference", "95 % interval", "p", *(["p (Holm)"] if corrected else []), "test"]
    pairs = len({(one.one, one.other) for one in evaluation.comparisons})
    note = "Paired tests: DeLong et al. 1988 (Sun & Xu 2014) for AUC, the paired bootstrap for the others"
    if evaluation.samples.groups is not None or not evaluation.binary:
        note = "Paired tests: the paired bootstrap" + (" of whole groups" if evaluation.groups is not None else "")
    if corrected:
        note += f"; p (Holm) is corrected for {pairs} pairs of models, within each metric"
    main = [one for one in shown if one.metric == evaluation.metric]
    note = ". ".join([*([describe_differences(main)] if main else []), note])
    return Table(
        "differences", note, header, [_compare_cells(one, corrected) for one in shown], ("models", "metric", "test")
    )


def describe_differences(comparisons: Sequence[Comparison]) -> str:
    """Writes what the comparisons of two models or more by one metric say, in one sentence."""
    if len(comparisons) > 1:
        sure = [one for one in comparisons if _find_p(one) < _MAY_BE_CHANCE]
        named = ", ".join(f"{_find_better(one)[0]} than {_find_better(one)[1]}" for one in sure)
        share = f"{len(sure)} of {format_count(len(comparisons), 'difference')} in {title_of(comparisons[0].metric)}"
        if not sure:
            return f"Each difference in {title_of(comparisons[0].metric)} may be chance (no p below {_MAY_BE_CHANCE:g})"
        return f"Chance alone seldom gives {share} (p below {_MAY_BE_CHANCE:g}); better: {named}"
    (one,) = comparisons
    metric, p = title_of(one.metric), format_p(_find_p(one))
    if one.difference.value == 0:
        return f"{one.one} and {one.other} have the same {metric}"
    better, worse = _find_better(one)
    p = p if p.startswith("<") else f"= {p}"
    verdict = "this may be chance" if _find_p(one) >= _MAY_BE_CHANCE else "chance alone seldom gives so much"
    return f"{better} is better than {worse} by {abs(one.difference.value):.4f} in {metric}; with p {p} {verdict}"


def _find_better(one: Comparison) -> tuple[str, str]:
    """Returns the names of the better model of a comparison and of the other one."""
    return (one.one, one.other) if sign_of(one.metric) * one.difference.value > 0 else (one.other, one.one)


def _find_p(one: Comparison) -> float:
    """Returns the p of a comparison, corrected where there are several."""
    return one.difference.p if one.corrected_p is None else one.corrected_p


def _compare_cells(one: Comparison, corrected: bool) -> list[str]:
    """Writes a comparison."""
    difference = one.difference
    return [
        f"{one.one} − {one.other}",
        title_of(one.metric),
        f"{difference.value:+.4f}",
        f"{difference.low:+.4f} – {difference.high:+.4f}",
        format_p(difference.p),
        *([format_p(one.corrected_p)] if one.corrected_p is not None and corrected else []),
        difference.method,
    ]


def tabulate_classes(evaluation: Evaluation, model: ModelFigures) -> Table:
    """Lists each class of a model, with the counts of the confusion matrix where there are few classes."""
    few = len(evaluation.classes) <= 6
    header = ["class", "samples", "precision", "recall", "f1", "auc one-vs-rest"]
    header += [f"as {name}" for name in evaluation.classes] if few else []
    rows = [
        [
            one.name,
            str(one.support),
            *(_format_number(value) for value in (one.precision, one.recall, one.f1, one.auc)),
            *(map(str, counts) if few else []),
        ]
        for one, counts in zip(model.classes, model.confusion, strict=True)
    ]
    return Table(f"classes, {model.name}", "", header, rows, ("class",))


def tabulate_parts(evaluation: Evaluation, column: str, parts: Sequence[Part]) -> Table:
    """Lists the values of a column."""
    models, several = evaluation.models, len(evaluation.models) > 1
    accuracy = evaluation.metric != "accuracy"
    header = [column, "samples", "compared with"]
    header += [f"{evaluation.metric} {model.name}" if several else evaluation.metric for model in models]
    header += [f"accuracy {model.name}" if several else "accuracy" for model in models] if accuracy else []
    rows = [
        [
            part.value,
            ", ".join(f"{count} of class {name}" for name, count in part.counts.items()),
            part.compared_with,
            *map(format_value, part.metrics),
            *([f"{value:.4f}" for value in part.accuracies] if accuracy else []),
        ]
        for part in parts
    ]
    few = "there is no interval of fewer than 5 samples, or groups, of a class"
    few += "; below 20 groups it is by leaving out each" * (evaluation.samples.groups is not None)
    note = few
    if evaluation.metric in COMPARES_CLASSES:
        note = f"a value of one class is compared with all samples of the others; accuracy is of its own samples; {few}"
    return Table(f"by {column}", note, header, rows, (column, "samples", "compared with"))


def tabulate_robustness(evaluation: Evaluation) -> Table | None:
    """Lists the degradations, the clean score above them and the robust scores below; None where none were tried."""
    robustness, models = evaluation.robustness, evaluation.models
    if robustness is None:
        return None
    header = ["degradation", "samples"]
    for model in models:
        header += [f"{evaluation.metric} {model.name}", "worse by"]
    rows = [
        [
            "clean",
            str(robustness.samples),
            *_pair_cells([format_value(value) for value in robustness.clean], [""] * len(models)),
        ]
    ]
    for one in robustness.degradations:
        drops = ["–" if drop is None else f"{drop:+.4f}" for drop in one.drops]
        rows.append([one.name, str(one.samples), *_pair_cells([format_value(value) for value in one.metrics], drops)])
    means = [_format_number(mean) for mean in robustness.mean]
    rows.append(["robust: mean", "", *_pair_cells(means, [""] * len(models))])
    worst = [_format_number(value) for value in robustness.worst_values]
    rows.append(["worst", "", *_pair_cells(worst, [name or "" for name in robustness.worst])])
    note = f"{robustness.samples} of {robustness.of} samples were degraded, in proportion to the classes"
    return Table("degraded copies", note, header, rows, ("degradation",))


def _pair_cells(values: Sequence[str], beside: Sequence[str]) -> list[str]:
    """Puts the cells of each model side by side."""
    return [cell for pair in zip(values, beside, strict=True) for cell in pair]


def tabulate_thresholds(evaluation: Evaluation) -> Table | None:
    """Lists thresholds for the wanted false-positive rate, and what they do here; None where there are none."""
    thresholds = [(model.name, model.threshold) for model in evaluation.models if model.threshold is not None]
    if not thresholds:
        return None
    header = ["model", "wanted fpr", "threshold", "validation fpr", "validation tpr", "fpr here", "tpr here"]
    rows = [[name, *_threshold_cells(one)] for name, one in thresholds]
    positive = evaluation.classes[evaluation.positive]
    sources = "; ".join(f"{name}: {describe_source(one)}" for name, one in thresholds)
    note = f"above it, a sample counts as {positive}. Chosen on each model's own validation samples ({sources})"
    return Table("thresholds", note, header, rows, ("model",))


def describe_source(threshold: Threshold) -> str:
    """Writes what a threshold was chosen on, and how fine it can be."""
    count = threshold.validation_negatives
    fine = f", too few for {threshold.wanted_fpr:g}" if threshold.wanted_fpr * count < 1 else ""
    return f"scores of {threshold.source}, {format_count(count, 'negative')}{fine}"


def _threshold_cells(one: Threshold) -> list[str]:
    """Writes a threshold with its effect."""
    return [
        f"{one.wanted_fpr:g}",
        f"{one.value:.6f}",
        f"{one.validation_fpr:.4f}",
        _format_number(one.validation_tpr),
        "–" if one.fpr is None else f"{one.fpr:.4f} ({one.false_positives} of {one.negatives})",
        "–" if one.tpr is None else f"{one.tpr:.4f} ({one.true_positives} of {one.positives})",
    ]


def _format_number(value: float | None) -> str:
    """Writes a number; a dash where there is none."""
    return "–" if value is None else f"{value:.4f}"
