"""Reading frames of a video: those displayed at wanted times, or all of them one after the other.

**Seeking.** A frame can only be decoded from the keyframe before it. For each wanted time, in order, the file's index
says where the last keyframe before it lies: if that is ahead of what was decoded so far, the reader jumps there, else
it goes on decoding. So a few frames of a long clip cost a few groups of pictures, and times closer than the keyframes
are read in one pass. The result is the same as that of decoding everything.

**Threads.** One per decoder. Whoever reads a folder uses a thread per core with a file each: FFmpeg releases the
interpreter lock, no core waits for another, and nothing is lost after a seek, whereas FFmpeg's own threads within a
file decode frames ahead that nobody wants. `studies/benchmarks/decode.py` measures both. (Having the decoder skip the
B-frames before a wanted one, `skip_frame=NONREF`, gained 2 % on FaceForensics++ clips: not worth its care.)

**Colours.** The same picture comes out the same whatever the pixel format, range and matrix of its file. Left alone,
swscale takes a faster way for 4:2:0 at even widths, whose pixels are 1.7 levels darker and share their colour in pairs:
a network would tell the sources of a mixed data set apart by it. `choose_conversion` turns that off.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from automl.errors import DataError
from automl.media.opening import (
    LARGEST,
    decode_packet,
    find_end,
    find_origin,
    find_promised_end,
    find_video,
    open_media,
    read_only,
    require,
)

if TYPE_CHECKING:
    import av.video.reformatter
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

T = TypeVar("T")

THREADS = 1  # of one decoder; 0: as many as FFmpeg likes
_REORDERING = frozenset({"h264", "hevc"})
_TOLERANCE = Fraction(1, 1_000_000)  # seconds: a time that was rounded to microseconds still means its frame
_GAP_SECONDS = 2  # where the index says nothing about keyframes, a jump of so much is tried
_CUT_OFF_SECONDS = 1  # frames may be missing at the end for so long before a file counts as cut off
_NO_PIXELS = np.empty((0, 0, 0, 3), dtype=np.uint8)
_LONGEST_PIXEL = 4  # widescreen of 352 columns has 2.9; what claims more is a mistake or worse
_SQUARE = Fraction(1, 100)  # so near to square a shape is what whoever scaled the video rounded, as FFmpeg has it too


@dataclass(frozen=True, eq=False)
class Frames:
    """Frames of one video.

    Attributes:
        pixels: Shape (N, height, width, 3), dtype uint8, RGB, upright and of the shape in which a player shows them.
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

    def turn_pixels(self, pixels: np.ndarray) -> np.ndarray:
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

    def read(decoder: _Decoder) -> Frames:
        if times_seconds is None:
            wanted = _spread_evenly(*_find_span(path, decoder.stream), count or 1)
        else:
            wanted = [decoder.to_timestamp(seconds) for seconds in times_seconds]
        return _read_displayed(path, decoder, wanted, size)

    return _read_seeking(path, read)


def read_pairs(path: str | Path, count: int, apart: int = 1, size: int | None = None) -> tuple[Frames, Frames]:
    """Reads pairs of frames that follow one another, for however long each is displayed.

    Args:
        path: The video.
        count: Pairs at most: those displayed in the middle of so many equal parts of the video, each of them once.
        apart: How many frames after the earlier frame of a pair its later one comes.
        size: As for `read_frames`, as is DataError.

    Returns:
        The earlier and the later frames of the pairs, in the order of time; none if the video has too few frames.
    """
    if count < 1 or apart < 1:
        raise ValueError(f"count and apart must be positive, got {count=} {apart=}")
    return _read_seeking(path, lambda decoder: _read_pairs(path, decoder, count, size), apart)


