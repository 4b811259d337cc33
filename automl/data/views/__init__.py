"""Views: how a video or a sound becomes images.

`frame`, `face` and `motion` look at the pictures of a video, `mel` and `audio_features` at its sound. A view is chosen
by its `name`, in YAML as in a search space: `{name: face, count: 8, margin: 1.3}`.
"""

from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError

from automl.data.views.audio_features import AudioFeatures
from automl.data.views.base import NothingToSee, View, ViewImages
from automl.data.views.face import Face
from automl.data.views.frame import Frame
from automl.data.views.mel import Mel
from automl.data.views.motion import Motion
from automl.errors import SpecError
from automl.recipe import describe_errors

__all__ = [
    "AudioFeatures",
    "Face",
    "Frame",
    "Mel",
    "Motion",
    "NothingToSee",
    "View",
    "ViewChoice",
    "ViewImages",
    "make_view",
]

ViewChoice = Annotated[Frame | Face | Motion | Mel | AudioFeatures, Field(discriminator="name")]
"""Any view; `name` says which."""

_ADAPTER: TypeAdapter[ViewChoice] = TypeAdapter(ViewChoice)


def make_view(values: dict[str, Any]) -> ViewChoice:
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
