"""`automl train`."""

from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from automl.cli.options import Overwrite, Runs, Study, options_from

_weights_option = partial(typer.Option, rich_help_panel="Weights that are kept")


@options_from("data", "budget.gpu_mem", "weights_dir", "device", default="the study's")
def train(
    study: Study = None,
    recipe: Annotated[
        Path | None, typer.Option(help="Recipe file. Default: the study's confirmed recipe, else its best.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the model. Default: models/STUDY.")] = None,
    overwrite: Overwrite = False,
    with_holdout: Annotated[
        bool, typer.Option("--with-holdout", help="Train on the holdout too, although the recipe is not confirmed.")
    ] = False,
    merge: Annotated[
        bool, typer.Option("--merge", help="Write all weights where the recipe trains a part; else that part alone.")
    ] = False,
    seed: Annotated[int | None, typer.Option(help="Seed of the training. Default: the recipe's.")] = None,
    runs: Runs = Path("runs"),
    ema: Annotated[
        float | None,
        _weights_option(help="Decay of the moving average of the weights; 0: none. Default: the recipe's."),
    ] = None,
    soup: Annotated[int, _weights_option(help="Mean of the weights at the last K eighths.")] = 0,
    ensemble: Annotated[int, _weights_option(help="Greedy ensemble of at most K of the confirmed models.")] = 0,
    early_stopping: Annotated[
        int, _weights_option(help="Keep validation out; end after N evaluations without improvement.")
    ] = 0,
    **settings: Any,
) -> None:
    """Trains the winner on all the data it may learn from, and writes a model folder. The same command continues.

    Example: automl train ffdi --out models/ffdi
    """
    from automl.cli.json_output import start_events, wants_json, write_result

    start_events("train")  # before the imports, which take seconds
    import automl
    from automl.cli.json_results import describe_model
    from automl.cli.progress import SearchProgress

    with SearchProgress("stopping; the same command goes on where this stops") as progress:
        folder = automl.train(
            study,
            recipe=recipe,
            out=out,
            overwrite=overwrite,
            merge=merge,
            with_holdout=with_holdout,
            seed=seed,
            runs=runs,
            ema=ema,
            soup=soup,
            ensemble=ensemble,
            early_stopping=early_stopping,
            reporter=progress,
            **settings,
        )
    if wants_json():
        write_result(describe_model(folder))
