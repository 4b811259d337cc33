"""Final trainings: from the winner of a study, or any recipe, to a model folder."""

import platform
import sys
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import distributed, nn

from automl.backbones.input import InputSpec
from automl.backbones.weights import count_trained, digest_file, locate_file, make_model
from automl.data.cache import build_cache
from automl.data.dataset import SPLITS, Dataset
from automl.data.layouts.text_table import TABLES, open_table
from automl.data.loader import ImageData
from automl.devices import find_devices, is_gpu
from automl.errors import DataError, MemoryBudgetError, RecipeError, SpecError, first_line
from automl.memory.estimate import estimate_training
from automl.models.card import find_weights_licence, render_model_card
from automl.models.folder import (
    BaseWeights,
    Labels,
    ModelFolder,
    make_validation_scores,
    read_model,
    write_ensemble,
    write_model,
    write_validation_scores,
)
from automl.models.trained_on import write_trained_on
from automl.recipe import Recipe
from automl.refit.output_folder import OutputFolder
from automl.refit.plan import TrainOptions, TrainPlan, choose_members, describe_score, make_plan, plan_for_study
from automl.refit.weights import BestWeights, LastWeights, MeanWeights
from automl.reporter import STOPS_AT_CHECKPOINT, ConsoleReporter, Reporter, SilentReporter, catch_interrupts
from automl.study.folder import StudyFolder, find_study
from automl.study.replicate import resolve_budget, stay_within
from automl.study.spaces import describe_view
from automl.training.distributed import current_process_group, join_process_group
from automl.training.evaluation import split_probabilities
from automl.training.fit import fit, total_steps
from automl.training.intervals import metric_interval
from automl.training.metrics import all_metrics
from automl.training.schedule import EIGHTHS
from automl.training.types import Diverged, Evaluation, Parked, Snapshot, expected_input
from automl.units import format_figure, format_seconds

_EVALUATED = "validation"


def train(
    study: str | None = None,
    *,
    recipe: str | Path | None = None,
    data: str | Path | dict[str, Any] | None = None,
    out: str | Path | None = None,
    ensemble: int = 0,
    ema: float | None = None,
    soup: int = 0,
    early_stopping: int = 0,
    seed: int | None = None,
    with_holdout: bool = False,
    gpu_mem: str | int | None = None,
    weights_dir: str | Path | None = None,
    device: str = "auto",
    overwrite: bool = False,
    merge: bool = False,
    runs: str | Path = "runs",
    reporter: Reporter | None = None,
) -> Path:
    """Trains the winner of a study, or any recipe, and writes a model folder; the same call again continues.

    It trains on train + validation, and on the holdout as well where `automl.confirm` has scored the recipe on it;
    else the holdout is kept out, and scored once with the model that was trained. Under torchrun, each process calls
    it, and the first one writes.

        automl.train("photos", out="models/photos")
        automl.train("photos", ensemble=3)                                         # of the confirmed models
        automl.train(recipe="runs/photos/best.yaml", data="more/", gpu_mem="8GB")

    Args:
        study: Name of the study; None: that of the recipe's folder, or the latest.
        recipe: A recipe file; None: the study's confirmed recipe, else its best.
        data: A folder or label file, or a mapping with the keys of `DataSpec`; None: the study's data.
        out: The folder to write; None: `models/` and the name of the study or the data (of an ensemble with
            `-ensemble`).
        ensemble: Different models at most in a greedy ensemble of those that confirmed the study, each trained again
            with its own seed; 0: one model.
        ema: Decay of the weights' moving average in place of the recipe's; 0: none.
        soup: Mean of the weights at so many of the last eighths of the run; 0: the last weights.
        early_stopping: Evaluations on validation without improvement that end the run; 0: it has the recipe's length.
        seed: In place of the recipe's.
        with_holdout: Train on the holdout although the recipe has not been confirmed.
        gpu_mem: GPU memory that training may take: `16GB`, `90%` of what is free, or `auto`; None: the study's budget,
            and no limit without a study.
        weights_dir: A folder of safetensors files to look for weights in.
        device: `auto`, `cpu`, `cuda` or `cuda:1`; under torchrun each process has its own.
        overwrite: Delete a model or an unfinished training of automl in `out` first.
        merge: Write all weights where the recipe trains a part of them (its `tune`); else that part alone, which needs
            the pretrained weights beside it.
        runs: The folder that holds the studies.
        reporter: Receives what is done; None: lines are printed.

    Returns:
        The folder of the model; `automl.load` opens it.

    Raises:
        AutomlError: If study, recipe, data, weights, memory or folder do not fit; the message says what to change.
        KeyboardInterrupt: If it was asked to stop; what was done is kept, and the same call continues.
    """
    options = TrainOptions(ema, seed, soup, early_stopping, with_holdout, gpu_mem, device, overwrite, merge)
    where = Path(weights_dir) if weights_dir is not None else None
    folder, reporter = Path(out) if out is not None else None, reporter or ConsoleReporter()
    if ensemble:
        if recipe is not None or data is not None:
            raise SpecError("--ensemble takes recipes and data from a confirmed study: leave out --recipe, --data")
        return _train_ensemble(find_study(Path(runs), study), ensemble, folder, where, options, reporter)
    given = data if isinstance(data, dict) or data is None else {"path": data}
    plan = make_plan(study, Path(recipe) if recipe is not None else None, given, Path(runs), where)
    return train_plan(plan, options, folder or Path("models") / plan.name, reporter).path