def iterate_frames(path: str | Path, stride: int = 1, size: int | None = None) -> Iterator[tuple[float, np.ndarray]]:
    """Reads a video from beginning to end, one frame in memory at a time; of a damaged file, what is there.

    Yields, every `stride` frames, the time in seconds since which a frame is displayed, and its pixels as those of
    `read_frames`.

    Raises:
        DataError: If the file cannot be read, has no video track or no frames.
    """
    with open_media(path) as container:
        stream = _open_video(container, path)
        decoder, painter = _Decoder(container, stream, seek=False), _Painter(stream, size)
        number = -1
        for number, frame in enumerate(decoder.decode_frames()):
            if number % stride == 0:
                yield decoder.to_seconds(frame), painter.paint_frame(frame)
        if number < 0:
            raise DataError(f"cannot read {path}: its video track has no frames")


def find_turn(frame: "VideoFrame") -> Turn:
    """Reads from the display matrix of a decoded frame how it is brought upright."""
    side_data: Any = frame.side_data  # which PyAV 18 annotates as something else
    matrix = side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return Turn()
    # (x', y') = (a·x + c·y, b·x + d·y), 16.16 fixed point: ISO/IEC 14496-12, 6.2.2
    a, b, _, c, d = np.frombuffer(bytes(matrix), dtype=np.int32)[:5].tolist()
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return Turn(False, flip_x=a < 0, flip_y=d < 0)
    return Turn(True, flip_x=c < 0, flip_y=b < 0)


def choose_conversion() -> "av.video.reformatter.Interpolation":
    """Says how swscale converts frames: bicubic, to the same pixels whatever the processor and the pixel format.

    `FULL_CHR_H_INT` gives each pixel its own colour where YUV becomes RGB, `FULL_CHR_H_INP` averages the colours of
    all pixels where RGB becomes YUV.
    """
    flags: type[av.video.reformatter.Interpolation] = require("av").video.reformatter.Interpolation
    return flags.BICUBIC | flags.ACCURATE_RND | flags.BITEXACT | flags.FULL_CHR_H_INT | flags.FULL_CHR_H_INP


def find_shown_size(frame: "VideoFrame", stream: "VideoStream") -> tuple[int, int]:
    """Returns the width and height at which a stored frame is shown, in square pixels, before it is turned.

    Nothing is lost: where pixels are not square the frame is made wider or higher, as players do. An absurd shape is
    ignored.
    """
    # what the container says goes before what the codec says: FFmpeg's `av_guess_sample_aspect_ratio`
    shape = stream.sample_aspect_ratio or stream.codec_context.sample_aspect_ratio or Fraction(1)
    stored = frame.width, frame.height
    if abs(shape - 1) <= _SQUARE or not Fraction(1, _LONGEST_PIXEL) <= shape <= _LONGEST_PIXEL:
        return stored
    shown = (round(frame.width * shape), frame.height) if shape > 1 else (frame.width, round(frame.height / shape))
    return shown if shown[0] * shown[1] <= LARGEST else stored


def _open_video(container: "InputContainer", path: str | Path) -> "VideoStream":
    """Returns the video track of a file, as the only one that is read."""
    stream = find_video(container, path)
    if stream is None:
        raise DataError(f"cannot read {path}: it has no video track")
    return read_only(container, stream)


def _read_seeking(path: str | Path, read: "Callable[[_Decoder], T]", apart: int = 0) -> T:
    """Opens a video and reads of it by seeking; where that fails, from its beginning."""
    for seek in (True, False):
        with open_media(path) as container:
            try:
                return read(_Decoder(container, _open_video(container, path), seek, apart))
            except _CannotSeekError:
                continue  # opened anew: nobody knows where a failed seek has left the file
    raise AssertionError("decoding without seeking cannot fail to seek")


