"""Plans of final trainings: a recipe, the data, the splits it may learn from, and its scores so far.

A plan comes from a study (the confirmed recipe, else the best one, on the study's own samples and splits), or from a
recipe file and data that are named.
"""

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from automl.backbones.capabilities import check_image_size, correct_tuning, without_unsupported
from automl.backbones.weights import Weights, find_weights, hub_reachable
from automl.data.dataset import Dataset, train_on
from automl.data.drop_copies import open_samples
from automl.errors import RecipeError, SpecError, StudyError, WeightsError
from automl.files import load_yaml
from automl.models.combine import choose_weights
from automl.models.folder import ValidationScores, make_validation_scores
from automl.recipe import Numerics, Recipe
from automl.space.space import load_space
from automl.spec import StudySpec
from automl.study.confirm import Confirmation, load_confirmation
from automl.study.folder import StudyFolder, find_study, find_study_beside
from automl.study.identity import digest_samples
from automl.study.pool import PoolEntry, fit_within_memory
from automl.study.search import open_result
from automl.study.setup import StudySetup
from automl.study.spaces import SPACES
from automl.training.intervals import Interval
from automl.training.metrics import default_metric
from automl.training.schedule import EIGHTHS
from automl.units import parse_memory

JOINED = "an ensemble of models that learned from the training split alone, whose weights these samples chose"
"""What validation scores of an ensemble are of."""


@dataclass(frozen=True)
class TrainOptions:
    """What the user decides about a final training, beside the recipe."""

    ema: float | None = None
    """In place of the recipe's `ema_decay`."""
    seed: int | None = None
    """In place of the recipe's."""
    soup: int = 0
    """Mean of the weights at so many of the last eighths of the run; 0: the last weights."""
    early_stopping: int = 0
    """Evaluations without improvement that end the run; 0: it has the recipe's length."""
    with_holdout: bool = False
    """Train on the holdout although the recipe has not been confirmed."""
    gpu_mem: str | int | None = None
    """GPU memory to stay within; None: the plan's budget."""
    device: str = "auto"
    overwrite: bool = False
    merge: bool = False
    """Write all weights, although the recipe trains a part of them."""

    def __post_init__(self) -> None:
        if not 0 <= self.soup <= EIGHTHS:
            raise SpecError(f"--soup {self.soup}: a run has {EIGHTHS} eighths; give 1 to {EIGHTHS}")
        if self.early_stopping < 0:
            raise SpecError(f"--early-stopping {self.early_stopping}: give 1 or more evaluations")
        if self.soup and self.early_stopping:
            raise SpecError("--soup and --early-stopping choose the weights in two ways; give one of them")
        if self.gpu_mem is not None:
            parse_memory(self.gpu_mem)