def train_plan(plan: TrainPlan, options: TrainOptions, out: Path, reporter: Reporter) -> ModelFolder:
    """Trains a plan into a folder, within its memory budget; see `train`."""
    plan = plan.apply_options(options)
    devices = find_devices(options.device)
    with join_process_group(devices[0]) as device:
        processes = current_process_group()
        if not processes.is_first:
            reporter = SilentReporter()
        for what in plan.unsupported:
            reporter.print_line(f"note: left out of the recipe: {what}")
        for what in plan.recipe.list_unused():
            reporter.print_line(f"warning: {what}")
        # The processes split a batch alike: the first one decides, by the GPU that has the least.
        shared = devices if processes.size > 1 else (device,)
        budget = [resolve_budget(options.gpu_mem, shared, plan.memory_bytes, reporter)]
        if processes.size > 1:
            distributed.broadcast_object_list(budget)
        ready = plan.fit_to_device(device, budget[0])
        if ready.recipe.numerics.precision != plan.recipe.numerics.precision:
            reporter.print_line(f"note: the recipe's numerics were for another kind of device; on {device} it is fp32")
        if described := ready.recipe.describe_trained():  # a mistake in it leaves no folder behind
            trained, parameters = count_trained(ready.recipe, len(plan.dataset.classes))
            share = f"{format_figure(trained / 1e6)} of {format_figure(parameters / 1e6)} million parameters"
            reporter.print_line(f"trains {share} ({described})")
        output, finished = OutputFolder(out), False
        if processes.is_first:
            kept = {"soup": options.soup, "early_stopping": options.early_stopping}
            finished = output.start_training(ready.record() | kept, overwrite=options.overwrite)
        if processes.any_process(finished, torch.device(device)):
            reporter.print_line(f"finished before: {out}")
            return read_model(out)
        with stay_within(budget[0], device):
            return _Training(ready, options, output, device, reporter).run()


def _train_ensemble(
    folder: StudyFolder,
    size: int,
    out: Path | None,
    weights_dir: Path | None,
    options: TrainOptions,
    reporter: Reporter,
) -> Path:
    """Chooses models among those that confirmed a study, trains each on all the data, and writes them as one model."""
    if size < 1 or options.seed is not None:
        raise SpecError("an ensemble has 1 member or more (--ensemble K), each with its own seed (no --seed)")
    members, holdout_scored, validation = choose_members(folder, size)
    plans = {name: plan_for_study(folder, recipe, weights_dir) for name, (recipe, _) in members.items()}
    output = OutputFolder(out or Path("models") / f"{folder.name}-ensemble")
    recipes = {name: recipe.model_dump(mode="json") for name, (recipe, _) in members.items()}
    record = {"members": recipes, "weights": [weight for _, weight in members.values()]}
    with join_process_group(find_devices(options.device)[0]) as device:
        processes = current_process_group()
        reporter = reporter if processes.is_first else SilentReporter()
        for name, (recipe, weight) in members.items():
            reporter.print_line(f"member {name}: {recipe.backbone}, weight {weight:.3f}")
        finished = processes.is_first and output.start_training(record, overwrite=options.overwrite)
        if not processes.any_process(finished, torch.device(device)):
            options = replace(options, overwrite=False, with_holdout=holdout_scored)
            for name, plan in plans.items():
                done = processes.is_first and OutputFolder(output.folder / name).finished  # before a kill
                if not processes.any_process(done, torch.device(device)):
                    train_plan(plan, options, output.folder / name, reporter)
            if processes.is_first:
                if validation is not None:
                    write_validation_scores(output.folder, validation)
                write_ensemble(output.folder, {name: weight for name, (_, weight) in members.items()})
                output.end_training()
                reporter.print_line(f"written: {output.folder}")
        processes.any_process(False, torch.device(device))  # nobody reads before it is written
        return output.folder


