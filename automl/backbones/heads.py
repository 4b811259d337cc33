"""The classifier of a timm model: how it starts, and how it is trained alone while the rest is frozen."""

from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from automl.errors import RecipeError

_FROZEN = "automl_frozen_names"


def head_modules(model: nn.Module) -> tuple[nn.Module, ...]:
    """Lists the modules of a timm model that are new on other data: the classifier, and what else makes logits.

    Distilled models (DeiT, LeViT) have two classifiers, CrossViT one a branch; VOLO adds the logits that its `aux_head`
    gives each token to those of its classifier.
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
    """
    for head in head_modules(model):
        for layer in find_logit_layers(head, classes):
            nn.init.zeros_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def freeze_backbone(model: nn.Module, frozen: bool) -> None:
    """Lets only the head of a timm model learn, or everything again (`frozen` is false).

    Call it after each `model.train()`, which would otherwise wake the BatchNorm statistics. Parameters that never
    required a gradient (fixed position embeddings) stay as they are when the backbone thaws.

    Raises:
        RecipeError: If the model has no head that could learn alone.
    """
    names: set[str] = getattr(model, _FROZEN, set())
    if not frozen:
        for name, parameter in model.named_parameters():
            if name in names:
                parameter.requires_grad_(True)
        setattr(model, _FROZEN, set())
        return
    heads = head_modules(model)
    kept = {id(part) for head in heads for part in (*head.parameters(), *head.modules())}
    if not any(True for head in heads for _ in head.parameters()):
        raise RecipeError(f"{type(model).__name__} has no classifier to train alone; set freeze_epochs to 0")
    freshly = {n: p for n, p in model.named_parameters() if p.requires_grad and id(p) not in kept}
    for parameter in freshly.values():
        parameter.requires_grad_(False)
        parameter.grad = None  # or the optimizer would go on stepping with the last one
    setattr(model, _FROZEN, names | freshly.keys())
    for module in model.modules():
        if isinstance(module, _BatchNorm) and id(module) not in kept:
            module.eval()


def hold_statistics(model: nn.Module) -> None:
    """Keeps the statistics of BatchNorms whose weights are frozen as they are; call it after each `model.train()`."""
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            weights = list(module.parameters(recurse=False))
            if weights and not any(weight.requires_grad for weight in weights):
                module.eval()


def find_logit_layers(head: nn.Module, classes: int) -> list[nn.Linear | nn.Conv2d]:
    """Finds the layers of a head with one output a class; of several in a row (a hidden layer as wide), the last."""
    layers = [
        (name.rpartition(".")[0], layer)
        for name, layer in head.named_modules()
        if (isinstance(layer, nn.Linear) and layer.out_features == classes)
        or (isinstance(layer, nn.Conv2d) and layer.out_channels == classes)
    ]
    if isinstance(head, nn.ModuleList):  # one classifier a branch, next to each other
        return [layer for _, layer in layers]
    return list(dict(layers).values())
