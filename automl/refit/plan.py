"""What to train: a recipe, the data, the splits it may learn from, and what is known of it before.

It comes from a study (the confirmed recipe, else the best one, on the study's own samples and splits), or from a recipe
file and data that are named.
"""

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from automl.backbones.capabilities import check_image_size, without_unsupported
from automl.backbones.weights import Weights, find_weights, hub_reachable
from automl.data.dataset import Dataset, open_dataset, train_on
from automl.data.layouts.label_file import read_table
from automl.data.layouts.text_table import TABLES
from automl.errors import DataError, RecipeError, SpecError, StudyError, WeightsError
from automl.files import load_yaml
from automl.memory.estimate import largest_micro_batch
from automl.recipe import Numerics, Recipe
from automl.space.space import load_space
from automl.spec import StudySpec
from automl.study.confirmation import Confirmation, load_confirmation
from automl.study.folder import StudyFolder
from automl.study.pool import PoolEntry
from automl.study.search import open_result
from automl.study.setup import Facts, digest
from automl.study.study import find_study
from automl.study.views import SPACES
from automl.training.metrics import default_metric


@dataclass(frozen=True)
class Plan:
    """Everything a final training needs."""

    name: str
    """Of the study or the data."""
    source: str
    """Where the recipe is from, in words."""
    recipe: Recipe
    dataset: Dataset
    """With the splits as the study, or the data, have them."""
    decode_size: int
    """Pixels of the short side that images are decoded to (`decode_size`)."""
    weights: Weights | None
    metric: str
    scores: dict[str, Any] = field(default_factory=dict)
    """What is known of the recipe, by split, as it stands in metrics.json."""
    made_on: frozenset[str] = frozenset()
    """Kinds of device (`cpu`, `cuda`) that the recipe's numerics were timed on; empty: not known."""
    learned: tuple[str, ...] = ("train", "validation")
    """The splits that are trained on."""
    without: tuple[str, ...] = ()
    """What the recipe asked for and its backbone does not have."""

    def samples(self) -> Dataset:
        """The data set, with all that is trained on in its training split."""
        return train_on(self.dataset, self.learned)

    def changed(self, *, ema: float | None, seed: int | None, with_holdout: bool, early_stopping: bool) -> "Plan":
        """The plan with what the user wishes.

        Args:
            ema: In place of the recipe's `ema_decay`.
            seed: In place of the recipe's seed; the splits stay.
            with_holdout: Train on the holdout although nothing has been scored on it.
            early_stopping: Keep the validation split to stop by.
        """
        given = {"ema_decay": ema, "seed": seed}
        values = self.recipe.model_dump() | {name: value for name, value in given.items() if value is not None}
        learned = {"train", *self.learned} | ({"holdout"} if with_holdout else set())
        if early_stopping:
            learned -= {"validation"}
        ordered = tuple(split for split in ("train", "validation", "holdout") if split in learned)
        return replace(self, recipe=Recipe.from_mapping(values), learned=ordered)

    def on(self, device: str) -> "Plan":
        """The plan with numerics for a device: fp32 where the recipe's were timed on another kind."""
        kind = device.split(":")[0]
        other = bool(self.made_on) and kind not in self.made_on
        if not other and not (kind == "cpu" and self.recipe.numerics.precision == "fp16"):
            return self
        numerics = Numerics(grad_checkpointing=self.recipe.numerics.grad_checkpointing)
        plain = self.recipe.model_copy(update={"numerics": numerics})
        if kind == "cuda":
            import torch

            limit = torch.cuda.get_device_properties(device).total_memory
            micro = largest_micro_batch(plain, len(self.dataset.classes), limit) or 1
            if micro < plain.batch_size:
                numerics = numerics.model_copy(update={"micro_batch_size": micro})
                plain = plain.model_copy(update={"numerics": numerics})
        return replace(self, recipe=plain)

    def record(self) -> dict[str, Any]:
        """What makes two trainings the same, as plain data."""
        return {
            "recipe": self.recipe.model_dump(mode="json"),
            "samples": digest(self.samples()),
            "decode_size": self.decode_size,
        }


