"""The flags that say how samples are read and split, as every command has them."""

from pathlib import Path
from typing import Annotated, Any

import typer

_PANEL = "Data"


def _option(help: str) -> Any:
    return typer.Option(help=help, rich_help_panel=_PANEL)


Format = Annotated[str | None, _option("auto (default), folder, table, ffdi, ffdv, demo.")]
FileColumn = Annotated[str | None, _option("Label file: column of file names.")]
LabelColumn = Annotated[str | None, _option("Label file: column of labels.")]
GroupColumn = Annotated[str | None, _option("Label file: samples of one group stay together.")]
Groups = Annotated[
    Path | None, _option("Table of file names and groups that stay together (default: groups.csv beside the data).")
]
FaceModel = Annotated[Path | None, _option("YuNet ONNX file to find faces with (default: the one that pip installed).")]
SplitColumn = Annotated[str | None, _option("Label file: column that names the split.")]
FilesFolder = Annotated[Path | None, _option("Label file: where the files lie (default: below its own folder).")]
RealClass = Annotated[str | None, _option("Class of what is genuine, which self-blending may forge.")]
PositiveClass = Annotated[str | None, _option("Class whose probability is predicted.")]
ValidationFraction = Annotated[float | None, _option("Where no set is given (default 0.2).")]
HoldoutFraction = Annotated[float | None, _option("Kept out, to score on in the end (default 0.1).")]

MinClassSamples = Annotated[int | None, _option("Leave out classes with fewer samples to train on (default: none).")]


def data_keys(**flags: Any) -> dict[str, Any]:
    """The keys of `DataSpec` that were given, of flags by these names; the others are left to the spec and defaults."""
    return {name: value for name, value in flags.items() if value is not None}
