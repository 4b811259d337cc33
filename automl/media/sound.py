"""Reading the sound of a file: of a sound file, or the sound track of a video.

**Times.** Every block is put where its time stamp says, counted in the sound's own samples from the file's time zero:
lost packets leave silence, and a part is the same whether what comes before it was read or jumped over. Stamps wobble:
a block that is off by no more than `_JITTER_SECONDS` is taken to follow the one before, without a click. Silence is put
in before the sample rate is changed, and that begins at a time at which both rates have a sample; so it does not matter
where reading begins.

**Channels.** Their mean, as librosa has it: FFmpeg's own way to mono sums stereo to √2 times its loudness. They are
mixed before the sample rate is changed: it is done once. Blocks are packed: converting a planar one of eight or more
channels to an array ends the process in PyAV 18.1, which counts the planes up to a null pointer that is not there.
"""

import math
from collections.abc import Generator, Iterator
from contextlib import closing
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from automl.errors import DataError
from automl.media.opening import (
    EXACT,
    EXACT_SECONDS,
    decode_packet,
    find_end,
    find_origin,
    find_promised_end,
    find_sound,
    open_media,
    read_only,
    refuse_missing,
    require,
)

if TYPE_CHECKING:
    from av.audio.frame import AudioFrame
    from av.audio.stream import AudioStream
    from av.container import InputContainer

Samples = npt.NDArray[np.float32]

# What is decoded before the wanted start: MP3 frames borrow bits from up to nine frames before, Opus wants 80 ms.
_PREROLL_SECONDS = Fraction(1, 2)
_BLOCK = 16_384  # samples at a time: codecs give a thousand or less, and every step costs
# Above what rounding to milliseconds and the clocks of recorders do, below an ordinary packet of 20 ms or more, and
# far below the 45 ms from which people notice that lips and voice are apart (ITU-R BT.1359).
_JITTER_SECONDS = 0.015
# AVI counts bytes: its stamps are those of chunks, in which a frame begins anywhere.
_AVI_JITTER_SECONDS = 0.06
_COARSE_SECONDS = Fraction(1, 1000)  # of time stamps in Matroska, WebM, FLV and ASF
_SET_BACK_SECONDS = 1.0  # stamps that go back further were begun anew, as in files that were put together
_LOUDEST = 1e30  # 1 is full amplitude; what is beyond would overflow as it is resampled
_LARGEST_BYTES = 1 << 30  # of samples in memory: 4.6 hours at 16 kHz


class NoSound(DataError):  # noqa: N818 - a name of the project's words
    """The file has no sound track, or an empty one."""


def read_sound(
    path: str | Path, sample_rate_hz: int, start_seconds: float = 0.0, seconds: float | None = None
) -> Samples:
    """Reads sound as mono (the mean of the channels) at the wanted sample rate.

    A part of a long file is found by seeking; memory and time then do not depend on the file's length. Sound that
    begins later than the file's pictures begins with silence, so that times are those of `read_frames`; where packets
    are missing is silence, too.

    From `start_seconds` on, `seconds` are read, or less where the sound ends before; None: to the end, which takes
    4 · `sample_rate_hz` bytes of memory a second.

    Returns:
        Shape (samples,), dtype float32, in [-1, 1]. A part is that part of the whole, but for the noise of codecs that
        have a memory (Opus), and but for a shift of a millisecond where a container counts in milliseconds and the
        codec has frames of different lengths (Vorbis in Matroska or WebM).

    Raises:
        NoSound: If there is no sound track, or nothing in it.
        DataError: If the file cannot be read, is cut off, has samples that are not numbers, or ends before
            `start_seconds`; or if what is wanted takes more than a gibibyte.
    """
    if sample_rate_hz < 1 or start_seconds < 0 or (seconds is not None and seconds <= 0):
        raise ValueError(
            f"sample_rate_hz and seconds must be positive, got {sample_rate_hz=} {start_seconds=} {seconds=}"
        )
    begin = round(start_seconds * sample_rate_hz)
    end = None if seconds is None else begin + round(seconds * sample_rate_hz)
    for seek in (True, False) if start_seconds > _PREROLL_SECONDS else (False,):
        blocks, ended = _read_whole(path, sample_rate_hz, begin, end, seek)
        if blocks is not None:
            break
    if not blocks:
        if not ended:
            raise NoSound(f"{path}: its sound track is empty")
        raise DataError(
            f"{path}: its sound ends at {ended / sample_rate_hz:.3f} s, before {start_seconds} s, where to begin"
        )
    samples: Samples = np.concatenate(blocks)
    return np.clip(samples, -1.0, 1.0, out=samples)  # lossy codecs overshoot


