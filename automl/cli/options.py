"""Flags that are made from the fields of the study spec, and the arguments that several commands share."""

import functools
import inspect
import re
from collections.abc import Callable, Collection
from pathlib import Path
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

import typer

if TYPE_CHECKING:  # the spec is imported late: `automl --help` is instant
    from pydantic.fields import FieldInfo

Study = Annotated[str | None, typer.Argument(help="Name of the study. Default: the latest.")]
Runs = Annotated[Path, typer.Option(help="Folder that holds the studies.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:1.")]
WeightsDir = Annotated[
    Path | None,
    typer.Option(help="Pretrained weights of a model that holds what was trained alone. Default: the hub's."),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Delete a model or training in it first.")]


def options_from(*names: str, exclude: Collection[str] = (), default: str = "") -> Callable[[Any], "SettingsCommand"]:
    """Gives a command a flag for each field of the study spec that is named; it receives those that were used.

    Args:
        *names: Sections of the spec (`data`), whose flags arrive as one mapping, and fields (`seed`, `budget.gpu_mem`),
            whose flags arrive by the field's name. None: the whole spec.
        exclude: Fields that get no flag, such as `data.path`.
        default: What a flag that is not used stands for here, in place of the field's own text; not for the flags that
            have a panel of their own.
    """
    return lambda function: SettingsCommand(function, names, exclude, default)


class Setting(NamedTuple):
    """A field of the spec that has a flag."""

    target: tuple[str, ...]
    """Keys in what the command receives."""
    field: "FieldInfo"
    panel: str | None


class SettingsCommand:
    """A command function with the flags of settings, which are made when Typer asks for its signature."""

    def __init__(
        self, function: Callable[..., None], names: Collection[str], exclude: Collection[str], default: str
    ) -> None:
        functools.update_wrapper(self, function)
        self._function, self._names, self._exclude, self._default = function, names, exclude, default

    @functools.cached_property
    def settings(self) -> dict[str, Setting]:
        """The fields that have a flag here, by the flag's name with underscores."""
        return list_settings(self._names, self._exclude)

    @property
    def __signature__(self) -> inspect.Signature:
        """The function's own parameters, and the flags in place of its `**settings`; first those of a whole spec."""
        own = [item for item in inspect.signature(self._function).parameters.values() if item.kind != item.VAR_KEYWORD]
        flags = [self._make_flag(name, setting) for name, setting in self.settings.items()]
        ordered = [*own, *flags] if self._names else [*flags, *own]
        return inspect.Signature([item.replace(kind=item.KEYWORD_ONLY) for item in ordered])

    def __call__(self, **given: Any) -> None:
        """Calls the function with the settings that were used, nested as in the spec."""
        settings: dict[str, Any] = {}
        for name, setting in self.settings.items():
            value = given.pop(name)
            if value is not None and value != []:
                *section, key = setting.target
                (settings.setdefault(section[0], {}) if section else settings)[key] = value
        self._function(**given, **settings)

    def _make_flag(self, name: str, setting: Setting) -> inspect.Parameter:
        default = self._default if setting.panel in (None, "Options") else ""
        text, metavar = describe_field(setting.field, default), _extra(setting.field, "metavar") or None
        variable = _extra(setting.field, "envvar") or None
        option = typer.Option(help=text, metavar=metavar, envvar=variable, rich_help_panel=setting.panel)
        kind: Any = value_type(setting.field.annotation)
        annotation: Any = Annotated[kind | None, option]
        return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def list_settings(names: Collection[str] = (), exclude: Collection[str] = ()) -> dict[str, Setting]:
    """Returns the fields of the study spec by the name of their flag, with underscores; see `options_from`."""
    from automl.spec import StudySpec

    settings: dict[str, Setting] = {}
    for name in names or StudySpec.model_fields:
        section, _, key = name.partition(".")
        field = StudySpec.model_fields[section]
        parts = getattr(field.annotation, "model_fields", {})
        is_section = bool(parts) and not key
        for chosen in parts if is_section else [key or section]:
            if f"{section}.{chosen}" in exclude:
                continue
            leaf = parts.get(chosen, field)
            target = (section, chosen) if is_section else (chosen,)
            panel = _extra(leaf, "panel") or _extra(field, "panel") or "Study" if is_section or not names else None
            flag = _extra(leaf, "flag") or chosen
            settings[flag.removeprefix("--").replace("-", "_")] = Setting(target, leaf, panel)
    return settings


def describe_field(field: "FieldInfo", default: str = "") -> str:
    """Writes what a field means, its choices, and its default or what stands for it."""
    text = " ".join((field.description or "").split())
    if get_origin(field.annotation) is Literal:
        text += f" One of {', '.join(get_args(field.annotation))}."
    if " Default: " in text:
        return re.sub(r"(?<= Default: ).*", f"{default}.", text) if default else text
    return text if field.annotation is bool else f"{text} Default: {field.default}."


def _extra(field: "FieldInfo", key: str) -> str:
    """Returns an entry of the field's `json_schema_extra`, or nothing."""
    extra = field.json_schema_extra
    return str(extra.get(key, "")) if isinstance(extra, dict) else ""


def value_type(annotation: Any) -> Any:
    """Returns the type that Typer reads a flag as; what the spec reads from text stays text."""
    kinds = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
    first, *others = [kind for kind in kinds if kind is not NoneType]
    if get_origin(first) is tuple:
        return list[str]
    return first if first in (bool, int, float, Path) and not others else str
