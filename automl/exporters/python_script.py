"""A recipe as one readable Python script that trains it with timm and torch alone.

The script is `python_script.py.jinja`: a whole training script in which `#%` lines say what a recipe needs of
it, so that a script holds no branch that its recipe does not take. It does what `training.fit` does, in the same
order and from the same seeds; `tests/exporters/test_python_script.py` holds its parts against automl's. What makes the
classifier start from zero is copied out of `backbones.heads` as it stands, the sizes of images of which nothing is
cut off and the scaling of more than 8 bits out of `data.decode`, and self-blending out of `data.self_blend`, with
torch in the place of SciPy.
"""

import inspect
import json
import re
from functools import cache
from pathlib import Path
from pprint import pformat
from textwrap import fill
from typing import TYPE_CHECKING, Any

from automl.backbones.capabilities import find_capabilities
from automl.backbones.timm_model import check_backbone
from automl.media import images as decode
from automl.media.image_file import FORMATS
from automl.recipe import Recipe
from automl.recipe.optimizer import Optimizer, Sgd

if TYPE_CHECKING:
    from jinja2 import Template

_LINE = 120

_SCIPY = '''
def gaussian_filter(image, sigma):
    """A (S, S) float32 image, blurred."""
    size = 2 * int(4 * sigma + 0.5) + 1
    return F.gaussian_blur(torch.from_numpy(image)[None], [size, size], [sigma, sigma])[0].numpy()


def map_coordinates(image, coordinates):
    """A (S, S) float32 image, read at (2, S, S) coordinates of y and x; 0 outside."""
    grid = torch.from_numpy(np.ascontiguousarray(2 * coordinates[::-1] / (MASK_SIDE - 1) - 1, np.float32))
    return nn.functional.grid_sample(
        torch.from_numpy(image)[None, None], grid.permute(1, 2, 0)[None], align_corners=True
    )[0, 0].numpy()


def convex_hull(points):
    """The corners (M, 2) of the hull of points (N, 2), one after the other (Andrew's monotone chain)."""
    corners = []
    for ordered in (sorted(points.tolist()), sorted(points.tolist(), reverse=True)):
        chain = []
        for x, y in ordered:
            while len(chain) > 1:
                (x0, y0), (x1, y1) = chain[-2:]
                if (x1 - x0) * (y - y0) - (y1 - y0) * (x - x0) > 0:
                    break
                chain.pop()
            chain.append([x, y])
        corners += chain[:-1]
    return np.array(corners)
'''

_INSTEAD = {
    ', order=1, mode="constant"': "",
    "points[ConvexHull(points).vertices]": "convex_hull(points)",
}
"""What the copied functions call of SciPy, and what they call in the script."""


def python_script(
    recipe: Recipe,
    *,
    classes: tuple[str, ...],
    positive: int,
    real_class: int | None,
    decode_size: int,
    samples: Path | None,
    weights: Path | None,
) -> str:
    """Writes the training of a recipe as a Python script.

    Args:
        recipe: What the script trains.
        classes: Names of the classes, in the order of their labels.
        positive: Label of the class whose probability AUC looks at, when there are two; self-blended images get it.
        real_class: Label of the genuine images; None: no image is self-blended.
        decode_size: Pixels of the short side that files are decoded to, as `data.cache` does.
        samples: CSV with the columns path, name, label, split, the default of `--samples`; None: it must be given.
        weights: Safetensors file of pretrained weights, the default of `--weights`; None: timm's hub.

    Returns:
        The script's text. It imports torch, torchvision, timm and what they depend on, nothing of automl.

    Raises:
        RecipeError: If timm has no such backbone.
    """
    check_backbone(recipe.backbone)
    augmentation = recipe.augmentation
    micro = recipe.numerics.micro_batch_size
    blended = augmentation.self_blend > 0 and real_class is not None
    loss = recipe.loss
    return _template().render(
        recipe=recipe,
        able=find_capabilities(recipe.backbone, (recipe.image_size,)),
        heads=_heads(),
        crop=augmentation.crop,
        mixing=recipe.mixing,
        schedule=recipe.schedule,
        numerics=recipe.numerics,
        classes=classes,
        positive=positive,
        real_class=real_class,
        decode_size=decode_size,
        samples=None if samples is None else str(samples),
        weights=None if weights is None else str(weights),
        micro=micro if micro is not None and micro < recipe.batch_size else None,
        class_weighted=loss.alpha > 0 if loss.name == "focal" else loss.class_weights == "balanced",
        optimizer_name=recipe.optimizer.name,
        optimizer_arguments=_optimizer_arguments(recipe.optimizer),
        steps=_steps(recipe),
        on_pil=augmentation.policy.name in ("auto", "rand", "trivial"),
        spans=_spans(),
        to_eight_bits=_to_eight_bits(),
        formats=fill(" ".join(name for name in FORMATS if name != "HEIF"), _LINE),
        scaling=", ".join(map(str, (decode._BEYOND, decode._RANGE_PIXELS, decode._OVERSHOOT))),
        uses_mean=any("MEAN_COLOR" in step or "FILLED" in step for _, step in _steps(recipe)),
        filled=any("FILLED" in step for _, step in _steps(recipe)),
        self_blend=_self_blend() if blended else "",
    )


