"""Builds timm models with the arguments that they take."""

import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from automl.errors import RecipeError, find_near_names, first_line

INITIALISERS = frozenset(
    getattr(torch.ops.aten, name).default for name in ("normal_", "uniform_", "erfinv_", "clamp_", "clamp_min_")
)
"""Operators that fill weights with numbers nobody will look at, at great cost for a large model."""


class SkipInitialisation(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Leaves new weights as they are: for models of which only shapes are looked at, or that get weights at once."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Runs every operation but those that draw initial weights."""
        return args[0] if func in INITIALISERS else func(*args, **(kwargs or {}))


def create_model(backbone: str, wanted: Mapping[str, Any], **always: Any) -> tuple[nn.Module, frozenset[str]]:
    """Calls `timm.create_model` without the arguments that an architecture does not take (`img_size` of a convnet).

    Those of `wanted` are left out where they are refused; those of `always` every architecture must take.

    Returns the model, and the names of the wanted arguments that it refused.
    """
    import timm

    left = dict(wanted)
    while True:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # timm warns of its own deprecated names
                model: nn.Module = timm.create_model(backbone, **left, **always)
        except TypeError as exc:  # timm's architectures say only in this way which arguments they take
            refused = [name for name in left if f"'{name}'" in str(exc)]
            if not refused:
                raise
            for name in refused:
                del left[name]
        else:
            return model, frozenset(wanted.keys() - left.keys())


def build_on_meta(backbone: str, wanted: Mapping[str, Any], **always: Any) -> tuple[nn.Module, frozenset[str]]:
    """Builds a timm model like `create_model`, not initialised, on the meta device where its code allows that."""
    try:
        with torch.device("meta"), SkipInitialisation():  # type: ignore[no-untyped-call]
            return create_model(backbone, wanted, **always)
    except (RuntimeError, NotImplementedError) as exc:
        if "size mismatch" in str(exc):  # weights of another shape, which real tensors would not mend
            raise
    # Code that looks at values while it builds. With real tensors initial weights must be drawn: torch draws truncated
    # normals until all of them are within their bounds, which would never come.
    return create_model(backbone, wanted, **always)


def has_drop_path(model: nn.Module) -> bool:
    """Returns whether a model has stochastic depth: a residual branch that may be dropped."""
    rates = [getattr(module, "drop_prob", None) for module in model.modules()]
    return any(isinstance(rate, int | float) and rate > 0 for rate in rates)


def check_backbone(backbone: str) -> None:
    """Makes sure that timm has an architecture.

    Raises:
        RecipeError: If not, with the nearest names.
    """
    import timm
    from timm.models import is_model, split_model_name_tag

    architecture = split_model_name_tag(backbone)[0]
    if is_model(architecture):
        return
    near = " or ".join(map(repr, find_near_names(architecture, timm.list_models())))
    hint = f"did you mean {near}?" if near else "`automl backbones` lists those it has"
    raise RecipeError(f"timm has no backbone {backbone!r}; {hint}")


def find_native_size(backbone: str) -> int:
    """Returns the pixels per side at which the backbone's weights were trained; 224 where timm does not say."""
    from timm.models import get_pretrained_cfg

    size = getattr(get_pretrained_cfg(backbone, allow_unregistered=True), "input_size", None)
    return int(size[-1]) if size else 224


def summarize_error(error: BaseException) -> str:
    """Writes an error on one line; of a state dict that does not fit, the first tensor and how many others.

    `load_state_dict` names the tensors from its second line on, and its first line alone says nothing.
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if len(lines) < 2 or not lines[0].startswith("Error(s) in loading state_dict"):
        return first_line(error)
    more = f" (and {len(lines) - 2} more)" if len(lines) > 2 else ""
    return lines[1].rstrip(".") + more
