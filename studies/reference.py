"""Writes docs/reference.md from the code: every command with its flags, and every setting of the study spec.

python studies/reference.py
"""

import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import typer
from typer.models import ArgumentInfo, OptionInfo

from automl.cli.main import app
from automl.cli.options import describe_field, list_settings, value_type

PAGE = Path(__file__).parents[1] / "docs" / "reference.md"

_VALUES = {str: "text", int: "number", float: "number", Path: "path", bool: "", list[str]: "text"}
_HEAD = """# Reference

Every command, and every setting of a study. This page is made from the code by `python studies/reference.py`; the same
texts are in `automl COMMAND --help`.

Sizes: `16GB` is 16·10⁹ bytes, `16GiB` is 16·2³⁰. Durations: `8h30m`, `40m`, `90s`. A mistake that you can mend is one
clear message and exit code 2.

With `--json`, every command prints objects for programs on standard output, and all else on standard error
([agents.md](agents.md)).

"""

_SETTINGS = """## Settings of a study

A setting is a flag of `automl search`, a key of the YAML file that `--spec` reads, and an argument of `automl.search`.
Flags win over the file. `automl data` and `automl train` have the flags of the section `data`.

"""


def render_reference() -> str:
    """Returns the page."""
    parts = [_HEAD, "## Commands\n\n"]
    parts += [part for path, function in _list_commands(app, "automl") for part in _render_command(path, function)]
    return "".join(parts) + _SETTINGS + "\n".join(_render_settings()) + "\n"


def _list_commands(group: typer.Typer, path: str) -> Iterator[tuple[str, Callable[..., Any]]]:
    """Yields the words and the function of every command that is not hidden."""
    for command in group.registered_commands:
        if command.callback is not None and not command.hidden:
            yield f"{path} {command.callback.__name__}", command.callback
    for inner in group.registered_groups:
        if inner.typer_instance is not None:
            yield from _list_commands(inner.typer_instance, f"{path} {inner.name}")


def _render_command(path: str, function: Callable[..., Any]) -> Iterator[str]:
    """Yields a command's heading, help, and table of arguments and flags."""
    text, _, example = (inspect.getdoc(function) or "").partition("Example: ")
    yield f"### {path}\n\n{text.strip()}\n\n```sh\n{example.strip()}\n```\n\n"
    hints = get_type_hints(function, include_extras=True)
    settings = getattr(function, "settings", {})
    below = {name: setting for name, setting in settings.items() if setting.panel}
    rows = []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.name in below or parameter.name == "json":  # every command has it: it stands in the head
            continue
        annotation = parameter.annotation if get_origin(parameter.annotation) is Annotated else hints[parameter.name]
        kind, info = get_args(annotation)
        rows.append(_render_parameter(parameter, kind, info))
    if rows:
        yield "| argument or flag | value | |\n|---|---|---|\n" + "".join(rows) + "\n"
    if below:
        part = "of the section `data` " if all(setting.target[0] == "data" for setting in below.values()) else ""
        yield f"And a flag for each of [the settings](#settings-of-a-study) {part}below.\n\n"


def _render_parameter(parameter: inspect.Parameter, kind: Any, info: ArgumentInfo | OptionInfo) -> str:
    """Returns the row of an argument or a flag."""
    name, value, text = parameter.name.replace("_", "-"), info.metavar or _VALUES[value_type(kind)], info.help or ""
    if isinstance(info, ArgumentInfo):
        title = info.metavar or name.upper()
        value = ""
    else:
        title = info.default if isinstance(info.default, str) else f"--{name}"  # Typer has a name as the default here
    if parameter.default is inspect.Parameter.empty:
        text += " Required."
    elif parameter.default is True:
        title, text = f"--{name}`, `--no-{name}", f"{text} Default: --{name}."
    elif parameter.default not in (None, False) and "Default: " not in text:
        text += f" Default: {parameter.default}."
    return _render_row(f"`{title}`", f"`{value}`" if value.isupper() or "|" in value else value, text)


def _render_settings() -> Iterator[str]:
    """Yields the table of settings."""
    yield "| key | flag | value | |\n|---|---|---|---|"
    for flag, setting in list_settings().items():
        key, field = ".".join(setting.target), setting.field
        extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
        value = str(extra.get("metavar") or _VALUES[value_type(field.annotation)] or "true, false")
        value = f"`{value}`" if value.isupper() or "|" in value else value
        yield _render_row(f"`{key}`", f"`--{flag.replace('_', '-')}`", value, describe_field(field)).rstrip()


def _render_row(*cells: str) -> str:
    escaped = [cell.replace("|", "\\|") for cell in cells]
    return f"| {' | '.join(escaped)} |\n"


if __name__ == "__main__":
    PAGE.write_text(render_reference(), encoding="utf-8")
