"""`automl inspect`."""

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from automl.cli.options import Device, WeightsDir, options_from


@options_from("data.face_model")
def inspect(
    path: Annotated[
        Path, typer.Argument(metavar="IMAGE|CLIP|FOLDER", help="An image, a video, a sound, or a folder of them.")
    ],
    out: Annotated[
        Path | None, typer.Option(help="Folder to write to. Default: inspect/ and the path of the file or folder.")
    ] = None,
    frames: Annotated[int, typer.Option(min=2, max=256, help="Frames of a clip to compare, evenly spaced.")] = 64,
    model: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Model or ensemble: where it sees something. Clips can do without one."),
    ] = None,
    most: Annotated[int, typer.Option(min=1, max=500, help="Files of a folder that are shown.")] = 48,
    check: Annotated[
        bool,
        typer.Option("--check/--no-check", help="Check the maps of a file by blurring 49 patches of each picture."),
    ] = True,
    device: Device = "auto",
    weights_dir: WeightsDir = None,
    **settings: Any,
) -> None:
    """Writes a page with heat maps: where in an image, a clip or the files of a folder a model sees something.

    A folder becomes a contact sheet, the most suspicious files first. Of a clip, the page also shows frames, faces,
    what is unusual from one to the next, and the sound; that needs no model. Pages open without a network.

    Example: automl inspect photo.jpg --model models/photos
    """
    from automl.cli.json_objects import InspectResult
    from automl.cli.json_output import write_result
    from automl.cli.output import progress_bar
    from automl.errors import DataError, SpecError
    from automl.inspection.page import inspect_clip, is_image
    from automl.media.kinds import find_medium_at

    # in the folders that the file lies in: real/1.png and fake/1.png are two
    inside = not path.is_absolute() and ".." not in path.parts and path.name
    folder = out or Path("inspect") / (path if inside else Path(*path.resolve().parts[-2:]))
    if path.is_file() and find_medium_at(path) is None:
        raise DataError(f"{path} is no image, video or sound")
    how = device, weights_dir
    if not path.is_dir() and not is_image(path):
        face_model = settings.get("face_model")
        page = inspect_clip(
            path,
            folder,
            frames,
            str(face_model) if face_model else None,
            model,
            *how,
            check=check,
            show_progress=progress_bar,
        )
    elif model is None:
        what = "a folder" if path.is_dir() else "an image"
        raise SpecError(
            f"{path} is {what}: a heat map needs a trained model; give --model DIR, a folder that automl train wrote"
        )
    else:
        from automl.inspection.picture_page import inspect_folder, inspect_image

        if path.is_dir():
            page = inspect_folder(path, folder, model, *how, most=most, show_progress=progress_bar)
        else:
            page = inspect_image(path, folder, model, *how, check=check, show_progress=progress_bar)
    sheet = None if page.sheet is None else str(page.sheet)
    write_result(InspectResult(page=str(page.page), sheet=sheet, lines=list(page.lines)))
    for line in page.lines:
        typer.echo(line)
    for written in (page.page, page.sheet):
        if written is not None:
            typer.echo(b"written: " + os.fsencode(written))  # a clip's name need not be UTF-8
