"""`automl backbones`: lists, filters and sorts timm's leaderboards, or its encoders, in less than a second."""

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from automl.cli.options import options_from

if TYPE_CHECKING:
    import pandas as pd

_DESCENDING = ("score", "score_listed", "imagenet", "a", "a_clean", "r", "r_clean", "real", "sketch", "v2")
"""Columns whose best value is the highest; the others sort upwards."""

_DISPENSABLE = ("gmacs", "imagenet", "family", "patch", "licence", "gap_a", "gap_r", "pretraining")
"""Columns that a narrow terminal goes without, the first to go first; a pipe and --csv have them all."""

_TEXTS = ("model", "pretraining", "family", "licence")
_TITLES = {"image_size": "size", "score_listed": "listed", "gpu_gb": "GB"}
_DIGITS = {"image_size": 0, "patch": 0, "score": 2, "score_listed": 2}
"""Decimals; of other figures one."""

_COLUMN_GAP = 3
_ORIGIN = "{source}, {date}; licence: {licence}"
_MOST_DESCRIBED = 3
"""Of so many backbones at most it is printed what they can do."""


@options_from("pool.boards", "pool.licence", "pool.max_params")
def backbones(
    names: Annotated[
        list[str] | None, typer.Argument(help="Wildcards as timm writes them, on arch or arch.tag: 'convnext*'.")
    ] = None,
    gpu_mem: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="Only what is predicted to train within this memory: 16GB, 16GiB."),
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Images at once, for --gpu-mem.")] = 32,
    precision: Annotated[
        str,
        typer.Option(
            help="fp16 or fp32 of a training step, or inference (fp16, no training), for --gpu-mem; of encoders also "
            "frozen (the head alone learns) and norms (it and the normalisation layers), both in fp16."
        ),
    ] = "fp16",
    encoders: Annotated[
        bool,
        typer.Option(
            "--encoders", help="List encoders, such as DINOv3 and SigLIP, which no leaderboard ranks, in its place."
        ),
    ] = False,
    at: Annotated[
        int | None, typer.Option(min=16, max=2048, metavar="PIXELS", help="Score models as if trained at this size.")
    ] = None,
    image_size: Annotated[int | None, typer.Option(help="Side of the evaluated image in pixels, exactly.")] = None,
    family: Annotated[str | None, typer.Option(help="timm's module name: convnext, efficientnet, eva …")] = None,
    sort: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN",
            help="Column of the table, as --csv names it; scores sort downwards. Default: score; of encoders model.",
        ),
    ] = None,
    limit: Annotated[int, typer.Option(min=0, help="Most rows to print; 0: all.")] = 20,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print every column as CSV.")] = False,
    check: Annotated[
        bool, typer.Option(help="Examine what matches with the installed timm; print what differs from the table.")
    ] = False,
    **settings: Any,
) -> None:
    """Lists backbones by robustness score: standardised top-1 on ImageNet-A and -R, or the boards you choose.

    Of up to three it prints what they can do: image sizes, drop path, gradient checkpointing; --check examines that
    with the installed timm, about a second each.

    Example: automl backbones 'convnext*' --gpu-mem 16GB --licence commercial --sort params_m
    """
    from automl.backbones.selection import build_filters, explain_no_rows, find_unmatched
    from automl.cli.backbone_checks import check_backbones, describe_backbones
    from automl.cli.json_objects import BackbonesResult
    from automl.cli.json_output import wants_json, write_result
    from automl.errors import PoolError, SpecError, check_name
    from automl.units import format_count

    if check and as_csv:
        raise SpecError("--check compares and prints no table: leave out --csv, or --check")
    listing = _list_encoders(at, settings) if encoders else _list_ranked(at, settings)
    table = listing.table
    max_params, licence = settings.get("max_params"), settings.get("licence", "any")
    masks = build_filters(table, names or ("*",), max_params, image_size, family, licence)
    if gpu_mem is None and precision != "fp16":
        raise SpecError(f"--precision {precision} is for --gpu-mem: give it too, such as --gpu-mem 16GB")
    if gpu_mem is not None:
        masks |= _predict_memory(table, gpu_mem, precision, batch_size, encoders)
    sort = sort or ("model" if encoders else "score")
    check_name("column", sort, table.columns)
    if why := explain_no_rows(table, masks):
        raise PoolError(why + _point_to_others(find_unmatched(table, names or ()), encoders))
    for name in find_unmatched(table, names or ()):
        kind, hint = "encoder" if encoders else "backbone of the leaderboard", _point_to_others([name], encoders)
        typer.echo(f"warning: no {kind} matches {name}{hint}", err=True)
    for mask in masks.values():
        table = table[mask[table.index]]
    source = f"{listing.origin}."
    if check:
        examined = sorted(set(table["model"]))
        differences = check_backbones(examined)
        write_result(
            BackbonesResult(
                rows=[], matches=len(table), source=source, notes=[], checked=len(examined), differences=differences
            )
        )
        if differences:
            raise typer.Exit(1)
        return
    # A stable sort keeps rows of equal value in the order of their score.
    ordered = table.sort_values(sort, ascending=sort not in _DESCENDING, kind="stable", na_position="last")
    shown = ordered.head(limit) if limit else ordered
    if as_csv:
        sys.stdout.write(shown.to_csv(index=False, lineterminator="\n"))
    else:
        _print_table(shown, listing.boards)
    more = "" if len(shown) == len(ordered) else f", {len(shown):,} shown (--limit 0: all)"
    match = f"{format_count(len(ordered), 'row')} match{'es' if len(ordered) == 1 else ''}"
    notes = [listing.explanation]
    if gpu_mem is not None:
        notes += _explain_memory(shown, precision, batch_size)
    if wants_json():
        write_result(
            BackbonesResult(
                rows=[dict(zip(shown.columns, row, strict=True)) for row in shown.itertuples(index=False)],
                matches=len(ordered),
                source=source,
                notes=notes,
                checked=None,
                differences=[],
            )
        )
    lines = [f"\n{match}{more}. Source: {source}", *notes]
    models = dict(zip(ordered["model"], ordered["family"], strict=True))
    if len(models) <= _MOST_DESCRIBED:
        lines += describe_backbones(models)
    typer.echo("\n".join(lines), err=as_csv)


