"""Continuing the best trial for longer instead of beginning another one (freeze-thaw, Swersky et al. 2014).

A trial that did best in a short run is worth more of the budget before new ones are, and what it has learned is worth
keeping: its last checkpoint is trained on, the schedule beginning anew (`Recipe.restarts`). Samples, augmentation and
dropout depend on the seed and the step alone, so the new trial's recipe trains the same network from the beginning.
"""

from dataclasses import dataclass
from pathlib import Path

import optuna
from optuna.distributions import IntDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from automl.recipe import Recipe
from automl.space.nodes import Ordered
from automl.study.artifacts import Artifacts
from automl.study.folder import StudyFolder
from automl.study.setup import StudySetup
from automl.study.trial_record import best_trial, read_trial_record, recipe_of
from automl.training.checkpoint import load_checkpoint, save_checkpoint

_LONGER = 3.0
"""How many times as long the whole run becomes, at most."""

_LEAST = 1.3
"""Less is not worth a trial."""

_MARGIN = 0.93
"""Of the time that is left: a step may take longer than those before."""


@dataclass(frozen=True)
class Continuation:
    """A trial to be continued, and for how long."""

    trial: FrozenTrial
    recipe: Recipe
    """Of the whole run, from its beginning."""


def choose_continuation(
    study: optuna.Study, setup: StudySetup, artifacts: Artifacts, seconds_left: float
) -> Continuation | None:
    """Chooses whether the best trial is trained for longer now; None: another one is to begin.

    It is continued once, as soon as no recipe is waiting that is known to be good, if its last checkpoint is at hand,
    and if a third of its length can be added within a trial's time limit and what is left. What an epoch takes is
    known from the trial itself.
    """
    best = best_trial(study)
    if best is None or not artifacts.has(last_checkpoint(artifacts.folder, best.number)):
        return None
    others = study.get_trials(deepcopy=False)
    if any(trial.state == TrialState.WAITING for trial in others):
        return None
    if any(read_trial_record(t).continues == best.number for t in others if t.state != TrialState.FAIL):
        return None
    spent, recipe = read_trial_record(best).spent, recipe_of(best)
    if not spent.get("epochs_done") or not spent.get("fit_seconds"):
        return None
    began_at = recipe.epochs * recipe.restarts[-1] if recipe.restarts else 0.0
    epoch_seconds = spent["fit_seconds"] / max(1e-9, recipe.epochs - began_at)
    limit = min(setup.trial_seconds or float("inf"), _MARGIN * seconds_left)
    longest = setup.space.find_bounds("epochs")[1]  # twice as long as that was tried: it did not pay (docs/figures.md)
    epochs = min(_LONGER * recipe.epochs, longest, recipe.epochs + limit / epoch_seconds)
    if epochs < _LEAST * recipe.epochs:
        return None
    epochs = float(f"{epochs:.3g}")
    shares = (*(share * recipe.epochs / epochs for share in recipe.restarts), recipe.epochs / epochs)
    return Continuation(best, recipe.model_copy(update={"epochs": epochs, "restarts": shares}))


def make_continuation(setup: StudySetup, continued: Continuation, host: str) -> FrozenTrial:
    """Makes a running trial that goes on where another one ended; it is in no storage yet.

    For the sampler it is a trial of the same parameters, but for the nearest length that the space has.
    """
    frozen, recipe = continued.trial, continued.recipe
    params = dict(frozen.params)
    node = dict(setup.space.iterate_parameters()).get("epochs")
    if "epochs" in params and isinstance(node, Ordered):
        lengths = [float(option) for option in node.options]
        params["epochs"] = min(range(len(lengths)), key=lambda index: abs(lengths[index] - recipe.epochs))
    elif "epochs" in params:
        low, high = setup.space.find_bounds("epochs")
        whole = isinstance(frozen.distributions["epochs"], IntDistribution)
        length = min(max(recipe.epochs, low), high)
        params["epochs"] = round(length) if whole else length
    record = read_trial_record(frozen)
    attributes = {
        "backbone": record.backbone,
        "view": record.view,
        "host": host,
        "continues": frozen.number,
        "recipe": recipe.model_dump_json(),
        "image_size": recipe.image_size,
        "epochs": recipe.epochs,
    }
    return create_trial(
        state=TrialState.RUNNING, params=params, distributions=frozen.distributions, user_attrs=attributes
    )


def last_checkpoint(folder: StudyFolder, number: int) -> Path:
    """Returns where the state in which a trial ended is kept, while it is the best."""
    return folder.trial_folder(number) / "last.pt"


def hand_over_checkpoint(artifacts: Artifacts, number: int, successor: int) -> None:
    """Makes the state in which a trial ended the checkpoint that another one begins from, without its reports."""
    source = last_checkpoint(artifacts.folder, number)
    target = artifacts.folder.trial_folder(successor) / "checkpoint.pt"
    artifacts.fetch(source, stop=lambda: True)
    if (state := load_checkpoint(source)) is not None:  # else it was removed meanwhile: the trial begins anew
        step = state["progress"][0]
        save_checkpoint(target, state | {"history": [], "progress": [step, 0.0, 0.0, 0]})
        artifacts.upload(target)
