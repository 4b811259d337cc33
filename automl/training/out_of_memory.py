"""What a training does when memory runs out: it repeats the step with smaller micro-batches.

Fragmentation, or a neighbour on the GPU: what fitted a moment ago does not fit any more. The effective batch stays,
because gradients are accumulated. Out of memory is recognised by its type alone; every other error is the user's to
see.
"""

import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from automl.errors import MemoryBudgetError

Result = TypeVar("Result")

_MOST = 3
"""Out of memory so often, a training will be so again: it ends."""


_PLACES = {"training": "a training step", "optimizer": "the optimizer's step", "evaluation": "evaluation"}


@dataclass(frozen=True)
class OutOfMemory:
    """Memory ran out during a training."""

    step: int
    """Optimizer steps that were done."""
    where: Literal["training", "optimizer", "evaluation"]
    micro_batch_size: int
    """Images that did not fit."""
    next_micro_batch_size: int | None
    """Images that are tried next; None: the training ends."""

    def describe(self) -> str:
        """In one line, for a log."""
        then = "the training ends" if self.next_micro_batch_size is None else f"now {self.next_micro_batch_size}"
        place = _PLACES[self.where]
        return f"out of memory in {place} after {self.step} steps with {self.micro_batch_size} images at once; {then}"


def attempted(attempt: Callable[[], Result]) -> Result | None:
    """What a function returns, or None where memory ran out.

    The exception's traceback holds the frames of what failed, and so its tensors: they are gone when this returns.
    """
    try:
        return attempt()
    except torch.cuda.OutOfMemoryError:
        return None


def give_back(device: torch.device) -> None:
    """Gives memory that no tensor uses back to the device, in whole, so that fragments do not count."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


class Buffers:
    """A copy of a network's buffers: BatchNorm's statistics move in each forward pass, also in one that failed.

    It costs as much memory as the buffers and, in each step, one call for each of their types; nothing for a network
    without buffers.
    """

    def __init__(self, model: nn.Module) -> None:
        by_type: dict[torch.dtype, list[Tensor]] = {}
        for buffer in model.buffers():
            by_type.setdefault(buffer.dtype, []).append(buffer)
        self._pairs = [(live, [buffer.clone() for buffer in live]) for live in by_type.values()]

    def keep(self) -> None:
        """Notes them as they are."""
        for live, kept in self._pairs:
            torch._foreach_copy_(kept, live)

    def restore(self) -> None:
        """Makes them what they were when they were noted."""
        for live, kept in self._pairs:
            torch._foreach_copy_(live, kept)


class MicroBatches:
    """How many images go through the network at once, and how many when that was too much.

    Attributes:
        size: Images of a micro-batch in training, at most.
        evaluation_size: Images at once in evaluation.
        times: How often memory ran out.
    """

    def __init__(
        self,
        model: nn.Module,
        shares: tuple[int, int],
        wanted: int | None,
        on_out_of_memory: Callable[[OutOfMemory], None] | None,
    ) -> None:
        """Prepares.

        Args:
            model: A BatchNorm in it wants two images in each micro-batch.
            shares: The fewest and the most images of a batch that one process trains on; all of several processes
                have the same number of micro-batches.
            wanted: Images of a micro-batch, at most; None: the whole batch.
            on_out_of_memory: Told each time memory ran out; None: it is an error like any other.
        """
        self._least, self._most = shares
        self._smallest = 2 if any(isinstance(module, _BatchNorm) for module in model.modules()) else 1
        self._tell = on_out_of_memory
        self.size = self._most if wanted is None else min(wanted, self._most)
        self.evaluation_size: int | None = None
        self.times = 0

    @property
    def parts(self) -> int:
        """Micro-batches of a step."""
        return max(1, min(-(-self._most // self.size), self._least // self._smallest))

    def split(self, *batch: Tensor) -> list[tuple[Tensor, ...]]:
        """Splits tensors of one batch into micro-batches whose sizes differ by one image at most.

        A last one of what is left over may be a single image, on which BatchNorm fails.
        """
        return list(zip(*(torch.tensor_split(tensor, self.parts) for tensor in batch), strict=True))

    def until_it_fits(
        self, attempt: Callable[[], Result], undo: Callable[[], None], step: int, device: torch.device
    ) -> Result:
        """Repeats what may be repeated, with smaller micro-batches each time memory runs out.

        Args:
            attempt: Splits by `split`; returns anything but None.
            undo: Called after an attempt that failed, to leave no trace of it.
            step: Optimizer steps that are done.
            device: Where.

        Raises:
            MemoryBudgetError: If it has run out too often, or the micro-batch can be no smaller.
        """
        if self._tell is None:
            return attempt()
        while (result := attempted(attempt)) is None:
            undo()
            give_back(device)
            self._shrink(step, "training")
        return result

    def at_once(self, attempt: Callable[[], bool], step: int) -> bool:
        """Does what must not be repeated.

        Returns:
            Whether it was done; if not, it may be half done, and the micro-batches are smaller from now on.

        Raises:
            MemoryBudgetError: As `until_it_fits`.
        """
        if self._tell is None:
            return attempt()
        if attempted(attempt) is None:
            self._shrink(step, "optimizer")
            return False
        return True

    def evaluation_ran_out(self, step: int, tried: int, smaller: int) -> None:
        """Notes that so many images at once were too many in evaluation.

        Raises:
            MemoryBudgetError: If memory has run out too often.
        """
        self.evaluation_size = smaller
        if self._tell is not None:
            self._note(OutOfMemory(step, "evaluation", tried, smaller))

    def state(self) -> list[int | None]:
        """What `recall` wants."""
        return [self.size, self.evaluation_size, self.times]

    def recall(self, state: Sequence[int | None]) -> None:
        """Goes on with what a checkpoint knows, if it is later than what this knows."""
        size, evaluation_size, times = state
        self.size = min(self.size, size or self.size)
        self.evaluation_size = min((n for n in (self.evaluation_size, evaluation_size) if n), default=None)
        self.times = max(self.times, times or 0)

    def _shrink(self, step: int, where: Literal["training", "optimizer"]) -> None:
        """Twice as many micro-batches, or as many as there can be."""
        tried, most_parts = -(-self._most // self.parts), max(1, self._least // self._smallest)
        smaller = -(-self._most // min(2 * self.parts, most_parts))
        self._note(OutOfMemory(step, where, tried, smaller if smaller < tried else None))
        self.size = smaller

    def _note(self, event: OutOfMemory) -> None:
        assert self._tell is not None  # noqa: S101 - asked by the callers
        self.times += 1
        if self.times >= _MOST:
            event = OutOfMemory(event.step, event.where, event.micro_batch_size, None)
        self._tell(event)
        if event.next_micro_batch_size is None:
            why = f"number {self.times}" if self.times >= _MOST else "the smallest micro-batch"
            advice = "end what else uses the device, or lower numerics.micro_batch_size or image_size"
            raise MemoryBudgetError(f"{event.describe()} ({why}): {advice}")
