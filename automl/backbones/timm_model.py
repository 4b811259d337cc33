"""Building a timm model with the arguments that it takes."""

import difflib
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from automl.errors import RecipeError

INITIALISERS = frozenset(
    getattr(torch.ops.aten, name).default for name in ("normal_", "uniform_", "erfinv_", "clamp_", "clamp_min_")
)
"""What fills weights with numbers nobody will look at, at great cost for a large model."""


class SkipInitialisation(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Leaves new weights as they are: for models of which only shapes are looked at, or that get weights at once."""

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Runs every operation but those that draw initial weights."""
        return args[0] if func in INITIALISERS else func(*args, **(kwargs or {}))


def create_model(backbone: str, wanted: Mapping[str, Any], **always: Any) -> tuple[nn.Module, frozenset[str]]:
    """Calls `timm.create_model` without the arguments that an architecture does not take (`img_size` of a convnet).

    Args:
        backbone: A timm name, with or without its weights tag.
        wanted: Arguments that are left out where they are refused.
        always: Arguments that every architecture must take.

    Returns:
        The model, and the names of the wanted arguments that it refused.

    Raises:
        Exception: Whatever timm raises for a combination it cannot build.
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
    """Builds a timm model without initialising it, on the meta device where its code allows that.

    Args:
        backbone: A timm name, with or without its weights tag.
        wanted: As for `create_model`.
        always: As for `create_model`.

    Returns:
        As `create_model`.

    Raises:
        Exception: Whatever timm raises for a combination it cannot build.
    """
    try:
        with torch.device("meta"), SkipInitialisation():  # type: ignore[no-untyped-call]
            return create_model(backbone, wanted, **always)
    except (RuntimeError, NotImplementedError) as exc:
        if "size mismatch" in str(exc):  # weights of another shape, which real tensors would not mend
            raise
    # Code that looks at values while it builds. With real tensors initial weights must be drawn: torch draws truncated
    # normals until all of them are within their bounds, which would never come.
    return create_model(backbone, wanted, **always)


def drops_paths(model: nn.Module) -> bool:
    """Tells whether stochastic depth is at work in a model: a residual branch that may be dropped."""
    return any(_is_positive(getattr(module, "drop_prob", 0)) for module in model.modules())


def check_backbone(backbone: str) -> None:
    """Makes sure that timm has an architecture.

    Args:
        backbone: A timm name, with or without its weights tag.

    Raises:
        RecipeError: If not, with the nearest names.
    """
    import timm
    from timm.models import is_model, split_model_name_tag

    architecture = split_model_name_tag(backbone)[0]
    if is_model(architecture):
        return
    near = difflib.get_close_matches(architecture, timm.list_models(), n=3)
    hint = f"did you mean {' or '.join(near)}?" if near else "`automl backbones` lists those it has"
    raise RecipeError(f"timm has no backbone {backbone!r}; {hint}")


def first_mismatch(error: BaseException) -> str:
    """Writes an error on one line; of a state dict that does not fit, the first tensor and how many others.

    `load_state_dict` names the tensors from its second line on, and its first line alone says nothing.
    """
    lines = [line.strip() for line in str(error).strip().splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    if not lines[0].startswith("Error(s) in loading state_dict") or len(lines) == 1:
        return lines[0]
    more = f" (and {len(lines) - 2} more)" if len(lines) > 2 else ""
    return lines[1].rstrip(".") + more


def _is_positive(value: Any) -> bool:
    return isinstance(value, int | float) and value > 0
