"""`automl evaluate`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from automl.cli.options import WeightsDir, options_from

if TYPE_CHECKING:  # the library is imported late: `automl --help` is instant
    from automl.evaluation.evaluation import Evaluation
    from automl.evaluation.tables import Table

_MISTAKES = 5
_PARTS = 40
"""Rows of a table of values; all stand in the files."""

_NOT_USED = ("validation_fraction", "holdout_fraction", "min_class_samples", "shuffle_labels", "face_model")
_OF_MODEL = ("real_class", "positive_class")


@options_from(
    *("data", "device"), exclude=[f"data.{name}" for name in (*_NOT_USED, *_OF_MODEL)], default="none, name one"
)
def evaluate(
    models: Annotated[
        list[Path], typer.Argument(metavar="MODEL", help="Folders that automl train or automl ensemble wrote.")
    ],
    out: Annotated[
        Path | None, typer.Option(help="Folder for metrics.json, predictions.csv and index.html. Default: none.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier evaluation in it.")] = False,
    split: Annotated[
        str | None, typer.Option(help="Only this split: train, validation, holdout. Default: all samples.")
    ] = None,
    by: Annotated[
        list[str] | None,
        typer.Option(help="Column of the label file, such as generator: each value by itself; may be repeated."),
    ] = None,
    fpr: Annotated[
        float, typer.Option(help="False-positive rate that a threshold is chosen for, on the model's own validation.")
    ] = 0.01,
    tta: Annotated[str, typer.Option(help="Test-time augmentation: none, flip, 5crop.")] = "none",
    rename_label: Annotated[
        list[str] | None,
        typer.Option(metavar="OLD=NEW", help="Class of the model for a label of the data, 1=fake; may be repeated."),
    ] = None,
    ignore_unknown_classes: Annotated[
        bool, typer.Option("--ignore-unknown-classes", help="Leave out classes that the model has not seen.")
    ] = False,
    degrade: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|NAME|all", help="Measure degraded copies too: all, one's own YAML file, or a name as 'jpeg*'."
        ),
    ] = None,
    degrade_samples: Annotated[int, typer.Option(help="Samples that are degraded, at most.")] = 500,
    weights_dir: WeightsDir = None,
    **settings: Any,
) -> None:
    """Measures trained models on a labelled data set, side by side, with intervals and paired tests.

    Example: automl evaluate models/one models/two --data another/ --by generator --out evaluations/another
    """
    import automl
    from automl.cli.json_objects import EvaluateResult
    from automl.cli.json_output import wants_json, write_result
    from automl.cli.progress import SearchProgress

    with SearchProgress("stopping: nothing is written; the same command begins again") as reporter:
        result = automl.evaluate(
            models,
            settings.pop("data", None),
            out=out,
            overwrite=overwrite,
            split=split,
            by=by,
            fpr=fpr,
            tta=tta,
            rename_label=rename_label,
            ignore_unknown_classes=ignore_unknown_classes,
            degrade=degrade,
            degrade_samples=degrade_samples,
            weights_dir=weights_dir,
            reporter=reporter,
            **settings,
        )
    _print_evaluation(result)
    if wants_json():
        folder = None if result.folder is None else str(result.folder)
        write_result(EvaluateResult(folder=folder, **result.to_json()))


def _print_evaluation(result: "Evaluation") -> None:
    """Prints the tables, what could not be computed, the most confident mistakes, and what was written."""
    from automl.cli.output import print_line
    from automl.evaluation import tables

    reported = len(result.samples.notes)
    for line in result.notes[reported:]:
        print_line(f"note: {line}")
    _print_table(tables.tabulate_metrics(result))
    if any(one.metric == result.metric for one in result.comparisons):
        _print_table(tables.tabulate_comparisons(result))
    for model in result.models:
        _print_table(tables.tabulate_classes(result, model))
    if (thresholds := tables.tabulate_thresholds(result)) is not None:
        _print_table(thresholds)
    for name, parts in result.columns.items():
        _print_table(tables.tabulate_parts(result, name, parts[:_PARTS]))
        if len(parts) > _PARTS:
            print_line(f"… and {len(parts) - _PARTS} more values; --out writes all")
    if (degraded := tables.tabulate_robustness(result)) is not None:
        _print_table(degraded)
    for model in result.models:
        if model.mistakes:
            print_line(title=f"\nmost confident mistakes, {model.name}")
            for one in model.mistakes[:_MISTAKES]:
                print_line(f"  {one.label} as {one.predicted} {one.score:.4f}  {one.path}")
    if result.folder is not None:
        for name in ("metrics.json", "predictions.csv", "index.html"):
            print_line(f"written: {result.folder / name}")


def _print_table(table: "Table") -> None:
    """Prints a table below its title, and the line that explains it."""
    from automl.cli.output import print_line, print_table

    print_line(title=f"\n{table.title}")
    print_table(table.header, table.rows, table.words)
    if table.note:
        print_line(table.note)