@cache
def _template() -> "Template":
    from jinja2 import Environment, StrictUndefined

    environment = Environment(  # noqa: S701 - Python, not HTML: there is nothing to escape
        variable_start_string="<<",
        variable_end_string=">>",
        block_start_string="#%",
        block_end_string="%#",
        trim_blocks=True,
        keep_trailing_newline=True,
        undefined=StrictUndefined,
    )
    environment.filters["source"] = _source
    return environment.from_string(Path(__file__).with_suffix(".py.jinja").read_text(encoding="utf-8"))


def _source(value: Any) -> str:
    """A value as Python source, strings in double quotes, long tuples on several lines."""
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, tuple) and len(repr(value)) < _LINE - 20:
        return f"({', '.join(_source(part) for part in value)}{',' if len(value) == 1 else ''})"
    return pformat(value, width=_LINE - 20, compact=True)


def _optimizer_arguments(optimizer: Optimizer) -> str:
    """The optimizer's own arguments as source, as `training.optimizers` passes them."""
    if isinstance(optimizer, Sgd):
        arguments = f"momentum={optimizer.momentum}, nesterov={optimizer.nesterov and optimizer.momentum > 0}"
    else:
        arguments = f"betas=(0.9, {optimizer.beta2})"
    return arguments + (", fused=True" if optimizer.name in ("sgd", "adam", "adamw") else "")


def _steps(recipe: Recipe) -> list[tuple[float, str]]:
    """The augmentations after the crop, in `data.augment`'s order: probability, source."""
    a = recipe.augmentation
    filled = "**FILLED"
    steps: list[tuple[float, str]] = [(a.horizontal_flip, "F.horizontal_flip"), (a.vertical_flip, "F.vertical_flip")]
    if a.affine.name == "random":
        moved = (a.affine.translate, a.affine.translate) if a.affine.translate else None
        limits = f"degrees={a.affine.rotate_degrees}, translate={moved}, shear={a.affine.shear_degrees or None}"
        steps.append((a.affine.probability, f"v2.RandomAffine({limits}, {filled})"))
    if a.color.name == "jitter":
        strengths = f"{a.color.brightness}, {a.color.contrast}, {a.color.saturation}, {a.color.hue}"
        steps.append((a.color.probability, f"v2.ColorJitter({strengths})"))
    steps.append((a.grayscale, "v2.Grayscale(num_output_channels=3)"))
    steps += [(1, source) for source in _policy(a.policy, filled)]
    steps.append((a.blur, "v2.RandomChoice([v2.GaussianBlur(kernel) for kernel in (3, 5, 7)])"))
    steps.append((a.downscale, "down_and_up"))
    steps.append((a.jpeg, "jpeg"))
    steps.append((a.erasing, "v2.RandomErasing(p=1, value=MEAN_COLOR)"))
    return [(probability, source) for probability, source in steps if probability]


def _policy(policy: Any, filled: str) -> list[str]:
    """An augmentation policy as source; none: nothing."""
    match policy.name:
        case "auto":
            return [f"on_pil(v2.AutoAugment({filled}))"]
        case "rand":
            return [f"on_pil(v2.RandAugment({policy.operations}, {policy.magnitude}, {filled}))"]
        case "trivial":
            return [f"on_pil(v2.TrivialAugmentWide({filled}))"]
        case "augmix":
            return [f"v2.AugMix({policy.severity}, {policy.width}, {filled})"]
    return []


@cache
def _to_eight_bits() -> str:
    """The source of `data.decode`'s scaling of values of more than 8 bits, without what only automl needs."""
    functions = (decode._to_eight_bits, decode._range, decode._scale)
    source = "\n\n".join(inspect.getsource(function) for function in functions)
    source = re.sub(r"(?<!\w)_range\b", "value_range", source)
    source = re.sub(r"(?<!\w)_(to_eight_bits|scale|BEYOND|RANGE_PIXELS|OVERSHOOT)\b", r"\1", source)
    source = re.sub(r"npt\.NDArray\[[\w.]+\]", "np.ndarray", source).replace(" (see the module's text)", "")
    return source.strip()


@cache
def _spans() -> str:
    """The source of `data.decode`'s shrinking of whole images."""
    source = inspect.getsource(decode._spans).replace("_spans(", "spans(").strip()
    return source.replace("LONGEST", str(decode.LONGEST)).replace("MIDDLE", str(decode.MIDDLE))


@cache
def _heads() -> str:
    """The source of `backbones.heads` and `training.model.forget_weights`, without what only automl needs."""
    from automl.backbones import heads
    from automl.backbones.weights import forget_weights

    source = inspect.getsource(heads)
    kept = source[source.index("def head_modules") :] + "\n\n" + inspect.getsource(forget_weights)
    kept = re.sub(r"\n\n    Args:\n.*?\n    \"\"\"", '\n    """', kept, flags=re.DOTALL)
    return re.sub(r"  # type: ignore\[.*?\]", "", kept).replace('"nn.Module"', "nn.Module").strip()


def _self_blend() -> str:
    """The source of `data.self_blend`, without SciPy."""
    from automl.data import self_blend as module

    source = inspect.getsource(module)
    kept = source[source.index("Pixels = ") :]
    for theirs, ours in _INSTEAD.items():
        if theirs not in kept:
            raise AssertionError(f"data.self_blend no longer says {theirs!r}")
        kept = kept.replace(theirs, ours)
    return f"# Self-blended images (Shiohara & Yamasaki 2022, arXiv:2204.08376)\n{kept.strip()}\n\n\n{_SCIPY.strip()}"
