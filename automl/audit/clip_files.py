"""Properties of a video or sound: what its header says, and measures of its sound; no picture is decoded.

It runs in the decoders (`automl.media.decoding`): it must stay small.
"""

from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from automl.audit.properties import Value, Values
from automl.audit.sound_measures import measure_sound
from automl.errors import DataError
from automl.media.opening import find_sound, find_video, open_media
from automl.media.sound import NoSound, read_sound

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.container import InputContainer
    from av.video.stream import VideoStream

_LONGEST_TEXT = 60
_LONGEST_SECONDS = 600.0  # of sound that is measured; of a longer one, the first ten minutes
_ENCODER_TAGS = ("encoder", "software", "encoded_by", "creation_tool")
# ITU-T H.273: the numbers of colour primaries, transfer functions and matrices, as FFmpeg calls them
_COLOURS: dict[int, str] = {
    **{0: "gbr", 1: "bt709", 2: "unknown", 4: "bt470m", 5: "bt470bg", 6: "smpte170m", 7: "smpte240m", 8: "linear"},
    **{9: "bt2020", 13: "srgb", 14: "bt2020-10", 15: "bt2020-12", 16: "pq", 18: "hlg"},
}
_RANGES = {0: "unknown", 1: "tv", 2: "pc"}


def read_clip_properties(path: str) -> Values:
    """Reads the properties of a video or sound file; its sound is decoded.

    Raises:
        DataError: If the file is missing, neither video nor sound, or its sound cannot be decoded.
    """
    with open_media(path) as container:
        values, sound_rate_hz = _describe_container(container, path)
    if sound_rate_hz:
        with suppress(NoSound):  # a track with nothing in it
            samples = read_sound(path, sound_rate_hz, seconds=_LONGEST_SECONDS)
            values |= measure_sound(samples, sound_rate_hz)
    return values


def _describe_container(container: "InputContainer", path: str) -> tuple[Values, int]:
    """Returns what a header says, and the sample rate of the sound track in Hz, 0 without one."""
    video, sound = find_video(container, path), find_sound(container)
    if video is None and sound is None:
        raise DataError(f"cannot read {path}: it has neither a video nor a sound track")
    tracks: list[Any] = [track for track in (video, sound) if track is not None]
    tags = [{str(key).lower(): str(text) for key, text in one.metadata.items()} for one in (container, *tracks)]
    encoders = [one[name] for name in _ENCODER_TAGS for one in tags if one.get(name)]
    handlers = [one["handler_name"] for one in tags[1:] if one.get("handler_name")]
    ends = [track.duration * Fraction(track.time_base) for track in tracks if track.duration and track.time_base]
    seconds = float(max(ends)) if ends else (container.duration or 0) / 1_000_000
    values: Values = {
        "container": container.format.name,
        "ending": Path(path).suffix.lower() or None,
        "encoder": _shorten_text(" / ".join(dict.fromkeys(encoders))),
        "handler": _shorten_text(" / ".join(dict.fromkeys(handlers))),
        "brand": tags[0].get("major_brand"),
        "tags": _shorten_text(" ".join(sorted({key for one in tags for key in one}))),
        "duration": round(seconds, 2) or None,
        # of three digits: a header of a few bytes would else tell the duration
        "bytes_per_second": float(f"{Path(path).stat().st_size / seconds:.3g}") if seconds else None,
    }
    if video is not None:
        values |= _describe_video(video) | {"has_sound": "yes" if sound is not None else "no"}
    if sound is not None:
        values |= _describe_sound(sound)
    return values, sound.sample_rate if sound is not None else 0


def _describe_video(video: "VideoStream") -> Values:
    """Returns the properties of a video track."""
    context: Any = video.codec_context
    names = [_COLOURS.get(int(code), str(code)) for code in (context.color_primaries, context.color_trc)]
    names += [_COLOURS.get(int(context.colorspace), str(context.colorspace))]
    profile = f" {context.profile}" if context.profile else ""
    return {
        "codec": f"{context.codec.canonical_name}{profile}",
        "pixel_format": context.pix_fmt,
        "colour": "/".join([*names, _RANGES.get(int(context.color_range), str(context.color_range))]),
        "width": video.width,
        "height": video.height,
        "aspect": round(video.width / video.height, 3),
        "frame_rate": round(float(video.average_rate), 2) if video.average_rate else None,
        "video_bit_rate": video.bit_rate or None,
    }


def _describe_sound(sound: "AudioStream") -> Values:
    """Returns the properties of a sound track."""
    return {
        "sound_codec": sound.codec_context.codec.canonical_name,
        "sample_rate": sound.sample_rate,
        "channels": sound.channels,
        "sound_bit_rate": sound.bit_rate or None,
    }


def _shorten_text(text: str) -> Value:
    """Returns a text of a tag on one line, not too long; None for an empty one."""
    return " ".join(text.split())[:_LONGEST_TEXT] or None
