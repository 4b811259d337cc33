"""Optimizers."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from automl.schema import Part


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
