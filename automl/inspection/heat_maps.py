"""Heat maps: which parts of a picture make a network's score of a class higher.

Grad-CAM (Selvaraju et al. 2017, "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization",
ICCV, arXiv:1610.02391) needs one forward and one backward pass. Occlusion (Zeiler & Fergus 2014, "Visualizing and
Understanding Convolutional Networks", ECCV, section 4.2, arXiv:1311.2901) covers one patch after the other and needs
some fifty forward passes; it knows nothing of the network's inside, and so it is the check of the other.

Written here, and not taken from `grad-cam` 1.5 or `captum` 0.9: both are told the layer and how to make a grid of its
output, which is the whole difficulty over timm's families; what they would do then is three lines. They bring
matplotlib and five more packages.

Example:
    from automl.training.evaluation import Normalize

    normalize = Normalize(preprocessing, recipe.numerics, torch.device("cpu"))  # of a model folder: its `input`
    maps = make_heat_maps(network, normalize(images), labels.positive)          # images (N, 3, S, S) uint8
    draw_heat_map(Image.fromarray(pixels), maps[0]).save("map.png")
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms.v2.functional import gaussian_blur

from automl.backbones.headed import HeadedBackbone, is_channels_last
from automl.errors import RecipeError
from automl.media.opening import require

Heat = npt.NDArray[np.float32]

PATCHES = 8
"""Steps of a patch from one side of a picture to the other; a patch is two of them wide."""

_LEAST_GRID = 4  # positions a side: of 2 × 2, as the last layer of small pictures has, nothing is to be seen
_BATCH = 16
_OPACITY = 0.75  # of the hottest part


@dataclass(frozen=True)
class MapLayer:
    """The layer of a network that a Grad-CAM map is made of.

    Attributes:
        name: Of the module, as `named_modules` has it.
        layout: Of its output: (B, C, H, W), (B, H, W, C) or (B, tokens, C).
        prefix_tokens: Tokens before those of patches: of the class, of distillation, registers.
        side: Positions per side.
    """

    name: str
    layout: Literal["NCHW", "NHWC", "NLC"]
    prefix_tokens: int
    side: int

    def read_grid(self, output: Tensor) -> Tensor:
        """Brings an output of the layer into the shape (B, C, side, side)."""
        if self.layout == "NCHW":
            return output
        if self.layout == "NHWC":
            return output.permute(0, 3, 1, 2)
        patches = output[:, self.prefix_tokens :].transpose(1, 2)
        return patches.reshape(*patches.shape[:2], self.side, self.side)


class _Seen(NamedTuple):
    """The first tensor among the outputs of a module."""

    name: str
    output: Tensor


def make_heat_maps(model: nn.Module, images: Tensor, target: int | Sequence[int], *, batch_size: int = _BATCH) -> Heat:
    """Makes Grad-CAM maps of images.

    The score is the log-odds of the class: a softmax leaves only differences of logits. What speaks against the class
    is not shown.

    Args:
        model: A network, on its device; it is asked in evaluation mode and left as it was.
        images: Normalised as the network was trained, (N, 3, S, S) float32.
        target: The class, or one for each image.
        batch_size: Images at once.

    Returns:
        Shape (N, S, S), float32, in [0, 1]: the hottest position of each map is 1; all 0 where nothing speaks for the
        class.

    Raises:
        RecipeError: If no layer of the network has an output with positions (`find_map_layer`).
    """
    targets = _list_targets(target, len(images))
    maps = [np.zeros((0, *images.shape[2:]), dtype=np.float32)]
    with _prepare_network(model) as device:
        layer = find_map_layer(model, images) if len(images) else None
        for first in range(0, len(images), batch_size):
            part = slice(first, first + batch_size)
            maps.append(_make_batch(model, layer, images[part].to(device), targets[part].to(device)))  # type: ignore[arg-type]
    return np.concatenate(maps)


def make_occlusion_maps(
    model: nn.Module,
    images: Tensor,
    target: int | Sequence[int],
    *,
    batch_size: int = 2 * _BATCH,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> Heat:
    """Makes occlusion maps of images: how much lower the log-odds of the class are where a patch is blurred.

    A patch is a quarter of the side wide, and its blur has a standard deviation of a sixteenth. It is blurred as Fong &
    Vedaldi do (2017, arXiv:1704.03296) and not grey as in the paper, because a flat patch itself looks forged to a
    network that learned forgeries: of the 120 maps of `studies/benchmarks/heat_maps.py` 49 were empty, and 20 with the
    blur. Each pixel has the mean of the patches that covered it, and those that raise the score count 0.

    Args:
        model: As of `make_heat_maps`; so are `images`, `target`, the result's shape and its scale.
        images: See there.
        target: See there.
        batch_size: Images at once.
        progress: Called with patches done and all of them.
    """
    targets = _list_targets(target, len(images))
    side = images.shape[-1]
    edges = np.linspace(0, side, PATCHES + 1).round().astype(int).tolist()
    spans = list(zip(edges[:-2], edges[2:], strict=True))  # two steps wide
    windows = [(rows, columns) for rows in spans for columns in spans]
    sums = torch.zeros(len(images), side, side)
    counts = torch.zeros(side, side)
    with _prepare_network(model) as device, torch.no_grad():
        whole = _score_batches(model, images, targets, batch_size, device)
        width = 2 * (side // 4) - 1
        blurred = gaussian_blur(images, [width, width], [side / 16, side / 16])
        for number, ((top, bottom), (left, right)) in enumerate(windows, start=1):
            covered = images.clone()
            covered[:, :, top:bottom, left:right] = blurred[:, :, top:bottom, left:right]
            drop = (whole - _score_batches(model, covered, targets, batch_size, device)).clamp(min=0)
            sums[:, top:bottom, left:right] += drop[:, None, None]
            counts[top:bottom, left:right] += 1
            progress(number, len(windows))
    return _scale_maps(sums / counts)


def measure_agreement(one: Heat, other: Heat) -> float:
    """Measures how alike two maps (S, S) order the parts of a picture: Spearman's rank correlation of 8 × 8 parts.

    1: the same order, 0: none, -1: the other way round; NaN where one of them is the same everywhere.
    """
    from scipy.stats import spearmanr

    parts = [_average_parts(heat).ravel() for heat in (one, other)]
    if any(np.ptp(part) == 0 for part in parts):
        return math.nan
    return float(spearmanr(*parts).statistic)


def draw_heat_map(image: Image.Image, heat: Heat) -> Image.Image:
    """Lays a map over a picture, of which only the brightness is left, so that colour means heat alone.

    Args:
        image: Any size.
        heat: Shape (H, W), in [0, 1]; it is stretched over the whole picture.

    Returns:
        RGB, as large as the picture: clear where the heat is 0, violet, orange and pale yellow where it is high
        (inferno, whose brightness rises all the way, so that colour-blind people can read it).
    """
    cv2: Any = require("cv2")
    gray = np.asarray(image.convert("L").convert("RGB"), dtype=np.float32)
    large = cv2.resize(np.asarray(heat, dtype=np.float32), image.size, interpolation=cv2.INTER_LINEAR).clip(0, 1)
    colours = cv2.applyColorMap(np.rint(255 * large).astype(np.uint8), cv2.COLORMAP_INFERNO)[..., ::-1]
    opacity = _OPACITY * large[..., None]
    return Image.fromarray(np.rint(gray * (1 - opacity) + colours * opacity).astype(np.uint8))


def find_map_layer(model: nn.Module, images: Tensor) -> MapLayer:
    """Finds the layer of a network whose output a Grad-CAM map is made of, by running it on two images.

    It is the last one whose output has positions on which the score depends. In a vision transformer that classifies
    by its class token, the score does not depend on the patches of the last block's output; there it is the norm before
    that block's attention. Outputs with as many channels as the network has features come first (others may be
    attention weights or queries), and grids of at least 4 × 4.

    Args:
        model: In evaluation mode; gradient checkpointing off.
        images: (N, 3, S, S) float32, normalised, at least one.

    Raises:
        RecipeError: If there is none.
    """
    device = _device_of(model)
    two = images[:1].to(device).expand(2, -1, -1, -1)  # two, so that windows of a picture are not taken for pictures
    seen: dict[str, _Seen] = {}

    def keep(name: str, output: Any) -> None:
        seen.pop(name, None)  # one that is called again is as late as its last call
        if (tensor := _first_tensor(output)) is not None and tensor.requires_grad:
            seen[name] = _Seen(name, tensor)

    with torch.enable_grad():
        logits = _run_hooked(model, two, keep)
        outputs = [each for each in seen.values() if each.output.ndim in (3, 4) and len(each.output) == 2]
        score = _log_odds(logits, torch.zeros(2, dtype=torch.long, device=device)).sum()
        gradients = torch.autograd.grad(score, [each.output for each in outputs], allow_unused=True) if outputs else ()
    candidates: list[tuple[MapLayer, int]] = []
    for each, gradient in zip(outputs, gradients, strict=True):
        for layer in _read_layouts(model, each):
            if gradient is not None and bool(layer.read_grid(gradient).count_nonzero()):
                candidates.append((layer, _channels(layer, each.output)))
    features = getattr(_backbone_of(model), "num_features", None)
    for least in (_LEAST_GRID, 2):
        for wanted in (features, None):
            for layer, channels in reversed(candidates):
                if layer.side >= least and wanted in (None, channels):
                    return layer
    raise RecipeError(
        f"no heat map of {type(_backbone_of(model)).__name__}: no layer of it has an output with positions in the"
        " picture on which the score depends"
    )


# --- inside -----------------------------------------------------------------------------------------------------------


def _make_batch(model: nn.Module, layer: MapLayer, images: Tensor, targets: Tensor) -> Heat:
    """Makes the maps (B, S, S) of a batch."""
    kept: dict[str, Tensor] = {}

    def keep(name: str, output: Any) -> None:
        if (tensor := _first_tensor(output)) is not None:
            kept[name] = tensor

    with torch.enable_grad():
        logits = _run_hooked(model, images, keep, only=layer.name)
        output = kept[layer.name]
        (gradient,) = torch.autograd.grad(_log_odds(logits, targets).sum(), output)
    weights = layer.read_grid(gradient).mean(dim=(2, 3), keepdim=True)
    maps = (weights * layer.read_grid(output.detach())).sum(dim=1, keepdim=True).clamp(min=0)
    return _scale_maps(nn.functional.interpolate(maps, images.shape[2:], mode="bilinear")[:, 0])


def _scale_maps(maps: Tensor) -> Heat:
    """Brings the hottest position of each map (B, S, S) to 1."""
    highest = maps.amax(dim=(1, 2), keepdim=True)
    scaled = torch.where(highest > 0, maps / highest.clamp(min=torch.finfo(maps.dtype).tiny), 0.0)
    return np.asarray(scaled.float().cpu().numpy(), dtype=np.float32)


def _average_parts(heat: Heat) -> Heat:
    """Averages a map over `PATCHES` × `PATCHES` parts."""
    cv2: Any = require("cv2")
    return np.asarray(cv2.resize(heat, (PATCHES, PATCHES), interpolation=cv2.INTER_AREA), dtype=np.float32)


def _list_targets(target: int | Sequence[int], count: int) -> Tensor:
    """Lists the class of each image, (N,)."""
    targets = torch.as_tensor(target, dtype=torch.long)
    return targets.expand(count) if targets.ndim == 0 else targets


def _log_odds(logits: Tensor, targets: Tensor) -> Tensor:
    """Computes the log-odds (B,) of the target classes against all others from logits (B, classes)."""
    own = torch.zeros_like(logits, dtype=torch.bool).scatter_(1, targets[:, None], True)
    return logits[own] - logits.masked_fill(own, -torch.inf).logsumexp(dim=1)


def _score_batches(model: nn.Module, images: Tensor, targets: Tensor, size: int, device: torch.device) -> Tensor:
    """Computes the log-odds (N,) of images, on the CPU."""
    pairs = zip(torch.split(images, size), torch.split(targets, size), strict=True)
    return torch.cat([_log_odds(model(part.to(device)), own.to(device)).cpu() for part, own in pairs])


def _run_hooked(model: nn.Module, images: Tensor, keep: Callable[[str, Any], None], only: str | None = None) -> Tensor:
    """Runs a network and calls `keep` with the name and the output of each module, or of one alone; the logits."""
    handles = [
        module.register_forward_hook(lambda _module, _inputs, output, name=name: keep(name, output))
        for name, module in model.named_modules()
        if name and only in (None, name)
    ]
    try:  # the images need a gradient: all weights may be frozen
        logits = model(images.detach().clone().requires_grad_())
    finally:
        for handle in handles:
            handle.remove()
    if not isinstance(logits, Tensor) or logits.ndim != 2:
        raise RecipeError(f"no heat map of {type(_backbone_of(model)).__name__}: its output is not one number a class")
    return logits


@contextmanager
def _prepare_network(model: nn.Module) -> Iterator[torch.device]:
    """Puts a network into evaluation mode, without gradient checkpointing, which hides outputs; and back afterwards."""
    training = {module: module.training for module in model.modules()}
    checkpointed = [module for module in model.modules() if getattr(module, "grad_checkpointing", False) is True]
    try:
        model.eval()
        for module in checkpointed:
            module.grad_checkpointing = False  # type: ignore[assignment]
        yield _device_of(model)
    finally:
        for module in checkpointed:
            module.grad_checkpointing = True  # type: ignore[assignment]
        for module, was_training in training.items():
            module.training = was_training


def _device_of(model: nn.Module) -> torch.device:
    return next(model.parameters()).device


def _backbone_of(model: nn.Module) -> nn.Module:
    return model.backbone if isinstance(model, HeadedBackbone) else model


def _first_tensor(output: Any) -> Tensor | None:
    """Returns an output, or the first of several, if it is a tensor."""
    first = output[0] if isinstance(output, list | tuple) and output else output
    return first if isinstance(first, Tensor) else None


def _read_layouts(model: nn.Module, seen: _Seen) -> list[MapLayer]:
    """Lists how an output may be read as a grid: none, one, or of a cube both ways."""
    shape, backbone = seen.output.shape, _backbone_of(model)
    if len(shape) == 4:
        layouts: list[Literal["NCHW", "NHWC"]] = []
        if shape[2] == shape[3]:
            layouts.append("NCHW")
        if shape[1] == shape[2]:
            layouts.insert(0 if not is_channels_last(backbone) else 1, "NHWC")
        return [MapLayer(seen.name, layout, 0, shape[2]) for layout in layouts]
    has_class_token = any("cls_token" in name for name, _ in backbone.named_parameters(recurse=False))
    for tokens in (int(getattr(backbone, "num_prefix_tokens", has_class_token)), 0):
        side = math.isqrt(max(0, shape[1] - tokens))
        if side * side == shape[1] - tokens:
            return [MapLayer(seen.name, "NLC", tokens, side)]
    return []


def _channels(layer: MapLayer, output: Tensor) -> int:
    return int(output.shape[1] if layer.layout == "NCHW" else output.shape[-1])
