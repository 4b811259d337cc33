"""A recipe as one readable Python script that trains it with timm and torch alone.

The script is `python_script.py.jinja`: a whole training script in which `#%` lines say what a recipe needs of it, so
that a script holds no branch that its recipe does not take. It does what `training.fit` does, in the same order and
from the same seeds; `tests/exporters/test_python_script.py` compares its parts with automl's. Loss, schedule, mixing,
parameter groups, freezing, the classifier's start from zero, the order of the images, their conversion to 8-bit RGB,
the windows and the augmentations that torchvision lacks, and self-blending are automl's own functions, copied as they
stand; what they use of SciPy is in the script with torch in its place.
"""

import json
from collections.abc import Collection
from functools import cache, partial
from pathlib import Path
from pprint import pformat
from textwrap import fill
from typing import Any

from jinja2 import Environment, StrictUndefined, Template

from automl.backbones import heads
from automl.backbones.capabilities import find_capabilities
from automl.backbones.timm_model import check_backbone, create_model
from automl.backbones.weights import forget_weights
from automl.data import loader, self_blend, transforms
from automl.exporters.source_code import SourceCopier
from automl.media import images
from automl.media.image_file import FORMATS
from automl.recipe import Recipe
from automl.recipe import augmentation as aug
from automl.recipe.choices import check_choices
from automl.recipe.tuning import LinearHead, TuneAll
from automl.schema import Part
from automl.training.loss import LOSSES
from automl.training.mixing import TORCHVISION_NAMES, mix_sometimes
from automl.training.optimizer import OPTIMIZERS, group_parameters, optimizer_arguments
from automl.training.schedule import RESTART_SCALE, SCHEDULES, restart_schedule
from automl.views.base import WholeImage

_POLICIES: dict[type[Part], str] = {
    aug.NoPolicy: "",
    aug.AutoAugment: "partial(_apply_to_pil, v2.AutoAugment(**FILLED))",
    aug.RandAugment: "partial(_apply_to_pil, v2.RandAugment({operations}, {magnitude}, **FILLED))",
    aug.TrivialAugment: "partial(_apply_to_pil, v2.TrivialAugmentWide(**FILLED))",
    aug.AugMix: "v2.AugMix({severity}, {width}, **FILLED)",
}
"""The source of each augmentation policy, with its fields in braces."""

KNOWN: dict[str, Collection[type[Part]]] = {
    "view": (WholeImage,),
    "tune": (TuneAll,),
    "head": (LinearHead,),
    "loss": LOSSES,  # of these four, training's own functions or timm's and torchvision's
    "schedule": SCHEDULES,
    "optimizer": OPTIMIZERS,
    "mixing": TORCHVISION_NAMES,
    "augmentation.crop": (aug.ResizeCrop, aug.NativeCrop, aug.RandomResizedCrop, aug.SquashCrop),
    "augmentation.affine": (aug.NoAffine, aug.RandomAffine),
    "augmentation.color": (aug.NoColor, aug.ColorJitter),
    "augmentation.policy": _POLICIES,
}
"""The choices of a recipe that a script can hold."""

AUGMENTATIONS = (
    *("horizontal_flip", "vertical_flip", "grayscale", "blur", "jpeg", "jpeg_min_quality", "downscale"),
    *("downscale_min", "erasing", "self_blend"),
)
"""The other fields of `augmentation` that a script can hold."""

_LINE = 120

