"""Degradations as data: what they are, and how a file that lists them is read.

To add an operation, write its class in `image_steps`, `video_steps` or `sound_steps`, and name it in the union at the
end of that module.
"""

from collections.abc import Sequence
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Annotated, ClassVar, Self

from pydantic import Field, ValidationError, model_validator

from automl.degradations.image_steps import AnyImageStep
from automl.degradations.sound_steps import AnySoundStep, SoundCodec
from automl.degradations.step import Step
from automl.degradations.video_steps import H264, AnyVideoStep
from automl.errors import SpecError, suggest_name
from automl.files import find_line, load_yaml, shipped
from automl.media.kinds import Medium
from automl.schema import Part, describe_errors


class Degradation(Part):
    """What is done to a file, under a name.

    Attributes:
        medium: What it changes: images, the pictures of videos, or sound.
        applies_to: Media of the files that it can be applied to.
        name: By which it is chosen; of one file, each once.
        steps: Operations, one after the other; of an `ImageDegradation` those of `image_steps`, and so on.
    """

    medium: ClassVar[Medium]
    applies_to: ClassVar[tuple[Medium, ...]]
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=60)]
    steps: tuple[Step, ...]

    @model_validator(mode="after")
    def _check_codecs(self) -> Self:
        """Refuses no steps, and an encoder of videos or sounds anywhere but at the end."""
        if not self.steps:
            raise ValueError(f"{self.name}: steps must list at least one operation")
        for step in self.steps[:-1]:
            if isinstance(step, H264 | SoundCodec):
                raise ValueError(f"{self.name}: {step.operation} must be the last step: it is how the copy is encoded")
        return self


class ImageDegradation(Degradation):
    """A degradation of images."""

    medium: ClassVar[Medium] = "image"
    applies_to: ClassVar[tuple[Medium, ...]] = ("image",)
    steps: tuple[AnyImageStep, ...]


class VideoDegradation(Degradation):
    """A degradation of a video's pictures; its sound stays."""

    medium: ClassVar[Medium] = "video"
    applies_to: ClassVar[tuple[Medium, ...]] = ("video",)
    steps: tuple[AnyVideoStep, ...]


class SoundDegradation(Degradation):
    """A degradation of sound: of a sound file, or of a video's sound track, whose pictures stay."""

    medium: ClassVar[Medium] = "sound"
    applies_to: ClassVar[tuple[Medium, ...]] = ("sound", "video")
    steps: tuple[AnySoundStep, ...]


class _DegradationFile(Part):
    """What a file of degradations holds: a list for each medium."""

    image: tuple[ImageDegradation, ...] = ()
    video: tuple[VideoDegradation, ...] = ()
    sound: tuple[SoundDegradation, ...] = ()

    @model_validator(mode="after")
    def _check_names(self) -> Self:
        """Refuses a name that occurs twice, whatever the media."""
        names = [degradation.name for degradation in self.list_all()]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"each name may occur once; more than once: {', '.join(twice)}")
        return self

    def list_all(self) -> tuple[Degradation, ...]:
        """Lists all degradations, in the order of the media and of the file."""
        return (*self.image, *self.video, *self.sound)


def load_degradations(path: Path | None = None, medium: Medium | None = None) -> tuple[Degradation, ...]:
    """Reads degradations from a YAML file.

    Args:
        path: The file; None: the one that ships, `search_spaces/degradations.yaml`.
        medium: Only those that change images, the pictures of videos, or sound. None: all.

    Returns:
        In the order of the media (image, video, sound) and of the file.

    Raises:
        SpecError: If the file cannot be read, or with every mistake in it, one a line.
    """
    path = shipped("search_spaces", "degradations.yaml") if path is None else path
    values = load_yaml(path)
    if not isinstance(values, dict):
        kind = "an empty file" if values is None else type(values).__name__
        raise SpecError(f"{path}: must hold the lists image, video and sound, or some of them; got {kind}")
    try:
        listed = _DegradationFile.model_validate(values).list_all()
    except ValidationError as exc:
        find = partial(find_line, path)
        raise SpecError(describe_errors(exc, str(path), model=_DegradationFile, find_line=find)) from exc
    return tuple(item for item in listed if medium in (None, item.medium))


def choose_degradations(
    names: Sequence[str], path: Path | None = None, medium: Medium | None = None
) -> tuple[Degradation, ...]:
    """Reads degradations and takes those that are named.

    Args:
        names: Names or wildcards such as `jpeg*`; `*` takes all.
        path: As for `load_degradations`.
        medium: As for `load_degradations`.

    Returns:
        Each once, in the order of the file.

    Raises:
        SpecError: As `load_degradations`, or if a name or wildcard is of none; the message lists which there are.
    """
    known = load_degradations(path, medium)
    listed = [item.name for item in known]
    for name in names:
        if not any(fnmatchcase(other, name) for other in listed):
            kind = "" if medium is None else f" of {medium}s"
            raise SpecError(
                f"no degradation{kind} is named {name!r}{suggest_name(name, listed)}; "
                f"known: {', '.join(listed) or 'none'}"
            )
    return tuple(item for item in known if any(fnmatchcase(item.name, name) for name in names))
