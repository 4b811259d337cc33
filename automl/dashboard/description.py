"""What the dashboard says of a trial and of its study: attributes with names for people, and notes in Markdown."""

import math
import re
from dataclasses import dataclass
from typing import Any

import optuna
import yaml
from optuna.trial import FrozenTrial, TrialState

from automl.errors import AutomlError
from automl.memory.estimate import estimate_training
from automl.memory.step import describe_step, load_envelope
from automl.recipe import Recipe
from automl.spec import StudySpec, describe_validation
from automl.study.folder import StudyFolder
from automl.study.setup import StudySetup
from automl.study.trial_record import TrialRecord, best_trial, list_finished, read_trial_record, recipe_of
from automl.units import format_bytes, format_count, format_figure, format_seconds, format_share

Attributes = dict[str, str | float]

_STATES = {
    TrialState.COMPLETE: "Complete",
    TrialState.PRUNED: "Pruned",
    TrialState.FAIL: "Failed",
    TrialState.RUNNING: "Running",
    TrialState.WAITING: "Waiting",
}


@dataclass(frozen=True)
class Describer:
    """Describes the trials of one study."""

    setup: StudySetup
    spec: StudySpec
    folder: StudyFolder

    # --- trials -----------------------------------------------------------------------------------------------------

    def list_trial_attributes(self, trial: FrozenTrial) -> Attributes:
        """Lists what is known of a trial under names for people; numbers can be sorted by."""
        record, recipe = read_trial_record(trial), _find_recipe(trial)
        shown: dict[str, str | float | None] = {
            "backbone": record.backbone,
            "view": record.view if self.setup.dataset.media != "image" else "",
            "trained": record.trained,
            "image size (px)": record.image_size,
            "micro-batch × accumulation": _describe_batch(recipe) if recipe else "",
            "epochs trained": record.spent.get("epochs_done"),
            "epochs planned": record.epochs,
            "images a second": self._count_images_a_second(record, trial.state),
            **self._find_peak(record, recipe),
            "minutes of training": round(record.spent.get("fit_seconds", 0.0) / 60, 2),
            "why it ended": record.error or record.reason,
            "known-good recipe": record.known_good,
            "goes on from trial": "" if record.continues is None else str(record.continues),
            "ran out of memory (times)": len(record.out_of_memory),
            "taken up again (times)": record.taken_up,
        }
        measured = {name: value for name, value in record.metrics.items() if name != self.setup.objective}
        measured |= {f"auc on {name}": value for name, value in record.degraded.items()}
        return {name: value for name, value in shown.items() if value} | measured

    def write_trial_note(self, trial: FrozenTrial) -> str:
        """Writes the note of a trial in Markdown: how it ended and why, what it cost, the recipe."""
        record, recipe = read_trial_record(trial), _find_recipe(trial)
        attributes = self.list_trial_attributes(trial)
        lines = [f"**{_STATES[trial.state]}{self._describe_score(trial)}** {self._explain_end(trial, record)}".rstrip()]
        rows = [
            ("backbone", record.backbone and f"{record.backbone}, {record.image_size or '?'} px"),
            ("trained", record.trained),
            ("began with", _describe_origin(record)),
            ("cost", _describe_cost(record, trial)),
            ("images a second", attributes.get("images a second")),
            ("batch", recipe and f"{_describe_batch(recipe)} images"),
            ("GPU memory", self._describe_memory(record, attributes)),
            ("ran out of memory", len(record.out_of_memory) and format_count(len(record.out_of_memory), "time")),
            ("other metrics", _join_figures(record.metrics, self.setup.objective)),
            ("degraded copies", _join_figures(record.degraded)),
        ]
        shown = [f"| {name} | {escape_markdown(str(value))} |" for name, value in rows if value]
        if shown:
            lines += ["", "| | |", "|---|---|", *shown]
        if recipe is not None:
            text = yaml.safe_dump(_list_own_values(recipe), sort_keys=False)
            lines += ["", "The recipe; what it does not name has its default:", "", "```yaml", text.rstrip(), "```"]
        return "\n".join(lines)

    def _describe_score(self, trial: FrozenTrial) -> str:
        """Writes the metric of a trial, at its end or at its last validation."""
        name = self.setup.objective
        if trial.state == TrialState.COMPLETE and trial.value is not None:
            return f": {name} {trial.value:.4f}."
        if trial.intermediate_values:
            return f": {self.setup.metric} {trial.intermediate_values[max(trial.intermediate_values)]:.4f} so far."
        return "."

    def _explain_end(self, trial: FrozenTrial, record: TrialRecord) -> str:
        """Writes in a sentence why a trial has ended, or has not."""
        if record.error or record.reason:
            return f"It ended because: {escape_markdown(record.error or record.reason)}."
        if trial.state == TrialState.COMPLETE:
            return f"It trained to its end, and was scored on {describe_validation(self.spec)}."
        if trial.state == TrialState.WAITING:
            return "It begins when a worker is free."
        return "If no search is running, the next one on this study takes it up again."

    def _count_images_a_second(self, record: TrialRecord, state: TrialState) -> float | None:
        """Counts the training images that a trial saw in a second of its training steps; None: not known."""
        epochs, seconds = record.spent.get("epochs_done", 0.0), record.spent.get("train_seconds", 0.0)
        folds = self.setup.folds
        if not epochs or not seconds or (folds > 1 and state != TrialState.COMPLETE):
            return None
        recipe = Recipe.model_validate_json(record.recipe) if record.recipe else None
        if recipe and recipe.restarts:  # the epochs before were those of the trial that it goes on from
            epochs -= recipe.epochs * recipe.restarts[-1]
        splits = self.setup.dataset.samples["split"]
        images = int((splits == "train").sum())
        if folds > 1:  # each fold trains on the samples of the others, and epochs are counted within one
            images = int((splits != "holdout").sum()) * (folds - 1)
        return float(format_figure(images * epochs / seconds).replace(",", "")) if epochs > 0 else None

    def _find_peak(self, record: TrialRecord, recipe: Recipe | None) -> Attributes:
        """Returns the most memory that a trial took of a GPU or, where that was predicted here before, would take."""
        if peak := record.spent.get("peak_bytes"):
            return {"peak GiB": round(peak / 2**30, 2)}
        if recipe is None or self.setup.pool.find_entry(recipe.backbone) is None:
            return {}
        classes = len(self.setup.dataset.classes)
        accumulates = (recipe.numerics.micro_batch_size or recipe.batch_size) < recipe.batch_size
        try:
            if load_envelope(describe_step(recipe, classes, accumulates)) is None:
                return {}  # to predict it now would keep the page waiting
            return {"peak GiB, predicted": round(estimate_training(recipe, classes) / 2**30, 2)}
        except AutomlError:
            return {}

    def _describe_memory(self, record: TrialRecord, attributes: Attributes) -> str:
        for name in ("peak GiB", "peak GiB, predicted"):
            if name in attributes:
                peak = format_bytes(float(attributes[name]) * 2**30)
                return f"{peak} at most, {'predicted' if name.endswith('predicted') else 'measured'}"
        entry = self.setup.pool.find_entry(record.backbone) if record.backbone else None
        return f"the backbone {entry.memory.describe(self.setup.memory_bytes)}" if entry else ""

    # --- the study --------------------------------------------------------------------------------------------------

    def list_study_attributes(self, study: optuna.Study) -> Attributes:
        """Lists what a study is, under names for people."""
        budget, data, setup = self.spec.budget, self.setup.dataset, self.setup
        counts = data.samples["split"].value_counts()
        ended, best = len(list_finished(study)), best_trial(study)
        return {
            "data": str(data.root),
            "samples": ", ".join(f"{name} {counts[name]}" for name in counts.index),
            "classes": ", ".join(data.classes),
            "metric": f"{setup.objective} on {describe_validation(self.spec)}",
            "trials ended": format_share(ended, budget.trials, "trial"),
            "best": f"trial {best.number}: {best.value:.4f}" if best is not None else "none yet",
            "GPU memory": format_bytes(setup.memory_bytes) if setup.memory_bytes else "no limit",
            "timeout": format_seconds(budget.timeout) if budget.timeout else "none",
            "sampler": self.spec.sampler,
            "pruner": self.spec.pruner,
            "seed": self.spec.seed,
        }

    def write_study_note(self, study: optuna.Study) -> str:
        """Writes the note of a study in Markdown: the best trial, the backbones, the commands that follow."""
        best, lines = best_trial(study), list[str]()
        if best is None:
            lines.append("No trial is complete yet.")
        else:
            backbone = escape_markdown(read_trial_record(best).backbone)
            lines.append(f"**Best: trial {best.number}, {self.setup.objective} {best.value:.4f}**, {backbone}.")
        lines += ["", "| backbone | on the leaderboards | parameters | GPU memory |", "|---|---|---|---|"]
        for entry in self.setup.pool.entries:
            cells = (
                entry.backbone,
                entry.describe_score(),
                f"{format_figure(entry.params_m)}M",
                entry.memory.describe(self.setup.memory_bytes),
            )
            lines.append(f"| {' | '.join(map(escape_markdown, cells))} |")
        commands = [self.folder.command_line(name) for name in ("best", "confirm", "train")]
        return "\n".join([*lines, "", "Next:", "", "```sh", *commands[: 3 if best is not None else 1], "```"])


