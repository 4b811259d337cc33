"""A recipe as the YAML that timm's own training script reads: `python train.py --config FILE --data-dir DIR`.

What train.py knows is carried over, each line naming the recipe's value it comes from; what it does not know stands in
a comment with its value. Nothing is left out by being forgotten: what no line takes is listed.
"""

import math
from collections import Counter
from collections.abc import Mapping
from functools import cache
from typing import Any

from automl.backbones.capabilities import Capabilities, find_capabilities
from automl.backbones.heads import head_modules
from automl.backbones.timm_model import build_on_meta, check_backbone
from automl.errors import RecipeError
from automl.exporters.timm_options import DATA_OPTIONS, OptionLines, plain
from automl.models.folder import Labels
from automl.recipe import Recipe
from automl.recipe.augmentation import (
    Augmentation,
    AugMix,
    AutoAugment,
    NoColor,
    NoPolicy,
    Policy,
    RandAugment,
    RandomResizedCrop,
    ResizeCrop,
    TrivialAugment,
)
from automl.recipe.loss import CrossEntropy
from automl.recipe.mixing import NoMixing
from automl.recipe.optimizer import Sgd
from automl.recipe.schedule import Cosine, OneCycle, StepLR, Wsd

_LONGEST = 1000.0  # long side over short side that train.py is told of


def timm_yaml(recipe: Recipe, classes: Labels | None = None, data: Mapping[str, Any] | None = None) -> str:
    """Writes a recipe as options of timm's train.py.

    Args:
        recipe: What to write.
        classes: What the outputs mean; None: the number of classes is left to the command line.
        data: Options of train.py about the data, by `DATA_OPTIONS` (`data_dir`, `train_split`, …).

    Returns:
        The text of a file for `train.py --config`.

    Raises:
        RecipeError: If timm has no such backbone, or `data` holds an option that train.py does not know.
    """
    check_backbone(recipe.backbone)
    able = find_capabilities(recipe.backbone, (recipe.image_size,))
    for name in data or {}:
        if name not in DATA_OPTIONS:
            raise RecipeError(f"{name!r} is no data option of train.py; use some of: {', '.join(sorted(DATA_OPTIONS))}")
    lines = OptionLines(recipe)
    _data(lines, recipe.backbone, classes, data or {})
    _network(lines, recipe, able)
    _batches(lines, recipe)
    _crop(lines, recipe.augmentation)
    _augmentation(lines, recipe.augmentation)
    _mixing_and_loss(lines, recipe)
    _optimizer(lines, recipe)
    _schedule(lines, recipe)
    return _header(recipe, classes) + "\n".join(lines.written) + "\n" + lines.unknown()


def _header(recipe: Recipe, classes: Labels | None) -> str:
    outputs = f"{len(classes.classes)} classes" if classes else "its classes (give --num-classes)"
    return (
        f"# {recipe.backbone} on {outputs}, for timm 1.0.31:\n"
        "#   python train.py --config THIS_FILE --data-dir DIR\n"
        "# DIR holds train/<class>/… and validation/<class>/…; the folder that a file lies in is its class. train.py\n"
        "# numbers the classes by their names: capitals are as small letters, and img2 comes before img10.\n"
        "# Each comment names the value of the automl recipe that the option carries over.\n"
        "# train.py reports accuracy; it has no AUC. It evaluates after every epoch.\n"
    )


def _data(lines: OptionLines, backbone: str, classes: Labels | None, data: Mapping[str, Any]) -> None:
    from timm.models import get_pretrained_cfg

    if classes is not None or data:
        lines.title("data")
    if classes is not None and "num_classes" not in data:
        lines.set("num_classes", len(classes.classes))
        for line in _order(classes.classes):
            lines.comment(line)
    for option, value in data.items():
        numpys = option == "pretrained_path" and getattr(get_pretrained_cfg(backbone), "custom_load", False)
        note = "timm 1.0.15 to 1.0.30 takes this backbone's file for one of NumPy's" if numpys else ""
        lines.set(option, list(value) if isinstance(value, tuple) else value, note=note)


