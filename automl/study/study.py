"""Optuna studies: made, continued and found again, with everything they need stored beside their trials.

A pruner and a sampler are not stored with an Optuna study, so the spec is. The sampler is seeded afresh for each
trial by (seed, trial number): a worker that is killed and replaced goes on as the first one would have.
"""

import json
import os
import warnings
from pathlib import Path
from typing import Any, Literal

import optuna
from optuna.pruners import BasePruner, MedianPruner, NopPruner
from optuna.samplers import BaseSampler, GPSampler, QMCSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState

from automl.backbones.capabilities import without_unsupported
from automl.errors import SpecError, StudyError
from automl.files import write_text
from automl.recipe import Recipe
from automl.spec import StudySpec
from automl.study.folder import StudyFolder
from automl.study.pruning import Halving, Hyperband
from automl.study.storage import Patience, absolute, open_storage

optuna.logging.set_verbosity(optuna.logging.WARNING)
warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)

_BUDGETS = {"trials", "timeout"}
"""What may change from one call to the next of the same study."""

_PATHS = {"path", "files_folder", "groups", "face_model", "weights_dir"}
"""What is a path, in a spec and in its data."""


def open_study(folder: StudyFolder, storage: str | None = None, patience: Patience | None = None) -> optuna.Study:
    """Loads a study that exists.

    Args:
        folder: Where it lies.
        storage: Its storage; None: the one it was begun in.
        patience: Waits for a storage that does not answer now, as for `open_storage`.

    Raises:
        StudyError: If there is none in this folder or storage.
    """
    storage = storage or stored_storage(folder)
    if storage == folder.storage_url and not folder.database.exists():
        known = ", ".join(found.name for found in studies(folder.path.parent)) or "none"
        raise StudyError(f"no study {folder.name!r} in {folder.path.parent}; studies there: {known}")
    try:
        return optuna.load_study(study_name=folder.name, storage=open_storage(storage, patience))
    except KeyError as exc:
        raise StudyError(f"no study {folder.name!r} in the storage {storage}") from exc


def stored_storage(folder: StudyFolder) -> str:
    """The URL of a study's storage."""
    if folder.storage_note.exists():
        return folder.storage_note.read_text(encoding="utf-8").strip()
    return folder.storage_url


def freeze(
    folder: StudyFolder, spec: StudySpec, direction: Literal["maximize", "minimize"], facts: dict[str, Any]
) -> optuna.Study:
    """Creates a study, or opens it again after checking that it is the same one.

    Args:
        folder: Where it lies.
        spec: The resolved spec.
        direction: `maximize` or `minimize`.
        facts: What else must stay the same (space, pool, samples), by name; stored when the study is created.

    Returns:
        The study; new when it has no trials.

    Raises:
        StudyError: If a study of this name has another spec or other facts.
    """
    folder.create()
    known, wanted_storage = stored_storage(folder), absolute(spec.storage or folder.storage_url)
    if folder.begun and absolute(known) != wanted_storage:
        raise StudyError(
            f"study {folder.name!r} exists in the storage {known}; give --storage {known}, or --name for a new study"
        )
    storage = open_storage(wanted_storage, Patience() if spec.storage else None)  # a search has opened it before
    if spec.storage:
        write_text(folder.storage_note, wanted_storage + "\n")
    study = optuna.create_study(study_name=folder.name, storage=storage, direction=direction, load_if_exists=True)
    wanted = _rooted(spec)
    if "spec" in study.user_attrs:
        _check_same(folder, _rooted(stored_spec(study)), wanted)
        for name in ("space", "samples"):
            if study.user_attrs[name] != facts[name]:
                raise StudyError(
                    f"the {name} of study {folder.name!r} changed since it began; give --name for a new study, "
                    f"or delete {folder.path}"
                )
    else:
        for name, value in facts.items():
            study.set_user_attr(name, value)
    study.set_user_attr("spec", json.dumps(wanted))
    return study


def _rooted(spec: StudySpec) -> dict[str, Any]:
    """A spec's values, its paths named from the root: the next command may be given in another folder."""

    def root(values: dict[str, Any]) -> dict[str, Any]:
        given = {name: Path(values[name]).expanduser() for name in _PATHS & values.keys() if values[name]}
        return values | {name: os.path.abspath(path) for name, path in given.items()}  # noqa: PTH100 - links stay links

    values = root(spec.model_dump(mode="json"))
    return values | {"data": root(values["data"])}


