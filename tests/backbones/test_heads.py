import pytest
import timm
import torch
from torch import nn

from automl.backbones.heads import head_modules, start_from_zero


def new_model(backbone, classes=2):
    torch.manual_seed(0)
    return timm.create_model(backbone, num_classes=classes, **({"img_size": 64} if "volo" in backbone else {}))


def gradients(model, size=64):
    model.train()
    logits = model(torch.randn(4, 3, size, size))
    nn.functional.cross_entropy(logits, torch.tensor([0, 1, 1, 1])).backward()
    return {name for name, p in model.named_parameters() if p.grad is not None and float(p.grad.abs().max()) > 0}


@pytest.mark.parametrize("backbone", ["caformer_s18", "convformer_s18"])
def test_a_head_of_several_layers_learns_from_the_first_step(backbone):
    """With both layers at zero no weight had a gradient, and no recipe could ever train it."""
    model = new_model(backbone)
    start_from_zero(model, 2)
    with torch.no_grad():
        assert torch.equal(model.eval()(torch.randn(2, 3, 64, 64)), torch.zeros(2, 2))
    moved = gradients(model)
    assert {"head.fc.fc2.weight", "head.fc.fc2.bias"} <= moved
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.startswith("head.fc.fc2."):
                parameter -= 0.1 * parameter.grad
    assert "stem.conv.weight" in gradients(model)


def test_a_hidden_layer_as_wide_as_there_are_classes_does_not_start_from_zero():
    classes = new_model("caformer_s18").head.fc.fc1.out_features
    model = new_model("caformer_s18", classes)
    start_from_zero(model, classes)
    assert float(model.head.fc.fc1.weight.detach().abs().max()) > 0
    assert float(model.head.fc.fc2.weight.detach().abs().max()) == 0


@pytest.mark.parametrize(
    ("backbone", "size", "heads"),
    [
        ("resnet10t", 64, 1),
        ("crossvit_9_240", 240, 2),
        ("levit_128s", 224, 2),
        ("repvit_m0_9", 64, 1),
        ("volo_d1_224", 64, 2),
    ],
)
def test_every_layer_that_makes_logits_starts_from_zero_and_is_of_the_head(backbone, size, heads):
    model = new_model(backbone)
    assert len(head_modules(model)) == heads or isinstance(head_modules(model)[0], nn.ModuleList)
    start_from_zero(model, 2)
    with torch.no_grad():
        assert torch.equal(model.eval()(torch.randn(2, 3, size, size)), torch.zeros(2, 2))
    # what depends on the number of classes makes logits
    three = dict(new_model(backbone, 3).named_parameters())
    logits = {id(p) for name, p in model.named_parameters() if p.shape != three[name].shape}
    assert logits <= {id(p) for head in head_modules(model) for p in head.parameters()}
