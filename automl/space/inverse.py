"""From a recipe back to the Optuna parameters that would have drawn it, so that it can be enqueued."""

from collections.abc import Mapping
from typing import Any

from automl.space.fields import STUDY_FIELDS, nearest
from automl.space.nodes import Branches, Choice, Constant, Float, Group, Int, Node, Ordered, Pool


def invert(root: Group, values: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Finds the parameters of a partial recipe.

    Args:
        root: The space.
        values: Nested like a recipe; what it leaves out is left to the sampler.

    Returns:
        The Optuna parameters by name, and every mistake, one a line.
    """
    inverse = _Inverse(values)
    inverse.invert_group(root.children, "", inverse.top)
    return inverse.params, inverse.errors


class _Inverse:
    def __init__(self, values: Mapping[str, Any]) -> None:
        self.top = {key: value for key, value in values.items() if key not in STUDY_FIELDS}
        self.lifted: set[str] = set()
        self.params: dict[str, Any] = {}
        self.errors: list[str] = []

    def invert_group(self, children: Mapping[str, Node], name: str, values: object) -> None:
        if not isinstance(values, Mapping):
            self.errors.append(f"{name}: expected a mapping, got {values!r}")
            return
        for key in values:
            if key not in children and not (not name and key in self.lifted):
                where = f"{name}.{key}" if name else str(key)
                self.errors.append(f"{where}: unknown key; {nearest(str(key), list(children))}")
        for key, child in children.items():
            where = f"{name}.{key}" if name else key
            if not name and key in self.lifted:
                continue
            self.node(child, where, key, values)

    def node(self, node: Node, name: str, key: str, values: Mapping[str, Any]) -> None:
        if isinstance(node, Branches):
            self.invert_branches(node, name, values.get(key, {}))
        elif isinstance(node, Group):
            self.invert_group(node.children, name, values.get(key, {}))
        elif key in values:
            self.invert_leaf(node, name, values[key])

    def invert_branches(self, node: Branches, name: str, value: object) -> None:
        given = {"name": value} if isinstance(value, str) else value
        if not isinstance(given, Mapping):
            self.errors.append(f"{name}: expected the name of a branch or a mapping with a name, got {value!r}")
            return
        fixed = next(iter(node.invert_branches)) if len(node.invert_branches) == 1 else None
        taken = given.get("name", fixed)
        if taken is None:
            lifted = {key for branch in node.invert_branches.values() for key in branch.lifted} & self.top.keys()
            if given or lifted:
                what = ", ".join(sorted(lifted)) or "its parameters"
                self.errors.append(f"{name}: {what} depends on the branch; give its name: {', '.join(node.invert_branches)}")
                self.lifted |= lifted
            return
        if not isinstance(taken, str) or taken not in node.invert_branches:
            self.errors.append(f"{name}: the space has no branch {taken!r}; {nearest(str(taken), list(node.invert_branches))}")
            self.lifted |= {key for branch in node.invert_branches.values() for key in branch.lifted}
            return
        if fixed is None:
            self.params[name] = taken
        branch = node.invert_branches[taken]
        self.invert_group(branch.children, f"{name}.{taken}", {key: item for key, item in given.items() if key != "name"})
        for key, child in branch.lifted.items():
            self.lifted.add(key)
            self.node(child, f"{name}.{taken}.{key}", key, self.top)

    def invert_leaf(self, node: Node, name: str, value: Any) -> None:
        problem = _find_problem(node, value)
        if problem:
            self.errors.append(f"{name}: {problem}")
        elif isinstance(node, Ordered):
            self.params[name] = node.options.index(value)
        elif isinstance(node, Float):
            self.params[name] = float(value)
        elif not isinstance(node, Constant):
            self.params[name] = value


def _find_problem(node: Node, value: Any) -> str | None:
    """Says why a node could not have drawn a value, or None."""
    if isinstance(node, Constant):
        return None if _is_same(node.value, value) else f"the space fixes it at {node.value!r}, got {value!r}"
    if isinstance(node, (Choice, Ordered)):
        fits = any(_is_same(option, value) for option in node.options)
        return None if fits else f"must be one of {', '.join(map(repr, node.options))}, got {value!r}"
    if isinstance(node, Pool):
        rank = isinstance(value, int) and not isinstance(value, bool) and value >= 0
        return None if rank else f"must be a rank in the pool (0: the best), got {value!r}"
    if not isinstance(node, (Float, Int)):
        return f"is not a value, got {value!r}"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return f"must be a number, got {value!r}"
    if isinstance(node, Int) and not isinstance(value, int):
        return f"must be a whole number, got {value!r}"
    if not node.low <= value <= node.high:
        return f"must be within [{node.low:g}, {node.high:g}], got {value!r}"
    steps = (value - node.low) / node.step if node.step else 0
    if abs(steps - round(steps)) > 1e-8:  # 0.1 + 2 · 0.1 is on the grid, whatever floats say
        return f"must be {node.low:g} plus a multiple of {node.step:g}, got {value!r}"
    return None


def _is_same(a: Any, b: Any) -> bool:
    """Equality that tells true from 1."""
    return isinstance(a, bool) == isinstance(b, bool) and bool(a == b)
