"""How images are mixed in training."""

from typing import Annotated, Literal

from pydantic import Field

from automl.schema import Fraction, Part


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
