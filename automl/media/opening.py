"""Opening media files with PyAV: which files, which decoders may see them, and one clear line for what goes wrong.

PyAV's wheels bring FFmpeg's libraries with them, so nothing else has to be installed. What is particular here:

- Only the demuxers of ordinary media files may see a file, and only as a local file: FFmpeg goes by the content, and
  a playlist named `clip.mp4` would otherwise open other files, or the network.
- A file from outside may end the process that reads it: whoever reads one calls these functions through
  `automl.media.decoding`, one process to a core.
- Time zero is the beginning of the file for all of its streams, as in a player: what is heard at a time belongs to
  what is seen at that time.
"""

import errno
import importlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar, overload

from automl.errors import DataError
from automl.media.cut_off import refuse_cut_off

if TYPE_CHECKING:
    from av.audio.frame import AudioFrame
    from av.audio.stream import AudioStream
    from av.container import InputContainer
    from av.packet import Packet
    from av.stream import Stream
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

    AnyStream = TypeVar("AnyStream", bound=Stream)

# endings of video and of sound files, in lower case
VIDEO_ENDINGS = frozenset(
    ".3g2 .3gp .asf .avi .divx .f4v .flv .m2t .m2ts .m4v .mk3d .mkv .mov .mp4 .mpe .mpeg .mpg .mts "  # noqa: SIM905
    ".mxf .ogm .ogv .qt .ts .vob .webm .wmv .y4m".split()
)
SOUND_ENDINGS = frozenset(
    ".aac .ac3 .aif .aifc .aiff .amr .ape .au .awb .bwf .caf .eac3 .flac .m4a .m4b .m4r .mka .mp2 .mp3 .mpga "  # noqa: SIM905
    ".oga .ogg .opus .rf64 .snd .sph .spx .tta .w64 .wav .wave .weba .wma .wv".split()
)

# by content, whatever the name: what cameras, editors and download tools call .mp4 or .wav. Only what holds its own
# frames is here: no playlist (hls, dash, concat), no sequence of other files (image2), no network, no script; nor bare
# streams of video (mpegvideo, h264), whose frames have no times.
_DEMUXERS = (
    "mov,matroska,avi,mpegts,mpeg,flv,asf,mxf,yuv4mpegpipe,"
    "wav,w64,aiff,caf,au,nistsphere,flac,mp3,aac,ogg,amr,ac3,eac3,ape,tta,wv"
)
LARGEST = 8192 * 8192  # pixels of a frame at most: a header that claims more would fill the memory
# FFmpeg's names of containers whose headers hold the number of samples, and not that of bytes
EXACT = frozenset({"flac", "ape", "tta", "wv", "nistsphere"})
EXACT_SECONDS = 0.1  # what may be missing of such: about the last block
_MOST_TRACKS = 1000  # looking into each costs up to half a millisecond; FFmpeg's own limit
_LATEST_SECONDS = 1_000_000  # later than any clip ends
# The header of a WAV file says everything: FFmpeg need not decode five seconds of it first, nor go in steps of 2 kB.
_WAVE_OPTIONS = {"probesize": "4096", "max_size": "65536"}
_MAGIC = {b"ftyp": 4, b"moov": 4, b"mdat": 4} | dict.fromkeys(
    (b"\x1aE\xdf\xa3", b"RIFF", b"RF64", b"riff", b"OggS", b"fLaC", b"FORM", b"FLV", b"wvpk", b"caff", b".snd"), 0
)
_DISTRIBUTIONS = {"cv2": "opencv-python-headless"}


def require(name: str) -> ModuleType:
    """Imports a package (`av`, `cv2` or `librosa`) when it is needed: these take a while.

    Raises:
        DataError: If it cannot be imported; the message says how to install it.
    """
    try:
        return importlib.import_module(name)
    except ImportError as exc:
        package = _DISTRIBUTIONS.get(name, name)
        raise DataError(f"{name} cannot be imported ({exc}); try: pip install --force-reinstall {package}") from exc


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
    options = {"format_whitelist": _DEMUXERS, "protocol_whitelist": "file", "max_streams": str(_MOST_TRACKS)}
    try:
        refuse_cut_off(path)
        if _read_head(path)[8:] == b"WAVE":
            options |= _WAVE_OPTIONS
        # undecodable tags must not make a clip unreadable: PyAV 19 always replaces what it cannot decode
        tags: dict[str, Any] = {"metadata_errors": "replace"} if int(av.__version__.partition(".")[0]) < 19 else {}
        # the prefix: "12:30.mp4" is a file and no protocol
        with av.open(f"file:{path}", container_options=options, **tags) as container:
            yield container
    except (av.FFmpegError, OSError) as exc:
        raise DataError(f"cannot read {path}: {_describe_error(path, exc)}") from exc


def find_video(container: "InputContainer", path: str | Path) -> "VideoStream | None":
    """Returns the video track of a file that is read, if there is one; DataError if it cannot be decoded."""
    stream = next(iter(list_video_tracks(container)), None)
    if stream is None:
        return None
    if stream.codec_context is None:
        raise DataError(f"cannot read {path}: no decoder for its video track")
    if stream.width * stream.height > LARGEST:
        raise DataError(f"cannot read {path}: {stream.width}×{stream.height} pixels, the limit is {LARGEST}")
    if not stream.width or not stream.height:
        raise DataError(f"cannot read {path}: its video track has no frames")
    return stream


def find_sound(container: "InputContainer") -> "AudioStream | None":
    """Returns the sound track of a file that is read, if there is one that can be decoded."""
    return next(iter(list_sound_tracks(container)), None)


