"""What is tried first in a study: known-good recipes of its space, and the best ones of an earlier study.

The known-good ones show all of long pictures where they can.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import optuna
from optuna.trial import FrozenTrial

from automl.data.picture_shapes import cut_off_note, mostly_long
from automl.errors import StudyError
from automl.media.kinds import Medium
from automl.space.nodes import Branches, Choice, Constant, Group
from automl.space.space import Space
from automl.spec import StudySpec
from automl.study.folder import StudyFolder
from automl.study.spaces import usual_image_size
from automl.study.storage import open_study
from automl.study.trial_record import best_first, read_study_record, read_trial_record
from automl.training.schedule import VALIDATION_SHARE
from automl.views.frame import Frame
from automl.views.registry import View

if TYPE_CHECKING:  # it would import torch, which a search does after it has looked for mistakes
    from automl.study.setup import StudySetup

_CROP, _FIT, _WHOLE = "augmentation.crop", "view.frame.fit", "squash"
_EARLIER = 3
"""Recipes taken from an earlier study."""

_LEAST_SHARE = 0.6
"""Of a known-good recipe's epochs: cut to less, it is not the recipe that is known to be good."""

_LONGER = 1.5
"""The same recipe again must be so many times as long."""

_FEW_IMAGES = 500
"""Training images, up to which training a part of a network may be better than training all of it."""

Sizes = Sequence[tuple[int, int]]
"""(width, height) of pictures of the data, in pixels."""


def enqueue_known_good(study: optuna.Study, setup: "StudySetup", sizes: Sizes) -> list[str]:
    """Enqueues the space's known-good recipes in a study without trials, each on the backbone it asks for.

    The first one always; of the others those that one trial has the time for, and none that differs from another by
    less than half of its length: cut to the same time, two of them would be one recipe, trained twice.

    Returns:
        The tiers that were left out, each with the reason.
    """
    train = int((setup.dataset.samples["split"] == "train").sum())
    usual_size = usual_image_size(setup.space)
    enqueued: list[tuple[dict[str, Any], float]] = []
    left_out = []
    for number, good in enumerate(setup.space.known_good):
        size, epochs = int(good.get("image_size", usual_size)), float(good.get("epochs", 5))
        affordable = setup.pool.affordable_rank(size, train * epochs, setup.training_seconds)
        ranks = {"best": 0, "fastest": setup.pool.fastest_rank(), "affordable": affordable}
        params = setup.space.find_known_good_params(ranks, lambda drawn: setup.pool.entry_of(drawn).restriction)[number]
        params = show_all(setup.space, sizes, setup.dataset.media, params)
        planned = epochs
        if setup.training_seconds is not None and "backbone" in params:
            entry = setup.pool.entry_of(params["backbone"])
            timing = entry.timing.scale_to(entry.restriction.nearest_size(size))
            planned = min(epochs, setup.training_seconds / (timing.train_seconds * train * (1 + VALIDATION_SHARE)))
        rest = {name: value for name, value in params.items() if name != "epochs"}
        if enqueued and planned < _LEAST_SHARE * epochs:
            left_out.append(f"{good['tier']} (a trial has time for {planned:.2g} of its {epochs:.3g} epochs)")
        elif any(rest == other and planned < _LONGER * length for other, length in enqueued):
            left_out.append(f"{good['tier']} (the same as another one)")
        else:
            enqueued.append((rest, planned))
            study.enqueue_trial(params, user_attrs={"known_good": good["tier"]})
    return left_out


def list_earlier(earlier: StudyFolder, space: Space) -> list[FrozenTrial]:
    """Lists the best trials of an earlier study.

    Raises:
        StudyError: If there is no such study, none of its trials is complete, or it searched another space.
    """
    study = open_study(earlier)
    if read_study_record(study).space != space.text:
        raise StudyError(f"--warm-start {earlier.name}: that study searched another space; give the same --space")
    best = best_first(study)[:_EARLIER]
    if not best:
        raise StudyError(f"--warm-start {earlier.name}: that study has no complete trial")
    return best


