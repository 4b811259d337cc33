"""The nodes of a checked search space. A node says what may be drawn, never how it was written."""

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


@dataclass(frozen=True)
class Pool:
    """The backbone, as its rank in the study's pool (0: the best)."""


Node = Constant | Float | Int | Choice | Ordered | Group | Branches | Pool
