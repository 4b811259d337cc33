"""All views: to add one, write its class in a module of this package and name it in `View`."""

from pathlib import Path
from typing import Annotated, Any, get_args

from pydantic import Field, TypeAdapter, ValidationError

from automl.errors import SpecError
from automl.schema import describe_errors
from automl.views.audio_features import AudioFeatures
from automl.views.base import BaseView, ViewImages, WholeImage
from automl.views.face import Face
from automl.views.frame import Frame
from automl.views.mel import Mel
from automl.views.motion import Motion

View = Annotated[WholeImage | Frame | Face | Motion | Mel | AudioFeatures, Field(discriminator="name")]

VIEWS: tuple[type[BaseView], ...] = get_args(get_args(View)[0])

_ADAPTER: TypeAdapter[View] = TypeAdapter(View)


def make_view(values: dict[str, Any]) -> View:
    """Makes a view of its `name` and parameters; those left out have their defaults. All mistakes are one SpecError."""
    try:
        return _ADAPTER.validate_python(values)
    except ValidationError as exc:
        raise SpecError(describe_errors(exc, "view")) from exc


def make_images(view: BaseView, path: Path, size: int) -> ViewImages:
    """Makes the images of a file: what a decoder (`automl.media.decoding`) is asked for; see `BaseView.make_images`."""
    return view.make_images(path, size)
