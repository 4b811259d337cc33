import math

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from automl.backbones.weights import make_model
from automl.errors import RecipeError
from automl.inspection.heat_maps import (
    draw_heat_map,
    find_map_layer,
    make_heat_maps,
    make_occlusion_maps,
    measure_agreement,
)
from automl.recipe import Recipe

SIDE = 32


CHECKS = (torch.arange(SIDE)[:, None] + torch.arange(SIDE)) % 2 * 2.0 - 1


class TextureNet(nn.Module):
    """Its logit of class 1 is the mean over 8 × 8 positions of how much their 4 × 4 pixels look like a chessboard."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 1, 4, stride=4)
        self.conv.weight.data[:] = CHECKS[:4, :4] / 48
        nn.init.constant_(self.conv.bias, -0.5)
        self.act = nn.ReLU(inplace=True)

    def forward(self, images):
        score = 10 * self.act(self.conv(images)).mean(dim=(1, 2, 3))
        return torch.stack([-score, score], dim=1)


def chess_quadrants():
    """Four grey pictures, each with a chessboard in another quadrant; and those quadrants."""
    spans = [(slice(16 * top, 16 * top + 16), slice(16 * left, 16 * left + 16)) for top in (0, 1) for left in (0, 1)]
    images = torch.zeros(4, 3, SIDE, SIDE)
    for image, (rows, columns) in zip(images, spans, strict=True):
        image[:, rows, columns] = CHECKS[:16, :16]
    return images, spans


@pytest.mark.parametrize(("make_maps", "least"), [(make_heat_maps, 0.85), (make_occlusion_maps, 0.7)])
def test_the_mass_is_in_the_quadrant_that_makes_the_score(make_maps, least):
    images, spans = chess_quadrants()
    maps = make_maps(TextureNet(), images, 1)
    assert maps.shape == (4, SIDE, SIDE)
    assert maps.dtype == np.float32
    assert maps.max(axis=(1, 2)).tolist() == [1.0] * 4
    assert maps.min() >= 0
    shares = [heat[span].sum() / heat.sum() for heat, span in zip(maps, spans, strict=True)]
    assert min(shares) > least


@pytest.mark.parametrize("make_maps", [make_heat_maps, make_occlusion_maps])
def test_where_nothing_speaks_for_a_class_the_map_is_empty(make_maps):
    images, _ = chess_quadrants()
    assert not make_maps(TextureNet(), images, [0, 0, 0, 0]).any()  # the texture speaks against class 0
    assert make_maps(TextureNet(), images, [0, 0, 0, 1]).any(axis=(1, 2)).tolist() == [False, False, False, True]
    assert make_maps(TextureNet(), images[:0], 1).shape == (0, SIDE, SIDE)


def recipe_network(backbone, size=64, **values):
    """A network of a recipe, with random weights and a classifier that tells images apart."""
    torch.manual_seed(0)
    network = make_model(Recipe(backbone=backbone, image_size=size, **values), 2)
    for parameter in network.get_classifier().parameters():
        nn.init.normal_(parameter, std=0.2)
    return network.eval()


@pytest.mark.parametrize(
    ("backbone", "values", "name", "layout", "prefix", "side"),
    [
        ("test_resnet", {"size": 160}, "layer4", "NCHW", 0, 5),
        ("test_mambaout", {"size": 160}, "stages", "NHWC", 0, 5),
        ("test_vit", {"size": 160}, "blocks.5.norm1", "NLC", 1, 10),  # by the class token
        ("test_vit3", {"size": 160}, "norm", "NLC", 1, 10),  # by the mean of the patches
        ("test_vit", {"size": 160, "pooling": "avg"}, "backbone.fc_norm", "NLC", 1, 10),
        ("test_vit", {"size": 160, "head": {"name": "attention"}}, "backbone.fc_norm", "NLC", 1, 10),
        ("test_vit", {"size": 160, "tune": {"name": "lora"}}, "blocks.5.norm1", "NLC", 1, 10),
        ("test_resnet", {"size": 160, "tune": {"name": "head"}}, "layer4", "NCHW", 0, 5),
        ("test_resnet", {"size": 64}, "layer3", "NCHW", 0, 4),  # the last layer has 2 × 2 positions
    ],
)
def test_the_layer_is_the_last_with_positions_that_count(backbone, values, name, layout, prefix, side):
    network = recipe_network(backbone, **values)
    images = torch.randn(3, 3, values["size"], values["size"])
    layer = find_map_layer(network, images)
    assert (layer.name, layer.layout, layer.prefix_tokens, layer.side) == (name, layout, prefix, side)
    assert make_heat_maps(network, images, 1, batch_size=2).shape == (3, values["size"], values["size"])


def test_positions_of_tokens_are_those_of_the_picture():
    network = recipe_network("test_vit3", 160)
    layer = find_map_layer(network, torch.zeros(1, 3, 160, 160))
    images = torch.zeros(2, 3, 160, 160)
    images[1, :, 16:32, 128:144] = 3.0
    kept = []
    handle = network.get_submodule(layer.name).register_forward_hook(lambda *args: kept.append(args[2]))
    network(images)
    handle.remove()
    grid = layer.read_grid(kept[0].detach())
    row, column = np.unravel_index(int((grid[1] - grid[0]).norm(dim=0).argmax()), (10, 10))
    assert (row, column) == (1, 8)


def test_a_network_is_left_as_it_was():
    network = recipe_network("test_vit", 160).train()
    network.set_grad_checkpointing(True)
    frozen = next(network.parameters()).requires_grad_(False)
    make_heat_maps(network, torch.randn(1, 3, 160, 160), 1)
    assert all(module.training for module in network.modules())
    assert network.grad_checkpointing
    assert not frozen.requires_grad
    assert all(parameter.grad is None for parameter in network.parameters())
    assert not any(module._forward_hooks for module in network.modules())


def test_a_network_without_positions_is_refused_and_occlusion_goes_on():
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIDE * SIDE, 2))
    images, _ = chess_quadrants()
    with pytest.raises(RecipeError, match="no heat map of Sequential: no layer of it has an output with positions"):
        make_heat_maps(network, images, 1)
    assert make_occlusion_maps(network, images, 1).any()


def test_a_network_that_gives_no_classes_is_refused():
    with pytest.raises(RecipeError, match="no heat map of Conv2d: its output is not one number a class"):
        make_heat_maps(nn.Conv2d(3, 2, 3), torch.zeros(1, 3, SIDE, SIDE), 1)


def test_occlusion_reports_its_patches():
    images, _ = chess_quadrants()
    calls = []
    make_occlusion_maps(TextureNet(), images, 1, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(done, 49) for done in range(1, 50)]


def test_agreement_is_the_rank_correlation_of_parts():
    heat = np.linspace(0, 1, SIDE * SIDE, dtype=np.float32).reshape(SIDE, SIDE)
    assert measure_agreement(heat, heat**2) == pytest.approx(1)
    assert measure_agreement(heat, 1 - heat) == pytest.approx(-1)
    assert math.isnan(measure_agreement(heat, np.zeros_like(heat)))


def test_a_drawn_map_colours_only_what_is_hot():
    heat = np.zeros((4, 4), dtype=np.float32)
    heat[:, 2:] = 1
    drawn = np.asarray(draw_heat_map(Image.new("RGB", (40, 20), (0, 200, 0)), heat)).astype(int)
    assert drawn.shape == (20, 40, 3)
    assert np.ptp(drawn[:, :10], axis=2).max() == 0  # the picture's own colours are gone
    assert np.ptp(drawn[:, -10:], axis=2).min() > 50
