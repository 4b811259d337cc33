"""Operations on the pictures of a video: each takes the frames one after the other and gives frames."""

from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal, Self

import numpy as np
from PIL import Image
from pydantic import Field, model_validator

from automl.degradations.step import Step

TimedFrame = tuple[float, np.ndarray]
"""Seconds since which a frame is displayed, and its pixels: shape (height, width, 3), dtype uint8, RGB."""


class VideoStep(Step):
    """An operation on the frames of a video."""

    def change_frames(self, frames: Iterator[TimedFrame], random: np.random.Generator) -> Iterator[TimedFrame]:
        """Yields the changed frames; those that stay keep their times."""
        raise NotImplementedError(f"{self.operation} changes no frames")


class H264(VideoStep):
    """How the copy is encoded by x264: the last step, and only that.

    Attributes:
        crf: x264's constant rate factor: 18 looks like the source, 23 is x264's default, 51 the worst.
    """

    codec: ClassVar[str | None] = "libx264"
    operation: Literal["h264"] = "h264"
    crf: Annotated[int, Field(ge=1, le=51)]

    def change_frames(self, frames: Iterator[TimedFrame], _random: np.random.Generator) -> Iterator[TimedFrame]:
        """Yields the frames as they are: the encoder is told."""
        return frames


class DropFrames(VideoStep):
    """Leaves out frames: those before are displayed for longer, the clip lasts as long as before.

    Attributes:
        every: Of so many frames that follow one another, the last is left out: 2 leaves out every second one.
        share: The probability with which each frame but the first is left out.
    """

    operation: Literal["drop_frames"] = "drop_frames"
    every: Annotated[int, Field(ge=2)] | None = None
    share: Annotated[float, Field(gt=0, lt=1)] | None = None

    @model_validator(mode="after")
    def _check_rule(self) -> Self:
        """Refuses no rule, and two."""
        if (self.every is None) == (self.share is None):
            raise ValueError("drop_frames takes either every, such as 2, or share, such as 0.3")
        return self

    def change_frames(self, frames: Iterator[TimedFrame], random: np.random.Generator) -> Iterator[TimedFrame]:
        """Yields the frames that are left."""
        for number, frame in enumerate(frames):
            if self.every is not None and number % self.every == self.every - 1:
                continue
            if self.share is not None and random.random() < self.share and number:
                continue
            yield frame


class Shrink(VideoStep):
    """Makes the frames smaller by a factor (bicubic, antialiased)."""

    operation: Literal["shrink"] = "shrink"
    factor: Annotated[float, Field(gt=0, lt=1)]

    def change_frames(self, frames: Iterator[TimedFrame], _random: np.random.Generator) -> Iterator[TimedFrame]:
        """Yields the smaller frames."""
        for seconds, pixels in frames:
            height, width = (max(2, round(side * self.factor)) for side in pixels.shape[:2])
            small = Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC)
            yield seconds, np.asarray(small)


AnyVideoStep = Annotated[H264 | DropFrames | Shrink, Field(discriminator="operation")]
