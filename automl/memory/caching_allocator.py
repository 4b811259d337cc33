"""A model of PyTorch's CUDA caching allocator: what a sequence of allocations makes it reserve.

The rules are those of `c10/cuda/CUDACachingAllocator.cpp` with its default settings: sizes are rounded up to 512
bytes; small blocks (at most 1 MiB) are cut from 2 MiB segments, large ones from segments of 20 MiB or, from 10 MiB
on, of their own size rounded up to 2 MiB; the smallest free block that is big enough is taken and split; a freed
block merges with its free neighbours. A segment goes back to the device only when a new one would not fit.
"""

import bisect
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple

MIB = 1 << 20
ROUND_BYTES = 512
SMALL_BLOCK_BYTES = MIB
SMALL_SEGMENT_BYTES = 2 * MIB
LARGE_SEGMENT_BYTES = 20 * MIB
OWN_SEGMENT_FROM_BYTES = 10 * MIB
OWN_SEGMENT_ROUND_BYTES = 2 * MIB


class Event(NamedTuple):
    """The birth of a storage (`change_bytes` > 0) or its death (`change_bytes` < 0)."""

    storage: int
    change_bytes: int


def round_up(size_bytes: int, multiple_bytes: int) -> int:
    """Rounds a size up to the next multiple."""
    return -(-size_bytes // multiple_bytes) * multiple_bytes


@dataclass(eq=False, slots=True)
class Block:
    """A piece of a segment; `address` orders all blocks ever cut, as addresses do on a device."""

    size_bytes: int
    address: int
    small: bool
    free: bool = True
    before: "Block | None" = None
    after: "Block | None" = None


class CachingAllocator:
    """Replays allocations; sizes are bytes.

    Attributes:
        reserved_bytes: What the segments take now (`torch.cuda.memory_reserved`).
        peak_bytes: The most they took at once (`torch.cuda.max_memory_reserved`).
        out_of_memory: Whether the limit was exceeded even after every unused segment had been released.
    """

    def __init__(self, limit_bytes: int | None = None) -> None:
        self.limit_bytes = limit_bytes
        self.reserved_bytes = 0
        self.peak_bytes = 0
        self.out_of_memory = False
        self._free: dict[bool, list[tuple[int, int, Block]]] = {True: [], False: []}
        self._next_address = 0

    def allocate(self, size_bytes: int) -> Block:
        """Hands out a block of at least `size_bytes`."""
        wanted = max(ROUND_BYTES, round_up(size_bytes, ROUND_BYTES))
        small = wanted <= SMALL_BLOCK_BYTES
        pool = self._free[small]
        at = bisect.bisect_left(pool, (wanted, -1))
        block = pool.pop(at)[2] if at < len(pool) else self._new_segment(wanted, small)
        block.free = False
        rest = block.size_bytes - wanted
        if rest >= ROUND_BYTES if small else rest > SMALL_BLOCK_BYTES:
            self._split_block(block, wanted)
        return block

    def release(self, block: Block) -> None:
        """Takes a block back, merging it with its free neighbours."""
        if block.free:
            raise ValueError("a block was released twice")
        block.free = True
        for left, right in ((block, block.after), (block.before, block)):
            if left is None or right is None or not (left.free and right.free):
                continue
            neighbour, pool = left if right is block else right, self._free[block.small]
            del pool[bisect.bisect_left(pool, (neighbour.size_bytes, neighbour.address))]
            left.size_bytes += right.size_bytes
            left.after = right.after
            if right.after is not None:
                right.after.before = left
            block = left
        self._add_free_block(block)

    def release_unused_segments(self) -> None:
        """Gives segments without a used block back to the device (`torch.cuda.empty_cache`)."""
        for pool in self._free.values():
            whole = [entry for entry in pool if entry[2].before is None and entry[2].after is None]
            self.reserved_bytes -= sum(size for size, _, _ in whole)
            gone = {address for _, address, _ in whole}
            pool[:] = [entry for entry in pool if entry[1] not in gone]

    def _new_segment(self, wanted: int, small: bool) -> Block:
        large = LARGE_SEGMENT_BYTES if wanted < OWN_SEGMENT_FROM_BYTES else round_up(wanted, OWN_SEGMENT_ROUND_BYTES)
        size = SMALL_SEGMENT_BYTES if small else large
        if self.limit_bytes is not None and self.reserved_bytes + size > self.limit_bytes:
            self.release_unused_segments()
            self.out_of_memory |= self.reserved_bytes + size > self.limit_bytes
        self.reserved_bytes += size
        self.peak_bytes = max(self.peak_bytes, self.reserved_bytes)
        block = Block(size, self._next_address, small)
        self._next_address += size
        return block

    def _split_block(self, block: Block, size_bytes: int) -> None:
        rest = Block(block.size_bytes - size_bytes, block.address + size_bytes, block.small, True, block, block.after)
        if block.after is not None:
            block.after.before = rest
        block.after = rest
        block.size_bytes = size_bytes
        self._add_free_block(rest)

    def _add_free_block(self, block: Block) -> None:
        bisect.insort(self._free[block.small], (block.size_bytes, block.address, block))


def replay_events(events: Iterable[Event], limit_bytes: int | None = None) -> CachingAllocator:
    """Runs events through a fresh allocator with so much memory for segments (None: no limit), and returns it."""
    allocator = CachingAllocator(limit_bytes)
    blocks: dict[int, Block] = {}
    for storage, change_bytes in events:
        if change_bytes > 0:
            blocks[storage] = allocator.allocate(change_bytes)
        else:
            allocator.release(blocks.pop(storage))
    return allocator


def peak_live_bytes(events: Iterable[Event]) -> int:
    """Returns the most bytes alive at once, unrounded."""
    return max(accumulate(event.change_bytes for event in events), default=0)


def needed_bytes(events: Iterable[Event]) -> int:
    """Returns the least memory for segments that events get by with: unused ones go back before each new one."""
    return replay_events(events, limit_bytes=0).peak_bytes
