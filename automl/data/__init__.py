"""Samples: recognising formats, splitting, decoding once, augmenting."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from automl.data.cache import Cache as Cache
    from automl.data.cache import build_cache as build_cache
    from automl.data.samples import SPLITS as SPLITS
    from automl.data.samples import Dataset as Dataset
    from automl.data.samples import open_dataset as open_dataset

__all__ = ["SPLITS", "Cache", "Dataset", "build_cache", "open_dataset"]

_MODULES = {
    "SPLITS": "samples",
    "Cache": "cache",
    "Dataset": "samples",
    "build_cache": "cache",
    "open_dataset": "samples",
}


def __getattr__(name: str) -> Any:
    """Imports what is asked for: a process that decodes (`automl.data.decoder`) has no use for pandas."""
    if name not in _MODULES:
        raise AttributeError(f"module 'automl.data' has no attribute {name!r}")
    return getattr(importlib.import_module(f"automl.data.{_MODULES[name]}"), name)
