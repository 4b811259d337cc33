"""`automl inspect`."""

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from automl.cli.options import Device, WeightsDir, options_from


@options_from("data.face_model")
def inspect(
    clip: Annotated[Path, typer.Argument(metavar="CLIP", help="A video or a sound file.")],
    out: Annotated[
        Path | None, typer.Option(help="Folder to write to. Default: inspect/ and the name of the clip.")
    ] = None,
    frames: Annotated[int, typer.Option(min=2, max=256, help="Frames to compare, evenly spaced.")] = 64,
    model: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Model or ensemble of clips: its score over time is shown.")
    ] = None,
    device: Device = "auto",
    weights_dir: WeightsDir = None,
    **settings: Any,
) -> None:
    """Writes a page about one clip: frames, faces, what is unusual from one to the next, and the sound.

    The page opens without a network; of a video, its frames are written as a PNG too. With --model, it shows where in
    the clip a trained model sees what it was trained to see.

    Example: automl inspect clip.mp4 --frames 128 --model models/ffdv
    """
    from automl.cli.json_objects import InspectResult
    from automl.cli.json_output import write_result
    from automl.cli.output import make_console
    from automl.inspection.page import inspect_clip

    face_model = settings.get("face_model")
    with make_console(stderr=True).status("looking"):
        folder = out or Path("inspect") / clip.name
        page = inspect_clip(clip, folder, frames, str(face_model) if face_model else None, model, device, weights_dir)
    sheet = None if page.sheet is None else str(page.sheet)
    write_result(InspectResult(page=str(page.page), sheet=sheet, lines=list(page.lines)))
    for line in page.lines:
        typer.echo(line)
    for written in (page.page, page.sheet):
        if written is not None:
            typer.echo(os.fsencode(written))  # a clip's name need not be UTF-8