_RENAMED = {
    "RecipeError": "SystemExit",
    "RandomResizedCropV1": "RandomResizedCrop",
    "_BatchNorm": "nn.modules.batchnorm._BatchNorm",
}
"""What copied functions use, and what the script has in its place."""


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
        RecipeError: If timm has no such backbone, or the recipe has what a script cannot hold (`KNOWN`).
    """
    check_choices("--format python", recipe, KNOWN, AUGMENTATIONS)
    check_backbone(recipe.backbone)
    micro = recipe.numerics.micro_batch_size
    steps = _list_steps(recipe)
    return _load_template().render(
        recipe=recipe,
        able=find_capabilities(recipe.backbone, (recipe.image_size,)),
        crop=recipe.augmentation.crop,
        mixing=recipe.mixing,
        mixing_class=TORCHVISION_NAMES[type(recipe.mixing)],
        numerics=recipe.numerics,
        loss_class=LOSSES[type(recipe.loss)].__name__,
        loss_arguments=recipe.loss.model_dump(exclude={"name"}),
        schedule_function=SCHEDULES[type(recipe.schedule)].__name__,
        schedule_arguments=recipe.schedule.model_dump(exclude={"name"}),
        restart_scale=RESTART_SCALE,
        optimizer_arguments={"opt": recipe.optimizer.name} | optimizer_arguments(recipe.optimizer),
        classes=classes,
        positive=positive,
        real_class=real_class,
        decode_size=decode_size,
        samples=samples,
        weights=weights,
        micro=micro if micro is not None and micro < recipe.batch_size else None,
        steps=steps,
        windows=", ".join(map(_write_call, _find_windows(recipe.augmentation.crop))),
        formats=fill(" ".join(name for name in FORMATS if name != "HEIF"), _LINE),
        uses_mean=any("MEAN_COLOR" in step or "FILLED" in step for step in steps),
        filled=any("FILLED" in step for step in steps),
        blended=recipe.augmentation.self_blend > 0 and real_class is not None,
        **_copy_functions(recipe, steps),
    )


def _copy_functions(recipe: Recipe, steps: list[str]) -> dict[str, str]:
    """Copies the functions of automl that a recipe needs, by the part of the script that they belong to."""
    copier, written = SourceCopier(_RENAMED), " ".join(steps)
    possible = (transforms._apply_sometimes, transforms._apply_to_pil, transforms._code_jpeg)
    used = [function for function in (*possible, transforms._scale_down_and_up) if function.__name__ in written]
    windows = [getattr(window, "func", window) for window in _find_windows(recipe.augmentation.crop)]
    mixing = [mix_sometimes] * (recipe.mixing.name != "none")
    freeze = [heads.freeze_backbone] * (recipe.freeze_epochs > 0)
    restart = [restart_schedule] * bool(recipe.restarts)
    return {
        "image_functions": copier.copy(images._turn_upright, images._to_rgb, images._find_spans),
        "augmentation_functions": copier.copy(*windows, *used),
        "batch_functions": copier.copy(loader._draw_batches),
        "blend_functions": copier.copy(self_blend.self_blend),
        "head_functions": copier.copy(create_model, heads.start_from_zero, forget_weights, *freeze),
        "training_functions": copier.copy(
            group_parameters, SCHEDULES[type(recipe.schedule)], LOSSES[type(recipe.loss)], *restart, *mixing
        ),
    }


def _find_windows(crop: aug.Crop) -> tuple[Any, Any]:
    """Returns what cuts the window out of an image in training, and what does in evaluation."""
    return transforms._choose_window(crop, training=True), transforms._choose_window(crop, training=False)


def _write_call(function: Any) -> str:
    """Writes a function, or one with its first arguments given, as Python source."""
    if isinstance(function, partial):
        return f"partial({', '.join([function.func.__name__, *map(repr, function.args)])})"
    return str(function.__name__)


@cache
def _load_template() -> Template:
    """Reads the template; it has marks of its own, because Python is full of braces."""
    environment = Environment(  # noqa: S701 - Python, not HTML: there is nothing to escape
        variable_start_string="<<",
        variable_end_string=">>",
        block_start_string="#%",
        block_end_string="%#",
        trim_blocks=True,
        keep_trailing_newline=True,
        undefined=StrictUndefined,
    )
    environment.filters["source"] = _write_value
    return environment.from_string(Path(__file__).with_suffix(".py.jinja").read_text(encoding="utf-8"))


def _write_value(value: Any) -> str:
    """Writes a value as Python source, strings in double quotes, long tuples on several lines."""
    if isinstance(value, str | Path):
        return json.dumps(str(value), ensure_ascii=False)
    if isinstance(value, dict):
        return f"{{{', '.join(f'{_write_value(key)}: {_write_value(part)}' for key, part in value.items())}}}"
    if isinstance(value, tuple) and len(repr(value)) < _LINE - 20:
        return f"({', '.join(_write_value(part) for part in value)}{',' if len(value) == 1 else ''})"
    return pformat(value, width=_LINE - 20, compact=True)


def _list_steps(recipe: Recipe) -> list[str]:
    """Lists the augmentations after the crop as source, in the order of `data.transforms`."""
    a = recipe.augmentation
    steps: list[tuple[float, str]] = [(a.horizontal_flip, "F.horizontal_flip"), (a.vertical_flip, "F.vertical_flip")]
    if isinstance(a.affine, aug.RandomAffine):
        moved = (a.affine.translate, a.affine.translate) if a.affine.translate else None
        limits = f"degrees={a.affine.rotate_degrees}, translate={moved}, shear={a.affine.shear_degrees or None}"
        steps.append((a.affine.probability, f"v2.RandomAffine({limits}, **FILLED)"))
    if isinstance(a.color, aug.ColorJitter):
        strengths = f"{a.color.brightness}, {a.color.contrast}, {a.color.saturation}, {a.color.hue}"
        steps.append((a.color.probability, f"v2.ColorJitter({strengths})"))
    steps += [
        (a.grayscale, "v2.Grayscale(num_output_channels=3)"),
        (a.policy.name != "none", _POLICIES[type(a.policy)].format(**a.policy.model_dump())),
        (a.blur, "v2.RandomChoice([v2.GaussianBlur(kernel) for kernel in (3, 5, 7)])"),
        (a.downscale, f"partial(_scale_down_and_up, {a.downscale_min}, IMAGE_SIZE)"),
        (a.jpeg, f"partial(_code_jpeg, {a.jpeg_min_quality})"),
        (a.erasing, "v2.RandomErasing(p=1, value=MEAN_COLOR)"),
    ]
    return [
        step if probability == 1 else f"partial(_apply_sometimes, {probability}, {step})"
        for probability, step in steps
        if probability
    ]