@dataclass(frozen=True)
class TrainPlan:
    """Everything a final training needs."""

    name: str
    """Of the study or the data."""
    source: str
    """Where the recipe is from, in words."""
    recipe: Recipe
    dataset: Dataset
    """With the splits as the study, or the data, have them."""
    metric: str
    scores: dict[str, Any] = field(default_factory=dict)
    """Scores of the recipe, by split, as they stand in metrics.json."""
    train_splits: tuple[str, ...] = ("train", "validation")
    drawn_by_search: bool = False
    """Whether the study drew the recipe: of its own ones, its pool knows that they fit its budget."""
    decode_size: int = 0
    """Pixels of the short side that images are decoded to (`choose_decode_size`)."""
    weights: Weights | None = None
    unsupported: tuple[str, ...] = ()
    """What the recipe asked for and its backbone does not have."""
    timed_on: frozenset[str] = frozenset()
    """Kinds of device (`cpu`, `cuda`) that the recipe's numerics were timed on; empty: not known."""
    entry: PoolEntry | None = None
    """What a study knows of the backbone's memory."""
    memory_bytes: int | None = None
    """The study's memory budget; None: no limit."""
    validation: ValidationScores | None = None
    """Scores of the validation split by the models that confirmed the recipe."""

    def train_dataset(self) -> Dataset:
        """Returns the data set, with all that is trained on in its training split."""
        return train_on(self.dataset, self.train_splits)

    def apply_options(self, options: TrainOptions) -> "TrainPlan":
        """Returns the plan with the user's EMA and seed; the splits stay, but for the holdout and early stopping's."""
        given = {"ema_decay": options.ema, "seed": options.seed}
        values = self.recipe.model_dump() | {name: value for name, value in given.items() if value is not None}
        wanted = {"train", *self.train_splits} | ({"holdout"} if options.with_holdout else set())
        if options.early_stopping:
            wanted -= {"validation"}
        splits = tuple(split for split in ("train", "validation", "holdout") if split in wanted)
        return replace(self, recipe=Recipe.from_mapping(values), train_splits=splits)

    def fit_to_device(self, device: str, memory_bytes: int | None) -> "TrainPlan":
        """Returns the plan with numerics for a device, `cpu` or `cuda:N`, and a micro-batch within a memory budget.

        They are fp32 where the recipe's were timed on another kind of device.
        """
        kind, recipe, entry = device.split(":")[0], self.recipe, self.entry
        other = bool(self.timed_on) and kind not in self.timed_on
        if other or (kind == "cpu" and recipe.numerics.precision == "fp16"):
            numerics = Numerics(grad_checkpointing=recipe.numerics.grad_checkpointing)
            recipe, entry = recipe.model_copy(update={"numerics": numerics}), None
            if kind == "cuda" and memory_bytes is None:
                import torch

                memory_bytes = torch.cuda.get_device_properties(device).total_memory
        trust = self.drawn_by_search and memory_bytes == self.memory_bytes
        recipe = fit_within_memory(recipe, entry, len(self.dataset.classes), memory_bytes, trust_pool=trust)
        return replace(self, recipe=recipe)

    def record(self) -> dict[str, Any]:
        """Returns what makes two trainings the same, as plain data."""
        return {
            "recipe": self.recipe.model_dump(mode="json"),
            "samples": digest_samples(self.train_dataset()),
            "decode_size": self.decode_size,
        }


def make_plan(
    study: str | None,
    recipe: Path | None,
    data: dict[str, Any] | None,
    runs: Path,
    weights_dir: Path | None,
) -> TrainPlan:
    """Finds the recipe, the data and the weights to train; arguments as in `automl.train`."""
    if data is not None:
        if "path" not in data and data.get("format") != "demo":
            raise SpecError(f"{', '.join(data)}: only with --data; a study brings its own")
        if study is not None:
            raise StudyError(f"a study ({study}) brings its own data; leave out the study, or --data")
        if recipe is None:
            raise RecipeError("--data needs --recipe: the recipe to train on it, such as runs/STUDY/best.yaml")
        return _plan_for_data(recipe, data, weights_dir)
    if study is None and recipe is not None:
        beside = find_study_beside(recipe)
        if beside is None:
            load_recipe(recipe)  # a mistake in the file comes before the question for data
            raise RecipeError(f"{recipe} is in no study's folder; name what to train on with --data or STUDY")
        return plan_for_study(beside, recipe, weights_dir)
    return plan_for_study(find_study(runs, study), recipe, weights_dir)


def plan_for_study(
    folder: StudyFolder, recipe: Path | Recipe | None = None, weights_dir: Path | None = None
) -> TrainPlan:
    """Plans the training of a recipe on a study's samples; arguments as in `make_plan`."""
    setup, confirmation = open_result(folder).setup, load_confirmation(folder)
    drawn_by_search = not isinstance(recipe, Path)
    if recipe is None:
        recipe = folder.winner
    if recipe is None:
        raise StudyError(f"study {folder.name} has no recipe yet; continue it with automl search")
    source = str(recipe) if isinstance(recipe, Path) else f"study {folder.name}"
    if isinstance(recipe, Path):
        recipe = load_recipe(recipe)
    scores = read_confirmed_scores(confirmation, recipe) if confirmation else {}
    splits = ("train", "validation", "holdout") if "holdout" in scores else ("train", "validation")
    plan = TrainPlan(folder.name, source, recipe, setup.dataset, setup.metric, scores, splits, drawn_by_search)
    if scores and confirmation:
        files = [folder.path / file for file in confirmation.best.predictions]
        plan = replace(plan, validation=_read_validation(files, setup.dataset))
    return _complete_plan(plan, folder, setup, weights_dir)