class _Listing(NamedTuple):
    """What is listed, before any filter."""

    table: "pd.DataFrame"
    boards: list[str]
    """Whose columns are shown."""
    origin: str
    """Source, date and licence of the table."""
    explanation: str
    """What its order means."""


def _list_ranked(at: int | None, settings: Mapping[str, Any]) -> _Listing:
    """Lists the leaderboard, best first."""
    from automl.backbones.ranking import parse_boards, rank_at_size, rank_table
    from automl.backbones.table import load_table, read_provenance

    boards = parse_boards(settings.get("boards", "a,r"))
    table = rank_table(load_table(), boards) if at is None else rank_at_size(load_table(), at, boards)
    return _Listing(table, list(boards), _ORIGIN.format_map(read_provenance()), _explain_scores(at, boards))


def _list_encoders(at: int | None, settings: Mapping[str, Any]) -> _Listing:
    """Lists the encoders by name; refuses the flags that speak of scores, which they do not have.

    Raises:
        SpecError: If such a flag is given.
    """
    from automl.backbones.encoders import COLUMNS, NO_SCORE, SHIPPED, load_encoders
    from automl.backbones.table import read_provenance
    from automl.errors import SpecError

    for flag, given in (("--at", at), ("--board", settings.get("boards"))):
        if given is not None:
            raise SpecError(f"{flag} compares scores, and no board ranks encoders: leave out {flag}, or --encoders")
    table = load_encoders()[list(COLUMNS)]
    return _Listing(table, [], _ORIGIN.format_map(read_provenance(SHIPPED)), f"{NO_SCORE[0].upper()}{NO_SCORE[1:]}.")