def _order(classes: tuple[str, ...]) -> list[str]:
    """Says how train.py numbers the classes, and whether the model of the recipe numbers them otherwise."""
    from timm.utils.misc import natural_key

    own = "For automl's order give --class-map FILE.txt, with the names in that order, one a line."
    try:
        keys = {name: tuple(natural_key(name)) for name in classes}  # type: ignore[no-untyped-call]
    except ValueError as exc:  # it takes a superscript 2 for a digit
        return [f"train.py cannot order these names ({exc}).", f"automl's order: {_numbered(classes)}", own]
    theirs = tuple(sorted(classes, key=keys.__getitem__))
    lines = [f"train.py numbers the classes: {_numbered(theirs)}"]
    times = Counter(keys.values())
    alike = [plain(name) for name in theirs if times[keys[name]] > 1]
    if alike:
        lines.append(f"It does not tell these names apart and orders them by chance: {', '.join(alike)}")
    if theirs != classes:
        lines.append(f"This is not the order of automl's model: {_numbered(classes)}")
    return [*lines, own] if alike or theirs != classes else lines


def _numbered(names: tuple[str, ...]) -> str:
    return ", ".join(f"{number}: {plain(name)}" for number, name in enumerate(names))


def _network(lines: OptionLines, recipe: Recipe, able: Capabilities) -> None:
    lines.title("network")
    lines.set("model", recipe.backbone, "backbone")
    lines.set("pretrained", recipe.pretrained, "pretrained")
    lines.set("img_size", recipe.image_size, "image_size")
    if able.takes_size and recipe.image_size != able.weights_size:
        lines.set("model_kwargs", {"img_size": recipe.image_size}, "image_size")
    lines.set("drop", None, note="the backbone's own, as automl's")
    if able.drop_path:
        # 0 as well: some of timm's architectures have another default.
        lines.set("drop_path", recipe.drop_path, "drop_path")
    _head(lines, recipe, able)
    lines.set("crop_pct", 1.0, note="evaluation shows the whole short side, as automl's does")
    precision = recipe.numerics.precision
    lines.set("amp", precision != "fp32", "numerics.precision")
    if precision != "fp32":
        dtype = {"bf16": "bfloat16", "fp16": "float16"}[precision]
        lines.set("amp_dtype", dtype, "numerics.precision")
    lines.set("channels_last", recipe.numerics.memory_format == "channels_last", "numerics.memory_format")
    if able.grad_checkpointing:
        lines.set("grad_checkpointing", recipe.numerics.grad_checkpointing, "numerics.grad_checkpointing")
    seed = recipe.seed % 2**31
    lines.set("seed", seed, "seed", note="" if seed == recipe.seed else "numpy takes no other")
    averaged = recipe.ema_decay > 0
    lines.set("model_ema", averaged, "ema_decay")
    if averaged:
        lines.set("model_ema_decay", recipe.ema_decay, "ema_decay")
        lines.set("model_ema_warmup", True)


def _head(lines: OptionLines, recipe: Recipe, able: Capabilities) -> None:
    """The classifier starts from zero where train.py can make it: it scales one layer's weights."""
    if not able.plain_head:
        lines.comment(
            "The classifier starts as timm initialises it, automl's from zero: head_init_scale takes one layer"
        )
    elif _has_second_head(recipe.backbone):
        lines.set("head_init_scale", 0.0, note="as automl's; its second classifier starts as timm initialises it")
    else:
        lines.set("head_init_scale", 0.0, note="the classifier starts from zero, as automl's does")


@cache
def _has_second_head(backbone: str) -> bool:
    """Whether something besides the classifier makes logits, as VOLO's aux_head does."""
    return len(head_modules(build_on_meta(backbone, {}, num_classes=2)[0])) > 1


def _batches(lines: OptionLines, recipe: Recipe) -> None:
    lines.title("batches and length")
    micro, steps = _accumulation(recipe.batch_size, recipe.numerics.micro_batch_size)
    taken = ("batch_size", "numerics.micro_batch_size")
    if micro == recipe.batch_size:
        lines.set("batch_size", micro, *taken)
    else:
        note = f"{micro * steps} images per optimizer step"
        lines.set("batch_size", micro, *taken, note=note)
    lines.set("grad_accum_steps", steps)
    whole, warmup = _whole_epochs(recipe), _prefix(recipe)
    notes = [f"rounded to {whole}, train.py has whole epochs only"] if recipe.epochs != whole else []
    notes += [f"the warm-up's {warmup} come before them"] if warmup else []
    lines.set("epochs", whole - warmup, "epochs", note="; ".join(notes))


