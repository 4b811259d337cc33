"""Figures of an evaluation: numbers in, Plotly figures out, and a sentence that says what each one shows."""

import html
from collections.abc import Sequence
from typing import Any

import numpy as np

from automl.errors import shorten
from automl.evaluation.breakdown import Part
from automl.evaluation.evaluation import Evaluation
from automl.evaluation.measures import sign_of
from automl.evaluation.tables import describe_calibration
from automl.pages.figures import DASHES, Chart, cut_name, import_graphs, make_figure, make_line
from automl.units import format_count

_ROW = 26  # pixels of a row of a dot plot
_CLASSES_SHOWN = 20
_VALUES_SHOWN = 3  # that share a figure


def draw_roc(evaluation: Evaluation) -> Chart | None:
    """Draws the ROC curves over a logarithmic axis of false positives; None where there are none."""
    curves = [(model.name, model.roc) for model in evaluation.models if model.roc is not None]
    if not curves:
        return None
    negatives = int((evaluation.samples.labels != evaluation.positive).sum())
    figure = make_figure("false-positive rate", "true-positive rate")
    for k, (name, curve) in enumerate(curves):
        # a logarithm has no 0: the first point is half a false positive
        fpr = np.maximum(curve.fpr, 0.5 / negatives)
        hover = "%{y:.3f} at %{x:.4f}"
        figure.add_trace(make_line(k, name, x=fpr, y=curve.tpr, mode="lines", hovertemplate=hover))
    figure.update_xaxes(type="log", dtick=1, range=[np.log10(0.5 / negatives), 0])
    figure.update_yaxes(range=[-0.02, 1.02])
    rates = []
    for model in evaluation.models:
        one, other = (model.measured.values[name].value for name in ("tpr_at_fpr", "tpr_at_fpr_0.01"))
        rates.append(f"{model.name} finds {one:.1%} at a false-positive rate of 0.001 and {other:.1%} at 0.01")
    return Chart("ROC curve", f"{_join(rates)}.", figure)


def draw_scores(evaluation: Evaluation) -> Chart | None:
    """Draws how the scores of each class are spread, by model; None of more than two classes."""
    if not evaluation.binary:
        return None
    positive, labels = evaluation.positive, evaluation.samples.labels
    name = evaluation.classes[positive]
    figure = make_figure(f"probability of class {html.escape(name, quote=False)}", "share of the class")
    edges = np.linspace(0, 1, 41)
    for k, model in enumerate(evaluation.models):
        for label, other in enumerate(evaluation.classes):
            scores = model.probabilities[labels == label, positive]
            if not len(scores):
                continue
            share = np.histogram(scores, edges)[0] / len(scores)
            trace = make_line(
                k if len(evaluation.models) > 1 else label, f"{model.name}: {other}", x=edges, y=[*share, share[-1]]
            )
            trace.update(mode="lines", line_shape="hv", line_dash=DASHES[label], hovertemplate="%{x:.2f}: %{y:.3f}")
            figure.add_trace(trace)
    medians = [
        f"{model.name} gives half of the samples of class {other} a score "
        f"{_describe_bound(float(np.median(model.probabilities[labels == label, positive])))}"
        for model in evaluation.models
        for label, other in enumerate(evaluation.classes)
        if (labels == label).any()
    ]
    return Chart("Scores of each class", f"{_join(medians)}.", figure)


def _describe_bound(score: float) -> str:
    """Writes above what a score is, or below what, where two digits would say 0 or 1."""
    if score < 0.005:
        return "of less than 0.01"
    return "above 0.99" if score >= 0.995 else f"above {score:.2f}"


def draw_calibration(evaluation: Evaluation) -> Chart:
    """Draws the reliability curve."""
    figure = make_figure("confidence: probability of the predicted class", "share predicted right")
    low = 1 / len(evaluation.classes)
    diagonal = {"x": [low, 1], "y": [low, 1], "mode": "lines", "hoverinfo": "skip", "name": "perfect"}
    figure.add_trace(import_graphs().Scatter(line={"color": "#888888", "width": 1, "dash": "dash"}, **diagonal))
    sentences = []
    for k, model in enumerate(evaluation.models):
        bins = model.calibration.bins
        figure.add_trace(
            make_line(
                k,
                model.name,
                x=[each.confidence for each in bins],
                y=[each.accuracy for each in bins],
                mode="lines+markers",
                customdata=[each.samples for each in bins],
                hovertemplate="%{x:.3f} sure, %{y:.3f} right, %{customdata} samples",
            )
        )
        sure = float(np.mean(model.probabilities.max(axis=1))) - model.measured.values["accuracy"].value
        sentences.append(describe_calibration(model.name, sure, model.calibration.temperature))
    return Chart("Calibration", f"{_join(sentences)}.", figure)


