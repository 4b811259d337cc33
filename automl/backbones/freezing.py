"""Training a classifier alone, and then everything."""

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from automl.backbones.heads import head_modules
from automl.errors import RecipeError

_FROZEN = "automl_frozen_names"


def freeze_backbone(model: nn.Module, frozen: bool) -> None:
    """Lets only the head learn, or everything again.

    Call it after each `model.train()`, which would otherwise wake the BatchNorm statistics. Parameters that never
    required a gradient (fixed position embeddings) stay as they are when the backbone thaws.

    Args:
        model: A timm model with a classifier.
        frozen: Whether the backbone is frozen; its BatchNorms then keep their statistics.

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
