import pytest

from automl.gallery.levels import list_units, make_group
from automl.recipe.augmentation import Augmentation
from automl.space.space import load_space
from tests.fixtures.augmentations import EVERYTHING


def units_of(group):
    return {unit.name: unit for unit in list_units(group)}


@pytest.fixture(scope="module")
def image_space():
    return units_of(load_space("image").root.children["augmentation"])


def test_each_field_of_an_augmentation_is_shown_or_is_the_limit_of_one_that_is():
    shown = {unit.field for unit in list_units(make_group(EVERYTHING))}
    assert shown | {"jpeg_min_quality", "downscale_min"} == set(Augmentation.model_fields)


def test_each_unit_is_one_augmentation_alone_and_always_done():
    for unit in list_units(make_group(EVERYTHING)):
        for level in unit.levels:
            changed = {
                name
                for name in Augmentation.model_fields
                if getattr(level.augmentation, name) != getattr(Augmentation(horizontal_flip=0), name)
            }
            changed -= {"jpeg_min_quality", "downscale_min"}
            assert changed == ({unit.field} if unit.field != "crop" else set())  # here the crop is the plain one
    assert units_of(make_group(EVERYTHING))["affine: random"].levels[0].augmentation.affine.probability == 1


def test_a_limit_of_a_recipe_is_shown_by_thirds():
    units = units_of(make_group(EVERYTHING))
    assert [level.augmentation.affine.rotate_degrees for level in units["affine: random"].levels] == [5, 10, 15]
    assert [level.caption for level in units["affine: random"].levels] == [
        "rotate_degrees 5, translate 0.1",
        "rotate_degrees 10, translate 0.2",
        "rotate_degrees 15, translate 0.3",
    ]
    assert [level.augmentation.jpeg_min_quality for level in units["jpeg"].levels] == [80, 60, 40]
    assert units["affine: random"].text == "in 10 % of the images"


def test_a_limit_that_varies_is_shown_at_values_that_the_space_can_draw(image_space):
    rand = [level.augmentation.policy for level in image_space["policy: rand"].levels]
    assert [(policy.operations, policy.magnitude) for policy in rand] == [(1, 3), (2, 9), (3, 15)]
    crops = [level.augmentation.crop.min_scale for level in image_space["crop: random_resized"].levels]
    assert crops == [0.9, 0.6, 0.3]  # the smaller, the stronger
    assert image_space["horizontal_flip"].text == "in 0 to 50 % of the images"
    assert len(image_space["blur"].levels) == 1


def test_what_a_space_cannot_do_is_no_unit(image_space):
    assert not {"codec", "noise", "time_mask", "gain", "policy: none"} & set(image_space)


def test_a_view_may_have_its_own_augmentation():
    views = load_space("video").root.children["view"].branches
    units = units_of(views["mel"].lifted["augmentation"])
    assert list(units) == ["crop: resize", "time_mask", "frequency_mask", "time_shift", "noise", "gain"]
    assert [level.caption for level in units["time_shift"].levels] == [
        "time_shift 0.17",
        "time_shift 0.33",
        "time_shift 0.5",
    ]
