import numpy as np
import pytest
import torch

from automl.data.transforms import eval_transform
from automl.errors import RecipeError, SpecError
from automl.models.tta import TTA, Variants
from automl.recipe.augmentation import Augmentation, NativeCrop, RandomResizedCrop, ResizeCrop, SquashCrop

CROPS = {"resize": ResizeCrop(), "random_resized": RandomResizedCrop(), "native": NativeCrop()}
CROPS["squash"] = SquashCrop()
SIZE = 32


def made(tta, crop, image):
    return Variants(tta, CROPS[crop], SIZE, "bicubic")(image)


def noise(height, width):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("shape", [(40, 70), (64, 64), (20, 25), (32, 32)])
@pytest.mark.parametrize("crop", CROPS)
def test_the_first_image_of_none_and_flip_is_the_evaluations(crop, shape):
    image = noise(*shape)
    expected = eval_transform(Augmentation(crop=CROPS[crop]), SIZE, "bicubic")(image)
    assert torch.equal(made("none", crop, image), expected[None])
    assert torch.equal(made("flip", crop, image), torch.stack([expected, expected.flip(-1)]))


@pytest.mark.parametrize("shape", [(40, 70), (64, 64), (20, 25), (32, 32)])
@pytest.mark.parametrize("crop", CROPS)
def test_five_crops_of_a_uniform_picture_are_all_the_same(crop, shape):
    image = np.full((*shape, 3), (10, 100, 200), dtype=np.uint8)
    found = made("5crop", crop, image)
    assert found.shape == (5, 3, SIZE, SIZE)
    assert torch.equal(found, made("none", crop, image).expand(5, -1, -1, -1))


def test_five_native_crops_are_windows_that_nothing_was_done_to():
    image = noise(40, 70)
    x = torch.from_numpy(image).permute(2, 0, 1)
    found = made("5crop", "native", image)
    assert torch.equal(found[0], x[:, :SIZE, :SIZE])
    assert torch.equal(found[3], x[:, -SIZE:, -SIZE:])
    assert torch.equal(found[4], made("none", "native", image)[0])


def test_five_crops_have_seven_eighths_of_the_short_side():
    # black, but for a white frame as wide as the eighth that the middle window leaves out on both sides
    image = np.zeros((64, 64, 3), dtype=np.uint8)
    image[:4] = image[-4:] = image[:, :4] = image[:, -4:] = 255
    found = made("5crop", "resize", image).float() / 255
    assert found[4].max() == 0
    assert found[0, :, 0, 0].min() > 0.9
    assert found[0, :, -1, -1].max() < 0.1


@pytest.mark.parametrize("tta", TTA)
def test_as_many_images_as_it_says(tta):
    assert made(tta, "resize", noise(50, 60)).shape == (TTA[tta], 3, SIZE, SIZE)


def test_mistakes_are_told_before_the_first_image():
    with pytest.raises(SpecError, match="none, flip, 5crop"):
        Variants("10crop", ResizeCrop(), SIZE, "bicubic")
    with pytest.raises(RecipeError, match="interpolation"):
        Variants("5crop", ResizeCrop(), SIZE, "best")


def test_five_squashed_crops_have_seven_eighths_of_each_side():
    image = np.zeros((96, 32, 3), dtype=np.uint8)
    image[:6], image[-6:] = 255, 200
    found = made("5crop", "squash", image)
    assert found[0, :, 0].min() > 250
    assert found[3, :, -1].min() > 190
    assert found[4].max() == 0
