"""How much of a network is trained, and what turns its features into logits."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from automl.recipe.learning import BelowOne
from automl.schema import Part


class TuneAll(Part):
    """Every weight is trained."""

    name: Literal["all"] = "all"


class TuneHead(Part):
    """The head alone is trained, on features of a backbone that stays as it is (a probe)."""

    name: Literal["head"] = "head"


class TuneNorms(Part):
    """The head and the weights of normalisation layers are trained: .03 % of a ViT-L (GenD, arXiv:2508.06248)."""

    name: Literal["norms"] = "norms"


class TuneLora(Part):
    """The head and low-rank changes of weights are trained (LoRA, Hu et al. 2022, arXiv:2106.09685)."""

    name: Literal["lora"] = "lora"
    rank: Annotated[int, Field(ge=1, le=256)] = 16
    alpha: Annotated[float, Field(gt=0, le=1024)] = 16
    """The change is scaled by alpha / rank."""
    targets: Literal["attention", "all"] = "attention"
    """Which layers change: the linear layers of attention, or every linear layer and dense convolution; of a backbone
    without attention every one in either case, and searches and trainings then write `all`."""


class TuneLast(Part):
    """The head and the last blocks are trained, as timm groups them: of a transformer blocks, of a CNN stages."""

    name: Literal["last"] = "last"
    blocks: Annotated[int, Field(ge=1)] = 1


class HeadPart(Part):
    """A head."""

    pools: ClassVar[bool] = False
    """Whether it pools by itself, so that there is nothing for `pooling` to choose."""


class LinearHead(HeadPart):
    """The backbone's own classifier, new for the classes."""

    name: Literal["linear"] = "linear"


class CosineHead(HeadPart):
    """A linear layer on features of length 1, times a learned scale (GenD, arXiv:2508.06248)."""

    name: Literal["l2"] = "l2"


class MlpHead(HeadPart):
    """A hidden layer with GELU, then a linear one."""

    name: Literal["mlp"] = "mlp"
    hidden: Annotated[int, Field(ge=1, le=65536)] = 512
    dropout: BelowOne = 0


class AttentionHead(HeadPart):
    """A learned query that looks at all patches, then a linear layer (Lee et al. 2019, arXiv:1810.00825)."""

    pools: ClassVar[bool] = True
    name: Literal["attention"] = "attention"
    heads: Annotated[int, Field(ge=1, le=64)] = 8
    """Of the attention; the nearest smaller number that divides the features is taken."""


class LayersHead(HeadPart):
    """A linear layer on the pooled features of up to six layers, class token, mean and deviation of each.

    All layers' features beat the last (Head2Toe, arXiv:2201.03529; RINE, arXiv:2402.19091).
    """

    pools: ClassVar[bool] = True
    name: Literal["layers"] = "layers"


Tune = Annotated[TuneAll | TuneHead | TuneNorms | TuneLora | TuneLast, Field(discriminator="name")]
Head = Annotated[LinearHead | CosineHead | MlpHead | AttentionHead | LayersHead, Field(discriminator="name")]
Pooling = Literal["default", "cls", "avg", "cls_avg"]