def _accumulation(batch: int, largest: int | None) -> tuple[int, int]:
    """Images per forward pass and passes per step: exactly the batch where that costs few more passes."""
    fewest = math.ceil(batch / min(largest or batch, batch))
    for steps in range(fewest, min(batch, 2 * fewest) + 1):
        if batch % steps == 0:
            return batch // steps, steps
    return round(batch / fewest), fewest


def _whole_epochs(recipe: Recipe) -> int:
    return max(1, math.floor(recipe.epochs + 0.5))


def _warmup_epochs(recipe: Recipe) -> int:
    epochs = _whole_epochs(recipe)
    return min(epochs - 1, math.floor(recipe.schedule.warmup * epochs + 0.5))


def _prefix(recipe: Recipe) -> int:
    """Epochs of warm-up that train.py adds to the others, so that its cosine begins where the warm-up ends."""
    return _warmup_epochs(recipe) if recipe.schedule.name in ("cosine", "one_cycle") else 0


def _crop(lines: OptionLines, augmentation: Augmentation) -> None:
    lines.title("augmentation")
    crop = augmentation.crop
    if crop.name == "squash":
        # A part as large as the image and as long as the image is the whole of it, whatever the dice say.
        lines.set("train_crop_mode", "rrc", "augmentation.crop.name", note="with scale and ratio, all of every image")
        lines.set("scale", [1.0, 1.0])
        lines.set("ratio", [1 / _LONGEST, _LONGEST])
        lines.comment("train.py evaluates the middle square; for all of an image: validate.py --crop-mode squash")
    elif isinstance(crop, RandomResizedCrop):
        lines.set("train_crop_mode", "rrc", "augmentation.crop.name")
        lines.set("scale", [crop.min_scale, 1.0], "augmentation.crop.min_scale")
        lines.set("ratio", [1 / crop.max_aspect, crop.max_aspect], "augmentation.crop.max_aspect")
    else:
        # Short side to the image size, then a window anywhere: `rkrr` with nothing random in its resizing.
        known = ("augmentation.crop.name",) if isinstance(crop, ResizeCrop) else ()
        lines.set("train_crop_mode", "rkrr", *known)
        lines.set("scale", [1.0, 1.0])
        lines.set("ratio", [1.0, 1.0])
    lines.set("train_interpolation", "", note="the one that the weights were trained with")


def _augmentation(lines: OptionLines, augmentation: Augmentation) -> None:
    lines.set("hflip", augmentation.horizontal_flip, "augmentation.horizontal_flip")
    lines.set("vflip", augmentation.vertical_flip, "augmentation.vertical_flip")
    _color(lines, augmentation)
    lines.set("grayscale_prob", augmentation.grayscale, "augmentation.grayscale")
    blur_note = "train.py's kernel is 23 px, automl's 3 to 7" if augmentation.blur else ""
    lines.set("gaussian_blur_prob", augmentation.blur, "augmentation.blur", note=blur_note)
    _policy(lines, augmentation.policy)
    lines.set("reprob", augmentation.erasing, "augmentation.erasing")
    lines.set("remode", "const")
    lines.set("recount", 1)


def _color(lines: OptionLines, augmentation: Augmentation) -> None:
    """train.py has one strength for brightness, contrast and saturation, and none for hue."""
    color = augmentation.color
    if isinstance(color, NoColor):
        lines.set("color_jitter", 0.0, "augmentation.color.name")
    elif augmentation.policy.name in ("auto", "rand", "trivial", "augmix"):
        lines.set("color_jitter", 0.0)
    else:
        strengths = [color.brightness, color.contrast, color.saturation]
        names = [f"augmentation.color.{name}" for name in ("brightness", "contrast", "saturation")]
        same = len(set(strengths)) == 1
        mean = strengths[0] if same else round(sum(strengths) / 3, 4)
        lines.set("color_jitter", mean, *names, note="" if same else "the mean, train.py has one strength for all")
        lines.set("color_jitter_prob", color.probability, "augmentation.color.name", "augmentation.color.probability")


