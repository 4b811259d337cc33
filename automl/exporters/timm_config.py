"""A recipe as the YAML that timm's own training script reads: `python train.py --config FILE --data-dir DIR`.

What train.py knows is carried over, each line naming the recipe's value it comes from; what it does not know stands in
a comment with its value. Nothing is left out by being forgotten: what no line takes is listed. train.py is in neither
timm's wheel nor its sdist; `tests/exporters/test_timm_config.py` runs a real one where there is one.
"""

import math
import textwrap
from collections import Counter
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from automl.backbones.capabilities import find_capabilities
from automl.backbones.capability_table import Capabilities
from automl.backbones.heads import head_modules
from automl.backbones.timm_model import build_on_meta, check_backbone
from automl.models.folder import Labels
from automl.recipe import Recipe, learning, tuning
from automl.recipe import augmentation as aug
from automl.recipe.choices import check_choices
from automl.schema import Part
from automl.views.base import WholeImage

KNOWN: dict[str, tuple[type[Part], ...]] = {
    "view": (WholeImage,),
    "tune": (tuning.TuneAll,),
    "head": (tuning.LinearHead,),
    "loss": (learning.CrossEntropy, learning.Focal),  # the latter is listed as missing
    "schedule": (learning.Cosine, learning.OneCycle, learning.StepLR, learning.Wsd),
    "optimizer": (learning.Sgd, learning.Adam, learning.AdamW, learning.NAdamW, learning.Lion),
    "mixing": (learning.NoMixing, learning.Mixup, learning.CutMix),
    "augmentation.crop": (aug.ResizeCrop, aug.NativeCrop, aug.RandomResizedCrop, aug.SquashCrop),
    "augmentation.affine": (aug.NoAffine, aug.RandomAffine),
    "augmentation.color": (aug.NoColor, aug.ColorJitter),
    "augmentation.policy": (aug.NoPolicy, aug.AutoAugment, aug.RandAugment, aug.TrivialAugment, aug.AugMix),
}
"""The choices of a recipe that are written as options, or listed as missing with a reason."""

_LONGEST = 1000.0  # long side over short side of an image that train.py is to accept

_SWITCHES = {
    "augmentation.jpeg_min_quality": "augmentation.jpeg",
    "augmentation.downscale_min": "augmentation.downscale",
    "augmentation.affine": "augmentation.affine.probability",
    "augmentation.color": "augmentation.color.probability",
}
"""What does nothing where another value, a probability, is 0."""

_REASONS = {
    "augmentation.crop.name": "train.py resizes every image; the nearest, a random window after resizing, is set",
    "augmentation.color": "train.py switches its colour jitter off beside a policy (aa)",
    "loss.name": "train.py: cross entropy",
    "loss.class_weights": "train.py: every image counts the same",
    "drop_path": "this backbone has no stochastic depth",
    "numerics.grad_checkpointing": "this backbone has none",
    "restarts": "train.py's cycles are of equal length",
}


def timm_yaml(
    recipe: Recipe, labels: Labels | None = None, *, data_dir: Path | None = None, pretrained_path: Path | None = None
) -> str:
    """Writes a recipe as the text of a file for `train.py --config`.

    Args:
        recipe: What to write.
        labels: What the outputs mean; None: the number of classes is left to the command line.
        data_dir: The data, a folder with a folder for each split; None: left to the command line.
        pretrained_path: The file of the backbone's weights; None: timm's hub.

    Raises:
        RecipeError: If timm has no such backbone, or the recipe has a choice that is not known here (`KNOWN`).
    """
    check_choices("--format timm", recipe, KNOWN, aug.Augmentation.model_fields)
    check_backbone(recipe.backbone)
    able = find_capabilities(recipe.backbone, (recipe.image_size,))
    options = _Options(recipe)
    _set_data(options, recipe.backbone, labels, data_dir, pretrained_path)
    _set_network(options, recipe, able)
    _set_batches(options, recipe)
    _set_augmentation(options, recipe.augmentation)
    _set_mixing_and_loss(options, recipe)
    _set_optimizer(options, recipe)
    _set_schedule(options, recipe)
    outputs = f"{len(labels.classes)} classes" if labels else "its classes (give --num-classes)"
    header = (
        f"# {recipe.backbone} on {outputs}, for timm 1.0.31:\n"
        "#   python train.py --config THIS_FILE --data-dir DIR\n"
        "# DIR holds train/<class>/… and validation/<class>/…; the folder that a file lies in is its class. train.py\n"
        "# numbers the classes by their names: capitals are as small letters, and img2 comes before img10.\n"
        "# Each comment names the value of the automl recipe that the option carries over.\n"
        "# train.py reports accuracy; it has no AUC. It evaluates after every epoch.\n"
    )
    return header + "\n".join(options.lines) + "\n" + options.list_missing()