def _check_same(folder: StudyFolder, stored: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Everything but the budgets must be as it was; the storage is, by whatever path it is named."""
    changed = [
        f"{path} was {was}, is {now}"
        for path, was, now in _differences(stored, wanted)
        if path.split(".")[-1] not in _BUDGETS and path != "storage"
    ]
    if changed:
        raise StudyError(
            f"study {folder.name!r} exists with another spec ({'; '.join(changed)}); "
            f"give --name for a new study, or delete {folder.path}"
        )


def _differences(was: Any, now: Any, path: str = "") -> list[tuple[str, Any, Any]]:
    if isinstance(was, dict) and isinstance(now, dict):
        keys = was.keys() | now.keys()
        return [
            row for key in sorted(keys) for row in _differences(was.get(key), now.get(key), f"{path}.{key}".strip("."))
        ]
    return [] if was == now else [(path, was, now)]


def stored_spec(study: optuna.Study) -> StudySpec:
    """The spec a study was made with.

    Raises:
        StudyError: If the study was not made by automl.
    """
    if "spec" not in study.user_attrs:
        raise StudyError(f"study {study.study_name!r} was not made by automl: it holds no spec")
    return StudySpec.from_mapping(json.loads(study.user_attrs["spec"]), f"study {study.study_name}")


def studies(runs: Path) -> list[StudyFolder]:
    """The studies under a folder, the one that was worked on last at the end."""
    found = [folder for folder in map(StudyFolder, runs.expanduser().glob("*")) if folder.begun]
    return sorted(found, key=lambda folder: folder.changed)


def find_study(runs: Path, name: str | None) -> StudyFolder:
    """The folder of the named study, or of the latest one.

    Raises:
        StudyError: If no name is given and there is no study. A named one is not looked for.
    """
    if name is not None:
        return StudyFolder(runs / name)
    found = studies(runs)
    if not found:
        raise StudyError(f"no studies in {runs}; begin one with: automl search --gpu-mem 16GB --trials 50")
    return found[-1]


def make_sampler(spec: StudySpec, number: int, known_good: int) -> BaseSampler:
    """The sampler for one trial.

    Args:
        spec: Gives sampler and seed.
        number: How many trials the study has.
        known_good: Trials that were enqueued; they count as the start-up of a model-based sampler.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return _sampler(spec, number, known_good)


def _sampler(spec: StudySpec, number: int, known_good: int) -> BaseSampler:
    seed = (spec.seed * 1_000_003 + number) % 2**32
    # A few good recipes are a better start than many random ones: what is drawn next is drawn around them.
    startup = known_good or min(8, max(2, spec.budget.trials // 5))
    if spec.sampler == "tpe":
        # `group` lets multivariate TPE model parameters that exist in one branch only.
        return TPESampler(seed=seed, n_startup_trials=startup, multivariate=True, group=True, constant_liar=True)
    if spec.sampler == "gp":
        return GPSampler(seed=seed, n_startup_trials=startup, deterministic_objective=False)
    if spec.sampler == "qmc":
        # One sequence for the whole study: its points are counted in the storage.
        # Choices are no part of it; drawn with the sequence's seed they would be the same in every trial.
        choices = RandomSampler(seed=seed)
        return QMCSampler(seed=spec.seed, scramble=True, independent_sampler=choices, warn_independent_sampling=False)
    return RandomSampler(seed=seed)


def make_pruner(spec: StudySpec) -> BasePruner:
    """The pruner; steps are eighths of a run.

    Raises:
        SpecError: If the spec, of an earlier version, names a pruner that is no more.
    """
    if spec.pruner == "halving":
        return Halving()
    if spec.pruner == "hyperband":
        return Hyperband()
    if spec.pruner == "median":
        # The first report is of step 1: it is too early to tell, the next one is not.
        return MedianPruner(n_startup_trials=4, n_warmup_steps=2)
    if spec.pruner == "wilcoxon":
        # Its test wants at least four reports in common before it can prune at all, and independent ones; a run of a
        # few epochs makes one to three before its end, and all are of one learning curve.
        raise SpecError("pruner wilcoxon is no more: it cannot judge learning curves; give halving, or median")
    return NopPruner()


def finished(study: optuna.Study) -> list[FrozenTrial]:
    """Trials that were told, in the order they ended."""
    states = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
    done = study.get_trials(deepcopy=False, states=states)
    return sorted(done, key=lambda trial: (trial.datetime_complete is None, trial.datetime_complete, trial.number))


def best_trial(study: optuna.Study) -> FrozenTrial | None:
    """The best complete trial, or None while there is none."""
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if not complete:
        return None
    sign = 1 if study.direction == optuna.study.StudyDirection.MAXIMIZE else -1
    return max(complete, key=lambda trial: (sign * (trial.value or 0.0), -trial.number))


def recipe_of(trial: FrozenTrial) -> Recipe:
    """The recipe a trial trained; of a study of an earlier version without what the backbone had ignored.

    Raises:
        StudyError: If the trial has none (it failed before it was resolved).
    """
    if "recipe" not in trial.user_attrs:
        raise StudyError(f"trial {trial.number} has no recipe: it failed before it was resolved")
    recipe = Recipe.from_mapping(json.loads(trial.user_attrs["recipe"]), f"trial {trial.number}")
    return without_unsupported(recipe)[0]
