"""Views: how a video or a sound becomes images.

The parameters of each view, by which a recipe and a search space name it, are in `parameters`; what makes its
images is here, one module a view. The same file and parameters give the same images each time.
"""

import json
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from automl.errors import SpecError
from automl.schema import describe_errors
from automl.views.audio_features import features_picture
from automl.views.base import Pixels, ViewImages, stacked
from automl.views.face import face_images
from automl.views.face_detector import model_digest
from automl.views.frame import frame_images
from automl.views.mel import mel_picture
from automl.views.motion import motion_images
from automl.views.parameters import (
    AudioFeatures,
    ClipView,
    Face,
    FaceChoices,
    Frame,
    Mel,
    Motion,
    SoundView,
    View,
    ViewPart,
)
from automl.views.sound_parts import Samples, parts

_ADAPTER: TypeAdapter[View] = TypeAdapter(View)


def make_view(values: dict[str, Any]) -> View:
    """Makes a view of its name and parameters.

    Args:
        values: `name` and any parameters of that view; those left out have their defaults.

    Raises:
        SpecError: If there is no such view, or a parameter is unknown or out of its bounds; all mistakes are listed.
    """
    try:
        return _ADAPTER.validate_python(values)
    except ValidationError as exc:
        raise SpecError(describe_errors(exc, "view")) from exc


def view_key(view: ViewPart) -> str:
    """All parameters that decide the pixels, in one line, the same in every process: it names the cache's entry."""
    left_out = {"normalize"}
    if isinstance(view, Motion) and view.of == "frame":  # then what is said of faces decides nothing
        left_out |= set(FaceChoices.model_fields) - set(ClipView.model_fields)
    values = view.model_dump(mode="json", exclude=left_out)
    if "face_model" in values:
        values["face_model"] = model_digest(values["face_model"])
    return json.dumps({"version": view.version, **values}, sort_keys=True)


def view_images(view: ViewPart, path: Path, size: int) -> ViewImages:
    """Makes the images of a file.

    Args:
        view: Any view of clips.
        path: A video or sound file.
        size: Pixels of each side of the images.

    Returns:
        At least one image. The same file gives the same images.

    Raises:
        NothingToSee: If the file holds nothing for this view.
        DataError: If the file cannot be read.
    """
    match view:
        case Frame():
            return frame_images(view, path, size)
        case Face():
            return face_images(view, path, size)
        case Motion():
            return motion_images(view, path, size)
        case SoundView():
            return _sound_images(view, path, size)
    raise TypeError(f"not a view of clips: {view!r}")


def _sound_images(view: SoundView, path: Path, size: int) -> ViewImages:
    """A picture of each part of a clip's sound."""
    images, times = [], []
    for time, samples in parts(path, view.sample_rate_hz, view.seconds, view.count):
        images.append(sound_picture(view, samples, size))
        times.append(time)
    return stacked(images, times, [])


def sound_picture(view: SoundView, samples: Samples, size: int) -> Pixels:
    """Draws one part of a sound; see `mel_picture`."""
    match view:
        case Mel():
            return mel_picture(view, samples, size)
        case AudioFeatures():
            return features_picture(view, samples, size)
    raise TypeError(f"not a view of sound: {view!r}")
