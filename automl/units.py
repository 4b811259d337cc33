"""Sizes, shares and durations as people write them: `16GB`, `16GiB`, `90%`, `8h30m`.

`16GB` is 16·10⁹ bytes and `16GiB` is 16·2³⁰: a "16 GB" T4 has 15,360 MiB, 16.1·10⁹ bytes, with what its driver keeps.
"""

import math
import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

from automl.errors import SpecError

_BYTES = {"": 1, "b": 1} | {
    prefix + suffix: base**power
    for power, prefix in enumerate("kmgt", start=1)
    for suffix, base in (("", 1000), ("b", 1000), ("ib", 1024))
}
_SECONDS = {"d": 86_400, "h": 3_600, "m": 60, "s": 1}
_NUMBER = r"\d{1,18}(?:\.\d{1,30})?"
_FLAGS = re.IGNORECASE | re.ASCII


@dataclass(frozen=True)
class Share:
    """A part of what is free, as `90%`.

    Attributes:
        percent: From 1 to 100: `0.9%` is `90%` written wrong.
    """

    percent: float

    def __post_init__(self) -> None:
        if not 1 <= self.percent <= 100:
            raise SpecError(f"a share is from 1% to 100%, got {self}; write it like 90%")

    def __str__(self) -> str:
        return f"{_write_plainly(self.percent).removesuffix('.0')}%"


def parse_memory(text: str | float | Share) -> int | Share | Literal["auto"]:
    """Reads how much GPU memory is wanted: a size such as `16GB`, a share of what is free such as `90%`, or `auto`.

    Args:
        text: What `parse_bytes` takes, a number and `%`, `auto`, or a share.

    Returns:
        Bytes, the share, or `auto`: all that is free.

    Raises:
        SpecError: If it is none of them.
    """
    if isinstance(text, Share):
        return text
    plain = _write_plainly(text).strip().lower()
    if plain == "auto":
        return "auto"
    if plain.endswith("%"):
        match = re.fullmatch(rf"({_NUMBER})\s*%", plain, _FLAGS)
        if not match:
            raise SpecError(f"not a share: {text!r}; write it like 90%")
        return Share(float(match[1]))
    try:
        return parse_bytes(text)
    except SpecError as exc:
        raise SpecError(f"{exc}; or auto for all that is free, or a share of it such as 90%") from exc


def parse_bytes(text: str | float) -> int:
    """Reads a size such as `16GB`, `15.5GiB` or `800 MB`.

    Args:
        text: A number with an optional unit (B, kB, MB, GB, TB: powers of 1000; KiB, MiB, GiB, TiB: powers of
            1024); a plain number is bytes.

    Returns:
        The size in bytes, at least 1.

    Raises:
        SpecError: If the text is not a size, or the size is not positive.
    """
    match = re.fullmatch(rf"\s*({_NUMBER})\s*([a-z]*)\s*", _write_plainly(text), _FLAGS)
    if not match or match[2].lower() not in _BYTES:
        raise SpecError(f"not a size: {text!r}; write it like 16GB (16·10⁹ bytes) or 16GiB (16·2³⁰ bytes)")
    size_bytes = int(Decimal(match[1]) * _BYTES[match[2].lower()])
    if size_bytes < 1:
        raise SpecError(f"a size must be positive, got {text!r}; write it like 16GB")
    return size_bytes


def format_bytes(size_bytes: float) -> str:
    """Writes a size in powers of 1000, as `parse_bytes` reads it: `15.9GB`."""
    size = float(size_bytes)
    units = ["TB", "GB", "MB", "kB", "B"]
    unit = units.pop()
    while abs(size) >= 999.5 and units:  # what would be rounded to 1000
        size, unit = size / 1000, units.pop()
    return f"{size:.0f}{unit}" if unit == "B" or abs(size) >= 99.5 else f"{size:.3g}{unit}"


def parse_seconds(text: str | float) -> float:
    """Reads a duration such as `8h30m`, `40m`, `90s`, `1d` or a plain number of seconds.

    Args:
        text: Numbers with the units d, h, m, s, largest first; a plain number is seconds.

    Returns:
        The duration in seconds, positive.

    Raises:
        SpecError: If the text is not a duration, or the duration is not positive.
    """
    plain = re.fullmatch(rf"\s*({_NUMBER})\s*", _write_plainly(text), _FLAGS)
    units = "".join(rf"(?:({_NUMBER})\s*{unit}\s*)?" for unit in _SECONDS)
    match = re.fullmatch(rf"\s*{units}", _write_plainly(text), _FLAGS)
    if plain:
        seconds = float(plain[1])
    elif match and any(match.groups()):
        seconds = sum(float(n) * s for n, s in zip(match.groups(), _SECONDS.values(), strict=True) if n)
    else:
        raise SpecError(f"not a duration: {text!r}; write it like 8h30m, 40m or 90s")
    if seconds <= 0:
        raise SpecError(f"a duration must be positive, got {text!r}; write it like 8h30m")
    return seconds


def format_seconds(seconds: float) -> str:
    """Writes a duration with its two largest units: `8h30m`, `3m05s`, `4.2s`."""
    if seconds < 9.95:  # 9.96 is 10 s, not 10.0 s
        return f"{seconds:.1f}s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3_600:
        return f"{whole // 60}m{whole % 60:02d}s"
    minutes = whole // 60
    if minutes < 1_440:
        return f"{minutes // 60}h{minutes % 60:02d}m"
    return f"{minutes // 1_440}d{minutes % 1_440 // 60:02d}h"


def format_figure(value: float) -> str:
    """Writes a figure with three significant digits, and from a thousand on all before the point: `1,136`."""
    return f"{value:,.0f}" if abs(value) >= 999.5 else f"{value:.3g}"


def format_count(number: float, noun: str, plural: str = "") -> str:
    """Writes how many there are of something: `1 row`, `1,557 rows`, `0.5 epochs`; `plural`: of nouns without an s."""
    written = f"{number:,}" if isinstance(number, int) else format_figure(number)
    return f"{written} {noun if number == 1 else plural or f'{noun}s'}"


def format_share(done: int, wanted: int, noun: str) -> str:
    """Writes how many are done of those that are wanted: `3 of 5 trials`; where there are more, `3 trials`."""
    return f"{done} of {format_count(wanted, noun)}" if done <= wanted else format_count(done, noun)


def _write_plainly(text: str | float) -> str:
    """Writes a number without an exponent: a float from YAML reads like the digits it stands for."""
    if isinstance(text, float) and math.isfinite(text):
        return format(Decimal(repr(float(text))), "f")
    return str(text)
