from functools import cache

import pytest
import torch
from torch import nn

from automl.backbones.input import InputSpec
from automl.errors import MemoryBudgetError
from automl.recipe import Numerics
from automl.training.evaluation import Predictor

INPUT = InputSpec(2, 2, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), "bicubic")


class Network(nn.Module):
    """Logits from an image's first pixel; more images than `limit` at once do not fit."""

    def __init__(self, limit):
        super().__init__()
        self.limit, self.sizes = limit, []

    def forward(self, images):
        self.sizes.append(len(images))
        if len(images) > self.limit:
            raise torch.cuda.OutOfMemoryError("injected")
        return images[:, :2, 0, 0]


@cache
def make_images(count):
    return torch.randint(0, 256, (count, 3, 2, 2), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def make_predictor(network, size=None, largest=None, **given):
    return Predictor(network, INPUT, Numerics(), "cpu", batch_size=size, largest=largest, **given)


@pytest.mark.slow
@pytest.mark.parametrize(("limit", "size"), [(1, 64), (7, 64), (64, 64), (100, 64), (3, 5), (20, None)])
def test_the_batch_shrinks_until_it_fits(limit, size):
    network, images = Network(limit), make_images(300)
    predictor = make_predictor(network, size, 128)
    expected = (images[:, :2, 0, 0].double() / 255).softmax(dim=1)
    assert torch.allclose(predictor.predict_batch(images), expected, atol=1e-6)
    assert predictor.batch_size <= limit
    assert sum(count > limit for count in network.sizes) <= 9
    network.sizes.clear()
    predictor.predict_batch(images)
    assert max(network.sizes) <= limit  # what did not fit is not tried again


@pytest.mark.parametrize(("largest", "sizes"), [(128, [64, 128, 108]), (64, [64] * 4 + [44]), (None, [64] * 4 + [44])])
def test_the_batch_grows_only_as_far_as_it_may(largest, sizes):
    network = Network(1000)
    make_predictor(network, 64, largest).predict_batch(make_images(300))
    assert network.sizes == sizes


@pytest.mark.slow
def test_each_smaller_batch_is_reported():
    reported = []
    predictor = make_predictor(Network(3), on_smaller=lambda *counts: reported.append(counts))
    predictor.predict_batch(make_images(13))
    assert reported == [(13, 7), (7, 4), (4, 2)]


@pytest.mark.slow
def test_one_image_that_does_not_fit_is_an_error_and_other_errors_are_not_hidden():
    with pytest.raises(MemoryBudgetError, match="does not hold the network and one image"):
        make_predictor(Network(0), 8).predict_batch(make_images(3))
    broken = Network(8)
    broken.forward = lambda _: (_ for _ in ()).throw(RuntimeError("CUDA out of memory, says this text"))
    with pytest.raises(RuntimeError, match="says this text"):
        make_predictor(broken, 8).predict_batch(make_images(3))
