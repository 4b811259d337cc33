"""The base of recipes and study specs, and how their mistakes are written."""

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo

from automl.errors import suggest_name

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

Fraction = Annotated[float, Field(ge=0, le=1)]
Keys = tuple[str, ...]
"""Where a value stands: the names that lead to it."""


class Part(BaseModel):
    """A part of a recipe or a study spec: immutable, and strict about unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def describe_errors(
    exc: ValidationError,
    source: str,
    flags: Mapping[Keys, str] | None = None,
    *,
    model: type[BaseModel] | None = None,
    find_line: Callable[[Keys], int | None] = lambda _: None,
) -> str:
    """Writes pydantic's errors one a line: `recipe.yaml line 7: tune.rank: 0 is too small; give 1 to 256`.

    Args:
        exc: The errors.
        source: What was read, such as a file.
        flags: The flags of values that came by one, by their path: of these, the flag is named in place of the source.
        model: What was validated; None: paths are pydantic's own, and of limits only the missed one is known.
        find_line: Finds the line of a value in the source; None: it has none.
    """
    lines = []
    for item in exc.errors():
        path, field, names = _find_field(model, item["loc"])
        keys = tuple(map(str, path))
        flag = next((flag for known, flag in (flags or {}).items() if keys[: len(known)] == known), None)
        line = find_line(keys) if keys else None
        shown = _drop_numbers(path, item["input"]) if line else keys
        where = [flag] if flag else [f"{source} line {line}" if line else source, ".".join(shown)]
        lines.append(": ".join(filter(None, [*where, describe_mistake(item, field, names)])))
    return "\n".join(lines)


def _drop_numbers(path: tuple[str | int, ...], given: object) -> list[str]:
    """Drops the numbers of mappings in lists: the line says which it is, and who counts from 1 is misled by them."""
    last = len(path) - (not isinstance(given, dict))  # where a plain value's number may stand
    return [str(part) for k, part in enumerate(path) if isinstance(part, str) or k >= last]


def describe_mistake(item: "ErrorDetails", field: FieldInfo | None = None, names: Collection[str] = ()) -> str:
    """Writes one of pydantic's errors in words of ours: what was given, and what would be right.

    `field` is the field that it is about, which knows all of its limits; `names` are those that may stand there.
    """
    context: dict[str, Any] = item.get("ctx") or {}
    given, kind = item["input"], item["type"]
    if kind in _TOO:
        limits = {type(limit).__name__.lower(): limit for limit in field.metadata} if field else {}
        known = {name: getattr(limit, name) for name, limit in limits.items() if name in _LIMITS}
        return f"{given} is {_TOO[kind]}; give {_describe_range(known or context)}"
    if kind in _MUST:
        return f"{_MUST[kind]} (got {given!r})"
    match kind:
        case "extra_forbidden":
            return f"there is no such name{suggest_name(str(item['loc'][-1]), names)}"
        case "missing":
            return "is missing"
        case "union_tag_not_found":
            return "has no name"
        case "union_tag_invalid" | "literal_error":
            tags = context.get("expected_tags") or context["expected"].replace(" or ", ", ")
            known_tags = [tag.strip("'") for tag in tags.split(", ")]
            name = context.get("tag", given)
            return f"there is no {name!r}; known: {', '.join(known_tags)}{suggest_name(str(name), known_tags)}"
        case "string_pattern_mismatch":
            known_pattern = (
                f"must be letters, digits and . _ - that begin with a letter or digit ({context['pattern']})"
            )
            return f"{known_pattern} (got {given!r})"
    message = item["msg"].removeprefix("Value error, ")
    message = f"{message[0].lower()}{message[1:]}"
    # the message of a whole part names what is wrong in it: the part itself would be too long to read
    complete = (kind == "value_error" and isinstance(given, dict)) or repr(given) in message
    return message if complete else f"{message} (got {given!r})"


_TOO = {
    "greater_than": "too small",
    "greater_than_equal": "too small",
    "less_than": "too large",
    "less_than_equal": "too large",
}
_LIMITS = ("ge", "gt", "le", "lt")
_WHOLE, _NUMBER, _MAPPING = "must be a whole number", "must be a number", "must be a mapping of names to values"
_MUST = {
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float", "int_parsing_size"), _WHOLE),
    **dict.fromkeys(("float_type", "float_parsing"), _NUMBER),
    "finite_number": "must be a finite number",
    **dict.fromkeys(("bool_type", "bool_parsing"), "must be true or false"),
    "string_type": "must be text",
    "string_too_short": "must not be empty",
    "path_type": "must be a path",
    **dict.fromkeys(("tuple_type", "list_type"), "must be a list"),
    **dict.fromkeys(("model_type", "model_attributes_type", "dict_type"), _MAPPING),
}
"""What would be right, by the kind of the mistake."""


def _describe_range(limits: Mapping[str, Any]) -> str:
    """Writes the values within limits, by pydantic's names for them: `1 to 256`, `more than 0 and at most 10`."""
    texts = {
        name: f"{limits[name]:g}" if isinstance(limits[name], float) else str(limits[name])
        for name in _LIMITS
        if name in limits
    }
    if texts.keys() == {"ge", "le"}:
        return f"{texts['ge']} to {texts['le']}"
    words = {"ge": "{} or more", "gt": "more than {}", "le": "at most {}", "lt": "less than {}"}
    return " and ".join(words[name].format(text) for name, text in texts.items())


def _find_field(
    model: type[BaseModel] | None, path: tuple[str | int, ...]
) -> tuple[tuple[str | int, ...], FieldInfo | None, list[str]]:
    """Finds the field at a path of pydantic's, and the names that may stand there.

    The first that is returned is the path without the names of branches, which no file has there.
    """
    keys, field, names = list[str | int](), None, list[str]()
    models = [model] if model else []
    for part in path:
        if isinstance(part, int):  # an item of a list, of one of the classes that the list may hold
            keys.append(part)
            continue
        owner = next((known for known in models if part in known.model_fields), None)
        if owner is None and any(_name_branch(known) == part for known in models):
            models = [known for known in models if _name_branch(known) == part]
            continue
        keys.append(part)
        names = [name for known in models for name in known.model_fields]
        field = owner.model_fields[part] if owner else None
        models = list(_list_models(field.annotation)) if field else []
    return tuple(keys), field, names


def _name_branch(model: type[BaseModel]) -> object:
    """Returns the name of a branch; None for a class that is none."""
    name = model.model_fields.get("operation") or model.model_fields.get("name")
    return name.default if name else None


def _list_models(annotation: Any) -> Iterator[type[BaseModel]]:
    """Yields the classes of a field."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _list_models(inner)
