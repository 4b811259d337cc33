"""A greedy ensemble of a confirmed study's models, each trained again on all the data."""

import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from automl.devices import find_devices
from automl.errors import SpecError, StudyError
from automl.models.combine import greedy
from automl.models.folder import ModelFolder, read_members, write_ensemble
from automl.recipe import Recipe
from automl.refit.output_folder import Place
from automl.refit.plan import Plan, plan_of_study
from automl.refit.train import Wishes, train_plan
from automl.reporter import ConsoleReporter, Reporter, SilentReporter
from automl.study.confirmation import Confirmation, load_confirmation
from automl.study.folder import StudyFolder
from automl.study.study import find_study
from automl.training.distributed import current_team, joined

Members = dict[str, tuple[Recipe, float]]


def train_ensemble(
    study: str | None = None,
    *,
    size: int,
    out: str | Path | None = None,
    runs: str | Path = "runs",
    weights_dir: str | Path | None = None,
    reporter: Reporter | None = None,
    **wishes: Any,
) -> list[tuple[ModelFolder, float]]:
    """Chooses models among those that confirmed a study, trains each on all the data, and writes them as one model.

    The models (each confirmed recipe with each of its seeds) are weighed by their predictions of the validation split
    (`export.ensemble.greedy`); those that count are trained again on train + validation, and on the holdout if the
    study was scored on it.

    Args:
        study: Name of the study; None: the latest. It must be confirmed.
        size: Different models in the ensemble at most.
        out: The folder to write; None: `models/` and the study's name with `-ensemble`.
        runs: The folder that holds the studies.
        weights_dir: A folder of safetensors files to look for weights in.
        reporter: Is told what is done; None: lines are printed.
        **wishes: As for `train`, but for `seed`: each member has its own.

    Returns:
        Each member with its weight, as `folder.read_members`.

    Raises:
        AutomlError: As `train`; StudyError if the study is not confirmed.
        KeyboardInterrupt: If it was asked to stop; the same call continues.
    """
    wanted = Wishes(**wishes)
    if size < 1 or wanted.seed is not None:
        raise SpecError("an ensemble has 1 member or more (--ensemble K), each with its own seed (no --seed)")
    reporter = reporter or ConsoleReporter()
    folder = find_study(Path(runs), study)
    confirmation = load_confirmation(folder)
    if confirmation is None:
        raise StudyError(f"study {folder.name} is not confirmed; run first: automl confirm {folder.name}")
    where = Path(weights_dir) if weights_dir is not None else None
    plan = plan_of_study(folder, confirmation.best.recipe, where)
    chosen = choose(folder, confirmation, size, plan.dataset.positive)
    place = Place(Path(out) if out is not None else Path("models") / f"{folder.name}-ensemble")
    recipes = {name: recipe.model_dump(mode="json") for name, (recipe, _) in chosen.items()}
    record = {"members": recipes, "weights": [weight for _, weight in chosen.values()]}
    with joined(find_devices(wanted.device)[0]) as device:
        team = current_team()
        reporter = reporter if team.leads else SilentReporter()
        for name, (recipe, weight) in chosen.items():
            reporter.print_line(f"member {name}: {recipe.backbone}, weight {weight:.3f}")
        done = team.leads and place.begin(record, overwrite=wanted.overwrite)
        if not team.any(done, torch.device(device)):
            wanted = replace(wanted, overwrite=False, with_holdout=confirmation.holdout is not None)
            for name, (recipe, _) in chosen.items():
                _train_member(plan_of_study(folder, recipe, where), wanted, place.folder / name, device, reporter)
            if team.leads:
                write_ensemble(place.folder, {name: weight for name, (_, weight) in chosen.items()})
                place.end()
                reporter.print_line(f"written: {place.folder}")
        team.any(False, torch.device(device))  # nobody reads before it is written
        return read_members(place.folder)


def choose(folder: StudyFolder, confirmation: Confirmation, size: int, positive: int) -> Members:
    """Chooses the members by the predictions of the validation split.

    Args:
        folder: The study's, where the predictions lie.
        confirmation: Names them.
        size: Members at most.
        positive: The positive class, where there are two.

    Returns:
        The recipe, with its seed, and the weight of each member, by a name for its folder.

    Raises:
        StudyError: If predictions are missing.
    """
    models, found, labels = [], [], np.zeros(0, dtype=np.int64)
    for candidate in confirmation.candidates:
        for seed, file in zip(candidate.seeds, candidate.predictions, strict=True):
            recipe = candidate.recipe.model_copy(update={"seed": seed})
            models.append((f"{candidate.trial:04d}-{seed}", recipe))
            probabilities, labels = _read(folder.path / file)
            found.append(probabilities)
    weights = greedy(found, labels, confirmation.metric, positive)
    heaviest = sorted(range(len(models)), key=lambda k: -weights[k])[:size]
    if sum(weight > 0 for weight in weights) > size:  # weigh the heaviest again, without the others
        again = greedy([found[k] for k in heaviest], labels, confirmation.metric, positive)
        weights = [again[heaviest.index(k)] if k in heaviest else 0.0 for k in range(len(models))]
    return {name: (recipe, weight) for (name, recipe), weight in zip(models, weights, strict=True) if weight > 0}


def _train_member(plan: Plan, wishes: Wishes, out: Path, device: str, reporter: Reporter) -> None:
    """Trains one member, unless it was finished before a kill: the record of the whole says that it is this one."""
    team = current_team()
    finished = team.leads and Place(out).finished
    if not team.any(finished, torch.device(device)):
        train_plan(plan, wishes, out, reporter)


def _read(path: Path) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Validation probabilities (N, C) and labels (N,) of a model that confirmed."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return file["validation"], file["labels"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as exc:
        raise StudyError(f"cannot read the predictions {path}: {exc}; run automl confirm again") from exc