class _Training:
    """One final training."""

    def __init__(
        self, plan: TrainPlan, options: TrainOptions, output: OutputFolder, device: str, reporter: Reporter
    ) -> None:
        self.plan, self.recipe, self.output, self.device = plan, plan.recipe, output, device
        self.options, self.reporter, self.print_line = options, reporter, reporter.print_line
        self.processes = current_process_group()
        self.stopping = False
        self.total = self.batch_size = 0
        self.validation = plan.validation
        self.kept = LastWeights(output.kept)
        if options.soup:
            self.kept = MeanWeights(output.kept, options.soup)
        elif options.early_stopping:
            self.kept = BestWeights(output.kept, plan.metric, options.early_stopping)

    def run(self) -> ModelFolder:
        """Trains, scores and writes."""
        self._report_start()
        with self.reporter.show_progress(f"decoding {describe_view(self.recipe.view)}") as progress:
            cache = build_cache(self.plan.dataset, self.plan.decode_size, progress, self.recipe.view)
        samples = self.plan.train_dataset()
        data = ImageData(samples, cache, loaders=4 if is_gpu(self.device) else 0)
        if is_gpu(self.device):
            torch.cuda.reset_peak_memory_stats(self.device)
        self.total, self.batch_size = total_steps(self.recipe, data), data.batch_size(self.recipe)
        try:
            with catch_interrupts(self._stop):
                network = self._fit_network(data)
        except Diverged as exc:
            raise RecipeError(f"the training diverged: {exc}; lower learning_rate, or set clip_norm to 1") from exc
        except torch.cuda.OutOfMemoryError as exc:
            advice = "give more --gpu-mem, or lower numerics.micro_batch_size"
            raise MemoryBudgetError(f"a training step is too large ({first_line(exc)}); {advice}") from exc
        model = make_model(self.recipe, data.classes)
        if not self.processes.is_first:
            return ModelFolder(self.output.folder, self.recipe, *describe_network(model, self.recipe, data))
        model.load_state_dict(self.kept.kept_weights(network))
        measured = self._measure(model, data)
        if self.validation is not None:
            write_validation_scores(self.output.folder, self.validation)
        written = write_network(
            self.output.folder, model, self.recipe, data, measured, self.plan.dataset, self._find_base()
        )
        self.output.end_training()
        self.print_line(f"written: {self.output.folder}")
        return written

    # --- training -----------------------------------------------------------------------------------------------

    def _fit_network(self, data: ImageData) -> nn.Module | None:
        """Trains to the end, or to where early stopping ends it (then None: the weights are on the disk)."""
        try:
            with self.reporter.show_progress("training") as progress:
                result = fit(
                    self.recipe,
                    data,
                    weights=self.plan.weights,
                    device=self.device,
                    checkpoint=self.output.checkpoint,
                    evaluate=_EVALUATED if self.options.early_stopping else None,
                    on_evaluation=self.kept.on_evaluation,
                    on_step=progress,
                    on_snapshot=self._on_snapshot,
                    on_out_of_memory=lambda event: self.print_line(f"warning: {event.describe()}"),
                    should_stop=lambda at_checkpoint: self.kept.ended or (self.stopping and at_checkpoint),
                )
            return result.model
        except Parked:
            if self.stopping and not self.kept.ended:
                self.print_line(f"stopped: {self.output.folder} has the checkpoint; the same command continues")
                raise KeyboardInterrupt from None
            return None

    def _on_snapshot(self, snapshot: Snapshot) -> None:
        self.kept.on_snapshot(snapshot)
        left = snapshot.train_seconds / snapshot.step * (self.total - snapshot.step)
        score = ""
        if snapshot.evaluation is not None:
            score = f" · validation {self.plan.metric} {snapshot.evaluation.metrics[self.plan.metric]:.4f}"
        where = f"{snapshot.eighth}/{EIGHTHS} · step {snapshot.step} of {self.total}"
        speed = f"{self._images_per_second(snapshot):.1f} images/s · {format_seconds(left)} left"
        self.print_line(f"{where} · loss {snapshot.train_loss:.4f}{score} · {speed}")

    def _stop(self) -> None:
        """Stops at the next checkpoint."""
        self.stopping = True
        self.reporter.show_stop(STOPS_AT_CHECKPOINT)

    def _images_per_second(self, moment: Snapshot | Evaluation) -> float:
        return moment.step * self.batch_size / max(moment.train_seconds, 1e-9)

    def _report_start(self) -> None:
        counts = self.plan.dataset.samples["split"].value_counts()
        splits = " + ".join(f"{split} {counts[split]}" for split in self.plan.train_splits if split in counts)
        weights = self.plan.weights.source if self.plan.weights else "none: from scratch"
        self.print_line(f"training {self.recipe.backbone} ({self.plan.source}) on {self.device}; weights: {weights}")
        self.print_line(f"data: {self.plan.dataset.name}; learns from {splits}")
        if self.processes.size > 1:
            self.print_line(f"{self.processes.size} processes share each batch of {self.recipe.batch_size} images")

    # --- what is written ----------------------------------------------------------------------------------------

    def _measure(self, model: nn.Module, data: ImageData) -> dict[str, Any]:
        """Measures the model; returns what goes to metrics.json."""
        memory = measure_memory(self.recipe, data.classes, self.device)  # of the training alone
        held_out = [split for split in (_EVALUATED, "holdout") if (data.samples.samples["split"] == split).any()]
        own = {split: self._score_split(model, data, split) for split in held_out}
        moment = self.kept.last
        assert moment is not None  # noqa: S101 - a run has at least its last eighth
        weights = self.plan.weights
        return {
            "trained_on": {"samples": len(data.rows("train")), "splits": ", ".join(self.plan.train_splits)},
            "metric": self.plan.metric,
            **{split: score for split, score in (self.plan.scores | own).items() if score},
            "training": {
                "seconds": round(moment.train_seconds, 3),
                "images_per_second": round(self._images_per_second(moment), 2),
                "last_loss": moment.train_loss,
                "epochs": moment.epoch,
                "steps": moment.step,
            },
            "memory": memory,
            **describe_origin(self.recipe, weights.source if weights else None),
        }

    def _find_base(self) -> BaseWeights | None:
        """Finds the weights that the model's are changes of, if it is to hold no more than these."""
        weights, backbone = self.plan.weights, self.recipe.backbone
        if self.options.merge or self.recipe.tune.name == "all" or weights is None:
            return None
        path = locate_file(backbone, weights)
        return BaseWeights(backbone, digest_file(path)) if path is not None else None

    def _score_split(self, model: nn.Module, data: ImageData, split: str) -> dict[str, Any] | None:
        """Measures the model on a split it did not learn from, with an interval."""
        expected = expected_input(model, self.recipe, data)
        probabilities = split_probabilities(model, self.recipe, data, split, expected, self.device)
        labels = data.labels(split)
        groups = data.samples.samples["group"].to_numpy()[data.rows(split)]
        if split == _EVALUATED:
            source, classes = "this model, whose weights these samples chose (--early-stopping)", data.samples.classes
            self.validation = make_validation_scores(source, labels, [probabilities], classes, data.positive)
        try:
            interval = metric_interval(self.plan.metric, labels, [probabilities], data.positive, groups)
            every = all_metrics(labels, probabilities, data.positive)
        except DataError as exc:  # a given test set of one class
            self.print_line(f"warning: the {split} split is not scored: {exc}")
            return None
        spread = f"95 % interval {interval.low:.4f} to {interval.high:.4f}, {len(labels)} {data.samples.media}s"
        self.print_line(f"{split} {self.plan.metric} {interval.value:.4f} ({spread})")
        return describe_score("this model", interval, len(labels), every)


