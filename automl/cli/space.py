"""`automl space`: look at a search space, check one, print its JSON Schema."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.tree import Tree

if TYPE_CHECKING:
    from automl.space.nodes import Node
    from automl.space.space import Space

space_app = typer.Typer(no_args_is_help=True, help="Search spaces: what may vary between trials.")

File = Annotated[str, typer.Argument(help="A shipped search space's name, or a .yaml file.")]


@space_app.command()
def show(
    file: File = "image",
    full: Annotated[bool, typer.Option("--full", help="Also what stays at the recipe's default.")] = False,
) -> None:
    """Draw a search space as a tree, with its number of parameters.

    Example: automl space show image
    """
    from automl.space.space import load_space

    space = load_space(file)
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = _PIPE_WIDTH  # a tree is cut at the width; a pipe has none
    console.print(_tree(space, full), soft_wrap=True)
    console.print(_summary(space), soft_wrap=True)


@space_app.command()
def validate(file: File = "image") -> None:
    """Check a search space; every mistake is told at once, with its line.

    Example: automl space validate my_space.yaml
    """
    from automl.space.space import load_space

    space = load_space(file)
    typer.echo(f"{space.source}: valid. {_summary(space)}")


@space_app.command()
def schema() -> None:
    """Print the JSON Schema of search spaces, with which editors complete and check them.

    Example: automl space schema > schema.json
    """
    from automl.space.json_schema import json_schema

    typer.echo(json.dumps(json_schema(), indent=1, ensure_ascii=False))


def _summary(space: Space) -> str:
    total, always, good = len(list(space.parameters())), len(_always(space.root)), len(space.known_good)
    enqueued = f"; {good} known-good recipe{'s' * (good != 1)} tried first" if good else ""
    return f"{total} parameter{'s' * (total != 1)}, {always} of them outside branches{enqueued}"


def _always(node: Node) -> list[Node]:
    """Lists the parameters that no branch hides."""
    from automl.space.nodes import Branches, Constant, Group

    if isinstance(node, Group):
        return [found for child in node.children.values() for found in _always(child)]
    if isinstance(node, Branches) and len(node.branches) == 1:
        return [
            found
            for branch in node.branches.values()
            for child in (branch.lifted | branch.children).values()
            for found in _always(child)
        ]
    return [] if isinstance(node, Constant) else [node]


_PIPE_WIDTH = 1000


def _tree(space: Space, full: bool) -> Tree:
    tree = Tree(f"[bold]{escape(space.source)}[/bold]")
    for key, node in space.root.children.items():
        _grow(tree, key, node, full)
    return tree


def _grow(tree: Tree, key: str, node: Node, full: bool) -> None:
    from automl.space.nodes import Branches, Constant, Group

    label = f"[cyan]{escape(key)}[/cyan]"
    if isinstance(node, Group):
        branch = tree.add(label)
        for name, child in node.children.items():
            _grow(branch, name, child, full)
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
                _grow(inner, child_name, child, full)
            for child_name, child in taken.lifted.items():
                _grow(inner, f"{child_name} ↑", child, full)
    elif full or not isinstance(node, Constant) or node.given:
        tree.add(f"{label} {escape(_describe(node))}")


def _describe(node: Node) -> str:
    """Says in a few words what a leaf may be."""
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
