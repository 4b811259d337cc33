"""Optuna studies: made, continued and found again, with everything they need stored beside their trials.

A pruner and a sampler are not stored with an Optuna study, so the spec is. The sampler is seeded afresh for each
trial by (seed, trial number): a worker that is killed and replaced goes on as the first one would have.
"""

import json
import warnings
from pathlib import Path
from typing import Any, Literal

import optuna
from optuna.pruners import (
    BasePruner,
    HyperbandPruner,
    MedianPruner,
    NopPruner,
    SuccessiveHalvingPruner,
    WilcoxonPruner,
)
from optuna.samplers import BaseSampler, GPSampler, QMCSampler, RandomSampler, TPESampler
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from automl.backbones.capabilities import without_unsupported
from automl.errors import StudyError
from automl.files import write_text
from automl.recipe import Recipe
from automl.search.folder import StudyFolder
from automl.spec import StudySpec
from automl.training.cadence import EIGHTHS

__all__ = [
    "best_trial",
    "find_study",
    "finished",
    "freeze",
    "make_pruner",
    "make_sampler",
    "open_storage",
    "open_study",
    "recipe_of",
    "stored_spec",
    "stored_storage",
    "studies",
]

optuna.logging.set_verbosity(optuna.logging.WARNING)
warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)

_BUDGETS = {"trials", "timeout"}
"""What may change from one call to the next of the same study."""


def open_storage(url: str) -> BaseStorage:
    """Opens an Optuna storage.

    Args:
        url: A database URL as Optuna takes it (`sqlite:///…`, `postgresql://…`, `mysql://…`), or the path of a file
            ending in `.log` for Optuna's journal.

    Raises:
        StudyError: If it cannot be opened.
    """
    try:
        if "://" not in url:
            if not url.endswith(".log"):
                raise StudyError(
                    f"not a storage: {url!r}; give a URL such as sqlite:///study.db, or a .log journal file"
                )
            return JournalStorage(JournalFileBackend(url))
        # SQLite serves one writer at a time: a worker waits for its turn rather than fail.
        arguments = {"connect_args": {"timeout": 60}} if url.startswith("sqlite") else {"pool_pre_ping": True}
        return RDBStorage(url, engine_kwargs=arguments)
    except StudyError:
        raise
    except Exception as exc:  # SQLAlchemy and the drivers raise many types
        reason = str(exc).strip().splitlines()[0] if str(exc).strip() else type(exc).__name__
        raise StudyError(f"cannot open the storage {url}: {reason}") from exc


def open_study(folder: StudyFolder, storage: str | None = None) -> optuna.Study:
    """Loads a study that exists.

    Raises:
        StudyError: If there is none in this folder or storage.
    """
    storage = storage or stored_storage(folder)
    if storage == folder.storage_url and not folder.database.exists():
        known = ", ".join(found.name for found in studies(folder.path.parent)) or "none"
        raise StudyError(f"no study {folder.name!r} in {folder.path.parent}; studies there: {known}")
    try:
        return optuna.load_study(study_name=folder.name, storage=open_storage(storage))
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
    known = stored_storage(folder)
    if folder.begun and known != (spec.storage or folder.storage_url):
        raise StudyError(
            f"study {folder.name!r} exists in the storage {known}; give --storage {known}, or --name for a new study"
        )
    storage = open_storage(spec.storage or folder.storage_url)
    if spec.storage:
        write_text(folder.storage_note, spec.storage + "\n")
    study = optuna.create_study(study_name=folder.name, storage=storage, direction=direction, load_if_exists=True)
    wanted = spec.model_dump(mode="json")
    if "spec" in study.user_attrs:
        _check_same(folder, stored_spec(study).model_dump(mode="json"), wanted)
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


def _check_same(folder: StudyFolder, stored: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Everything but the budgets must be as it was."""
    changed = [
        f"{path} was {was}, is {now}"
        for path, was, now in _differences(stored, wanted)
        if path.split(".")[-1] not in _BUDGETS
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
    """The studies under a folder, oldest first."""
    found = [folder for folder in map(StudyFolder, runs.glob("*")) if folder.begun]
    return sorted(found, key=lambda folder: folder.path.stat().st_mtime)


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
    """The pruner; steps are eighths of a run."""
    if spec.pruner == "halving":
        return SuccessiveHalvingPruner(min_resource=1, reduction_factor=2)
    if spec.pruner == "hyperband":
        return HyperbandPruner(min_resource=1, max_resource=EIGHTHS, reduction_factor=2)
    if spec.pruner == "median":
        return MedianPruner(n_startup_trials=4, n_warmup_steps=1)
    if spec.pruner == "wilcoxon":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return WilcoxonPruner(p_threshold=0.1, n_startup_steps=2)
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
