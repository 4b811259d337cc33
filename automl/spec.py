"""The study spec: data + search space + budgets + sampler + pruner + seed, as YAML and as a checked object.

A setting is one field with its description below it: the flag, its help, the YAML schema and docs/reference.md are made
from them (`automl.cli.options`). `json_schema_extra` may name the flag, the panel of the help, the kind of value
(`metavar`), and the environment variable that stands for the flag (`envvar`). Flags override the file; the resolved
spec is stored with the study, so that the same command continues it.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import BeforeValidator, ConfigDict, Field, JsonValue, PlainSerializer, ValidationError, WithJsonSchema
from pydantic_core import PydanticCustomError

from automl.errors import SpecError
from automl.files import find_line, load_yaml, shipped
from automl.schema import Keys, Part, describe_errors
from automl.units import Share, parse_memory, parse_seconds

Metric = Literal["auc", "accuracy", "balanced_accuracy", "f1", "log_loss", "tpr_at_fpr", "eer"]
Log = Literal["mlflow", "wandb", "tensorboard"]
METRICS: tuple[str, ...] = get_args(Metric)


def _split_at_commas(value: Any) -> Any:
    """Splits words that are joined by commas, as `--device cpu,cuda:0` has them."""
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, list | tuple) or not all(isinstance(word, str) for word in value):
        return value
    return [part.strip() for word in value for part in word.split(",") if part.strip()] or value


def _validate_by(parse: Callable[[Any], Any]) -> BeforeValidator:
    """Makes a validator whose SpecError pydantic lists among the other mistakes, instead of stopping at it."""

    def validate(value: Any) -> Any:
        try:
            return parse(value)
        except SpecError as exc:
            raise PydanticCustomError("quantity", "{reason}", {"reason": str(exc)}) from exc

    return BeforeValidator(validate)


def _write_memory(memory: int | Share | str) -> int | str:
    """Writes a share as `parse_memory` reads it."""
    return str(memory) if isinstance(memory, Share) else memory


_QUANTITY = WithJsonSchema({"type": ["string", "number"]})
Memory = Annotated[int | Share | Literal["auto"], _validate_by(parse_memory), PlainSerializer(_write_memory), _QUANTITY]
Seconds = Annotated[float, _validate_by(parse_seconds), _QUANTITY]

_MAIN: dict[str, JsonValue] = {"panel": "Options"}
_POOL: dict[str, JsonValue] = {"panel": "Backbones"}


class Section(Part):
    """A part of the spec; the texts below its fields are their descriptions."""

    model_config = ConfigDict(use_attribute_docstrings=True)


class DataSpec(Section):
    """Which samples there are, and how they are read and split."""

    path: Path | None = Field(None, json_schema_extra=_MAIN | {"flag": "--data"})
    """Folder or label file, such as photos/ or labels.csv. Default: the embedded demo."""
    format: Literal["auto", "folder", "table", "ffdi", "ffdv", "demo"] = "auto"
    """Layout of the data; auto recognises it. ffdi and ffdv are one layout."""
    file_column: str | None = None
    """Label file: column of file names, such as image_id. Default: recognised."""
    label_column: str | None = None
    """Label file: column of labels, such as is_fake. Default: recognised."""
    group_column: str | None = None
    """Label file: column whose samples stay together, such as person or clip. Default: the column group, if any."""
    split_column: str | None = None
    """Label file: column that names the split, such as subset. Default: recognised."""
    files_folder: Path | None = None
    """Label file: folder of the files it names, such as images/. Default: that of the label file."""
    groups: Path | None = None
    """Table of file names and groups that stay together, such as people.csv. Default: groups.csv beside the data."""
    face_model: Path | None = None
    """YuNet ONNX file to find faces with. Default: the one that pip installed."""
    real_class: str | None = None
    """Class of genuine samples, which self-blending may forge. Default: real, if there is one."""
    positive_class: str | None = None
    """Two classes: the one whose probability is predicted. Default: 1, fake, or the last."""
    validation_fraction: float = Field(0.2, gt=0, lt=0.9)
    """Part of the samples to validate on, where the data names no validation set."""
    holdout_fraction: float = Field(0.1, ge=0, lt=0.9)
    """Part of the samples kept out, to score the winner on once; 0: none."""
    min_class_samples: int = Field(0, ge=0)
    """Leave out classes with fewer samples to train on, or with none in a given validation set."""
    validation_by: str | None = None
    """Label file: column, such as generator, of which whole values are validated on and not trained on."""
    drop_copies: bool = False
    """Take samples out of validation and holdout that are copies or near copies of training samples: decodes all."""
    shuffle_labels: bool = False
    """Permute the labels within each split: a check that a search then finds nothing."""


class LabelledSpec(DataSpec):
    """A data set that a trained model is evaluated on."""

    by: tuple[str, ...] = ()
    """Label file: columns whose values are kept with the samples, such as generator."""


class Budget(Section):
    """What a study may use."""

    gpu_mem: Memory | None = Field(None, json_schema_extra={"metavar": "SIZE|SHARE|auto"})
    """GPU memory that training may take: 16GB (16·10⁹ bytes), 16GiB (16·2³⁰), 90% of what is free, or auto: all that is
    free at the start. Default: auto; without a GPU, no limit."""
    trials: int = Field(50, ge=1)
    """Trials of the study."""
    timeout: Seconds | None = Field(None, json_schema_extra={"metavar": "DURATION"})
    """When the study ends at the latest: 8h30m, 40m, 90s. Default: when its trials are done."""
    trial_time: Seconds | None = Field(None, json_schema_extra={"metavar": "DURATION", "panel": "Study"})
    """How long one trial may train, such as 40m; longer recipes are shortened to it. Default: a quarter of the timeout;
    without a timeout, an hour on a CPU and no limit on a GPU."""


class PoolSpec(Section):
    """Which backbones may enter the pool."""

    names: Annotated[tuple[str, ...], BeforeValidator(_split_at_commas)] = Field(
        ("*",), json_schema_extra={"flag": "--backbones"}
    )
    """Only these backbones, by name or wildcard, such as 'convnext*,vit*'; may be repeated. Default: all."""
    size: int = Field(8, ge=1, json_schema_extra={"flag": "--pool-size"})
    """Backbones in the pool."""
    per_family: int = Field(2, ge=1)
    """Backbones of one family in the pool, at most."""
    boards: dict[str, float] = Field({"a": 1.0, "r": 1.0}, json_schema_extra={"flag": "--board"})
    """Robustness leaderboards to choose by, with their weights, such as a=2,sketch. Default: a,r."""
    licence: Literal["any", "commercial"] = "any"
    """Licence of the weights; commercial: known to allow commercial use."""
    max_params: float | None = Field(None, gt=0)
    """Parameters of a backbone at most, in millions, such as 50. Default: no limit."""
    encoders: Literal["auto", "none", "only"] = "auto"
    """Pretrained encoders that no leaderboard ranks, such as DINOv3 and SigLIP; auto: those that --backbones names, and
    those whose weights are on this machine, behind the ranked ones and at most half of a full pool."""


class StudySpec(Section):
    """Everything a study needs; `automl search --spec FILE` reads it."""

    data: DataSpec = Field(DataSpec(), json_schema_extra={"panel": "Data"})
    """Which samples there are, and how they are read and split."""
    budget: Budget = Field(Budget(), json_schema_extra=_MAIN)
    """What the study may use."""
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")] | None = Field(None, json_schema_extra=_MAIN)
    """Name of the study, its folder under runs/. Default: the data's."""
    space: str = Field("auto", json_schema_extra=_MAIN)
    """Search space: image, encoders, video, audio, demo, or a YAML file; auto: the one for the kind of the data, and
    encoders for images with --encoders only."""
    metric: Literal["auto", Metric, "robust_auc"] = Field("auto", json_schema_extra=_MAIN)
    """What the search makes better; auto: auc for two classes, else accuracy; robust_auc: mean AUC over degraded copies
    of some validation samples."""
    sampler: Literal["tpe", "gp", "random", "qmc"] = "tpe"
    """Optuna sampler that proposes trials."""
    pruner: Literal["halving", "hyperband", "median", "wilcoxon", "none"] = "halving"
    """How trials that fall behind are ended early (wilcoxon: earlier studies only)."""
    seed: int = Field(0, ge=0, lt=2**32)
    """Seed of splits, sampler and training."""
    validation: Literal["auto", "hard"] = "auto"
    """What trials are scored on; auto: the validation set that the data has, else a random share; hard: whole clusters
    of samples that look alike to a pretrained network, unlike those that are trained on."""
    folds: int = Field(1, ge=1, le=20)
    """Trainings of each trial, each validated on another part of the samples; the score is their mean. 1: one split."""
    resplit: bool = False
    """Draw another validation split for each trial, so that the search does not fit one."""
    device: str = "auto"
    """auto, cpu, cuda (every GPU), cuda:1, or several: cuda:0,cuda:1. One that is named twice has two workers."""
    warm_start: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")] | None = None
    """Earlier study, beside this one, whose three best recipes are tried before the known-good ones. Default: none."""
    screening: bool | None = None
    """Order the backbones by a linear probe on their frozen features of some training images, in at most 8 % of the
    time. Default: where the pool has encoders that no leaderboard ranks."""
    storage: str | None = Field(None, json_schema_extra={"envvar": "AUTOML_STORAGE"})
    """Optuna storage URL, such as mysql://host/db. Default: a file in RUNS/STUDY/."""
    artifacts: str | None = None
    """Where checkpoints, predictions, the best recipe and logs are copied for other machines: a folder that all of them
    reach, or a URL of fsspec such as s3://bucket/studies. Default: none; they stay in RUNS/STUDY/."""
    log: Annotated[tuple[Log, ...], BeforeValidator(_split_at_commas)] = ()
    """Log each trial as a run to mlflow, wandb or tensorboard, or to several: mlflow,wandb. Default: none."""
    weights_dir: Path | None = Field(None, json_schema_extra=_POOL)
    """Folder of safetensors files named by timm architecture, or of folders as the hub has them. Default: the hub."""
    pretrained: Literal["auto", "require", "never"] = Field("auto", json_schema_extra=_POOL)
    """Pretrained weights; auto: where they can be had."""
    pool: PoolSpec = Field(PoolSpec(), json_schema_extra=_POOL)
    """Which backbones may enter the pool."""

    @classmethod
    def load(cls, path_or_name: str, overrides: dict[str, Any] | None = None) -> "StudySpec":
        """Reads a study spec from a YAML file, or one that ships with automl by its name (`default`, `ffdi`).

        `overrides`, nested like the spec, win over the file's values.

        Raises:
            SpecError: If the file is missing or has mistakes, all of them listed.
        """
        path = Path(path_or_name)
        if not path.suffix and not path.is_file():
            path = shipped("studies", f"{path_or_name}.yaml")
        if not path.is_file():
            raise SpecError(
                f"no study spec {path_or_name!r}; give a YAML file, or one of: {', '.join(list_shipped_specs())}"
            )
        values = load_yaml(path) or {}
        if not isinstance(values, dict):
            raise SpecError(f"{path}: a study spec is a mapping, got {type(values).__name__}")
        merged = merge(values, overrides or {})
        return cls.from_mapping(merged, str(path), overrides, partial(find_line, path))

    @classmethod
    def from_mapping(
        cls,
        values: dict[str, Any],
        source: str = "study spec",
        flags: dict[str, Any] | None = None,
        find_line: Callable[[Keys], int | None] = lambda _: None,
    ) -> "StudySpec":
        """Validates a nested mapping; of a value that is in `flags`, nested alike, an error names its flag.

        `find_line` finds the line of other values in the source.

        Raises:
            SpecError: With every mistake, one a line.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as exc:
            named = _name_flags(flags or {})
            raise SpecError(describe_errors(exc, source, named, model=cls, find_line=find_line)) from exc

    def to_yaml(self) -> str:
        """Writes the spec as YAML that `load` reads back to an equal spec."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)