def list_video_tracks(container: "InputContainer") -> "list[VideoStream]":
    """Lists the tracks of moving pictures; the first is read: as FFmpeg chooses, the default one before others.

    The cover picture of a song is none, nor is a single picture, or what cannot be decoded, beside a track that moves.
    """
    cover = require("av").stream.Disposition.attached_pic
    tracks = [track for track in container.streams.video if not track.disposition & cover]
    moving = [
        track for track in tracks if track.codec_context and track.width and track.height and not _is_still(track)
    ]
    return _best_first(moving or tracks, container.streams.best("video"))


def list_sound_tracks(container: "InputContainer") -> "list[AudioStream]":
    """Lists the sound tracks that can be decoded; the first is read: as FFmpeg chooses, the default before others.

    Of a recording of several television programmes, it is that of the pictures that are read.
    """
    pictures = next(iter(list_video_tracks(container)), None)
    tracks = [track for track in container.streams.audio if track.codec_context]
    return _best_first(tracks, container.streams.best("audio", related=pictures))


def _is_still(track: "VideoStream") -> bool:
    """Returns whether a track says that it has one frame."""
    if track.frames:
        return track.frames == 1
    end, start = find_promised_end(track), (track.start_time or 0) * Fraction(track.time_base or 1)
    return end is not None and round((end - start) * Fraction(track.average_rate or 0)) == 1


def _best_first(tracks: "list[AnyStream]", best: "Stream | None") -> "list[AnyStream]":
    """Sorts tracks: FFmpeg's choice, those flagged as default, the rest, each in the order of the file."""
    default = require("av").stream.Disposition.default
    return sorted(tracks, key=lambda track: (track is not best, not track.disposition & default))


@overload
def decode_packet(packet: "Packet[VideoStream]") -> "list[VideoFrame]": ...
@overload
def decode_packet(packet: "Packet[AudioStream]") -> "list[AudioFrame]": ...
def decode_packet(packet: Any) -> Any:
    """Returns the frames that come out of the decoder for a packet; none for a damaged one."""
    try:
        return packet.decode()
    except require("av").error.InvalidDataError:
        return []


def read_only(container: "InputContainer", stream: "AnyStream") -> "AnyStream":
    """Makes the demuxer leave out all other streams: their bytes need not even be read. Returns the stream."""
    for other in container.streams:
        if other.index != stream.index:
            other.discard = require("av").stream.Discard.all
    return stream


def find_origin(container: "InputContainer") -> Fraction:
    """Returns the timestamp, in seconds, that is time zero of the file."""
    return Fraction(container.start_time or 0, 1_000_000)


def find_promised_end(stream: "Stream") -> Fraction | None:
    """Returns where a stream ends, as a timestamp in seconds, if the header of its file says so."""
    base = Fraction(stream.time_base or 1)
    if stream.duration:
        return ((stream.start_time or 0) + stream.duration) * base
    with suppress(ValueError):  # Matroska: 00:00:02.000000000
        hours, minutes, seconds = stream.metadata.get("DURATION", "").split(":")
        return 3600 * int(hours) + 60 * int(minutes) + Fraction(seconds)
    return None


def find_end(path: str | Path, stream_index: int | None = None) -> Fraction | None:
    """Reads where a stream ends, None: whichever ends last; see `ends_of`. None if no packet has a time."""
    return max(ends_of(path, stream_index).values(), default=None)


def ends_of(path: str | Path, stream_index: int | None = None) -> dict[int, Fraction]:
    """Reads where the streams of a file, or one of them, end, from its last packets; nothing is decoded.

    The ends are timestamps in seconds (see `find_origin`), by stream index. Of several streams, one that ends long
    before the others may be missing; look for it alone then. DataError as `open_media`.
    """
    for seek in (True, False):  # to the end, else all packets are read
        ends: dict[int, Fraction] = {}
        with open_media(path) as container:
            streams: tuple[Stream, ...] = (*container.streams.video, *container.streams.audio)
            if stream_index is not None:
                streams = (read_only(container, container.streams[stream_index]),)
            if seek:
                with suppress(require("av").FFmpegError):  # no index: all packets are read
                    container.seek(_LATEST_SECONDS * 1_000_000)
            for packet in container.demux(streams):
                time = packet.pts if packet.pts is not None else packet.dts
                if time is not None and packet.size:
                    end = (time + (packet.duration or 0)) * Fraction(packet.time_base)
                    ends[packet.stream_index] = max(end, ends.get(packet.stream_index, end))
        if ends:
            break
    return ends


def refuse_missing(path: str | Path, promised: Fraction | None, end: Fraction, allowed_seconds: float) -> None:
    """Raises DataError if a file ends by more than `allowed_seconds` earlier than its header says."""
    if promised is not None and promised - end > allowed_seconds:
        raise DataError(f"cannot read {path}: cut off: it ends after {float(end):.3f} s of {float(promised):.3f} s")


def _read_head(path: Path) -> bytes:
    """Returns the first twelve bytes of a file."""
    with path.open("rb") as file:
        return file.read(12)


def _describe_error(path: Path, exc: OSError) -> str:
    """Returns one line on what is wrong with a file."""
    message = getattr(exc, "strerror", None) or str(exc) or type(exc).__name__
    if exc.errno == errno.ENOMEM:  # FFmpeg's answer to both
        return f"it has more than {_MOST_TRACKS} tracks, or claims more than there is memory for"
    # EINVAL: what it is was recognised, and is none of our demuxers'
    if not isinstance(exc, require("av").error.InvalidDataError | EOFError) and exc.errno != errno.EINVAL:
        return str(message)
    head = _read_head(path)
    if not head:
        return "the file is empty"
    if any(head[offset:].startswith(magic) for magic, offset in _MAGIC.items()):
        return f"cut off or damaged ({message.lower()})"
    return f"not a video or sound file ({message.lower()})"
