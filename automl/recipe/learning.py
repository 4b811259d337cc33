"""How a network learns: how its images are mixed, its loss (of soft targets), its optimizer and its learning rate."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from automl.schema import Fraction, Part

BelowOne = Annotated[float, Field(ge=0, lt=1)]


class NoMixing(Part):
    """Images are not mixed."""

    name: Literal["none"] = "none"


class Mixup(Part):
    """Zhang et al. 2018."""

    name: Literal["mixup"] = "mixup"
    alpha: Annotated[float, Field(ge=1e-3, le=10)] = 0.2
    probability: Fraction = 1.0


class CutMix(Part):
    """Yun et al. 2019."""

    name: Literal["cutmix"] = "cutmix"
    alpha: Annotated[float, Field(ge=1e-3, le=10)] = 1.0
    probability: Fraction = 0.5


class CrossEntropy(Part):
    """Cross entropy on soft targets."""

    name: Literal["cross_entropy"] = "cross_entropy"
    smoothing: BelowOne = 0
    class_weights: Literal["none", "balanced"] = "none"


class Focal(Part):
    """Focal loss (Lin et al. 2017) on soft targets; `alpha` weighs the rarer classes (0: not at all)."""

    name: Literal["focal"] = "focal"
    gamma: Annotated[float, Field(ge=0, le=10)] = 2
    alpha: Fraction = 0
    smoothing: BelowOne = 0


class OptimizerPart(Part):
    """An optimizer."""

    fused: ClassVar[bool] = False
    """Whether it has fused kernels: torch's own have; timm's choose foreach by themselves."""


class Sgd(OptimizerPart):
    """Stochastic gradient descent with momentum."""

    fused: ClassVar[bool] = True
    name: Literal["sgd"] = "sgd"
    momentum: BelowOne = 0.9
    nesterov: bool = True


class Adam(OptimizerPart):
    """Kingma & Ba 2015; weight decay is an L2 term."""

    fused: ClassVar[bool] = True
    name: Literal["adam"] = "adam"
    beta2: BelowOne = 0.999


class AdamW(OptimizerPart):
    """Loshchilov & Hutter 2019."""

    fused: ClassVar[bool] = True
    name: Literal["adamw"] = "adamw"
    beta2: BelowOne = 0.999


class NAdamW(OptimizerPart):
    """AdamW with Nesterov momentum (Dozat 2016), timm's `nadamw`."""

    name: Literal["nadamw"] = "nadamw"
    beta2: BelowOne = 0.999


class Lion(OptimizerPart):
    """Chen et al. 2023, timm's `lion`; wants about a tenth of AdamW's learning rate."""

    name: Literal["lion"] = "lion"
    beta2: BelowOne = 0.99


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


Mixing = Annotated[NoMixing | Mixup | CutMix, Field(discriminator="name")]
Loss = Annotated[CrossEntropy | Focal, Field(discriminator="name")]
Optimizer = Annotated[Sgd | Adam | AdamW | NAdamW | Lion, Field(discriminator="name")]
Schedule = Annotated[StepLR | Cosine | OneCycle | Wsd, Field(discriminator="name")]
