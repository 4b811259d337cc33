"""`automl predict`."""

from pathlib import Path
from typing import Annotated

import typer

from automl.cli.options import Device, WeightsDir


def predict(
    model: Annotated[Path, typer.Argument(help="Folder that automl train wrote: a model, or an ensemble.")],
    data: Annotated[
        Path,
        typer.Option(
            help="Folder of images or clips, FFDI or FFDV root (its testset/), label file or sample submission."
        ),
    ],
    out: Annotated[Path, typer.Option(help="CSV file to write.")] = Path("submission.csv"),
    tta: Annotated[str, typer.Option(help="Test-time augmentation: none, flip, 5crop.")] = "none",
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Images in a forward pass, at most. Default: what fits.")
    ] = None,
    device: Device = "auto",
    weights_dir: WeightsDir = None,
    column: Annotated[
        str | None, typer.Option(help="Column of the prediction. Default: the sample submission's, or y_pred.")
    ] = None,
    file_column: Annotated[
        str | None, typer.Option(help="Label file: column of file names. Default: recognised.")
    ] = None,
) -> None:
    """Predicts images or clips into a CSV file to submit, a row each. Labels in the label file do not count.

    Example: automl predict models/ffdi --data ffdi/testset --out submission.csv --tta flip
    """
    import automl
    from automl.cli.json_objects import PredictResult
    from automl.cli.json_output import write_result
    from automl.cli.progress import SearchProgress
    from automl.models.predict import predict as write_predictions
    from automl.units import format_count

    with SearchProgress("stopping: nothing is written; the same command begins again") as reporter:
        written = write_predictions(
            automl.load(model, device, weights_dir),
            data,
            out,
            tta=tta,
            batch_size=batch_size,
            column=column,
            file_column=file_column,
            reporter=reporter,
        )
        reporter.print_line(
            f"written: {written.path} ({format_count(written.rows, 'row')}: {', '.join(written.columns)})"
        )
    result = PredictResult(
        path=str(written.path), rows=written.rows, columns=list(written.columns), unreadable=written.unreadable
    )
    write_result(result)
