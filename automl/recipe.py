"""A recipe: every hyperparameter of one training run, resolved. It is what a trial trains and what is exported.

The nesting is the search space's: a branch of the space (`optimizer: {choice: {sgd: …}}`) becomes a mapping with
its `name` here (`optimizer: {name: sgd, …}`).
"""

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from automl.errors import RecipeError
from automl.files import load_yaml, write_text

__all__ = [
    "Affine",
    "Augmentation",
    "Color",
    "CrossEntropy",
    "Focal",
    "Loss",
    "Mixing",
    "Optimizer",
    "Policy",
    "Recipe",
    "Schedule",
    "describe_errors",
]

Fraction = Annotated[float, Field(ge=0, le=1)]


class Part(BaseModel):
    """A part of a recipe: immutable, and strict about unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


# --- augmentation -----------------------------------------------------------------------------------------------


class ResizeCrop(Part):
    """The image's short side is resized to the image size, and the middle (in training: anywhere) is cut out."""

    name: Literal["resize"] = "resize"


class RandomResizedCrop(Part):
    """A random part of the image, resized to the image size (Szegedy et al. 2015; torchvision v2)."""

    name: Literal["random_resized"] = "random_resized"
    min_scale: Annotated[float, Field(gt=0, le=1)] = 0.5
    max_aspect: Annotated[float, Field(ge=1, le=3)] = 1.3333


class NativeCrop(Part):
    """A random window cut out without resizing, which keeps the traces that resampling wipes out."""

    name: Literal["native"] = "native"


class NoAffine(Part):
    """No affine transformation."""

    name: Literal["none"] = "none"


class RandomAffine(Part):
    """Rotation, shear and translation, each uniform within its limit."""

    name: Literal["random"] = "random"
    probability: Fraction = 0.5
    rotate_degrees: Annotated[float, Field(ge=0, le=180)] = 10
    shear_degrees: Annotated[float, Field(ge=0, le=45)] = 0
    translate: Fraction = 0


class NoColor(Part):
    """No colour change."""

    name: Literal["none"] = "none"


class ColorJitter(Part):
    """Brightness, contrast, saturation and hue, each uniform within its limit (torchvision v2)."""

    name: Literal["jitter"] = "jitter"
    probability: Fraction = 0.5
    brightness: Fraction = 0.1
    contrast: Fraction = 0.1
    saturation: Fraction = 0
    hue: Annotated[float, Field(ge=0, le=0.5)] = 0


class NoPolicy(Part):
    """No augmentation policy."""

    name: Literal["none"] = "none"


class AutoAugment(Part):
    """Cubuk et al. 2019, the ImageNet policy."""

    name: Literal["auto"] = "auto"


class RandAugment(Part):
    """Cubuk et al. 2020."""

    name: Literal["rand"] = "rand"
    operations: Annotated[int, Field(ge=1, le=6)] = 2
    magnitude: Annotated[int, Field(ge=0, le=30)] = 9


class TrivialAugment(Part):
    """Müller & Hutter 2021: one random operation of random strength."""

    name: Literal["trivial"] = "trivial"


class AugMix(Part):
    """Hendrycks et al. 2020."""

    name: Literal["augmix"] = "augmix"
    severity: Annotated[int, Field(ge=1, le=10)] = 3
    width: Annotated[int, Field(ge=1, le=5)] = 3


Crop = Annotated[ResizeCrop | RandomResizedCrop | NativeCrop, Field(discriminator="name")]
Affine = Annotated[NoAffine | RandomAffine, Field(discriminator="name")]
Color = Annotated[NoColor | ColorJitter, Field(discriminator="name")]
Policy = Annotated[NoPolicy | AutoAugment | RandAugment | TrivialAugment | AugMix, Field(discriminator="name")]


