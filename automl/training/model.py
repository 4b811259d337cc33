"""Backbones: made by timm, with weights from a folder, the hub's cache or the hub."""

import difflib
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from automl.errors import RecipeError, WeightsError
from automl.recipe import Recipe
from automl.training.optimizers import head_modules

if TYPE_CHECKING:
    from torch import nn

__all__ = ["Preprocessing", "Weights", "check_backbone", "find_weights", "make_model", "preprocessing"]


@dataclass(frozen=True)
class Weights:
    """Where a backbone's pretrained weights are."""

    source: Literal["file", "cache", "hub"]
    path: Path | None = None
    """The safetensors file, for `file`."""


@dataclass(frozen=True)
class Preprocessing:
    """What a backbone's weights expect of its input."""

    mean: tuple[float, float, float]
    """Per channel, of values in [0, 1]."""
    std: tuple[float, float, float]
    interpolation: str
    fixed_size: bool = False
    """Whether the network takes images of one size only, as most transformers do."""


def find_weights(backbone: str, weights_dir: Path | None, *, hub: bool) -> Weights | None:
    """Looks for pretrained weights: in `weights_dir`, then in the hub's cache, then on the hub.

    Args:
        backbone: A timm name, with or without its weights tag.
        weights_dir: A folder of safetensors files named by timm architecture, with or without the tag. A file
            without a tag stands for the architecture's default tag.
        hub: Whether the hub can be reached.

    Returns:
        Where they are, or None if they are out of reach.

    Raises:
        WeightsError: If a file in `weights_dir` is there but is no safetensors file.
    """
    from timm.models import get_pretrained_cfg, split_model_name_tag

    architecture, tag = split_model_name_tag(backbone)
    cfg = get_pretrained_cfg(backbone, allow_unregistered=False) if _is_known(architecture) else None
    if weights_dir is not None:
        default = get_pretrained_cfg(architecture) if cfg else None
        is_default = not tag or (default is not None and default.tag == tag)
        for stem in (backbone, architecture) if is_default else (backbone,):
            path = weights_dir / f"{stem}.safetensors"
            if path.is_file():
                _check_safetensors(path)
                return Weights("file", path)
    if cfg is None or not cfg.has_weights:
        return None
    if cfg.hf_hub_id and _in_hub_cache(cfg.hf_hub_id):
        return Weights("cache")
    return Weights("hub") if hub else None


def make_model(recipe: Recipe, classes: int, weights: Weights | None = None) -> "nn.Module":
    """Builds the recipe's backbone with a new classifier.

    Args:
        recipe: Gives backbone, image size, drop path and gradient checkpointing.
        classes: Outputs of the classifier.
        weights: Where to load from; None: random initialisation.

    Returns:
        A module that maps (B, 3, image_size, image_size) float images to (B, classes) logits.

    Raises:
        RecipeError: If timm has no such backbone, or cannot build it at this image size.
        WeightsError: If the weights cannot be loaded or do not belong to the backbone.
    """
    from safetensors import SafetensorError

    check_backbone(recipe.backbone)
    overlay = {"file": str(weights.path)} if weights is not None and weights.path else None
    wanted: dict[str, Any] = {"img_size": recipe.image_size}
    if recipe.drop_path:
        wanted["drop_path_rate"] = recipe.drop_path
    try:
        model = _create(
            recipe.backbone,
            wanted,
            pretrained=weights is not None,
            num_classes=classes,
            pretrained_cfg_overlay=overlay,
        )
        if weights is not None and weights.path is not None:
            _check_keys(model, weights.path)
        _quiet_head(model)
        if recipe.numerics.grad_checkpointing:
            model.set_grad_checkpointing(True)  # type: ignore[operator]  # an AssertionError where timm's model cannot
        return model
    except (RuntimeError, OSError, KeyError, ValueError, AssertionError, SafetensorError) as exc:
        first_line = str(exc).strip().splitlines()[0] if str(exc).strip() else type(exc).__name__
        if weights is not None:
            where = weights.path or f"the {weights.source}"
            raise WeightsError(f"cannot load weights of {recipe.backbone} from {where}: {first_line}") from exc
        raise RecipeError(f"cannot build {recipe.backbone} at {recipe.image_size} px: {first_line}") from exc


def check_backbone(backbone: str) -> None:
    """Makes sure that timm has an architecture.

    Args:
        backbone: A timm name, with or without its weights tag.

    Raises:
        RecipeError: If not, with the nearest names.
    """
    import timm
    from timm.models import split_model_name_tag

    architecture = split_model_name_tag(backbone)[0]
    if _is_known(architecture):
        return
    near = difflib.get_close_matches(architecture, timm.list_models(), n=3)
    hint = f"did you mean {' or '.join(near)}?" if near else "`automl backbones` lists those it has"
    raise RecipeError(f"timm has no backbone {backbone!r}; {hint}")


def preprocessing(model: "nn.Module") -> Preprocessing:
    """What the model's weights expect of their input."""
    from timm.data.config import resolve_model_data_config

    cfg = resolve_model_data_config(model)  # type: ignore[no-untyped-call]
    fixed = bool(getattr(model, "pretrained_cfg", {}).get("fixed_input_size", False))
    return Preprocessing(tuple(cfg["mean"]), tuple(cfg["std"]), cfg["interpolation"], fixed)


def _create(backbone: str, wanted: dict[str, Any], **always: Any) -> "nn.Module":
    """Calls timm; arguments that this architecture does not take (`img_size` of a convnet) are left out."""
    import timm

    wanted = dict(wanted)
    while True:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # timm warns of its own deprecated names
                model: nn.Module = timm.create_model(backbone, **wanted, **always)
            return model
        except TypeError as exc:
            refused = [name for name in wanted if name in str(exc)]
            if not refused:
                raise
            for name in refused:
                del wanted[name]


def _quiet_head(model: "nn.Module") -> None:
    """Makes a new classifier start from zero: equal probabilities, a loss of log(classes).

    Several of timm's families scale a classifier's initial weights by 1/√classes, which is made for a thousand
    classes: with two, mobilenetv2_100 begins with a loss of 4 to 9 and spends its first epoch unlearning it.
    """
    from torch import nn

    for head in head_modules(model):
        for module in head.modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                nn.init.zeros_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)


def _is_known(architecture: str) -> bool:
    from timm.models import is_model

    return bool(is_model(architecture))


def _check_safetensors(path: Path) -> None:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            file.keys()
    except (SafetensorError, OSError) as exc:
        raise WeightsError(f"{path} is not a readable safetensors file: {exc}") from exc


def _check_keys(model: "nn.Module", path: Path) -> None:
    """With a new classifier, timm passes over missing weights: another network's file would load as nothing."""
    from safetensors import safe_open

    wanted = model.state_dict().keys()
    with safe_open(path, framework="numpy") as file:
        found = len(wanted & set(file.keys()))
    if found < len(wanted) / 2:
        raise ValueError(f"it holds {found} of the backbone's {len(wanted)} tensors")


def _in_hub_cache(hub_id: str) -> bool:
    from huggingface_hub import try_to_load_from_cache

    return any(isinstance(try_to_load_from_cache(hub_id, name), str) for name in ("model.safetensors",))
