"""Errors in the middle of a training, where they are wanted."""

from collections import Counter

import torch
from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["Faults"]


class Faults(TorchDispatchMode):
    """Raises an error in place of certain calls of an operator, counted from 1: `Faults(("aten.addmm", 3))`.

    Under `torch.inference_mode`, and so in evaluation, the dispatcher shows whole operators (`aten.linear`,
    `aten.layer_norm`), in training their parts (`aten.addmm`, `aten.native_layer_norm`).
    """

    def __init__(self, *calls, error=torch.cuda.OutOfMemoryError, message="no memory left"):
        super().__init__()
        self._calls, self._error, self._message = set(calls), error, message
        self._counts = Counter()
        self.raised = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = str(func.overloadpacket)
        self._counts[name] += 1
        if (name, self._counts[name]) in self._calls:
            self.raised += 1
            raise self._error(self._message)
        return func(*args, **(kwargs or {}))
