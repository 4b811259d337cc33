"""Search-space YAML → checked nodes. Every mistake is found in one pass and has its line."""

import math
import re
import sys
from fractions import Fraction
from typing import Any

import yaml
from pydantic import BaseModel

from automl.recipe import Recipe
from automl.space.fields import LIFTABLE, STUDY_FIELDS, check_value, find_field_model, list_field_names, list_known
from automl.space.nodes import (
    Branch,
    Branches,
    Choice,
    Constant,
    Float,
    Group,
    Int,
    Node,
    Ordered,
    Pool,
    Scalar,
    iterate_nodes,
)

KINDS = {"float": ("log", "step"), "int": ("log", "step"), "choice": (), "ordered": ()}
"""The kinds of a varying value and the options each takes."""
LARGEST = 20_000
"""Most YAML nodes, aliases counted each time: a file that unfolds to more is an accident or an attack."""
_SCIENTIFIC = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")
_KIND_HELP = "write {float: [low, high]}, {int: [low, high]}, {choice: [a, b]}, {ordered: [1, 2]} or a constant"

Model = type[BaseModel]
Entries = dict[str, tuple[yaml.Node, yaml.Node]]


def read_number(value: object) -> object:
    """Converts `1e-5`, which PyYAML reads as a string, into the number that was meant; leaves all else alone."""
    return float(value) if isinstance(value, str) and _SCIENTIFIC.fullmatch(value) else value


