"""From a recipe back to the Optuna parameters that would have drawn it, so that it can be enqueued."""

from collections.abc import Mapping
from typing import Any

from automl.space.fields import STUDY_FIELDS, list_known
from automl.space.nodes import Branches, Choice, Constant, Float, Group, Int, Node, Ordered, Pool


def invert(root: Group, values: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Finds the Optuna parameters, by name, that draw a partial recipe, and every mistake in it, one a line.

    `values` is nested like a recipe; what it leaves out is left to the sampler.
    """
    inverse = _Inverse(values)
    inverse.invert_group(root.children, "", inverse.top)
    return inverse.params, inverse.errors


class _Inverse:
    """Collects the parameters, and every mistake."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.top = {key: value for key, value in values.items() if key not in STUDY_FIELDS}
        self.lifted: set[str] = set()
        self.params: dict[str, Any] = {}
        self.errors: list[str] = []

    def invert_group(self, children: Mapping[str, Node], name: str, values: object) -> None:
        if not isinstance(values, Mapping):
            self.errors.append(f"{name}: expected a mapping, got {values!r}")
            return
        names = {key: f"{name}.{key}" if name else str(key) for key in (*values, *children)}
        for key in values:
            if key not in children:
                self.errors.append(f"{names[key]}: unknown key; {list_known(str(key), list(children))}")
        for key, child in children.items():
            if name or key not in self.lifted:  # a choice of branches may have lifted it just before
                self.invert_node(child, names[key], key, values)

    def invert_node(self, node: Node, name: str, key: str, values: Mapping[str, Any]) -> None:
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
        names = list(node.branches)
        taken = given.get("name", names[0] if len(names) == 1 else None)
        branch = node.branches.get(taken) if isinstance(taken, str) else None
        if branch is None:
            self.lifted |= node.lifted
            lifted = sorted(node.lifted & self.top.keys())
            if taken is not None:
                self.errors.append(f"{name}: the space has no branch {taken!r}; {list_known(str(taken), names)}")
            elif given or lifted:
                what = ", ".join(lifted) or "its parameters"
                self.errors.append(f"{name}: {what} depends on the branch; give its name: {', '.join(names)}")
            return
        if len(names) > 1:
            self.params[name] = taken
        inner = {key: item for key, item in given.items() if key != "name"}
        self.invert_group(branch.children, f"{name}.{taken}", inner)
        for key, child in branch.lifted.items():
            self.lifted.add(key)
            self.invert_node(child, f"{name}.{taken}.{key}", key, self.top)

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
    """Explains why a node could not have drawn a value; None if it could."""
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
    if abs(steps - round(steps)) > 1e-8:  # 0.1 + 2 · 0.1 is on the grid in spite of rounding
        return f"must be {node.low:g} plus a multiple of {node.step:g}, got {value!r}"
    return None


def _is_same(a: Any, b: Any) -> bool:
    """Returns whether two values are equal; true and 1 are not."""
    return isinstance(a, bool) == isinstance(b, bool) and bool(a == b)
