"""What a model of clips says of one clip, moment by moment: for `automl inspect`.

The clip's score is that of `export.scoring`, of the images that the view was trained with. For the curve, each member
looks at more of them, so that it can be told where in the clip the score comes from.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from automl.errors import DataError, SpecError, WeightsError
from automl.media.images import reason_alone
from automl.models.folder import read_members
from automl.models.scorer import Backoff, Join, Member, Source, weighted_mean
from automl.views.parameters import ClipView, FaceChoices, Frame, SoundView

Floats = npt.NDArray[np.float64]

MOST_IMAGES = 64
"""Images that a curve is made of at most, unless a view was trained with more: all are in memory at once."""

_BATCH = 32


@dataclass(frozen=True, eq=False)
class MemberMoments:
    """What one member of a model says of a clip.

    Attributes:
        name: That of its view, with a number if there are several.
        network: timm's name of the backbone.
        weight: Its share in the score of an ensemble.
        medium: What it looks at: `video` or `sound`.
        times_seconds: Shape (K,), ascending: of the curve's images; several faces of one frame have the same.
        seconds_each: Shape (K,): how much of the clip each image shows, around its time; 0 of a frame.
        probabilities: Shape (K,): of the class that is shown.
        made_of: What its score is made of, such as `mean of 8 images`.
        score: Its probability for the clip; None if it sees nothing.
        problem: Why it sees nothing.
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
class ClipMoments:
    """What a model says of a clip.

    Attributes:
        class_name: The class whose probability is shown: of two, the positive one; of more, the one that the clip is
            taken for.
        score: What `automl predict` says; None if no member sees anything.
        prior: What it says then: the share of the class in training.
        members: At least one.
    """

    class_name: str
    score: float | None
    prior: float
    members: tuple[MemberMoments, ...]


@dataclass(frozen=True, eq=False)
class _Seen:
    """What a view makes of a clip: images (K, V, 3, S, S) uint8, none if there is a problem, and their times (K,)."""

    images: Tensor
    times_seconds: Floats
    problem: str = ""


@dataclass(frozen=True, eq=False)
class _Scored:
    """A member's score (C,) of a clip, and of each of K moments (K, C); NaN and K = 0 if it sees nothing."""

    member: Member
    score: Floats
    images: int
    times_seconds: Floats
    moments: Floats
    problem: str


def open_members(path: Path, device: str = "auto") -> list[Member]:
    """Loads a model of clips, or an ensemble of them.

    Args:
        path: The folder that `automl train` wrote.
        device: auto (a GPU where there is one), cpu, cuda or cuda:N.

    Raises:
        WeightsError: If it is no model folder, or damaged.
        SpecError: If it was trained on image files.
        StudyError: If there is no such device.
    """
    from automl.devices import find_devices

    members = read_members(path.expanduser())
    for folder, _ in members:
        if not isinstance(folder.recipe.view, ClipView):
            # faces cut with which margin, whole frames, anything: a guess would give scores that look like scores
            raise SpecError(
                f"{folder.path} was trained on image files, and nobody knows what of a clip it should look at;"
                " --model takes a model that was trained on videos or sounds"
            )
    wanted = find_devices(device)[0]
    return [Member(folder, weight, wanted) for folder, weight in members]


def clip_moments(members: Sequence[Member], clip: Path, count: int, join: Join | None = None) -> ClipMoments:
    """Scores a clip and moments of it.

    Args:
        members: From `open_members`.
        clip: A video or sound file.
        count: Images that the curve of each member is made of: at most `MOST_IMAGES`, and no fewer than the view was
            trained with. Sound is cut into no more parts than cover the clip.
        join: Makes one score of the members' (`export.fused.join_of`); None: their weighted mean.

    Returns:
        The scores; of a member that sees nothing, why.

    Raises:
        WeightsError: If a network's outputs are not finite.
        AutomlError: If the GPU cannot hold one image.
    """
    look = cache(lambda source: _look(source, clip))  # members that see the same images share them
    scored = [_score(member, look, count) for member in members]
    scores, weights = np.stack([one.score for one in scored]), np.array([member.weight for member in members])
    join = join or (lambda scores: weighted_mean(scores, weights))
    joined = None if np.isnan(scores).all() else join(scores[:, None])[0]
    labels = members[0].folder.labels
    shown = labels.positive if joined is None or len(joined) == 2 else int(joined.argmax())
    prior = sum(member.weight * member.folder.labels.prior[shown] for member in members)
    told = [_told(one, name, shown) for one, name in zip(scored, _names(members), strict=True)]
    return ClipMoments(labels.classes[shown], None if joined is None else float(joined[shown]), prior, tuple(told))


