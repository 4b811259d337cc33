"""The final training: from a recipe to a model folder. What `automl train` and `automl.refit.train.train` both do."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from automl.backbones.weights import Preprocessing, make_model
from automl.data.cache import build_cache
from automl.data.loader import ImageData, evaluation_size
from automl.devices import find_devices, keep_freed_memory
from automl.errors import DataError, MemoryBudgetError, RecipeError, SpecError
from automl.models.card import model_card, weights_licence
from automl.models.folder import Input, ModelFolder, read_model, write_model
from automl.refit.outcome import described, labels_of, memory, versions
from automl.refit.output_folder import Place
from automl.refit.plan import Plan, make_plan
from automl.refit.weights import Best, Last, Soup
from automl.reporter import ConsoleReporter, Reporter, SilentReporter, interrupts
from automl.study.views import describe_view
from automl.training.distributed import current_team, joined
from automl.training.evaluation import split_probabilities
from automl.training.fit import fit, total_steps
from automl.training.intervals import metric_interval
from automl.training.metrics import all_metrics
from automl.training.out_of_memory import OutOfMemory
from automl.training.types import Diverged, Evaluation, Parked, Snapshot, expected_input
from automl.training.validation_schedule import EIGHTHS
from automl.units import format_seconds

_EVALUATED = "validation"


@dataclass(frozen=True)
class Wishes:
    """What the user decides about a final training, beside the recipe."""

    ema: float | None = None
    """In place of the recipe's `ema_decay`."""
    seed: int | None = None
    """In place of the recipe's."""
    soup: int = 0
    """Mean of the weights at so many of the last eighths of the run; 0: the last weights."""
    early_stopping: int = 0
    """Evaluations without improvement that end the run; 0: the recipe knows its length."""
    with_holdout: bool = False
    """Train on the holdout although the recipe has not been confirmed."""
    device: str = "auto"
    overwrite: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.soup <= EIGHTHS:
            raise SpecError(f"--soup {self.soup}: a run has {EIGHTHS} eighths; give 1 to {EIGHTHS}")
        if self.early_stopping < 0:
            raise SpecError(f"--early-stopping {self.early_stopping}: give 1 or more evaluations")
        if self.soup and self.early_stopping:
            raise SpecError("--soup and --early-stopping choose the weights in two ways; give one of them")

    def applied(self, plan: Plan) -> Plan:
        """The plan as the user wants it."""
        return plan.changed(
            ema=self.ema,
            seed=self.seed,
            with_holdout=self.with_holdout,
            early_stopping=bool(self.early_stopping),
        )


def train(
    study: str | None = None,
    *,
    recipe: str | Path | None = None,
    data: str | Path | dict[str, Any] | None = None,
    out: str | Path | None = None,
    runs: str | Path = "runs",
    weights_dir: str | Path | None = None,
    reporter: Reporter | None = None,
    **wishes: Any,
) -> ModelFolder:
    """Trains the winner of a study, or any recipe, and writes a model folder; the same call again continues.

    It trains on train + validation, and on the holdout as well where `automl confirm` has scored the recipe on it;
    else the holdout is kept out, and scored once with the model that was trained.

    Args:
        study: Name of the study; None: that of the recipe's folder, or the latest.
        recipe: A recipe file; None: the study's confirmed recipe, else its best.
        data: A folder or label file, or a mapping with the keys of `DataSpec`; None: the study's data.
        out: The folder to write; None: `models/` and the name of the study or the data.
        runs: The folder that holds the studies.
        weights_dir: A folder of safetensors files to look for weights in.
        reporter: Is told what is done; None: lines are printed.
        **wishes: Fields of `Wishes` (`ema=0.999`, `soup=3`, `early_stopping=2`, `with_holdout=True`, `seed=1`,
            `device="cuda"`, `overwrite=True`).

    Returns:
        The model folder.

    Raises:
        AutomlError: If recipe, data, weights or folder do not work out; the message says what to change.
        KeyboardInterrupt: If it was asked to stop; what was done is kept, and the same call continues.
    """
    wanted = Wishes(**wishes)
    given = data if isinstance(data, dict) or data is None else {"path": data}
    where = Path(weights_dir) if weights_dir is not None else None
    plan = make_plan(study, Path(recipe) if recipe is not None else None, given, Path(runs), where)
    folder = Path(out) if out is not None else Path("models") / plan.name
    return train_plan(plan, wanted, folder, reporter or ConsoleReporter())