class Augmentation(Part):
    """What happens to one training image; plain numbers are probabilities per image."""

    crop: Crop = ResizeCrop()
    horizontal_flip: Fraction = 0.5
    vertical_flip: Fraction = 0
    affine: Affine = NoAffine()
    color: Color = NoColor()
    grayscale: Fraction = 0
    blur: Fraction = 0
    jpeg: Fraction = 0
    jpeg_min_quality: Annotated[int, Field(ge=1, le=100)] = 40
    downscale: Fraction = 0
    downscale_min: Annotated[float, Field(gt=0, le=1)] = 0.5
    policy: Policy = NoPolicy()
    erasing: Fraction = 0
    self_blend: Fraction = 0


# --- mixing, loss -----------------------------------------------------------------------------------------------


class NoMixing(Part):
    """Images are not mixed."""

    name: Literal["none"] = "none"


class Mixup(Part):
    """Zhang et al. 2018."""

    name: Literal["mixup"] = "mixup"
    alpha: Annotated[float, Field(gt=0, le=10)] = 0.2
    probability: Fraction = 1.0


class CutMix(Part):
    """Yun et al. 2019."""

    name: Literal["cutmix"] = "cutmix"
    alpha: Annotated[float, Field(gt=0, le=10)] = 1.0
    probability: Fraction = 0.5


Mixing = Annotated[NoMixing | Mixup | CutMix, Field(discriminator="name")]


class CrossEntropy(Part):
    """Cross entropy on soft targets."""

    name: Literal["cross_entropy"] = "cross_entropy"
    smoothing: Annotated[float, Field(ge=0, lt=1)] = 0
    class_weights: Literal["none", "balanced"] = "none"


class Focal(Part):
    """Focal loss (Lin et al. 2017) on soft targets; `alpha` weighs the rarer classes (0: not at all)."""

    name: Literal["focal"] = "focal"
    gamma: Annotated[float, Field(ge=0, le=10)] = 2
    alpha: Fraction = 0
    smoothing: Annotated[float, Field(ge=0, lt=1)] = 0


Loss = Annotated[CrossEntropy | Focal, Field(discriminator="name")]


# --- optimizer, schedule ----------------------------------------------------------------------------------------


class OptimizerPart(Part):
    """An optimizer."""

    fused: ClassVar[bool] = False
    """Whether it has fused kernels: torch's own have; timm's choose foreach by themselves."""


class Sgd(OptimizerPart):
    """Stochastic gradient descent with momentum."""

    fused: ClassVar[bool] = True
    name: Literal["sgd"] = "sgd"
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    nesterov: bool = True


class Adam(OptimizerPart):
    """Kingma & Ba 2015; weight decay is an L2 term."""

    fused: ClassVar[bool] = True
    name: Literal["adam"] = "adam"
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.999


class AdamW(OptimizerPart):
    """Loshchilov & Hutter 2019."""

    fused: ClassVar[bool] = True
    name: Literal["adamw"] = "adamw"
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.999


class NAdamW(OptimizerPart):
    """AdamW with Nesterov momentum (Dozat 2016), timm's `nadamw`."""

    name: Literal["nadamw"] = "nadamw"
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.999


class Lion(OptimizerPart):
    """Chen et al. 2023, timm's `lion`; wants about a tenth of AdamW's learning rate."""

    name: Literal["lion"] = "lion"
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.99


Optimizer = Annotated[Sgd | Adam | AdamW | NAdamW | Lion, Field(discriminator="name")]


class StepLR(Part):
    """The learning rate falls by `gamma` after every `every` of the run."""

    name: Literal["step"] = "step"
    warmup: Fraction = 0.05
    every: Annotated[float, Field(gt=0, le=1)] = 0.34
    gamma: Annotated[float, Field(gt=0, lt=1)] = 0.1


class Cosine(Part):
    """Half a cosine from the learning rate to nearly zero (Loshchilov & Hutter 2017)."""

    name: Literal["cosine"] = "cosine"
    warmup: Fraction = 0.05


class OneCycle(Part):
    """Smith & Topin 2018: a cosine up over `warmup` of the run, then a cosine down to nearly zero."""

    name: Literal["one_cycle"] = "one_cycle"
    warmup: Fraction = 0.3


class Wsd(Part):
    """Warm-up, stable, decay (Hu et al. 2024): constant, then a linear fall over the last `decay` of the run."""

    name: Literal["wsd"] = "wsd"
    warmup: Fraction = 0.05
    decay: Annotated[float, Field(gt=0, le=1)] = 0.2


