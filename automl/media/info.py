"""What is in a media file, from its header and its first frames; and whether it can be read at all."""

from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from automl.errors import DataError
from automl.media.cut_off import declares_length
from automl.media.opening import (
    EXACT,
    EXACT_SECONDS,
    decode_packet,
    ends_of,
    find_end,
    find_origin,
    find_promised_end,
    find_sound,
    find_video,
    list_sound_tracks,
    list_video_tracks,
    open_media,
    read_only,
    refuse_missing,
)
from automl.media.sound import refuse_not_numbers
from automl.media.video import find_shown_size, find_turn

if TYPE_CHECKING:
    import av.video.stream
    from av.container import InputContainer
    from av.video.frame import VideoFrame

_TIMED_FRAMES = 120  # whose times are looked at to tell a variable frame rate
_STEADY = 0.1  # of a frame's time: what rounding makes of a steady rate stays below
_REORDERED = 16  # frames that at most are stored before one that is displayed earlier
# FFmpeg's names of the containers whose headers, or in Ogg the last page, were compared with the file's size as it was
# opened: they say how long it is
_SIZED = frozenset({"mov,mp4,m4a,3gp,3g2,mj2", "wav", "w64", "aiff", "au", "caf", "ogg"})
# Whose headers are nearly right. That of an AVI is either compared by size, or of no worth: one that was written into a
# pipe claims hours.
_ROUGH = frozenset({"matroska,webm", "flv", "asf", "mxf"})
_MISSING_SECONDS, _MISSING_SHARE = 1.0, 0.1  # what they may promise too much


@dataclass(frozen=True)
class VideoStream:
    """The video track of a file that is read: the default one, or FFmpeg's choice."""

    width: int  # pixels of the frames as they are shown: upright, and of square pixels
    height: int
    frames_per_second: float | None  # the average; None if the file does not say
    frames: int | None  # counted in the header, else estimated from the duration; None if neither is known
    codec: str  # as FFmpeg calls it, such as `h264`
    pixel_format: str  # as FFmpeg calls it, such as `yuv420p`
    rotation_degrees: int  # by how much the stored frames are turned clockwise to be upright: 0, 90, 180 or 270
    variable_rate: bool  # whether the first 120 frames are displayed for unequal times
    square_pixels: bool = True  # whether the stored frames have the shape in which they are shown
    tracks: int = 1  # how many video tracks the file has that could be read


@dataclass(frozen=True)
class AudioStream:
    """The sound track of a file that is read: the default one, or FFmpeg's choice."""

    sample_rate_hz: int  # samples per second, of each channel
    channels: int
    codec: str  # as FFmpeg calls it, such as `aac`
    duration_seconds: float | None  # from the beginning of the file to the end of its sound; None if unknown
    tracks: int = 1  # how many sound tracks the file has that could be read


@dataclass(frozen=True)
class MediaInfo:
    """What is in a media file."""

    path: Path
    container: str  # FFmpeg's name of the format, such as `mov,mp4,m4a,3gp,3g2,mj2`
    duration_seconds: float | None  # from the beginning to the end of whichever stream ends last; None if unknown
    video: VideoStream | None
    audio: AudioStream | None


def probe_media(path: str | Path) -> MediaInfo:
    """Looks into a file; the first frame of a video is decoded, of the rest only the packets are looked at.

    Raises:
        DataError: If the file is missing, cut off, neither video nor sound, its video track has no frames, or its sound
            is stored in floating-point numbers some of which are NaN or infinite.
    """
    path = Path(path)
    with open_media(path) as container:
        name, origin = container.format.name, find_origin(container)
        seconds = None if container.duration is None else container.duration / 1_000_000
        moving = find_video(container, path)
        sound = find_sound(container)
        video = None if moving is None else _describe_video(container, moving, path, seconds)
        heard = None if sound is None else find_promised_end(sound)
        if video is None and sound is None:
            raise DataError(f"cannot read {path}: it has neither a video nor a sound track")
        if name not in _SIZED and not (name == "mp3" and declares_length(path)):
            ends = ends_of(path)
            seconds = _find_duration(path, name, ends, seconds, origin)
            if sound is not None:
                heard = ends.get(sound.index) or find_end(path, sound.index) or heard
        audio = None
        if sound is not None:
            audio = AudioStream(
                sound.sample_rate,
                sound.channels,
                sound.codec_context.codec.canonical_name,
                seconds if heard is None else float(heard - origin),
                len(list_sound_tracks(container)),
            )
    # of other codecs only decoding tells; the pictures of a video are as good as they are
    if video is None and audio is not None and audio.codec.startswith("pcm_f"):
        refuse_not_numbers(path)
    return MediaInfo(path, name, seconds, video, audio)


def _describe_video(
    container: "InputContainer", stream: "av.video.stream.VideoStream", path: Path, seconds: float | None
) -> VideoStream:
    """Describes a video track."""
    frame, times = _find_beginning(container, stream)
    if frame is None:
        raise DataError(f"cannot read {path}: its video track has no frames")
    rate = stream.average_rate or stream.guessed_rate
    duration = float(stream.duration * Fraction(stream.time_base or 1)) if stream.duration else seconds
    estimated = round(duration * float(rate)) if duration is not None and rate else None
    turn, (width, height) = find_turn(frame), find_shown_size(frame, stream)
    square = (width, height) == (frame.width, frame.height)
    if turn.transpose:
        width, height = height, width
    steps = [after - before for before, after in pairwise(times)]
    return VideoStream(
        width,
        height,
        float(rate) if rate else None,
        stream.frames or estimated,
        stream.codec_context.codec.canonical_name,
        frame.format.name,
        turn.degrees,
        variable_rate=bool(steps) and max(steps) - min(steps) > max(2, _STEADY * max(steps)),
        square_pixels=square,
        tracks=len(list_video_tracks(container)),
    )


def _find_beginning(
    container: "InputContainer", stream: "av.video.stream.VideoStream"
) -> tuple["VideoFrame | None", list[int]]:
    """Returns the first frame that can be decoded, and the times of the first frames in units of the stream, sorted."""
    first: VideoFrame | None = None
    times: list[int] = []
    for packet in container.demux(read_only(container, stream)):
        if first is None:
            first = next(iter(decode_packet(packet)), None)
        if packet.pts is not None and packet.size:
            times.append(packet.pts)
        if first is not None and len(times) >= _TIMED_FRAMES:
            break
    times.sort()
    return first, times[: _TIMED_FRAMES - _REORDERED]  # of the last ones, neighbours may still be missing


def _find_duration(
    path: Path, container: str, ends: dict[int, Fraction], promised: float | None, origin: Fraction
) -> float | None:
    """Finds the duration of a file in seconds, by its last packets; DataError if its header promises too much."""
    if not ends:
        return promised
    end = max(ends.values()) - origin
    if promised is not None and container in _ROUGH:
        refuse_missing(path, Fraction(promised), end, max(_MISSING_SECONDS, _MISSING_SHARE * promised))
    if promised is not None and container in EXACT:
        refuse_missing(path, Fraction(promised), end, EXACT_SECONDS)
    return float(end)
