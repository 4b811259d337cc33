"""What the views of sound share: cutting a clip into parts, and saying in one line what librosa cannot do."""

from collections.abc import Callable, Iterator
from functools import wraps
from pathlib import Path
from typing import ParamSpec, TypeVar

import numpy as np
import numpy.typing as npt

from automl.errors import DataError
from automl.media.opening import require
from automl.media.sound import NoSound, read_sound
from automl.views.base import NothingToSee, probe_sound

P = ParamSpec("P")
R = TypeVar("R")

Samples = npt.NDArray[np.float32]


def uses_librosa(compute: Callable[P, R]) -> Callable[P, R]:
    """Makes what librosa and NumPy find wrong with a sound a `DataError` of one line; the cause is chained."""

    @wraps(compute)
    def told(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return compute(*args, **kwargs)
        except (require("librosa").LibrosaError, ValueError) as exc:
            reason = str(exc).strip().split("\n")[0]
            raise DataError(f"its sound cannot be made into a picture: {reason}") from exc

    return told


def parts(path: Path, sample_rate_hz: int, seconds: float, count: int) -> Iterator[tuple[float, Samples]]:
    """Reads evenly placed parts of a clip's sound, one after the other.

    Args:
        path: A sound file or a video.
        sample_rate_hz: Samples per second of what is given.
        seconds: Length of a part; a shorter clip is repeated.
        count: Parts at most.

    Yields:
        The time in seconds of the part's middle, and `seconds · sample_rate_hz` samples, float32.

    Raises:
        NothingToSee: If there is no sound.
        DataError: If the file cannot be read.
    """
    length = probe_sound(path).duration_seconds
    if length is None:
        length = len(_read(path, sample_rate_hz, 0.0, None)) / sample_rate_hz
    number = min(count, max(1, int(np.ceil(length / seconds - 1e-3))))
    spare = max(0.0, length - seconds)
    starts = np.linspace(0, spare, number) if number > 1 else np.array([spare / 2])
    wanted = round(seconds * sample_rate_hz)
    for start in starts.tolist():
        samples = _read(path, sample_rate_hz, start, seconds)
        middle = start + len(samples) / sample_rate_hz / 2
        yield middle, np.resize(samples, wanted)


def _read(path: Path, sample_rate_hz: int, start: float, seconds: float | None) -> Samples:
    """Reads sound; where there is none, that is nothing to see."""
    try:
        return read_sound(path, sample_rate_hz, start, seconds)
    except NoSound as exc:
        raise NothingToSee(str(exc)) from exc
