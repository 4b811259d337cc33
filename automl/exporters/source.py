"""What is exported: a model folder, a study's recipe or a recipe file, and what is known of it; and what that gave."""

from dataclasses import dataclass
from functools import cached_property
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING

from automl.backbones.input import InputSpec, read_preprocessing
from automl.backbones.weights import make_model
from automl.errors import StudyError, WeightsError
from automl.models.folder import Labels, ModelFolder, read_members
from automl.recipe import Recipe
from automl.study.folder import StudyFolder, find_study, find_study_beside, list_studies

if TYPE_CHECKING:
    from automl.study.setup import StudySetup


@dataclass(frozen=True)
class ExportSource:
    """A recipe to export. A study knows the data, the classes and the weights besides, a model folder the classes."""

    recipe: Recipe
    header: str = ""
    """The comment lines above the recipe in its file, without `# `."""
    model: ModelFolder | None = None
    study: StudyFolder | None = None
    """The study in whose folder the recipe is."""

    @cached_property
    def setup(self) -> "StudySetup | None":
        """What the study has fixed; read when it is needed, so that a recipe outlives a study that is damaged."""
        if self.study is None:
            return None
        from automl.study.search import open_result

        return open_result(self.study).setup

    @property
    def labels(self) -> Labels | None:
        """What the outputs mean, where it is known."""
        if self.model is not None:
            return self.model.labels
        if self.setup is None:
            return None
        dataset = self.setup.dataset
        train = dataset.samples.loc[dataset.samples["split"] == "train", "label"]
        prior = tuple(float((train == label).mean()) for label in range(len(dataset.classes)))
        return Labels(dataset.classes, dataset.positive, prior, real_class=dataset.real_class)

    @property
    def decode_size(self) -> int:
        """Pixels of the short side that files are decoded to."""
        if self.model is not None:
            return self.model.input.decode_size
        from automl.refit.plan import choose_decode_size

        return choose_decode_size(self.recipe, self.setup)

    @property
    def weights(self) -> Path | None:
        """The file of pretrained weights that the study started from; None if there was none, or it is not known."""
        entry = self.setup.pool.find_entry(self.recipe.backbone) if self.setup is not None else None
        weights = entry.locate_weights() if entry is not None else None
        return weights.path if weights is not None else None

    @property
    def data_dir(self) -> Path | None:
        """The study's data, where it is a folder that timm's train.py can train on and evaluate on."""
        if self.setup is None or self.setup.dataset.format != "folder":
            return None
        root = self.setup.dataset.root
        # Of the names of automl's validation split, those that train.py knows; without one it evaluates on all of DIR.
        evaluates = any((root / name).is_dir() for name in ("validation", "val", "valid"))
        return root if (root / "train").is_dir() and evaluates else None

    def find_input(self) -> InputSpec | None:
        """Returns how a file becomes the network's input, of a model folder or, for a study, of the backbone."""
        if self.model is not None:
            return self.model.input
        if self.setup is None or getattr(self.recipe.view, "normalize", "pretraining") != "pretraining":
            return None
        own = read_preprocessing(make_model(self.recipe, 2))  # with random weights, to ask it
        return InputSpec.from_preprocessing(own, self.recipe, self.decode_size)


@dataclass(frozen=True)
class Exported:
    """What an export gave."""

    text: str | None = None
    """The text of a text format."""
    path: Path | None = None
    """The file that was written; None when the text is only returned. The constants of a network are beside it."""
    difference: float | None = None
    """onnx, torch: the largest absolute difference in a probability from the PyTorch model."""
    images: int = 0
    """onnx, torch: how many images were compared."""
    real: bool = False
    """onnx, torch: whether they were photographs or the like, not noise."""


def find_source(source: str | Path | None, runs: Path, weights_dir: Path | None = None) -> ExportSource:
    """Finds what is to be exported: a model folder, then a study, then a recipe file; arguments as in `export`.

    Raises:
        StudyError: If it is none of them, or a study without a recipe.
        RecipeError: If the recipe has a mistake.
        WeightsError: If it is an ensemble, a damaged model folder or a pickle.
    """
    if source is None:
        return _open_study(find_study(runs, None))
    path = Path(source)
    if (path / "model.safetensors").is_file() or (path / "ensemble.json").is_file():
        return _open_model(path, weights_dir)
    for folder in (StudyFolder(runs / source), StudyFolder(path)):
        if folder.has_study:
            return _open_study(folder)
    if path.is_file():
        # Of another file, such as a pickle, `_open_model` raises the reason.
        return _open_recipe(path) if path.suffix.lower() in (".yaml", ".yml", ".json") else _open_model(path)
    names = ", ".join(folder.name for folder in list_studies(runs)) or "none"
    raise StudyError(
        f"nothing to export is called {source}: no model folder, no recipe file, no study of {runs} ({names})"
    )


def _open_model(path: Path, weights_dir: Path | None = None) -> ExportSource:
    """Opens a model folder that holds one model."""
    models = [model for model, _ in read_members(path, weights_dir)]
    model = models[0]
    if model.path != path:
        names = ", ".join(str(member.path) for member in models)
        raise WeightsError(f"{path} is an ensemble, and a format holds one model; export each member: {names}")
    return ExportSource(model.recipe, _read_comment(path / "recipe.yaml"), model)


def _open_study(folder: StudyFolder) -> ExportSource:
    """Opens a study's best or confirmed recipe."""
    if folder.winner is None:
        raise StudyError(f"study {folder.name} has no recipe yet: no trial is complete; go on with automl search")
    return _open_recipe(folder.winner)


def _open_recipe(path: Path) -> ExportSource:
    """Opens a recipe file; one in a study's folder knows what the study knows."""
    return ExportSource(Recipe.load(path), _read_comment(path), study=find_study_beside(path))


def _read_comment(path: Path) -> str:
    """Reads the comment lines at the top of a YAML file that was read already."""
    lines = takewhile(lambda line: line.startswith("#"), path.read_text(encoding="utf-8").splitlines())
    return "\n".join(line.removeprefix("#").strip() for line in lines)