def _predict_memory(
    table: "pd.DataFrame", gpu_mem: str, precision: str, batch_size: int, encoders: bool
) -> "dict[str, pd.Series[bool]]":
    """Adds the columns `gpu_gb` and `weak` to a table; returns the filter by memory.

    Raises:
        SpecError: If the kind of step is unknown, or the table has no figures of it.
    """
    from automl.errors import SpecError, check_name
    from automl.memory.estimate import CONTEXT_BYTES
    from automl.memory.table import ENCODER_KINDS, KINDS, predict_table
    from automl.units import parse_bytes

    if not encoders and precision in ENCODER_KINDS and precision not in KINDS:
        raise SpecError(
            f"--precision {precision} is known of encoders alone: add --encoders, or choose {', '.join(KINDS)}"
        )
    check_name("precision", precision, ENCODER_KINDS if encoders else KINDS)
    needed, weak = predict_table(table, precision, batch_size)  # type: ignore[arg-type]
    table["gpu_gb"], table["weak"] = ((needed + CONTEXT_BYTES) / 1e9).round(2), weak
    return {f"--gpu-mem {gpu_mem}": needed + CONTEXT_BYTES <= parse_bytes(gpu_mem)}


def _point_to_others(names: list[str], encoders: bool) -> str:
    """Writes how many backbones of the other table names match, and the flag that lists them; "" where none does."""
    from automl.backbones.encoders import load_encoders
    from automl.backbones.selection import select_rows
    from automl.backbones.table import load_table

    count = select_rows(load_table() if encoders else load_encoders(), names)["model"].nunique() if names else 0
    if not count:
        return ""
    if encoders:
        return f"; {count} of the leaderboard match: leave out --encoders"
    return f"; {count} {'encoders match' if count > 1 else 'encoder matches'}: add --encoders"


def _print_table(rows: "pd.DataFrame", boards: list[str]) -> None:
    """Prints as many columns as a terminal has room for, the most useful ones; in a pipe all of them."""
    from automl.cli.output import make_console, print_table

    columns = {
        _TITLES.get(name, name): [_format_cell(value, _DIGITS.get(name, 1)) for value in rows[name]]
        for name in _order_columns(boards)
        if name in rows
    }
    console = make_console()
    for title in _DISPENSABLE if console.is_terminal else ():
        if sum(max(map(len, (title, *texts))) + _COLUMN_GAP for title, texts in columns.items()) <= console.width:
            break
        columns.pop(title, None)
    print_table(columns, zip(*columns.values(), strict=True), left=_TEXTS)


def _order_columns(boards: list[str]) -> list[str]:
    """Lists the columns in the order shown, a board that is also a column of every table only once."""
    of_boards = [name for board in boards for name in (board, f"gap_{board}")]
    first = ["model", "image_size", "score", "score_listed"]
    of_encoders = [] if boards else ["patch", "pretraining"]
    last = ["params_m", "gmacs", "gpu_gb", *of_encoders, "family", "licence"]
    return list(dict.fromkeys([*first, *of_boards, "imagenet", *last]))


def _format_cell(value: object, digits: int) -> str:
    """Writes a figure with its decimals, a text as it is, and a dash for what is unknown."""
    if isinstance(value, str):
        return value or "–"
    number = float(str(value))
    return "–" if number != number else f"{number:.{digits}f}"


def _explain_scores(at: int | None, boards: dict[str, float]) -> str:
    """Writes for which image size the scores are, and how they were corrected to it."""
    from automl.backbones.ranking import measure_size_slope, rank_table
    from automl.backbones.table import load_table

    if at is None:
        return "Scores are of the listed image size; --at PIXELS compares at one size."
    slope = measure_size_slope(rank_table(load_table(), boards))
    return (
        f"Scores are for training at {at} pixels: each model's nearest row, corrected by {slope:.2f} a doubling, the "
        "median of networks trained at two sizes. All other columns are of the listed size."
    )


def _explain_memory(rows: "pd.DataFrame", precision: str, batch_size: int) -> list[str]:
    """Writes what the memory column means, and which of its figures are known to be weak."""
    tasks = {
        "inference": f"predicting {batch_size} images at once in fp16",
        "frozen": f"one AdamW step of the head alone, of {batch_size} images in fp16",
        "norms": f"one AdamW step of the head and the normalisation layers, of {batch_size} images in fp16",
    }
    task = tasks.get(precision, f"one AdamW step of {batch_size} images in {precision}")
    lines = [f"GB: predicted for {task}, CUDA itself included; `automl probe` measures it."]
    weak = [f"{model} ({why})" for model, why in zip(rows["model"], rows["weak"], strict=True) if why]
    return lines + ([f"Weak predictions, perhaps too low: {', '.join(weak)}."] if weak else [])