# --- the parts of a model folder ----------------------------------------------------------------------------------


def write_network(
    folder: Path,
    model: nn.Module,
    recipe: Recipe,
    data: ImageData,
    metrics: dict[str, Any],
    dataset: Dataset,
    base: BaseWeights | None = None,
) -> ModelFolder:
    """Writes a trained network as a model folder; the data set, with its own splits, is for the card.

    With `base`, the folder holds what was trained alone.
    """
    inputs, labels = describe_network(model, recipe, data)
    table = dataset.samples
    counts = {
        split: {
            name: int(((table["split"] == split) & (table["label"] == k)).sum())
            for k, name in enumerate(dataset.classes)
        }
        for split in SPLITS
        if (table["split"] == split).any()
    }
    groups = int(table["group"].nunique()) if dataset.grouped else None
    described = {"name": dataset.name, "format": dataset.format, "counts": counts, "groups": groups}
    card = render_model_card(recipe, labels, inputs, metrics, described)
    write_trained_on(folder, (Path(path) for path in data.samples.samples["path"].to_numpy()[data.rows("train")]))
    return write_model(folder, model.cpu(), recipe, inputs, labels, metrics, card, base)


def describe_network(model: nn.Module, recipe: Recipe, data: ImageData) -> tuple[InputSpec, Labels]:
    """Describes how a file becomes a network's input, and what its outputs mean, with the prior of what it learned."""
    expected = expected_input(model, recipe, data)
    labels, samples = data.labels("train"), data.samples
    prior = tuple(float((labels == k).mean()) for k in range(data.classes))
    return (
        InputSpec.from_preprocessing(expected, recipe, data.cache.size),
        Labels(samples.classes, samples.positive, prior, find_file_column(samples), samples.real_class),
    )


