import shutil

import pytest
from PIL import Image

from automl.data.drop_copies import drop_copies, find_copies, open_samples
from automl.errors import DataError
from automl.spec import DataSpec
from tests.fixtures.photos import images_dataset, make_photo, save_photos


@pytest.fixture
def folder(tmp_path):
    """Two classes with given splits; in validation a near copy of a training image, in test two of one."""
    for number, part in enumerate(("train/a", "train/b", "val/a", "val/b", "test/a", "test/b")):
        save_photos(tmp_path / part, range(10 * number, 10 * number + 5))
    make_photo(3).save(tmp_path / "val/a/near.jpg", quality=50)
    make_photo(13).resize((90, 70)).save(tmp_path / "test/b/small.jpg")
    shutil.copy(tmp_path / "train/b/14.png", tmp_path / "test/b/same.png")
    make_photo(22).save(tmp_path / "test/a/of-validation.jpg")
    return tmp_path


def test_copies_of_training_samples_are_taken_out(folder):
    dataset = open_samples(DataSpec(path=folder, drop_copies=True), 0)
    assert dataset.samples["split"].value_counts().to_dict() == {"holdout": 11, "train": 10, "validation": 10}
    gone = {"val/a/near.jpg", "test/b/small.jpg", "test/b/same.png"}
    assert not gone & set(dataset.samples["name"])
    assert "test/a/of-validation.jpg" in set(dataset.samples["name"])
    assert dataset.samples.index.tolist() == list(range(31))
    assert dataset.remarks[-1] == (
        "taken out, as copies or near copies of training samples: 1 of validation and 2 of holdout (--drop-copies): "
        "test/b/same.png ~ train/b/14.png, test/b/small.jpg ~ train/b/13.png, val/a/near.jpg ~ train/a/3.png"
    )


def test_nothing_is_taken_out_unasked(folder):
    assert len(open_samples(DataSpec(path=folder), 0).samples) == 34


def test_a_data_set_without_copies_says_so(tmp_path):
    photos = save_photos(tmp_path, range(12))
    dataset = drop_copies(images_dataset(train=photos[:6], validation=photos[6:]))
    assert len(dataset.samples) == 12
    assert dataset.remarks == ("taken out, as copies or near copies of training samples: none (--drop-copies)",)


def test_black_images_are_copies_if_their_files_are_equal(tmp_path):
    photos = save_photos(tmp_path, range(12))
    for name, shade in (("a", 0), ("b", 0), ("c", 3)):
        Image.new("RGB", (80, 80), (shade, shade, shade)).save(tmp_path / f"{name}.png")
    dataset = images_dataset(
        train=[*photos[:6], tmp_path / "a.png"], validation=[*photos[6:], tmp_path / "b.png", tmp_path / "c.png"]
    )
    assert find_copies(dataset) == {13: 6}


def test_too_few_that_are_left_is_an_error(tmp_path):
    photos = save_photos(tmp_path, range(8))
    for k in range(3):
        make_photo(k).save(tmp_path / f"copy{k}.jpg")
    dataset = images_dataset(train=photos, validation=sorted(tmp_path.glob("copy*.jpg")))
    with pytest.raises(
        DataError, match=r"3 of validation \(--drop-copies\); at least 2 samples .* or leave out --drop-copies$"
    ):
        drop_copies(dataset)


def test_of_many_copies_the_first_are_named_and_the_others_counted(tmp_path):
    photos = save_photos(tmp_path, range(12))
    copies = [tmp_path / f"copy{k}.jpg" for k in range(6)]
    for k, path in enumerate(copies):
        make_photo(k).save(path)
    dataset = drop_copies(images_dataset(train=photos[:6], validation=[*photos[6:], *copies]))
    pairs = dataset.remarks[-1].partition("6 of validation (--drop-copies): ")[2]
    assert pairs.startswith("copy0.jpg ~ 0.png, ")
    assert pairs.endswith("copy4.jpg ~ 4.png and 1 more")
