"""Writing videos and sounds with PyAV, so that nothing but what a degradation names is lost.

Time zero of what is written is time zero of the source: a listening model and a looking one see the same moments. One
thread, as whoever degrades a folder uses a process per core.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from automl.degradations.sound_steps import Sound, SoundCodec
from automl.degradations.video_steps import TimedFrame
from automl.errors import DataError, SpecError, first_line
from automl.media.opening import find_origin, find_video, open_media, read_only, require
from automl.media.video import choose_conversion

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.container import OutputContainer
    from av.packet import Packet
    from av.video.stream import VideoStream

_CONTAINERS = {".wav": "wav", ".mp3": "mp3", ".m4a": "ipod", ".opus": "opus", ".mp4": "mp4", ".mkv": "matroska"}
_TICKS = 90_000  # of a second, as in MPEG: exact for all usual frame rates
_BLOCK = 16_384  # samples at a time
_UNKNOWN_RATE = Fraction(25)  # frames per second, where a file does not say: x264 only plans by it
_LOSSLESS = {"qp": "0", "preset": "ultrafast"}
_PRESET = "veryfast"
"""Of H.264: a third of the seconds of x264's default, medium (.9 against 3.0 for 60 frames of 1080p); the rate factor
means nearly the same quality."""


def require_encoder(codec: str, purpose: str) -> None:
    """Raises SpecError if the installed PyAV cannot encode with `codec`; the message says that `purpose` needs it."""
    av = require("av")
    try:
        av.codec.Codec(codec, "w")
    except av.codec.codec.UnknownCodecError as exc:
        raise SpecError(
            f"{purpose} needs the encoder {codec}, which the installed PyAV {av.__version__} was built without; its"
            " wheels have it: pip install --force-reinstall av"
        ) from exc


def write_sound_file(path: Path, sound: Sound, codec: SoundCodec | None, ending: str) -> None:
    """Writes a sound file: with a lossy codec, or without one as 32-bit floats in a WAV file.

    Raises:
        DataError: If it cannot be encoded.
        OSError: If the file cannot be written.
    """
    with _open_output(path, ending) as container:
        _SoundTrack(container, sound, codec, "pcm_f32le").write_rest()


def write_video_file(
    path: Path,
    frames: Iterator[TimedFrame],
    frame_rate: float | None,
    crf: int | None,
    sound: Sound | None,
    codec: SoundCodec | None,
    ending: str,
) -> None:
    """Writes an MP4 or Matroska file of frames and sound.

    Args:
        path: The file, whatever its name.
        frames: In the order of time.
        frame_rate: Frames per second, if that is known.
        crf: x264's rate factor for H.264 in 4:2:0, whose last column or row is cut off where their number is odd. None:
            H.264 in 4:4:4 from which the same YUV is decoded.
        sound: The sound track, if there is one.
        codec: How it is encoded; None: FLAC of 24 bits.
        ending: `.mp4` or `.mkv`.

    Raises:
        DataError: If there are no frames, or they cannot be encoded; and what `frames` raises.
        OSError: If the file cannot be written.
    """
    with _open_output(path, ending) as container:
        pictures = _PictureTrack(container, frame_rate, crf)
        track = None if sound is None else _SoundTrack(container, sound, codec, "flac")
        for seconds, pixels in frames:
            pictures.write_frame(seconds, pixels)
            if track is not None:  # beside the pictures that they are heard with, as players expect it
                track.write_until(seconds)
        if not pictures.frames:
            raise DataError("its video track has no frames")
        pictures.write_rest()
        if track is not None:
            track.write_rest()


def write_sound_track(path: Path, source: Path, sound: Sound, codec: SoundCodec | None) -> None:
    """Writes a Matroska file of a video's pictures as they are stored, and another sound; FLAC without a codec.

    Raises:
        DataError: If the source cannot be read or the sound not encoded.
        OSError: If the file cannot be written.
    """
    with _open_output(path, ".mkv") as container:
        track = _SoundTrack(container, sound, codec, "flac")
        pictures: VideoStream | None = None
        for stream, packet, seconds in _read_packets(source):
            if pictures is None:
                pictures = container.add_stream_from_template(stream)
            packet.stream = pictures
            container.mux(packet)
            track.write_until(seconds)
        track.write_rest()


class _PictureTrack:
    """An H.264 track that is being written."""

    def __init__(self, container: "OutputContainer", frame_rate: float | None, crf: int | None) -> None:
        av = require("av")
        rate = Fraction(frame_rate).limit_denominator(1001) if frame_rate else _UNKNOWN_RATE
        options = _LOSSLESS if crf is None else {"crf": str(crf), "preset": _PRESET}
        self.frames = 0
        self._container, self._format = container, "yuv444p" if crf is None else "yuv420p"
        self._stream = container.add_stream("libx264", rate=rate, options=options)
        self._stream.pix_fmt, self._stream.thread_count = self._format, 1
        context = self._stream.codec_context
        context.time_base = Fraction(1, _TICKS)
        # what swscale makes of RGB unless it is asked for something else; without it, players guess by the size
        context.colorspace, context.color_range = av.video.reformatter.Colorspace.ITU601, 1
        self._scaler = av.video.reformatter.VideoReformatter()
        self._last = -1 << 62

    def write_frame(self, seconds: float, pixels: np.ndarray) -> None:
        """Encodes a frame (height, width, 3) uint8 RGB; times must not go back."""
        av = require("av")
        if not self.frames:
            height, width = pixels.shape[:2]
            odd = 0 if self._format == "yuv444p" else 1
            self._stream.width, self._stream.height = max(2, width - (width & odd)), max(2, height - (height & odd))
        kept = np.ascontiguousarray(pixels[: self._stream.height, : self._stream.width])
        frame = self._scaler.reformat(
            av.VideoFrame.from_ndarray(kept, "rgb24"),
            self._stream.width,
            self._stream.height,
            self._format,
            interpolation=choose_conversion(),
            threads=1,
        )
        self._last = max(self._last + 1, round(seconds * _TICKS))
        frame.pts, frame.time_base = self._last, Fraction(1, _TICKS)
        self._container.mux(self._stream.encode(frame))
        self.frames += 1

    def write_rest(self) -> None:
        """Writes what the encoder still holds."""
        self._container.mux(self._stream.encode())


class _SoundTrack:
    """A sound track that is being written, from time zero on."""

    def __init__(self, container: "OutputContainer", sound: Sound, codec: SoundCodec | None, lossless: str) -> None:
        name = lossless if codec is None or codec.codec is None else codec.codec
        rates = sorted(require("av").codec.Codec(name, "w").audio_rates or [sound.rate])
        rate = next((rate for rate in rates if rate >= sound.rate), rates[-1])
        self._container, self._sound, self._position = container, sound, 0
        self._stream = cast("AudioStream", container.add_stream(name, rate=rate, layout="mono"))
        if codec is not None:
            self._stream.codec_context.bit_rate = 1000 * codec.kilobits
        elif name == "flac":
            self._stream.codec_context.format = "s32"  # of which it keeps 24 bits, all that a float holds

    def write_until(self, seconds: float) -> None:
        """Encodes samples up to a time, or a little more."""
        while self._position < min(len(self._sound.samples), seconds * self._sound.rate):
            block = self._sound.samples[self._position : self._position + _BLOCK].clip(-1, 1)
            frame = require("av").AudioFrame.from_ndarray(block[None], format="flt", layout="mono")
            frame.sample_rate, frame.pts = self._sound.rate, self._position
            frame.time_base = Fraction(1, self._sound.rate)
            self._container.mux(self._stream.encode(frame))
            self._position += len(block)

    def write_rest(self) -> None:
        """Encodes all that is left, and writes what the encoder still holds."""
        self.write_until(np.inf)
        self._container.mux(self._stream.encode())


def _read_packets(source: Path) -> "Iterator[tuple[VideoStream, Packet[Any], float]]":
    """Yields the packets of a video's pictures, with their track and time, as seconds from time zero of the file.

    A generator, so that what fails in writing is not taken for a failure in reading.
    """
    with open_media(source) as container:
        stream = find_video(container, source)
        if stream is None:
            return
        base = Fraction(stream.time_base or 1)
        shift = round(find_origin(container) / base)
        for packet in container.demux(read_only(container, stream)):
            if not packet.size:
                continue
            packet.pts = None if packet.pts is None else packet.pts - shift
            packet.dts = None if packet.dts is None else packet.dts - shift
            yield stream, packet, float((packet.dts or 0) * base)


@contextmanager
def _open_output(path: Path, ending: str) -> "Iterator[OutputContainer]":
    """Opens a file to be written; what FFmpeg cannot encode becomes a DataError, what the system refuses stays."""
    av = require("av")
    try:
        with av.open(str(path), "w", format=_CONTAINERS[ending]) as container:
            yield container
    except av.FFmpegError as exc:
        if isinstance(exc, OSError):
            raise OSError(exc.errno, exc.strerror) from exc
        raise DataError(f"cannot be encoded: {first_line(exc)}") from exc
