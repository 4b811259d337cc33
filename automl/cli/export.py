"""`automl export`."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from automl.cli.options import Runs, WeightsDir


def export(
    source: Annotated[
        str | None,
        typer.Argument(
            help="Model folder, study or recipe file. Default: the latest study's confirmed or best recipe."
        ),
    ] = None,
    format: Annotated[
        str, typer.Option(help="yaml, json, python, timm: the recipe; onnx, torch: the network of a model folder.")
    ] = "yaml",
    out: Annotated[
        Path | None,
        typer.Option(help="File to write. Default: text is printed, a network goes into its model folder."),
    ] = None,
    check_data: Annotated[
        Path | None,
        typer.Option(
            help="onnx, torch: compare with PyTorch on up to 200 images of this folder. Default: on images of noise."
        ),
    ] = None,
    runs: Runs = Path("runs"),
    weights_dir: WeightsDir = None,
) -> None:
    """Exports a recipe, or a trained model, for other programs.

    Example: automl export models/ffdi --format onnx --check-data ffdi/valset
    """
    import automl
    from automl.cli.json_objects import ExportResult
    from automl.cli.json_output import write_result

    exported = automl.export(source, format=format, out=out, runs=runs, check_data=check_data, weights_dir=weights_dir)
    result = ExportResult(
        format=format,
        path=None if exported.path is None else str(exported.path),
        text=exported.text if exported.path is None else None,
        difference=exported.difference,
        images=exported.images,
        real=exported.real,
    )
    write_result(result)
    if exported.path is None:
        sys.stdout.write(exported.text or "")
        return
    print(f"wrote {exported.path}")
    if exported.difference is not None:
        kind = "images" if exported.real else "images of noise"
        print(f"largest difference in probability from PyTorch: {exported.difference:.2g} on {exported.images} {kind}")
