import numpy as np
import pytest
import torch

from automl.gallery.augmented import Studio, Subject
from automl.gallery.levels import make_branches
from automl.gallery.mixed import describe_label, show_pairs, show_training
from automl.gallery.samples import decode_some
from automl.recipe import Recipe
from automl.recipe.learning import CutMix, Mixup, NoMixing
from automl.views.base import WholeImage
from tests.fixtures.photos import images_dataset, make_photo, save_photos


@pytest.fixture(scope="module")
def studio():
    subjects = [Subject(np.asarray(make_photo(seed)), name, name == "a") for seed, name in enumerate("ab")]
    return Studio(subjects, 64, "bicubic", squash=False)


def share_of_first(caption):
    shares = {name: int(share) for share, name in (part.split(" % ") for part in caption.split(", "))}
    return shares["a"] / 100


def test_a_mixup_is_as_much_of_each_sample_as_its_label_says(studio):
    (row,) = show_pairs(make_branches(Mixup(alpha=0.4, probability=0.5)), studio, [0, 1], ["a", "b"])
    plain, mixed = row.lines
    one, other = (picture.pixels.astype(float) for picture in plain)
    for picture in mixed:
        share = share_of_first(picture.caption)
        assert np.abs(share * one + (1 - share) * other - picture.pixels).max() < 3  # the share is rounded
    assert row.text.startswith("in 50 % of the batches; alpha 0.4; ")


def test_a_cutmix_has_as_many_pixels_of_each_sample_as_its_label_says(studio):
    (row,) = show_pairs(make_branches(CutMix()), studio, [0, 1], ["a", "b"])
    plain, mixed = row.lines
    for picture in mixed:
        same = (np.abs(picture.pixels.astype(int) - plain[0].pixels).max(axis=-1) <= 1).mean()
        assert same == pytest.approx(share_of_first(picture.caption), abs=0.02)


def test_without_mixing_there_are_no_pairs(studio):
    assert show_pairs(make_branches(NoMixing()), studio, [0, 1], ["a", "b"]) == []


def test_samples_are_those_of_the_batches_of_training(tmp_path):
    dataset = images_dataset(train=save_photos(tmp_path, range(8)))
    shown = decode_some(dataset, WholeImage(), 64, 8, 0, lambda _done, _all: None)
    recipe = Recipe(backbone="any", image_size=48, augmentation={"blur": 0.5, "self_blend": 0.5}, batch_size=4)
    pictures, following = show_training(recipe, shown.data, 8, 0)
    batches = list(shown.data.train_batches(recipe, "bicubic", 0, 2))
    assert following == 2
    for picture, image, label in zip(
        pictures,
        torch.cat([images for images, _ in batches]),
        torch.cat([labels for _, labels in batches]),
        strict=True,
    ):
        assert np.array_equal(picture.pixels, image.permute(1, 2, 0).numpy())
        assert picture.caption == dataset.classes[int(label)]


@pytest.mark.parametrize(
    ("shares", "text"),
    [
        ([1.0, 0.0], "real"),
        ([0.3, 0.7], "70 % class 1, 30 % real"),
        ([0.997, 0.003], "more than 99 % real, less than 1 % class 1"),
    ],
)
def test_labels_in_words(shares, text):
    assert describe_label(shares, ["real", "1"]) == text