def describe_split(spec: StudySpec) -> str:
    """Describes what a study validates on, in a few words; "" for a random share, or what the data has."""
    if spec.data.validation_by is not None:
        return f"by {spec.data.validation_by}"
    return "hard" if spec.validation == "hard" else ""


def describe_validation(spec: StudySpec) -> str:
    """Describes what the score of a trial is of: `validation`, `hard validation, mean of 3 folds`."""
    kind = describe_split(spec)
    text = f"{kind} validation" if kind == "hard" else f"validation {kind}".strip()
    if spec.folds > 1:
        text += f", mean of {spec.folds} folds"
    return f"{text}, another split each trial" if spec.resplit else text


def _name_flags(given: dict[str, Any]) -> dict[tuple[str, ...], str]:
    """Returns the flags of given values, by the path of the value in the spec."""
    flags: dict[tuple[str, ...], str] = {}
    for name, value in given.items():
        field = StudySpec.model_fields.get(name)
        parts = getattr(field.annotation, "model_fields", None) if field else None
        inner = {key: parts.get(key) for key in value} if parts and isinstance(value, dict) else None
        paths = {(name,): field} if inner is None else {(name, key): known for key, known in inner.items()}
        for path, known in paths.items():
            extra = known.json_schema_extra if known else None
            named = extra.get("flag") if isinstance(extra, dict) else None
            flags[path] = str(named or f"--{path[-1].replace('_', '-')}")
    return flags


def list_shipped_specs() -> list[str]:
    """Lists the names of the study specs that come with automl."""
    return sorted(path.stem for path in shipped("studies", "default.yaml").parent.glob("*.yaml"))


def merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Lays `over` onto `base`, mapping by mapping."""
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = merge(merged[key], value) if both else value
    return merged
