"""What the views of sound share: parameters, cutting a clip into parts, and one line for what librosa cannot do."""

from collections.abc import Callable, Iterator
from functools import wraps
from pathlib import Path
from typing import Annotated, ClassVar, Literal, ParamSpec, Self, TypeVar

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from automl.errors import DataError, first_line
from automl.media.info import probe_media
from automl.media.opening import require
from automl.media.sound import NoSound, read_sound
from automl.views.base import ClipView, NothingToSee, Pixels, ViewImages, stack_images

P = ParamSpec("P")
R = TypeVar("R")

Samples = npt.NDArray[np.float32]


class SoundView(ClipView):
    """A view of sound: a picture of each part of a clip, time from left to right.

    A clip shorter than a part is repeated until it fills it, as Jung et al. (AASIST, ICASSP 2022) pad: an empty margin
    would tell the clip's length, not its sound. Silence gives pictures too.

    Attributes:
        count: Parts of a clip at most, evenly placed from its beginning to its end; never more than it takes to
            cover the clip.
        seconds: Of sound in one picture.
        sample_rate_hz: All sound is resampled to it first, so that recordings of different rates can be compared.
        window_seconds: Of sound that one column of the spectrogram is computed from.
        hop_seconds: From one column to the next.
    """

    media: ClassVar[Literal["image", "video", "sound"]] = "sound"
    needs: ClassVar[tuple[str, ...]] = ("av", "librosa")
    normalize: Literal["pretraining", "dataset"] = "dataset"
    count: Annotated[int, Field(ge=1, le=64)] = 4
    seconds: Annotated[float, Field(ge=0.5, le=60)] = 4.0
    sample_rate_hz: Annotated[int, Field(ge=4000, le=48_000)] = 16_000
    window_seconds: Annotated[float, Field(ge=0.005, le=0.5)] = 0.064
    hop_seconds: Annotated[float, Field(ge=0.001, le=0.1)] = 0.016

    @model_validator(mode="after")
    def _check_hop(self) -> Self:
        if self.hop_seconds > self.window_seconds:
            raise ValueError(
                f"hop_seconds {self.hop_seconds} leaves sound out between windows of {self.window_seconds} s;"
                " at most window_seconds"
            )
        return self

    @property
    def window(self) -> int:
        """Samples of a window, an even number."""
        return 2 * round(self.window_seconds * self.sample_rate_hz / 2)

    @property
    def hop(self) -> int:
        """Samples from one window to the next."""
        return max(1, round(self.hop_seconds * self.sample_rate_hz))

    def make_images(self, path: Path, size: int) -> ViewImages:
        """Draws a picture of each part of a clip's sound; see `BaseView.make_images`."""
        parts = read_parts(path, self.sample_rate_hz, self.seconds, self.count)
        drawn = [(time, self.draw_picture(samples, size)) for time, samples in parts]
        return stack_images([picture for _, picture in drawn], [time for time, _ in drawn], [])

    def draw_picture(self, samples: Samples, size: int) -> Pixels:
        """Draws one part, samples (n,) float32 in [-1, 1] at `sample_rate_hz`, as (size, size, 3) uint8."""
        raise NotImplementedError(f"the view {self.name} draws no picture")


def uses_librosa(compute: Callable[P, R]) -> Callable[P, R]:
    """Makes what librosa and NumPy find wrong with a sound a `DataError` of one line; the cause is chained."""

    @wraps(compute)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return compute(*args, **kwargs)
        except (require("librosa").LibrosaError, ValueError) as exc:
            raise DataError(f"its sound cannot be made into a picture: {first_line(exc)}") from exc

    return call


def read_parts(path: Path, sample_rate_hz: int, seconds: float, count: int) -> Iterator[tuple[float, Samples]]:
    """Yields evenly placed parts of a clip's sound, at most `count`; a clip shorter than `seconds` is repeated.

    Each is the time in seconds of the part's middle, and `seconds · sample_rate_hz` samples, float32.
    """
    audio = probe_media(path).audio
    if audio is None:
        raise NothingToSee(f"{path}: it has no sound track")
    length = audio.duration_seconds
    if length is None:
        length = len(_read_samples(path, sample_rate_hz, 0.0, None)) / sample_rate_hz
    number = min(count, max(1, int(np.ceil(length / seconds - 1e-3))))
    spare = max(0.0, length - seconds)
    starts = np.linspace(0, spare, number) if number > 1 else np.array([spare / 2])
    wanted = round(seconds * sample_rate_hz)
    for start in starts.tolist():
        samples = _read_samples(path, sample_rate_hz, start, seconds)
        middle = start + len(samples) / sample_rate_hz / 2
        yield middle, np.resize(samples, wanted)


def _read_samples(path: Path, sample_rate_hz: int, start: float, seconds: float | None) -> Samples:
    """Reads sound; where there is none, that is nothing to see."""
    try:
        return read_sound(path, sample_rate_hz, start, seconds)
    except NoSound as exc:
        raise NothingToSee(str(exc)) from exc