def enqueue_earlier(study: optuna.Study, setup: "StudySetup", earlier: StudyFolder) -> list[str]:
    """Enqueues the best recipes of an earlier study in a study without trials.

    Returns:
        What was enqueued and what was not, one line each.
    """
    lines = []
    for trial in list_earlier(earlier, setup.space):
        name = read_trial_record(trial).backbone
        rank = next((rank for rank, entry in enumerate(setup.pool.entries) if entry.backbone == name), None)
        if rank is None:
            lines.append(f"not tried: trial {trial.number} of {earlier.name}, because {name} is not in the pool")
            continue
        params = trial.params | ({"backbone": rank} if isinstance(trial.params.get("backbone"), int) else {})
        study.enqueue_trial(params, user_attrs={"known_good": "earlier"})
        lines.append(f"tried first: the recipe of trial {trial.number} of {earlier.name} ({name})")
    return lines


def suggest_space(spec: StudySpec, setup: "StudySetup") -> str | None:
    """Suggests the space in which parts of networks are trained, where there are few images; None where not."""
    images = int((setup.dataset.samples["split"] == "train").sum())
    if spec.space != "auto" or setup.dataset.media != "image" or images > _FEW_IMAGES:
        return None
    if setup.space.list_tunes() != ("all",) or not any(entry.weights for entry in setup.pool.entries):
        return None
    return (
        f"note: {images} training images are few: --space encoders trains parts of a network, which was better with "
        "100 of ants and bees, and cheaper (docs/figures.md)"
    )


def show_all(space: Space, sizes: Sizes, media: Medium, params: Mapping[str, Any]) -> dict[str, Any]:
    """Shows all of the pictures to a known-good recipe, where most of them are long and the space can.

    Returns:
        The Optuna parameters with another crop, of videos another fit of the frame view, or as they were.
    """
    name, choices = _list_cuts(space, media)
    if not mostly_long(sizes) or not _can_choose(choices) or (media != "image" and name not in params):
        return dict(params)
    return {key: value for key, value in params.items() if not key.startswith(f"{name}.")} | {name: _WHOLE}


def show_all_frames(space: Space, sizes: Sizes, view: View) -> View:
    """Returns the view as the known-good recipes have it, by the same rule as `show_all`."""
    if isinstance(view, Frame) and mostly_long(sizes) and _can_choose(_list_cuts(space, "video")[1]):
        return view.model_copy(update={"fit": _WHOLE})
    return view


def describe_crops(space: Space, sizes: Sizes, media: Medium = "image") -> str | None:
    """Describes in one line how much of the pictures is not seen, or that all of it is; None where that is little.

    Of videos, the frame view alone cuts without looking.
    """
    name, choices = _list_cuts(space, media)
    note = cut_off_note(sizes, f"{media}s")
    if note is None or not choices or choices == (_WHOLE,):
        return None
    if _WHOLE not in choices:
        return f"warning: {note}, and {name} of {space.source} has {', '.join(choices)}; {_WHOLE} would show all of it"
    known = "the first recipes have" if mostly_long(sizes) else "the search may draw"
    return f"{note}; {known} {name} {_WHOLE}, which shows all of it"


def _can_choose(choices: tuple[str, ...]) -> bool:
    return len(choices) > 1 and _WHOLE in choices


def _list_cuts(space: Space, media: Medium) -> tuple[str, tuple[str, ...]]:
    """Returns the parameter that cuts pictures, of videos the frame view's, and what a space can draw for it."""
    if media == "image":
        augmentation = space.root.children.get("augmentation")
        crop = augmentation.children.get("crop") if isinstance(augmentation, Group) else None
        return _CROP, tuple(crop.branches) if isinstance(crop, Branches) else ("resize",)
    views = space.root.children.get("view")
    if not isinstance(views, Branches) or "frame" not in views.branches:
        return _FIT, ()
    match views.branches["frame"].children.get("fit"):
        case Choice(options):
            return _FIT, tuple(map(str, options))
        case Constant(value):
            return _FIT, (str(value),)
    return _FIT, ("middle",)
