"""Opening media files with PyAV: which files, which decoders may see them, and one clear line for what goes wrong.

PyAV's wheels bring FFmpeg's libraries with them, so nothing else has to be installed. What is particular here:

- Only the demuxers of ordinary media files may see a file, and only as a local file: FFmpeg goes by the content, and
  a playlist named `clip.mp4` would otherwise open other files, or the network.
- FFmpeg releases the interpreter lock while it reads and decodes, so a folder is best read by one thread per core
  with one decoder each (`automl.data.cache.in_threads`); see `automl.data.media.video`.
- Time zero is the beginning of the file for all of its streams, as in a player: what is heard at a time belongs to
  what is seen at that time.
"""

import errno
import importlib
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar, overload

from automl.errors import DataError

if TYPE_CHECKING:
    from av.audio.frame import AudioFrame
    from av.audio.stream import AudioStream
    from av.container import InputContainer
    from av.packet import Packet
    from av.stream import Stream
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

    AnyStream = TypeVar("AnyStream", bound=Stream)

__all__ = [
    "SOUND_ENDINGS",
    "VIDEO_ENDINGS",
    "decoded",
    "end_of",
    "find_sound",
    "find_video",
    "only",
    "open_media",
    "origin_of",
    "promised_end",
    "require",
]

VIDEO_ENDINGS = frozenset({".avi", ".m4v", ".mkv", ".mov", ".mp4", ".webm"})
"""Endings of video files, in lower case."""

SOUND_ENDINGS = frozenset({".aac", ".flac", ".m4a", ".mp3", ".ogg", ".opus", ".wav"})
"""Endings of sound files, in lower case."""

# by content, whatever the name: what cameras, editors and download tools call .mp4 or .wav
_DEMUXERS = "mov,matroska,avi,mpegts,mpeg,flv,asf,wav,w64,aiff,flac,mp3,aac,ogg"
_LARGEST = 8192 * 8192  # pixels of a frame; a header that claims more would fill the memory
_LATEST_SECONDS = 1_000_000  # later than any clip ends
# The header of a WAV file says everything: FFmpeg need not decode five seconds of it first, nor go in steps of 2 kB.
_WAVE_OPTIONS = {"probesize": "4096", "max_size": "65536"}
_BOXES = frozenset({b"ftyp", b"moov", b"mdat", b"moof", b"free", b"skip", b"wide", b"styp", b"sidx", b"mfra", b"uuid"})
_MAGIC = {b"ftyp": 4, b"moov": 4, b"mdat": 4, b"\x1aE\xdf\xa3": 0, b"RIFF": 0, b"OggS": 0, b"fLaC": 0}


def require(name: str) -> ModuleType:
    """Imports an optional package of the `media` extra.

    Args:
        name: The import name: `av`, `cv2` or `librosa`.

    Raises:
        DataError: If it is not installed; the message says how to install it.
    """
    try:
        return importlib.import_module(name)
    except ImportError as exc:
        raise DataError(f"video and sound need {name}: pip install 'automl-timm[media]' ({exc})") from exc


@contextmanager
def open_media(path: str | Path) -> Iterator["InputContainer"]:
    """Opens a video or sound file; FFmpeg's complaints inside the `with` become a `DataError`.

    Raises:
        DataError: If the file is missing, empty, cut off, or neither video nor sound; the cause is chained.
    """
    av = require("av")
    path = Path(path)
    if not path.is_file():
        raise DataError(f"cannot read {path}: {'it is a folder' if path.is_dir() else 'no such file'}")
    options = {"format_whitelist": _DEMUXERS, "protocol_whitelist": "file"}
    try:
        _refuse_cut_off(path)
        if _head(path)[8:] == b"WAVE":
            options |= _WAVE_OPTIONS
        # the prefix: "12:30.mp4" is a file and no protocol; undecodable tags must not make a clip unreadable
        with av.open(f"file:{path}", container_options=options, metadata_errors="replace") as container:
            yield container
    except (av.FFmpegError, OSError) as exc:
        raise DataError(f"cannot read {path}: {_reason(path, exc)}") from exc


def find_video(container: "InputContainer", path: str | Path) -> "VideoStream | None":
    """The video track of a file, if there is one; the cover picture of a song is none.

    Raises:
        DataError: If no decoder knows it, or its frames are too large.
    """
    disposition = require("av").stream.Disposition
    for stream in container.streams.video:
        if stream.disposition & disposition.attached_pic:
            continue
        if stream.codec_context is None:
            raise DataError(f"cannot read {path}: no decoder for its video track")
        if stream.width * stream.height > _LARGEST:
            raise DataError(f"cannot read {path}: {stream.width}×{stream.height} pixels, the limit is {_LARGEST}")
        if not stream.width or not stream.height:
            raise DataError(f"cannot read {path}: its video track has no frames")
        return stream
    return None


