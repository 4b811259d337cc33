"""Finds the best timm backbone and fine-tuning recipe under a fixed GPU memory and time budget.

import automl

result = automl.search(data="ffdi/", gpu_mem="16GB", trials=50)
result.best            # the best recipe
result.trials          # every trial, a pandas DataFrame

automl.train("ffdi", out="models/ffdi")
automl.load("models/ffdi").predict("ffdi/testset")    # a pandas DataFrame, one row per image
"""

import importlib
from typing import TYPE_CHECKING, Any

from automl.errors import AutomlError

if TYPE_CHECKING:
    from automl.evaluation.evaluate import evaluate as evaluate
    from automl.exporters.export import export as export
    from automl.gallery.preview import preview as preview
    from automl.models.predict import Model as Model
    from automl.models.predict import load as load
    from automl.recipe import Recipe as Recipe
    from automl.refit.fused_ensemble import ensemble as ensemble
    from automl.refit.train import train as train
    from automl.reports.compare import compare as compare
    from automl.reports.report import report as report
    from automl.spec import StudySpec as StudySpec
    from automl.study.confirm import confirm as confirm
    from automl.study.search import search as search

_MODULES = {
    "Model": "automl.models.predict",
    "Recipe": "automl.recipe",
    "StudySpec": "automl.spec",
    "compare": "automl.reports.compare",
    "confirm": "automl.study.confirm",
    "ensemble": "automl.refit.fused_ensemble",
    "evaluate": "automl.evaluation.evaluate",
    "export": "automl.exporters.export",
    "load": "automl.models.predict",
    "preview": "automl.gallery.preview",
    "report": "automl.reports.report",
    "search": "automl.study.search",
    "train": "automl.refit.train",
}

__all__ = [
    "AutomlError",
    "Model",
    "Recipe",
    "StudySpec",
    "compare",
    "confirm",
    "ensemble",
    "evaluate",
    "export",
    "load",
    "preview",
    "report",
    "search",
    "train",
]

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Imports what is heavy when it is asked for."""
    if name not in _MODULES:
        raise AttributeError(f"module 'automl' has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)
