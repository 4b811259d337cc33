"""Which of many backbones suits the data, by their frozen features, in a stated time.

A forward pass without gradients is 3 to 10 times cheaper than a training step, and a few hundred images suffice to tell
a good backbone from a poor one. Time goes to the promising ones by successive halving (Jamieson & Talwalkar 2016,
arXiv:1502.07943): all see few images, the better half sees more, and so on. Each image is shown to a network once: what
was extracted in one round is kept for the next.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray

from automl.backbones.timm_model import summarize_error
from automl.backbones.weights import Weights, make_model
from automl.data.loader import ImageData
from automl.devices import free_cached_memory, is_gpu
from automl.errors import WeightsError
from automl.features.extraction import FeatureExtractor, FeatureLayer, to_half
from automl.features.feature_cache import strip_recipe
from automl.features.looks import LookImages, list_images
from automl.features.probe import score_layers
from automl.recipe import Recipe
from automl.training.types import expected_input
from automl.units import format_count

_FEWEST = 200
"""Images in the first round, whatever the budget: of 100, the standard error is .03, as large as real differences."""
_FEWEST_OF_CLASS = 10
"""As many images as classes, times this, where that is more."""
_BATCH = 32
_NO_TIME = "no time was left"


@dataclass(frozen=True)
class Candidate:
    """A backbone to be scored.

    Attributes:
        recipe: Names it, and says how images are cut and normalised, their size, and the numerics.
        weights: Where its pretrained weights are; None: it cannot be scored.
        image_seconds: What one image's forward pass takes, as timed or predicted: the cheapest comes first. How many
            images there is time for is decided by what they took.
    """

    recipe: Recipe
    weights: Weights | None
    image_seconds: float


@dataclass(frozen=True)
class ScreeningRow:
    """How a backbone did.

    Attributes:
        backbone: Its name.
        score: Cross-validated AUC (two classes) or accuracy of a linear probe on its best layer; NaN: none was reached.
        standard_error: Of the score, over folds.
        best_layer: The layer's name, or that of all together.
        knn_score: The best of nearest neighbours over layers.
        images: That were looked at.
        seconds: That it took, with building it.
        cut_early: Whether others did better on as many images, and went on without it.
        reason: Why there is no score, or one of fewer images than others got; "" if all is well.
    """

    backbone: str
    score: float = math.nan
    standard_error: float = math.nan
    best_layer: str = ""
    knn_score: float = math.nan
    images: int = 0
    seconds: float = 0.0
    cut_early: bool = False
    reason: str = ""


def screen_backbones(
    candidates: Sequence[Candidate],
    data: ImageData,
    device: str,
    budget_seconds: float,
    *,
    most_images: int | None = None,
    seed: int = 0,
    print_line: Callable[[str], None] = lambda _line: None,
) -> list[ScreeningRow]:
    """Scores backbones on training images, the cheapest first, within a budget of time.

    Within the budget is meant but for one batch, or for building or probing one network: the clock is looked at between
    those. A backbone that fails is a row with the reason. Ctrl-C passes through at once.

    Args:
        candidates: What to score.
        data: The samples; their training split is looked at, as evaluation shows it.
        device: Where the networks run.
        budget_seconds: For all of it.
        most_images: Of the split, at most; None: all of them.
        seed: Of which images come first, and of the folds.
        print_line: Is told of each backbone that is scored.

    Returns:
        One row a candidate, the best first: those that went further before those that were cut, then those without a
        score. Scores of different numbers of images do not compare.

    Raises:
        DataError: If the training split has no image.
    """
    screening = _Screening(data, device, time.monotonic() + budget_seconds, most_images, seed, print_line)
    tracks = [_Track(candidate) for candidate in sorted(candidates, key=lambda candidate: candidate.image_seconds)]
    left, images = tracks, screening.first_images
    while left:
        for track in left:
            screening.score_track(track, images)
        left = sorted((track for track in left if track.row.images == images), key=lambda track: -track.row.score)
        if len(left) > 2 and not screening.can_see_all(left):
            half = math.ceil(len(left) / 2)
            for track in left[half:]:
                track.cut_early()
            left = left[:half]
        before, images = images, screening.plan_images(left, images)
        if images == before or len(left) < 2:  # there are no more images, no time for more, or nothing to compare
            break
    return sorted((track.row for track in tracks), key=lambda row: (math.isnan(row.score), -row.images, -row.score))


@dataclass
class _Track:
    """A candidate on its way."""

    candidate: Candidate
    row: ScreeningRow = field(init=False)
    parts: list[torch.Tensor] = field(default_factory=list)
    """Features (n, D) float16 of the images so far."""
    layers: tuple[FeatureLayer, ...] = ()

    def __post_init__(self) -> None:
        self.row = ScreeningRow(self.candidate.recipe.backbone)

    def cut_early(self) -> None:
        """Ends it for good."""
        self.row, self.parts = replace(self.row, cut_early=True), []


class _Screening:
    """The images, and the time that is left."""

    def __init__(
        self,
        data: ImageData,
        device: str,
        deadline: float,
        most_images: int | None,
        seed: int,
        print_line: Callable[[str], None],
    ) -> None:
        self._data, self._device, self._deadline, self._seed = data, device, deadline, seed
        self._print_line = print_line
        self._images = list_images(data, "train")
        self._order = _order_images(self._images.labels, seed)[:most_images]

    @property
    def first_images(self) -> int:
        """How many images each backbone is shown in the first round."""
        return min(len(self._order), max(_FEWEST, _FEWEST_OF_CLASS * self._data.classes))

    def is_over(self) -> bool:
        """Returns whether there is no time left."""
        return time.monotonic() >= self._deadline

    def can_see_all(self, tracks: Sequence[_Track]) -> bool:
        """Returns whether there is time to show each of these backbones all images."""
        return self._count_affordable(tracks, rounds=1) >= len(self._order) - tracks[0].row.images

    def plan_images(self, tracks: Sequence[_Track], before: int) -> int:
        """Returns how many images each backbone is shown by the end of the next round.

        The rounds until two are left have even shares of the time.
        """
        rounds = max(1, math.ceil(math.log2(max(1, len(tracks)))))
        rounds = 1 if tracks and self.can_see_all(tracks) else rounds
        return min(len(self._order), before + self._count_affordable(tracks, rounds))

    def _count_affordable(self, tracks: Sequence[_Track], rounds: int) -> int:
        """Returns how many more images there is time for, at what an image took each backbone so far, all in all."""
        seconds = max(0.0, self._deadline - time.monotonic()) / rounds
        return int(seconds / max(1e-9, sum(track.row.seconds / track.row.images for track in tracks)))

    def score_track(self, track: _Track, images: int) -> None:
        """Brings a backbone to so many images, and scores it; its row says why not."""
        if self.is_over():
            track.row = replace(track.row, reason=_NO_TIME)
            return
        started = time.monotonic()
        try:
            scored = self._extract_until(track, images)
            row = self._score_features(track, images) if scored else replace(track.row, reason=_NO_TIME)
        except Exception as exc:  # a broken backbone, whatever is broken, is not the end of the others
            row = replace(track.row, reason=summarize_error(exc))
        if is_gpu(self._device):
            free_cached_memory(self._device)  # the next network's pieces have other sizes
        track.row = replace(row, seconds=track.row.seconds + time.monotonic() - started)
        if row.reason:
            track.parts = []
            self._print_line(f"{row.backbone}: {row.reason}")
        else:
            self._print_line(
                f"{row.backbone}: {row.score:.3f} ± {row.standard_error:.3f} on {format_count(images, 'image')}"
            )

    def _extract_until(self, track: _Track, images: int) -> bool:
        """Extracts the features that are missing; returns whether there was time for it."""
        candidate = track.candidate
        if candidate.weights is None:
            raise WeightsError("it has no pretrained weights here")
        recipe = strip_recipe(candidate.recipe)
        model = make_model(recipe, self._data.classes, candidate.weights)
        preprocessing = expected_input(model, recipe, self._data)
        shown = LookImages(self._data, recipe, preprocessing, "train")
        extractor = FeatureExtractor(model, preprocessing, recipe.numerics, self._device, shown.image_size)
        track.layers = extractor.layers
        missing = self._order[sum(map(len, track.parts)) : images].tolist()
        for batch in shown.load_batches(missing, _BATCH):
            if self.is_over():
                return False
            track.parts.append(to_half(extractor.extract_batch(batch)))
        return True

    def _score_features(self, track: _Track, images: int) -> ScreeningRow:
        """Scores what was extracted."""
        rows = self._order[:images]
        labels, groups = self._images.labels[rows], self._images.groups[rows]
        features = torch.cat(track.parts).numpy()
        positive = self._data.positive
        scores = score_layers(features, labels, groups, track.layers, self._data.classes, positive, seed=self._seed)
        best = max(scores, key=lambda layer: layer.score)
        knn = max(layer.knn_score for layer in scores)
        return ScreeningRow(track.row.backbone, best.score, best.standard_error, best.layer, knn, images)


def _order_images(labels: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """Orders images at random so that each first part has about every class's share."""
    random = np.random.default_rng(seed)
    places = np.zeros(len(labels))
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        places[random.permutation(rows)] = (np.arange(len(rows)) + random.random()) / len(rows)
    return np.argsort(places, kind="stable")
