"""`automl space`: shows a search space, checks one, prints its JSON Schema."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.tree import Tree

    from automl.space.nodes import Node
    from automl.space.space import Space

space = typer.Typer(no_args_is_help=True, help="Search spaces: what may vary between trials.")

File = Annotated[str, typer.Argument(help="A shipped search space's name, or a .yaml file.")]


@space.command()
def show(
    file: File = "image",
    full: Annotated[bool, typer.Option("--full", help="Also what stays at the recipe's default.")] = False,
) -> None:
    """Draws a search space as a tree, with its number of parameters.

    Example: automl space show image
    """
    from rich.console import Console

    from automl.space.space import load_space

    loaded = load_space(file)
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = _PIPE_WIDTH  # a tree is cut at the width; a pipe has none
    console.print(_make_tree(loaded, full), soft_wrap=True)
    console.print(_count_parameters(loaded), soft_wrap=True)


@space.command()
def validate(file: File = "image") -> None:
    """Checks a search space; every mistake is listed at once, with its line.

    Example: automl space validate my_space.yaml
    """
    from automl.space.space import load_space

    loaded = load_space(file)
    typer.echo(f"{loaded.source}: valid. {_count_parameters(loaded)}")


@space.command()
def schema() -> None:
    """Prints the JSON Schema of search spaces, with which editors complete and check them.

    Example: automl space schema > schema.json
    """
    from automl.space.json_schema import json_schema

    typer.echo(json.dumps(json_schema(), indent=1, ensure_ascii=False))


def _count_parameters(space: Space) -> str:
    total, always, good = len(list(space.iterate_parameters())), len(_list_always(space.root)), len(space.known_good)
    enqueued = f"; {good} known-good recipe{'s' * (good != 1)} tried first" if good else ""
    return f"{total} parameter{'s' * (total != 1)}, {always} of them outside branches{enqueued}"


def _list_always(node: Node) -> list[Node]:
    """Lists the parameters that no branch hides."""
    from automl.space.nodes import Branches, Constant, Group

    if isinstance(node, Group):
        return [leaf for child in node.children.values() for leaf in _list_always(child)]
    if isinstance(node, Branches) and len(node.branches) == 1:
        (branch,) = node.branches.values()
        return [leaf for child in (branch.lifted | branch.children).values() for leaf in _list_always(child)]
    return [] if isinstance(node, Constant) else [node]


_PIPE_WIDTH = 1000


def _make_tree(space: Space, full: bool) -> Tree:
    from rich.markup import escape
    from rich.tree import Tree

    tree = Tree(f"[bold]{escape(space.source)}[/bold]")
    for key, node in space.root.children.items():
        _add_node(tree, key, node, full)
    return tree


def _add_node(tree: Tree, key: str, node: Node, full: bool) -> None:
    """Adds a part of a space, with all below it, to a tree."""
    from rich.markup import escape

    from automl.space.nodes import Branches, Constant, Group

    label = f"[cyan]{escape(key)}[/cyan]"
    if isinstance(node, Group):
        branch = tree.add(label)
        for name, child in node.children.items():
            _add_node(branch, name, child, full)
    elif isinstance(node, Branches):
        if not (node.given or full):
            return
        if len(node.branches) > 1:
            tree = tree.add(f"{label} one of")
        for name, taken in node.branches.items():
            inner = tree.add(
                f"[green]{escape(name)}[/green]" if len(node.branches) > 1 else f"{label} = {escape(name)}"
            )
            for child_name, child in taken.children.items():
                _add_node(inner, child_name, child, full)
            for child_name, child in taken.lifted.items():
                _add_node(inner, f"{child_name} ↑", child, full)
    elif full or not isinstance(node, Constant) or node.given:
        tree.add(f"{label} {escape(_describe_leaf(node))}")


def _describe_leaf(node: Node) -> str:
    """Writes in a few words what a leaf may be."""
    from automl.space.nodes import Choice, Constant, Float, Int, Ordered

    match node:
        case Constant(value):
            return f"= {value}"
        case Float(low, high, log, step) | Int(low, high, log, step):
            how = ", log" if log else f", step {step:g}" if step and step != 1 else ""
            return f"{low:g} … {high:g}{how}"
        case Choice(options):
            return "one of " + ", ".join(map(str, options))
        case Ordered(options):
            return "ordered " + ", ".join(map(str, options))
    return "rank in the pool"
