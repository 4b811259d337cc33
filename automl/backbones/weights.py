"""Builds backbones with weights from a folder, the hub's cache or the hub."""

import os
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from automl.backbones.heads import start_from_zero
from automl.backbones.timm_model import check_backbone, create_model, has_drop_path, summarize_error
from automl.errors import RecipeError, WeightsError
from automl.files import check_weights_dir
from automl.recipe import Recipe

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class Weights:
    """Where a backbone's pretrained weights are."""

    source: Literal["file", "cache", "hub"]
    path: Path | None = None
    """The safetensors file, for `file`."""


def find_weights(backbone: str, weights_dir: Path | None, *, hub: bool) -> Weights | None:
    """Looks for pretrained weights: in `weights_dir`, then in the hub's cache, then on the hub.

    Args:
        backbone: A timm name, with or without its weights tag.
        weights_dir: A folder of safetensors files named by timm architecture, with or without the tag. A file
            without a tag stands for the architecture's default tag.
        hub: Whether the hub can be reached; where the weights are out of reach, None is returned.

    Raises:
        WeightsError: If a file in `weights_dir` is there but is no safetensors file.
    """
    from timm.models import get_pretrained_cfg, is_model, split_model_name_tag

    architecture, tag = split_model_name_tag(backbone)
    cfg = get_pretrained_cfg(backbone, allow_unregistered=False) if is_model(architecture) else None
    check_weights_dir(weights_dir)
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
    """Builds the recipe's backbone with a new classifier; without `weights`, at random.

    Returns:
        A module that maps (B, 3, image_size, image_size) float images to (B, classes) logits.

    Raises:
        RecipeError: If timm has no such backbone, cannot build it at this image size, or it lacks what the recipe asks
            for: stochastic depth, gradient checkpointing.
        WeightsError: If the weights cannot be loaded or do not belong to the backbone.
    """
    from safetensors import SafetensorError

    check_backbone(recipe.backbone)
    # A drop path of 0 is passed as well: some architectures have another default.
    wanted = {"img_size": recipe.image_size, "drop_path_rate": recipe.drop_path}
    always: dict[str, Any] = {"pretrained": weights is not None, "num_classes": classes}
    path = weights.path if weights is not None else None
    try:
        if path is not None:
            always["pretrained_cfg_overlay"] = {"state_dict": load_weights(path)}
        model, _ = create_model(recipe.backbone, wanted, **always)
        forget_weights(model)
        if path is not None:
            _check_keys(model, path)
    except (RuntimeError, OSError, KeyError, ValueError, AssertionError, SafetensorError) as exc:
        why = f"at {recipe.image_size} px: {summarize_error(exc)}"
        if weights is None:
            raise RecipeError(f"cannot build {recipe.backbone} {why}") from exc
        source = path or f"the {weights.source}"
        raise WeightsError(f"cannot load weights of {recipe.backbone} from {source} {why}") from exc
    start_from_zero(model, classes)
    if recipe.drop_path and not has_drop_path(model):
        raise RecipeError(f"{recipe.backbone} has no stochastic depth: drop_path must be 0, got {recipe.drop_path}")
    if recipe.numerics.grad_checkpointing:
        try:
            model.set_grad_checkpointing(True)  # type: ignore[operator]
        except AssertionError as exc:
            raise RecipeError(
                f"{recipe.backbone} has no gradient checkpointing: numerics.grad_checkpointing must be false"
            ) from exc
    return model


def load_weights(path: Path) -> "dict[str, Tensor]":
    """Reads a safetensors file.

    timm is given the tensors, not the file: some of its configurations say that a file is NumPy's (ViT augreg, BiT,
    hybrids), and timm before 1.0.31 then reads any file so.

    Raises:
        SafetensorError: If it is no such file.
    """
    from safetensors.torch import load_file

    return load_file(path)


def forget_weights(model: "nn.Module") -> None:
    """Removes the pretrained tensors from the configuration that timm keeps in a model: copies would copy them."""
    for name in ("pretrained_cfg", "default_cfg"):
        configuration = getattr(model, name, None)
        if isinstance(configuration, dict):
            configuration.pop("state_dict", None)


def hub_reachable(timeout_seconds: float = 3.0) -> bool:
    """Returns whether the model hub answers; not where `HF_HUB_OFFLINE` is set."""
    if os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on"):
        return False
    address = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    if not address.startswith(("https://", "http://")):
        return False
    try:
        request = urllib.request.Request(address, method="HEAD")  # noqa: S310 - the scheme is checked above
        with urllib.request.urlopen(request, timeout=timeout_seconds):  # noqa: S310
            return True
    except OSError:
        return False


def _check_safetensors(path: Path) -> None:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            file.keys()
    except (SafetensorError, OSError) as exc:
        raise WeightsError(f"{path} is not a readable safetensors file: {exc}") from exc


def _check_keys(model: "nn.Module", path: Path) -> None:
    """Refuses another network's file: with a new classifier timm passes over missing weights, and would load none."""
    from safetensors import safe_open

    wanted = model.state_dict().keys()
    with safe_open(path, framework="numpy") as file:
        known = len(wanted & set(file.keys()))
    if known < len(wanted) / 2:
        raise ValueError(f"it holds {known} of the backbone's {len(wanted)} tensors")


def _in_hub_cache(hub_id: str) -> bool:
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(hub_id, "model.safetensors"), str)
