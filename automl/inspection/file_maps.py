"""Heat maps of a file by a trained model, or by an ensemble: for `automl inspect`.

Members that look at a file in the same way (the image, the same frames, the same parts of its sound) share the map: the
mean of theirs by their weights, whatever the size that each one sees and the part that it cuts out.
"""

import heapq
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from automl.data.transforms import eval_transform
from automl.errors import DataError, RecipeError, SpecError, shorten
from automl.inspection.heat_maps import Heat, make_heat_maps, make_occlusion_maps, measure_agreement
from automl.media.decoding import decode_one
from automl.media.images import describe_alone, read_pixels
from automl.media.kinds import Medium
from automl.models.inputs import Item, open_inputs
from automl.models.predict import Model
from automl.models.scorer import ImageSource, Member
from automl.recipe.augmentation import Augmentation
from automl.reporter import Progress, ShowProgress
from automl.training.evaluation import Normalize
from automl.views.base import ViewImages
from automl.views.registry import View
from automl.views.sound_parts import SoundView

MOST_PICTURES = 16
"""Pictures of a clip that get maps, at most, by one view."""

_SHOWN_SIDE = 512  # pixels of the short side of an image on a page
_BATCH = 16
_NAMED = 5  # files that are named in a note

Box = tuple[float, float, float, float]


@dataclass(frozen=True, eq=False)
class PictureMaps:
    """A picture that networks see, and which parts of it speak for a class.

    Attributes:
        picture: RGB: an image file whole, of a clip what the view shows.
        time_seconds: Of the clip; of a picture of sound its middle; 0 of an image file.
        length_seconds: How much of the clip it shows; 0 of a frame or an image file.
        probability: Of the class, by the networks that see this picture.
        heat: Grad-CAM, shape (height, width) of the picture, in [0, 1]; None if no network can have one.
        occlusion: The same by occlusion; None if it was not asked for.
        agreement: Spearman's rank correlation of both; NaN where one map is empty or missing.
        seen: Left, top, right and bottom of what all networks together see of it, in shares of its sides.
    """

    picture: Image.Image
    time_seconds: float
    length_seconds: float
    probability: float
    heat: Heat | None
    occlusion: Heat | None
    agreement: float
    seen: Box


@dataclass(frozen=True, eq=False)
class ViewMaps:
    """What one view shows of a file.

    Attributes:
        view: How the file becomes pictures.
        networks: timm's names.
        weight: Of these networks together in the model's score.
        pictures: In the order of time; none if the view sees nothing, and `problems` says why.
        all_pictures: How many the view shows; those with the highest probability are in `pictures`.
        problems: Whose maps are missing and why.
    """

    view: View
    networks: tuple[str, ...]
    weight: float
    pictures: tuple[PictureMaps, ...]
    all_pictures: int
    problems: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class FileMaps:
    """What a model sees in a file.

    Attributes:
        class_name: The class that the maps are of: of two, the positive one; of more, the one the file is taken for.
        score: Its probability, as `automl predict` gives it; None if no network sees anything.
        views: By what is looked at.
    """

    class_name: str
    score: float | None
    views: tuple[ViewMaps, ...]


@dataclass(frozen=True, eq=False)
class RankedFile:
    """A file of a folder: its name in it, its score, and the picture that speaks most for the class."""

    name: str
    class_name: str
    score: float
    maps: PictureMaps | None
    problems: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class RankedFolder:
    """The first files of a folder by their score, and what is known of the others.

    Attributes:
        files: Two classes: those most like the positive one first. More: those the model is least sure of first.
        total: Files that were found.
        unreadable: How many of them cannot be read or show nothing.
        notes: What was left out, and why.
    """

    folder: Path
    positive: str | None
    files: tuple[RankedFile, ...]
    total: int
    unreadable: int
    notes: tuple[str, ...]


