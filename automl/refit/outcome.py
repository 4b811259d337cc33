"""What is known of a training when it is over: its labels, its data, its memory, its versions."""

import platform
import resource
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from automl import __version__
from automl.data.dataset import SPLITS, Dataset
from automl.data.loader import ImageData
from automl.errors import RecipeError
from automl.memory.estimate import estimate
from automl.models.folder import Labels
from automl.recipe import Recipe
from automl.refit.plan import file_column


def labels_of(samples: Dataset, data: ImageData) -> Labels:
    """What the outputs mean; the prior is of the readable training samples."""
    labels = data.labels("train")
    prior = tuple(float((labels == k).mean()) for k in range(data.classes))
    return Labels(samples.classes, samples.positive, prior, file_column(samples), samples.real_class)


def described(dataset: Dataset) -> dict[str, Any]:
    """The data set for the model card: its own splits, samples by split and class, the number of its groups."""
    table = dataset.samples
    counts = {
        split: {name: int(((table["split"] == split) & (table["label"] == k)).sum()) for k, name in names}
        for names in [list(enumerate(dataset.classes))]
        for split in SPLITS
        if (table["split"] == split).any()
    }
    groups = int(table["group"].nunique()) if dataset.grouped else None
    return {"name": dataset.name, "format": dataset.format, "counts": counts, "groups": groups}


def memory(recipe: Recipe, classes: int, device: str) -> dict[str, Any]:
    """The memory predicted for a CUDA device, and the most that was measured so far on this one, in bytes.

    Measured is what PyTorch's allocator gave out on CUDA, what the process had resident on a CPU.
    """
    if device == "cpu":
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        measured = peak if sys.platform == "darwin" else peak * 1024  # kilobytes, but bytes on macOS (getrusage(2))
        name = "CPU: resident memory of the process"
    else:
        measured = torch.cuda.max_memory_allocated(device)
        name = f"{torch.cuda.get_device_name(device)}: PyTorch's allocator"
    try:
        predicted = estimate(recipe, classes)
    except RecipeError:
        predicted = None
    return {"predicted_bytes": predicted, "measured_peak_bytes": measured, "device": name}


def versions() -> dict[str, str]:
    """Of what the model was made with."""
    found = {"automl": __version__, "python": platform.python_version()}
    for name in ("torch", "timm"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # a build without metadata
            found[name] = "unknown"
    return found
