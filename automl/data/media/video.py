"""Reading frames of a video: those displayed at wanted times, or all of them one after the other.

**Seeking.** A frame can only be decoded from the keyframe before it. For each wanted time, in order, the file's index
says where the last keyframe before it lies: if that is ahead of what was decoded so far, the reader jumps there, else
it goes on decoding. So a few frames of a long clip cost a few groups of pictures, and times closer than the keyframes
are read in one pass. The result is the same as that of decoding everything.

**Threads.** One per decoder. Whoever reads a folder uses a thread per core with a file each: FFmpeg releases the
interpreter lock, no core waits for another, and nothing is lost after a seek, whereas FFmpeg's own threads within a
file decode frames ahead that nobody wants. `studies/benchmarks/decode.py` measures both. (Having the decoder skip the
B-frames before a wanted one, `skip_frame=NONREF`, gained 2 % on FaceForensics++ clips: not worth its care.)
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from automl.data.media.opening import decoded, end_of, find_video, only, open_media, origin_of, promised_end, require
from automl.errors import DataError

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

__all__ = ["Frames", "Turn", "iterate_frames", "read_frames", "turn_of"]

THREADS = 1
"""Of one decoder; 0: as many as FFmpeg likes."""

_REORDERING = frozenset({"h264", "hevc"})
_TOLERANCE = Fraction(1, 1_000_000)  # seconds: a time that was rounded to microseconds still means its frame
_GAP_SECONDS = 2  # where the index says nothing about keyframes, a jump of so much is tried
_CUT_OFF_SECONDS = 1  # frames may be missing at the end for so long before a file counts as cut off


@dataclass(frozen=True, eq=False)
class Frames:
    """Frames of one video.

    Attributes:
        pixels: Shape (N, height, width, 3), dtype uint8, RGB, upright.
        times_seconds: Shape (N,), dtype float64: since when each frame is displayed, from the beginning of the file.
    """

    pixels: np.ndarray
    times_seconds: np.ndarray

    def __len__(self) -> int:
        return len(self.pixels)


@dataclass(frozen=True)
class Turn:
    """How stored frames are brought upright: first mirrored along the diagonal, then along the axes."""

    transpose: bool = False
    flip_x: bool = False
    flip_y: bool = False

    @property
    def degrees(self) -> int:
        """The clockwise rotation, a multiple of 90; of a mirrored video, that which follows the mirror."""
        if self.transpose:
            return 270 if self.flip_y else 90
        return 180 if self.flip_y else 0

    def apply(self, pixels: np.ndarray) -> np.ndarray:
        """Turns (height, width, 3) upright."""
        if self.transpose:
            pixels = pixels.transpose(1, 0, 2)
        return pixels[:: -1 if self.flip_y else 1, :: -1 if self.flip_x else 1]


def read_frames(
    path: str | Path,
    times_seconds: Sequence[float] | None = None,
    count: int | None = None,
    size: int | None = None,
) -> Frames:
    """Reads the frames that are displayed at some times.

    Args:
        path: The video.
        times_seconds: The times, in any order, from the beginning of the file; before the first frame the first is
            taken, after the last the last.
        count: Instead of times: the frames in the middle of so many equal parts of the video. A frame comes more than
            once if there are not as many.
        size: Pixels of the short side; larger frames are shrunk (bicubic, antialiased), smaller ones stay as they
            are. None: full size.

    Returns:
        The frames in the order of the times, all of the first decoded frame's shape.

    Raises:
        DataError: If the file cannot be read, has no video track, no frames, or is cut off.
    """
    if (times_seconds is None) == (count is None) or (count is not None and count < 1):
        raise ValueError(f"give either times_seconds or a positive count, got {times_seconds=} {count=}")
    for seek in (True, False):
        with open_media(path) as container:
            stream = _open_video(container, path)
            base, origin = Fraction(stream.time_base or 1), origin_of(container)
            if times_seconds is None:
                wanted = _evenly(*_span(path, stream), count or 1)
            else:
                wanted = [int((Fraction(float(t)) + _TOLERANCE + origin) // base) for t in times_seconds]
            try:
                return _read(path, _Decoder(container, stream, seek), _Painter(size), wanted, base, origin)
            except _CannotSeekError:
                continue  # opened anew: nobody knows where a failed seek has left the file
    raise AssertionError("decoding without seeking cannot fail to seek")


def iterate_frames(path: str | Path, stride: int = 1, size: int | None = None) -> Iterator[tuple[float, np.ndarray]]:
    """Reads a video from beginning to end, one frame in memory at a time; of a damaged file, what is there.

    Args:
        path: The video.
        stride: Every how many frames one is given.
        size: As for `read_frames`.

    Yields:
        The time in seconds since which the frame is displayed, and its pixels (height, width, 3) uint8, RGB, upright.

    Raises:
        DataError: If the file cannot be read, has no video track or no frames.
    """
    with open_media(path) as container:
        stream = _open_video(container, path)
        base, origin = Fraction(stream.time_base or 1), origin_of(container)
        decoder, painter = _Decoder(container, stream, seek=False), _Painter(size)
        number = -1
        for number, frame in enumerate(decoder.frames()):
            if number % stride == 0:
                yield _time(frame, base, origin), painter.paint(frame)
        if number < 0:
            raise DataError(f"cannot read {path}: its video track has no frames")


def turn_of(frame: "VideoFrame") -> Turn:
    """Reads from the display matrix of a decoded frame how it is brought upright."""
    items: Any = frame.side_data  # which PyAV 18 annotates as something else
    side_data = {item.type.name: item for item in items}
    if "DISPLAYMATRIX" not in side_data:
        return Turn()
    # (x', y') = (a·x + c·y, b·x + d·y), 16.16 fixed point: ISO/IEC 14496-12, 6.2.2
    a, b, _, c, d = np.frombuffer(bytes(side_data["DISPLAYMATRIX"]), dtype=np.int32)[:5].tolist()
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return Turn(False, flip_x=a < 0, flip_y=d < 0)
    return Turn(True, flip_x=c < 0, flip_y=b < 0)


def _open_video(container: "InputContainer", path: str | Path) -> "VideoStream":
    """The video track of a file, as the only one that is read."""
    stream = find_video(container, path)
    if stream is None:
        raise DataError(f"cannot read {path}: it has no video track")
    return only(container, stream)


def _read(
    path: str | Path, decoder: "_Decoder", painter: "_Painter", wanted: list[int], base: Fraction, origin: Fraction
) -> Frames:
    """Reads the frames displayed at the timestamps `wanted`, given in units of `base` seconds."""
    pixels: np.ndarray | None = None
    times = np.zeros(len(wanted))
    before: tuple[VideoFrame, int] | None = None
    for place in sorted(range(len(wanted)), key=wanted.__getitem__):
        frame = decoder.at(wanted[place])
        if frame is None:
            raise DataError(f"cannot read {path}: its video track has no frames")
        times[place] = _time(frame, base, origin)
        if decoder.missing_seconds(wanted[place]) > _CUT_OFF_SECONDS:
            raise DataError(f"cannot read {path}: cut off: its frames end at {times[place]:.3f} s")
        if before is not None and before[0] is frame and pixels is not None:
            pixels[place] = pixels[before[1]]
        else:
            image = painter.paint(frame)
            if pixels is None:
                pixels = np.empty((len(wanted), *image.shape), dtype=np.uint8)
            pixels[place] = image
        before = frame, place
    return Frames(np.empty((0, 0, 0, 3), dtype=np.uint8) if pixels is None else pixels, times)


def _span(path: str | Path, stream: "VideoStream") -> tuple[int, int]:
    """The timestamps at which the video track begins and ends."""
    start, end = stream.start_time or 0, promised_end(stream)
    if end is None:
        end = end_of(path, stream.index)
    return start, start if end is None else int(end / Fraction(stream.time_base or 1))


def _evenly(start: int, end: int, count: int) -> list[int]:
    """Timestamps in the middle of `count` equal parts."""
    return [start + (2 * i + 1) * max(0, end - start) // (2 * count) for i in range(count)]


def _time(frame: "VideoFrame", base: Fraction, origin: Fraction) -> float:
    """Seconds from the beginning of the file to a frame."""
    return round(float((frame.pts or 0) * base - origin), 6)


class _CannotSeekError(Exception):
    """This file can only be decoded from its beginning."""


class _Painter:
    """Turns decoded frames into RGB arrays of one shape."""

    def __init__(self, size: int | None) -> None:
        av = require("av")
        self._size = size
        self._shape: tuple[int, int] | None = None  # stored (width, height), fixed by the first frame
        self._turn = Turn()
        self._scaler = av.video.reformatter.VideoReformatter()
        flags = av.video.reformatter.Interpolation
        # bit-exact: the same pixels whatever the processor
        self._flags = flags.BICUBIC | flags.ACCURATE_RND | flags.BITEXACT

    def paint(self, frame: "VideoFrame") -> np.ndarray:
        """Converts a frame of any pixel format to (height, width, 3) uint8, RGB, upright."""
        if self._shape is None:
            scale = min(1.0, self._size / min(frame.width, frame.height)) if self._size else 1.0
            self._shape = max(1, round(frame.width * scale)), max(1, round(frame.height * scale))
            self._turn = turn_of(frame)
        width, height = self._shape
        rgb = self._scaler.reformat(frame, width, height, "rgb24", interpolation=self._flags, threads=1)
        return np.ascontiguousarray(self._turn.apply(rgb.to_ndarray()))


class _Decoder:
    """Gives the frame displayed at a timestamp; timestamps must not go back."""

    def __init__(self, container: "InputContainer", stream: "VideoStream", seek: bool) -> None:
        # AVI stores no display times; FFmpeg makes up wrong ones for H.264 with B-frames: such frames are counted
        self._counts = container.format.name == "avi" and stream.codec_context.name in _REORDERING
        seek = seek and not self._counts
        self._container, self._stream, self._seeks = container, stream, seek
        stream.thread_count = THREADS
        if THREADS != 1:
            stream.thread_type = "AUTO"
        self._base = Fraction(stream.time_base or 1)
        end = promised_end(stream)
        self._end = None if end is None else int(end / self._base)
        self._gap = int(_GAP_SECONDS / self._base)
        self._keyframe: int | None = None  # timestamp of the last keyframe that was given to the decoder
        self._packets = iter(container.demux(stream))
        if seek and not len(stream.index_entries):
            self._jump(stream.start_time or 0)  # Matroska reads its index at the first seek
        self._frames = self.frames()
        self._current: VideoFrame | None = None
        self._ahead: VideoFrame | None = None

    def at(self, timestamp: int) -> "VideoFrame | None":
        """The last frame not after `timestamp`, else the first one; None if there are no frames."""
        if self._seeks and self._worth_seeking(timestamp):
            self._seek(timestamp)
        elif self._current is None and self._ahead is None:
            self._ahead = next(self._frames, None)
        while self._ahead is not None and (self._ahead.pts or 0) <= timestamp:
            self._current, self._ahead = self._ahead, next(self._frames, None)
        return self._current or self._ahead

    def missing_seconds(self, timestamp: int) -> float:
        """How long before `timestamp`, and before the end the header promises, the frames have ended."""
        if self._ahead is not None or self._current is None or self._end is None:
            return 0.0
        ended = (self._current.pts or 0) + self._current.duration
        return float((min(timestamp, self._end) - ended) * self._base)

    def frames(self) -> Iterator["VideoFrame"]:
        """Decodes from where the file stands; every frame has a timestamp, damaged packets are left out."""
        rate = self._stream.average_rate or self._stream.guessed_rate or 25
        step = max(1, int(1 / Fraction(rate) / self._base))
        before = (0 if self._counts else self._stream.start_time or 0) - step
        for packet in self._packets:
            if packet.is_keyframe and packet.pts is not None:
                self._keyframe = max(packet.pts, packet.dts if packet.dts is not None else packet.pts)
            for frame in decoded(packet):
                if frame.pts is None or self._counts:
                    if self._seeks:
                        raise _CannotSeekError
                    frame.pts = before + step
                before = frame.pts
                yield frame

    def _from(self, start: int | None) -> Iterator["VideoFrame"]:
        """The frames that are shown at or after a timestamp."""
        return (frame for frame in self.frames() if start is None or (frame.pts or 0) >= start)

    def _worth_seeking(self, timestamp: int) -> bool:
        """Whether there is a keyframe between what was decoded and `timestamp`, as far as the index tells."""
        if self._current is not None and self._ahead is None:
            return False  # the last frame was reached
        index = self._stream.index_entries
        if len(index) and timestamp <= index[len(index) - 1].timestamp:
            found = index.search_timestamp(timestamp)
            return found > 0 and (self._keyframe is None or index[found].timestamp > self._keyframe)
        frame = self._ahead or self._current
        position = (self._stream.start_time or 0) if frame is None else (frame.pts or 0)
        return timestamp - position > self._gap

    def _seek(self, timestamp: int) -> None:
        """Goes to a keyframe from which the frame at `timestamp` can be decoded; `_ahead` is its first frame."""
        before, self._current, target, step = self._keyframe, None, timestamp, 1
        if before is None:
            self._meet()
        while True:
            first = self._jump(target)
            start = first.pts if first.pts is not None else first.dts
            # frames shown before the keyframe that was sought refer to frames before it, which were not decoded
            self._frames = self._from(start)
            self._ahead = next(self._frames, None)
            if before is not None and self._keyframe is not None and self._keyframe <= before:
                self._gap *= 2  # this was of no use: no keyframe lies between
            if self._ahead is not None and (self._ahead.pts or 0) <= timestamp:
                return
            if target <= (self._stream.start_time or 0):
                raise _CannotSeekError
            # the index counts in decoding order: the keyframe it gave may be shown after `timestamp`
            target = min(target, first.dts if first.dts is not None else target) - step
            step *= 8  # without an index there may be none for long

    def _meet(self) -> None:
        """Shows the decoder the first packet, where what follows cannot be decoded without it.

        x264 writes its version into the first packet alone, and versions before 151 wrote 4:4:4 in a way of their own
        (FFmpeg, h264_cabac.c: `x264_build`): decoded from a later keyframe, such a video is green and grey.
        """
        context = self._stream.codec_context
        if context.name == "h264" and "444" in (context.pix_fmt or ""):
            first = next(self._packets, None)
            if first is not None and first.size:
                decoded(first)

    def _jump(self, target: int) -> "Packet[VideoStream]":
        """Seeks, and returns the keyframe packet that is decoded next."""
        av = require("av")
        try:
            self._container.seek(target, stream=self._stream)
        except av.FFmpegError as exc:
            raise _CannotSeekError from exc
        packets = iter(self._container.demux(self._stream))
        first = next((packet for packet in packets if packet.is_keyframe and packet.size), None)
        if first is None:
            raise _CannotSeekError
        self._packets = _chain(first, packets)
        return first


def _chain(first: "Packet[VideoStream]", rest: Iterator["Packet[VideoStream]"]) -> Iterator["Packet[VideoStream]"]:
    """The packets from a keyframe on."""
    yield first
    yield from rest