def refuse_not_numbers(path: str | Path) -> None:
    """Decodes all sound of a file; DataError if a sample is NaN or infinite: how many are."""
    wrong = total = 0
    with open_media(path) as container:
        stream = find_sound(container)
        if stream is None:
            return
        for _, _, samples in _decode_blocks(container, read_only(container, stream), _Clock(container, stream)):
            wrong += int(np.count_nonzero(~(np.abs(samples) <= _LOUDEST)))  # NaN is not
            total += len(samples)
    if wrong:
        raise DataError(
            f"cannot read {path}: {wrong} of {total} samples {'is not a number' if wrong == 1 else 'are not numbers'}"
        )


def _read_whole(
    path: str | Path, rate: int, begin: int, end: int | None, seek: bool
) -> tuple[list[Samples] | None, int]:
    """Reads the samples from `begin` to `end`, counted in samples of `rate` from the file's time zero.

    With the blocks comes where the sound ended; they are None if the seek went past `begin`.
    """
    blocks: list[Samples] = []
    position, ended = begin, None  # of the next sample, and of the sound
    with open_media(path) as container:
        stream = find_sound(container)
        if stream is None:
            raise NoSound(f"{path}: it has no sound track")
        read_only(container, stream)
        clock = _Clock(container, stream)
        if seek:
            clock.learn_stamp(_decode_frames(container, stream))
            if not _seek_sound(container, stream, Fraction(begin, rate)):
                return None, 0
        with closing(_resample_blocks(path, _decode_blocks(container, stream, clock), rate)) as resampled:
            for start, samples in resampled:
                if seek and ended is None and start > begin:
                    return None, 0
                ended = start + len(samples)
                stop = ended if end is None else min(end, ended)
                if 4 * (stop - begin) > _LARGEST_BYTES:
                    hours = _LARGEST_BYTES / 4 / rate / 3600
                    raise DataError(f"{path}: more than {hours:.1f} hours of sound at {rate} Hz do not fit in memory")
                if min(start, stop) > position:
                    blocks.append(np.zeros(min(start, stop) - position, dtype=np.float32))
                if stop > max(position, start):  # an empty view would keep the whole block alive
                    blocks.append(samples[max(0, position - start) : stop - start])
                position = max(position, stop)
                if position == end:
                    break
            else:
                if container.format.name in EXACT and ended is not None:
                    _refuse_short(path, stream, ended / rate)
    if seek and ended is None:
        return None, 0  # nothing came: perhaps the end was passed
    return blocks, ended or 0


def _refuse_short(path: str | Path, stream: "AudioStream", ended_seconds: float) -> None:
    """Raises DataError where the packets end before the header says, as `probe_media` does.

    That the last of them is incomplete, or some are damaged, is neither seen by that nor refused here.
    """
    promised = find_promised_end(stream)
    if promised is not None and promised - ended_seconds > EXACT_SECONDS:
        packets_end = find_end(path, stream.index)
        if packets_end is not None:
            refuse_missing(path, promised, packets_end, EXACT_SECONDS)


def _seek_sound(container: "InputContainer", stream: "AudioStream", seconds: Fraction) -> bool:
    """Goes to somewhat before a time; False if that cannot be done."""
    try:
        container.seek(
            int((seconds - _PREROLL_SECONDS + find_origin(container)) / Fraction(stream.time_base or 1)), stream=stream
        )
    except require("av").FFmpegError:
        return False
    return True


