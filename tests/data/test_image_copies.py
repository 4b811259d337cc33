import json

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from automl.data import image_copies
from automl.data.cache import build_cache
from automl.data.copy_groups import CopyGroups
from automl.data.image_copies import join_alike, make_prints, print_images
from automl.data.near_duplicates import NearCopy, compare_splits, near_copies
from automl.files import cache_dir
from tests.fixtures.photos import images_dataset, make_photo, save_photos

TRUE_PAIRS = [
    ("0YYEKMF3GY", "1DKCGEETES"),
    ("0B925CPFSK", "1A8SFV254Q"),
    ("0C3SNOUVEY", "0CSC8SIMA9"),
    ("0MJ9X634NH", "0PUM4O6RRM"),
]
"""Of the aligned faces of ffdi_faces, those that are one photograph and a network's imitation of it, by eye."""
ONLY_ALIGNED = [
    ("0N2R0S9W2V", "0UE540NPUW"),
    ("0GZKCXJ4J0", "1D7UYCWZU0"),
    ("0ITXAJEEG6", "0W28RMBXDK"),
    ("0B6QYMDC30", "0XWTUSP816"),
    ("0WLFM9QVUK", "1C50T9A77U"),
    ("0TSV0TO4TW", "0UE540NPUW"),
    ("0S03XHOZY5", "1AS5B6OS9I"),
    ("0U1W0IJKLQ", "0L1IDFAHRA"),
]
"""Different faces of the same data that are as light and dark in the same parts: correlation about 0.8."""


def crop(image, left=0.0, top=0.0, right=0.0, bottom=0.0):
    width, height = image.size
    return image.crop(
        (round(left * width), round(top * height), round((1 - right) * width), round((1 - bottom) * height))
    )


COPIES = {
    "jpeg of quality 20": lambda image: image,
    "a quarter as wide and high": lambda image: image.resize((60, 45), Image.Resampling.BICUBIC),
    "without 5 % at the left": lambda image: crop(image, left=0.05),
    "without 5 % at the top": lambda image: crop(image, top=0.05),
    "without 2.5 % on all sides": lambda image: crop(image, 0.025, 0.025, 0.025, 0.025),
    "brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.3),
    "darker": lambda image: ImageEnhance.Brightness(image).enhance(0.5),
    "gray": lambda image: image.convert("L"),
    "turned by two degrees": lambda image: image.rotate(2, Image.Resampling.BICUBIC),
    "mirrored": ImageOps.mirror,
    "mirrored, cropped": lambda image: crop(ImageOps.mirror(image), right=0.05),
}


@pytest.fixture
def photos(tmp_path):
    return save_photos(tmp_path / "photos", range(12))


@pytest.mark.parametrize("kind", COPIES)
def test_a_copy_is_found(photos, tmp_path, kind):
    quality = 20 if kind.startswith("jpeg") else 90
    copy = tmp_path / "copy.jpg"
    COPIES[kind](make_photo(3)).save(copy, quality=quality)
    (found,) = near_copies(images_dataset(train=photos[:6], validation=[copy, *photos[6:]]))
    assert found.names == ("3.png", "copy.jpg")
    assert found.splits == ("train", "validation")
    assert 0.85 <= found.similarity <= 1
    assert found.sentence == "3.png ~ copy.jpg: nearly the same image in train and validation, as fake and as real"


def test_different_images_are_no_copies(tmp_path):
    photos = save_photos(tmp_path, range(60))
    assert near_copies(images_dataset(train=photos[:30], validation=photos[30:50], holdout=photos[50:])) == ()


def test_copies_in_one_split_do_no_harm(photos, tmp_path):
    copy = tmp_path / "copy.jpg"
    make_photo(3).save(copy, quality=50)
    assert near_copies(images_dataset(train=[*photos[:6], copy], validation=photos[6:])) == ()


def test_copies_in_three_splits_are_one_group(photos, tmp_path):
    near, mirrored = tmp_path / "near.jpg", tmp_path / "mirrored.jpg"
    make_photo(3).save(near, quality=50)
    ImageOps.mirror(make_photo(3)).save(mirrored)
    (found,) = near_copies(images_dataset(train=photos[:6], validation=[*photos[6:9], near], holdout=[mirrored]))
    assert found.names == ("3.png", "near.jpg", "mirrored.jpg")
    assert found.splits == ("train", "validation", "holdout")


def test_images_of_nothing_one_edge_or_few_pixels_are_unseen(photos, tmp_path):
    black, edge, icon = Image.new("RGB", (99, 99)), Image.new("RGB", (99, 99)), make_photo(0, 24, 24)
    edge.paste("white", (0, 60, 99, 99))
    splits = {"train": photos[:4], "validation": photos[4:8]}
    for split, files in splits.items():
        for name, image in (("black", black), ("edge", edge), ("icon", icon)):
            image.save(tmp_path / f"{split}-{name}.png")
            files.append(tmp_path / f"{split}-{name}.png")
    (tmp_path / "damaged.png").write_bytes(b"no image")
    found = compare_splits(images_dataset(**splits, holdout=[tmp_path / "damaged.png"]))
    assert found.groups == found.notes == ()
    assert found.unseen == (4, 5, 6, 11, 12, 13, 14)


