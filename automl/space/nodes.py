"""The nodes of a checked search space. A node holds what may be drawn, not how it was written."""

from collections.abc import Iterator
from dataclasses import dataclass, field

Scalar = bool | int | float | str


@dataclass(frozen=True)
class Constant:
    """A value that does not vary; `given` is False for a recipe field the file leaves at its default."""

    value: Scalar
    given: bool = True


@dataclass(frozen=True)
class Float:
    """A real number in [low, high]."""

    low: float
    high: float
    log: bool = False
    step: float | None = None


@dataclass(frozen=True)
class Int:
    """A whole number in [low, high]."""

    low: int
    high: int
    log: bool = False
    step: int = 1


@dataclass(frozen=True)
class Choice:
    """One of several values without an order (Optuna: categorical)."""

    options: tuple[Scalar, ...]


@dataclass(frozen=True)
class Ordered:
    """One of several numbers with an order; the Optuna parameter is the index, so that a sampler knows neighbours."""

    options: tuple[int | float, ...]


@dataclass(frozen=True)
class Group:
    """Named nodes that are all drawn."""

    children: dict[str, "Node"]


@dataclass(frozen=True)
class Branch:
    """What is drawn when a branch is taken; `lifted` goes to the top level of the recipe."""

    children: dict[str, "Node"]
    lifted: dict[str, "Node"] = field(default_factory=dict)


@dataclass(frozen=True)
class Branches:
    """One of several named branches; a single one is fixed and is no parameter."""

    branches: dict[str, Branch]
    given: bool = True

    @property
    def lifted(self) -> set[str]:
        """The top-level fields that some branch sets."""
        return {key for branch in self.branches.values() for key in branch.lifted}


@dataclass(frozen=True)
class Pool:
    """The backbone, as its rank in the study's pool (0: the best)."""


Node = Constant | Float | Int | Choice | Ordered | Group | Branches | Pool


def list_values(node: Node) -> tuple[Scalar, ...]:
    """Lists what a plain node can draw; of a range, its ends."""
    match node:
        case Constant(value):
            return (value,)
        case Float(low, high) | Int(low, high):
            return low, high
        case Choice(options) | Ordered(options):
            return options
    raise ValueError(f"not a plain value: {node}")


def iterate_nodes(node: Node, name: str = "") -> Iterator[tuple[str, Node]]:
    """Yields every node that is not a group, what does not vary included, with its Optuna name."""
    if isinstance(node, Group):
        for key, child in node.children.items():
            yield from iterate_nodes(child, f"{name}.{key}" if name else key)
        return
    yield name, node
    if isinstance(node, Branches):
        for taken, branch in node.branches.items():
            for key, child in (branch.lifted | branch.children).items():
                yield from iterate_nodes(child, f"{name}.{taken}.{key}")
