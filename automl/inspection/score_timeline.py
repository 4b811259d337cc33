"""Scores of a clip by a trained model, moment by moment: for `automl inspect`.

The clip's score is that of `automl predict`, of the images that the view was trained with. For the curve, each member
looks at more of them, so that one sees where in the clip the score comes from.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from torch import Tensor

from automl.errors import DataError, SpecError
from automl.media.images import describe_alone
from automl.models.folder import read_members
from automl.models.predict import Model, load
from automl.models.scorer import ImageSource, Member
from automl.views.base import ClipView
from automl.views.face import FaceChoices
from automl.views.frame import Frame
from automl.views.sound_parts import SoundView

Floats = npt.NDArray[np.float64]

MOST_IMAGES = 64  # that a curve is made of, unless a view was trained with more: all are in memory at once
_BATCH = 32


@dataclass(frozen=True, eq=False)
class MemberScores:
    """Scores of a clip by one member of a model.

    Attributes:
        name: That of its view, with a number if there are several.
        network: timm's name of the backbone.
        weight: Its share in the score of an ensemble.
        times_seconds: Shape (K,), ascending: of the curve's images; several faces of one frame have the same. K is 0
            if it sees nothing.
        seconds_each: Shape (K,): how much of the clip each image shows, around its time; 0 of a frame.
        probabilities: Shape (K,): of the class that is shown.
        made_of: What its score is made of, such as `mean of 8 images`.
        score: Its probability for the clip; None if it sees nothing, and `problem` has the reason.
    """

    name: str
    network: str
    weight: float
    medium: str
    times_seconds: Floats
    seconds_each: Floats
    probabilities: Floats
    made_of: str
    score: float | None
    problem: str


@dataclass(frozen=True, eq=False)
class ClipScores:
    """Scores of a clip by a model.

    Attributes:
        class_name: The class whose probability is shown: of two, the positive one; of more, the one that the clip is
            taken for.
        score: That of `automl predict`; None if no member sees anything. It then gives `prior`, the share of the class
            in training.
    """

    class_name: str
    score: float | None
    prior: float
    members: tuple[MemberScores, ...]


class _Scored(NamedTuple):
    """A member's score (C,) of a clip by some images, and of each of K moments (K, C); NaN and K = 0 for none."""

    score: Floats
    images: int
    times_seconds: Floats
    moments: Floats
    problem: str = ""


def load_clip_model(path: Path, device: str = "auto", weights_dir: Path | None = None) -> Model:
    """Loads a model of clips, or an ensemble of them, as `automl.load`; one of image files is refused."""
    for folder, _ in read_members(path.expanduser()):
        if not isinstance(folder.recipe.view, ClipView):
            # faces cut with which margin, whole frames, anything: a guess would give scores that look like scores
            raise SpecError(
                f"{folder.path} was trained on image files, so it does not define which images of a clip to score;"
                " --model takes a model that was trained on videos or sounds"
            )
    return load(path, device, weights_dir)


def score_clip(model: Model, clip: Path, count: int) -> ClipScores:
    """Scores a clip and moments of it.

    The curve of each member is made of `count` images: at most `MOST_IMAGES`, and no fewer than the view was trained
    with. Sound is cut into no more parts than cover the clip.
    """

    @cache  # members that see the same images share them
    def read_source(source: ImageSource) -> tuple[Tensor, Floats] | str:
        try:
            return source.read_file(clip)
        except DataError as exc:  # as in `Scorer`: what cannot be read shows nothing
            return describe_alone(exc, clip)

    def score_member(member: Member) -> _Scored:
        source, classes = ImageSource.for_model(member.folder, "none"), len(member.folder.labels.classes)
        trained = read_source(source)
        if isinstance(trained, str):
            return _Scored(np.full(classes, np.nan), 0, np.empty(0), np.empty((0, classes)), trained)
        more = read_source(replace(source, view=_add_images(source.view, count)))
        if isinstance(more, str):  # no face in more frames, though there is one in those of the training
            more = trained
        predictor = member.make_predictor(_BATCH)
        probabilities, moments = (member.predict_files(predictor, [images])[0] for images in (trained[0], more[0]))
        return _Scored(member.aggregate_images(probabilities), len(probabilities), more[1], moments)

    scored = [score_member(member) for member in model.members]
    scores = np.stack([each.score for each in scored])
    score = None if np.isnan(scores).all() else model.combine(scores[:, None])[0]
    shown = model.labels.positive if score is None or len(score) == 2 else int(score.argmax())
    prior = sum(member.weight * member.folder.labels.prior[shown] for member in model.members)
    named = zip(model.members, scored, _name_members(model.members), strict=True)
    members = tuple(_describe_member(member, each, name, shown) for member, each, name in named)
    return ClipScores(model.classes[shown], None if score is None else float(score[shown]), prior, members)


def _add_images(view: Any, count: int) -> Any:
    """Makes a view take more images of a clip, evenly placed; a frame without a face refuses none of the others."""
    changes: dict[str, Any] = {"count": max(view.count, min(count, MOST_IMAGES))}
    if isinstance(view, Frame):
        changes["placement"] = "even"
    if isinstance(view, FaceChoices) and view.when_none == "refuse":
        changes["when_none"] = "skip"
    return view.model_copy(update=changes)


def _name_members(members: Sequence[Member]) -> list[str]:
    """Names each member by its view; those of the same view are numbered."""
    views = [member.folder.recipe.view.name for member in members]
    numbers = [views[: position + 1].count(view) for position, view in enumerate(views)]
    return [f"{view} {number}" if views.count(view) > 1 else view for view, number in zip(views, numbers, strict=True)]


def _describe_member(member: Member, scored: _Scored, name: str, shown: int) -> MemberScores:
    """Puts together the scores of a member for one class."""
    recipe, times = member.folder.recipe, scored.times_seconds
    view = recipe.view
    # a clip shorter than a part is one part, whose time is the clip's middle
    each = np.minimum(view.seconds, 2 * times) if isinstance(view, SoundView) else np.zeros(len(times))
    aggregate = recipe.aggregate.name.replace("_", " ")
    return MemberScores(
        name=name,
        network=recipe.backbone,
        weight=member.weight,
        medium=view.media,
        times_seconds=times,
        seconds_each=each,
        probabilities=scored.moments[:, shown],
        made_of=f"{aggregate} of {scored.images} images" if scored.images > 1 else "one image",
        score=None if scored.problem else float(scored.score[shown]),
        problem=scored.problem,
    )
