"""`automl preview`."""

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from automl.cli.options import options_from


@options_from("data", "space", "seed", exclude=("data.drop_copies", "data.shuffle_labels"))
def preview(
    recipe: Annotated[
        Path | None,
        typer.Option(help="Recipe file whose augmentations are shown. Default: those of the search space."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder to write to. Default: preview/ and the name of the data.")
    ] = None,
    samples: Annotated[int, typer.Option(help="Samples that are shown.")] = 16,
    **settings: Any,
) -> None:
    """Shows in pictures what training does to your data: each augmentation alone, and all of them together.

    Writes a page that opens without a network, and a PNG for each view. Nothing is trained; only what is shown is read.

    Example: automl preview --data photos/ --recipe runs/photos/best.yaml
    """
    import automl
    from automl.cli.json_objects import PreviewResult
    from automl.cli.json_output import write_result
    from automl.cli.progress import SearchProgress

    with SearchProgress() as reporter:
        made = automl.preview(
            settings.pop("data", None), recipe=recipe, out=out, samples=samples, reporter=reporter, **settings
        )
    for line in made.lines:
        typer.echo(line)
    for path in (made.page, *made.sheets):
        typer.echo(b"written: " + os.fsencode(path))
    write_result(PreviewResult(page=str(made.page), sheets=list(map(str, made.sheets)), lines=list(made.lines)))