Schedule = Annotated[StepLR | Cosine | OneCycle | Wsd, Field(discriminator="name")]


# --- the recipe -------------------------------------------------------------------------------------------------


class Numerics(Part):
    """How the arithmetic is done on one device; timed, not searched."""

    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    memory_format: Literal["contiguous", "channels_last"] = "contiguous"
    micro_batch_size: Annotated[int, Field(ge=1)] | None = None
    """Images per forward pass; the effective batch is reached by accumulation. None: the whole batch at once."""
    grad_checkpointing: bool = False
    """Whether activations are computed again in the backward pass (Chen et al. 2016): less memory, a third more time.
    Some of timm's models cannot, which is an error."""


class Recipe(Part):
    """Every hyperparameter of one training run. Fractions of the run are of its optimizer steps."""

    backbone: Annotated[str, Field(min_length=1)]
    pretrained: bool = True
    image_size: Annotated[int, Field(ge=16, le=2048)] = 224
    drop_path: Annotated[float, Field(ge=0, lt=1)] = 0
    augmentation: Augmentation = Augmentation()
    mixing: Mixing = NoMixing()
    loss: Loss = CrossEntropy()
    optimizer: Optimizer = AdamW()
    schedule: Schedule = OneCycle()
    learning_rate: Annotated[float, Field(gt=0, le=10)] = 1e-3
    weight_decay: Annotated[float, Field(ge=0, le=1)] = 0.01
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    head_lr_factor: Annotated[float, Field(gt=0, le=100)] = 1.0
    clip_norm: Annotated[float, Field(ge=0)] = 0
    """Largest gradient norm; 0: no clipping."""
    freeze_epochs: Annotated[float, Field(ge=0)] = 0
    """Epochs at the start in which only the head learns."""
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0
    """Decay of the exponential moving average of the weights; 0: none."""
    batch_size: Annotated[int, Field(ge=2)] = 32
    """Images per optimizer step (the effective batch)."""
    epochs: Annotated[float, Field(gt=0)] = 5
    seed: int = 0
    numerics: Numerics = Numerics()

    @classmethod
    def from_mapping(cls, values: dict[str, Any], source: str = "recipe") -> "Recipe":
        """Validates a nested mapping.

        Args:
            values: Keys as in this class.
            source: What to call it in an error (a file, a trial).

        Raises:
            RecipeError: With every mistake, one a line.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as exc:
            raise RecipeError(describe_errors(exc, source)) from exc

    @classmethod
    def load(cls, path: Path) -> "Recipe":
        """Reads a recipe from a YAML file, or from the JSON that `automl export` writes, which is YAML as well.

        Raises:
            RecipeError: If the file cannot be read or has a mistake.
        """
        values = load_yaml(path, RecipeError)
        if isinstance(values, dict) and "recipe" in values:  # beside it: what the input and the outputs are
            values = values["recipe"]
        if not isinstance(values, dict):
            raise RecipeError(f"{path}: a recipe is a mapping of names to values, got {type(values).__name__}")
        return cls.from_mapping(values, str(path))

    def to_yaml(self) -> str:
        """Writes the recipe as YAML that `load` reads back to an equal recipe."""
        return yaml.safe_dump(self.model_dump(), sort_keys=False)

    def save(self, path: Path, header: str = "") -> None:
        """Writes the recipe to a YAML file; each line of `header` becomes a comment above it."""
        comment = "".join(f"# {line}\n" for line in header.splitlines())
        write_text(path, comment + self.to_yaml())


def describe_errors(exc: ValidationError, source: str) -> str:
    """Writes pydantic's findings one a line: where, what was given, what would be right."""
    lines = []
    for item in exc.errors():
        where = ".".join(str(part) for part in item["loc"]) or "(whole)"
        given = "" if item["type"] == "missing" else f" (got {item['input']!r})"
        lines.append(f"{source}: {where}: {item['msg'][0].lower()}{item['msg'][1:]}{given}")
    return "\n".join(lines)
