"""`automl train`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from automl.cli import options as data_flags

_WEIGHTS = "Weights that are kept"


def train(
    study: Annotated[str | None, typer.Argument(help="Name of the study (default: the latest).")] = None,
    recipe: Annotated[
        Path | None, typer.Option(help="Recipe file (default: the study's confirmed recipe, else its best).")
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(help="Folder or label file; the flags under Data are for it (default: the study's data)."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the model (default: models/STUDY).")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Delete a model or training in it first.")] = False,
    with_holdout: Annotated[
        bool, typer.Option("--with-holdout", help="Train on the holdout too, though nothing is confirmed on it.")
    ] = False,
    weights_dir: Annotated[
        Path | None, typer.Option(help="Folder of safetensors files named by timm architecture.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of the training, in place of the recipe's.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1; under torchrun each process its own.")] = "auto",
    runs: Annotated[Path, typer.Option(help="Folder that holds the studies.")] = Path("runs"),
    ema: Annotated[
        float | None,
        typer.Option(help="Decay of the weights' moving average; 0: none.", rich_help_panel=_WEIGHTS),
    ] = None,
    soup: Annotated[int, typer.Option(help="Mean of the weights at the last K eighths.", rich_help_panel=_WEIGHTS)] = 0,
    ensemble: Annotated[
        int, typer.Option(help="Greedy ensemble of at most K of the confirmed models.", rich_help_panel=_WEIGHTS)
    ] = 0,
    early_stopping: Annotated[
        int,
        typer.Option(
            help="Keep validation out; end after N evaluations without improvement.", rich_help_panel=_WEIGHTS
        ),
    ] = 0,
    format: data_flags.Format = None,
    file_column: data_flags.FileColumn = None,
    label_column: data_flags.LabelColumn = None,
    group_column: data_flags.GroupColumn = None,
    groups: data_flags.Groups = None,
    split_column: data_flags.SplitColumn = None,
    files_folder: data_flags.FilesFolder = None,
    real_class: data_flags.RealClass = None,
    positive_class: data_flags.PositiveClass = None,
    holdout_fraction: data_flags.HoldoutFraction = None,
    min_class_samples: data_flags.MinClassSamples = None,
) -> None:
    """Train the winner on all the data it may learn from, and write a model folder. The same command continues.

    Example: automl train ffdi --out models/ffdi
    """
    from automl.cli.progress import SearchProgress
    from automl.errors import SpecError
    from automl.refit.greedy_ensemble import train_ensemble
    from automl.refit.train import train as train_one

    named = data_flags.data_keys(
        path=data,
        format=format,
        file_column=file_column,
        label_column=label_column,
        group_column=group_column,
        groups=groups,
        split_column=split_column,
        files_folder=files_folder,
        real_class=real_class,
        positive_class=positive_class,
        holdout_fraction=holdout_fraction,
        min_class_samples=min_class_samples,
    )
    wishes: dict[str, Any] = {
        "ema": ema,
        "seed": seed,
        "soup": soup,
        "early_stopping": early_stopping,
        "device": device,
    }
    where: dict[str, Any] = {"out": out, "runs": runs, "weights_dir": weights_dir, "overwrite": overwrite}
    with SearchProgress() as progress:
        if ensemble:
            if recipe is not None or named:
                raise SpecError("--ensemble takes recipes and data from a confirmed study: leave out --recipe, --data")
            train_ensemble(study, size=ensemble, reporter=progress, **wishes, **where)
        else:
            train_one(
                study,
                recipe=recipe,
                data=named or None,
                with_holdout=with_holdout,
                reporter=progress,
                **wishes,
                **where,
            )
