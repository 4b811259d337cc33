"""The page of an evaluation: one HTML file that opens without a network, in light and dark, on a phone too.

It is rendered by `page.html.jinja`; everything that names of files, classes and columns say is escaped.
"""

from pathlib import Path

from automl.evaluation.charts import (
    draw_calibration,
    draw_confusion,
    draw_parts,
    draw_robustness,
    draw_roc,
    draw_scores,
)
from automl.evaluation.evaluation import Evaluation, ModelFigures
from automl.evaluation.tables import (
    Table,
    tabulate_classes,
    tabulate_comparisons,
    tabulate_metrics,
    tabulate_parts,
    tabulate_robustness,
    tabulate_thresholds,
)
from automl.pages.figures import Chart
from automl.pages.templates import render_template
from automl.pages.thumbnails import make_thumbnails


def render_page(evaluation: Evaluation) -> str:
    """Makes the text of the page."""
    mistakes = [each.path for model in evaluation.models for each in model.mistakes]
    images = make_thumbnails(mistakes) if evaluation.samples.media == "image" else {}
    return render_template(
        Path(__file__).with_name("page.html.jinja"),
        evaluation=evaluation,
        name=evaluation.samples.root.name,
        models=[_ModelSection(evaluation, model, number) for number, model in enumerate(evaluation.models)],
        summary=describe_result(evaluation),
        metrics=tabulate_metrics(evaluation),
        comparisons=tabulate_comparisons(evaluation, every=True) if evaluation.comparisons else None,
        charts=[chart for chart in (draw_roc(evaluation), draw_scores(evaluation)) if chart is not None],
        calibration=draw_calibration(evaluation),
        thresholds=tabulate_thresholds(evaluation),
        parts=[
            (draw_parts(evaluation, name, parts), tabulate_parts(evaluation, name, parts))
            for name, parts in evaluation.columns.items()
        ],
        robustness=draw_robustness(evaluation),
        degradations=tabulate_robustness(evaluation),
        images=images,
    )


def describe_result(evaluation: Evaluation) -> list[str]:
    """Writes what is most to be known, in sentences."""
    counts = [f"{one.support} of class {one.name}" for one in evaluation.models[0].classes]
    lines = [f"{len(evaluation.samples.table)} {evaluation.samples.media} files: {', '.join(counts)}."]
    for model in evaluation.models:
        value = model.measured.values[evaluation.metric]
        interval = f", 95 % interval {value.low:.4f} to {value.high:.4f}" if value.low is not None else ""
        lines.append(f"{model.name}: {evaluation.metric} {value.value:.4f}{interval}.")
    return lines


class _ModelSection:
    """What the page shows of one model alone."""

    def __init__(self, evaluation: Evaluation, model: ModelFigures, number: int) -> None:
        self.model = model
        self.confusion: Chart | None = draw_confusion(evaluation, number)
        self.classes: Table = tabulate_classes(evaluation, model)
