"""The classifier of a timm model: which modules learn alone while the rest is frozen, and which layers make logits."""

from typing import Any

from torch import nn


def head_modules(model: nn.Module) -> tuple[nn.Module, ...]:
    """Lists the modules that are new on other data: the classifier, and what else makes logits.

    Distilled models (DeiT, LeViT) have two classifiers, CrossViT one a branch; VOLO adds what its `aux_head` says of
    each token to what its classifier says of all.

    Args:
        model: A timm model with a classifier.
    """
    classifier: Any = model.get_classifier()  # type: ignore[operator]
    heads = list(classifier) if isinstance(classifier, tuple | list) else [classifier]
    auxiliary = getattr(model, "aux_head", None)
    if isinstance(auxiliary, nn.Module) and all(auxiliary is not head for head in heads):
        heads.append(auxiliary)
    return tuple(heads)


def start_from_zero(model: nn.Module, classes: int) -> None:
    """Makes a new classifier start from zero: equal probabilities, a loss of log(classes).

    Several of timm's families scale a classifier's initial weights by 1/√classes, which is made for a thousand
    classes: with two, mobilenetv2_100 begins with a loss of 4 to 9 and spends its first epoch unlearning it.

    Only the layers whose outputs are the logits are zeroed. Where a head has layers before them (the MLP of caformer
    and convformer), zeroing those as well would leave every weight without a gradient, for good.

    Args:
        model: A timm model with a classifier.
        classes: Its outputs.
    """
    for head in head_modules(model):
        for layer in _logit_layers(head, classes):
            nn.init.zeros_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def _logit_layers(head: nn.Module, classes: int) -> list[nn.Linear | nn.Conv2d]:
    """The layers of a head with one output a class; of several in a row (a hidden layer as wide), the last."""
    layers = [
        (name.rpartition(".")[0], layer)
        for name, layer in head.named_modules()
        if (isinstance(layer, nn.Linear) and layer.out_features == classes)
        or (isinstance(layer, nn.Conv2d) and layer.out_channels == classes)
    ]
    if isinstance(head, nn.ModuleList):  # one classifier a branch, next to each other
        return [layer for _, layer in layers]
    return list(dict(layers).values())
