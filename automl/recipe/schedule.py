"""Learning rate schedules."""

from typing import Annotated, Literal

from pydantic import Field

from automl.schema import Fraction, Part


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
