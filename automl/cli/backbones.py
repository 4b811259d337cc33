"""`automl backbones`: lists, filters and sorts timm's robustness leaderboards, in less than a second."""

import sys
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    import pandas as pd

DESCENDING = ("score", "score_listed", "imagenet", "a", "a_clean", "r", "r_clean", "real", "sketch", "v2")
"""Columns whose best value is the highest; the others sort upwards."""

DISPENSABLE = ("gmacs", "imagenet", "family", "licence", "gap_a", "gap_r")
"""Columns that a narrow terminal goes without, the first to go first; a pipe and --csv have them all."""

COLUMN_GAP = 3

DESCRIBED = 3
"""Of so many backbones at most it is said what they can do."""


def backbones(
    names: Annotated[
        list[str] | None, typer.Argument(help="Wildcards as timm writes them, on arch or arch.tag: 'convnext*'.")
    ] = None,
    gpu_mem: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE",
            help="Only what is predicted to train within this memory (16GB is 16·10⁹ bytes, 16GiB is 16·2³⁰).",
        ),
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Images at once, for --gpu-mem.")] = 32,
    precision: Annotated[
        str, typer.Option(help="fp16 or fp32 of a training step, or inference (fp16, no training), for --gpu-mem.")
    ] = "fp16",
    board: Annotated[
        str, typer.Option(help="Boards to score by, with weights if you like: a,r,sketch or a=2,r=1.")
    ] = "a,r",
    at: Annotated[
        int | None,
        typer.Option(
            min=16,
            max=2048,
            metavar="PIXELS",
            help="Score each model for training at this size: its row nearest to it, corrected for the rest.",
        ),
    ] = None,
    max_params: Annotated[float | None, typer.Option(help="Most parameters, in millions.")] = None,
    image_size: Annotated[int | None, typer.Option(help="Side of the evaluated image in pixels, exactly.")] = None,
    family: Annotated[str | None, typer.Option(help="timm's module name: convnext, efficientnet, eva …")] = None,
    licence: Annotated[
        str, typer.Option(help="any, or commercial: only weights whose licence is known to allow commercial use.")
    ] = "any",
    sort: Annotated[
        str, typer.Option(metavar="COLUMN", help="Column of the table, as --csv names it; scores sort downwards.")
    ] = "score",
    limit: Annotated[int, typer.Option(min=0, help="Most rows to print; 0: all.")] = 20,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print every column as CSV.")] = False,
    check: Annotated[
        bool,
        typer.Option(
            help="Examine what matches with the installed timm, about a second each: which image sizes run and load "
            "the weights, drop path, gradient checkpointing; and say what differs from the shipped table."
        ),
    ] = False,
) -> None:
    """Lists backbones by robustness score: standardised top-1 on ImageNet-A and -R, or the boards you choose.

    Of up to three it says what they can do: image sizes, drop path, gradient checkpointing.

    Example: automl backbones 'convnext*' --gpu-mem 16GB --licence commercial --sort params_m
    """
    from automl.backbones.ranking import check_name, parse_boards, rank, rank_at
    from automl.backbones.selection import emptied_by, filters, unmatched
    from automl.backbones.table import load_table
    from automl.errors import PoolError, SpecError
    from automl.memory.estimate import CONTEXT_BYTES
    from automl.memory.table import KINDS, table_bytes
    from automl.units import parse_bytes

    if check and as_csv:
        raise SpecError("--check compares and prints no table: leave out --csv, or --check")
    boards = parse_boards(board)
    table = rank(load_table(), boards) if at is None else rank_at(load_table(), at, boards)
    masks = filters(table, names or ("*",), max_params, image_size, family, licence)
    if gpu_mem is not None:
        check_name("precision", precision, KINDS)
        needed, table["weak"] = table_bytes(table, precision, batch_size)  # type: ignore[arg-type]
        table["gpu_gb"] = ((needed + CONTEXT_BYTES) / 1e9).round(2)
        masks[f"--gpu-mem {gpu_mem}"] = needed + CONTEXT_BYTES <= parse_bytes(gpu_mem)
    check_name("column", sort, table.columns)
    if why := emptied_by(table, masks):
        raise PoolError(why)
    for name in unmatched(table, names or ()):
        typer.echo(f"warning: no backbone of the leaderboard matches {name}", err=True)
    for mask in masks.values():
        table = table[mask[table.index]]
    if check:
        from automl.cli.backbone_checks import check_backbones

        if not check_backbones(sorted(set(table["model"]))):
            raise typer.Exit(1)
        return
    # A stable sort keeps rows of equal value in the order of their score.
    ordered = table.sort_values(sort, ascending=sort not in DESCENDING, kind="stable", na_position="last")
    shown = ordered.head(limit) if limit else ordered
    if as_csv:
        sys.stdout.write(shown.to_csv(index=False, lineterminator="\n"))
    else:
        _print_table(shown, list(boards))
    _print_footer(len(shown), len(ordered), to_stderr=as_csv)
    _print_size_footer(at, boards, to_stderr=as_csv)
    if gpu_mem is not None:
        _print_memory_footer(shown, precision, batch_size, to_stderr=as_csv)
    models = dict(zip(ordered["model"], ordered["family"], strict=True))
    if len(models) <= DESCRIBED:
        from automl.cli.backbone_checks import print_capabilities

        print_capabilities(models, to_stderr=as_csv)