def train_plan(plan: Plan, wishes: Wishes, out: Path, reporter: Reporter) -> ModelFolder:
    """Trains a plan; see `train`. Under torchrun, each process calls it, and the first one writes."""
    plan = wishes.applied(plan)
    device = find_devices(wishes.device)[0]
    with joined(device) as device:
        team = current_team()
        if not team.leads:
            reporter = SilentReporter()
        for what in plan.without:
            reporter.print_line(f"note: left out of the recipe: {what}")
        ready = plan.on(device)
        if ready.recipe != plan.recipe:
            reporter.print_line(f"note: the recipe's numerics were for another kind of device; on {device} it is fp32")
        place, finished = Place(out), False
        if team.leads:
            kept = {"soup": wishes.soup, "early_stopping": wishes.early_stopping}
            finished = place.begin(ready.record() | kept, overwrite=wishes.overwrite)
        if team.any(finished, torch.device(device)):
            reporter.print_line(f"finished before: {out}")
            return read_model(out)
        return _Training(ready, wishes, place, device, reporter).run()


class _Training:
    """One final training."""

    def __init__(self, plan: Plan, wishes: Wishes, place: Place, device: str, reporter: Reporter) -> None:
        self.plan, self.recipe, self.place, self.device = plan, plan.recipe, place, device
        self.wishes, self.reporter = wishes, reporter
        self.team = current_team()
        self.stopping = False
        self.total = self.batch_size = 0
        self.keeper: Last = Last(place.kept)
        if wishes.soup:
            self.keeper = Soup(place.kept, wishes.soup)
        elif wishes.early_stopping:
            self.keeper = Best(place.kept, plan.metric, wishes.early_stopping)

    def run(self) -> ModelFolder:
        """Trains, scores and writes."""
        self._describe()
        with self.reporter.show_progress(f"decoding {describe_view(self.recipe.view)}") as progress:
            cache = build_cache(self.plan.dataset, self.plan.decode_size, progress, self.recipe.view)
        samples = self.plan.samples()
        data = ImageData(samples, cache, loaders=0 if self.device == "cpu" else 4)
        if self.device == "cpu":
            keep_freed_memory()
        else:
            torch.cuda.reset_peak_memory_stats(self.device)
        self.total, self.batch_size = total_steps(self.recipe, data), data.batch_size(self.recipe)
        with interrupts(self._stop), _failures():
            network = self._fit(data)
        model = make_model(self.recipe, data.classes)
        expects = expected_input(model, self.recipe, data)
        size = evaluation_size(self.recipe, expects, cache.size)
        inputs = Input(self.plan.decode_size, size, expects.mean, expects.std, expects.interpolation)
        labels = labels_of(samples, data)
        if not self.team.leads:
            return ModelFolder(self.place.folder, self.recipe, inputs, labels)
        model.load_state_dict(self.keeper.weights(network))
        metrics = self._metrics(model, expects, data)
        card = model_card(self.recipe, labels, inputs, metrics, described(self.plan.dataset))
        written = write_model(self.place.folder, model.cpu(), self.recipe, inputs, labels, metrics, card)
        self.place.end()
        self.reporter.print_line(f"written: {self.place.folder}")
        return written

    # --- training -----------------------------------------------------------------------------------------------

    def _fit(self, data: ImageData) -> nn.Module | None:
        """Trains to the end, or to where early stopping ends it (then None: the weights are on the disk)."""
        try:
            with self.reporter.show_progress("training") as progress:
                result = fit(
                    self.recipe,
                    data,
                    weights=self.plan.weights,
                    device=self.device,
                    checkpoint=self.place.checkpoint,
                    evaluate=_EVALUATED if self.wishes.early_stopping else None,
                    on_evaluation=self.keeper.on_evaluation,
                    on_step=progress,
                    on_snapshot=self._on_snapshot,
                    on_out_of_memory=self._on_out_of_memory,
                    should_stop=lambda at: self.keeper.ended or (self.stopping and at),
                )
            return result.model
        except Parked:
            if self.stopping and not self.keeper.ended:
                self.reporter.print_line(f"parked: {self.place.folder} has the checkpoint; the same command continues")
                raise KeyboardInterrupt from None
            return None

    def _on_snapshot(self, snapshot: Snapshot) -> None:
        self.keeper.on_snapshot(snapshot)
        left = snapshot.train_seconds / snapshot.step * (self.total - snapshot.step)
        found = ""
        if snapshot.evaluation is not None:
            found = f" · validation {self.plan.metric} {snapshot.evaluation.metrics[self.plan.metric]:.4f}"
        where = f"{snapshot.eighth}/{EIGHTHS} · step {snapshot.step} of {self.total}"
        speed = f"{self._speed(snapshot):.1f} images/s · {format_seconds(left)} left"
        self.reporter.print_line(f"{where} · loss {snapshot.train_loss:.4f}{found} · {speed}")

    def _on_out_of_memory(self, event: OutOfMemory) -> None:
        self.reporter.print_line(f"warning: {event.describe()}")

    def _stop(self) -> None:
        """What Ctrl-C does: first a wish, then an order."""
        if self.stopping:
            raise KeyboardInterrupt
        self.stopping = True
        self.reporter.print_line("stopping at the next checkpoint; Ctrl-C again stops now (the same command continues)")

    def _speed(self, moment: Snapshot | Evaluation) -> float:
        """Images a second in training steps."""
        return moment.step * self.batch_size / max(moment.train_seconds, 1e-9)

    def _describe(self) -> None:
        counts = self.plan.dataset.samples["split"].value_counts()
        learned = " + ".join(f"{split} {counts[split]}" for split in self.plan.learned if split in counts)
        weights = self.plan.weights.source if self.plan.weights else "none: from scratch"
        self.reporter.print_line(
            f"training {self.recipe.backbone} ({self.plan.source}) on {self.device}; weights: {weights}"
        )
        self.reporter.print_line(f"data: {self.plan.dataset.name}; learns from {learned}")
        if self.team.size > 1:
            self.reporter.print_line(f"{self.team.size} processes share each batch of {self.recipe.batch_size} images")

    # --- what is written ----------------------------------------------------------------------------------------

    def _metrics(self, model: nn.Module, expects: Preprocessing, data: ImageData) -> dict[str, Any]:
        """What goes to metrics.json."""
        measured = memory(self.recipe, data.classes, self.device)  # of the training alone
        own = {}
        for split in (_EVALUATED, "holdout"):
            if (data.samples.samples["split"] == split).any():
                own[split] = self._score(model, expects, data, split)
        scores = {split: score for split, score in (self.plan.scores | own).items() if score}
        moment = self.keeper.last
        assert moment is not None  # noqa: S101 - a run has at least its last eighth
        return {
            "trained_on": {"samples": len(data.rows("train")), "splits": ", ".join(self.plan.learned)},
            "metric": self.plan.metric,
            **scores,
            "training": {
                "seconds": round(moment.train_seconds, 3),
                "images_per_second": round(self._speed(moment), 2),
                "last_loss": moment.train_loss,
                "epochs": moment.epoch,
                "steps": moment.step,
            },
            "memory": measured,
            "versions": versions(),
            "weights": {
                "source": self.plan.weights.source if self.plan.weights else None,
                "licence": weights_licence(self.recipe.backbone) if self.plan.weights else None,
            },
        }

    def _score(self, model: nn.Module, expects: Preprocessing, data: ImageData, split: str) -> dict[str, Any] | None:
        """This model on a split it did not learn from, with the interval of `training.interval`."""
        found = split_probabilities(model, self.recipe, data, split, expects, self.device)
        labels = data.labels(split)
        groups = data.samples.samples["group"].to_numpy()[data.rows(split)]
        try:
            interval = metric_interval(self.plan.metric, labels, [found], data.positive, groups)
            every = all_metrics(labels, found, data.positive)
        except DataError as exc:  # a given test set of one class
            self.reporter.print_line(f"warning: the {split} split is not scored: {exc}")
            return None
        spread = f"95 % interval {interval.low:.4f} to {interval.high:.4f}, {len(labels)} {data.samples.media}s"
        self.reporter.print_line(f"{split} {self.plan.metric} {interval.value:.4f} ({spread})")
        values = {"value": interval.value, "low": interval.low, "high": interval.high, "n": len(labels), "all": every}
        return {"source": "this model", **values}


@contextmanager
def _failures() -> Iterator[None]:
    """Says what a user can do about a training that fails."""
    try:
        yield
    except Diverged as exc:
        raise RecipeError(f"the training diverged: {exc}; lower learning_rate, or set clip_norm to 1") from exc
    except torch.cuda.OutOfMemoryError as exc:
        first = str(exc).splitlines()[0]
        raise MemoryBudgetError(f"a training step is too large ({first}); lower numerics.micro_batch_size") from exc
