"""Examines what a timm architecture can do, on tensors without data: no weights are needed, and no GPU.

The weights of an architecture have the shapes of the network that timm builds by default. So a network of another image
size is built and given those, as timm would load them (with its own resizing of position embeddings), and then run.
"""

import logging
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from automl.backbones.capability_table import REASON_CHARACTERS, Capabilities
from automl.backbones.timm_model import (
    SkipInitialisation,
    build_on_meta,
    check_backbone,
    create_model,
    find_native_size,
    has_drop_path,
    summarize_error,
)

_CLASSES = 2
_SHORT_OF_MEMORY = (MemoryError, torch.OutOfMemoryError)
"""Says nothing about a backbone, and must not be kept as if it did."""


def examine_backbone(backbone: str, sizes: Iterable[int]) -> Capabilities:
    """Finds out what a backbone can do at these image sizes and that of its weights; `problem` says why nothing.

    Raises:
        RecipeError: If timm has no such backbone.
        MemoryError: If there is not enough memory to find out; `torch.OutOfMemoryError` likewise.
    """
    from timm.models import get_pretrained_cfg

    check_backbone(backbone)
    cfg = get_pretrained_cfg(backbone)
    default, size = is_default(backbone), find_native_size(backbone)
    with _silence_timm():
        try:
            source, _ = build_on_meta(backbone, {}, num_classes=cfg.num_classes if cfg is not None else 1000)
            return _examine_sizes(backbone, size, default, source, sorted({*sizes, size}))
        except _SHORT_OF_MEMORY:
            raise
        except (Exception, SystemExit) as exc:  # a model's code may raise anything
            return Capabilities(backbone, size, default, problem=_shorten_reason(exc))


def is_default(backbone: str) -> bool:
    """Returns whether a name's weights are those that its architecture's name stands for."""
    from timm.models import get_pretrained_cfg

    arch, _, tag = backbone.partition(".")
    default = get_pretrained_cfg(arch)
    return not tag or default is None or default.tag == tag


def run_on_meta(model: nn.Module, image_size: int) -> Tensor:
    """Runs a model that has no data on two images of one size, as in training; returns its logits (2, classes)."""
    device = next(model.parameters()).device
    model.train()
    with torch.no_grad(), torch.device(device):
        logits: Any = model(torch.empty(2, 3, image_size, image_size, device=device))
    while isinstance(logits, tuple | list):  # a distilled model's first head
        logits = logits[0]
    if not isinstance(logits, Tensor) or logits.shape != (2, _CLASSES):
        raise ValueError(f"its outputs are not of the shape (2, {_CLASSES})")
    return logits


def _examine_sizes(
    backbone: str, weights_size: int, default_weights: bool, source: nn.Module, sizes: list[int]
) -> Capabilities:
    runs, loads, why_not, takes_size = [], [], "", False
    one: nn.Module | None = None  # that serves all sizes
    for size in sizes:
        try:
            model, refused = (
                (one, frozenset({"img_size"})) if one is not None else _load_at_size(backbone, size, source)
            )
            run_on_meta(model, size)
            loads.append(size)
            runs.append(size)
            takes_size = "img_size" not in refused
            one = None if takes_size else model
        except _SHORT_OF_MEMORY:
            raise
        except (Exception, SystemExit) as exc:  # a model's code may raise anything for a size it cannot take
            reason = exc if one is not None else _find_error(backbone, size)
            if reason is None:
                runs.append(size)
            why_not = why_not or f"{size} px: {_shorten_reason(reason or exc)}"
    model, _ = build_on_meta(backbone, {"drop_path_rate": 0.5}, num_classes=_CLASSES)
    return Capabilities(
        backbone=backbone,
        weights_size=weights_size,
        default_weights=default_weights,
        runs=tuple(runs),
        loads=tuple(loads),
        takes_size=takes_size,
        drop_path=has_drop_path(model),
        grad_checkpointing=_can_checkpoint(model),
        layer_groups=_count_layer_groups(model),
        plain_head=_has_plain_head(model),
        other_channels=_takes_one_channel(backbone),
        why_not=why_not,
    )


def _load_at_size(backbone: str, size: int, source: nn.Module) -> tuple[nn.Module, frozenset[str]]:
    """Builds a network of another size with the source's weights, as timm loads a checkpoint."""
    always: dict[str, Any] = {"num_classes": _CLASSES, "pretrained": True}
    wanted, shapes = {"img_size": size}, source.state_dict()
    try:
        with torch.device("meta"), SkipInitialisation():  # type: ignore[no-untyped-call]
            return create_model(backbone, wanted, **always, pretrained_cfg_overlay={"state_dict": dict(shapes)})
    except (RuntimeError, NotImplementedError) as exc:
        if "size mismatch" in str(exc):
            raise
        # Code that looks at the values of weights while it resizes them.
        weights = {name: torch.zeros(shape.shape, dtype=shape.dtype) for name, shape in shapes.items()}
        create_model(backbone, wanted, **always, pretrained_cfg_overlay={"state_dict": weights})
        return build_on_meta(backbone, wanted, num_classes=_CLASSES)


def _find_error(backbone: str, size: int) -> BaseException | None:
    """Returns what a network of a size raises without its weights; None if it runs."""
    try:
        run_on_meta(build_on_meta(backbone, {"img_size": size}, num_classes=_CLASSES)[0], size)
    except _SHORT_OF_MEMORY:
        raise
    except (Exception, SystemExit) as exc:  # as above
        return exc
    return None


def _can_checkpoint(model: nn.Module) -> bool:
    try:
        model.set_grad_checkpointing(True)  # type: ignore[operator]
    except (AssertionError, AttributeError):
        return False
    return True


def _count_layer_groups(model: nn.Module) -> int:
    """Counts the learning rates that layer-wise decay makes of one."""
    from timm.optim import param_groups_layer_decay  # type: ignore[attr-defined]

    groups: list[Mapping[str, Any]] = param_groups_layer_decay(model, 0.01, layer_decay=0.5)
    return len({group["lr_scale"] for group in groups})


def _has_plain_head(model: nn.Module) -> bool:
    head = model.get_classifier()  # type: ignore[operator]
    return all(isinstance(getattr(head, name, None), Tensor) for name in ("weight", "bias"))


def _takes_one_channel(backbone: str) -> bool:
    try:
        build_on_meta(backbone, {}, num_classes=_CLASSES, in_chans=1)
    except Exception:  # whatever its code raises
        return False
    return True


def _shorten_reason(exc: BaseException) -> str:
    return " ".join(summarize_error(exc).split())[:REASON_CHARACTERS]


@contextmanager
def _silence_timm() -> Iterator[None]:
    """Silences the warnings of models, and the lines that timm logs for every load."""
    logger = logging.getLogger("timm")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