def find_sound(container: "InputContainer") -> "AudioStream | None":
    """The first sound track that can be decoded, if there is one."""
    return next((stream for stream in container.streams.audio if stream.codec_context is not None), None)


@overload
def decoded(packet: "Packet[VideoStream]") -> "list[VideoFrame]": ...
@overload
def decoded(packet: "Packet[AudioStream]") -> "list[AudioFrame]": ...
def decoded(packet: Any) -> Any:
    """The frames that come out of the decoder for a packet; none for a damaged one."""
    try:
        return packet.decode()
    except require("av").error.InvalidDataError:
        return []


def only(container: "InputContainer", stream: "AnyStream") -> "AnyStream":
    """Makes the demuxer leave out all other streams: their bytes need not even be read. Returns the stream."""
    for other in container.streams:
        if other.index != stream.index:
            other.discard = require("av").stream.Discard.all
    return stream


def origin_of(container: "InputContainer") -> Fraction:
    """The timestamp, in seconds, that is time zero of the file."""
    return Fraction(container.start_time or 0, 1_000_000)


def promised_end(stream: "Stream") -> Fraction | None:
    """Where a stream ends, as a timestamp in seconds, if the header of its file says so."""
    base = Fraction(stream.time_base or 1)
    if stream.duration:
        return ((stream.start_time or 0) + stream.duration) * base
    with suppress(ValueError):  # Matroska: 00:00:02.000000000
        hours, minutes, seconds = stream.metadata.get("DURATION", "").split(":")
        return 3600 * int(hours) + 60 * int(minutes) + Fraction(seconds)
    return None


def end_of(path: str | Path, stream_index: int | None = None) -> Fraction | None:
    """Reads where a stream ends, from the last packets of the file; nothing is decoded.

    Args:
        path: The file.
        stream_index: The stream; None: whichever of them ends last.

    Returns:
        The end as a timestamp in seconds (see `origin_of`), or None if no packet has a time.

    Raises:
        DataError: As `open_media`.
    """
    av = require("av")
    with open_media(path) as container:
        streams: tuple[Stream, ...] = (*container.streams.video, *container.streams.audio)
        if stream_index is not None:
            streams = (only(container, container.streams[stream_index]),)
        with suppress(av.FFmpegError):  # no index: all packets are read
            container.seek(_LATEST_SECONDS * 1_000_000)
        ends = []
        for packet in container.demux(streams):
            time = packet.pts if packet.pts is not None else packet.dts
            if time is not None and packet.size:
                ends.append((time + (packet.duration or 0)) * Fraction(packet.time_base))
                ends = [max(ends)]
        return ends[0] if ends else None


def _refuse_cut_off(path: Path) -> None:
    """Raises DataError if a part of an MP4 or MOV file is said to go on beyond the file's end."""
    size, place = path.stat().st_size, 0
    with path.open("rb") as file:
        while place + 8 <= size:  # the boxes of ISO/IEC 14496-12, 4.2: size, type, contents
            file.seek(place)
            length, kind = struct.unpack(">I4s", file.read(8))
            if kind not in _BOXES:
                return
            if length == 1:  # the size follows, as it does not fit
                length = int.from_bytes(file.read(8), "big")
            if place + length > size:
                raise DataError(f"cannot read {path}: cut off: {size} bytes of at least {place + length}")
            if length < 8:
                return  # 0: to the end of the file
            place += length


def _head(path: Path) -> bytes:
    """The first twelve bytes of a file."""
    with path.open("rb") as file:
        return file.read(12)


def _reason(path: Path, exc: OSError) -> str:
    """One line on what is wrong with a file."""
    said = getattr(exc, "strerror", None) or str(exc) or type(exc).__name__
    # EINVAL: what it is was recognised, and is none of our demuxers'
    if not isinstance(exc, require("av").error.InvalidDataError | EOFError) and exc.errno != errno.EINVAL:
        return str(said)
    head = _head(path)
    if not head:
        return "the file is empty"
    if any(head[place:].startswith(magic) for magic, place in _MAGIC.items()):
        return f"cut off or damaged ({said.lower()})"
    return f"not a video or sound file ({said.lower()})"