def load_recipe(path: Path) -> Recipe:
    """Reads a recipe; names what a file is that is none."""
    values = load_yaml(path, RecipeError)
    if isinstance(values, dict) and isinstance(values.get("backbone"), str):
        return Recipe.load(path)
    kind = "no recipe"
    if isinstance(values, dict):
        if "backbone" in values or "known_good" in values:
            kind = "a search space, not a recipe"
        elif values.keys() & StudySpec.model_fields.keys():
            kind = "a study spec, not a recipe"
    raise RecipeError(f"{path} is {kind} (a recipe names its backbone); automl search writes one: RUNS/STUDY/best.yaml")


def choose_decode_size(recipe: Recipe, setup: StudySetup | None) -> int:
    """Chooses the pixels of the short side that images are decoded to; native crops are cut out of what that leaves.

    It is the study's, else the shipped search space's largest image size; the recipe's own where that is larger.
    """
    shipped = SPACES[recipe.view.media]
    usual = setup.cache_size if setup is not None else load_space(shipped).image_sizes()[-1]
    return max(usual, recipe.image_size)


def read_confirmed_scores(confirmation: Confirmation, recipe: Recipe) -> dict[str, Any]:
    """Reads the confirmed recipe's scores by split; none for another recipe, whatever its seed and numerics."""
    same = {"seed": recipe.seed, "numerics": recipe.numerics}
    if confirmation.best.recipe.model_copy(update=same) != recipe:
        return {}
    one = confirmation
    scores = {"validation": describe_score("confirm", one.validation, one.validation_samples, one.validation_metrics)}
    if one.holdout is not None:
        scores["holdout"] = describe_score("confirm", one.holdout, one.holdout_samples, one.holdout_metrics)
    return scores


def describe_score(source: str, interval: Interval, samples: int, metrics: Mapping[str, float]) -> dict[str, Any]:
    """Returns a score on a split as it stands in metrics.json; `source` says what was scored."""
    return {"source": source, **asdict(interval), "n": samples, "all": metrics}


def _plan_for_data(path: Path, data: dict[str, Any], weights_dir: Path | None) -> TrainPlan:
    """Plans the training of a recipe file on data that are named."""
    recipe = load_recipe(path)
    # Splits belong to the recipe's own seed: another --seed is another training on the same samples.
    spec = StudySpec.from_mapping({"data": data, "seed": recipe.seed % 2**32}, "automl train")
    beside = find_study_beside(path)
    setup = open_result(beside).setup if beside else None
    dataset = open_samples(spec.data, spec.seed)
    metric = default_metric(len(dataset.classes))
    return _complete_plan(TrainPlan(dataset.name, str(path), recipe, dataset, metric), beside, setup, weights_dir)


def _complete_plan(
    plan: TrainPlan, folder: StudyFolder | None, setup: StudySetup | None, weights_dir: Path | None
) -> TrainPlan:
    """Adds the weights, what the backbone does not support, and what a study knows of device and memory."""
    check_image_size(plan.recipe)
    recipe, unsupported = without_unsupported(plan.recipe)
    recipe, foreign = correct_tuning(recipe)
    entry = setup.pool.find_entry(recipe.backbone) if setup is not None else None
    weights, decode_size = _find_weights(recipe, weights_dir, entry), choose_decode_size(recipe, setup)
    plan = replace(plan, recipe=recipe, unsupported=(*unsupported, *foreign), weights=weights, decode_size=decode_size)
    if folder is None or setup is None:
        return plan
    # The kinds of device that the study's workers trained on stand in the names of their logs.
    timed_on = frozenset(path.stem.split("-")[0] for path in (folder.path / "workers").glob("*.log"))
    return replace(plan, timed_on=timed_on, entry=entry, memory_bytes=setup.memory_bytes)


