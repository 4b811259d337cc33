"""What is predicted for networks of which a part is trained, against the tensors that are alive in a real step."""

from itertools import accumulate

import pytest
import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from automl.backbones.heads import freeze_backbone, hold_statistics
from automl.backbones.weights import make_model
from automl.memory.estimate import predict_envelope
from automl.memory.tracker import Tracker
from automl.recipe import Recipe
from automl.training.optimizer import make_optimizer

BATCH = 8
TUNES = [
    {"name": "all"},
    {"name": "head"},
    {"name": "norms"},
    {"name": "lora", "rank": 8},
    {"name": "lora", "rank": 8, "targets": "all"},
    {"name": "last", "blocks": 2},
]
HEADS = [
    {"head": {"name": "l2"}},
    {"head": {"name": "mlp", "hidden": 256}},
    {"head": {"name": "attention"}},
    {"head": {"name": "layers"}},
    {"pooling": "cls_avg"},
]


class RealTracker(Tracker):
    """Follows the tensors of operators as the CPU computes them."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        self.add_storages(tree_leaves(result))
        return result


def measure_peak(recipe):
    """Peak bytes of live tensors in a second training step."""
    model = make_model(recipe, 2).train()
    optimizer = make_optimizer(recipe, model)
    freeze_backbone(model, recipe.tune.name == "head")
    hold_statistics(model)
    images, labels = torch.randn(BATCH, 3, recipe.image_size, recipe.image_size), torch.arange(BATCH) % 2

    def step():
        nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    step()
    tracker = RealTracker()
    state = [value for values in optimizer.state.values() for value in values.values() if torch.is_tensor(value)]
    tracker.add_storages([*model.parameters(), *model.buffers(), *state, images, labels])
    with tracker:
        step()
    return max(accumulate(event.change_bytes for event in tracker.take_events()))


@pytest.mark.parametrize("backbone", ["vit_tiny_patch16_224", "mobilenetv2_100"])
@pytest.mark.parametrize("tune", TUNES, ids=lambda tune: "_".join(map(str, tune.values())))
def test_what_is_trained_decides_the_memory(backbone, tune):
    recipe = Recipe.from_mapping({"backbone": backbone, "image_size": 64, "tune": tune, "batch_size": BATCH})
    assert predict_envelope(recipe, 2).live_bytes(BATCH) == pytest.approx(measure_peak(recipe), rel=0.03)


@pytest.mark.parametrize("changes", HEADS, ids=str)
def test_heads_and_poolings_are_counted(changes):
    values = {"backbone": "vit_tiny_patch16_224", "image_size": 64, "batch_size": BATCH, "tune": {"name": "norms"}}
    recipe = Recipe.from_mapping(values | changes)
    assert predict_envelope(recipe, 2).live_bytes(BATCH) == pytest.approx(measure_peak(recipe), rel=0.03)


def test_less_is_kept_the_less_is_trained():
    values = {"backbone": "vit_tiny_patch16_224", "image_size": 224, "batch_size": 64}
    peaks = {
        name: predict_envelope(Recipe.from_mapping(values | {"tune": {"name": name}}), 2).needed_bytes(64)
        for name in ("head", "last", "norms", "lora", "all")
    }
    assert list(peaks) == sorted(peaks, key=peaks.__getitem__)
    assert peaks["head"] < peaks["all"] / 5
