"""What is to be shown: the views, augmentations and mixings of a recipe, or those of a search space."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna

from automl.data.dataset import Dataset
from automl.errors import RecipeError, SpaceError
from automl.files import shipped
from automl.gallery.levels import list_units, make_branches, make_group
from automl.gallery.pictures import decode_name
from automl.recipe import Recipe
from automl.recipe.augmentation import Augmentation
from automl.recipe.learning import NoMixing
from automl.refit.plan import choose_decode_size
from automl.schema import Part
from automl.space.nodes import Branches, Group
from automl.space.space import Space
from automl.spec import StudySpec
from automl.study.folder import find_study_beside
from automl.study.search import open_result
from automl.study.spaces import open_space
from automl.views.registry import View, make_view

_RECIPES = 4
"""Drawn from a space."""
_UNSEEN = ("jpeg_min_quality", "downscale_min")
"""Fields that say nothing without another one."""


@dataclass(frozen=True)
class ViewPlan:
    """What is to be shown of the data through one view."""

    view: View
    augmentation: Group
    mixing: Branches
    image_size: int
    """Pixels per side of the pictures of one augmentation."""
    decode_size: int
    """Pixels of the short side that files are decoded to."""
    recipes: tuple[Recipe, ...]
    """Shown as a whole."""
    source: str
    """What says so, in words."""


def plan_recipe(path: Path, recipe: Recipe, dataset: Dataset) -> list[ViewPlan]:
    """Plans the gallery of a recipe, and of the file that it was read from.

    Raises:
        RecipeError: If it looks at other files than the data are.
    """
    if recipe.view.media != dataset.media and (recipe.view.media, dataset.media) != ("sound", "video"):
        raise RecipeError(
            f"{path} looks at {recipe.view.media}s (view {recipe.view.name}), and {dataset.root} holds {dataset.media}s"
        )
    beside = find_study_beside(path)
    decode_size = choose_decode_size(recipe, open_result(beside).setup if beside else None)
    augmentation, mixing = make_group(recipe.augmentation), make_branches(recipe.mixing)
    return [
        ViewPlan(recipe.view, augmentation, mixing, recipe.image_size, decode_size, (recipe,), f"the recipe {path}")
    ]


def plan_space(spec: StudySpec, dataset: Dataset) -> list[ViewPlan]:
    """Plans the gallery of a search space, a view at a time; recipes are drawn from it at random.

    Raises:
        SpaceError: If there is no such space, it has mistakes or is of other files, or nothing in it changes a picture.
    """
    if spec.space == "auto" and dataset.format == "demo":
        spec = spec.model_copy(update={"space": "demo"})
    space = open_space(spec, dataset.media)
    mixing = space.root.children["mixing"]
    assert isinstance(mixing, Branches)  # noqa: S101 - a choice is nothing else
    sizes, plans = space.image_sizes(), list[ViewPlan]()
    path = Path(space.source)
    source = f"the search space {path.stem if path == shipped('search_spaces', path.name) else decode_name(str(path))}"
    for values in space.list_views():
        view = make_view(values)
        recipes = tuple(
            recipe.model_copy(update={"view": view}) for recipe in _draw_recipes(space, view, dataset, spec)
        )
        group, usual = _find_group(space, view.name), sizes[len(sizes) // 2]
        plans.append(ViewPlan(view, group, mixing, usual, sizes[-1], recipes, source))
    if set(mixing.branches) <= {"none"} and all(
        unit.name == "crop: resize" for plan in plans for unit in list_units(plan.augmentation)
    ):
        raise SpaceError(
            f"{space.source} has nothing to show: no augmentation and no mixing; add some under `augmentation`, as in"
            " automl space show image, or choose another --space"
        )
    return plans


def describe_recipe(recipe: Recipe) -> str:
    """Writes what a recipe does to its images, and how often: `crop squash, horizontal_flip 0.5, mixup 0.5`."""
    parts = []
    for name in Augmentation.model_fields:
        value: Any = getattr(recipe.augmentation, name)
        if not isinstance(value, Part):
            parts += [f"{name} {value:g}"] if value and name not in _UNSEEN else []
        elif value.name != "none":  # type: ignore[attr-defined]
            share = getattr(value, "probability", None)
            parts.append(f"{name} {value.name}" + (f" {share:g}" if share is not None else ""))  # type: ignore[attr-defined]
    mixing = recipe.mixing
    if not isinstance(mixing, NoMixing):
        parts.append(f"{mixing.name} {mixing.probability:g}")
    return ", ".join(parts)


def _find_group(space: Space, view: str) -> Group:
    """Finds the augmentation of a view: its branch may have one of its own."""
    views = space.root.children["view"]
    assert isinstance(views, Branches)  # noqa: S101 - a view is nothing else
    group = views.branches[view].lifted.get("augmentation", space.root.children["augmentation"])
    assert isinstance(group, Group)  # noqa: S101 - the parser makes nothing else of it
    return group


def _draw_recipes(space: Space, view: View, dataset: Dataset, spec: StudySpec) -> Iterator[Recipe]:
    """Draws recipes of a view at random; the backbone is of no matter here."""
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=spec.seed))
    finally:
        optuna.logging.set_verbosity(verbosity)
    several = len(space.list_views()) > 1
    for number in range(_RECIPES):
        study.enqueue_trial({"view": view.name} if several else {})
        drawn = space.suggest_recipe(study.ask(), backbones=1, self_blend=dataset.real_class is not None)
        values = drawn | {"backbone": str(drawn["backbone"]), "seed": spec.seed}
        yield Recipe.from_mapping(values, f"recipe {number + 1} drawn from {space.source}")
