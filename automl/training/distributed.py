"""Several processes that train one model: each takes its share of every batch (torchrun starts them).

The effective batch is the recipe's, however many processes there are. Gradients are summed as the undivided batch would
give them; what a network draws (dropout, drop path) and whom Mixup pairs is drawn by each process for its own share.
BatchNorm sees the whole batch on CUDA (SyncBatchNorm); on a CPU, where torch has none, the share alone.
"""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, distributed, nn

from automl.devices import is_gpu
from automl.errors import RecipeError

_TIMEOUT = timedelta(hours=6)
"""How long a process waits for the others: the first one validates while the rest wait."""


@dataclass(frozen=True)
class ProcessGroup:
    """The processes that train together, seen from one of them."""

    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this process evaluates, saves and reports."""
        return self.rank == 0

    def share_of_batch(self, batch_size: int) -> slice:
        """Returns which images of a batch are this process's; shares differ by one image at most.

        Raises:
            RecipeError: If there are more processes than images.
        """
        if batch_size < self.size:
            raise RecipeError(
                f"{self.size} processes share batches of {batch_size} images; start {batch_size} processes at most"
            )
        return slice(self.rank * batch_size // self.size, (self.rank + 1) * batch_size // self.size)

    def synchronise_batchnorms(self, model: nn.Module) -> nn.Module:
        """Makes BatchNorms see the whole batch, where there is more than one process and CUDA."""
        if self.size == 1 or next(model.parameters()).device.type != "cuda":
            return model
        # torch's own conversion loses the activation in timm's BatchNormAct2d
        from timm.layers.norm_act import convert_sync_batchnorm

        return convert_sync_batchnorm(model)  # type: ignore[no-untyped-call, no-any-return]

    def wrap_model(self, model: nn.Module, *, partly_frozen: bool) -> nn.Module:
        """Returns the model to call in training steps: its backward pass averages gradients over the processes.

        If it is partly frozen in some steps, torch warns once, without harm, at the first step in which it is not.
        """
        if self.size == 1:
            return model
        return nn.parallel.DistributedDataParallel(model, find_unused_parameters=partly_frozen)

    def average_gradients(self, model: nn.Module, last: bool) -> AbstractContextManager[Any]:
        """Goes around a micro-batch: only the last one of a step waits for the other processes' gradients."""
        return nullcontext() if self.size == 1 or last else model.no_sync()  # type: ignore[operator]

    def mean_over_processes(self, value: Tensor) -> Tensor:
        """Computes the mean of a tensor over the processes, the same in each of them."""
        if self.size == 1:
            return value
        total = value.clone()
        distributed.all_reduce(total)
        return total / self.size

    def any_process(self, flag: bool, device: torch.device) -> bool:
        """Returns whether a flag is set in one of the processes."""
        if self.size == 1:
            return flag
        flags = torch.tensor(float(flag), device=device)
        distributed.all_reduce(flags, distributed.ReduceOp.MAX)
        return bool(flags)


def current_process_group() -> ProcessGroup:
    """Returns the processes of torch's default group; this one alone where there is none."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return ProcessGroup()
    return ProcessGroup(distributed.get_rank(), distributed.get_world_size())


@contextmanager
def join_process_group(device: str) -> Iterator[str]:
    """Joins the processes that torchrun started, if it did.

    Yields:
        The device of this process: of GPUs the one of its LOCAL_RANK, whichever is given.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        yield device
        return
    cuda = is_gpu(device)
    if cuda:
        device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
        torch.cuda.set_device(device)
    if distributed.is_initialized():  # by a caller that trains more than one model
        yield device
        return
    distributed.init_process_group("nccl" if cuda else "gloo", timeout=_TIMEOUT)
    try:
        yield device
    finally:
        distributed.destroy_process_group()
