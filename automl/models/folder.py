"""The model folder: what `automl train` writes, and everything else about the trained model reads.

    model.safetensors     the weights, fp32, by timm's names; where a part was trained, that part alone
    base.json             of that: the pretrained weights it belongs to, by name and digest
    recipe.yaml           how they were trained
    preprocessing.json    how a file becomes the network's input
    labels.json           the classes, their shares in training, the label file's columns
    metrics.json          what it scored, on what, with intervals
    validation.json       of two classes: scores of validation samples that were not learned from, if there are any
    trained_on.txt        digests of the names and sizes of the files it was trained on (`automl.models.trained_on`)
    README.md             the model card

An ensemble is a folder with `ensemble.json` (the weight of each member) and one model folder per member below it. Where
the members' scores are not averaged but joined as evidence, `fusion.json` says how (`automl.models.combine`).
Nothing in it is a pickle, and nothing that could run code is loaded.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import TypeAdapter, ValidationError

from automl.backbones.input import InputSpec
from automl.backbones.weights import Weights, digest_file, find_weights, hub_reachable, locate_file, make_model
from automl.errors import WeightsError, first_line, shorten
from automl.files import explain_write_errors, write_atomically, write_text
from automl.recipe import Recipe
from automl.recipe.tuning import TuneAll
from automl.schema import describe_errors
from automl.training.checkpoint import weights_on_cpu

if TYPE_CHECKING:
    from _typeshed import DataclassInstance
    from numpy.typing import NDArray
    from torch import nn


_WEIGHTS, _RECIPE, _INPUT, _LABELS = "model.safetensors", "recipe.yaml", "preprocessing.json", "labels.json"
_BASE = "base.json"
_METRICS, _CARD, ENSEMBLE_FILE, FUSION_FILE = "metrics.json", "README.md", "ensemble.json", "fusion.json"
VALIDATION_FILE = "validation.json"
_PICKLES = (".pt", ".pth", ".ckpt", ".bin", ".pkl", ".pickle", ".tar", ".joblib")


@dataclass(frozen=True)
class Labels:
    """What the outputs mean."""

    classes: tuple[str, ...]
    """In the order of the outputs."""
    positive: int
    """Index of the class whose probability is predicted, when there are two."""
    prior: tuple[float, ...]
    """Share of each class among the training samples: the prediction for a file that cannot be read."""
    file_column: str = ""
    """Column of the training label file that named the files; "" when it was no label file."""
    real_class: int | None = None
    """Index of the class of genuine images, which self-blending may have forged; None: not known."""


@dataclass(frozen=True)
class BaseWeights:
    """The pretrained weights of which a model folder holds the changes alone."""

    backbone: str
    sha256: str
    """Of the safetensors file."""


@dataclass(frozen=True)
class ValidationScores:
    """Scores of a validation split that was not learned from, by which a threshold can be chosen."""

    source: str
    """What was scored: this model, or others of its recipe."""
    scores: dict[str, tuple[float, ...]]
    """By the name of the true class: the probability of the positive class, sorted."""
    positive: str
    """Name of the positive class."""


@dataclass(frozen=True)
class ModelFolder:
    """A trained model as it lies on the disk; the weights are not loaded yet."""

    path: Path
    recipe: Recipe
    input: InputSpec
    labels: Labels
    metrics: dict[str, Any] = field(default_factory=dict)
    base: BaseWeights | None = None
    """None: the folder holds all of the weights."""
    weights_dir: Path | None = None
    """Where the base weights are looked for before the hub's cache and the hub."""

    def load(self, device: str = "cpu") -> "nn.Module":
        """Builds the network with its weights, in evaluation mode: normalised (B, 3, S, S) float32 → (B, classes).

        Raises:
            WeightsError: If the weights do not fit, or their base is out of reach or another one.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        from automl.backbones.tuning import merge_low_rank, name_changed

        # Whole weights are written with what was changed added to them.
        recipe = self.recipe if self.base else self.recipe.model_copy(update={"tune": TuneAll()})
        model = make_model(recipe, len(self.labels.classes), self._find_base())
        try:
            state = load_file(self.path / _WEIGHTS)
            needed = model.state_dict().keys() if self.base is None else name_changed(model)
            if missing := sorted(needed - state.keys()):
                raise RuntimeError(f"it has no {shorten(missing, 3)}")
            model.load_state_dict(state, strict=self.base is None)
        except (RuntimeError, SafetensorError, OSError) as exc:
            misfit = f"{self.path / _WEIGHTS} does not fit {self.recipe.backbone}"
            raise WeightsError(f"{misfit}: {first_line(exc)}") from exc
        return merge_low_rank(model).eval().to(device)

    def _find_base(self) -> Weights | None:
        """Finds the pretrained weights that the folder's are changes of; None where it holds all."""
        if self.base is None:
            return None
        name = self.base.backbone
        weights = find_weights(name, self.weights_dir, hub=False) or find_weights(name, None, hub=hub_reachable())
        holds = f"{self.path} holds what was trained of {name} alone"
        ways = "give --weights-dir DIR with them, or train with --merge, which writes whole weights"
        if weights is None:
            raise WeightsError(f"{holds}, and the pretrained weights are out of reach; {ways}")
        path = locate_file(name, weights)
        if path is not None and digest_file(path) != self.base.sha256:
            raise WeightsError(f"{holds}, and {path} has other weights than those it was trained from; {ways}")
        return weights