def make_plan(
    study: str | None,
    recipe: Path | None,
    data: dict[str, Any] | None,
    runs: Path,
    weights_dir: Path | None,
) -> Plan:
    """Finds out what to train.

    Args:
        study: Its name; None: that of the recipe's folder, or the latest.
        recipe: A recipe file; None: the study's confirmed recipe, else its best.
        data: Keys of `DataSpec`; None: the study's data.
        runs: The folder of the studies.
        weights_dir: Where to look for weights first.

    Raises:
        RecipeError: If the file is no recipe, or data are given without one.
        StudyError: If there is no such study, or it has no recipe yet.
        WeightsError: If the backbone's weights are out of reach.
        DataError: If the data cannot be used.
    """
    if data is not None:
        if "path" not in data and data.get("format") != "demo":
            raise SpecError(f"{', '.join(data)}: only with --data; a study brings its own")
        if study is not None:
            raise StudyError(f"a study ({study}) brings its own data; leave out the study, or --data")
        if recipe is None:
            raise RecipeError("--data needs --recipe: the recipe to train on it, such as runs/STUDY/best.yaml")
        return _plan_of_data(recipe, data, weights_dir)
    if study is None and recipe is not None:
        beside = _study_beside(recipe)
        if beside is None:
            load_recipe(recipe)  # a mistake in the file comes before the question for data
            raise RecipeError(f"{recipe} does not lie in a study's folder; say what to train on with --data or STUDY")
        return plan_of_study(beside, recipe, weights_dir)
    return plan_of_study(find_study(runs, study), recipe, weights_dir)


def plan_of_study(folder: StudyFolder, recipe: Path | Recipe | None = None, weights_dir: Path | None = None) -> Plan:
    """A recipe on a study's samples; arguments and errors as in `make_plan`."""
    facts = open_result(folder).facts
    confirmation = load_confirmation(folder)
    if recipe is None:
        recipe = folder.winner
    if recipe is None:
        raise StudyError(f"study {folder.name} has no recipe yet; continue it with automl search")
    source = str(recipe) if isinstance(recipe, Path) else f"study {folder.name}"
    if isinstance(recipe, Path):
        recipe = load_recipe(recipe)
    scores = confirmed_scores(confirmation, recipe) if confirmation else {}
    check_image_size(recipe)
    recipe, without = without_unsupported(recipe)
    return Plan(
        name=folder.name,
        source=source,
        recipe=recipe,
        dataset=facts.dataset,
        decode_size=decode_size(recipe, facts),
        weights=_weights(recipe, weights_dir, facts.pool.named(recipe.backbone)),
        metric=facts.metric,
        scores=scores,
        made_on=_devices_of(folder),
        learned=("train", "validation", "holdout") if "holdout" in scores else ("train", "validation"),
        without=without,
    )


def load_recipe(path: Path) -> Recipe:
    """Reads a recipe, and tells what a file is that is none.

    Raises:
        RecipeError: With one line, or one for each mistake in a recipe.
    """
    values = load_yaml(path, RecipeError)
    if isinstance(values, dict) and isinstance(values.get("backbone"), str):
        return Recipe.from_mapping(values, str(path))
    kind = "no recipe"
    if isinstance(values, dict):
        if "backbone" in values or "known_good" in values:
            kind = "a search space, not a recipe"
        elif values.keys() & StudySpec.model_fields.keys():
            kind = "a study spec, not a recipe"
    raise RecipeError(f"{path} is {kind} (a recipe names its backbone); automl search writes one: RUNS/STUDY/best.yaml")


def decode_size(recipe: Recipe, facts: Facts | None) -> int:
    """Pixels of the short side that images are decoded to; native crops are cut out of what that leaves.

    It is the study's, else the shipped search space's largest image size; the recipe's own where that is larger.
    """
    shipped = SPACES[recipe.view.media]
    usual = facts.cache_size if facts is not None else load_space(shipped).image_sizes()[-1]
    return max(usual, recipe.image_size)