class Parser:
    """Reads one search space; `errors` holds every mistake found, one a line."""

    def __init__(self, text: str, source: str) -> None:
        self.source = source
        self.errors: list[str] = []
        self._lines: dict[str, int] = {}
        self._loader = yaml.SafeLoader(text)
        self._lifted = False
        """Whether what is read is lifted itself: what is below lifts no more."""

    def read_root(self) -> Group:
        """Reads the whole file except `known_good`."""
        node = self._loader.get_single_node()
        if node is None or not self._is_small(node):
            self.errors.append(f"{self.source}: {'the file is empty' if node is None else 'the file is too large'}")
            return Group({})
        self.entries = self._read_pairs(node, "")
        given = {key: value for key, value in self.entries.items() if key != "known_good"}
        children: dict[str, Node] = {"backbone": Pool()}
        children |= self._read_part(given, Recipe, "")[0]
        return Group(self._lifted_last(children))

    def read_known_good(self) -> list[tuple[int, dict[str, Any]]]:
        """Reads the known-good recipes as plain data: the line each begins at, and its mapping."""
        if "known_good" not in self.entries:
            return []
        node = self.entries["known_good"][1]
        if not isinstance(node, yaml.SequenceNode):
            self._add_error(node, "known_good", "must be a list of partial recipes, each with a tier")
            return []
        recipes = []
        for i, item in enumerate(node.value):
            try:
                value = self._loader.construct_object(item, deep=True)
            except yaml.YAMLError as exc:
                self._add_error(item, f"known_good[{i}]", str(exc).replace("\n", " "))
                continue
            if isinstance(value, dict):
                recipes.append((item.start_mark.line + 1, _convert_numbers(value)))
            else:
                self._add_error(item, f"known_good[{i}]", f"must be a partial recipe, got {value!r}")
        return recipes

    def find_line(self, name: str) -> int:
        """Finds the line of a name as Optuna has it, or of the nearest that holds it and stands in the file."""
        while name and name not in self._lines:
            name = name.rpartition(".")[0]
        return self._lines.get(name, 1)

    # --- the tree ---

    def _read_part(
        self, entries: Entries, model: Model, path: str, *, lifts: bool = False
    ) -> tuple[dict[str, Node], dict[str, Node]]:
        """Reads the fields of one class; returns its own nodes (defaults filled in) and the lifted ones."""
        own: dict[str, Node] = {}
        lifted: dict[str, Node] = {}
        for key, (key_node, node) in entries.items():
            where = f"{path}.{key}" if path else key
            self._lines[where] = key_node.start_mark.line + 1
            if key in list_field_names(model):
                own[key] = self._read_field(node, model, key, where)
            elif lifts and key in LIFTABLE:
                self._lifted = True
                lifted[key] = self._read_field(node, Recipe, key, where)
                self._lifted = False
            elif model is Recipe and key in STUDY_FIELDS:
                self._add_error(key_node, where, "is set by the study (flags, timing), not by the space; remove it")
            else:
                known = list_field_names(model) + (["known_good"] if model is Recipe else [])
                self._add_error(key_node, where, f"unknown key; {list_known(key, known)}")
        for key in list_field_names(model):
            if key not in own and key != "backbone":
                own[key] = _make_default(model, key)
        return own, lifted

    def _read_field(self, node: yaml.Node, model: Model, key: str, path: str) -> Node:
        if model is Recipe and key == "backbone":
            return self._read_backbone(node)
        holds = find_field_model(model, key)
        if holds is None:
            return self._read_leaf(node, model, key, path)
        if isinstance(holds, dict):
            return self._read_branches(node, holds, path)
        return Group(self._read_part(self._read_pairs(node, path), holds, path)[0])

    def _read_backbone(self, node: yaml.Node) -> Node:
        if isinstance(node, yaml.MappingNode):
            entries = self._read_pairs(node, "backbone")
            if list(entries) == ["pool"]:
                inner = entries["pool"][1]
                if not isinstance(inner, yaml.MappingNode) or inner.value:
                    self._add_error(inner, "backbone.pool", "takes no options: write {pool: {}}")
                return Pool()
        leaf = self._read_leaf(node, Recipe, "backbone", "backbone")
        if isinstance(leaf, Choice) and len(leaf.options) > 8:
            names = f"{len(leaf.options)} names are too many for a sampler"
            self._add_error(node, "backbone", f"{names}; list 2 to 8, or write {{pool: {{}}}}")
        return leaf

    def _read_branches(self, node: yaml.Node, models: dict[str, Model], path: str) -> Node:
        """Reads a field that is one of several named things: a name, {name: …} or {choice: …}."""
        entries = self._read_pairs(node, path) if isinstance(node, yaml.MappingNode) else {"name": (node, node)}
        chosen: dict[str, Entries] = {}
        if "name" in entries:
            if name := self._read_branch_name(entries.pop("name")[1], models, path):
                chosen[name] = entries
        elif list(entries) == ["choice"]:
            chosen = self._read_choice(entries["choice"][1], models, path)
        else:
            form = f"{{choice: {{branch: {{…}}}}}} of {', '.join(models)}"
            self._add_error(node, path, f"expected {form}; got {_list_keys(entries)}")
        parts = {name: (inner, models[name], f"{path}.{name}") for name, inner in chosen.items()}
        lifts = not self._lifted
        return Branches({name: Branch(*self._read_part(*part, lifts=lifts)) for name, part in parts.items()})

    def _read_choice(self, node: yaml.Node, models: dict[str, Model], path: str) -> dict[str, Entries]:
        """Reads the branches to choose from, a list of names or a mapping, with what each holds."""
        chosen: dict[str, Entries] = {}
        if isinstance(node, yaml.SequenceNode):
            names = (self._read_branch_name(item, models, path) for item in node.value)
            chosen = {name: {} for name in names if name}
        else:
            for name, (key_node, child) in self._read_pairs(node, path).items():
                self._lines[f"{path}.{name}"] = key_node.start_mark.line + 1
                if name in models:
                    chosen[name] = self._read_pairs(child, f"{path}.{name}")
                else:
                    self._add_error(key_node, f"{path}.{name}", f"unknown branch; {list_known(name, list(models))}")
        if not chosen:
            self._add_error(node, path, f"no branch to choose; known: {', '.join(models)}")
        return chosen

    def _read_branch_name(self, node: yaml.Node, models: dict[str, Model], path: str) -> str | None:
        value = self._construct_plain(node)
        if isinstance(value, str) and value in models:
            return value
        hint = _quote_hint(node) or f"unknown branch {value!r}; {list_known(str(value), list(models))}"
        self._add_error(node, path, hint)
        return None

    def _lifted_last(self, children: dict[str, Node]) -> dict[str, Node]:
        """Orders the top level so that what a branch may lift is drawn after it, if still needed."""
        owners: dict[str, str] = {}
        choices = [(name, node) for name, node in iterate_nodes(Group(children)) if isinstance(node, Branches)]
        for name, node in choices:
            for key in sorted(node.lifted):
                here = f"{self.source}: {key}"
                if key in owners:
                    self.errors.append(f"{here}: set by branches of both {owners[key]} and {name}; keep one")
                elif key in self.entries and all(key in branch.lifted for branch in node.branches.values()):
                    self.errors.append(f"{here}: never used, since every branch of {name} sets its own; remove it")
                owners[key] = name
        return dict(sorted(children.items(), key=lambda item: item[0] in owners))

    # --- leaves ---

    def _read_leaf(self, node: yaml.Node, model: Model, key: str, path: str) -> Node:
        if isinstance(node, yaml.ScalarNode):
            return Constant(self._read_value(node, model, key, path))
        if not isinstance(node, yaml.MappingNode):
            return self._reject_node(node, path, f"a list needs its kind; {_KIND_HELP}")
        entries = self._read_pairs(node, path)
        kinds = [kind for kind in entries if kind in KINDS]
        if len(kinds) != 1:
            wrong = next(iter(entries), "")
            hint = "" if kinds or not wrong else f"unknown kind {wrong}; {list_known(wrong, list(KINDS))}; "
            return self._reject_node(node, path, f"{hint}{_KIND_HELP}; got {_list_keys(entries)}")
        kind = kinds[0]
        for option in sorted(entries.keys() - {kind, *KINDS[kind]}):
            known = list_known(option, list(KINDS[kind]))
            self._add_error(entries[option][0], path, f"{kind} has no option {option}; {known}")
        if kind in ("float", "int"):
            return self._read_range(kind, entries, model, key, path)
        return self._read_options(kind, entries[kind][1], model, key, path)

    def _read_options(self, kind: str, node: yaml.Node, model: Model, key: str, path: str) -> Node:
        if not isinstance(node, yaml.SequenceNode) or len(node.value) < 2:
            return self._reject_node(node, path, f"{kind} needs a list of at least two values")
        options = tuple(self._read_value(item, model, key, path) for item in node.value)
        numbers = tuple(x for x in options if isinstance(x, (int, float)) and not isinstance(x, bool))
        if len({(type(x) is bool, x) for x in options}) < len(options):
            self._add_error(node, path, f"the same value twice in {list(options)}")
        if kind == "choice":
            return Choice(options)
        if len(numbers) < len(options) or list(numbers) != sorted(numbers):
            self._add_error(node, path, f"ordered needs numbers, smallest first, got {list(options)}")
        return Ordered(numbers)

    def _read_range(self, kind: str, entries: Entries, model: Model, key: str, path: str) -> Node:
        bounds = entries[kind][1]
        if not isinstance(bounds, yaml.SequenceNode) or len(bounds.value) != 2:
            return self._reject_node(bounds, path, f"{kind} needs [low, high], got {self._construct_plain(bounds)!r}")
        low, high = (self._read_bound(kind, item, model, key, path) for item in bounds.value)
        log = self._construct_plain(entries["log"][1]) if "log" in entries else False
        step = self._parse_number(entries["step"][1], f"{path}.step") if "step" in entries else None
        if low is None or high is None:
            return Constant(0)
        for wrong, message in (
            (low >= high, f"the range is empty or reversed: [{low:g}, {high:g}]; write the smaller bound first"),
            (not isinstance(log, bool), f"log must be true or false, got {log!r}"),
            (log is True and low <= 0, f"a log range must begin above 0, got {low:g}"),
            (log is True and step is not None, "log and step exclude each other; remove one"),
            (step is not None and step <= 0, f"step must be positive, got {step}"),
            (kind == "int" and step is not None and step != int(step), f"step of an int must be whole, got {step}"),
        ):
            if wrong:
                return self._reject_node(bounds, path, message)
        if step is not None and (_make_exact(high) - _make_exact(low)) % _make_exact(step) != 0:
            self._add_error(bounds, path, f"the range [{low:g}, {high:g}] is not a whole number of steps of {step:g}")
        if kind == "int":
            return Int(int(low), int(high), log is True, int(step or 1))
        return Float(float(low), float(high), log is True, step)

    def _read_bound(self, kind: str, node: yaml.Node, model: Model, key: str, path: str) -> float | None:
        number = self._parse_number(node, path)
        if number is None:
            return None
        if kind == "int" and number != int(number):
            self._add_error(node, path, f"the bounds of an int are whole numbers, got {number:g}")
            return None
        if problem := check_value(model, key, int(number) if kind == "int" else float(number)):
            self._add_error(node, path, problem)
            return None
        return number

    def _parse_number(self, node: yaml.Node, path: str) -> float | None:
        value = read_number(self._construct_plain(node))
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < sys.float_info.max:
            self._add_error(node, path, f"must be a finite number, got {value!r}")
            return None
        return value

    def _read_value(self, node: yaml.Node, model: Model, key: str, path: str) -> Scalar:
        value = self._construct_plain(node) if isinstance(node, yaml.ScalarNode) else None
        annotation = model.model_fields[key].annotation
        if annotation in (int, float):
            value = read_number(value)
        if annotation is int and isinstance(value, float) and value.is_integer():
            value = int(value)
        problem = check_value(model, key, value)
        if problem is None and isinstance(value, float) and not math.isfinite(value):
            problem = f"must be finite, got {value!r}"
        if problem:
            hint = _quote_hint(node) if annotation not in (bool, int, float) else None
            self._add_error(node, path, hint or problem)
            return 0
        assert isinstance(value, (bool, int, float, str))  # noqa: S101 - what `check` has just made sure of
        return value

    # --- YAML ---

    def _read_pairs(self, node: yaml.Node, path: str) -> Entries:
        if not isinstance(node, yaml.MappingNode):
            self._add_error(node, path, f"expected a mapping of names, got {self._construct_plain(node)!r}")
            return {}
        own = {id(key_node) for key_node, _ in node.value}
        self._loader.flatten_mapping(node)  # `<<: *common`
        entries: Entries = {}
        for key_node, value_node in node.value:
            key = self._construct_plain(key_node)
            if not isinstance(key, str):
                self._add_error(key_node, path, _quote_hint(key_node) or f"keys are names, got {key!r}")
                continue
            if key in entries and id(entries[key][0]) in own:
                self._add_error(key_node, f"{path}.{key}" if path else key, "given twice; remove one")
            entries[key] = (key_node, value_node)
        node.value = list(entries.values())  # an alias brings us here again
        return entries

    def _construct_plain(self, node: yaml.Node) -> object:
        if not isinstance(node, yaml.ScalarNode):
            return "a list" if isinstance(node, yaml.SequenceNode) else "a mapping"
        try:
            value: object = self._loader.construct_object(node)
        except (yaml.YAMLError, ValueError):  # a tag such as !!python/object, an impossible date
            return node.value
        return value

    def _is_small(self, node: yaml.Node) -> bool:
        """Counts nodes as they unfold; a self-containing alias never ends, and so is too large."""
        waiting, count = [node], 0
        while waiting and count <= LARGEST:
            count += 1
            item = waiting.pop()
            if isinstance(item, yaml.SequenceNode):
                waiting += item.value
            elif isinstance(item, yaml.MappingNode):
                waiting += [part for pair in item.value for part in pair]
        return count <= LARGEST

    def _reject_node(self, node: yaml.Node, path: str, message: str) -> Constant:
        """Adds a mistake; the node that is returned is not used."""
        self._add_error(node, path, message)
        return Constant(0)

    def _add_error(self, node: yaml.Node, path: str, message: str) -> None:
        self.errors.append(f"{self.source} line {node.start_mark.line + 1}: {path or '(top)'}: {message}")


def _make_default(model: Model, key: str) -> Node:
    """Makes the node of a field that the file leaves out."""
    default, holds = model.model_fields[key].default, find_field_model(model, key)
    if holds is None:
        return Constant(default, given=False)
    children = {name: _make_default(type(default), name) for name in list_field_names(type(default))}
    return Branches({default.name: Branch(children)}, given=False) if isinstance(holds, dict) else Group(children)


def _quote_hint(node: yaml.Node) -> str | None:
    """Explains YAML's booleans and null where a name was meant."""
    if node.tag.endswith((":bool", ":null")) and isinstance(node, yaml.ScalarNode):
        true = node.value.lower() in ("yes", "true", "on")
        meant = "null" if node.tag.endswith(":null") else "true" if true else "false"
        return f"YAML reads unquoted {node.value or 'nothing'} as {meant}; quote it: '{node.value}'"
    return None


def _convert_numbers(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _convert_numbers(item) for key, item in value.items()}
    return read_number(value)


def _list_keys(entries: Entries) -> str:
    return f"the keys {', '.join(entries)}" if entries else "no keys"


def _make_exact(number: float) -> Fraction:
    """Makes the decimal number as written: 0.1 is one tenth."""
    return Fraction(repr(number))
