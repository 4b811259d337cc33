"""A study's samples through its views: each view is decoded when it is first asked for, once, for all processes."""

from collections.abc import Callable
from pathlib import Path

from automl.data.cache import Cache, build_cache
from automl.data.dataset import Dataset
from automl.data.loader import ImageData
from automl.errors import SpaceError
from automl.media.kinds import Medium
from automl.space.space import Space
from automl.study.setup import Facts
from automl.views.parameters import FaceChoices, View, ViewPart
from automl.views.registry import make_view

SPACES: dict[Medium, str] = {"image": "image", "video": "video", "sound": "audio"}
"""The shipped search space for each kind of files."""

_GPU_LOADERS = 4
_HELD = 8  # views whose caches stay open


class Views:
    """Gives the samples as each view shows them."""

    def __init__(self, facts: Facts, device: str) -> None:
        self.dataset, self._size = facts.dataset, facts.cache_size
        self._loaders = 0 if device == "cpu" else _GPU_LOADERS
        self._open: dict[ViewPart, ImageData] = {}

    def data(self, view: ViewPart, progress: Callable[[int, int], None] | None = None) -> ImageData:
        """The samples through a view; decoded now, if they never were.

        Args:
            view: Any view that fits the data.
            progress: Told (files decoded, files in all); what it raises ends the decoding, which can go on later.

        Raises:
            DataError: If the view shows nothing of too many samples to train on.
            AutomlError: If the cache cannot be written.
        """
        if view not in self._open:
            while len(self._open) >= _HELD:
                del self._open[next(iter(self._open))]
            cache: Cache = build_cache(self.dataset, self._size, progress, view)
            self._open[view] = ImageData(self.dataset, cache, self._loaders)
        return self._open[view]


def space_name(wanted: str, media: Medium) -> str:
    """The search space to load: the wanted one, or for `auto` the shipped one for the kind of files."""
    return SPACES[media] if wanted == "auto" else wanted


def check_views(space: Space, dataset: Dataset) -> list[View]:
    """Makes sure that every view a space can draw fits the data.

    Args:
        space: The search space.
        dataset: The data.

    Returns:
        One of each view, with the first of its options.

    Raises:
        SpaceError: If a view looks at files of another kind.
    """
    found = [make_view(values) for values in space.views()]
    for view in found:
        if not _fits(view, dataset.media):
            raise SpaceError(
                f"{space.source}: view {view.name} looks at {view.media}s, and the data are {dataset.media}s; "
                f"give --space {SPACES[dataset.media]}, or leave out --space"
            )
    return found


def with_face_model(view: View, face_model: Path | None) -> View:
    """The view with the study's face detector, where it looks for faces and names none itself."""
    if face_model is None or not isinstance(view, FaceChoices) or view.face_model is not None:
        return view
    return view.model_copy(update={"face_model": str(face_model.expanduser().absolute())})


def describe_view(view: ViewPart) -> str:
    """What is decoded for a view, in two words."""
    return "images" if view.media == "image" else f"view {view.name}"


def _fits(view: ViewPart, media: Medium) -> bool:
    """Whether files of a kind can hold something for a view: videos hold sound, too."""
    return view.media == media or (view.media, media) == ("sound", "video")