@dataclass(eq=False)
class _Sight:
    """A member, the pictures it sees of a file, and the probability of each class for each of them, (K, classes)."""

    member: Member
    source: ImageSource
    decoded: ViewImages
    images: Tensor = field(init=False)
    """Shape (K, 3, S, S), uint8."""
    probabilities: npt.NDArray[np.float64] = field(init=False)

    def __post_init__(self) -> None:
        variants = self.source.make_variants(self.decoded)
        self.images = variants[:, 0]
        self.probabilities = self.member.predict_files(self.member.make_predictor(_BATCH), [variants])[0]

    @property
    def box(self) -> Box:
        """Left, top, right and bottom of what it sees of the pictures, in shares of their sides."""
        height, width = self.decoded.pixels.shape[1:3]
        variants = self.source.variants
        pipeline = eval_transform(Augmentation(crop=variants.crop), variants.image_size, variants.interpolation)
        top, left, tall, wide = pipeline.find_window(height, width)
        return left / width, top / height, (left + wide) / width, (top + tall) / height


def explain_file(
    model: Model,
    path: Path,
    *,
    check: bool = True,
    most: int = MOST_PICTURES,
    progress: Progress = lambda _done, _total: None,
) -> FileMaps:
    """Makes heat maps of a file by each member of a model.

    Args:
        model: Made of what the file is: images, or clips.
        path: The file; it is decoded in a process of its own.
        check: Whether there are occlusion maps too.
        most: Pictures of a clip that get maps, at most.
        progress: Called with covered patches and all of them.

    Raises:
        DataError: If the file cannot be read.
        SpecError: If the model does not look at such files.
    """
    read: dict[ImageSource, ViewImages | DataError] = {}
    sights: list[_Sight | str] = []
    for member in model.members:
        source = ImageSource.for_model(member.folder, "none")
        if source not in read:
            read[source] = _read_pictures(source, path)
        decoded = read[source]
        if not isinstance(decoded, DataError):
            sights.append(_Sight(member, source, decoded))
        elif source.view.media == "image":
            raise decoded
        else:
            sights.append(describe_alone(decoded, path))
    blind = np.full(len(model.classes), np.nan)
    scores = np.stack([blind if isinstance(s, str) else s.member.aggregate_images(s.probabilities) for s in sights])
    score = None if np.isnan(scores).all() else model.combine(scores[:, None])[0]
    shown = model.labels.positive if score is None or len(score) == 2 else int(score.argmax())
    groups = list(_group_members(model.members, sights))
    count = _Counter(progress, sum(not isinstance(sight, str) for sight in sights))
    views = tuple(
        _explain_view(members, group, path, shown, most, count if check else None) for members, group in groups
    )
    return FileMaps(model.classes[shown], None if score is None else float(score[shown]), views)


def rank_folder(model: Model, folder: Path, most: int, show_progress: ShowProgress) -> RankedFolder:
    """Scores all files of a folder and makes maps of the first ones; in bounded memory.

    Args:
        model: What scores them.
        folder: Files of the kinds that the model looks at are taken, below it too.
        most: Files that are shown, at least 1.
        show_progress: As of a reporter.

    Raises:
        DataError: If there is no such file.
    """
    two, positive = len(model.classes) == 2, model.labels.positive
    first: list[tuple[float, int, Item, int]] = []  # a heap: the least suspicious of those that are kept is on top
    unreadable: list[str] = []
    scorer = model.make_scorer()
    with open_inputs(folder, model.labels, media=model.media) as inputs:
        with show_progress("scoring") as progress:
            for number, score in enumerate(scorer.score_files(inputs)):
                if score.problem:
                    unreadable.append(f"{score.item.name} ({score.problem})" if len(unreadable) < _NAMED else "")
                else:
                    shown = positive if two else int(score.probabilities.argmax())
                    value = float(score.probabilities[shown])
                    entry = (value if two else -value, -number, score.item, shown)
                    (heapq.heappush if len(first) < most else heapq.heappushpop)(first, entry)
                progress(number + 1, len(inputs))
        notes = [*inputs.problems, *inputs.notes]
        total = len(inputs)
    if unreadable:
        named = shorten([name for name in unreadable if name], _NAMED, "; ")
        more = f" and {len(unreadable) - _NAMED} more" if len(unreadable) > _NAMED else ""
        notes.append(f"{len(unreadable)} of {total} files cannot be read, or show nothing: {named}{more}")
    files = []
    with show_progress("making maps") as progress:
        for done, (value, _, item, shown) in enumerate(sorted(first, reverse=True), start=1):
            files.append(_explain_item(model, item, model.classes[shown], abs(value)))
            progress(done, len(first))
    return RankedFolder(
        folder, model.classes[positive] if two else None, tuple(files), total, len(unreadable), tuple(notes)
    )


