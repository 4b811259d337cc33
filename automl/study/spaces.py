"""Search spaces as studies open them: the usual one for the data, with the data's face detector in its views."""

from pathlib import Path

from automl.errors import SpaceError
from automl.media.kinds import Medium
from automl.space.nodes import Branches, Constant
from automl.space.space import Space, load_space
from automl.spec import StudySpec
from automl.views.base import BaseView
from automl.views.registry import View, make_view

SPACES: dict[Medium, str] = {"image": "image", "video": "video", "sound": "audio"}
"""The shipped search space for each kind of files."""


def open_space(spec: StudySpec, media: Medium) -> Space:
    """Loads the search space of a study: the named one, or for `auto` the shipped one for its files and backbones."""
    usual = "encoders" if media == "image" and spec.pool.encoders == "only" else SPACES[media]
    space = load_space(usual if spec.space == "auto" else spec.space)
    for view in list_views(space):
        if view.media != media and (view.media, media) != ("sound", "video"):  # videos hold sound, too
            raise SpaceError(
                f"{space.source}: view {view.name} looks at {view.media}s, and the data are {media}s; "
                f"give --space {SPACES[media]}, or leave out --space"
            )
    return enter_face_model(space, spec.data.face_model)


def list_views(space: Space) -> list[View]:
    """Makes one of each view that a space can draw, with the first of its options."""
    return [make_view(values) for values in space.list_views()]


def usual_image_size(space: Space) -> int:
    """Returns the middle one of the image sizes that a space can draw, in pixels."""
    sizes = space.image_sizes()
    return sizes[len(sizes) // 2]


def enter_face_model(space: Space, face_model: Path | None) -> Space:
    """Enters the data's face detector into the views of a space that look for faces and name none themselves."""
    views = space.root.children["view"]
    if face_model is not None and isinstance(views, Branches):
        for branch in views.branches.values():
            known = branch.children.get("face_model")
            if isinstance(known, Constant) and known.value is None:
                branch.children["face_model"] = Constant(str(face_model.expanduser().absolute()))
    return space


def describe_view(view: BaseView) -> str:
    """Returns the name of what is decoded for a view."""
    return "images" if view.media == "image" else f"view {view.name}"
