"""`automl inspect`: one clip, looked at."""

import os
from functools import partial
from pathlib import Path
from typing import Annotated

import typer


def inspect(
    clip: Annotated[Path, typer.Argument(metavar="CLIP", help="A video or a sound file.")],
    out: Annotated[
        Path | None, typer.Option(help="Folder to write to. Default: inspect/ and the name of the clip.")
    ] = None,
    frames: Annotated[int, typer.Option(min=2, max=256, help="How many frames are compared, evenly placed.")] = 64,
    face_model: Annotated[
        Path | None, typer.Option(help="YuNet ONNX file. Default: the one that pip installed.")
    ] = None,
    model: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder that automl train wrote of clips, a model or an ensemble: its score over time is shown.",
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="Of the model: auto, cpu, cuda, cuda:1.")] = "auto",
) -> None:
    """Write a page about one clip: frames, faces, what is unusual from one to the next, and the sound.

    The page opens without a network; of a video, its frames are written as a PNG too. With --model, it shows where in
    the clip a trained model sees what it was trained to see.

    Example: automl inspect clip.mp4 --frames 128 --model models/ffdv
    """
    from rich.console import Console

    from automl.inspection.page import inspect_clip

    with Console(stderr=True).status("looking"):
        score = None
        if model is not None:
            from automl.inspection.score_timeline import clip_moments, open_members
            from automl.models.fused import join_of

            members = open_members(model, device)
            score = partial(clip_moments, members, join=join_of(model.expanduser(), members))
        folder = out or Path("inspect") / clip.name
        done = inspect_clip(clip, folder, frames, str(face_model) if face_model else None, score)
    for line in done.lines:
        typer.echo(line)
    for written in (done.page, done.sheet):
        if written is not None:
            typer.echo(os.fsencode(written))  # a clip's name need not be UTF-8
