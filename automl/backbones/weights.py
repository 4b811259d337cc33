"""Builds backbones with weights from a folder, the hub's cache or the hub."""

import hashlib
import os
import urllib.request
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from automl.backbones.encoders import load_backbones
from automl.errors import RecipeError, WeightsError
from automl.files import check_weights_dir, digest_pieces
from automl.recipe import Recipe

if TYPE_CHECKING:
    from timm.models import PretrainedCfg
    from torch import Tensor, nn


HUB_FILE = "model.safetensors"
"""The file of a repository on the hub."""

DEFAULT_BACKBONE = "mobilenetv2_100.ra_in1k"
"""What is fetched where any backbone will do: small and quick, with features that are good for their size."""

_PICKLES = (".bin", ".pth", ".pt", ".ckpt")


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
        weights_dir: A folder of safetensors files named by timm architecture, with or without the tag, or of folders
            as the hub has them (`list_places`). A file without a tag stands for the architecture's default tag.
        hub: Whether the hub can be reached; where the weights are out of reach, None is returned.

    Raises:
        WeightsError: If a file in `weights_dir` is there but is no safetensors file, or is a pickle.
    """
    cfg = _find_cfg(backbone)
    check_weights_dir(weights_dir)
    if weights_dir is not None and (path := _find_file(backbone, weights_dir)) is not None:
        return Weights("file", path)
    if cfg is None or not cfg.has_weights:
        return None
    if cfg.hf_hub_id and _in_hub_cache(cfg.hf_hub_id):
        return Weights("cache")
    return Weights("hub") if hub else None


def find_cheapest(weights_dir: Path | None) -> tuple[str, Weights]:
    """Finds the backbone that costs least per image, of those whose pretrained weights are on this machine.

    What has less than a million parameters, as timm's networks for tests, is taken where nothing else is there. Where
    nothing is, it is `DEFAULT_BACKBONE` from the hub.

    Args:
        weights_dir: As for `find_weights`.

    Returns:
        A timm name, and where its weights are.

    Raises:
        WeightsError: If there are none, or the folder is none; or as `find_weights` raises.
    """
    check_weights_dir(weights_dir)
    table = load_backbones().sort_values("gmacs", kind="stable")
    names = dict.fromkeys([*table.loc[table["params_m"] >= 1, "model"], *table["model"]])
    for name in names:
        if (weights := find_weights(name, weights_dir, hub=False)) is not None:
            return name, weights
    if hub_reachable():
        return DEFAULT_BACKBONE, Weights("hub")
    sources = f"{weights_dir} or the hub's cache" if weights_dir is not None else "the hub's cache"
    raise WeightsError(
        f"no pretrained weights in {sources}, and the hub is out of reach; give --weights-dir DIR with those of one "
        f"backbone (automl weights {DEFAULT_BACKBONE} says how to fetch them)"
    )


def list_places(backbone: str) -> list[str]:
    """Lists where the weights of a backbone may lie in `--weights-dir`, the first that is there is taken.

    They are `NAME.safetensors`, a folder of the repository's name, and the layout of the hub's cache, where `*` stands
    for a revision. A name without its tag means the architecture's default weights, whose file may go without it.
    """
    from timm.models import get_pretrained_cfg, is_model, split_model_name_tag

    architecture, tag = split_model_name_tag(backbone)
    default = get_pretrained_cfg(architecture) if is_model(architecture) else None
    is_default = not tag or (default is not None and default.tag == tag)
    full = backbone if tag or default is None or not default.tag else f"{architecture}.{default.tag}"
    names = dict.fromkeys((backbone, architecture) if is_default else (backbone,))
    cfg = _find_cfg(full)
    repository = (cfg.hf_hub_id if cfg is not None else None) or f"timm/{full}"
    cached = f"models--{repository.replace('/', '--')}/snapshots/*/{HUB_FILE}"
    return [*(f"{name}.safetensors" for name in names), f"{full}/{HUB_FILE}", cached]


def _find_cfg(backbone: str) -> "PretrainedCfg | None":
    """Finds what timm knows of a backbone's weights; None where it has no such architecture or tag."""
    from timm.models import get_pretrained_cfg, is_model, split_model_name_tag

    known = is_model(split_model_name_tag(backbone)[0])
    return get_pretrained_cfg(backbone, allow_unregistered=False) if known else None