def write_model(
    folder: Path,
    model: "nn.Module",
    recipe: Recipe,
    inputs: InputSpec,
    labels: Labels,
    metrics: dict[str, Any],
    card: str,
    base: BaseWeights | None = None,
) -> ModelFolder:
    """Writes a model folder; the weights go last, so that a folder with weights is complete.

    With its base, what the recipe's `tune` does not train is left out of them; without, low-rank changes are added to
    the weights that they change, in the model as well.
    """
    from safetensors.torch import save_file

    from automl.backbones.tuning import merge_low_rank, name_changed

    with explain_write_errors(folder, WeightsError):
        folder.mkdir(parents=True, exist_ok=True)
        recipe.save(folder / _RECIPE)
        for name, values in ((_INPUT, asdict(inputs)), (_LABELS, asdict(labels)), (_METRICS, metrics)):
            write_text(folder / name, json.dumps(values, indent=2, ensure_ascii=False) + "\n")
        write_text(folder / _CARD, card)
        state = weights_on_cpu(merge_low_rank(model) if base is None else model)
        if base is not None:
            write_text(folder / _BASE, json.dumps(asdict(base), indent=2) + "\n")
            changed = name_changed(model)
            state = {name: tensor for name, tensor in state.items() if name in changed}
        with write_atomically(folder / _WEIGHTS) as temporary:
            save_file(state, temporary, metadata={"format": "pt"})
    return ModelFolder(folder, recipe, inputs, labels, metrics, base)


def write_ensemble(
    folder: Path, weights: dict[str, float], fusion: "DataclassInstance | None" = None, card: str = ""
) -> None:
    """Makes an ensemble of a folder that holds one model folder per member; `ensemble.json` goes last.

    `weights` is the share of each member in the mean of the probabilities, by the name of its folder; they sum to 1.
    `fusion` (`automl.models.combine.Fusion`) joins the scores instead; its views are the names of the folders.
    """
    if fusion is not None:
        write_text(folder / FUSION_FILE, json.dumps(asdict(fusion), indent=2) + "\n")
    if card:
        write_text(folder / _CARD, card)
    write_text(folder / ENSEMBLE_FILE, json.dumps(weights, indent=2) + "\n")


