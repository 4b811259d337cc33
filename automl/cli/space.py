"""`automl space`: shows a search space, checks one, prints its JSON Schema."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.tree import Tree

if TYPE_CHECKING:
    from automl.space.nodes import Node
    from automl.space.space import Space

space = typer.Typer(no_args_is_help=True, help="Search spaces: what may vary between trials.")

_PIPE_WIDTH = 1000
"""Characters: a tree is cut at the width; a pipe has none."""

File = Annotated[str, typer.Argument(help="A shipped search space's name, or a .yaml file.")]


@space.command()
def show(
    file: File = "image",
    full: Annotated[bool, typer.Option("--full", help="Also what stays at the recipe's default.")] = False,
) -> None:
    """Draws a search space as a tree, with its number of parameters.

    Example: automl space show image
    """
    from automl.cli.output import make_console
    from automl.space.space import load_space

    loaded = load_space(file)
    tree = Tree(f"[bold]{escape(loaded.source)}[/bold]")
    for key, node in loaded.root.children.items():
        _add_node(tree, key, node, full)
    console = make_console()
    if not console.is_terminal:
        console.width = _PIPE_WIDTH
    console.print(tree, soft_wrap=True)
    console.print(_count_parameters(loaded), soft_wrap=True)
    for note in loaded.notes:
        console.print(f"warning: {note}", soft_wrap=True, markup=False)
    _write_space(loaded)


@space.command()
def validate(file: File = "image") -> None:
    """Checks a search space; every mistake is listed at once, with its line.

    Example: automl space validate my_space.yaml
    """
    from automl.space.space import load_space

    loaded = load_space(file)
    typer.echo(f"{loaded.source}: valid. {_count_parameters(loaded)}")
    for note in loaded.notes:
        typer.echo(f"warning: {note}")
    _write_space(loaded)


@space.command()
def schema() -> None:
    """Prints the JSON Schema of search spaces, with which editors complete and check them.

    Example: automl space schema > schema.json
    """
    from automl.cli.json_objects import SchemaResult
    from automl.cli.json_output import write_result
    from automl.space.json_schema import format_schema

    text = format_schema()
    typer.echo(text)
    write_result(SchemaResult(schema=json.loads(text)))


def _write_space(space: Space) -> None:
    from automl.cli.json_output import wants_json, write_result
    from automl.cli.json_results import describe_space

    if wants_json():
        write_result(describe_space(space, len(_list_always(space.root))))


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


def _add_node(tree: Tree, key: str, node: Node, full: bool) -> None:
    """Adds a part of a space, with all below it, to a tree."""
    from automl.space.nodes import Branches, Constant, Group

    label = f"[cyan]{escape(key)}[/cyan]"
    if isinstance(node, Group):
        branch = tree.add(label)
        for name, child in node.children.items():
            _add_node(branch, name, child, full)
    elif isinstance(node, Branches):
        if not (node.given or full):
            return
        several = len(node.branches) > 1
        if several:
            tree = tree.add(f"{label} one of")
        for name, taken in node.branches.items():
            inner = tree.add(f"[green]{escape(name)}[/green]" if several else f"{label} = {escape(name)}")
            lifted = {f"{child_name} ↑": child for child_name, child in taken.lifted.items()}
            for child_name, child in (taken.children | lifted).items():
                _add_node(inner, child_name, child, full)
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
        case Choice(options) | Ordered(options):
            return f"{'one of' if isinstance(node, Choice) else 'ordered'} {', '.join(map(str, options))}"
    return "rank in the pool"