def _resample_blocks(
    path: str | Path, blocks: Iterator[tuple[int, int, Samples]], rate: int
) -> Generator[tuple[int, Samples], None, None]:
    """Changes the rate of blocks (rate, place, samples) to another one; what is between them becomes silence."""
    run: _Run | None = None
    for own, start, samples in blocks:
        if not np.abs(samples).max() <= _LOUDEST:  # nor is NaN; resampling would spread what is no number
            refuse_not_numbers(path)
        if run is None or run.own_rate != own:
            if run is not None:
                yield from run.finish_blocks()
            run = _Run(own, rate, start)
        yield from run.add_block(start, samples)
    if run is not None:
        yield from run.finish_blocks()


class _Run:
    """Resamples sound of one rate from a place on."""

    def __init__(self, own_rate: int, rate: int, start: int) -> None:
        self.own_rate = own_rate
        divisor = math.gcd(own_rate, rate)
        step = own_rate // divisor
        aligned = start - start % step  # where both rates have a sample
        self._fed = aligned
        self._given = aligned // step * (rate // divisor)
        self._begin = start * rate // own_rate  # what is before is only there to be aligned
        self._resampler = None
        if own_rate != rate:
            self._resampler = require("av").AudioResampler(format="fltp", layout="mono", rate=rate)

    def add_block(self, start: int, samples: Samples) -> Iterator[tuple[int, Samples]]:
        """Takes samples at a place, not before the end of what it was given; gives what is ready, with its place."""
        while self._fed < start:
            yield from self._feed_resampler(np.zeros(min(_BLOCK, start - self._fed), dtype=np.float32))
        yield from self._feed_resampler(samples)

    def finish_blocks(self) -> Iterator[tuple[int, Samples]]:
        """Gives the rest."""
        if self._resampler is not None:
            yield from self._take_samples(self._resampler.resample(None))

    def _feed_resampler(self, samples: Samples) -> Iterator[tuple[int, Samples]]:
        if self._resampler is None:
            yield self._fed, samples
            self._fed += len(samples)
            return
        frame = require("av").AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = self.own_rate, self._fed, Fraction(1, self.own_rate)
        self._fed += len(samples)
        yield from self._take_samples(self._resampler.resample(frame))

    def _take_samples(self, frames: "list[AudioFrame]") -> Iterator[tuple[int, Samples]]:
        for frame in frames:
            samples, start = _mix_channels(frame), self._given
            self._given += len(samples)
            if self._given > self._begin:
                yield max(start, self._begin), samples[max(0, self._begin - start) :]


def _decode_blocks(
    container: "InputContainer", stream: "AudioStream", clock: "_Clock"
) -> Iterator[tuple[int, int, Samples]]:
    """Yields (rate, place, mono samples) of a stream from where it stands, at its own rate; blocks do not overlap."""
    av = require("av")
    packer = None
    kind: tuple[str, str, int] | None = None
    rate = position = given = 0  # of the sound; of what comes out of the packer next; after what was given out

    def take_ready(outputs: "list[AudioFrame]") -> Iterator[tuple[int, int, Samples]]:
        nonlocal position, given
        for output in outputs:
            late, end = max(position, given), position + output.samples
            if late < end:
                yield rate, late, _mix_channels(output)[late - position :]
            position, given = end, max(given, end)

    for frame in _decode_frames(container, stream):
        # a stream may change its rate or its channels; a resampler is made for one kind of frame
        before, kind = kind, None if frame is None else (frame.format.name, frame.layout.name, frame.sample_rate)
        follows = clock.next
        start = None if frame is None else clock.place_frame(frame)
        if packer is not None and (kind != before or start != follows):
            yield from take_ready(packer.resample(None))
            packer = None
        if frame is None or start is None:
            continue
        if packer is None:
            packer, position = av.AudioResampler(format="flt", frame_size=_BLOCK), start
            given = given * frame.sample_rate // rate if rate else start
            rate = frame.sample_rate
        yield from take_ready(packer.resample(frame))