def _look(source: Source, clip: Path) -> _Seen:
    """Makes a view's images of a clip."""
    try:
        return _Seen(*source(str(clip)))
    except DataError as exc:  # as in `Scorer`: what cannot be read shows nothing
        problem = reason_alone(exc, clip)
        return _Seen(torch.empty(0), np.empty(0), problem)


def _score(member: Member, look: Callable[[Source], _Seen], count: int) -> _Scored:
    """Scores the clip by the view as it was trained, and moments by more of its images."""
    source, classes = Source.of(member.folder, "none"), len(member.folder.labels.classes)
    trained = look(source)
    if trained.problem:
        return _Scored(member, np.full(classes, np.nan), 0, np.empty(0), np.empty((0, classes)), trained.problem)
    found = _probabilities(member, trained.images)
    more = look(replace(source, view=_denser(source.view, count)))
    if more.problem:  # no face in more frames, though there is one in those of the training
        more = trained
    moments = found if more is trained else _probabilities(member, more.images)
    return _Scored(member, member.score(found), len(found), more.times_seconds, moments, "")


def _denser(view: Any, count: int) -> Any:
    """A view that takes more images of a clip, evenly placed; a frame without a face refuses none of the others."""
    wanted: dict[str, Any] = {"count": max(view.count, min(count, MOST_IMAGES))}
    if isinstance(view, Frame):
        wanted["placement"] = "even"
    if isinstance(view, FaceChoices) and view.when_none == "refuse":
        wanted["when_none"] = "skip"
    return view.model_copy(update=wanted)


def _probabilities(member: Member, images: Tensor) -> Floats:
    """From images (K, V, 3, S, S) to probabilities (K, C), the mean over the V variants."""
    found = Backoff(_BATCH, _BATCH)(member.probabilities, images.flatten(0, 1))
    if not bool(torch.isfinite(found).all()):
        raise WeightsError(f"{member.folder.path}: the network's outputs are not finite; train it again")
    return np.asarray(found.reshape(*images.shape[:2], -1).mean(dim=1).numpy(), dtype=np.float64)


def _names(members: Sequence[Member]) -> list[str]:
    """The name of each member's view; those of the same view are numbered."""
    views = [member.folder.recipe.view.name for member in members]
    several, before = Counter(views), Counter[str]()
    names = []
    for view in views:
        before[view] += 1
        names.append(f"{view} {before[view]}" if several[view] > 1 else view)
    return names


def _told(scored: _Scored, name: str, shown: int) -> MemberMoments:
    """What a member says of one class."""
    recipe, times = scored.member.folder.recipe, scored.times_seconds
    view = recipe.view
    # a clip shorter than a part is one part, whose time is the clip's middle
    each = np.minimum(view.seconds, 2 * times) if isinstance(view, SoundView) else np.zeros(len(times))
    how = recipe.aggregate.name.replace("_", " ")
    return MemberMoments(
        name=name,
        network=recipe.backbone,
        weight=scored.member.weight,
        medium=view.media,
        times_seconds=times,
        seconds_each=each,
        probabilities=scored.moments[:, shown],
        made_of=f"{how} of {scored.images} images" if scored.images > 1 else "one image",
        score=None if scored.problem else float(scored.score[shown]),
        problem=scored.problem,
    )
