import pickle

import numpy as np
import pytest
import torch

from automl import recipe
from automl.data.augment import eval_transform, train_transform
from automl.errors import RecipeError

EVERYTHING = {
    "vertical_flip": 0.5,
    "affine": {"name": "random", "probability": 0.8, "rotate_degrees": 20, "shear_degrees": 5, "translate": 0.1},
    "color": {"name": "jitter", "probability": 0.8, "brightness": 0.3, "contrast": 0.3, "saturation": 0.3, "hue": 0.1},
    "grayscale": 0.3,
    "blur": 0.5,
    "jpeg": 0.5,
    "downscale": 0.5,
    "erasing": 0.5,
}
ALONE = [
    {"vertical_flip": 1},
    {"affine": {"name": "random", "probability": 1, "rotate_degrees": 20}},
    {"affine": {"name": "random", "probability": 1, "rotate_degrees": 0, "translate": 0.3}},
    {"affine": {"name": "random", "probability": 1, "rotate_degrees": 0, "shear_degrees": 30}},
    {"color": {"name": "jitter", "probability": 1, "brightness": 0.5}},
    {"grayscale": 1},
    {"blur": 1},
    {"jpeg": 1, "jpeg_min_quality": 5},
    {"downscale": 1, "downscale_min": 0.3},
    {"erasing": 1},
    {"grayscale": 1, "erasing": 1},
    {"policy": {"name": "auto"}},
    {"policy": {"name": "rand", "operations": 3, "magnitude": 15}},
    {"policy": {"name": "trivial"}},
    {"policy": {"name": "augmix", "severity": 5}},
]
CROPS = [{"name": "resize"}, {"name": "random_resized", "min_scale": 0.3}, {"name": "native"}]


def augmentation(**values):
    return recipe.Augmentation.model_validate({"horizontal_flip": 0, **values})


@pytest.fixture
def image():
    """(80, 100, 3): smooth colours with some texture, so that every operation shows."""
    y, x = np.mgrid[0:80, 0:100]
    noise = np.random.default_rng(0).integers(0, 30, (80, 100))
    return np.stack([x * 2 + noise, y * 2 + noise, 255 - x * 2 - noise], axis=-1).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("values", [*ALONE, {**EVERYTHING, "policy": {"name": "trivial"}}])
def test_every_operation_gives_uint8_of_the_size_and_changes_something(image, values):
    transform = train_transform(augmentation(**values), 64)
    plain = eval_transform(augmentation(), 64)(image[:, 10:90])
    torch.manual_seed(1)
    results = [transform(image[:, 10:90]) for _ in range(8)]
    assert all(x.dtype == torch.uint8 and x.shape == (3, 64, 64) and x.is_contiguous() for x in results)
    assert any(not torch.equal(x, plain) for x in results)


@pytest.mark.parametrize("crop", CROPS)
@pytest.mark.parametrize("policy", ["none", "auto", "rand", "trivial", "augmix"])
def test_torchs_seed_decides_everything(image, crop, policy):
    transform = train_transform(augmentation(**EVERYTHING, crop=crop, policy={"name": policy}), 48)
    first, again = [], []
    for results in (first, again):
        np.random.seed(len(first))  # other generators must not matter
        for seed in range(6):
            torch.manual_seed(seed)
            results.append(transform(image))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert len({x.numpy().tobytes() for x in first}) > 1


def test_without_operations_the_image_is_only_cropped(image):
    transform = train_transform(augmentation(), 64)
    square = image[:, :80]
    torch.testing.assert_close(transform(square), eval_transform(augmentation(), 64)(square), rtol=0, atol=0)


@pytest.mark.parametrize("crop", CROPS)
@pytest.mark.parametrize("shape", [(80, 100), (100, 80), (20, 200), (9, 7), (64, 64)])
def test_any_shape_fits(crop, shape):
    image = np.full((*shape, 3), (10, 100, 200), dtype=np.uint8)
    for transform in (train_transform(augmentation(crop=crop), 64), eval_transform(augmentation(crop=crop), 64)):
        result = transform(image)
        assert result.shape == (3, 64, 64)
        assert result.float().mean((1, 2)).tolist() == [10, 100, 200]


def test_native_crop_keeps_pixels(image):
    native = augmentation(crop={"name": "native"})
    middle = torch.from_numpy(image[24:56, 34:66].copy()).permute(2, 0, 1)
    assert torch.equal(eval_transform(native, 32)(image), middle)
    cut = train_transform(native, 32)(image).permute(1, 2, 0).numpy()
    windows = np.lib.stride_tricks.sliding_window_view(image, (32, 32, 3))
    assert (windows.reshape(-1, 32, 32, 3) == cut).all((1, 2, 3)).any()


def test_random_crops_reach_the_edges(image):
    transform = train_transform(augmentation(crop={"name": "native"}), 79)
    lefts = {int(transform(image)[2, 0, 0]) for _ in range(200)}
    assert len(lefts) > 10


def test_flip_flips(image):
    flipped = train_transform(augmentation(horizontal_flip=1), 80)(image[:, :80])
    assert torch.equal(flipped.flip(2), eval_transform(augmentation(), 80)(image[:, :80]))


def test_erased_is_near_imagenets_mean(image):
    erased = train_transform(augmentation(erasing=1), 80)(np.zeros_like(image))
    assert {tuple(pixel) for pixel in erased.flatten(1).T.tolist()} == {(0, 0, 0), (124, 116, 104)}


def test_reads_a_cache_that_cannot_be_written_and_leaves_it_alone(image):
    before = image.copy()
    image.flags.writeable = False
    train_transform(augmentation(**EVERYTHING, crop={"name": "native"}), 80)(image)
    eval_transform(augmentation(), 80)(image)
    assert np.array_equal(image, before)


def test_travels_to_another_process(image):
    transform = train_transform(augmentation(**EVERYTHING, policy={"name": "rand"}), 48)
    copy = pickle.loads(pickle.dumps(transform))
    torch.manual_seed(3)
    expected = transform(image)
    torch.manual_seed(3)
    assert torch.equal(copy(image), expected)


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear", "nearest", "lanczos"])
def test_every_interpolation_of_timm_works(image, interpolation):
    assert eval_transform(augmentation(), 32, interpolation)(image).shape == (3, 32, 32)


def test_unknown_interpolation_names_the_known_ones():
    with pytest.raises(RecipeError, match=r"'cubic'.*bicubic, lanczos|'cubic'.*bilinear"):
        train_transform(augmentation(), 32, "cubic")
