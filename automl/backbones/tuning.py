"""Which parameters of a network are trained: the rest is frozen, or changed by low-rank matrices.

LoRA is a parametrization of torch's (`torch.nn.utils.parametrize`), not a layer of `peft`'s: that puts another module
in the place of a linear layer, and timm's BEiT, EVA and Swin V2 read `qkv.weight` without calling the layer, so that
there the change would have no effect, in silence. For the same reason it also works for convolutions.
"""

import math
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any

from torch import Tensor, nn
from torch.nn.utils import parametrize

from automl.backbones.headed import HeadedBackbone
from automl.backbones.heads import head_modules
from automl.backbones.timm_model import build_on_meta
from automl.errors import RecipeError
from automl.recipe.choices import find_entry
from automl.recipe.recipe import Recipe
from automl.recipe.tuning import TuneAll, TuneHead, TuneLast, TuneLora, TuneNorms
from automl.schema import Part

_ATTENTION = ("attn", "attention")
"""Parts of the names of attention modules in timm."""


class LowRankChange(nn.Module):
    """A weight and a change of low rank: W + alpha / rank · up · down (Hu et al. 2022, arXiv:2106.09685)."""

    def __init__(self, weight: Tensor, rank: int, alpha: float) -> None:
        super().__init__()
        outputs, inputs = len(weight), weight[0].numel()
        rank = min(rank, outputs, inputs)
        self.down = nn.Parameter(weight.new_empty(rank, inputs))
        self.up = nn.Parameter(weight.new_zeros(outputs, rank))
        self.scale = alpha / rank
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))

    def forward(self, weight: Tensor) -> Tensor:
        """Returns the changed weight, of the same shape."""
        return weight + self.scale * (self.up @ self.down).view_as(weight)


def choose_trained(model: nn.Module, recipe: Recipe) -> None:
    """Lets those parameters learn that a recipe's `tune` names, and its head; freezes all others for good.

    BatchNorm statistics of what is frozen stay as well, once `hold_statistics` is called after `model.train()`.

    Raises:
        RecipeError: If the network has nothing of what is to be trained.
    """
    if isinstance(recipe.tune, TuneAll):
        return
    trained = {id(parameter) for module in head_modules(model) for parameter in module.parameters()}
    if not trained:
        raise RecipeError(f"{recipe.backbone} has no classifier to train alone: tune must be all")
    body = model.backbone if isinstance(model, HeadedBackbone) else model
    chosen = list(find_entry("training", "tune", recipe.tune, TUNES)(recipe.tune, body, trained))
    if not chosen and not isinstance(recipe.tune, TuneHead):
        raise RecipeError(
            f"{recipe.backbone} has nothing for tune {recipe.tune.name} to train: choose all, head, lora or last"
        )
    trained |= {id(parameter) for parameter in chosen}
    for parameter in model.parameters():
        if id(parameter) not in trained:
            parameter.requires_grad_(False)


def name_changed(model: nn.Module) -> frozenset[str]:
    """Names what training can change in a network's state: what requires a gradient, and the buffers."""
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    return frozenset(trained | {name for name, _ in model.named_buffers()})


def merge_low_rank(model: nn.Module) -> nn.Module:
    """Adds low-rank changes to the weights that they change: the same network, with the parameters of its backbone."""
    for module in list(model.modules()):
        if is_changed(module):
            parametrize.remove_parametrizations(module, "weight", leave_parametrized=True)
    return model


def is_changed(module: nn.Module) -> bool:
    """Returns whether a module's weight has a low-rank change."""
    if not parametrize.is_parametrized(module, "weight"):
        return False
    changes: Any = module.parametrizations
    return any(isinstance(change, LowRankChange) for change in changes["weight"])


def list_changeable(model: nn.Module, targets: str, without: Iterable[int] = ()) -> list[nn.Module]:
    """Lists the layers that LoRA changes: of attention, or every linear layer and dense convolution.

    `without`: the ids of parameters that are trained whole, such as the head's.
    """
    excluded = set(without)
    layers = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d)
        and getattr(module, "groups", 1) == 1
        and id(module.weight) not in excluded
    }
    of_attention: list[nn.Module] = [module for name, module in layers.items() if _is_of_attention(name, module)]
    return of_attention if targets == "attention" and of_attention else list(layers.values())


@cache
def has_attention(backbone: str) -> bool:
    """Returns whether a backbone has layers of attention for LoRA to change; a second at most, without its weights."""
    model, _ = build_on_meta(backbone, {})
    return any(_is_of_attention(name, module) for name, module in model.named_modules())


@cache
def has_tokens(backbone: str) -> bool:
    """Returns whether a backbone makes tokens that a recipe's pooling can choose among; as `has_attention`."""
    model, _ = build_on_meta(backbone, {})
    return hasattr(model, "num_prefix_tokens")


def _is_of_attention(name: str, module: nn.Module) -> bool:
    """Returns whether a module is a linear layer of attention, by its name."""
    return isinstance(module, nn.Linear) and any(part in name for part in _ATTENTION)


def _change_low_rank(tune: TuneLora, model: nn.Module, trained: set[int]) -> list[nn.Parameter]:
    parameters: list[nn.Parameter] = []
    for layer in list_changeable(model, tune.targets, trained):
        weight: Any = layer.weight
        change = LowRankChange(weight.detach(), tune.rank, tune.alpha)
        parametrize.register_parametrization(layer, "weight", change)
        parameters += change.parameters()
    return parameters


def _list_norms(model: nn.Module) -> list[nn.Parameter]:
    """Lists the weights and biases of normalisation layers."""
    kinds = nn.LayerNorm | nn.GroupNorm | nn.modules.batchnorm._BatchNorm | nn.RMSNorm
    return [
        parameter
        for module in model.modules()
        if isinstance(module, kinds) or "norm" in type(module).__name__.lower()
        for parameter in module.parameters(recurse=False)
    ]


def _list_last(tune: TuneLast, model: nn.Module, head: set[int]) -> list[nn.Parameter]:
    """Lists the parameters of the last blocks, and what lies between them and the head."""
    from timm.models import group_parameters

    if not hasattr(model, "group_matcher"):
        raise RecipeError(f"timm does not say what the blocks of {type(model).__name__} are: tune cannot be last")
    matcher: Any = model.group_matcher
    groups: dict[int, list[nn.Parameter]] = group_parameters(model, matcher(coarse=True), return_values=True)
    blocks = [  # a norm behind the last block is none
        number
        for number in sorted(groups)
        if any(parameter.dim() > 1 and id(parameter) not in head for parameter in groups[number])
    ]
    first = blocks[-tune.blocks :][0]
    return [parameter for number in sorted(groups) if number >= first for parameter in groups[number]]


TUNES: dict[type[Part], Callable[[Any, nn.Module, set[int]], Iterable[nn.Parameter]]] = {
    TuneAll: lambda _tune, model, _head: model.parameters(),
    TuneHead: lambda _tune, _model, _head: (),
    TuneNorms: lambda _tune, model, _head: _list_norms(model),
    TuneLora: _change_low_rank,
    TuneLast: _list_last,
}
"""What lists the parameters of a backbone that each `tune` of a recipe trains, beside its head."""