def draw_confusion(evaluation: Evaluation, number: int) -> Chart | None:
    """Draws a model's confusion matrix; None of more than 20 classes, whose cells nobody can read."""
    model, names = evaluation.models[number], evaluation.classes
    if len(names) > _CLASSES_SHOWN:
        return None
    counts = np.array(model.confusion)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure = make_figure("predicted", "truth")
    shown = [html.escape(name, quote=False) for name in names]
    figure.add_trace(
        import_graphs().Heatmap(
            x=shown, y=shown, z=shares, zmin=0, zmax=1, colorscale="Blues", showscale=False, text=counts,
            texttemplate="%{text}", hovertemplate="%{y} predicted as %{x}: %{text}<extra></extra>",
        )
    )  # fmt: skip
    figure.update_xaxes(type="category")
    figure.update_yaxes(type="category", autorange="reversed")
    figure.update_layout(height=180 + 60 * len(names))
    wrong = int(counts.sum() - np.trace(counts))
    off = counts - np.diag(np.diag(counts))
    true, predicted = divmod(int(off.argmax()), len(names))
    most = f", most often class {names[true]} as {names[predicted]} ({off[true, predicted]})" if wrong else ""
    sentence = f"{model.name} predicts {wrong} of {counts.sum()} samples wrong{most}."
    return Chart(f"Confusion matrix of {model.name}", sentence, figure)


def draw_parts(evaluation: Evaluation, column: str, parts: Sequence[Part]) -> Chart:
    """Draws the metric of each value of a column, with intervals, the worst of the first model at the bottom."""
    sign = sign_of(evaluation.metric)
    known = [part for part in parts if part.metrics[0] is not None]
    ordered = sorted(known, key=lambda part: sign * (part.metrics[0].value if part.metrics[0] else 0.0))
    rows = [[part.metrics[k] for part in ordered] for k in range(len(evaluation.models))]
    figure = draw_dots(evaluation, [part.value for part in ordered], rows)
    sentence = "No value can be measured."
    if ordered:
        shown = [(part.value, f"{part.metrics[0].value:.3f}") for part in ordered if part.metrics[0]]
        sentence = f"{evaluation.models[0].name}: {evaluation.metric} {_describe_range(column, shown)}."
    return Chart(f"By {column}", sentence, figure)


def _describe_range(column: str, shown: Sequence[tuple[str, str]]) -> str:
    """Writes the ends of a column's values with their figures, in order, and of each end all values that share it."""
    ends = []
    for figure in dict.fromkeys((shown[0][1], shown[-1][1])):
        names = [name for name, other in shown if other == figure]
        several = f"{format_count(len(names), 'value')}: {shorten(names, _VALUES_SHOWN)}"
        ends.append(f"{figure} ({column} {names[0]})" if len(names) == 1 else f"{figure} ({several})")
    return f"from {ends[0]} to {ends[1]}" if len(ends) > 1 else ends[0]


def draw_robustness(evaluation: Evaluation) -> Chart | None:
    """Draws the metric of each degradation, the clean samples at the top; None where none were tried."""
    robustness = evaluation.robustness
    if robustness is None:
        return None
    names = [*(one.name for one in reversed(robustness.degradations)), "clean"]
    rows = [
        [*(one.metrics[k] for one in reversed(robustness.degradations)), robustness.clean[k]]
        for k in range(len(evaluation.models))
    ]
    sentences = [
        f"{model.name}: {evaluation.metric} {clean.value:.3f} clean, {mean:.3f} on average over "
        f"{format_count(len(names) - 1, 'degradation')}, {value:.3f} on the worst ({worst})"
        for model, clean, mean, worst, value in zip(
            evaluation.models, robustness.clean, robustness.mean, robustness.worst, robustness.worst_values, strict=True
        )
        if clean is not None and mean is not None and value is not None
    ]
    return Chart("Degraded copies", f"{_join(sentences)}.", draw_dots(evaluation, names, rows))


def draw_dots(evaluation: Evaluation, names: Sequence[str], rows: Sequence[Sequence[Any]]) -> Any:
    """Draws a row for each name, and in it a dot with an interval for each model; `rows` has Value or None by model."""
    figure = make_figure(evaluation.metric, "")
    positions, shown = range(len(names)), [cut_name(name) for name in names]
    for k, (model, values) in enumerate(zip(evaluation.models, rows, strict=True)):
        known = [(position, value) for position, value in zip(positions, values, strict=True) if value is not None]
        points = np.array([value.value for _, value in known])
        lows = [value.value - (value.low if value.low is not None else value.value) for _, value in known]
        highs = [(value.high if value.high is not None else value.value) - value.value for _, value in known]
        shift = 0.16 * (k - (len(rows) - 1) / 2)
        trace = make_line(k, model.name, x=points, y=[position - shift for position, _ in known], mode="markers")
        trace.error_x = {"type": "data", "array": highs, "arrayminus": lows, "thickness": 1.5, "width": 3}
        trace.update(marker_size=9, text=[shown[position] for position, _ in known])
        trace.update(hovertemplate="%{text}: %{x:.4f}")
        figure.add_trace(trace)
    figure.update_yaxes(tickvals=list(positions), ticktext=shown, automargin=True)
    figure.update_layout(height=150 + _ROW * len(names) * max(1, len(rows) // 2))
    return figure


def _join(parts: Sequence[str]) -> str:
    """Joins parts of a sentence."""
    return "; ".join(parts)
