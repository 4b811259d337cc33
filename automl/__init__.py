"""Finds the best timm backbone and fine-tuning recipe under a fixed GPU memory and time budget.

import automl

result = automl.search(data="ffdi/", gpu_mem="16GB", trials=50)
result.best            # the best recipe
result.trials          # every trial, a pandas DataFrame

automl.load("models/ffdi").predict("ffdi/testset")    # a pandas DataFrame, one row per image
"""

import importlib
from typing import TYPE_CHECKING, Any

from automl.errors import AutomlError

if TYPE_CHECKING:
    from automl.export.predict import Model as Model
    from automl.export.predict import load as load
    from automl.recipe import Recipe as Recipe
    from automl.search.api import search as search
    from automl.spec import StudySpec as StudySpec

__all__ = ["AutomlError", "Model", "Recipe", "StudySpec", "load", "search"]

__version__ = "0.1.0"


_LAZY = {
    "Model": "automl.export.predict",
    "Recipe": "automl.recipe",
    "StudySpec": "automl.spec",
    "load": "automl.export.predict",
    "search": "automl.search",
}


def __getattr__(name: str) -> Any:
    """Imports what is heavy when it is asked for."""
    if name not in _LAZY:
        raise AttributeError(f"module 'automl' has no attribute {name!r}")
    module = importlib.import_module(_LAZY[name])
    return module if name == "search" else getattr(module, name)
