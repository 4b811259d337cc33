from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from automl.memory.caching_allocator import (
    MIB,
    CachingAllocator,
    Event,
    needed_bytes,
    peak_live_bytes,
    replay_events,
    round_up,
)

sizes = st.integers(1, 40 * MIB)


@st.composite
def event_lists(draw):
    """Births, and deaths of what is alive, in any order."""
    events, alive = [], {}
    for number, (size, pick) in enumerate(draw(st.lists(st.tuples(sizes, st.integers(0, 99)), max_size=60))):
        if alive and pick < 50:
            storage = sorted(alive)[pick % len(alive)]
            events.append(Event(storage, -alive.pop(storage)))
        alive[number] = size
        events.append(Event(number, size))
    return events


@pytest.mark.parametrize(
    ("size", "reserved"),
    [
        (1, 2 * MIB),
        (MIB, 2 * MIB),
        (MIB + 1, 20 * MIB),
        (10 * MIB - 1024, 20 * MIB),
        (10 * MIB, 10 * MIB),
        (10 * MIB + 1, 12 * MIB),
        (31 * MIB, 32 * MIB),
    ],
)
def test_segment_sizes_are_those_of_cuda(size, reserved):
    assert replay_events([Event(0, size)]).reserved_bytes == reserved


def test_small_blocks_share_a_segment():
    assert replay_events([Event(i, 512) for i in range(4096)]).reserved_bytes == 2 * MIB
    assert replay_events([Event(i, 512) for i in range(4097)]).reserved_bytes == 4 * MIB


def test_a_freed_block_is_used_again():
    events = [Event(0, 30 * MIB), Event(0, -30 * MIB), Event(1, 20 * MIB), Event(2, 10 * MIB)]
    assert replay_events(events).peak_bytes == 30 * MIB


def test_a_large_block_keeps_a_rest_of_a_mebibyte_or_less():
    allocator = CachingAllocator()
    block = allocator.allocate(19 * MIB)  # of a segment of 20 MiB
    assert block.size_bytes == 20 * MIB


def test_the_smallest_fitting_block_is_taken():
    allocator = CachingAllocator()
    big, middle = allocator.allocate(40 * MIB), allocator.allocate(20 * MIB)
    allocator.release(big)
    allocator.release(middle)
    assert allocator.allocate(12 * MIB).address == middle.address


def test_unused_segments_are_released_before_memory_runs_out():
    events = [Event(0, 30 * MIB), Event(0, -30 * MIB), Event(1, 40 * MIB)]
    assert replay_events(events).peak_bytes == 70 * MIB
    assert not replay_events(events, limit_bytes=40 * MIB).out_of_memory
    assert replay_events(events, limit_bytes=39 * MIB).out_of_memory


def test_a_block_cannot_be_released_twice():
    allocator = CachingAllocator()
    block = allocator.allocate(100)
    allocator.release(block)
    with pytest.raises(ValueError, match="twice"):
        allocator.release(block)


@settings(deadline=None)
@given(st.integers(0, 10**12), st.integers(1, 10**8))
def test_rounding_up_reaches_the_next_multiple(size, multiple):
    rounded = round_up(size, multiple)
    assert rounded % multiple == 0
    assert 0 <= rounded - size < multiple


@settings(deadline=None)
@given(event_lists())
def test_reserved_covers_what_is_alive(events):
    assert replay_events(events).peak_bytes >= peak_live_bytes(events)


@settings(deadline=None)
@given(st.lists(sizes, max_size=30), st.randoms(use_true_random=False))
def test_everything_merges_again_whatever_the_order_of_frees(wanted, random):
    allocator = CachingAllocator()
    blocks = [allocator.allocate(size) for size in wanted]
    reserved = allocator.reserved_bytes
    taken = sorted((block.address, block.size_bytes) for block in blocks)
    assert all(start + size <= following for (start, size), (following, _) in pairwise(taken))
    random.shuffle(blocks)
    for block in blocks:
        allocator.release(block)
    assert allocator.reserved_bytes == reserved
    allocator.release_unused_segments()
    assert allocator.reserved_bytes == 0


@settings(deadline=None)
@given(st.lists(sizes, min_size=1, max_size=20))
def test_what_was_freed_serves_the_same_sizes_again(wanted):
    births = [Event(number, size) for number, size in enumerate(sorted(wanted, reverse=True))]
    deaths = [Event(number, -size) for number, size in births]
    again = Event(100, births[0].change_bytes)
    assert replay_events([births[0], deaths[0], again]).peak_bytes == replay_events([births[0]]).peak_bytes
    assert replay_events(births + deaths).reserved_bytes == replay_events(births).reserved_bytes


@settings(deadline=None)
@given(event_lists(), st.integers(0, 200 * MIB))
def test_memory_runs_out_just_where_the_peak_exceeds_the_limit(events, limit):
    allocator = replay_events(events, limit)
    assert allocator.out_of_memory == (allocator.peak_bytes > limit)
    assert allocator.peak_bytes >= peak_live_bytes(events)


def test_needed_is_what_is_left_when_unused_segments_go_back():
    assert needed_bytes([Event(0, 30 * MIB), Event(0, -30 * MIB), Event(1, 40 * MIB)]) == 40 * MIB
