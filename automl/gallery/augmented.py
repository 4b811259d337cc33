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
from automl.gallery.pictures import Picture, Pixels, Row, name_label
from automl.recipe.augmentation import Augmentation, SquashCrop

ENLARGED = "the middle, enlarged"
_DRAWS = 12
_FINE = ("blur", "jpeg", "downscale", "codec")
"""What they change cannot be seen in a small picture."""
_MIDDLE = 0.3
"""Share of a picture's shorter side that is enlarged."""
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
        """Shows one augmentation on each subject that it is for, beside what it was made of; fine traces enlarged."""
        lines = []
        for number, subject in enumerate(self.subjects):
            if unit.field == "self_blend" and not subject.is_real:
                continue
            plain = subject.image if unit.field == "crop" else to_pixels(self.cut_images[number])
            first = Picture(
                plain, f"{name_label(subject.class_name)}, as it is", f"A sample of {name_label(subject.class_name)}"
            )
            made = [
                Picture(pixels, caption, f"The same sample after {unit.name}{f', {caption}' if caption else ''}")
                for pixels, caption in self._show_levels(unit, number)
            ]
            lines.append((first, *made))
        if unit.field not in _FINE:
            return Row(unit.name, unit.text, tuple(lines))
        return Row(unit.name, f"{unit.text}; {ENLARGED}", tuple(tuple(map(enlarge_middle, line)) for line in lines))

    def _show_levels(self, unit: Unit, subject: int) -> list[tuple[Pixels, str]]:
        """Makes the pictures of an augmentation, with what stands below each."""
        cut = self.cut_images[subject]
        if unit.field in _PINNED:
            return [(to_pixels(step(cut)), caption) for caption, step in _PINNED[unit.field]()]
        if unit.field == "self_blend":
            draws = [self._draw_all(partial(self._blend_image, subject), subject)]
        else:
            draws = [self._draw_all(self._draw_by(unit, level, subject), subject) for level in unit.levels]
        if len(draws) > 1:
            return [(drawn[-1], level.caption) for drawn, level in zip(draws, unit.levels, strict=True)]
        (drawn,) = draws
        if all(np.array_equal(drawn[0], other) for other in drawn[1:]):
            return [(drawn[0], unit.name)]
        captions = ("weakest of 12 draws", "middle of 12 draws", "strongest of 12 draws")
        if unit.field == "crop":
            captions = ("a draw", "another", "a third")
        return list(zip((drawn[0], drawn[_DRAWS // 2], drawn[-1]), captions, strict=True))

    def _draw_all(self, draw: Draw, subject: int) -> list[Pixels]:
        """Draws a dozen times, and sorts by the distance from the plain picture, in the mean over all pixels."""
        plain = to_pixels(self.cut_images[subject]).astype(np.int16)
        return sorted(map(draw, range(_DRAWS)), key=lambda pixels: float(np.abs(pixels - plain).mean()))

    def _draw_by(self, unit: Unit, level: Level, subject: int) -> Draw:
        """Makes the function that draws a level: a crop of the whole image, all else of the image that is cut."""
        transform = train_transform(level.augmentation, self._size, self._interpolation)

        def draw(number: int) -> Pixels:
            with torch.random.fork_rng(devices=[]):
                torch.default_generator.manual_seed(number)
                image = self.subjects[subject].image
                cut = transform.cut(image) if unit.field == "crop" else self.cut_images[subject]
                return to_pixels(transform.finish(cut))

        return draw

    def _blend_image(self, subject: int, number: int) -> Pixels:
        """Forges a subject by blending it with itself, as training does, and cuts it."""
        part = shown_part(self.subjects[subject].image, self._whole.crop)
        return to_pixels(self._whole(self_blend(part, np.random.default_rng(number))))


def to_pixels(image: torch.Tensor) -> Pixels:
    """Turns an image (3, S, S) uint8 into an array (S, S, 3)."""
    return np.ascontiguousarray(image.permute(1, 2, 0).numpy())


def enlarge_middle(picture: Picture) -> Picture:
    """Cuts the middle square out of a picture and enlarges it three times, in plain blocks."""
    height, width, _ = picture.pixels.shape
    side = max(1, round(_MIDDLE * min(height, width)))
    top, left = (height - side) // 2, (width - side) // 2
    middle = picture.pixels[top : top + side, left : left + side]
    enlarged = np.ascontiguousarray(middle.repeat(3, axis=0).repeat(3, axis=1))
    return Picture(enlarged, picture.caption, f"{picture.description}; {ENLARGED}")


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
