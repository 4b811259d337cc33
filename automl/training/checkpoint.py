"""Checkpoints of a training run: written atomically, read with `weights_only`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from automl.errors import WeightsError
from automl.files import write_atomically

if TYPE_CHECKING:
    from torch import Tensor, nn


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Writes tensors, numbers, strings and containers of them; a kill leaves the old file or the new one.

    Raises:
        WeightsError: If the disk is full or the folder cannot be written.
    """
    import torch

    try:
        # To a path, torch's own writer would report a full disk as a RuntimeError without a reason.
        with write_atomically(path) as temporary, temporary.open("wb") as file:
            torch.save(state, file)
    except (OSError, RuntimeError) as exc:
        raise WeightsError(f"cannot write the checkpoint {path}: {exc}; is the disk full?") from exc


def load_checkpoint(path: Path) -> dict[str, Any] | None:
    """Reads a checkpoint, or None if there is none.

    Raises:
        WeightsError: If the file is no checkpoint, or holds anything but plain data (a pickle of code).
    """
    import torch

    if not path.exists():
        return None
    try:
        return dict(torch.load(path, map_location="cpu", weights_only=True))
    except Exception as exc:  # torch.load raises many types for a damaged file
        raise WeightsError(f"{path} is not a checkpoint that is safe to load: {exc}") from exc


def weights_on_cpu(model: "nn.Module") -> "dict[str, Tensor]":
    """Copies a network's state to the CPU, each tensor in contiguous memory of its own as safetensors wants it."""
    return {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in model.state_dict().items()}
