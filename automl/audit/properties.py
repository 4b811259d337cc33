"""The properties of files that the audit looks at, and what takes each of them away.

The readers (`image_files`, `clip_files`, `sound_measures`) give a value for each key, or None where a file has none.
"""

from dataclasses import dataclass
from typing import Literal

Value = str | float | None
Values = dict[str, Value]

Remedy = Literal["", "copy", "--normalise-size 256", "--normalise-seconds 3"]


@dataclass(frozen=True)
class Property:
    """One property.

    Attributes:
        key: By which the readers name it.
        name: What people call it.
        unit: Of a number, as it is written behind it.
        is_number: Whether its values are numbers; else they are categories, and None is one of them.
        remedy: What takes it away: the normalised copy, this flag with it, or nothing ("").
    """

    key: str
    name: str
    unit: str = ""
    is_number: bool = True
    remedy: Remedy = "copy"

    def format_value(self, value: Value) -> str:
        """Writes a value with its unit."""
        if value is None or isinstance(value, str):
            return value or "none"
        return f"{format_number(value)} {self.unit}".rstrip()


def format_number(value: float) -> str:
    """Writes a number with three digits, a larger one as a whole number."""
    return f"{value:.0f}" if abs(value) >= 1000 or float(value).is_integer() else f"{value:.3g}"


def _list_categories(**names: str) -> list[Property]:
    """Makes properties whose values are categories."""
    return [Property(key, name, is_number=False) for key, name in names.items()]


PROPERTIES: tuple[Property, ...] = (
    # of all files
    *_list_categories(container="file type", ending="ending of the name", encoder="encoder's name"),
    # of pictures
    *_list_categories(codec="video codec", pixel_format="pixel format", colour="colour tags"),
    Property("width", "width", "px", remedy="--normalise-size 256"),
    Property("height", "height", "px", remedy="--normalise-size 256"),
    Property("aspect", "width over height", remedy="--normalise-size 256"),
    *_list_categories(quantisation="JPEG quantisation tables"),
    Property("quality", "JPEG quality (estimated)"),
    *_list_categories(
        subsampling="chroma subsampling",
        progressive="progressive JPEG",
        exif="EXIF",
        icc="ICC profile",
        density="resolution tag",
    ),
    Property("bytes_per_pixel", "bytes a pixel", remedy=""),
    # of clips
    *_list_categories(handler="handler's name", brand="brand of the container", tags="names of the tags"),
    Property("duration", "duration", "s", remedy="--normalise-seconds 3"),
    Property("frame_rate", "frame rate", "fps"),
    Property("bytes_per_second", "bytes a second", remedy=""),
    Property("video_bit_rate", "video bit rate", "bit/s", remedy=""),
    Property("sound_bit_rate", "sound bit rate", "bit/s"),
    Property("has_sound", "sound track", is_number=False, remedy=""),
    *_list_categories(sound_codec="sound codec"),
    Property("sample_rate", "sample rate", "Hz"),
    Property("channels", "channels"),
    # of what is heard
    Property("leading_silence", "silence at the beginning", "s"),
    Property("trailing_silence", "silence at the end", "s"),
    Property("noise_floor", "noise floor", "dBFS"),
    Property("loudness", "loudness (RMS)", "dBFS"),
    Property("peak", "peak", "dBFS", remedy=""),
    Property("energy_limit", "99 % of the energy below", "Hz", remedy=""),
    Property("band_limit", "band limit", "Hz"),
    Property("dc_offset", "DC offset", "% of full scale"),
)
"""Every property, in the order in which they are listed."""