def _find_file(backbone: str, weights_dir: Path) -> Path | None:
    """Finds a backbone's file in a folder of weights.

    Raises:
        WeightsError: If it is no safetensors file, or there is a pickle in its place.
    """
    places = list_places(backbone)
    if path := _find_first(weights_dir, places):
        _check_safetensors(path)
        return path
    if path := _find_first(weights_dir, [pickle for safe in places for pickle in _list_pickles(safe)]):
        raise WeightsError(
            f"{path} is a pickle, which can run any code when it is opened, and is not read: give the weights of "
            f"{backbone} as {weights_dir / places[0]} (`automl weights {backbone}`)"
        )
    return None


def _find_first(folder: Path, patterns: Iterable[str]) -> Path | None:
    """Finds the first of some files below a folder; `*` stands for any name."""
    with os.scandir(folder) as entries:  # a search asks for 1,700 backbones, of which few are there
        there = {entry.name for entry in entries}
    likely = (pattern for pattern in patterns if pattern.partition("/")[0] in there)
    return next((path for pattern in likely for path in sorted(folder.glob(pattern)) if path.is_file()), None)


def _list_pickles(safe: str) -> list[str]:
    """Lists the pickles that might lie in the place of a safetensors file."""
    folder, slash, file = safe.rpartition("/")
    stems = ("pytorch_model", "model") if slash else (file.removesuffix(".safetensors"),)
    return [f"{folder}{slash}{stem}{ending}" for stem in stems for ending in _PICKLES]


def locate_file(backbone: str, weights: Weights) -> Path | None:
    """Locates the safetensors file of weights on this machine; None where the hub's cache does not have it (yet)."""
    if weights.path is not None:
        return weights.path
    from huggingface_hub import try_to_load_from_cache

    cfg = _find_cfg(backbone)
    path = try_to_load_from_cache(cfg.hf_hub_id, HUB_FILE) if cfg is not None and cfg.hf_hub_id else None
    return Path(path) if isinstance(path, str) else None


def digest_weights(backbone: str, weights: Weights) -> str:
    """Returns a digest of weights, by their file's size and three pieces of it; "" where the file is not here yet."""
    path = locate_file(backbone, weights) if weights.source != "hub" else None
    if path is None or not path.is_file():
        return ""
    size = path.stat().st_size
    return f"{size}:{digest_pieces(path, size)}"


def digest_file(path: Path) -> str:
    """Returns the SHA-256 digest of a file as 64 hexadecimal digits; about a second a gigabyte."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def make_model(recipe: Recipe, classes: int, weights: Weights | None = None) -> "nn.Module":
    """Builds the recipe's backbone with a new classifier; without `weights`, at random.

    Returns:
        A module that maps (B, 3, image_size, image_size) float images to (B, classes) logits; what the recipe's `tune`
        leaves out requires no gradient.

    Raises:
        RecipeError: If timm has no such backbone, cannot build it at this image size, or it lacks what the recipe asks
            for: stochastic depth, gradient checkpointing, something to tune, a classifier to replace.
        WeightsError: If the weights cannot be loaded or do not belong to the backbone.
    """
    from safetensors import SafetensorError

    from automl.backbones.classifier import put_head  # late: where weights are is asked before torch is imported
    from automl.backbones.heads import start_from_zero
    from automl.backbones.timm_model import check_backbone, create_model, has_drop_path, summarize_error
    from automl.backbones.tuning import choose_trained

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
    model = put_head(model, recipe, classes)
    start_from_zero(model, classes)
    choose_trained(model, recipe)
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


def count_trained(recipe: Recipe, classes: int) -> tuple[int, int]:
    """Counts the parameters that a recipe trains, and all of its network's, without making it.

    Raises:
        RecipeError: If the backbone cannot have the recipe's head, or has nothing of what its `tune` names.
    """
    import torch

    from automl.backbones.classifier import put_head
    from automl.backbones.timm_model import build_on_meta, check_backbone
    from automl.backbones.tuning import choose_trained

    check_backbone(recipe.backbone)
    model, _ = build_on_meta(recipe.backbone, {"img_size": recipe.image_size}, num_classes=classes)
    with torch.device(next(model.parameters()).device):
        model = put_head(model, recipe, classes)
        choose_trained(model, recipe)
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in model.parameters()]
    return sum(size for size, trained in sizes if trained), sum(size for size, _ in sizes)


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

    return isinstance(try_to_load_from_cache(hub_id, HUB_FILE), str)
