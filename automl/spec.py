"""The study spec: data + search space + budgets + sampler + pruner + seed, as YAML and as a checked object.

Flags override the file, and the resolved spec is stored with the study, so that the same command continues it.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, ValidationError
from pydantic_core import PydanticCustomError

from automl.errors import SpecError
from automl.files import load_yaml, shipped
from automl.schema import describe_errors
from automl.units import Share, parse_memory, parse_seconds

METRICS = ("auc", "accuracy", "balanced_accuracy", "f1", "log_loss", "tpr_at_fpr", "eer")


def _listed(parse: Callable[[Any], Any]) -> BeforeValidator:
    """A validator whose SpecError pydantic lists among the other mistakes, instead of stopping at it."""

    def validate(value: Any) -> Any:
        try:
            return parse(value)
        except SpecError as exc:
            raise PydanticCustomError("quantity", "{reason}", {"reason": str(exc)}) from exc

    return BeforeValidator(validate)


def _written(memory: int | Share | str) -> int | str:
    """A share as `parse_memory` reads it."""
    return str(memory) if isinstance(memory, Share) else memory


Memory = Annotated[int | Share | Literal["auto"], _listed(parse_memory), PlainSerializer(_written)]
Seconds = Annotated[float, _listed(parse_seconds)]


class Section(BaseModel):
    """A part of a spec: immutable, and strict about unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class DataSpec(Section):
    """Which samples, and how they are read and split."""

    path: Path | None = None
    """A folder or a label file; None: the embedded demo."""
    format: Literal["auto", "folder", "table", "ffdi", "ffdv", "demo"] = "auto"
    """`ffdi` and `ffdv` are one layout, of images and of videos."""
    file_column: str | None = None
    """Column of the label file that names the file; None: recognised."""
    label_column: str | None = None
    group_column: str | None = None
    """Column whose samples stay together (same person, clip, photo); None: recognised by the name `group`."""
    split_column: str | None = None
    files_folder: Path | None = None
    """Where the files lie that a label file names; None: below the label file's own folder."""
    groups: Path | None = None
    """A table of file names and groups, beside the labels; None: `groups.csv` in the data's folder, if it is there."""
    face_model: Path | None = None
    """YuNet ONNX file that views find faces with; None: the one that comes with the `media` extra."""
    real_class: str | None = None
    """Class of genuine images, which self-blending may forge; None: the class named `real`, if any."""
    positive_class: str | None = None
    """For two classes: the one whose probability is predicted; None: `1`, `fake`, or the last."""
    validation_fraction: Annotated[float, Field(gt=0, lt=0.9)] = 0.2
    holdout_fraction: Annotated[float, Field(ge=0, lt=0.9)] = 0.1
    min_class_samples: Annotated[int, Field(ge=0)] = 0
    """Classes with fewer samples to train on, or with none in a validation set that is given, are left out."""
    shuffle_labels: bool = False
    """Permutes the labels within each split: a check that a search finds nothing where there is nothing."""


class Budget(Section):
    """What a study may use."""

    gpu_mem: Memory | None = None
    """GPU memory that training may take: bytes, a share of what is free, or `auto`, all that is free when the study
    begins. None: `auto` on a GPU, and no limit without one."""
    trials: Annotated[int, Field(ge=1)] = 50
    timeout: Seconds | None = None
    """Seconds after which the study ends; None: when its trials are done."""
    trial_time: Seconds | None = None
    """Seconds one trial may train; longer recipes are shortened to it. None: a quarter of the timeout; without a
    timeout, an hour on a CPU and no limit on a GPU."""


class PoolSpec(Section):
    """Which backbones may enter the pool."""

    names: tuple[str, ...] = ("*",)
    """Wildcards as timm writes them."""
    size: Annotated[int, Field(ge=1)] = 8
    per_family: Annotated[int, Field(ge=1)] = 2
    boards: dict[str, float] = {"a": 1.0, "r": 1.0}
    """Leaderboards and their weights in the robustness score."""
    licence: Literal["any", "commercial"] = "any"
    max_params: Annotated[float, Field(gt=0)] | None = None
    """Millions of parameters."""


class StudySpec(Section):
    """Everything a study needs; `automl search --spec FILE` reads it."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")] | None = None
    """The folder under `runs/`; None: the data's name."""
    data: DataSpec = DataSpec()
    space: str = "auto"
    """A search space shipped with automl (`image`, `video`, `audio`, `demo`), or a YAML file; `auto`: the shipped one
    for the kind of the data's files."""
    budget: Budget = Budget()
    pool: PoolSpec = PoolSpec()
    metric: Literal["auto", "auc", "accuracy", "balanced_accuracy", "f1", "log_loss", "tpr_at_fpr", "eer"] = "auto"
    sampler: Literal["tpe", "gp", "random", "qmc"] = "tpe"
    pruner: Literal["halving", "hyperband", "median", "wilcoxon", "none"] = "halving"
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    weights_dir: Path | None = None
    pretrained: Literal["auto", "require", "never"] = "auto"
    device: str = "auto"
    """`auto`, `cpu`, `cuda` (every GPU) or `cuda:1`."""
    storage: str | None = None
    """An Optuna storage URL; None: one SQLite file under `runs/`."""

    @classmethod
    def load(cls, path_or_name: str, overrides: dict[str, Any] | None = None) -> "StudySpec":
        """Reads a study spec from a file, or one that ships with automl by its name (`default`, `ffdi`).

        Args:
            path_or_name: A YAML file or a shipped name.
            overrides: Values that win over the file's; nested like the spec.

        Raises:
            SpecError: If the file is missing or has mistakes, all of them listed.
        """
        path = Path(path_or_name)
        if not path.suffix and not path.is_file():
            path = shipped("studies", f"{path_or_name}.yaml")
        if not path.is_file():
            raise SpecError(
                f"no study spec {path_or_name!r}; give a YAML file, or one of: {', '.join(shipped_names())}"
            )
        values = load_yaml(path) or {}
        if not isinstance(values, dict):
            raise SpecError(f"{path}: a study spec is a mapping, got {type(values).__name__}")
        return cls.from_mapping(merge(values, overrides or {}), str(path))

    @classmethod
    def from_mapping(cls, values: dict[str, Any], source: str = "study spec") -> "StudySpec":
        """Validates a nested mapping.

        Raises:
            SpecError: With every mistake, one a line.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as exc:
            raise SpecError(describe_errors(exc, source)) from exc

    def to_yaml(self) -> str:
        """Writes the spec as YAML that `load` reads back to an equal spec."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)


def shipped_names() -> list[str]:
    """The study specs that come with automl, by name."""
    return sorted(path.stem for path in shipped("studies", "default.yaml").parent.glob("*.yaml"))


def merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Lays `over` onto `base`, mapping by mapping."""
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = merge(merged[key], value) if both else value
    return merged
