"""Writes the tables of objects in docs/agents.md from the code: what `--json` prints.

python studies/agents.py
"""

import ast
import dataclasses
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

from automl.cli import json_objects as objects

PAGE = Path(__file__).parents[1] / "docs" / "agents.md"
_BLOCK = re.compile(r"(?<=<!-- objects:begin -->\n).*?(?=<!-- objects:end -->)", re.S)
_WORDS = {"str": "text", "int": "whole number", "float": "number", "bool": "true, false", "None": "null", "Any": "any"}
_RESULTS = dict.fromkeys((*objects.RESULTS.values(), objects.Failed))
_EVENTS = dict.fromkeys(event for events in objects.EVENTS.values() for event in events)


def render_page() -> str:
    """Returns the page with its block of objects made anew."""
    return _BLOCK.sub(lambda _: render_objects(), PAGE.read_text(encoding="utf-8"), count=1)


def render_objects() -> str:
    """Returns the sections of results, of events and of the objects in them."""
    documents, parts = _read_docstrings(), ["\n## Results\n\n"]
    for command, kind in objects.RESULTS.items():
        parts.append(f"### {command}\n\n")
        if command == next(name for name, other in objects.RESULTS.items() if other is kind):
            parts += _render_object(kind, documents)
        else:
            first = next(name for name, other in objects.RESULTS.items() if other is kind)
            parts.append(f"As [{first}](#{first.replace(' ', '-')}).\n\n")
    parts += ["### error\n\n", *_render_object(objects.Failed, documents), "## Events\n\n"]
    parts.append("| command | events before the last one |\n|---|---|\n")
    for command, events in objects.EVENTS.items():
        parts.append(f"| {command} | {', '.join(_link_event(event) for event in events)} |\n")
    parts.append("\n")
    for event in _EVENTS:
        parts += [f"### event {_name_event(event)}\n\n", *_render_object(event, documents)]
    parts.append("## Objects in objects\n\n")
    for kind in vars(objects).values():
        if dataclasses.is_dataclass(kind) and kind not in (*_RESULTS, *_EVENTS, objects.Event, objects.StudyResult):
            parts += [f"### {kind.__name__}\n\n", *_render_object(kind, documents)]
    return "".join(parts)


def _render_object(kind: type, documents: dict[str, dict[str, str]]) -> Iterator[str]:
    """Yields what an object is, and the table of its fields."""
    bases = [one for one in kind.__mro__[1:-1] if one is not objects.Event]
    inherited = {field.name for one in kind.__mro__[1:-1] for field in dataclasses.fields(one)}
    own = [field for field in dataclasses.fields(kind) if field.name not in inherited]
    like = f" It has all fields of {_link_base(bases[0])}{', and:' if own else '.'}" if bases else ""
    yield f"{inspect.getdoc(kind)}{like}\n\n"
    if own:
        yield "| field | value | |\n|---|---|---|\n"
    for field in own:
        text = " ".join(documents[kind.__name__].get(field.name, "").split())
        yield f"| `{field.name}` | {_describe_type(field.type)} | {text} |\n"
    yield "\n" if own else ""


def _link_base(kind: type) -> str:
    name = next((name for name, other in objects.RESULTS.items() if other is kind), kind.__name__)
    return f"[{name}](#{name.lower()})"


def _describe_type(kind: object) -> str:
    """Writes the type of a field in words, with a link to the object that it holds."""
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        return f"[{kind.__name__}](#{kind.__name__.lower()})"
    text = kind.__name__ if isinstance(kind, type) and not hasattr(kind, "__args__") else str(kind)
    text = re.sub(r"automl\.cli\.json_objects\.|typing\.", "", text)
    names = {one.__name__ for one in vars(objects).values() if dataclasses.is_dataclass(one)}
    text = re.sub(r"list\[(.*)\]", r"list of \1", re.sub(r"dict\[str, (.*)\]", r"object: names to \1", text))
    text = re.sub(r"\w+", lambda word: _WORDS.get(word[0], word[0]), text).replace(" | ", " or ")
    return re.sub(r"\w+", lambda word: f"[{word[0]}](#{word[0].lower()})" if word[0] in names else word[0], text)


def _name_event(event: type) -> str:
    return str(event.__dataclass_fields__["event"].default)


def _link_event(event: type) -> str:
    return f"[{_name_event(event)}](#event-{_name_event(event)})"


def _read_docstrings() -> dict[str, dict[str, str]]:
    """Reads what stands below the fields of each class."""
    documents: dict[str, dict[str, str]] = {}
    for node in ast.parse(inspect.getsource(objects)).body:
        if isinstance(node, ast.ClassDef):
            pairs = zip(node.body, node.body[1:], strict=False)
            documents[node.name] = {
                one.target.id: next_one.value.value
                for one, next_one in pairs
                if isinstance(one, ast.AnnAssign)
                and isinstance(one.target, ast.Name)
                and isinstance(next_one, ast.Expr)
                and isinstance(next_one.value, ast.Constant)
            }
    return documents


if __name__ == "__main__":
    PAGE.write_text(render_page(), encoding="utf-8")
