import os
from dataclasses import replace

import pytest
import torch

from automl.backbones.input import Preprocessing
from automl.errors import DataError
from automl.features import looks
from automl.features.looks import LookImages, list_images
from automl.recipe import Recipe
from automl.recipe.augmentation import Augmentation, NativeCrop, RandomResizedCrop
from tests.fixtures.frozen_backbones import SIZE, open_pictures

PLAIN = Preprocessing((0.5, 0.5, 0.5), (0.5, 0.5, 0.5), "bicubic")
RECIPE = Recipe(backbone="test_resnet", image_size=16, augmentation=Augmentation(crop=RandomResizedCrop()))


@pytest.fixture
def data(tmp_path):
    return open_pictures(tmp_path / "images")


def look_of(data, look=0, recipe=RECIPE, **options):
    return LookImages(data, recipe, PLAIN, "train", look, **options)


def test_the_first_look_is_what_evaluation_sees(data):
    expected = torch.cat([images for images, _ in data.evaluation_batches(RECIPE, PLAIN, "train", 5)])
    batches = list(look_of(data).load_batches(range(12), 5))
    assert [len(batch) for batch in batches] == [5, 5, 2]
    assert torch.equal(torch.cat(batches), expected)
    assert torch.equal(next(iter(look_of(data).load_batches([7, 2]))), expected[[7, 2]])


def test_other_looks_are_augmented_and_the_same_each_time(data):
    one, again, other, seeded = look_of(data, 1), look_of(data, 1), look_of(data, 2), look_of(data, 1, seed=1)
    state = torch.get_rng_state()
    shown = one[3]
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(shown, again[3])
    assert shown.shape == (3, 16, 16)
    for different in (other[3], seeded[3], one[4], look_of(data)[3]):
        assert not torch.equal(shown, different)


def test_images_have_their_samples_labels_and_groups(data):
    images = list_images(data, "train")
    assert len(images) == 12
    assert images.labels.tolist() == [0, 1] * 6
    assert images.groups[5].endswith("0005.png")
    with pytest.raises(DataError, match="no readable image in the holdout"):
        list_images(data, "holdout")


def test_native_crops_are_evaluated_at_twice_the_size(data):
    recipe = RECIPE.model_copy(update={"augmentation": Augmentation(crop=NativeCrop())})
    assert look_of(data, 0, recipe).image_size == SIZE
    assert look_of(data, 1, recipe).image_size == 16


@pytest.mark.parametrize(("cores", "processes"), [(2, 2), (8, 4)])
def test_looks_are_loaded_by_no_more_processes_than_there_are_cores(data, monkeypatch, cores, processes):
    monkeypatch.setattr(looks, "cpu_threads", lambda: cores)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)  # torch warns of less
    assert look_of(replace(data, loaders=4)).load_batches(range(12)).num_workers == processes