def make_validation_scores(
    source: str, labels: "NDArray[Any]", probabilities: "Sequence[NDArray[Any]]", classes: Sequence[str], positive: int
) -> ValidationScores | None:
    """Makes the scores of a validation split: labels (N,) int, and of each model (N, C); None of more than two classes.

    Scores of several models, such as one for each seed, are put together, not averaged: a threshold is for one of them.
    """
    if len(classes) != 2:
        return None
    scores = [rows[:, positive] for rows in probabilities]
    by_class = {
        name: tuple(round(float(score), 7) for score in np.sort(np.concatenate([one[labels == k] for one in scores])))
        for k, name in enumerate(classes)
    }
    return ValidationScores(source, by_class, classes[positive])


def write_validation_scores(folder: Path, scores: ValidationScores) -> None:
    """Writes the validation scores of the model, or ensemble, in a folder; before its weights."""
    with explain_write_errors(folder, WeightsError):
        write_text(folder / VALIDATION_FILE, json.dumps(asdict(scores)) + "\n")


def read_validation_scores(folder: Path) -> ValidationScores | None:
    """Reads the validation scores of a model folder; None where none were kept.

    Raises:
        WeightsError: If the file is damaged.
    """
    path = folder / VALIDATION_FILE
    return read_json(path, ValidationScores) if path.is_file() else None


def read_members(path: Path, weights_dir: Path | None = None) -> list[tuple[ModelFolder, float]]:
    """Reads a model folder, or an ensemble of them: each member with its weight; the weights sum to 1.

    `weights_dir` is as for `read_model`.
    """
    if not (path / ENSEMBLE_FILE).is_file():
        return [(read_model(path, weights_dir), 1.0)]
    weights = read_json(path / ENSEMBLE_FILE, dict[str, float])
    total = sum(weights.values())
    if not weights or min(weights.values()) < 0 or not 0 < total < float("inf"):
        raise WeightsError(f"{path / ENSEMBLE_FILE}: weights are positive numbers, one for each member, got {weights}")
    for name in weights:
        if Path(name).name != name or name in ("", ".", ".."):
            raise WeightsError(f"{path / ENSEMBLE_FILE}: {name!r} is not the name of a folder beside it")
    members = [(read_model(path / name, weights_dir), weight / total) for name, weight in weights.items()]
    if len({member.labels.classes for member, _ in members}) > 1:
        raise WeightsError(f"{path}: the members of the ensemble predict different classes")
    return members


def read_model(path: Path, weights_dir: Path | None = None) -> ModelFolder:
    """Reads what `write_model` wrote, without the weights; a pickle is refused.

    `weights_dir`: where the base weights of a model that holds a part are looked for first.
    """
    if path.is_file():
        if path.suffix.lower() in _PICKLES:
            raise WeightsError(
                f"{path} is a pickle, and loading a pickle runs the code in it: refused; "
                "give the folder that automl train wrote (model.safetensors, recipe.yaml, …)"
            )
        raise WeightsError(f"{path} is a file; give the folder that automl train wrote")
    if not (path / _WEIGHTS).is_file():
        pickles = sorted(file.name for file in path.iterdir() if file.suffix in _PICKLES) if path.is_dir() else []
        note = f"; {pickles[0]} is a pickle and is not read" if pickles else ""
        raise WeightsError(f"no model in {path}: it has no {_WEIGHTS}{note}; automl train writes one")
    return ModelFolder(
        path,
        Recipe.load(path / _RECIPE),
        read_json(path / _INPUT, InputSpec),
        read_json(path / _LABELS, Labels),
        read_json(path / _METRICS, dict[str, Any]),
        read_json(path / _BASE, BaseWeights) if (path / _BASE).is_file() else None,
        weights_dir,
    )


def read_json(path: Path, kind: Any) -> Any:
    """Reads and checks one of the folder's JSON files."""
    try:
        return TypeAdapter(kind).validate_json(path.read_bytes())
    except OSError as exc:
        raise WeightsError(f"cannot read {path}: {exc.strerror}; the model folder is incomplete") from exc
    except ValidationError as exc:
        raise WeightsError(describe_errors(exc, str(path))) from exc
