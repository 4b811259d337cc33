"""Copies automl's own functions into an exported script, so that the script does what automl does."""

import ast
import inspect
import re
import sys
from functools import cache
from typing import Any

_MORE = re.compile(r'("""[^\n"]{1,113}[.])\n\n(?:[^"]|"(?!""))*"""')
_HINT = re.compile(r"  # (?:type: ignore|noqa).*")
_WRAPPED = re.compile(r"(def \w+)\(\n([^()]*?),?\s*\):")


class SourceCopier:
    """Copies functions and classes with everything of automl that they use, each thing once.

    A copy has no type annotations, and of a docstring the first line. What it uses of other packages, the script
    imports by the same names.
    """

    def __init__(self, renamed: dict[str, str]) -> None:
        """Gives other names to those in `renamed`, which are then not copied."""
        self._renamed, self._copied = renamed, set[tuple[str, str]]()

    def copy(self, *objects: Any) -> str:
        """Copies functions or classes, after what they use, but for what was copied before."""
        parts = [part for thing in objects for part in self._copy_name(thing.__name__, thing.__module__)]
        constants = "\n".join(part for part in parts if not part.startswith(("def ", "class ", "@")))
        functions = [part for part in parts if part.startswith(("def ", "class ", "@"))]
        text = "\n\n\n".join([constants] * bool(constants) + functions)
        return re.sub(rf"(?<![\w.])(?:{'|'.join(self._renamed)})\b", lambda match: self._renamed[match[0]], text)

    def _copy_name(self, name: str, module: str) -> list[str]:
        """Returns the source of what a module calls by a name, and before it that of what it uses."""
        definitions, imported = _read_module(module)
        if name in self._renamed or (module, name) in self._copied:
            return []
        if name in imported:
            return self._copy_name(*imported[name])
        if name not in definitions:
            return []
        self._copied.add((module, name))
        text = definitions[name]
        used = dict.fromkeys(node.id for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Name))
        return [*(part for other in used for part in self._copy_name(other, module)), text]


@cache
def _read_module(name: str) -> tuple[dict[str, str], dict[str, tuple[str, str]]]:
    """Reads the source of what a module defines, and (name, module) of what it imports of automl, by name."""
    source = inspect.getsource(sys.modules[name])
    definitions, imported = dict[str, str](), dict[str, tuple[str, str]]()
    for node in ast.parse(source).body:
        match node:
            case ast.FunctionDef(name=defined) | ast.ClassDef(name=defined):
                definitions[defined] = _clean_source(source, node)
            case ast.Assign(targets=[ast.Name(id=defined)]) | ast.AnnAssign(target=ast.Name(id=defined)):
                definitions[defined] = _clean_source(source, node)
            case ast.ImportFrom(module=str(origin)) if origin.startswith("automl."):
                imported |= {alias.asname or alias.name: (alias.name, origin) for alias in node.names}
    return definitions, imported


def _clean_source(source: str, node: ast.stmt) -> str:
    """Returns a statement without annotations, casts, hints to linters, and all of a docstring but its first line."""
    lines = source.encode().splitlines(keepends=True)
    starts = [sum(map(len, lines[:number])) for number in range(len(lines) + 1)]  # bytes, as ast counts columns

    def begin_of(part: Any) -> int:
        return int(starts[part.lineno - 1] + part.col_offset)

    def end_of(part: Any) -> int:
        return int(starts[part.end_lineno - 1] + part.end_col_offset)

    data, start, end = b"".join(lines), begin_of((getattr(node, "decorator_list", None) or [node])[0]), end_of(node)
    cuts: list[tuple[int, int]] = []
    for part in ast.walk(node):
        match part:
            case ast.arg(annotation=ast.expr() as annotation):
                cuts.append((begin_of(part) + len(part.arg.encode()), end_of(annotation)))
            case ast.FunctionDef(returns=ast.expr() as annotation):
                cuts.append((data.rindex(b")", 0, begin_of(annotation)) + 1, end_of(annotation)))
            case ast.AnnAssign(value=ast.expr()):
                cuts.append((end_of(part.target), end_of(part.annotation)))
            case ast.ClassDef(decorator_list=[]):  # else the fields of a dataclass
                cuts += [
                    (starts[field.lineno - 1], starts[(field.end_lineno or 0) + 1])
                    for field in part.body
                    if isinstance(field, ast.AnnAssign)
                ]
            case ast.Call(func=ast.Name(id="cast"), args=[_, value]):
                cuts += [(begin_of(part), begin_of(value)), (end_of(value), end_of(part))]
    for first, last in sorted(cuts, reverse=True):
        data = data[:first] + data[last:]
        end -= last - first
    start -= 1 if data[start - 1 : start] == b"@" else 0
    text = _MORE.sub(r'\1"""', _HINT.sub("", data[start:end].decode()))
    return _WRAPPED.sub(lambda match: f"{match[1]}({' '.join(match[2].split())}):", text)