class _Clock:
    """Where the frames of a stream belong by their time stamps, counted in samples from the file's time zero.

    Stamps in milliseconds are made exact: most codecs have frames of one length, so that all of them end at multiples
    of it after the first one.
    """

    def __init__(self, container: "InputContainer", stream: "AudioStream") -> None:
        self.next: int | None = None
        """Where a frame belongs that follows the last one."""
        self._base, self._origin = Fraction(stream.time_base or 1), find_origin(container)
        self._jitter = _AVI_JITTER_SECONDS if container.format.name == "avi" else _JITTER_SECONDS
        self._rate = self._shift = 0
        self._ends: list[int] = []  # of the first two frames of the file

    def learn_stamp(self, frames: "Iterator[AudioFrame | None]") -> None:
        """Takes the first frames of the file, before others are read from further on."""
        if self._base >= _COARSE_SECONDS:
            for frame in frames:
                if frame is None or len(self._ends) == 2:
                    break
                self.place_frame(frame)
            self.next = None

    def place_frame(self, frame: "AudioFrame") -> int:
        """Returns where the next frame belongs."""
        if frame.sample_rate != self._rate:
            self._change_rate(frame.sample_rate)
        start = self.next
        if frame.pts is not None:
            stamp = (frame.pts * self._scale - self._zero) // self._divisor + self._shift
            if start is None or self._is_off(stamp - start):
                start = self._find_exact_end(stamp + frame.samples) - frame.samples
        start = start or 0
        self.next = start + frame.samples
        if len(self._ends) < 2:
            self._ends.append(self.next)
        return start

    def _is_off(self, samples: int) -> bool:
        """Returns whether a stamp deviates by too much from where the frame would follow."""
        if samples < -_SET_BACK_SECONDS * self._rate:
            self._shift -= samples
            return False
        return abs(samples) > self._jitter * self._rate

    def _find_exact_end(self, end: int) -> int:
        """Returns where the frame ends that by its stamp, rounded to milliseconds, ends at `end`."""
        if self._base < _COARSE_SECONDS or len(self._ends) < 2 or self._ends[0] == self._ends[1]:
            return end
        first, step = self._ends[0], self._ends[1] - self._ends[0]
        exact = first + round((end - first) / step) * step
        return exact if abs(exact - end) <= _COARSE_SECONDS * 2 * self._rate else end

    def _change_rate(self, rate: int) -> None:
        if self._rate:
            self._jitter = math.inf  # files that are put together: FFmpeg goes on to count by the first rate
            self.next = None if self.next is None else self.next * rate // self._rate
            self._shift = self._shift * rate // self._rate
        self._rate, self._ends = rate, []
        # (pts · base - origin) · rate, rounded, in integers: this is done for every frame
        self._divisor = 2 * self._base.denominator * self._origin.denominator
        self._scale = 2 * self._base.numerator * self._origin.denominator * rate
        self._zero = 2 * self._origin.numerator * self._base.denominator * rate - self._divisor // 2


def _mix_channels(frame: "AudioFrame") -> Samples:
    """Returns the mean of the channels of a frame of packed samples, or of one plane; float32."""
    channels = frame.layout.nb_channels
    samples: Samples = np.frombuffer(memoryview(frame.planes[0]), dtype=np.float32, count=channels * frame.samples)
    if channels == 1:
        return samples
    mean: Samples = samples.reshape(-1, channels) @ np.full(channels, 1 / channels, dtype=np.float32)
    return mean


def _decode_frames(container: "InputContainer", stream: "AudioStream") -> Iterator["AudioFrame | None"]:
    """Yields the decoded frames, and None after the last; damaged packets are left out."""
    for packet in container.demux(stream):
        yield from decode_packet(packet)
    yield None
