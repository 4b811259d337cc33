"""What the views of sound share: cutting a clip into parts."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from automl.data.media import NoSound, read_sound
from automl.data.views.base import NothingToSee, probe_sound

__all__ = ["Samples", "parts"]

Samples = npt.NDArray[np.float32]


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
