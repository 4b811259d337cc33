"""The options of timm's training script, and how a recipe is written in them without losing anything.

`OPTIONS` are the names that our YAML uses, as train.py's parser calls them. train.py is in neither timm's wheel nor its
sdist; the names were collected from copies of it in public repositories (timm 1.0), and those that are newer from the
tests and release notes in the sdist of 1.0.31. `test_timm_config.py` runs a real parser where there is one.
"""

import math
import textwrap
from collections.abc import Mapping
from typing import Any

import yaml

from automl.recipe import Recipe

_DATA = """
    class_map data_dir dataset device experiment interpolation mean num_classes output pretrained_path std train_split
    val_split workers
"""
_RECIPE = """
    aa amp amp_dtype batch_size channels_last clip_grad clip_mode color_jitter color_jitter_prob cooldown_epochs
    crop_pct cutmix decay_epochs decay_rate drop drop_path epochs gaussian_blur_prob grad_accum_steps grad_checkpointing
    grayscale_prob head_init_scale hflip img_size layer_decay lr lr_decay_fn min_lr mixup mixup_mode mixup_prob model
    model_ema model_ema_decay model_ema_warmup model_kwargs momentum opt opt_betas pretrained ratio recount remode
    reprob scale sched sched_on_updates seed smoothing train_crop_mode train_interpolation vflip warmup_epochs warmup_lr
    warmup_prefix weight_decay
"""

DATA_OPTIONS = frozenset(_DATA.split())
"""train.py's options about data and machine, which a recipe does not hold."""

OPTIONS = DATA_OPTIONS | frozenset(_RECIPE.split())
"""Every option of train.py (argparse's `dest`) that a YAML of ours may set."""

_OFF: dict[str, Any] = {
    "augmentation.affine.name": "none",
    "augmentation.affine.probability": 0,
    "augmentation.color.hue": 0,
    "augmentation.color.probability": 0,
    "augmentation.jpeg": 0,
    "augmentation.downscale": 0,
    "augmentation.self_blend": 0,
    **{f"augmentation.{n}": 0 for n in ("codec", "time_mask", "frequency_mask", "time_shift", "noise", "gain")},
    "view.name": "image",
    "loss.class_weights": "none",
    "loss.alpha": 0,
    "head_lr_factor": 1,
    "freeze_epochs": 0,
    "drop_path": 0,
    "numerics.grad_checkpointing": False,
}
"""Values that do nothing: what train.py or the backbone lacks does not matter there."""

_GOVERNED_BY = {
    "augmentation.jpeg_min_quality": "augmentation.jpeg",
    "augmentation.downscale_min": "augmentation.downscale",
    **{f"augmentation.affine.{n}": "augmentation.affine.probability" for n in ("name", "rotate_degrees")},
    **{f"augmentation.affine.{n}": "augmentation.affine.probability" for n in ("shear_degrees", "translate")},
    "augmentation.color.hue": "augmentation.color.probability",
    **{f"aggregate.{n}": "view.name" for n in ("name", "trim", "share")},  # an image file is one image
}
"""What does nothing where another value is off."""

_WHY = {
    "augmentation.crop.name": "train.py resizes every image; the nearest, a random window after resizing, is set",
    "augmentation.color": "train.py switches its colour jitter off beside a policy (aa)",
    "loss.name": "train.py: cross entropy",
    "loss.class_weights": "train.py: every image counts the same",
    "drop_path": "this backbone has no stochastic depth",
    "numerics.grad_checkpointing": "this backbone has none",
}


def leaves(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested mapping's values by their dotted names."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        found |= leaves(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return found


class OptionLines:
    """The options so far, and which of the recipe's values they took."""

    def __init__(self, recipe: Recipe) -> None:
        self.values = leaves(recipe.model_dump())
        self.left = dict(self.values)
        self.written: list[str] = []

    def title(self, text: str) -> None:
        """Begins a group of options."""
        self.written += ["", f"# {text}"]

    def comment(self, text: str) -> None:
        """Writes a remark on the option above, or on one that is not set."""
        self.written += textwrap.wrap(
            text, 110, initial_indent="# ", subsequent_indent="#   ", break_long_words=False, break_on_hyphens=False
        )

    def set(self, option: str, value: Any, *taken: str, note: str = "") -> None:
        """Writes one option; `taken` are the names of the recipe's values that it carries over.

        A note says what differs, and then the recipe's own values are written out.
        """
        for name in taken:
            self.left.pop(name, None)
        named = [f"{name} {plain(self.values[name])}" if note else name for name in taken if name in self.values]
        comment = ": ".join(part for part in (", ".join(named), note) if part)
        self.written.append(f"{option}: {plain(value)}" + (f"  # {comment}" if comment else ""))

    def unknown(self) -> str:
        """The comment on everything that no option took."""
        off = {name: value for name, value in self.left.items() if self._is_off(name)}
        lost = [f"{name}: {plain(value)}{self._why(name)}" for name, value in self.left.items() if name not in off]
        text = "\n# Not known to train.py, or not to this backbone, so missing here:\n"
        text += "".join(f"#   {line}\n" for line in lost or ["nothing"])
        if off:
            listed = ", ".join(f"{name} {plain(value)}" for name, value in off.items())
            text += "# Not known to train.py, or not to this backbone, and without effect in this recipe:\n"
            text += textwrap.indent(textwrap.fill(listed, 110, break_long_words=False), "#   ") + "\n"
        return text

    def _is_off(self, name: str) -> bool:
        governor = _GOVERNED_BY.get(name)
        if governor is not None and self.values.get(governor) == _OFF[governor]:
            return True
        return name in _OFF and self.values[name] == _OFF[name]

    def _why(self, name: str) -> str:
        reason = next((why for start, why in _WHY.items() if name.startswith(start)), "")
        return f"  ({reason})" if reason else ""


def plain(value: Any) -> str:
    """A value as YAML on one line."""
    return yaml.safe_dump([value], default_flow_style=True, width=math.inf).strip()[1:-1]
