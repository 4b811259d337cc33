"""Pictures of each augmentation alone, made by the transformations of training (`automl.data.transforms`).

What is drawn at random within a limit is drawn a dozen times, and the draw that changes the picture most is shown, so
that the picture shows the limit. An augmentation without a limit shows three of its draws, the weakest first.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from automl.data.self_blend import self_blend
from automl.data.transforms import (
    CODEC_CRF,
    NOISE_DB,
    add_noise,
    code_h264,
    eval_transform,
    shown_part,
    train_transform,
)
from automl.gallery.levels import PLAIN, Level, Unit
from automl.gallery.pictures import Picture, Pixels, Row
from automl.recipe.augmentation import Augmentation, SquashCrop

_DRAWS = 12
Draw = Callable[[int], Pixels]
"""From a number to what an augmentation makes of a picture; the same number, the same draw."""


@dataclass(frozen=True, eq=False)
class Subject:
    """A sample on which augmentations are shown: its image (H, W, 3) uint8, and its class."""

    image: Pixels
    class_name: str
    is_real: bool


class Studio:
    """Makes pictures of subjects at an image size, in pixels; a study's seed decides what is drawn."""

    def __init__(self, subjects: Sequence[Subject], image_size: int, interpolation: str, squash: bool) -> None:
        crop = Augmentation.model_validate(PLAIN | ({"crop": SquashCrop()} if squash else {}))
        self._size, self._interpolation = image_size, interpolation
        self._whole = eval_transform(crop, image_size, interpolation)
        self.subjects = subjects
        self.cut_images = [self._whole(subject.image) for subject in subjects]
        """Each subject at the image size, nothing done to it: (3, S, S) uint8."""

    def show_unit(self, unit: Unit) -> Row:
        """Shows one augmentation on each subject that it is for, beside what it was made of."""
        lines = []
        for number, subject in enumerate(self.subjects):
            if unit.field == "self_blend" and not subject.is_real:
                continue
            plain = subject.image if unit.field == "crop" else to_pixels(self.cut_images[number])
            first = Picture(plain, f"{subject.class_name}, as it is", f"A sample of class {subject.class_name}")
            made = [
                Picture(pixels, caption, f"The same sample after {unit.name}{f', {caption}' if caption else ''}")
                for pixels, caption in self._show_levels(unit, number)
            ]
            lines.append((first, *made))
        return Row(unit.name, unit.text, tuple(lines))

    def _show_levels(self, unit: Unit, subject: int) -> list[tuple[Pixels, str]]:
        """Makes the pictures of an augmentation, with what stands below each."""
        cut = self.cut_images[subject]
        if unit.field in _PINNED:
            return [(to_pixels(step(cut)), caption) for caption, step in _PINNED[unit.field]()]
        if unit.field == "self_blend":
            return self._sort_draws(lambda draw: self._blend_image(subject, draw), cut, "now fake: ")
        if len(unit.levels) > 1:
            return [(self._draw_all(level, subject)[-1], level.caption) for level in unit.levels]
        (level,) = unit.levels
        return self._sort_draws(self._draw_by(level, subject), cut)

    def _sort_draws(self, draw: Draw, plain: torch.Tensor, before: str = "") -> list[tuple[Pixels, str]]:
        """Returns the weakest, the middle and the strongest draw; one alone where all are the same."""
        drawn = _sort_by_change([draw(number) for number in range(_DRAWS)], to_pixels(plain))
        if all(np.array_equal(drawn[0], other) for other in drawn[1:]):
            return [(drawn[0], f"{before}every time")]
        shown = {"weakest": drawn[0], "middle": drawn[_DRAWS // 2], "strongest": drawn[-1]}
        return [(pixels, f"{before}{name} of {_DRAWS} draws") for name, pixels in shown.items()]

    def _draw_all(self, level: Level, subject: int) -> list[Pixels]:
        """Draws a level a dozen times; the least changed first."""
        draw = self._draw_by(level, subject)
        return _sort_by_change([draw(number) for number in range(_DRAWS)], to_pixels(self.cut_images[subject]))

    def _draw_by(self, level: Level, subject: int) -> Draw:
        """Makes the function that draws a level: the crop of the whole image, all else of the image that is cut."""
        transform = train_transform(level.augmentation, self._size, self._interpolation)
        is_crop = level.augmentation.crop != Augmentation.model_validate(PLAIN).crop

        def draw(number: int) -> Pixels:
            with torch.random.fork_rng(devices=[]):
                torch.default_generator.manual_seed(number)
                cut = transform.cut(self.subjects[subject].image) if is_crop else self.cut_images[subject]
                return to_pixels(transform.finish(cut))

        return draw

    def _blend_image(self, subject: int, number: int) -> Pixels:
        """Forges a subject by blending it with itself, as training does, and cuts it."""
        part = shown_part(self.subjects[subject].image, self._whole.crop)
        return to_pixels(self._whole(self_blend(part, np.random.default_rng(number))))


def to_pixels(image: torch.Tensor) -> Pixels:
    """Turns an image (3, S, S) uint8 into an array (S, S, 3)."""
    return np.ascontiguousarray(image.permute(1, 2, 0).numpy())


def _sort_by_change(drawn: list[Pixels], plain: Pixels) -> list[Pixels]:
    """Sorts pictures by how far they are from the plain one, in the mean over all pixels."""
    return sorted(drawn, key=lambda pixels: float(np.abs(pixels.astype(np.int16) - plain).mean()))


_Steps = list[tuple[str, Callable[[torch.Tensor], torch.Tensor]]]


def _pin_codec() -> _Steps:
    """Makes the video codec at three qualities."""
    qualities = (CODEC_CRF[0], sum(CODEC_CRF) // 2, CODEC_CRF[1])
    return [(f"crf {crf}", partial(code_h264, crf, crf)) for crf in qualities]


def _pin_noise() -> _Steps:
    """Makes the noise of pictures of sound at three levels."""
    levels = (NOISE_DB[0], sum(NOISE_DB) / 2, NOISE_DB[1])
    return [(f"{level:.0f} dB", partial(add_noise, level, level)) for level in levels]


_PINNED: dict[str, Callable[[], _Steps]] = {"codec": _pin_codec, "noise": _pin_noise}
"""Augmentations whose limits are no part of a recipe, at three strengths."""