def confirmed_scores(confirmation: Confirmation, recipe: Recipe) -> dict[str, Any]:
    """The confirmed recipe's scores by split; none for another recipe, whatever its seed and numerics."""
    same = {"seed": recipe.seed, "numerics": recipe.numerics}
    if confirmation.best.recipe.model_copy(update=same) != recipe:
        return {}
    found = {
        "validation": (confirmation.validation, confirmation.validation_samples, confirmation.validation_metrics),
        "holdout": (confirmation.holdout, confirmation.holdout_samples, confirmation.holdout_metrics),
    }
    return {
        split: {"source": "confirm", **asdict(interval), "n": samples, "all": every}
        for split, (interval, samples, every) in found.items()
        if interval is not None
    }


def file_column(dataset: Dataset) -> str:
    """The column of the training label file that names the files; "" where there is no label file."""
    if dataset.format not in ("table", "ffdi", "ffdv"):
        return ""
    names, root = set(dataset.samples["name"]), dataset.root
    for file in [root] if root.is_file() else sorted(path for path in root.iterdir() if path.suffix.lower() in TABLES):
        try:
            header, rows = read_table(file)
        except DataError:
            continue
        hits = {name: sum(row[k] in names for row in rows) for k, name in enumerate(header)}
        if max(hits.values(), default=0):
            return max(hits, key=lambda name: hits[name])
    return ""


def _plan_of_data(path: Path, data: dict[str, Any], weights_dir: Path | None) -> Plan:
    recipe = load_recipe(path)
    check_image_size(recipe)
    recipe, without = without_unsupported(recipe)
    # Splits belong to the recipe's own seed: another --seed is another training on the same samples.
    spec = StudySpec.from_mapping({"data": data, "seed": recipe.seed % 2**32}, "automl train")
    beside = _study_beside(path)
    facts = open_result(beside).facts if beside else None
    dataset = open_dataset(spec.data, spec.seed)
    return Plan(
        name=dataset.name,
        source=str(path),
        recipe=recipe,
        dataset=dataset,
        decode_size=decode_size(recipe, facts),
        weights=_weights(recipe, weights_dir, facts.pool.named(recipe.backbone) if facts else None),
        metric=default_metric(len(dataset.classes)),
        made_on=_devices_of(beside) if beside else frozenset(),
        without=without,
    )


def _study_beside(recipe: Path) -> StudyFolder | None:
    """The study in whose folder a recipe lies."""
    folder = StudyFolder(recipe.absolute().parent)
    return folder if folder.begun else None


def _devices_of(folder: StudyFolder) -> frozenset[str]:
    """The kinds of device that a study's workers trained on, by the names of their logs."""
    return frozenset(path.stem.split("-")[0] for path in (folder.path / "workers").glob("*.log"))


def _weights(recipe: Recipe, weights_dir: Path | None, entry: PoolEntry | None) -> Weights | None:
    """Where the pretrained weights are: in the given folder, where the study had them, or wherever they can be found.

    Raises:
        WeightsError: If the recipe begins with pretrained weights and they are out of reach.
    """
    if not recipe.pretrained:
        return None
    if weights_dir is not None and not weights_dir.is_dir():
        raise WeightsError(f"--weights-dir {weights_dir} is not a folder; give one that holds safetensors files")
    found = entry.find() if entry is not None and weights_dir is None else None
    if found is None or (found.path is not None and not found.path.is_file()):
        found = find_weights(recipe.backbone, weights_dir, hub=hub_reachable())
    if found is None:
        raise WeightsError(
            f"the recipe begins with pretrained weights of {recipe.backbone}, which are out of reach; "
            "give --weights-dir DIR with its safetensors file"
        )
    return found


def differences(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """The names of what differs between two records of trainings, recipes key by key."""
    flat = []
    for record in (one, other):
        plain = json.loads(json.dumps(record))  # tuples and lists are the same here
        inner = plain.pop("recipe", {})
        flat.append(plain | {f"recipe's {name}": value for name, value in inner.items()})
    return sorted(name for name in flat[0].keys() | flat[1].keys() if flat[0].get(name) != flat[1].get(name))
