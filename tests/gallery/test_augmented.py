import numpy as np
import pytest

from automl.gallery.augmented import Studio, Subject, enlarge_middle
from automl.gallery.levels import list_units, make_group
from automl.gallery.pictures import Picture
from tests.fixtures.augmentations import EVERYTHING
from tests.fixtures.photos import make_photo

UNITS = {unit.field: unit for unit in list_units(make_group(EVERYTHING))}


@pytest.fixture(scope="module")
def studio():
    subjects = [Subject(np.asarray(make_photo(seed)), name, name == "real") for seed, name in enumerate(("real", "1"))]
    return Studio(subjects, 96, "bicubic", squash=False)


def changes(line):
    plain, *made = [picture.pixels.astype(int) for picture in line]
    return [float(np.abs(pixels - plain).mean()) for pixels in made]


@pytest.mark.parametrize("field", sorted(set(UNITS) - {"crop", "horizontal_flip", "vertical_flip", "grayscale"}))
def test_a_higher_level_changes_more(studio, field):
    for line in studio.show_unit(UNITS[field]).lines:
        found = changes(line)
        assert len(found) == 3
        assert found[-1] > found[0] or (field == "policy" and min(found) > 0)  # an inversion has no strength


def test_a_flip_is_one_picture_turned_around(studio):
    for plain, flipped in studio.show_unit(UNITS["horizontal_flip"]).lines:
        assert np.array_equal(flipped.pixels, plain.pixels[:, ::-1])
        assert flipped.caption == "horizontal_flip"


def test_values_that_are_no_part_of_a_recipe_stand_below_the_pictures(studio):
    row = studio.show_unit(UNITS["codec"])
    assert [picture.caption for picture in row.lines[1]] == ["class 1, as it is", "crf 23", "crf 31", "crf 40"]
    assert row.text == "in 25 % of the images; the middle, enlarged"
    assert [picture.caption for picture in studio.show_unit(UNITS["noise"]).lines[0][1:]] == [
        "-60 dB",
        "-38 dB",
        "-15 dB",
    ]


def test_a_crop_is_one_of_the_whole_image(studio):
    plain, *made = studio.show_unit(UNITS["crop"]).lines[0]
    assert plain.pixels.shape == (180, 240, 3)
    assert len({picture.pixels.tobytes() for picture in made}) == 3  # it may lie anywhere


def test_only_genuine_samples_are_blended_with_themselves(studio):
    row = studio.show_unit(UNITS["self_blend"])
    assert [line[0].caption for line in row.lines] == ["real, as it is"]
    assert row.text == "in 25 % of the genuine images, which then are labelled forged"


def test_the_same_is_drawn_each_time_and_no_random_state_is_left(studio):
    import torch

    before = torch.get_rng_state()
    first, again = (studio.show_unit(UNITS["affine"]).lines[0] for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(np.array_equal(one.pixels, other.pixels) for one, other in zip(first, again, strict=True))


def test_the_middle_is_enlarged_without_smoothing():
    pixels = np.arange(300, dtype=np.uint8)[:300].reshape(10, 10, 3)
    enlarged = enlarge_middle(Picture(pixels, "a", "b")).pixels
    assert enlarged.shape == (9, 9, 3)
    assert np.array_equal(enlarged[1::3, 1::3], pixels[3:6, 3:6])