def _print_table(rows: "pd.DataFrame", boards: list[str]) -> None:
    """On a terminal as many columns as it has room for; in a pipe all of them."""
    from rich.console import Console

    from automl.cli.output import print_table

    console = Console()
    cells = {
        name: (title, digits is not None, [_cell(value, digits) for value in rows[name]])
        for name, (title, digits) in _columns(boards, list(rows.columns)).items()
    }
    if console.is_terminal:
        cells = _fitting(cells, console.width)
    columns: dict[str, Literal["left", "right"]] = {
        title: "right" if figure else "left" for title, figure, _ in cells.values()
    }
    print_table(columns, zip(*(texts for _, _, texts in cells.values()), strict=True))


def _fitting(cells: dict[str, tuple[str, bool, list[str]]], width: int) -> dict[str, tuple[str, bool, list[str]]]:
    """Leaves out the least telling columns until the others fit the terminal's width in characters."""
    kept = dict(cells)
    for name in DISPENSABLE:
        if sum(max(map(len, (title, *texts))) + COLUMN_GAP for title, _, texts in kept.values()) <= width:
            break
        kept.pop(name, None)
    return kept


def _columns(boards: list[str], available: list[str]) -> dict[str, tuple[str, int | None]]:
    """Title and decimals (None: text) by column, in the order shown."""
    columns: dict[str, tuple[str, int | None]] = {"model": ("model", None), "image_size": ("size", 0)}
    columns["score"] = ("score", 2)
    if "score_listed" in available:
        columns["score_listed"] = ("listed", 2)
    for board in boards:
        columns[board] = (board, 1)
        if board in ("a", "r"):
            columns[f"gap_{board}"] = (f"gap_{board}", 1)
    columns.setdefault("imagenet", ("imagenet", 1))
    columns |= {"params_m": ("params_m", 1), "gmacs": ("gmacs", 1)}
    if "gpu_gb" in available:
        columns["gpu_gb"] = ("GB", 1)
    return columns | {"family": ("family", None), "licence": ("licence", None)}


def _cell(value: object, digits: int | None) -> str:
    """A figure with its decimals, a text as it is, and a dash for what is unknown."""
    if digits is None:
        return str(value) or "–"
    number = float(str(value))
    return "–" if number != number else f"{number:.{digits}f}"


def _print_footer(shown: int, matching: int, *, to_stderr: bool) -> None:
    """How many rows match, and where the table comes from."""
    from automl.backbones.table import provenance

    said = provenance()
    more = "" if shown == matching else f", {shown:,} shown (--limit 0: all)"
    typer.echo(
        f"\n{matching:,} rows match{more}. Source: {said.source}, {said.date}; licence: {said.licence}.", err=to_stderr
    )


def _print_size_footer(at: int | None, boards: dict[str, float], *, to_stderr: bool) -> None:
    """Which image size the scores are of, and how they came there."""
    from automl.backbones.ranking import rank, size_slope
    from automl.backbones.table import load_table

    if at is None:
        typer.echo("Scores are of the listed image size; --at PIXELS compares at one size.", err=to_stderr)
        return
    slope = size_slope(rank(load_table(), boards))
    typer.echo(
        f"Scores are for training at {at} pixels: each model's nearest row, corrected by {slope:.2f} a doubling, the "
        "median of networks trained at two sizes. All other columns are of the listed size.",
        err=to_stderr,
    )


def _print_memory_footer(rows: "pd.DataFrame", precision: str, batch_size: int, *, to_stderr: bool) -> None:
    """What the memory column means, and which of its figures are known to be weak."""
    what = f"one AdamW step of {batch_size} images in {precision}"
    if precision == "inference":
        what = f"predicting {batch_size} images at once in fp16"
    typer.echo(f"GB: predicted for {what}, CUDA itself included; `automl probe` measures it.", err=to_stderr)
    weak = rows[rows["weak"] != ""]
    if len(weak):
        names = ", ".join(f"{model} ({why})" for model, why in zip(weak["model"], weak["weak"], strict=True))
        typer.echo(f"Weak predictions, perhaps too low: {names}.", err=to_stderr)
