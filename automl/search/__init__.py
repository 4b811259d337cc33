"""Searching: pool, study, trials, workers and their supervisor.

The package can be called: `automl.search(data="ffdi/", gpu_mem="16GB", trials=50).best` is
`automl.search.api.search`. (A module may have a class of its own, see "Customizing module attribute access" in
Python's data model; else this package would hide a function of the same name as soon as it was imported.)
"""

import sys
from types import ModuleType
from typing import Any


class _Callable(ModuleType):
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        from automl.search.api import search

        return search(*args, **kwargs)


sys.modules[__name__].__class__ = _Callable
