"""Keeping a process within a budget on a larger card, as if the card were smaller."""

from automl.memory.prediction import CONTEXT_BYTES

__all__ = ["limit_for_prediction", "limit_process"]


def limit_process(device: str, budget_bytes: int, context_bytes: int | None = None) -> None:
    """Lets PyTorch's allocator take what a budget leaves beside the CUDA context; beyond it, it is out of memory.

    `set_per_process_memory_fraction` alone would leave the context out: a "16 GB" process would take 16.5.

    Args:
        device: `cuda` or `cuda:N`; on a CPU nothing is limited.
        budget_bytes: For the whole process.
        context_bytes: What the process takes beside the allocator; None: as measured on such a device, or else
            `BARE_CONTEXT_BYTES`. What libraries keep in the allocator is no part of it.
    """
    if not device.startswith("cuda"):
        return
    import torch

    if context_bytes is None:
        from automl.memory.probe import context_bytes as measured

        context_bytes = measured(device)
    total = torch.cuda.get_device_properties(device).total_memory
    share = max(0, budget_bytes - context_bytes) / total
    index = torch.device(device).index  # a device without one is refused here, and only here; None: the current one
    torch.cuda.set_per_process_memory_fraction(min(1.0, share), index)


def limit_for_prediction(budget_bytes: int, context_bytes: int, factor: float) -> int:
    """The limit under which a prediction says what was measured.

    Args:
        budget_bytes: For the whole process.
        context_bytes: What was measured in place of `CONTEXT_BYTES`: the context, and what libraries keep in the
            allocator.
        factor: The measured memory of tensors, as a multiple of the predicted.

    Returns:
        Bytes, for `automl.memory.largest_micro_batch` and to be compared with `automl.memory.estimate`.
    """
    return CONTEXT_BYTES + int((budget_bytes - context_bytes) / factor)
