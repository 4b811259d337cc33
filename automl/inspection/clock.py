"""Times of a clip in one unit throughout: seconds, of a long clip minutes."""

from dataclasses import dataclass

_LONG_SECONDS = 600


@dataclass(frozen=True)
class Clock:
    """Writes times of a clip.

    Attributes:
        unit: `s` or `min`.
        unit_seconds: 1 or 60.
    """

    unit: str
    unit_seconds: float

    @classmethod
    def of(cls, clip_seconds: float) -> "Clock":
        """The clock for a clip of a length: in minutes from ten minutes on."""
        return cls("min", 60.0) if clip_seconds >= _LONG_SECONDS else cls("s", 1.0)

    def text(self, seconds: float) -> str:
        """A time, such as `3.20 s`."""
        return f"{seconds / self.unit_seconds:.2f} {self.unit}"