class _Options:
    """The options so far, and which of the recipe's values they took."""

    def __init__(self, recipe: Recipe) -> None:
        self.values = flatten_values(recipe.model_dump())
        self.left = dict(self.values)
        self.lines: list[str] = []

    def add_title(self, text: str) -> None:
        """Begins a group of options."""
        self.lines += ["", f"# {text}"]

    def add_comment(self, text: str) -> None:
        """Writes a remark on the option above, or on one that is not set."""
        self.lines += textwrap.wrap(
            text, 110, initial_indent="# ", subsequent_indent="#   ", break_long_words=False, break_on_hyphens=False
        )

    def copy(self, **fields: str) -> None:
        """Writes options that are the recipe's values as they are: the dotted name of the value by the option."""
        for option, field in fields.items():
            self.set(option, self.values[field], field)

    def add(self, **values: Any) -> None:
        """Writes options that come from no value of the recipe."""
        for option, value in values.items():
            self.set(option, value)

    def set(self, option: str, value: Any, *taken: str, note: str = "") -> None:
        """Writes one option; `taken` are the names of the recipe's values that it carries over.

        A note says what differs, and then the recipe's own values are written out.
        """
        for name in taken:
            self.left.pop(name, None)
        named = [f"{name} {_write_value(self.values[name])}" if note else name for name in taken if name in self.values]
        comment = ": ".join(part for part in (", ".join(named), note) if part)
        self.lines.append(f"{option}: {_write_value(value)}" + (f"  # {comment}" if comment else ""))

    def list_missing(self) -> str:
        """Writes the comment on everything that no option took."""
        off = {name: value for name, value in self.left.items() if self._is_off(name, value)}
        text = "\n# Not known to train.py, or not to this backbone, so missing here:\n"
        for name, value in self.left.items():
            if name not in off:
                reason = next((f"  ({reason})" for start, reason in _REASONS.items() if name.startswith(start)), "")
                text += f"#   {name}: {_write_value(value)}{reason}\n"
        if len(off) == len(self.left):
            text += "#   nothing\n"
        if off:
            listed = ", ".join(f"{name} {_write_value(value)}" for name, value in off.items())
            text += "# Not known to train.py, or not to this backbone, and without effect in this recipe:\n"
            text += textwrap.indent(textwrap.fill(listed, 110, break_long_words=False), "#   ") + "\n"
        return text

    def _is_off(self, name: str, value: Any) -> bool:
        """Returns whether a value does nothing in this recipe."""
        if name.startswith(("view.", "aggregate.")):  # an image file is one image
            return True
        switches = [switch for start, switch in _SWITCHES.items() if name.startswith(start)]
        if any(self.values.get(switch) == 0 for switch in switches):
            return True
        return value in (0, "none", ()) or (name == "head_lr_factor" and value == 1)


