"""What a training does when memory runs out: it repeats the step with smaller micro-batches.

Fragmentation, or a neighbour on the GPU: what fitted a moment ago does not fit any more. The effective batch stays,
because gradients are accumulated. Out of memory is recognised by its type alone; every other error goes on to the user.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from automl.devices import free_cached_memory
from automl.errors import MemoryBudgetError

Result = TypeVar("Result")

_MOST_TIMES = 3
"""A training that ran out of memory this often will do so again: it ends."""

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
        """Describes it in one line, for a log."""
        then = "the training ends" if self.next_micro_batch_size is None else f"now {self.next_micro_batch_size}"
        stretch = _PLACES[self.where]
        return f"out of memory in {stretch} after {self.step} steps with {self.micro_batch_size} images at once; {then}"


def none_if_out_of_memory(attempt: Callable[[], Result]) -> Result | None:
    """Returns what a function returns, or None where memory ran out.

    The exception's traceback holds the frames of what failed, and so its tensors: they are gone when this returns.
    """
    try:
        return attempt()
    except torch.cuda.OutOfMemoryError:
        return None


class BufferBackup:
    """A copy of a network's buffers: BatchNorm's statistics move in each forward pass, also in one that failed."""

    def __init__(self, model: nn.Module) -> None:
        by_type: dict[torch.dtype, list[Tensor]] = {}
        for buffer in model.buffers():
            by_type.setdefault(buffer.dtype, []).append(buffer)
        self._pairs = [(live, [buffer.clone() for buffer in live]) for live in by_type.values()]

    def save_buffers(self) -> None:
        """Copies the buffers as they are."""
        for live, kept in self._pairs:
            torch._foreach_copy_(kept, live)

    def restore_buffers(self) -> None:
        """Makes the buffers what they were when they were copied."""
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
        size: int | None,
        on_out_of_memory: Callable[[OutOfMemory], None] | None,
    ) -> None:
        """Plans the micro-batches of a training; a BatchNorm in the model needs two images in each.

        Args:
            model: The network.
            shares: The fewest and the most images of a batch that one process trains on; all of several processes
                have the same number of micro-batches.
            size: Images of a micro-batch, at most; None: the whole batch.
            on_out_of_memory: Called each time memory runs out; None: it is an error like any other.
        """
        self._least, self._most = shares
        self._smallest = 2 if any(isinstance(module, _BatchNorm) for module in model.modules()) else 1
        self._on_out_of_memory = on_out_of_memory
        self.size = self._most if size is None else min(size, self._most)
        self.evaluation_size: int | None = None
        self.times = 0

    @property
    def parts(self) -> int:
        """Micro-batches of a step."""
        return max(1, min(-(-self._most // self.size), self._least // self._smallest))

    def split_batch(self, *batch: Tensor) -> list[tuple[Tensor, ...]]:
        """Splits tensors of one batch into micro-batches whose sizes differ by one image at most.

        A last one of what is left over may be a single image, on which BatchNorm fails.
        """
        return list(zip(*(torch.tensor_split(tensor, self.parts) for tensor in batch), strict=True))

    def retry_smaller(
        self, attempt: Callable[[], Result], undo: Callable[[], None], step: int, device: torch.device
    ) -> Result:
        """Repeats what may be repeated, with smaller micro-batches each time memory runs out.

        An attempt splits by `split_batch` and returns anything but None; `undo` leaves no trace of one that failed.

        Raises:
            MemoryBudgetError: If it has run out too often, or the micro-batch can be no smaller.
        """
        if self._on_out_of_memory is None:
            return attempt()
        while (result := none_if_out_of_memory(attempt)) is None:
            undo()
            free_cached_memory(device)
            self._shrink(step, "training")
        return result

    def try_once(self, attempt: Callable[[], Literal[True]], step: int) -> bool:
        """Does what must not be repeated; may raise what `retry_smaller` does.

        Returns:
            Whether it was done; if not, it may be half done, and the micro-batches are smaller from now on.
        """
        if self._on_out_of_memory is None:
            return attempt()
        if none_if_out_of_memory(attempt) is None:
            self._shrink(step, "optimizer")
            return False
        return True

    def note_evaluation(self, step: int, tried: int, smaller: int) -> None:
        """Counts that memory ran out in evaluation; raises MemoryBudgetError if it has run out too often."""
        self.evaluation_size = smaller
        self._report(OutOfMemory(step, "evaluation", tried, smaller))

    def get_state(self) -> list[int | None]:
        """Returns the state for a checkpoint."""
        return [self.size, self.evaluation_size, self.times]

    def restore_state(self, state: Sequence[int | None]) -> None:
        """Takes the state of a checkpoint, where memory had run out more often than here."""
        size, evaluation_size, times = state
        self.size = min(self.size, size or self.size)
        self.evaluation_size = min((n for n in (self.evaluation_size, evaluation_size) if n), default=None)
        self.times = max(self.times, times or 0)

    def _shrink(self, step: int, where: Literal["training", "optimizer"]) -> None:
        """Plans twice as many micro-batches, or as many as there can be."""
        tried, most_parts = -(-self._most // self.parts), max(1, self._least // self._smallest)
        smaller = -(-self._most // min(2 * self.parts, most_parts))
        self._report(OutOfMemory(step, where, tried, smaller if smaller < tried else None))
        self.size = smaller

    def _report(self, event: OutOfMemory) -> None:
        """Counts and reports that memory ran out, and ends the training where it cannot go on."""
        if self._on_out_of_memory is None:
            return
        self.times += 1
        if self.times >= _MOST_TIMES:
            event = replace(event, next_micro_batch_size=None)
        self._on_out_of_memory(event)
        if event.next_micro_batch_size is None:
            why = f"number {self.times}" if self.times >= _MOST_TIMES else "the smallest micro-batch"
            advice = "end what else uses the device, or lower numerics.micro_batch_size or image_size"
            raise MemoryBudgetError(f"{event.describe()} ({why}): {advice}")