def refuse_other_media(model: Model, path: Path, medium: Medium) -> None:
    """Makes sure that a model looks at files of a kind.

    Raises:
        SpecError: If not.
    """
    if medium not in model.media:
        others = " and ".join(f"{other}s" for other in model.media)
        raise SpecError(
            f"{path} is {_ARTICLES[medium]}, and {model.path} was trained on {others};"
            f" --model takes a model that was trained on {medium}s"
        )


_ARTICLES: dict[Medium, str] = {"image": "an image", "video": "a video", "sound": "a sound"}


# --- one view ---------------------------------------------------------------------------------------------------------


class _Counter:
    """Counts patches over several calls of `make_occlusion_maps`, whose progress goes from 0 to its own end."""

    def __init__(self, progress: Progress, calls: int) -> None:
        self._progress, self._calls, self._done = progress, calls, 0

    def follow_call(self) -> Progress:
        """Makes the progress of the next call."""
        before, self._done = self._done, self._done + 1
        return lambda done, total: self._progress(before * total + done, self._calls * total)


def _read_pictures(source: ImageSource, path: Path) -> ViewImages | DataError:
    """Reads the pictures of a file as a member wants them, or says what is wrong with it."""
    try:
        return decode_one(source.reader, path)
    except DataError as exc:
        return exc


def _group_members(
    members: Sequence[Member], sights: Sequence[_Sight | str]
) -> Iterator[tuple[list[Member], list[_Sight | str]]]:
    """Yields the members that see the same pictures, and what they see, those that count most first."""
    pairs = sorted(zip(members, sights, strict=True), key=lambda pair: pair[0].folder.recipe.view.key)
    groups = [list(group) for _, group in groupby(pairs, key=lambda pair: pair[0].folder.recipe.view.key)]
    for group in sorted(groups, key=lambda group: -sum(member.weight for member, _ in group)):
        yield [member for member, _ in group], [sight for _, sight in group]


