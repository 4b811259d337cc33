"""Restrictions: what is not drawn for a backbone because it cannot do it.

A parameter that a backbone does not have (stochastic depth of a VGG) would be dropped in silence, learned from by the
sampler and reported as best; an image size at which its weights do not load would be a failed trial.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from automl.space.nodes import Branches, Constant, Int, Node, Ordered, list_values

_MOST_SIZES = 17  # of a range of image sizes, how many are tried


@dataclass(frozen=True)
class Restriction:
    """What a backbone can do: image sizes it can be trained at (none: all of the space's), stochastic depth.

    And how much of it can be trained within the memory budget, by the names of the branches of `tune` (none: all).
    """

    image_sizes: tuple[int, ...] = ()
    drop_path: bool = True
    tunes: tuple[str, ...] = ()

    def nearest_size(self, image_size: int) -> int:
        """Finds the nearest image size it can be trained at; of two, the smaller."""
        return min(self.image_sizes or (image_size,), key=lambda size: (abs(size - image_size), size))


def list_sizes(node: Node) -> tuple[int, ...]:
    """Lists the image sizes that a node can draw; of a range of many, some from one end to the other."""
    if isinstance(node, Int):
        sizes = range(node.low, node.high + 1, node.step)
        return tuple(sorted({sizes[round(k * (len(sizes) - 1) / (_MOST_SIZES - 1))] for k in range(_MOST_SIZES)}))
    return tuple(sorted(int(value) for value in list_values(node)))


def restrict_node(key: str, name: str, node: Node, restriction: Restriction) -> tuple[str, Node]:
    """Restricts the node of a recipe's field, and its Optuna name, to what a backbone can do.

    A choice among fewer image sizes has a name of its own, which says which: `image_size.128_192`. So what is learned
    about index 1 of five sizes is not taken for index 1 of two. A choice among fewer branches has one for the same
    reason, and because Optuna wants the same choices each time; what is in a branch keeps its name.
    """
    if key == "tune" and isinstance(node, Branches) and restriction.tunes:
        usable = {taken: branch for taken, branch in node.branches.items() if taken in restriction.tunes}
        if len(usable) in (0, len(node.branches)):
            return name, node
        return f"{name}.{'_'.join(usable)}", Branches(usable)
    if key == "drop_path" and not restriction.drop_path:
        return name, Constant(0.0)
    if key != "image_size" or not restriction.image_sizes:
        return name, node
    wanted = list_sizes(node)
    sizes = tuple(size for size in wanted if size in restriction.image_sizes)
    if sizes == wanted:
        return name, node
    if len(sizes) > 1:
        return f"{name}.{'_'.join(map(str, sizes))}", Ordered(sizes)
    return name, Constant(sizes[0] if sizes else restriction.nearest_size(wanted[len(wanted) // 2]))


def restrict_params(nodes: Mapping[str, Node], params: Mapping[str, Any], restriction: Restriction) -> dict[str, Any]:
    """Turns the Optuna parameters of a recipe into those that draw it, or the nearest to it, for a backbone."""
    restricted: dict[str, Any] = {}
    for name, value in params.items():
        key, node = name.rpartition(".")[2], nodes[name]
        new_name, new_node = restrict_node(key, name, node, restriction)
        if new_node is node:
            restricted[name] = value
        elif isinstance(new_node, Branches):
            if len(new_node.branches) > 1:  # else it is no parameter
                restricted[new_name] = value if value in new_node.branches else list(new_node.branches)[-1]
        elif isinstance(new_node, Ordered):
            size = int(node.options[value]) if isinstance(node, Ordered) else int(value)
            nearest = min(new_node.options, key=lambda option: (abs(option - size), option))
            restricted[new_name] = new_node.options.index(nearest)
    return restricted


def decode_restricted(name: str, value: Any, nodes: Mapping[str, Node]) -> Any:
    """Reads a parameter of fewer image sizes: `image_size.128_192: 1` is 192. Anything else is as it was."""
    owner, _, listed = name.rpartition(".")
    sizes = listed.split("_")
    if owner in nodes and owner.rpartition(".")[2] == "image_size" and all(size.isdigit() for size in sizes):
        return int(sizes[value])
    return value