def find_file_column(dataset: Dataset) -> str:
    """Finds the column of the training label file that names the files; "" where there is no label file."""
    if dataset.format not in ("table", "ffdi", "ffdv"):
        return ""
    names, root = set(dataset.samples["name"]), dataset.root
    for file in [root] if root.is_file() else sorted(path for path in root.iterdir() if path.suffix.lower() in TABLES):
        try:
            table = open_table(file)
            rows = list(table.read_rows())
        except DataError:
            continue
        hits = {name: sum(row[k] in names for row in rows) for k, name in enumerate(table.header)}
        if max(hits.values(), default=0):
            return max(hits, key=lambda name: hits[name])
    return ""


def measure_memory(recipe: Recipe, classes: int, device: str) -> dict[str, Any]:
    """Predicts the memory on a CUDA device, and reads the most that was used so far on this one, in bytes."""
    measured, name = None, "CPU: resident memory of the process"
    if is_gpu(device):
        measured = torch.cuda.max_memory_allocated(device)
        name = f"{torch.cuda.get_device_name(device)}: PyTorch's allocator"
    elif sys.platform != "win32":
        import resource  # Windows has none

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        measured = peak if sys.platform == "darwin" else peak * 1024  # kilobytes, but bytes on macOS (getrusage(2))
    try:
        predicted = estimate_training(recipe, classes)
    except RecipeError:
        predicted = None
    return {"predicted_bytes": predicted, "measured_peak_bytes": measured, "device": name}


def describe_origin(recipe: Recipe, source: str | None) -> dict[str, Any]:
    """Describes for metrics.json the programs that make a model, and where its pretrained weights are from."""
    versions = {"python": platform.python_version()}
    for name, distribution in (("automl", "automl-timm"), ("torch", "torch"), ("timm", "timm")):
        try:
            versions[name] = version(distribution)
        except PackageNotFoundError:  # a build without metadata
            versions[name] = "unknown"
    licence = find_weights_licence(recipe.backbone) if source else None
    return {"versions": versions, "weights": {"source": source, "licence": licence}}