def escape_markdown(text: str) -> str:
    """Writes a text so that Markdown shows it as it is, in one line."""
    return re.sub(r"([\\`*_{}\[\]<>#|~$])", r"\\\1", " ".join(text.split()))


def _find_recipe(trial: FrozenTrial) -> Recipe | None:
    """Returns the recipe of a trial; None before it is drawn."""
    try:
        return recipe_of(trial)
    except AutomlError:
        return None


def _list_own_values(recipe: Recipe) -> dict[str, Any]:
    """Returns what a recipe has that is not the default, as a recipe file may hold it."""
    values = recipe.model_dump(mode="json")
    usual = Recipe(backbone=recipe.backbone).model_dump(mode="json") | {"backbone": ""}
    own = {name: value for name, value in values.items() if value != usual[name]}
    for name in ("augmentation", "numerics"):  # many values, no choice
        if name in own:
            own[name] = {key: value for key, value in own[name].items() if value != usual[name][key]}
    return own


def _describe_batch(recipe: Recipe) -> str:
    """Writes `16 × 2`: images in a micro-batch, and micro-batches in a step."""
    micro = recipe.numerics.micro_batch_size or recipe.batch_size
    return f"{micro} × {math.ceil(recipe.batch_size / micro)}"


def _describe_origin(record: TrialRecord) -> str:
    if record.continues is not None:
        return f"what trial {record.continues} had learned, for longer"
    return f"a recipe known to be good ({record.known_good})" if record.known_good else ""


def _describe_cost(record: TrialRecord, trial: FrozenTrial) -> str:
    """Writes how long a trial trained, and what took the time."""
    spent, parts = record.spent, list[str]()
    if "epochs_done" in spent:
        planned = "" if record.epochs is None else f" of {format_figure(record.epochs)}"
        parts.append(f"{format_figure(spent['epochs_done'])}{planned} epochs")
    named = {"train_seconds": "of training steps", "validation_seconds": "of validations"}
    named["robust_seconds"] = "of degraded copies"
    parts += [f"{format_seconds(spent[name])} {text}" for name, text in named.items() if spent.get(name)]
    if trial.duration is not None:
        parts.append(f"{format_seconds(trial.duration.total_seconds())} in all")
    return ", ".join(parts)


def _join_figures(values: dict[str, float], without: str = "") -> str:
    return ", ".join(f"{name} {value:.4f}" for name, value in values.items() if name != without)
