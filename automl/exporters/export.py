"""`automl export`: finds what is meant (a model folder, a study, a recipe file), and writes it in the wanted format.

`yaml`, `json`, `python` and `timm` write a recipe as text, with what is known besides: a study knows the data, the
classes and where the weights are, a model folder knows the classes and the preprocessing, a recipe file nothing.
`onnx` and `torch` write a trained network, so they need a model folder.
"""

import json
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from automl.backbones.ranking import check_name
from automl.errors import AutomlError, RecipeError, StudyError, WeightsError
from automl.files import write_text
from automl.models.folder import Input, Labels, ModelFolder, read_members
from automl.recipe import Recipe
from automl.study.folder import StudyFolder

if TYPE_CHECKING:
    from automl.study.setup import Facts

FORMATS = ("yaml", "json", "python", "timm", "onnx", "torch")

_GRAPHS = {"onnx": "model.onnx", "torch": "model.pt2"}
"""The formats that hold a network, and the name in the model folder they are written to by default."""

_RECIPES = (".yaml", ".yml", ".json")

_EVALUATED = ("validation", "val", "valid")
"""Names of the folder that timm's train.py evaluates on, of those that automl takes for the validation split."""


@dataclass(frozen=True)
class Source:
    """What is exported, and what is known of it."""

    recipe: Recipe
    header: str = ""
    """The comment lines above the recipe in its file, without `# `."""
    model: ModelFolder | None = None
    study: StudyFolder | None = None
    """Where it was found, if that was in a study's folder."""

    @cached_property
    def facts(self) -> "Facts | None":
        """What the study knows; read when it is asked for, so that a recipe outlives a study that is damaged."""
        if self.study is None:
            return None
        from automl.study.search import open_result

        return open_result(self.study).facts

    @property
    def labels(self) -> Labels | None:
        """What the outputs mean, where it is known."""
        if self.model is not None:
            return self.model.labels
        return _study_labels(self.facts) if self.facts is not None else None

    @property
    def decode_size(self) -> int:
        """Pixels of the short side that files are decoded to."""
        if self.model is not None:
            return self.model.input.decode_size
        from automl.refit.plan import decode_size

        return decode_size(self.recipe, self.facts)

    @property
    def weights(self) -> Path | None:
        """The file of pretrained weights that the study began from; None if there was none, or it is not known."""
        entry = self.facts.pool.named(self.recipe.backbone) if self.facts is not None else None
        return Path(entry.weights_path) if entry is not None and entry.weights_path else None

    def input(self) -> Input | None:
        """How a file becomes the network's input; where no model folder says it, the backbone's own is looked up."""
        if self.model is not None:
            return self.model.input
        known = self.facts is not None and getattr(self.recipe.view, "normalize", "pretraining") == "pretraining"
        return _input(self.recipe, self.decode_size) if known else None


@dataclass(frozen=True)
class Exported:
    """What an export gave."""

    text: str | None = None
    """The text of a text format."""
    path: Path | None = None
    """The file that was written; None when the text is only returned."""
    difference: float | None = None
    """onnx, torch: the largest difference in a probability from the PyTorch model."""
    images: int = 0
    """onnx, torch: how many images were compared."""
    real: bool = False
    """onnx, torch: whether they were photographs or the like, not noise."""


def export(
    what: str | Path | None = None,
    format: str = "yaml",
    out: Path | None = None,
    *,
    runs: Path = Path("runs"),
    check_data: Path | None = None,
) -> Exported:
    """Writes a recipe or a trained network in another format.

    Args:
        what: A model folder, a study's name or folder, or a recipe file; None: the latest study in `runs`. Of a study,
            `confirmed.yaml` is exported, or `best.yaml` while there is none.
        format: One of `FORMATS`.
        out: The file to write, atomically, whatever is there. None: text is returned, and a network is written into
            its model folder.
        runs: Holds the studies' folders.
        check_data: onnx, torch: a folder of images to compare on; None: noise.

    Returns:
        The text, or the file and how well it agrees with the PyTorch model.

    Raises:
        SpecError: If there is no such format.
        StudyError: If there is nothing of that name, or the study has no recipe yet.
        WeightsError: If a network is wanted and this is no model folder; or as `export_onnx` says.
        AutomlError: If the file cannot be written, or an extra is not installed.
    """
    check_name("format", format, FORMATS)
    if check_data is not None and format not in _GRAPHS:
        raise AutomlError(f"--check-data compares networks; --format {format} writes a recipe, leave it out")
    source = find_source(what, runs)
    if format in ("python", "timm") and source.recipe.view.media != "image":
        raise RecipeError(
            f"--format {format} trains on image files, and this recipe looks at clips through the view "
            f"{source.recipe.view.name}: train it with automl train; onnx and torch write the trained network"
        )
    if format in _GRAPHS:
        return _graph(source, format, out, check_data)
    text = _text(source, format)
    if out is not None:
        try:
            out.parent.mkdir(parents=True, exist_ok=True)
            write_text(out, text)
        except OSError as exc:
            raise AutomlError(f"cannot write {out}: {exc.strerror or exc}; choose another file with --out") from exc
    return Exported(text=text, path=out)


# --- finding ----------------------------------------------------------------------------------------------------


