"""Keeping freed memory for the next training step on a CPU."""

import ctypes

__all__ = ["give_freed_memory_back", "keep_freed_memory"]

# From glibc's malloc.h (mallopt(3)).
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX, _ARENA_MAX = -1, -2, -4, -8


def keep_freed_memory() -> bool:
    """Tells glibc to keep the memory a process frees.

    By default every activation larger than 32 MiB at most is mapped anew in each step, and the kernel zeroes each of
    its pages again: training mobilenetv2_100 at 192 px, batch 32, on two cores went from 21 to 34 images a second
    with this, and system time from 40 % to almost nothing (`studies/benchmarks/cpu_memory.py`). It costs nothing but
    memory that the next step wants anyway.

    Returns:
        Whether it was done; not where the C library is another one.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return False  # macOS, Windows, musl: their allocators have no such knobs
    knobs = ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, 2**31 - 1), (_TOP_PAD, 64 << 20), (_ARENA_MAX, 1))
    return all(mallopt(knob, value) == 1 for knob, value in knobs)


def give_freed_memory_back() -> None:
    """Returns what was kept to the system, once, where the C library can."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (OSError, AttributeError, TypeError):
        return
