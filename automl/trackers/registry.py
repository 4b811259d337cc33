"""The trackers by name, and the packages that they need."""

from collections.abc import Callable, Iterable
from importlib.util import find_spec
from pathlib import Path

from automl.errors import SpecError
from automl.trackers.mlflow_runs import MlflowTracker
from automl.trackers.tensorboard_runs import TensorboardTracker
from automl.trackers.tracker import Tracker
from automl.trackers.wandb_runs import WandbTracker

TRACKERS: dict[str, Callable[[str, Path], Tracker]] = {
    "mlflow": MlflowTracker,
    "wandb": WandbTracker,
    "tensorboard": TensorboardTracker,
}
"""Each is made with the study's name and folder, and needs the package of its own name."""


def check_trackers(names: Iterable[str]) -> None:
    """Raises SpecError if the package of a tracker is missing."""
    for name in names:
        spec = find_spec(name)
        if spec is None or spec.origin is None:  # a folder of that name, such as W&B makes, is no package
            raise SpecError(
                f"--log {name} needs a package that is not installed; try: pip install 'automl-timm[{name}]'"
            )
