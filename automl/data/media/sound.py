"""Reading the sound of a file: of a sound file, or the sound track of a video."""

from collections.abc import Generator, Iterator
from contextlib import closing
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from automl.data.media.opening import decoded, find_sound, only, open_media, origin_of, require
from automl.errors import DataError

if TYPE_CHECKING:
    from av.audio.frame import AudioFrame
    from av.audio.stream import AudioStream
    from av.container import InputContainer

__all__ = ["NoSound", "read_sound"]

# What is decoded before the wanted start: MP3 frames borrow bits from up to nine frames before, Opus wants 80 ms.
_PREROLL_SECONDS = Fraction(1, 2)
_BLOCK = 16_384  # samples at a time: codecs give a thousand or less, and every step costs


class NoSound(DataError):  # noqa: N818 - a name of the project's words
    """The file has no sound track, or an empty one."""


def read_sound(
    path: str | Path, sample_rate_hz: int, start_seconds: float = 0.0, seconds: float | None = None
) -> np.ndarray:
    """Reads sound as mono (the mean of the channels) at the wanted sample rate.

    A part of a long file is found by seeking; memory and time then do not depend on the file's length. Sound that
    begins later than the file's pictures begins with silence, so that times are those of `read_frames`.

    Args:
        path: A sound file, or a video with sound.
        sample_rate_hz: Samples per second of the result.
        start_seconds: Where to begin.
        seconds: How much to read; less where the sound ends before. None: to the end, which takes
            4 · `sample_rate_hz` bytes of memory a second.

    Returns:
        Shape (samples,), dtype float32, in [-1, 1]. A part that does not start at 0 may be shifted by up to half a
        sample against the same part of the whole.

    Raises:
        NoSound: If there is no sound track, or nothing in it.
        DataError: If the file cannot be read, or ends before `start_seconds`.
    """
    if sample_rate_hz < 1 or start_seconds < 0 or (seconds is not None and seconds <= 0):
        raise ValueError(
            f"sample_rate_hz and seconds must be positive, got {sample_rate_hz=} {start_seconds=} {seconds=}"
        )
    begin = round(start_seconds * sample_rate_hz)
    end = None if seconds is None else begin + round(seconds * sample_rate_hz)
    seeks = (True, False) if start_seconds > _PREROLL_SECONDS else (False,)
    for seek in seeks:
        blocks, ended = _read(path, sample_rate_hz, begin, end, seek)
        if blocks is not None:
            break
    if not blocks:
        if not ended:
            raise NoSound(f"{path}: its sound track is empty")
        raise DataError(
            f"{path}: its sound ends at {ended / sample_rate_hz:.3f} s, before {start_seconds} s, where to begin"
        )
    samples: np.ndarray = np.concatenate(blocks)
    return np.clip(samples, -1.0, 1.0, out=samples)  # lossy codecs overshoot


def _read(path: str | Path, rate: int, begin: int, end: int | None, seek: bool) -> tuple[list[np.ndarray] | None, int]:
    """Reads the samples from `begin` to `end`, counted in samples of `rate` from the file's time zero.

    Returns:
        The samples in blocks, and where the sound ended; None for the blocks if the seek went past `begin`.
    """
    blocks: list[np.ndarray] = []
    with open_media(path) as container:
        stream = find_sound(container)
        if stream is None:
            raise NoSound(f"{path}: it has no sound track")
        only(container, stream)
        if seek and not _seek(container, stream, Fraction(begin, rate)):
            return None, 0
        position = 0
        with closing(_samples(container, stream, rate)) as found:
            for number, (time, samples) in enumerate(found):
                if number == 0:
                    position = 0 if time is None else round(time * rate)
                    if position > begin and seek:
                        return None, 0
                    if position > begin:
                        blocks.append(np.zeros(min(position, end or position) - begin, dtype=np.float32))
                stop = len(samples) if end is None else max(0, end - position)
                if position + len(samples) > begin:  # an empty view would keep the whole block alive
                    blocks.append(samples[max(0, begin - position) : stop])
                position += len(samples)
                if end is not None and position >= end:
                    break
    if seek and position == 0:
        return None, 0  # nothing came: perhaps the end was passed
    return [block for block in blocks if len(block)], position


def _seek(container: "InputContainer", stream: "AudioStream", seconds: Fraction) -> bool:
    """Goes to somewhat before a time; False if that cannot be done."""
    try:
        container.seek(
            int((seconds - _PREROLL_SECONDS + origin_of(container)) / Fraction(stream.time_base or 1)), stream=stream
        )
    except require("av").FFmpegError:
        return False
    return True


def _samples(
    container: "InputContainer", stream: "AudioStream", rate: int
) -> Generator[tuple[Fraction | None, np.ndarray], None, None]:
    """Yields (seconds since time zero if known, mono samples (n,) float32) of a stream from where it stands."""
    av = require("av")
    origin = origin_of(container)
    resampler, made_for = None, None
    for frame in _frames(container, stream):
        # a stream may change its rate or its channels; a resampler is made for one kind of frame
        kind = None if frame is None else (frame.format.name, frame.layout.name, frame.sample_rate)
        outputs: list[AudioFrame] = []
        if kind != made_for:
            if resampler is not None:
                outputs += resampler.resample(None)
            resampler, made_for = av.AudioResampler(format="fltp", rate=rate, frame_size=_BLOCK), kind
        if resampler is not None and frame is not None:
            outputs += resampler.resample(frame)
        for output in outputs:
            time = None if output.pts is None else output.pts * Fraction(output.time_base or 1) - origin
            channels = output.to_ndarray()  # (channels, samples)
            # the mean, as librosa has it: FFmpeg's own way to mono sums stereo to √2 times its loudness
            yield time, channels[0] if len(channels) == 1 else channels.mean(axis=0, dtype=np.float32)


def _frames(container: "InputContainer", stream: "AudioStream") -> Iterator["AudioFrame | None"]:
    """Yields the decoded frames, and None after the last; damaged packets are left out."""
    for packet in container.demux(stream):
        yield from decoded(packet)
    yield None