def _read_displayed(path: str | Path, decoder: "_Decoder", wanted: list[int], size: int | None) -> Frames:
    """Reads the frames displayed at the timestamps `wanted`."""
    painter = _Painter(decoder.stream, size)
    pixels: np.ndarray | None = None
    times = np.zeros(len(wanted))
    before: tuple[VideoFrame, int] | None = None
    for position in sorted(range(len(wanted)), key=wanted.__getitem__):
        frame = _decode_displayed(path, decoder, wanted[position])
        times[position] = decoder.to_seconds(frame)
        if before is not None and before[0] is frame and pixels is not None:
            pixels[position] = pixels[before[1]]
        else:
            image = painter.paint_frame(frame)
            if pixels is None:
                pixels = np.empty((len(wanted), *image.shape), dtype=np.uint8)
            pixels[position] = image
        before = frame, position
    return Frames(_NO_PIXELS if pixels is None else pixels, times)


def _read_pairs(path: str | Path, decoder: "_Decoder", count: int, size: int | None) -> tuple[Frames, Frames]:
    """Reads the pairs whose earlier frames are displayed in the middle of equal parts of a video."""
    painter = _Painter(decoder.stream, size)
    earlier: list[tuple[float, np.ndarray]] = []
    later: list[tuple[float, np.ndarray]] = []
    start, end = _find_span(path, decoder.stream)
    # no pair begins in the last `apart` frames; whatever the rate is said to be, they leave room for one pair
    end -= min(decoder.apart * decoder.step, (end - start) * decoder.apart // (decoder.apart + 1))
    for timestamp in _spread_evenly(start, end, count):
        _decode_displayed(path, decoder, timestamp)
        pair = decoder.pair_at()
        if pair is not None and (not earlier or decoder.to_seconds(pair[0]) > earlier[-1][0]):
            for frames, frame in zip((earlier, later), pair, strict=True):
                frames.append((decoder.to_seconds(frame), painter.paint_frame(frame)))
    return _stack_frames(earlier), _stack_frames(later)


def _stack_frames(pairs: list[tuple[float, np.ndarray]]) -> Frames:
    """Returns frames of (time, pixels) each."""
    pixels = np.stack([pixels for _, pixels in pairs]) if pairs else _NO_PIXELS
    return Frames(pixels, np.array([time for time, _ in pairs], dtype=np.float64))


def _decode_displayed(path: str | Path, decoder: "_Decoder", timestamp: int) -> "VideoFrame":
    """Returns the frame displayed at a timestamp; DataError if there is none, or if the file is cut off before it."""
    frame = decoder.frame_at(timestamp)
    if frame is None:
        raise DataError(f"cannot read {path}: its video track has no frames")
    if decoder.count_missing_seconds(timestamp) > _CUT_OFF_SECONDS:
        raise DataError(f"cannot read {path}: cut off: its frames end at {decoder.to_seconds(frame):.3f} s")
    return frame


def _find_span(path: str | Path, stream: "VideoStream") -> tuple[int, int]:
    """Returns the timestamps at which the video track begins and ends."""
    start, end = stream.start_time or 0, find_promised_end(stream)
    if end is None:
        end = find_end(path, stream.index)
    return start, start if end is None else int(end / Fraction(stream.time_base or 1))


def _spread_evenly(start: int, end: int, count: int) -> list[int]:
    """Returns timestamps in the middle of `count` equal parts."""
    return [start + (2 * i + 1) * max(0, end - start) // (2 * count) for i in range(count)]


class _CannotSeekError(Exception):
    """This file can only be decoded from its beginning."""


class _Painter:
    """Turns decoded frames into RGB arrays of one shape."""

    def __init__(self, stream: "VideoStream", size: int | None) -> None:
        av = require("av")
        self._stream, self._size = stream, size
        self._shape: tuple[int, int] | None = None  # (width, height) before the turn, fixed by the first frame
        self._turn = Turn()
        self._scaler, self._flags = av.video.reformatter.VideoReformatter(), choose_conversion()

    def paint_frame(self, frame: "VideoFrame") -> np.ndarray:
        """Converts a frame of any pixel format to (height, width, 3) uint8, RGB, upright."""
        if self._shape is None:
            width, height = find_shown_size(frame, self._stream)
            scale = min(1.0, self._size / min(width, height)) if self._size else 1.0
            self._shape = max(1, round(width * scale)), max(1, round(height * scale))
            self._turn = find_turn(frame)
        width, height = self._shape
        rgb = self._scaler.reformat(frame, width, height, "rgb24", interpolation=self._flags, threads=1)
        return np.ascontiguousarray(self._turn.turn_pixels(rgb.to_ndarray()))


class _Decoder:
    """Gives the frame displayed at a timestamp, and the one `apart` frames after it; timestamps must not go back."""

    def __init__(self, container: "InputContainer", stream: "VideoStream", seek: bool, apart: int = 0) -> None:
        # AVI stores no display times; FFmpeg makes up wrong ones for H.264 with B-frames: such frames are counted
        self._counts = container.format.name == "avi" and stream.codec_context.name in _REORDERING
        seek = seek and not self._counts
        self.stream, self.apart = stream, apart
        self._container, self._seeks, self._origin = container, seek, find_origin(container)
        stream.thread_count = THREADS
        if THREADS != 1:
            stream.thread_type = "AUTO"
        self._base = Fraction(stream.time_base or 1)
        rate = stream.average_rate or stream.guessed_rate or 25
        self.step = max(1, int(1 / Fraction(rate) / self._base))  # between two frames, on average
        end = find_promised_end(stream)
        self._end = None if end is None else int(end / self._base)
        self._gap = int(_GAP_SECONDS / self._base)
        self._keyframe: int | None = None  # timestamp of the last keyframe that was given to the decoder
        self._packets: Iterator[Packet[VideoStream]] = iter(container.demux(stream))
        if seek and not len(stream.index_entries):
            self._jump_to_keyframe(stream.start_time or 0)  # Matroska reads its index at the first seek
        self._frames = self.decode_frames()
        self._current: VideoFrame | None = None
        self._ahead: deque[VideoFrame] = deque()  # at least one while there is one
        self._past: deque[VideoFrame] = deque(maxlen=apart)
        self._sought = False

    def to_timestamp(self, seconds: float) -> int:
        """Returns the timestamp of a time from the beginning of the file."""
        return int((Fraction(float(seconds)) + _TOLERANCE + self._origin) // self._base)

    def to_seconds(self, frame: "VideoFrame") -> float:
        """Returns seconds from the beginning of the file to a frame."""
        return round(float((frame.pts or 0) * self._base - self._origin), 6)

    def frame_at(self, timestamp: int) -> "VideoFrame | None":
        """Returns the last frame not after `timestamp`, else the first one; None if there are no frames."""
        if self._seeks and self._worth_seeking(timestamp):
            self._seek_frame(timestamp)
        elif self._current is None:
            self._look_ahead(1)
        while self._ahead and (self._current is None or (self._ahead[0].pts or 0) <= timestamp):
            if self._current is not None:
                self._past.append(self._current)
            self._current = self._ahead.popleft()
            self._look_ahead(1)
        return self._current

    def pair_at(self) -> "tuple[VideoFrame, VideoFrame] | None":
        """Returns the frame that `frame_at` gave and the one `apart` after it, or the last such pair; else None."""
        if self._current is None:
            return None
        if self._look_ahead(self.apart):
            return self._current, self._ahead[self.apart - 1]
        frames = [*self._past, self._current, *self._ahead]
        if len(frames) > self.apart:
            return frames[-1 - self.apart], frames[-1]
        if self._sought:
            raise _CannotSeekError  # the pair begins before what was decoded
        return None

    def _look_ahead(self, count: int) -> bool:
        """Decodes so many frames beyond the current one; False if there are less."""
        while len(self._ahead) < count:
            frame = next(self._frames, None)
            if frame is None:
                return False
            self._ahead.append(frame)
        return True

    def count_missing_seconds(self, timestamp: int) -> float:
        """Returns how long before `timestamp`, and before the end the header promises, the frames have ended."""
        if self._ahead or self._current is None or self._end is None:
            return 0.0
        ended = (self._current.pts or 0) + self._current.duration
        return float((min(timestamp, self._end) - ended) * self._base)

    def decode_frames(self) -> Iterator["VideoFrame"]:
        """Decodes from where the file stands; every frame has a timestamp, damaged packets are left out."""
        before = (0 if self._counts else self.stream.start_time or 0) - self.step
        for packet in self._packets:
            if packet.is_keyframe and packet.pts is not None:
                self._keyframe = max(packet.pts, packet.dts if packet.dts is not None else packet.pts)
            for frame in decode_packet(packet):
                if frame.pts is None or self._counts:
                    if self._seeks:
                        raise _CannotSeekError
                    frame.pts = before + self.step
                before = frame.pts
                yield frame

    def _frames_from(self, start: int | None) -> Iterator["VideoFrame"]:
        """Returns the frames that are shown at or after a timestamp."""
        return (frame for frame in self.decode_frames() if start is None or (frame.pts or 0) >= start)

    def _worth_seeking(self, timestamp: int) -> bool:
        """Returns whether there is a keyframe between what was decoded and `timestamp`, as far as the index tells."""
        if self._current is not None and not self._ahead:
            return False  # the last frame was reached
        index = self.stream.index_entries
        if len(index) and timestamp <= index[len(index) - 1].timestamp:
            entry = index.search_timestamp(timestamp)
            return entry > 0 and (self._keyframe is None or index[entry].timestamp > self._keyframe)
        frame = self._ahead[-1] if self._ahead else None
        position = (self.stream.start_time or 0) if frame is None else (frame.pts or 0)
        return timestamp - position > self._gap

    def _seek_frame(self, timestamp: int) -> None:
        """Goes to a keyframe from which the frame at `timestamp` can be decoded; `_ahead` is its first frame."""
        before, target, step = self._keyframe, timestamp, 1
        self._current, self._sought = None, True
        self._past.clear()
        if before is None:
            self._show_first_packet()
        while True:
            first = self._jump_to_keyframe(target)
            start = first.pts if first.pts is not None else first.dts
            # frames shown before the keyframe that was sought refer to frames before it, which were not decoded
            self._frames = self._frames_from(start)
            self._ahead.clear()
            self._look_ahead(1)
            if before is not None and self._keyframe is not None and self._keyframe <= before:
                self._gap *= 2  # this was of no use: no keyframe lies between
            if self._ahead and (self._ahead[0].pts or 0) <= timestamp:
                return
            if target <= (self.stream.start_time or 0):
                raise _CannotSeekError
            # the index counts in decoding order: the keyframe it gave may be shown after `timestamp`
            target = min(target, first.dts if first.dts is not None else target) - step
            step *= 8  # without an index there may be none for long

    def _show_first_packet(self) -> None:
        """Shows the decoder the first packet, where what follows cannot be decoded without it.

        x264 writes its version into the first packet alone, and versions before 151 wrote 4:4:4 in a way of their own
        (FFmpeg, h264_cabac.c: `x264_build`): decoded from a later keyframe, such a video is green and grey.
        """
        context = self.stream.codec_context
        if context.name == "h264" and "444" in (context.pix_fmt or ""):
            first = next(self._packets, None)
            if first is not None and first.size:
                decode_packet(first)

    def _jump_to_keyframe(self, target: int) -> "Packet[VideoStream]":
        """Seeks, and returns the keyframe packet that is decoded next."""
        av = require("av")
        try:
            self._container.seek(target, stream=self.stream)
        except av.FFmpegError as exc:
            raise _CannotSeekError from exc
        packets = iter(self._container.demux(self.stream))
        first = next((packet for packet in packets if packet.is_keyframe and packet.size), None)
        if first is None:
            raise _CannotSeekError
        self._packets = chain([first], packets)
        return first