def _policy(lines: OptionLines, policy: Policy) -> None:
    name = "augmentation.policy.name"
    match policy:
        case NoPolicy():
            lines.set("aa", None, name)
        case AutoAugment():
            lines.set("aa", "original", name)
        case RandAugment():
            # torchvision counts magnitudes to 30 and always applies the operations, timm counts to 10.
            strength = math.floor(policy.magnitude / 3 + 0.5)
            value = f"rand-m{strength}-n{policy.operations}-p1-mstd0-inc1"
            taken = (name, "augmentation.policy.operations", "augmentation.policy.magnitude")
            lines.set("aa", value, *taken, note="timm counts magnitudes to 10, the recipe to 30")
        case TrivialAugment():
            # mstd above 100: each magnitude is uniform between 0 and m.
            lines.set("aa", "rand-m10-n1-p1-mstd101-inc1", name, note="the nearest: one operation, any magnitude")
        case AugMix():
            value = f"augmix-m{policy.severity}-w{policy.width}"
            lines.set("aa", value, name, "augmentation.policy.severity", "augmentation.policy.width")


def _mixing_and_loss(lines: OptionLines, recipe: Recipe) -> None:
    lines.title("mixing and loss")
    mixing, loss = recipe.mixing, recipe.loss
    for kind in ("mixup", "cutmix"):
        if isinstance(mixing, NoMixing):
            lines.set(kind, 0.0, "mixing.name")
        elif mixing.name == kind:
            lines.set(kind, mixing.alpha, "mixing.name", "mixing.alpha")
            lines.set("mixup_prob", mixing.probability, "mixing.probability")
            lines.set("mixup_mode", "batch")
        else:
            lines.set(kind, 0.0)
    known = ("loss.name",) if isinstance(loss, CrossEntropy) else ()
    lines.set("smoothing", loss.smoothing, *known, "loss.smoothing")


def _optimizer(lines: OptionLines, recipe: Recipe) -> None:
    lines.title("optimizer")
    optimizer = recipe.optimizer
    if isinstance(optimizer, Sgd):
        # timm's `sgd` is Nesterov's, which torch refuses without momentum; its `momentum` is the plain one.
        nesterov = optimizer.nesterov and optimizer.momentum > 0
        note = "Nesterov's needs momentum" if optimizer.nesterov and not nesterov else ""
        name = "sgd" if nesterov else "momentum"
        lines.set("opt", name, "optimizer.name", "optimizer.nesterov", note=note)
        lines.set("momentum", optimizer.momentum, "optimizer.momentum")
    else:
        lines.set("opt", optimizer.name, "optimizer.name")
        lines.set("opt_betas", [0.9, optimizer.beta2], "optimizer.beta2")
    lines.set("lr", recipe.learning_rate, "learning_rate")
    lines.set("weight_decay", recipe.weight_decay, "weight_decay")
    lines.set("layer_decay", recipe.layer_decay if recipe.layer_decay < 1 else None, "layer_decay")
    lines.set("clip_grad", recipe.clip_norm or None, "clip_norm")
    lines.set("clip_mode", "norm")


def _schedule(lines: OptionLines, recipe: Recipe) -> None:
    lines.title("schedule, per optimizer step")
    schedule, epochs = recipe.schedule, _whole_epochs(recipe)
    warmup = _warmup_epochs(recipe)
    name = "schedule.name"
    start, end = 0.0, 0.0
    match schedule:
        case Cosine():
            lines.set("sched", "cosine", name)
        case OneCycle():
            lines.set("sched", "cosine", name, note="the nearest: a straight line up, then the cosine down")
            start, end = recipe.learning_rate / 25, recipe.learning_rate / 25e4
        case Wsd():
            lines.set("sched", "wsd", name)
            share = schedule.decay * epochs / (epochs - warmup)
            # Below 1 it is a fraction of what follows the warm-up, else it counts epochs.
            decay = share if share < 1 else float(epochs - warmup)
            lines.set("decay_epochs", decay, "schedule.decay", note="train.py's is a share of the steps after warm-up")
            lines.set("lr_decay_fn", "linear")
        case StepLR():
            lines.set("sched", "step", name)
            note = "train.py's is in epochs, the recipe's a share of the run"
            lines.set("decay_epochs", schedule.every * epochs, "schedule.every", note=note)
            lines.set("decay_rate", schedule.gamma, "schedule.gamma")
    lines.set("sched_on_updates", True)
    note = f"a share of the run; in whole epochs of {epochs}"
    lines.set("warmup_epochs", warmup, "schedule.warmup", note=note)
    lines.set("warmup_prefix", _prefix(recipe) > 0)
    lines.set("warmup_lr", start)
    lines.set("min_lr", end)
    lines.set("cooldown_epochs", 0)
