"""`automl search` and the worker it starts."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from automl.cli import options as data_flags

if TYPE_CHECKING:
    from automl.study.folder import StudyFolder
    from automl.study.search import SearchResult

_DATA, _POOL, _STUDY = "Data", "Backbones", "Study"


def search(
    data: Annotated[Path | None, typer.Option(help="Folder or label file; without it, the embedded demo.")] = None,
    gpu_mem: Annotated[
        str | None,
        typer.Option(
            help="GPU memory that training may take: 16GB (16·10⁹ bytes), 16GiB (16·2³⁰), "
            "90% of what is free, or auto: all that is free (default)."
        ),
    ] = None,
    trials: Annotated[int | None, typer.Option(help="Trials of the study (default 50).")] = None,
    timeout: Annotated[str | None, typer.Option(help="When the study ends at the latest: 8h30m, 40m, 90s.")] = None,
    spec: Annotated[
        str | None, typer.Option(help="Study spec: a YAML file or a shipped name (default, ffdi, ffdv).")
    ] = None,
    runs: Annotated[Path, typer.Option(help="Folder for what is written: RUNS/STUDY/.")] = Path("runs"),
    name: Annotated[str | None, typer.Option(help="Name of the study (default: the data's).")] = None,
    confirm: Annotated[
        int,
        typer.Option(min=0, help="Best recipes to train again at the end, if there is time left; 0: none."),
    ] = 3,
    space: Annotated[
        str | None, typer.Option(help="Search space: a YAML file, image, video or audio (default: by the data).")
    ] = None,
    metric: Annotated[
        str | None, typer.Option(help="auc, accuracy, balanced_accuracy, f1, log_loss, tpr_at_fpr, eer.")
    ] = None,
    sampler: Annotated[str | None, typer.Option(help="tpe, gp, random, qmc.", rich_help_panel=_STUDY)] = None,
    pruner: Annotated[
        str | None, typer.Option(help="halving, hyperband, median, none.", rich_help_panel=_STUDY)
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Seed of splits, sampler and training.", rich_help_panel=_STUDY)
    ] = None,
    storage: Annotated[
        str | None, typer.Option(help="Optuna storage URL (default: a file in RUNS/STUDY/).", rich_help_panel=_STUDY)
    ] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:1.", rich_help_panel=_STUDY)] = None,
    trial_time: Annotated[
        str | None,
        typer.Option(help="How long one trial may train (default: a quarter of --timeout).", rich_help_panel=_STUDY),
    ] = None,
    weights_dir: Annotated[
        Path | None,
        typer.Option(help="Folder of safetensors files named by timm architecture.", rich_help_panel=_POOL),
    ] = None,
    pretrained: Annotated[str | None, typer.Option(help="auto, require, never.", rich_help_panel=_POOL)] = None,
    backbones: Annotated[
        list[str] | None, typer.Option(help="Only these, by wildcard; may be repeated.", rich_help_panel=_POOL)
    ] = None,
    pool_size: Annotated[
        int | None, typer.Option(help="Backbones in the pool (default 8).", rich_help_panel=_POOL)
    ] = None,
    board: Annotated[
        str | None, typer.Option(help="Leaderboards, with weights: a,r or a=2,sketch.", rich_help_panel=_POOL)
    ] = None,
    licence: Annotated[str | None, typer.Option(help="any, commercial.", rich_help_panel=_POOL)] = None,
    max_params: Annotated[
        float | None, typer.Option(help="Millions of parameters at most.", rich_help_panel=_POOL)
    ] = None,
    format: data_flags.Format = None,
    file_column: data_flags.FileColumn = None,
    label_column: data_flags.LabelColumn = None,
    group_column: data_flags.GroupColumn = None,
    groups: data_flags.Groups = None,
    split_column: data_flags.SplitColumn = None,
    files_folder: data_flags.FilesFolder = None,
    face_model: data_flags.FaceModel = None,
    real_class: data_flags.RealClass = None,
    positive_class: data_flags.PositiveClass = None,
    validation_fraction: data_flags.ValidationFraction = None,
    holdout_fraction: data_flags.HoldoutFraction = None,
    min_class_samples: data_flags.MinClassSamples = None,
    shuffle_labels: Annotated[
        bool, typer.Option("--shuffle-labels", help="A check: nothing should be found.", rich_help_panel=_DATA)
    ] = False,
) -> None:
    """Search for the best backbone and recipe. The same command again continues the study.

    Example: automl search --data ffdi/ --gpu-mem 16GB --trials 50 --timeout 8h30m
    """
    from automl.backbones.ranking import parse_boards
    from automl.cli.progress import SearchProgress
    from automl.spec import StudySpec
    from automl.study.search import search as search_api

    overrides: dict[str, Any] = {
        "name": name,
        "space": space,
        "metric": metric,
        "sampler": sampler,
        "pruner": pruner,
        "seed": seed,
        "storage": storage,
        "device": device,
        "weights_dir": weights_dir,
        "pretrained": pretrained,
        "budget": {"gpu_mem": gpu_mem, "trials": trials, "timeout": timeout, "trial_time": trial_time},
        "pool": {
            "names": backbones,
            "size": pool_size,
            "boards": parse_boards(board) if board else None,
            "licence": licence,
            "max_params": max_params,
        },
        "data": data_flags.data_keys(
            path=data,
            format=format,
            file_column=file_column,
            label_column=label_column,
            group_column=group_column,
            groups=groups,
            split_column=split_column,
            files_folder=files_folder,
            face_model=face_model,
            real_class=real_class,
            positive_class=positive_class,
            validation_fraction=validation_fraction,
            holdout_fraction=holdout_fraction,
            min_class_samples=min_class_samples,
            shuffle_labels=shuffle_labels or None,
        ),
    }
    shipped = "demo" if data is None else "default"
    study_spec = StudySpec.load(spec or shipped, _given(overrides))
    with SearchProgress() as progress:
        result = search_api(spec=study_spec, runs=runs, confirm=confirm, reporter=progress)
    show_result(result)


def worker(
    storage: Annotated[str, typer.Option(help="Optuna storage URL.")],
    study: Annotated[str, typer.Option(help="Name of the study.")],
    runs: Annotated[Path, typer.Option(help="Folder that holds the study's folder.")] = Path("runs"),
    device: Annotated[str, typer.Option(help="cpu, cuda:0.")] = "cpu",
    deadline: Annotated[float | None, typer.Option(help="When to stop, in seconds since 1970.")] = None,
    supervised: Annotated[bool, typer.Option("--supervised", help="Stop when standard input ends.")] = False,
) -> None:
    """Train trials of a study that a search has begun.

    Example: automl worker --storage sqlite:////data/runs/ffdi/study.db --study ffdi --runs /data/runs
    """
    from automl.study.folder import StudyFolder
    from automl.study.storage import Patience
    from automl.study.study import open_study
    from automl.study.worker import Stop, work

    folder = StudyFolder(runs / study)
    stop = Stop(deadline)
    if supervised:
        stop.watch(sys.stdin)
    work(open_study(folder, storage, Patience(should_stop=stop)), folder, device, stop)


def show_result(result: "SearchResult") -> None:
    """Prints the best recipe, the top five, how the others ended, what was confirmed, and what to do next."""
    from rich.console import Console

    from automl.cli.confirm import show_confirmation
    from automl.cli.tables import best_first, ends, top_table
    from automl.study.rows import trial_rows

    console = Console(highlight=False)
    maximize = result.study.direction.name == "MAXIMIZE"
    rows = trial_rows(result.study.get_trials(deepcopy=False), maximize, running="unfinished")
    best = best_first(rows, maximize)
    if best and result.best is not None:
        console.print(
            f"\n[bold]best recipe[/bold]: trial {best[0].number}, validation {result.metric} {best[0].value:.4f}"
        )
        console.print(result.best.to_yaml().rstrip(), markup=False)
        console.print("\n[bold]top five[/bold]")
        console.print(top_table(rows, result.metric, maximize))
    else:
        console.print(
            "\nno trial is complete yet; run the same command again to continue, perhaps with a longer --timeout"
        )
    console.print("\n[bold]all trials[/bold]")
    for line in ends(rows):
        console.print(f"  {line}", markup=False)
    folder = result.folder
    for path in [folder.best] * bool(best) + [folder.trials]:
        console.print(f"written: {path}", markup=False, soft_wrap=True)
    confirmation = result.confirmation
    if confirmation is not None:
        show_confirmation(confirmation, folder)
        if best and best[0].number not in [candidate.trial for candidate in confirmation.candidates]:
            again = f"{folder.command('confirm')} --again"
            console.print(f"trial {best[0].number} is not in it; {again} takes it in", markup=False, soft_wrap=True)
    views = {row.view for row in rows if row.state == "complete"}
    show_next(folder, has_best=bool(best), confirmed=confirmation is not None, views=len(views))


def show_next(folder: "StudyFolder", *, has_best: bool, confirmed: bool, views: int = 1) -> None:
    """Prints the commands that come after a search or a confirmation."""
    from rich.console import Console

    steps = [(folder.command("best"), "this summary again")]
    if has_best and not confirmed:
        steps.append((folder.command("confirm"), "the best recipes with fresh seeds, and one look at the holdout"))
    if views > 1:
        steps.append((folder.command("ensemble"), f"the best recipes of the {views} views, joined"))
    if has_best:
        steps.append((folder.command("train"), f"a model of the {'confirmed' if confirmed else 'best'} recipe"))
        predict = f"automl predict models/{folder.name} --data DIR --out submission.csv"
        steps.append((predict, "predictions of that model"))
    steps.append((folder.command("dashboard"), "every trial in the browser"))
    console, width = Console(highlight=False), max(len(command) for command, _ in steps)
    console.print("\n[bold]next[/bold]")
    for command, what in steps:
        console.print(f"  {command:{width}}  {what}", markup=False, soft_wrap=True)


def _given(values: dict[str, Any]) -> dict[str, Any]:
    """Leaves out what was not given, on every level."""
    inner = {
        key: _given(value) if isinstance(value, dict) and key != "boards" else value for key, value in values.items()
    }
    return {key: value for key, value in inner.items() if value is not None and value != {}}
