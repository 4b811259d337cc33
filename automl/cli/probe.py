"""`automl probe`."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from automl.cli.options import Device, options_from

if TYPE_CHECKING:  # the library is imported late: `automl --help` is instant
    from automl.gpu.compare import Comparison
    from automl.recipe import Recipe


@options_from("budget.gpu_mem")
def probe(
    names: Annotated[
        list[str], typer.Argument(metavar="BACKBONE…", help="timm names, or wildcards on the leaderboard: 'regnet*'.")
    ],
    image_size: Annotated[int | None, typer.Option(help="Pixels per side. Default: the weights' own.")] = None,
    batch_size: Annotated[int, typer.Option(min=2, help="Images per optimizer step.")] = 32,
    classes: Annotated[int, typer.Option(min=2, help="Classes of the task.")] = 2,
    precision: Annotated[
        str | None, typer.Option(help="fp32, bf16, fp16. Default: the fastest on the GPU; fp32 without one.")
    ] = None,
    optimizer: Annotated[str, typer.Option(help="sgd, adam, adamw, nadamw or lion.")] = "adamw",
    device: Device = "auto",
    **settings: Any,
) -> None:
    """Measures training steps on the GPU, and how many images fit at once; predicts both where there is no GPU.

    Each backbone is measured in a process of its own, and the measurements are kept on the disk.

    Example: automl probe resnet50 'convnext_t*' --gpu-mem 16GB --batch-size 64
    """
    from automl.backbones.selection import find_backbones
    from automl.backbones.timm_model import find_native_size
    from automl.cli.json_output import wants_json, write_result
    from automl.cli.json_results import describe_steps
    from automl.cli.output import print_table
    from automl.devices import find_devices
    from automl.gpu.budget import decide_budget
    from automl.recipe import Recipe
    from automl.units import parse_memory

    backbones, devices = find_backbones(names), find_devices(device)[:1]
    budget = decide_budget(parse_memory(settings["gpu_mem"]) if settings else None, devices)
    numerics = {"precision": precision or "fp32"}
    values = {"batch_size": batch_size, "optimizer": {"name": optimizer}, "numerics": numerics}
    sizes = {name: image_size or find_native_size(name) for name in backbones}
    recipes = [
        Recipe.from_mapping(values | {"backbone": name, "image_size": size}, "automl probe")
        for name, size in sizes.items()
    ]
    for line in budget.notes:
        typer.echo(line, err=True)
    rows, left_out = _compare_recipes(recipes, classes, devices[0], budget.bytes, choose=precision is None)
    cells = [_format_row(row) for row in rows]
    header = [title for title in cells[0] if any(row[title] for row in cells)]
    print_table(header, ([row[title] or "–" for title in header] for row in cells), left=("backbone", "numerics"))
    typer.echo("\n".join(_explain_figures(rows)))
    if wants_json():
        write_result(describe_steps(rows, left_out))


def _compare_recipes(
    recipes: "list[Recipe]", classes: int, device: str, budget_bytes: int | None, *, choose: bool
) -> "tuple[list[Comparison], list[str]]":
    """Compares one recipe after the other; returns these and which were left out, as is reported at once, and why.

    Raises:
        RecipeError: If none of them can be trained.
    """
    from automl.cli.output import make_console
    from automl.devices import is_gpu
    from automl.errors import RecipeError
    from automl.gpu.compare import Comparison, compare_memory

    rows, left_out = list[Comparison](), list[str]()
    console = make_console(stderr=True)
    for number, recipe in enumerate(recipes, start=1):
        action = "measuring" if is_gpu(device) else "predicting"
        with console.status(f"{action} {recipe.backbone} ({number} of {len(recipes)})"):
            try:
                rows.append(compare_memory(recipe, classes, device, budget_bytes, choose=choose))
            except RecipeError as exc:
                if number == len(recipes) and not rows:
                    raise
                left_out.append(str(exc))
                typer.echo(f"left out: {exc}", err=True)
    return rows, left_out


def _format_row(row: "Comparison") -> dict[str, str]:
    """Writes a row's texts by title; a figure that is not known is empty."""
    from automl.units import format_bytes

    recipe, step, budget = row.recipe, row.step, row.budget_bytes
    fits = f"{row.micro_batch} × {recipe.batch_size // row.micro_batch}" if row.micro_batch else "does not fit"
    margin, error = row.margin_bytes, row.error_percent
    return {
        "backbone": recipe.backbone,
        "size": str(recipe.image_size),
        "numerics": f"{recipe.numerics.precision} {recipe.numerics.memory_format}",
        f"batch of {recipe.batch_size}": format_bytes(row.whole_bytes),
        "budget": "" if budget is None else format_bytes(budget),
        "at once × times": "" if budget is None else fits,
        "predicted": "" if budget is None else format_bytes(row.predicted_bytes),
        "measured": "" if step is None else format_bytes(row.peak_bytes),
        "error": "" if error is None else f"{error:+.1f}%",
        "reserved": "" if step is None else format_bytes(row.context_bytes + step.reserved),
        "NVML": "" if step is None or step.process is None else format_bytes(step.process),
        "margin": "" if margin is None else format_bytes(margin),
        "images/s": "" if step is None else f"{1 / step.seconds:.0f}",
    }


def _explain_figures(rows: "list[Comparison]") -> list[str]:
    """Writes what the figures in the table are."""
    from automl.units import format_bytes

    batch = rows[0].recipe.batch_size
    lines = [""]
    for why in dict.fromkeys(row.why_predicted for row in rows if row.why_predicted):
        reason = "no GPU here" if "no GPU" in why else why
        lines.append(f"{reason}: predicted only, with {format_bytes(rows[0].context_bytes)} for CUDA itself.")
    lines.append(f"Peaks of one training step on the GPU, CUDA's own memory included; batch of {batch}: undivided.")
    divided = f"At once × times: the most images that fit the budget at once, and how often for a batch of {batch}."
    small = "Where the budget is too small, the peak is that of the fewest images that can be trained on."
    measured = "Measured: live tensors at their peak; reserved: with what PyTorch keeps; NVML: the whole process."
    lines += [divided] * any(row.budget_bytes is not None for row in rows)
    lines += [small] * any(row.micro_batch == 0 for row in rows)
    return lines + [measured] * any(row.step is not None for row in rows)