def _find_weights(recipe: Recipe, weights_dir: Path | None, entry: PoolEntry | None) -> Weights | None:
    """Finds the pretrained weights: in the given folder, where the study had them, or wherever they are."""
    if not recipe.pretrained:
        return None
    if weights_dir is not None and not weights_dir.is_dir():
        raise WeightsError(f"--weights-dir {weights_dir} is not a folder; give one that holds safetensors files")
    weights = entry.locate_weights() if entry is not None and weights_dir is None else None
    if weights is None or (weights.path is not None and not weights.path.is_file()):
        weights = find_weights(recipe.backbone, weights_dir, hub=hub_reachable())
    if weights is None:
        raise WeightsError(
            f"the recipe begins with pretrained weights of {recipe.backbone}, which are out of reach; "
            "give --weights-dir DIR with its safetensors file"
        )
    return weights


# --- ensembles of confirmed models -----------------------------------------------------------------------------------


Members = dict[str, tuple[Recipe, float]]
"""The recipe, with its seed, and the weight of each member, by the name of its folder."""


def choose_members(folder: StudyFolder, size: int) -> tuple[Members, bool, ValidationScores | None]:
    """Chooses at most so many of the models that confirmed a study, and their weights, by their validation predictions.

    Returns:
        The members; whether the study was scored on its holdout, so that they may learn from it; and the validation
        scores of such an ensemble.
    """
    confirmation = load_confirmation(folder)
    if confirmation is None:
        raise StudyError(f"study {folder.name} is not confirmed; run first: {folder.command_line('confirm')}")
    recipes: list[tuple[str, Recipe]] = []
    predictions, labels = [], np.zeros(0, dtype=np.int64)
    for candidate in confirmation.candidates:
        for seed, file in zip(candidate.seeds, candidate.predictions, strict=True):
            recipe = candidate.recipe.model_copy(update={"seed": seed})
            recipes.append((f"{candidate.trial:04d}-{seed}", recipe))
            probabilities, labels = _read_predictions(folder.path / file)
            predictions.append(probabilities)
    dataset = open_result(folder).setup.dataset
    positive = dataset.positive
    weights = choose_weights(predictions, labels, confirmation.metric, positive)
    heaviest = sorted(range(len(recipes)), key=lambda k: -weights[k])[:size]
    if sum(weight > 0 for weight in weights) > size:  # weigh the heaviest again, without the others
        again = choose_weights([predictions[k] for k in heaviest], labels, confirmation.metric, positive)
        weights = [again[heaviest.index(k)] if k in heaviest else 0.0 for k in range(len(recipes))]
    members = {name: (recipe, weight) for (name, recipe), weight in zip(recipes, weights, strict=True) if weight > 0}
    mean = np.average(predictions, axis=0, weights=weights)
    scores = make_validation_scores(JOINED, labels, [mean], dataset.classes, positive)
    return members, confirmation.holdout is not None, scores


def _read_validation(files: Sequence[Path], dataset: Dataset) -> ValidationScores | None:
    """Reads the validation scores of the models that confirmed a recipe; None where their files are gone."""
    if not all(file.is_file() for file in files):
        return None
    read = [_read_predictions(file) for file in files]
    source = "models of this recipe that learned from the training split alone (automl confirm)"
    probabilities = [probabilities for probabilities, _ in read]
    return make_validation_scores(source, read[0][1], probabilities, dataset.classes, dataset.positive)


def _read_predictions(path: Path) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Reads the validation probabilities (N, C) and labels (N,) of a model that confirmed."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return file["validation"], file["labels"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as exc:
        raise StudyError(f"cannot read the predictions {path}: {exc}; run automl confirm again") from exc