def _explain_view(
    members: Sequence[Member],
    group: Sequence[_Sight | str],
    path: Path,
    shown: int,
    most: int,
    count: _Counter | None,
) -> ViewMaps:
    """Makes the maps of the pictures that some members see."""
    view, networks = members[0].folder.recipe.view, tuple(member.folder.recipe.backbone for member in members)
    weight = sum(member.weight for member in members)
    problems = list(dict.fromkeys(sight for sight in group if isinstance(sight, str)))
    sights = [sight for sight in group if not isinstance(sight, str)]
    if not sights:
        return ViewMaps(view, networks, weight, (), 0, tuple(problems))
    shares = np.array([sight.member.weight for sight in sights])
    shares = shares / shares.sum() if shares.sum() else np.full(len(sights), 1 / len(sights))
    probabilities = np.einsum("m,mk->k", shares, np.stack([sight.probabilities[:, shown] for sight in sights]))
    chosen = np.sort(np.argsort(-probabilities, kind="stable")[:most])
    pictures = _read_shown(view, path, sights)
    own: list[tuple[Heat | None, Heat | None]] = []
    for sight in sights:
        normalize = Normalize(sight.member.folder.input, sight.member.folder.recipe.numerics, sight.member.device)
        images, network = normalize(sight.images[torch.from_numpy(chosen)]), sight.member.network
        try:
            heat = make_heat_maps(network, images, shown, batch_size=_BATCH)
        except RecipeError as exc:
            problems.append(str(exc))
            heat = None
        covered = None if count is None else make_occlusion_maps(network, images, shown, progress=count.follow_call())
        own.append((heat, covered))
    made = []
    for number, position in enumerate(chosen.tolist()):
        picture, time = pictures[position], float(sights[0].decoded.times_seconds[position])
        heat, occlusion = (
            _join_maps(
                picture, [(one[kind], sight.box) for one, sight in zip(own, sights, strict=True)], shares, number
            )
            for kind in (0, 1)
        )
        agreements = [
            math.nan if one is None or other is None else measure_agreement(one[number], other[number])
            for one, other in own
        ]
        known = ~np.isnan(agreements)
        agreement = (
            float(np.average(np.array(agreements)[known], weights=shares[known])) if shares[known].sum() else math.nan
        )
        # a clip shorter than a part is one part, whose time is the clip's middle
        length = min(view.seconds, 2 * time) if isinstance(view, SoundView) else 0.0
        made.append(
            PictureMaps(
                picture, time, length, float(probabilities[position]), heat, occlusion, agreement, _join_boxes(sights)
            )
        )
    return ViewMaps(view, networks, weight, tuple(made), len(pictures), tuple(problems))


def _read_shown(view: View, path: Path, sights: Sequence[_Sight]) -> list[Image.Image]:
    """Reads the pictures as a page shows them: an image file larger than networks see it."""
    if view.media == "image":
        return [Image.fromarray(decode_one(read_pixels, path, _SHOWN_SIDE))]
    largest = max(sights, key=lambda sight: sight.decoded.pixels.shape[1])
    return [Image.fromarray(pixels) for pixels in largest.decoded.pixels]


def _join_maps(
    picture: Image.Image, maps: Sequence[tuple[Heat | None, Box]], shares: npt.NDArray[np.float64], number: int
) -> Heat | None:
    """Averages the maps of a picture by several networks, each laid where the network looks; None if there are none."""
    known = [(heat[number], box, share) for (heat, box), share in zip(maps, shares, strict=True) if heat is not None]
    if not known:
        return None
    total = np.zeros((picture.height, picture.width), dtype=np.float32)
    for heat, box, share in known:
        left, top, right, bottom = _scale_box(box, picture)
        large = Image.fromarray(heat).resize((right - left, bottom - top), Image.Resampling.BILINEAR)
        total[top:bottom, left:right] += np.float32(share) * np.asarray(large, dtype=np.float32)
    scaled: Heat = total / np.float32(total.max() or 1)
    return scaled


def _scale_box(box: Box, picture: Image.Image) -> tuple[int, int, int, int]:
    """Converts shares of the sides of a picture to its pixels; at least one pixel each way."""
    left, right = (min(picture.width, round(share * picture.width)) for share in box[::2])
    top, bottom = (min(picture.height, round(share * picture.height)) for share in box[1::2])
    return left, top, max(right, left + 1), max(bottom, top + 1)


def _join_boxes(sights: Sequence[_Sight]) -> Box:
    """Finds the box around what several networks see of a picture."""
    lefts, tops, rights, bottoms = zip(*(sight.box for sight in sights), strict=True)
    return min(lefts), min(tops), max(rights), max(bottoms)


def _explain_item(model: Model, item: Item, class_name: str, score: float) -> RankedFile:
    """Makes the map of a file of a folder: of the picture that speaks most for its class."""
    try:
        made = explain_file(model, Path(item.path), check=False, most=1)
    except DataError as exc:  # it was readable a minute ago
        return RankedFile(item.name, class_name, score, None, (describe_alone(exc, Path(item.path)),))
    view = next((view for view in made.views if view.pictures), None)
    problems = tuple(problem for view in made.views for problem in view.problems)
    return RankedFile(item.name, class_name, score, view.pictures[0] if view else None, problems)
