"""`automl ensemble`."""

from pathlib import Path
from typing import Annotated

import typer


def ensemble(
    study: Annotated[str | None, typer.Argument(help="Name of the study (default: the latest).")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the model (default: models/STUDY-ensemble).")] = None,
    final: Annotated[
        bool, typer.Option("--final", help="Train the members once more, on all the data; the weights stay.")
    ] = False,
    timeout: Annotated[
        str | None,
        typer.Option(help="How long it may take, without --final: 1h, 40m; views that do not fit are left out."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Delete a model or training in it first.")] = False,
    weights_dir: Annotated[
        Path | None, typer.Option(help="Folder of safetensors files named by timm architecture, for --final.")
    ] = None,
    runs: Annotated[Path, typer.Option(help="Folder that holds the studies.")] = Path("runs"),
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1.")] = "auto",
) -> None:
    """Join the best recipe of each view into one model, and score it once on the holdout. The same command continues.

    Example: automl ensemble ffdv --out models/ffdv
    """
    from automl.cli.output import print_table
    from automl.cli.progress import SearchProgress
    from automl.refit.view_ensemble import ensemble_views
    from automl.study.study import find_study
    from automl.units import parse_seconds

    folder, limit = find_study(runs, study), parse_seconds(timeout) if timeout else None
    out = out or Path("models") / f"{folder.name}-ensemble"
    with SearchProgress() as progress:
        found = ensemble_views(
            folder,
            out,
            final=final,
            timeout=limit,
            device=device,
            weights_dir=weights_dir,
            overwrite=overwrite,
            reporter=progress,
        )
    if found is None:
        return
    header, *rows = found.rows()
    print_table({name: "left" if name in ("view", "backbone") else "right" for name in header}, rows)
    for line in [*found.lines(), f"next: automl predict {out} --data DIR --out submission.csv"]:
        print(line)
