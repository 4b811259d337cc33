"""Finds the best timm backbone and fine-tuning recipe under a fixed GPU memory and time budget.

import automl

result = automl.search(data="ffdi/", gpu_mem="16GB", trials=50)
result.best            # the best recipe
result.trials          # every trial, a pandas DataFrame
"""

from typing import TYPE_CHECKING, Any

from automl.errors import AutomlError
from automl.recipe import Recipe
from automl.spec import StudySpec

if TYPE_CHECKING:
    from automl.search.api import search as search

__all__ = ["AutomlError", "Recipe", "StudySpec", "search"]

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Imports what is heavy when it is asked for."""
    if name == "search":
        import importlib

        return importlib.import_module("automl.search")
    raise AttributeError(f"module 'automl' has no attribute {name!r}")
