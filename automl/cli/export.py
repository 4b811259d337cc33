"""`automl export`: a recipe or a trained model for other programs."""

import sys
from pathlib import Path
from typing import Annotated

import typer


def export(
    what: Annotated[
        str | None,
        typer.Argument(
            help="Model folder, study or recipe file (default: the latest study's confirmed or best recipe)."
        ),
    ] = None,
    format: Annotated[
        str, typer.Option(help="yaml, json, python, timm: the recipe; onnx, torch: the network of a model folder.")
    ] = "yaml",
    out: Annotated[
        Path | None,
        typer.Option(help="File to write (default: text is printed, a network goes into its model folder)."),
    ] = None,
    check_data: Annotated[
        Path | None,
        typer.Option(help="onnx, torch: compare with PyTorch on up to 200 images of this folder, not on noise."),
    ] = None,
    runs: Annotated[Path, typer.Option(help="Folder that holds the studies.")] = Path("runs"),
) -> None:
    """Export a recipe, or a trained model, for other programs.

    Example: automl export models/ffdi --format onnx --check-data ffdi/valset
    """
    from automl.exporters.export import export as write

    found = write(what, format, out, runs=runs, check_data=check_data)
    if found.path is None:
        sys.stdout.write(found.text or "")
        return
    print(f"wrote {found.path}")
    if found.difference is not None:
        kind = "images" if found.real else "images of noise"
        print(f"largest difference in probability from PyTorch: {found.difference:.2g} on {found.images} {kind}")
