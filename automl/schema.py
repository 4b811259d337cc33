"""The base of recipes and study specs, and how their mistakes are written."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from automl.errors import suggest_name

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

Fraction = Annotated[float, Field(ge=0, le=1)]


class Part(BaseModel):
    """A part of a recipe or a study spec: immutable, and strict about unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def describe_errors(exc: ValidationError, source: str, flags: Mapping[tuple[str, ...], str] | None = None) -> str:
    """Writes pydantic's errors one a line: where, what was given, what would be right.

    `flags` are the values that came by a flag, by their path: of these, the flag is named in place of the source.
    """
    lines = []
    for item in exc.errors():
        path = tuple(str(part) for part in item["loc"])
        flag = next((flag for known, flag in (flags or {}).items() if path[: len(known)] == known), None)
        where = flag or f"{source}: {'.'.join(path) or '(whole)'}"
        message = _describe_mistake(item)
        # the message of a whole part names what is wrong in it: the part itself would be too long to read
        whole = item["type"] == "value_error" and isinstance(item["input"], dict)
        complete = item["type"] in _COMPLETE or repr(item["input"]) in message
        lines.append(f"{where}: {message}" + ("" if whole or complete else f" (got {item['input']!r})"))
    return "\n".join(lines)


_COMPLETE = ("missing", "union_tag_invalid")
"""Kinds of mistakes whose message holds all there is to say."""


def _describe_mistake(item: "ErrorDetails") -> str:
    """Writes one of pydantic's messages in words of ours, where its own are about pydantic."""
    context: dict[str, Any] = item.get("ctx") or {}
    match item["type"]:
        case "extra_forbidden":
            return "there is no such name"
        case "missing":
            return "is missing"
        case "union_tag_not_found":
            return "has no name"
        case "union_tag_invalid":
            known = [name.strip("'") for name in context["expected_tags"].split(", ")]
            return f"there is no {context['tag']!r}; known: {', '.join(known)}{suggest_name(context['tag'], known)}"
        case "string_pattern_mismatch":
            return f"must be letters, digits and . _ - that begin with a letter or digit ({context['pattern']})"
    message = item["msg"].removeprefix("Value error, ")
    return f"{message[0].lower()}{message[1:]}"
