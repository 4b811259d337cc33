"""The flags that say how samples are read and split, as every command has them."""

from typing import Annotated, Any

import typer

__all__ = [
    "FileColumn",
    "Format",
    "GroupColumn",
    "HoldoutFraction",
    "LabelColumn",
    "PositiveClass",
    "RealClass",
    "SplitColumn",
    "ValidationFraction",
    "data_keys",
]

_PANEL = "Data"


def _option(help: str) -> Any:
    return typer.Option(help=help, rich_help_panel=_PANEL)


Format = Annotated[str | None, _option("auto (default), folder, table, ffdi, demo.")]
FileColumn = Annotated[str | None, _option("Label file: column of file names.")]
LabelColumn = Annotated[str | None, _option("Label file: column of labels.")]
GroupColumn = Annotated[str | None, _option("Label file: samples of one group stay together.")]
SplitColumn = Annotated[str | None, _option("Label file: column that names the split.")]
RealClass = Annotated[str | None, _option("Class of genuine images, which self-blending may forge.")]
PositiveClass = Annotated[str | None, _option("Class whose probability is predicted.")]
ValidationFraction = Annotated[float | None, _option("Where no set is given (default 0.2).")]
HoldoutFraction = Annotated[float | None, _option("Kept out, to score on in the end (default 0.1).")]


def data_keys(**flags: Any) -> dict[str, Any]:
    """The keys of `DataSpec` that were given, of flags by these names; the others are left to the spec and defaults."""
    return {name: value for name, value in flags.items() if value is not None}
