"""Heads other than a backbone's own linear classifier, and other poolings than its own.

On a backbone's own pooling, a head takes the place of the layer that makes the logits, so that a network of timm's
stays one. Where a transformer's tokens are pooled in another way, `TokenClassifier` takes them before timm pools.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from automl.backbones.headed import HeadedBackbone, is_channels_last
from automl.backbones.heads import find_logit_layers, head_modules
from automl.backbones.layers import LayersClassifier
from automl.errors import RecipeError
from automl.recipe.choices import find_entry
from automl.recipe.recipe import Recipe
from automl.recipe.tuning import AttentionHead, CosineHead, Head, LayersHead, LinearHead, MlpHead, Pooling
from automl.schema import Part

_BEHIND = ("head", "conv_head", "norm_head", "pre_logits")
"""Modules of timm's networks that come behind what is pooled here, and are not used then."""


class CosineClassifier(nn.Module):
    """Logits of features brought to length 1, times a learned scale."""

    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(float(features) ** 0.5))  # features of unit variance in the beginning
        self.linear = nn.Linear(features, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, features) to (B, classes)."""
        logits: Tensor = self.linear(self.scale * nn.functional.normalize(x, dim=-1))
        return logits


class TokenPooling(nn.Module):
    """The class token, the mean of the patches, or both side by side; without a class token the mean.

    Attributes:
        features: How many it gives, of tokens of as many as it was made for.
    """

    def __init__(self, features: int, pooling: Pooling, prefix_tokens: int) -> None:
        super().__init__()
        self.parts = ("cls", "avg") if pooling == "cls_avg" else (pooling,)
        self.prefix_tokens = prefix_tokens
        self.features = features * len(self.parts)

    def forward(self, tokens: Tensor) -> Tensor:
        """Maps (B, N, features), the class token first, to (B, self.features)."""
        pooled = {"cls": lambda: tokens[:, 0], "avg": lambda: tokens[:, self.prefix_tokens :].mean(1)}
        return torch.cat([pooled[part]() for part in self.parts], dim=-1)


class AttentionPooling(nn.Module):
    """What a learned query takes out of all patches by multi-head attention (Lee et al. 2019, arXiv:1810.00825)."""

    def __init__(self, features: int, heads: int, prefix_tokens: int) -> None:
        super().__init__()
        from timm.layers import AttentionPoolLatent  # type: ignore[attr-defined]

        heads = next(number for number in range(min(heads, features), 0, -1) if features % number == 0)
        self.attention = AttentionPoolLatent(features, num_heads=heads, mlp_ratio=1.0, norm_layer=nn.LayerNorm)
        self.prefix_tokens, self.features = prefix_tokens, features

    def forward(self, tokens: Tensor) -> Tensor:
        """Maps (B, N, features) to (B, features)."""
        pooled: Tensor = self.attention(tokens[:, self.prefix_tokens :])
        return pooled


class TokenClassifier(HeadedBackbone):
    """A backbone of timm's whose tokens, or positions, are pooled and classified by other layers than its own."""

    def __init__(self, backbone: nn.Module, pooling: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.backbone, self.pooling, self.head = backbone, pooling, head

    def forward(self, images: Tensor) -> Tensor:
        """Maps images (B, 3, S, S) to logits (B, classes)."""
        tokens = self._list_tokens(self.backbone.forward_features(images))  # type: ignore[operator]
        logits: Tensor = self.head(self.pooling(tokens))
        return logits

    def _list_tokens(self, features: Tensor) -> Tensor:
        """Lists what a backbone gives as tokens (B, N, features): they are that, or (B, C, H, W), or (B, H, W, C)."""
        if features.dim() == 4:
            return features.flatten(1, 2) if is_channels_last(self.backbone) else features.flatten(2).transpose(1, 2)
        norm = getattr(self.backbone, "fc_norm", None)  # of transformers that normalise after their own pooling
        return norm(features) if isinstance(norm, nn.Module) else features

    def get_classifier(self) -> nn.Module:
        """Returns what is new: the head, and the pooling where that learns."""
        return nn.ModuleDict({"pooling": self.pooling, "head": self.head})


def put_head(model: nn.Module, recipe: Recipe, classes: int) -> nn.Module:
    """Puts a recipe's pooling and head onto a backbone of timm's that has a linear classifier of its own.

    Raises:
        RecipeError: If the backbone cannot have them.
    """
    if isinstance(recipe.head, LayersHead):
        return LayersClassifier(model, recipe.image_size, classes)
    if pools_apart(model, recipe):
        return classify_tokens(model, recipe, classes)
    if not isinstance(recipe.head, LinearHead):
        replace_logit_layers(model, recipe, classes)
    return model


def pools_apart(model: nn.Module, recipe: Recipe) -> bool:
    """Returns whether a network of a recipe needs a `TokenClassifier`, given its backbone.

    A backbone without tokens, or with nothing but patches, has its own pooling whatever the recipe says.
    """
    if isinstance(recipe.head, AttentionHead):
        return True
    return recipe.pooling != "default" and hasattr(model, "num_prefix_tokens")


def classify_tokens(model: nn.Module, recipe: Recipe, classes: int) -> TokenClassifier:
    """Puts a recipe's pooling and head onto the tokens of a backbone of timm's.

    Raises:
        RecipeError: If the backbone does not say how many features it has.
    """
    features = getattr(model, "num_features", None)
    if not isinstance(features, int):
        raise RecipeError(f"{recipe.backbone} does not say how many features it has: head and pooling must be default")
    model.reset_classifier(0, "")  # type: ignore[operator]  # its own pooling may have weights, which nothing would use
    for name in _BEHIND:
        for parameter in getattr(model, name, nn.Identity()).parameters():
            parameter.requires_grad_(False)
    prefix = int(getattr(model, "num_prefix_tokens", 0))
    pooling: AttentionPooling | TokenPooling
    if isinstance(recipe.head, AttentionHead):
        pooling = AttentionPooling(features, recipe.head.heads, prefix)
    else:
        has_class_token = getattr(model, "cls_token", None) is not None
        pooling = TokenPooling(features, recipe.pooling if has_class_token else "avg", prefix)
    return TokenClassifier(model, pooling, make_head(recipe.head, pooling.features, classes))


def replace_logit_layers(model: nn.Module, recipe: Recipe, classes: int) -> None:
    """Puts a recipe's head in the place of each layer of a timm model that makes logits; its pooling stays.

    Raises:
        RecipeError: If the backbone has no linear layer there.
    """
    layers = {id(layer) for head in head_modules(model) for layer in find_logit_layers(head, classes)}
    names = [name for name, module in model.named_modules() if id(module) in layers and isinstance(module, nn.Linear)]
    if not names:
        raise RecipeError(f"the classifier of {recipe.backbone} is no linear layer: its head must be linear")
    for name in names:
        parent, _, child = name.rpartition(".")
        layer = model.get_submodule(name)
        setattr(model.get_submodule(parent), child, make_head(recipe.head, int(layer.in_features), classes))  # type: ignore[arg-type]


def make_head(head: Head, features: int, classes: int) -> nn.Module:
    """Makes what maps (B, features) to logits (B, classes)."""
    return find_entry("training", "head", head, HEADS)(head, features, classes)


def _make_mlp(head: MlpHead, features: int, classes: int) -> nn.Module:
    hidden = nn.Linear(features, head.hidden)
    return nn.Sequential(hidden, nn.GELU(), nn.Dropout(head.dropout), nn.Linear(head.hidden, classes))


HEADS: dict[type[Part], Callable[[Any, int, int], nn.Module]] = {
    LinearHead: lambda _, features, classes: nn.Linear(features, classes),
    AttentionHead: lambda _, features, classes: nn.Linear(features, classes),
    CosineHead: lambda _, features, classes: CosineClassifier(features, classes),
    MlpHead: _make_mlp,
}
"""What makes each head of a recipe but `layers`, which is more than a head (`backbones.layers`)."""
