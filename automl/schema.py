"""The base of recipes and study specs, and how their mistakes are written."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

Fraction = Annotated[float, Field(ge=0, le=1)]


class Part(BaseModel):
    """A part of a recipe or a study spec: immutable, and strict about unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def describe_errors(exc: ValidationError, source: str) -> str:
    """Writes pydantic's errors one a line: where, what was given, what would be right."""
    lines = []
    for item in exc.errors():
        where = ".".join(str(part) for part in item["loc"]) or "(whole)"
        message = item["msg"].removeprefix("Value error, ")
        # the message of a whole part names what is wrong in it: the part itself would be too long to read
        whole = item["type"] == "value_error" and isinstance(item["input"], dict)
        given = "" if whole or item["type"] == "missing" else f" (got {item['input']!r})"
        lines.append(f"{source}: {where}: {message[0].lower()}{message[1:]}{given}")
    return "\n".join(lines)
