"""From the traces of a step at two batch sizes to its memory at every batch size.

Each storage is a constant (a weight) or grows with the batch (an activation), so the live memory at each moment is a
line a + k·batch, and the peak is the upper envelope of these lines. A straight line through two peaks is up to 3 %
off, because the moment of the peak moves from the optimizer's step to the backward pass as the batch grows.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import accumulate

import numpy as np

from automl.memory.caching_allocator import Event, needed_bytes, peak_live_bytes

Line = tuple[int, int]
"""Bytes at batch 0 (may be negative, where the line only holds from batch 1 on) and bytes per image."""

KNOTS = (1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 1024)
"""Batch sizes at which the allocator is replayed; what lies between is interpolated."""


@dataclass(frozen=True)
class Envelope:
    """The peak memory of one training step by (micro-)batch size, without the CUDA context.

    Attributes:
        lines: The upper envelope of the live memory.
        needed: (batch, bytes of segments the caching allocator gets by with), by ascending batch. With more at hand
            it keeps unused segments rather than giving them back, and reserves up to a fifth more.
        smallest_batch: 2 where batch normalisation needs more than one image, else 1.
    """

    lines: tuple[Line, ...]
    needed: tuple[tuple[int, int], ...]
    smallest_batch: int = 1

    def live_bytes(self, batch: int) -> int:
        """Returns peak live bytes (`torch.cuda.max_memory_allocated`, less its rounding) at a batch size from 1 on."""
        return max(a + k * batch for a, k in self.lines)

    def needed_bytes(self, batch: int) -> int:
        """Returns the bytes of segments that PyTorch's allocator needs at a batch size of at least 1.

        It is live bytes and what fragmentation adds when unused segments are given back. Fourteen models replayed with
        this as the limit needed at most 0.5 % more. It never falls as the batch grows.
        """
        knots = [knot for knot, _ in self.needed]
        sizes = list(accumulate((size for _, size in self.needed), max))
        if batch > knots[-1]:  # the overhead of the allocator stays in proportion
            return math.ceil(self.live_bytes(batch) * max(1.0, sizes[-1] / self.live_bytes(knots[-1])))
        return max(self.live_bytes(batch), interpolate_bytes(knots, sizes, batch))


def interpolate_bytes(batches: Sequence[int], sizes: Sequence[int], batch: int) -> int:
    """Interpolates sizes in bytes between ascending batch sizes, rounded up; outside of them the nearest one holds."""
    return math.ceil(np.interp(batch, batches, sizes))


def upper_envelope(lines: Iterable[Line]) -> tuple[Line, ...]:
    """Keeps the lines that are highest somewhere at a batch of 1 or more, by ascending slope."""
    highest = {k: a for a, k in sorted(lines)}  # of parallel lines, the last and highest one stays
    kept: list[Line] = []
    for k, a in sorted(highest.items()):
        while kept and _crossing_batch(kept[-1], (a, k)) <= (
            _crossing_batch(kept[-2], kept[-1]) if len(kept) > 1 else 1
        ):
            kept.pop()
        kept.append((a, k))
    return tuple(kept)


def _crossing_batch(lower: Line, steeper: Line) -> Fraction:
    """Returns the batch from which the steeper line is the higher one."""
    return Fraction(lower[0] - steeper[0], steeper[1] - lower[1])


def events_at(first: Sequence[Event], second: Sequence[Event], batches: tuple[int, int], batch: int) -> list[Event]:
    """Scales the paired events of two traces of a step, made at two batch sizes, to another `batch`."""
    low, high = batches
    return [
        Event(one.storage, one.change_bytes + (two.change_bytes - one.change_bytes) * (batch - low) // (high - low))
        for one, two in zip(first, second, strict=True)
    ]


def build_envelope(
    first: Sequence[Event],
    second: Sequence[Event],
    batches: tuple[int, int],
    smallest_batch: int = 1,
    knots: Sequence[int] = KNOTS,
) -> Envelope:
    """Builds the envelope of a step from its traces at two batch sizes, ascending; `knots` are where it is exact.

    Where the two traces differ in more than sizes (a model that branches on the batch size), the envelope is one
    line through the two peaks, with the allocator's overhead at the larger batch.
    """
    low, high = batches
    if [(s, c > 0) for s, c in first] != [(s, c > 0) for s, c in second]:
        peaks = peak_live_bytes(first), peak_live_bytes(second)
        slope = max(0, math.ceil((peaks[1] - peaks[0]) / (high - low)))
        return Envelope(((peaks[1] - slope * high, slope),), ((high, needed_bytes(second)),), smallest_batch)
    at_low, at_high = (list(accumulate(change for _, change in events)) for events in (first, second))
    slopes = {(one, (two - one) // (high - low)) for one, two in zip(at_low, at_high, strict=True)}
    lines = [(bytes_low - slope * low, slope) for bytes_low, slope in slopes]
    needed = tuple((knot, needed_bytes(events_at(first, second, batches, knot))) for knot in knots)
    return Envelope(upper_envelope(lines), needed, smallest_batch)
