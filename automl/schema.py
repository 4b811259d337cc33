"""What all parts of a recipe have in common."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

Fraction = Annotated[float, Field(ge=0, le=1)]


class Part(BaseModel):
    """A part of a recipe: immutable, and strict about unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def describe_errors(exc: ValidationError, source: str) -> str:
    """Writes pydantic's findings one a line: where, what was given, what would be right."""
    lines = []
    for item in exc.errors():
        where = ".".join(str(part) for part in item["loc"]) or "(whole)"
        message = item["msg"].removeprefix("Value error, ")
        # what a whole part did wrong it says itself: nobody wants to read all of it
        whole = item["type"] == "value_error" and isinstance(item["input"], dict)
        given = "" if whole or item["type"] == "missing" else f" (got {item['input']!r})"
        lines.append(f"{source}: {where}: {message[0].lower()}{message[1:]}{given}")
    return "\n".join(lines)