def flatten_values(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns a nested mapping's values by their dotted names."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= flatten_values(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return flat


def _write_value(value: Any) -> str:
    """Writes a value as YAML on one line."""
    return yaml.safe_dump([value], default_flow_style=True, width=math.inf).strip()[1:-1]


# --- groups of options --------------------------------------------------------------------------------------------


def _set_data(
    options: _Options, backbone: str, labels: Labels | None, data_dir: Path | None, pretrained_path: Path | None
) -> None:
    """Writes where the data and the weights are, and how train.py numbers the classes."""
    from timm.models import get_pretrained_cfg

    if labels or data_dir or pretrained_path:
        options.add_title("data")
    if labels is not None:
        options.set("num_classes", len(labels.classes))
        for line in _describe_order(labels.classes):
            options.add_comment(line)
    if data_dir is not None:
        options.set("data_dir", str(data_dir))
    if pretrained_path is not None:
        numpys = getattr(get_pretrained_cfg(backbone), "custom_load", False)
        note = "timm 1.0.15 to 1.0.30 takes this backbone's file for one of NumPy's" if numpys else ""
        options.set("pretrained_path", str(pretrained_path), note=note)


def _describe_order(classes: tuple[str, ...]) -> list[str]:
    """Describes how train.py numbers the classes, and whether the model of the recipe numbers them otherwise."""
    from timm.utils.misc import natural_key

    own = "For automl's order give --class-map FILE.txt, with the names in that order, one a line."
    try:
        keys = {name: tuple(natural_key(name)) for name in classes}  # type: ignore[no-untyped-call]
    except ValueError as exc:  # it takes a superscript 2 for a digit
        return [f"train.py cannot order these names ({exc}).", f"automl's order: {_number_names(classes)}", own]
    theirs = tuple(sorted(classes, key=keys.__getitem__))
    lines = [f"train.py numbers the classes: {_number_names(theirs)}"]
    times = Counter(keys.values())
    alike = [_write_value(name) for name in theirs if times[keys[name]] > 1]
    if alike:
        lines.append(f"It takes these names for equal and orders them by chance: {', '.join(alike)}")
    if theirs != classes:
        lines.append(f"This is not the order of automl's model: {_number_names(classes)}")
    return [*lines, own] if alike or theirs != classes else lines


def _number_names(names: tuple[str, ...]) -> str:
    """Lists names with their numbers."""
    return ", ".join(f"{number}: {_write_value(name)}" for number, name in enumerate(names))


def _set_network(options: _Options, recipe: Recipe, able: Capabilities) -> None:
    """Writes the network's options: only those that train.py can pass to this backbone."""
    options.add_title("network")
    options.copy(model="backbone", pretrained="pretrained", img_size="image_size")
    if able.takes_size and recipe.image_size != able.weights_size:
        options.set("model_kwargs", {"img_size": recipe.image_size}, "image_size")
    options.set("drop", None, note="the backbone's own, as automl's")
    if able.drop_path:
        options.copy(drop_path="drop_path")  # 0 as well: some of timm's architectures have another default
    # The classifier starts from zero where train.py can make it: it scales one layer's weights.
    if not able.plain_head:
        options.add_comment(
            "The classifier starts as timm initialises it, automl's from zero: head_init_scale takes one layer"
        )
    else:
        second = "as automl's; its second classifier starts as timm initialises it"
        note = second if _has_second_head(recipe.backbone) else "the classifier starts from zero, as automl's does"
        options.set("head_init_scale", 0.0, note=note)
    options.set("crop_pct", 1.0, note="evaluation shows the whole short side, as automl's does")
    precision = recipe.numerics.precision
    options.set("amp", precision != "fp32", "numerics.precision")
    if precision != "fp32":
        options.set("amp_dtype", {"bf16": "bfloat16", "fp16": "float16"}[precision], "numerics.precision")
    options.set("channels_last", recipe.numerics.memory_format == "channels_last", "numerics.memory_format")
    if able.grad_checkpointing:
        options.copy(grad_checkpointing="numerics.grad_checkpointing")
    seed = recipe.seed % 2**31
    options.set("seed", seed, "seed", note="" if seed == recipe.seed else "numpy takes no other")
    options.set("model_ema", recipe.ema_decay > 0, "ema_decay")
    if recipe.ema_decay > 0:
        options.copy(model_ema_decay="ema_decay")
        options.set("model_ema_warmup", True)


@cache
def _has_second_head(backbone: str) -> bool:
    """Returns whether something besides the classifier makes logits, as VOLO's aux_head does."""
    return len(head_modules(build_on_meta(backbone, {}, num_classes=2)[0])) > 1


def _set_batches(options: _Options, recipe: Recipe) -> None:
    """Writes batch size, accumulation and epochs."""
    options.add_title("batches and length")
    micro, steps = _split_batch(recipe.batch_size, recipe.numerics.micro_batch_size)
    note = "" if micro == recipe.batch_size else f"{micro * steps} images per optimizer step"
    options.set("batch_size", micro, "batch_size", "numerics.micro_batch_size", note=note)
    options.set("grad_accum_steps", steps)
    whole, _, added = _round_epochs(recipe)
    notes = [f"rounded to {whole}, train.py has whole epochs only"] if recipe.epochs != whole else []
    notes += [f"the warm-up's {added} come before them"] if added else []
    options.set("epochs", whole - added, "epochs", note="; ".join(notes))


def _split_batch(batch: int, largest: int | None) -> tuple[int, int]:
    """Returns images per forward pass and passes per step: exactly the batch where that costs few more passes."""
    fewest = math.ceil(batch / min(largest or batch, batch))
    for steps in range(fewest, min(batch, 2 * fewest) + 1):
        if batch % steps == 0:
            return batch // steps, steps
    return round(batch / fewest), fewest


def _round_epochs(recipe: Recipe) -> tuple[int, int, int]:
    """Returns whole epochs, those of warm-up, and how many of these train.py adds, as its cosine begins after them."""
    epochs = max(1, math.floor(recipe.epochs + 0.5))
    warmup = min(epochs - 1, math.floor(recipe.schedule.warmup * epochs + 0.5))
    return epochs, warmup, warmup if isinstance(recipe.schedule, learning.Cosine | learning.OneCycle) else 0


def _set_augmentation(options: _Options, augmentation: aug.Augmentation) -> None:
    """Writes the crop and the augmentations."""
    options.add_title("augmentation")
    name = "augmentation.crop.name"
    match augmentation.crop:
        case aug.SquashCrop():
            # A part as large as the image and as long as the image is the whole of it, whatever is drawn.
            options.set("train_crop_mode", "rrc", name, note="with scale and ratio, all of every image")
            options.add(scale=[1.0, 1.0], ratio=[1 / _LONGEST, _LONGEST])
            options.add_comment("train.py evaluates the middle square; for all of it: validate.py --crop-mode squash")
        case aug.RandomResizedCrop(min_scale=smallest, max_aspect=aspect):
            options.set("train_crop_mode", "rrc", name)
            options.set("scale", [smallest, 1.0], "augmentation.crop.min_scale")
            options.set("ratio", [1 / aspect, aspect], "augmentation.crop.max_aspect")
        case aug.ResizeCrop() | aug.NativeCrop() as crop:
            # Short side to the image size, then a window anywhere: `rkrr` with nothing random in its resizing.
            options.set("train_crop_mode", "rkrr", *([name] if isinstance(crop, aug.ResizeCrop) else []))
            options.add(scale=[1.0, 1.0], ratio=[1.0, 1.0])
    options.set("train_interpolation", "", note="the one that the weights were trained with")
    options.copy(hflip="augmentation.horizontal_flip", vflip="augmentation.vertical_flip")
    _set_color(options, augmentation)
    options.copy(grayscale_prob="augmentation.grayscale")
    blur_note = "train.py's kernel is 23 px, automl's 3 to 7" if augmentation.blur else ""
    options.set("gaussian_blur_prob", augmentation.blur, "augmentation.blur", note=blur_note)
    _set_policy(options, augmentation)
    options.copy(reprob="augmentation.erasing")
    options.add(remode="const", recount=1)


def _set_color(options: _Options, augmentation: aug.Augmentation) -> None:
    """Writes colour jitter: train.py has one strength for brightness, contrast and saturation, and none for hue."""
    color = augmentation.color
    if isinstance(color, aug.NoColor):
        options.set("color_jitter", 0.0, "augmentation.color.name")
    elif not isinstance(augmentation.policy, aug.NoPolicy):
        options.set("color_jitter", 0.0)
    else:
        strengths = [color.brightness, color.contrast, color.saturation]
        names = [f"augmentation.color.{name}" for name in ("brightness", "contrast", "saturation")]
        same = len(set(strengths)) == 1
        mean = strengths[0] if same else round(sum(strengths) / 3, 4)
        options.set("color_jitter", mean, *names, note="" if same else "the mean, train.py has one strength for all")
        options.set("color_jitter_prob", color.probability, "augmentation.color.name", "augmentation.color.probability")


def _set_policy(options: _Options, augmentation: aug.Augmentation) -> None:
    """Writes the augmentation policy in timm's language."""
    name = "augmentation.policy.name"
    match augmentation.policy:
        case aug.NoPolicy():
            options.set("aa", None, name)
        case aug.AutoAugment():
            options.set("aa", "original", name)
        case aug.RandAugment(operations=operations, magnitude=magnitude):
            # torchvision counts magnitudes to 30 and always applies the operations, timm counts to 10.
            value = f"rand-m{math.floor(magnitude / 3 + 0.5)}-n{operations}-p1-mstd0-inc1"
            taken = (name, "augmentation.policy.operations", "augmentation.policy.magnitude")
            options.set("aa", value, *taken, note="timm counts magnitudes to 10, the recipe to 30")
        case aug.TrivialAugment():
            # mstd above 100: each magnitude is uniform between 0 and m.
            options.set("aa", "rand-m10-n1-p1-mstd101-inc1", name, note="the nearest: one operation, any magnitude")
        case aug.AugMix(severity=severity, width=width):
            taken = (name, "augmentation.policy.severity", "augmentation.policy.width")
            options.set("aa", f"augmix-m{severity}-w{width}", *taken)


def _set_mixing_and_loss(options: _Options, recipe: Recipe) -> None:
    """Writes mixing and loss; train.py has one loss."""
    options.add_title("mixing and loss")
    mixing = recipe.mixing
    for option, kind in (("mixup", learning.Mixup), ("cutmix", learning.CutMix)):
        if isinstance(mixing, kind):
            options.set(option, mixing.alpha, "mixing.name", "mixing.alpha")
            options.copy(mixup_prob="mixing.probability")
            options.set("mixup_mode", "batch")
        else:
            options.set(option, 0.0, *["mixing.name"] * isinstance(mixing, learning.NoMixing))
    known = ["loss.name"] if isinstance(recipe.loss, learning.CrossEntropy) else []
    options.set("smoothing", recipe.loss.smoothing, *known, "loss.smoothing")


def _set_optimizer(options: _Options, recipe: Recipe) -> None:
    """Writes the optimizer, learning rate and weight decay."""
    options.add_title("optimizer")
    optimizer = recipe.optimizer
    if isinstance(optimizer, learning.Sgd):
        # timm's `sgd` is Nesterov's, which torch refuses without momentum; its `momentum` is the plain one.
        nesterov = optimizer.nesterov and optimizer.momentum > 0
        note = "Nesterov's needs momentum" if optimizer.nesterov and not nesterov else ""
        options.set("opt", "sgd" if nesterov else "momentum", "optimizer.name", "optimizer.nesterov", note=note)
        options.copy(momentum="optimizer.momentum")
    else:
        options.copy(opt="optimizer.name")
        options.set("opt_betas", [0.9, optimizer.beta2], "optimizer.beta2")
    options.copy(lr="learning_rate", weight_decay="weight_decay")
    options.set("layer_decay", recipe.layer_decay if recipe.layer_decay < 1 else None, "layer_decay")
    options.set("clip_grad", recipe.clip_norm or None, "clip_norm")
    options.set("clip_mode", "norm")


def _set_schedule(options: _Options, recipe: Recipe) -> None:
    """Writes the schedule, in epochs where the recipe has shares of the run."""
    options.add_title("schedule, per optimizer step")
    schedule, (epochs, warmup, added) = recipe.schedule, _round_epochs(recipe)
    name, start, end = "schedule.name", 0.0, 0.0
    match schedule:
        case learning.Cosine():
            options.set("sched", "cosine", name)
        case learning.OneCycle():
            options.set("sched", "cosine", name, note="the nearest: a straight line up, then the cosine down")
            start, end = recipe.learning_rate / 25, recipe.learning_rate / 25e4
        case learning.Wsd():
            options.set("sched", "wsd", name)
            share = schedule.decay * epochs / (epochs - warmup)
            # Below 1 it is a fraction of what follows the warm-up, else it counts epochs.
            decay = share if share < 1 else float(epochs - warmup)
            note = "train.py's is a share of the steps after warm-up"
            options.set("decay_epochs", decay, "schedule.decay", note=note)
            options.set("lr_decay_fn", "linear")
        case learning.StepLR():
            options.set("sched", "step", name)
            note = "train.py's is in epochs, the recipe's a share of the run"
            options.set("decay_epochs", schedule.every * epochs, "schedule.every", note=note)
            options.copy(decay_rate="schedule.gamma")
    options.set("sched_on_updates", True)
    options.set("warmup_epochs", warmup, "schedule.warmup", note=f"a share of the run; in whole epochs of {epochs}")
    options.add(warmup_prefix=added > 0, warmup_lr=start, min_lr=end, cooldown_epochs=0)