def test_the_blocks_change_nothing(photos, tmp_path, monkeypatch):
    copies = [tmp_path / f"copy{k}.jpg" for k in range(6)]
    for k, copy in enumerate(copies):
        crop(make_photo(k), left=0.01 * k).save(copy)
    data = images_dataset(train=photos, validation=copies)
    expected = compare_splits(data)
    assert [rows for rows, _ in sorted(expected.groups)] == [(k, 12 + k) for k in range(6)]
    for name, value in (("_BLOCK", (5, 2)), ("_BATCH", 7), ("_CHUNK", 1)):
        monkeypatch.setattr(image_copies, name, value)
    for file in (cache_dir() / "near_copies").iterdir():
        file.unlink()
    again = compare_splits(data)
    assert [rows for rows, _ in again.groups] == [rows for rows, _ in expected.groups]
    assert [value for _, value in again.groups] == pytest.approx([value for _, value in expected.groups], abs=1e-5)


def test_what_was_found_is_stored(photos, tmp_path, monkeypatch):
    copy = tmp_path / "copy.jpg"
    make_photo(3).save(copy, quality=50)
    data = images_dataset(train=photos[:6], validation=[copy])
    found = compare_splits(data)
    monkeypatch.setattr("automl.data.near_duplicates.join_image_copies", None)
    assert compare_splits(data) == found
    monkeypatch.undo()
    other = images_dataset(train=[copy], validation=photos[:6])
    (group,) = compare_splits(other).groups
    assert group[0] == (0, 4)


def test_a_damaged_store_is_made_again(photos, tmp_path):
    data = images_dataset(train=photos[:6], validation=photos[2:8])
    found = compare_splits(data)
    (file,) = (cache_dir() / "near_copies").iterdir()
    file.write_text(json.dumps({"groups": "no"}))
    assert compare_splits(data) == found
    assert len(found.groups) == 4


def test_images_that_are_decoded_already_are_used(photos, tmp_path, monkeypatch):
    copy = tmp_path / "copy.jpg"
    crop(make_photo(3), left=0.05).save(copy)
    data = images_dataset(train=photos[:6], validation=[copy, *photos[6:]])
    cache = build_cache(data, 160)
    monkeypatch.setattr("automl.data.near_duplicates.build_cache", None)
    (group,) = compare_splits(data, cache=cache).groups
    assert group[0] == (3, 6)


def test_of_too_many_pairs_to_align_the_likeliest_are_and_the_others_are_counted(photos, tmp_path, monkeypatch):
    copies = [tmp_path / f"copy{k}.jpg" for k in range(6)]
    for k, copy in enumerate(copies):
        crop(make_photo(k), left=0.05).save(copy)
    monkeypatch.setattr(image_copies, "_SAME", 2.0)
    monkeypatch.setattr(image_copies, "_MOST_ALIGNED", 2)
    found = compare_splits(images_dataset(train=photos, validation=copies))
    assert len(found.groups) == 2
    assert found.notes == ("4 pairs of images that might be cropped copies were not compared: others are more alike",)


def test_thousands_of_copies_of_one_image_are_one_group():
    spectra = np.random.default_rng(0).normal(size=(1, 32, 32)).astype(np.float32)
    sides = [make_prints(np.repeat(spectra, 1500, axis=0), np.arange(begin, begin + 1500)) for begin in (0, 1500)]
    groups = CopyGroups(3000)
    pairs, more = join_alike(sides, groups)
    assert (len(pairs), more) == (0, 0)
    ((rows, similarity),) = groups.list_groups()
    assert rows == list(range(3000))
    assert similarity == pytest.approx(1, abs=1e-3)


def test_a_mirrored_image_has_the_mirrored_print(tmp_path):
    make_photo(0).save(tmp_path / "a.png")
    ImageOps.mirror(make_photo(0)).save(tmp_path / "b.png")
    prints = print_images(build_cache(images_dataset(test=[tmp_path / "a.png", tmp_path / "b.png"]), 64))
    assert prints.hashes[0] == prints.mirrored[1]
    assert prints.hashes[0] != prints.hashes[1]
    assert np.linalg.norm(prints.spectra.astype(float), axis=1) == pytest.approx([1, 1], abs=1e-3)


@pytest.mark.shared
def test_faces_that_are_one_photograph_are_found_and_those_that_are_only_aligned_are_not(shared):
    files = {path.stem: path for path in (shared / "data" / "ffdi_faces").glob("*set/*.jpg")}
    pairs = [*TRUE_PAIRS, *ONLY_ALIGNED]
    train = sorted({files[a] for a, _ in pairs} | set(sorted(files.values())[:60]) - {files[b] for _, b in pairs})
    found = near_copies(images_dataset(train=train, validation=sorted({files[b] for _, b in pairs} - set(train))))
    assert sorted(tuple(name.removesuffix(".jpg") for name in copy.names) for copy in found) == sorted(TRUE_PAIRS)
    assert all(isinstance(copy, NearCopy) for copy in found)
