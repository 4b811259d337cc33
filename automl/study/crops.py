"""What a network is shown of long pictures: told before a search, and chosen for its first recipes."""

from collections.abc import Mapping, Sequence
from typing import Any

from automl.data.picture_shapes import cut_off_note, mostly_long
from automl.media.kinds import Medium
from automl.space.nodes import Branches, Choice, Constant, Group
from automl.space.space import Space
from automl.views.parameters import Frame, View

_CROP, _FIT, _WHOLE = "augmentation.crop", "view.frame.fit", "squash"
Sizes = Sequence[tuple[int, int]]


def describe_crops(space: Space, sizes: Sizes, media: Medium = "image") -> str | None:
    """Says how much of the pictures is not seen, or that all of it is.

    Args:
        space: What may vary.
        sizes: (width, height) of pictures of the data.
        media: What kind of files they are of: of videos, the frame view alone cuts without looking.

    Returns:
        One line; None where it is not worth one.
    """
    name, choices = _CROP, _crops(space)
    if media != "image":
        name, choices = _FIT, _fits(space)
    note = cut_off_note(sizes, f"{media}s")
    if note is None or not choices or choices == (_WHOLE,):
        return None
    if _WHOLE not in choices:
        return f"warning: {note}, and {name} of {space.source} has {', '.join(choices)}; {_WHOLE} would show all of it"
    known = "the first recipes have" if mostly_long(sizes) else "the search may draw"
    return f"{note}; {known} {name} {_WHOLE}, which shows all of it"


def first_crops(space: Space, sizes: Sizes, media: Medium, params: Mapping[str, Any]) -> dict[str, Any]:
    """Shows all of the pictures to a known-good recipe, where most of them are long and the space can.

    Args:
        space: What may vary.
        sizes: (width, height) of pictures of the data.
        media: What kind of files they are of.
        params: The recipe as Optuna parameters (`Space.enqueued`).

    Returns:
        The parameters, with another crop, of videos another fit of the frame view, or as they were.
    """
    found = dict(params)
    if not mostly_long(sizes):
        return found
    if media == "image" and _can_choose(_crops(space)):
        return {key: value for key, value in found.items() if not key.startswith(f"{_CROP}.")} | {_CROP: _WHOLE}
    if _FIT in found and _can_choose(_fits(space)):
        found[_FIT] = _WHOLE
    return found


def first_view(space: Space, sizes: Sizes, view: View) -> View:
    """The view as the first recipes have it, by the same rule as `first_crops`."""
    if isinstance(view, Frame) and mostly_long(sizes) and _can_choose(_fits(space)):
        return view.model_copy(update={"fit": _WHOLE})
    return view


def _can_choose(choices: tuple[str, ...]) -> bool:
    return len(choices) > 1 and _WHOLE in choices


def _crops(space: Space) -> tuple[str, ...]:
    """The crops of images that a space can draw."""
    augmentation = space.root.children.get("augmentation")
    crop = augmentation.children.get("crop") if isinstance(augmentation, Group) else None
    return tuple(crop.branches) if isinstance(crop, Branches) else ("resize",)


def _fits(space: Space) -> tuple[str, ...]:
    """What a space's frame view can show of a frame; nothing where it has no such view."""
    views = space.root.children.get("view")
    if not isinstance(views, Branches) or "frame" not in views.branches:
        return ()
    match views.branches["frame"].children.get("fit"):
        case Choice(options):
            return tuple(map(str, options))
        case Constant(value):
            return (str(value),)
    return ("middle",)
