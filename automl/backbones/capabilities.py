"""What an architecture can do, looked up or found out on tensors without data.

A backbone of timm's takes images of any size, of some sizes or of one; it may know stochastic depth and gradient
checkpointing or not; and where its position embeddings or attention biases have the shape of one image size, its
pretrained weights may not load at another. The search asks here before it draws a recipe. What the shipped table does
not know is examined in about a second, and the result is kept in the cache; torch is imported only then.
"""

from collections.abc import Iterable
from dataclasses import asdict, replace
from importlib.metadata import version
from typing import Any

from automl.backbones.capability_table import (
    METHOD,
    SIZES,
    Capabilities,
    parse_capabilities,
    rename_problem,
    shipped_capabilities,
)
from automl.errors import RecipeError
from automl.files import CacheEntry
from automl.processes import map_in_processes
from automl.recipe import Recipe
from automl.recipe.tuning import TuneLora
from automl.reporter import Progress


def find_capabilities(backbone: str, sizes: Iterable[int] = (), *, shipped: bool = True) -> Capabilities:
    """Looks an architecture up, or examines it.

    Args:
        backbone: A timm name, with or without its weights tag; the tag decides the image size of the weights.
        sizes: Image sizes to be tried, besides that of its weights; none: all of `SIZES`.
        shipped: Whether the shipped table may answer.

    Raises:
        RecipeError: If timm has no such backbone.
    """
    wanted = tuple(sorted(set(sizes) or SIZES))
    known = shipped_capabilities(backbone) if shipped else None
    if known is not None and set(wanted) <= {*SIZES, known.weights_size}:
        asked = {*wanted, known.weights_size}
        runs, loads = (tuple(size for size in sizes if size in asked) for sizes in (known.runs, known.loads))
        return replace(known, runs=runs, loads=loads)
    cached = CacheEntry("capabilities", [METHOD, version("timm"), backbone, wanted])
    capabilities = cached.load_json(parse_capabilities)
    if capabilities is None:
        from automl.backbones.examine import examine_backbone

        capabilities = examine_backbone(backbone, wanted)
        cached.save_json(rename_problem(asdict(capabilities)))
    return capabilities


def check_image_size(recipe: Recipe) -> None:
    """Makes sure that a recipe's backbone can be trained at its image size.

    Raises:
        RecipeError: If not, with the image sizes at which it can; or if timm has no such backbone.
    """
    can = find_capabilities(recipe.backbone, (recipe.image_size,))
    if can.problem or recipe.image_size in can.trainable_sizes(pretrained=recipe.pretrained):
        return
    sizes = find_capabilities(recipe.backbone)
    possible = ", ".join(map(str, sizes.trainable_sizes(pretrained=recipe.pretrained)))
    fix = f"{recipe.backbone} runs at {possible} px: set image_size"
    if recipe.pretrained:
        fix = f"the weights of {recipe.backbone} load at {possible} px only: set image_size"
        fix += ", or pretrained: false" if recipe.image_size in can.runs else ""
    raise RecipeError(f"image_size {recipe.image_size}: {fix}")


def without_unsupported(recipe: Recipe) -> tuple[Recipe, tuple[str, ...]]:
    """Takes out of a recipe what its backbone does not have: it could not be trained, and had no effect before.

    Returns the recipe, and what was taken out, in words: `drop_path 0.2 (vgg11 has no stochastic depth)`.
    """
    if not (recipe.drop_path or recipe.numerics.grad_checkpointing):
        return recipe, ()
    can = find_capabilities(recipe.backbone, (recipe.image_size,))
    without: list[str] = []
    if recipe.drop_path and not can.drop_path:
        without.append(f"drop_path {recipe.drop_path} ({recipe.backbone} has no stochastic depth)")
        recipe = recipe.model_copy(update={"drop_path": 0.0})
    if recipe.numerics.grad_checkpointing and not can.grad_checkpointing:
        without.append(f"numerics.grad_checkpointing ({recipe.backbone} has none)")
        recipe = recipe.with_numerics(grad_checkpointing=False)
    return recipe, tuple(without)


def correct_tuning(recipe: Recipe) -> tuple[Recipe, tuple[str, ...]]:
    """Writes into a recipe how its backbone is pooled and which layers LoRA changes, where it can be in one way only.

    Returns the recipe, and what was taken out, in words, as `without_unsupported`.
    """
    targets_attention = isinstance(recipe.tune, TuneLora) and recipe.tune.targets == "attention"
    if not targets_attention and recipe.pooling == "default":
        return recipe, ()
    from automl.backbones.tuning import has_attention, has_tokens

    without: list[str] = []
    if targets_attention and not has_attention(recipe.backbone):
        recipe = recipe.model_copy(update={"tune": recipe.tune.model_copy(update={"targets": "all"})})
        without.append(f"tune.targets attention ({recipe.backbone} has none: LoRA changes all layers)")
    if recipe.pooling != "default" and not has_tokens(recipe.backbone):
        without.append(f"pooling {recipe.pooling} ({recipe.backbone} has no tokens: it pools as it always does)")
        recipe = recipe.model_copy(update={"pooling": "default"})
    return recipe, tuple(without)


def examine_backbones(
    backbones: Iterable[str], jobs: int = 1, progress: Progress = lambda _done, _total: None
) -> list[Capabilities]:
    """Finds out what many backbones can do at all of `SIZES`; earlier results come from the cache.

    Weights of one architecture for one image size have one answer, whatever they were trained on. Returns them by name.
    """
    from timm.models import get_pretrained_cfg

    from automl.backbones.examine import is_default
    from automl.backbones.timm_model import check_backbone

    alike: dict[tuple[Any, ...], list[str]] = {}
    for name in sorted(set(backbones)):
        check_backbone(name)
        cfg = get_pretrained_cfg(name)
        what = (cfg.input_size, cfg.num_classes, cfg.fixed_input_size, cfg.classifier) if cfg is not None else (name,)
        alike.setdefault((name.partition(".")[0], *what), []).append(name)
    by_first = {names[0]: names for names in alike.values()}
    rows: list[Capabilities] = []
    for first, row in map_in_processes(_examine_all_sizes, list(by_first), jobs):
        rows += [replace(row, backbone=name, default_weights=is_default(name)) for name in by_first[first]]
        progress(len(rows), sum(map(len, by_first.values())))
    return sorted(rows, key=lambda row: row.backbone)


def _examine_all_sizes(backbone: str) -> Capabilities:
    return find_capabilities(backbone, SIZES, shipped=False)