def find_source(what: str | Path | None, runs: Path) -> Source:
    """Finds what is meant: a model folder, then a study, then a recipe file.

    Args:
        what: As in `export`.
        runs: Holds the studies' folders.

    Raises:
        StudyError: If it is none of them, or a study without a recipe.
        RecipeError: If the recipe has a mistake.
        WeightsError: If it is an ensemble, a damaged model folder or a pickle.
    """
    from automl.study.study import find_study, studies

    if what is None:
        return _of_study(find_study(runs, None))
    path = Path(what)
    if (path / "model.safetensors").is_file() or (path / "ensemble.json").is_file():
        return _of_model(path)
    for folder in (StudyFolder(runs / what), StudyFolder(path)):
        if folder.begun:
            return _of_study(folder)
    if path.is_file() and path.suffix.lower() in _RECIPES:
        return _of_file(path)
    if path.is_file():
        _of_model(path)  # says why not: a pickle, or no folder
    names = ", ".join(folder.name for folder in studies(runs)) or "none"
    raise StudyError(
        f"nothing to export is called {what}: no model folder, no recipe file, no study of {runs} ({names})"
    )


def _of_model(path: Path) -> Source:
    members = read_members(path)
    if members[0][0].path != path:
        names = ", ".join(str(member.path) for member, _ in members)
        raise WeightsError(f"{path} is an ensemble, and a format holds one model; export each member: {names}")
    model = members[0][0]
    return Source(model.recipe, _header(path / "recipe.yaml"), model)


def _of_study(folder: StudyFolder) -> Source:
    if folder.winner is None:
        raise StudyError(f"study {folder.name} has no recipe yet: no trial is complete; go on with automl search")
    return _of_file(folder.winner)


def _of_file(path: Path) -> Source:
    """A recipe file; one in a study's folder knows what the study knows."""
    folder = StudyFolder(path.absolute().parent)
    return Source(Recipe.load(path), _header(path), study=folder if folder.begun else None)


def _header(path: Path) -> str:
    """The comment lines at the top of a YAML file that was read already."""
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.removeprefix("#").strip())
    return "\n".join(lines)


def _study_labels(facts: "Facts") -> Labels:
    dataset = facts.dataset
    train = dataset.samples.loc[dataset.samples["split"] == "train", "label"]
    prior = tuple(float((train == label).mean()) for label in range(len(dataset.classes)))
    return Labels(dataset.classes, dataset.positive, prior, real_class=dataset.real_class)


def _input(recipe: Recipe, decode_size: int) -> Input:
    """Builds the backbone, with random weights, to ask it."""
    from automl.backbones.weights import make_model, preprocessing
    from automl.data.loader import evaluation_size

    own = preprocessing(make_model(recipe, 2))
    size = evaluation_size(recipe, own, decode_size)
    return Input(decode_size, size, own.mean, own.std, own.interpolation)


# --- writing ----------------------------------------------------------------------------------------------------


def _text(source: Source, format: str) -> str:
    """The text of a text format; it ends with a newline."""
    if format == "yaml":
        return _comment(source.header.splitlines()) + source.recipe.to_yaml()
    if format == "json":
        return _json(source)
    return _timm(source) if format == "timm" else _python(source)


def _json(source: Source) -> str:
    """The recipe under `recipe`, `input` and `labels` beside it where they are known; `Recipe.load` reads it back."""
    known = {"input": source.input(), "labels": source.labels}
    document: dict[str, Any] = {"recipe": source.recipe.model_dump()}
    document |= {key: asdict(value) for key, value in known.items() if value is not None}
    return json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _timm(source: Source) -> str:
    from automl.exporters.timm_config import timm_yaml

    data: dict[str, Any] = {}
    if source.facts is not None:
        root = source.facts.dataset.root
        # Without a folder to evaluate on, train.py evaluates on all of DIR.
        evaluates = any((root / name).is_dir() for name in _EVALUATED)
        if source.facts.dataset.format == "folder" and (root / "train").is_dir() and evaluates:
            data["data_dir"] = str(root)
    if source.weights is not None:
        data["pretrained_path"] = str(source.weights)
    return timm_yaml(source.recipe, source.labels, data)


def _python(source: Source) -> str:
    from automl.exporters.python_script import python_script

    labels = source.labels
    script = python_script(
        source.recipe,
        classes=labels.classes if labels else ("0", "1"),
        positive=labels.positive if labels else 1,
        real_class=labels.real_class if labels else None,
        decode_size=source.decode_size,
        samples=source.study.samples.absolute() if source.study else None,
        weights=source.weights,
    )
    return _comment(_guessed(source)) + script


def _guessed(source: Source) -> list[str]:
    """What a script says that nobody told it, one line each."""
    if source.facts is not None:
        return []
    lines = ["the samples: give --samples with a table of the columns path, name, label, split"]
    labels = source.labels
    if labels is None:
        lines.append(
            f"classes and decoded size: 0 and 1, 1 the positive one, and {source.decode_size} px are placeholders"
        )
    if source.recipe.augmentation.self_blend and (labels is None or labels.real_class is None):
        lines.append("the genuine class: no image is self-blended")
    if source.recipe.pretrained:
        lines.append("a file of the pretrained weights: timm takes them from the hub or its cache")
    return ["Not known where this recipe was exported from, so check it:", *(f"- {line}" for line in lines)]


def _comment(lines: list[str]) -> str:
    return "".join(f"# {line}".rstrip() + "\n" for line in lines)


def _graph(source: Source, format: str, out: Path | None, check_data: Path | None) -> Exported:
    if source.model is None:
        raise WeightsError(
            f"--format {format} needs a trained model, and this is a recipe; give the folder that automl train wrote"
        )
    from automl.exporters.graph import export_onnx, export_torch

    write = export_onnx if format == "onnx" else export_torch
    found = write(source.model, out or source.model.path / _GRAPHS[format], check_data)
    return Exported(path=found.path, difference=found.difference, images=found.images, real=found.real)
