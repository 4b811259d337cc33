import re

import pytest

from automl.space.space import load_space, parse_space
from automl.study.crops import describe_crops, first_crops, first_view
from automl.study.search import _enqueue_known_good
from automl.study.setup import load_facts
from automl.views.parameters import Frame, Mel

TALL, CAMERA = [(80, 480)] * 40, [(640, 480)] * 40
MIXED = CAMERA[:30] + TALL[:10]
RANKS = {"best": 0, "fastest": 0, "affordable": 0}


def space_of(crop):
    return parse_space(f"backbone: {{pool: {{}}}}\naugmentation: {{crop: {crop}}}", "my.yaml")


@pytest.mark.parametrize(
    ("crop", "sizes", "said"),
    [
        ("{choice: {resize: {}, squash: {}}}", TALL, "leaves out 83 % of them; the first recipes have .*crop squash"),
        ("{choice: {resize: {}, squash: {}}}", MIXED, "10 of 40 images .* the search may draw .*crop squash"),
        ("{choice: {resize: {}, native: {}}}", TALL, "^warning: 40 of 40 .* my.yaml has resize, native; squash would"),
        ("native", MIXED, "^warning: 10 of 40 .* of my.yaml has native; squash would show all of it"),
        ("squash", TALL, None),
        ("resize", CAMERA, None),
    ],
)
def test_what_is_not_seen_is_told_in_one_line(crop, sizes, said):
    found = describe_crops(space_of(crop), sizes)
    if said is None:
        assert found is None
    else:
        assert re.search(said, found)
        assert "\n" not in found


def test_a_space_without_augmentation_cuts():
    assert "has resize; squash would" in describe_crops(parse_space("backbone: {pool: {}}", "my.yaml"), TALL)


def test_the_first_recipes_see_all_of_long_images_and_are_else_as_they_were():
    space = load_space("image")
    for params in space.enqueued(RANKS):
        changed = first_crops(space, TALL, "image", params)
        assert changed == params | {"augmentation.crop": "squash"}
        assert space.params_of({"augmentation": {"crop": "squash"}})["augmentation.crop"] == "squash"
        assert first_crops(space, CAMERA, "image", params) == first_crops(space, MIXED, "image", params) == params


def test_the_parameters_of_the_other_crop_go_with_it():
    params = {"augmentation.crop": "random_resized", "augmentation.crop.random_resized.min_scale": 0.5, "epochs": 1}
    assert first_crops(load_space("image"), TALL, "image", params) == {"augmentation.crop": "squash", "epochs": 1}


@pytest.mark.parametrize("crop", ["squash", "native", "{choice: {resize: {}, native: {}}}"])
def test_a_space_that_has_no_choice_keeps_its_own(crop):
    assert first_crops(space_of(crop), TALL, "image", {}) == {}


WIDE = [(1920, 1080)] * 20


def test_the_first_recipe_of_the_frame_view_sees_all_of_long_frames():
    space = load_space("video")
    said = describe_crops(space, WIDE, "video")
    assert "leaves out 44 % of them; the first recipes have view.frame.fit squash" in said
    changed = 0
    for params in space.enqueued(RANKS):
        found = first_crops(space, WIDE, "video", params)
        assert found == (params | {"view.frame.fit": "squash"} if params["view"] == "frame" else params)
        assert first_crops(space, CAMERA, "video", params) == params
        changed += found != params
    assert changed == 1
    assert first_view(space, WIDE, Frame(count=3)) == Frame(count=3, fit="squash")
    assert first_view(space, CAMERA, Frame()) == Frame()
    assert first_view(space, WIDE, Mel()) == Mel()


@pytest.mark.parametrize(
    ("view", "said"),
    [
        ("frame", "^warning: 20 of 20 videos .* view.frame.fit of my.yaml has middle; squash would show all of it"),
        ("{choice: {frame: {fit: squash}}}", None),
        ("{choice: {face: {}}}", None),
        ("{choice: {mel: {}}}", None),
    ],
)
def test_a_space_of_clips_that_cuts_is_warned_of(view, said):
    space = parse_space(f"backbone: {{pool: {{}}}}\nview: {view}", "my.yaml")
    found = describe_crops(space, WIDE, "video")
    assert found is None if said is None else re.search(said, found)
    assert first_view(space, WIDE, Frame()) == Frame()


@pytest.mark.parametrize(("sizes", "crop"), [(TALL, "squash"), (CAMERA, "resize")])
def test_a_study_begins_with_all_of_long_images(begun, sizes, crop):
    space = "backbone: {pool: {}}\nimage_size: 32\naugmentation: {crop: {choice: {resize: {}, squash: {}}}}\n"
    space += "known_good: [{tier: quick, backbone: fastest, augmentation: {crop: resize}}]"
    study, folder = begun(space=space)
    _enqueue_known_good(study, load_facts(study, folder), sizes)
    (trial,) = study.get_trials()
    assert trial.system_attrs["fixed_params"] == {"backbone": 0, "augmentation.crop": crop}
    assert trial.user_attrs["known_good"] == "quick"
