"""Losses, all of soft targets."""

from typing import Annotated, Literal

from pydantic import Field

from automl.schema import Fraction, Part


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
