import os
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from automl.backbones.input import Preprocessing
from automl.backbones.weights import make_model
from automl.data import loader
from automl.data.cache import build_cache
from automl.data.dataset import Dataset
from automl.data.loader import ImageData
from automl.errors import DataError
from automl.recipe import Recipe
from automl.recipe.augmentation import Augmentation
from automl.training.evaluation import split_probabilities
from automl.views.frame import Frame
from tests.fixtures.view_clips import tone, write_clip

SIZE = 16
VIEW = Frame(count=4)
RECIPE = Recipe(
    backbone="test_vit", view=VIEW, image_size=SIZE, batch_size=2, augmentation=Augmentation(horizontal_flip=0)
)
PLAIN = Preprocessing((0.5, 0.5, 0.5), (0.5, 0.5, 0.5), "bicubic")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Two clips a class to train on, whose frames are grey by number; three to validate, the last without pictures."""
    folder = tmp_path_factory.mktemp("clips")
    rows = []
    for number in range(4):
        frames = [np.full((SIZE, SIZE, 3), 60 * number + 10 * k, dtype=np.uint8) for k in range(4)]
        write_clip(folder / f"{number}.mkv", frames)
        rows.append((f"{number}.mkv", number % 2, "train"))
    write_clip(folder / "4.mkv", [np.full((SIZE, SIZE, 3), 7, dtype=np.uint8)] * 2)
    write_clip(folder / "5.mkv", [np.full((SIZE, SIZE, 3), 200, dtype=np.uint8)] * 3)
    write_clip(folder / "6.mkv", sound=tone(0.5))
    rows += [("4.mkv", 0, "validation"), ("5.mkv", 1, "validation"), ("6.mkv", 1, "validation")]
    samples = pd.DataFrame(rows, columns=["name", "label", "split"])
    samples["path"] = [str(folder / name) for name in samples["name"]]
    samples["group"] = samples["path"]
    dataset = Dataset(folder, "table", samples, ("0", "1"), 0, 1, (), "clips", "video")
    patch = pytest.MonkeyPatch()
    patch.setenv("AUTOML_CACHE", str(folder / "cache"))
    yield ImageData(dataset, build_cache(dataset, SIZE, view=VIEW))
    patch.undo()


def shown(data, first, last, recipe=RECIPE):
    """(clip, frame) of the images of some steps; frames differ by 10, clips by 60."""
    values = [
        int(image.float().mean().round())
        for images, _ in data.train_batches(recipe, "bicubic", first, last)
        for image in images
    ]
    return [divmod(round(value / 10), 6) for value in values]


def test_a_clip_shows_one_image_an_epoch_and_each_before_any_again(data):
    per_epoch = data.steps_per_epoch(RECIPE)
    assert per_epoch == 2
    epochs = [shown(data, epoch * per_epoch, (epoch + 1) * per_epoch) for epoch in range(8)]
    assert all(sorted(clip for clip, _ in epoch) == [0, 1, 2, 3] for epoch in epochs)
    for begin in (0, 4):
        seen = sorted(pair for epoch in epochs[begin : begin + 4] for pair in epoch)
        assert seen == [(clip, frame) for clip in range(4) for frame in range(4)]
    assert epochs[:4] != epochs[4:]
    assert shown(data, 3, 5) == shown(data, 0, 8)[6:10]  # a resumed run sees the same
    assert shown(data, 0, 8) != shown(data, 0, 8, RECIPE.model_copy(update={"seed": 1}))


def test_all_images_of_all_clips_are_evaluated(data):
    assert data.labels("validation").tolist() == [0, 1, 1]
    assert data.counts("validation").tolist() == [2, 3, 0]
    assert data.counts("train").tolist() == [4, 4, 4, 4]
    batches = list(data.evaluation_batches(RECIPE, PLAIN, "validation", 2))
    assert torch.cat([labels for _, labels in batches]).tolist() == [0, 0, 1, 1, 1]
    assert torch.cat([images for images, _ in batches])[:, 0, 0, 0].tolist() == [7, 7, 200, 200, 200]


def test_channels_are_measured_on_the_training_images(data):
    mean, std = data.channel_statistics()
    values = np.array([60 * clip + 20 for clip in range(4)]) / 255  # the middle image of each
    assert mean == pytest.approx([values.mean()] * 3, abs=0.01)
    assert std == pytest.approx([values.std()] * 3, abs=0.01)


def test_a_split_without_samples_is_an_error(data):
    with pytest.raises(DataError, match="no readable video in the holdout split"):
        data.rows("holdout")


def test_a_split_in_which_a_view_sees_nothing_is_scored_by_the_shares(data):
    mute = replace(data.samples, samples=data.samples.samples.assign(split=["train"] * 4 + ["other"] * 2 + ["holdout"]))
    through = ImageData(mute, data.cache)
    found = split_probabilities(make_model(RECIPE, 2), RECIPE, through, "holdout", PLAIN, "cpu")
    assert found.tolist() == [[0.5, 0.5]]
    scored = split_probabilities(make_model(RECIPE, 2), RECIPE, data, "validation", PLAIN, "cpu")
    assert scored.shape == (3, 2)
    assert scored[2].tolist() == [0.5, 0.5]


def test_a_half_of_a_split_has_every_second_sample_of_each_class(data):
    whole, half = data.rows("validation"), data.rows("validation/2")
    assert set(half) <= set(whole)
    labels = data.samples.samples["label"]
    counts = [labels[rows].value_counts().to_dict() for rows in (whole, half)]
    assert counts[1] == {label: -(-count // 2) for label, count in counts[0].items()}
    assert list(half) == sorted(half)
    assert len(data.labels("validation/2")) == len(data.counts("validation/2")) == len(half)


@pytest.mark.parametrize("crop", ["squash", "resize", "native"])
def test_images_that_are_kept_are_what_they_would_be_anew(data, crop, monkeypatch):
    augmentation = Augmentation.model_validate({"crop": {"name": crop}, "horizontal_flip": 0.5, "jpeg": 0.5})
    recipe = RECIPE.model_copy(update={"augmentation": augmentation, "epochs": 3})

    def load():
        return [images for images, _ in data.train_batches(recipe, "bicubic", 0, 3 * data.steps_per_epoch(recipe))]

    kept = load()
    monkeypatch.setattr("automl.data.loader._KEPT_BYTES", 0)
    for one, other in zip(kept, load(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(("cores", "processes"), [(2, 2), (8, 4)])
def test_images_are_loaded_by_no_more_processes_than_there_are_cores(data, monkeypatch, cores, processes):
    monkeypatch.setattr(loader, "cpu_threads", lambda: cores)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)  # torch warns of less
    loading = replace(data, loaders=4)
    assert loading.train_batches(RECIPE, "bicubic", 0, 1).num_workers == processes
    assert loading.evaluation_batches(RECIPE, PLAIN, "validation", 2).num_workers == processes
