import re

import pytest

from automl.space.space import load_space, parse_space
from automl.study.known_good import describe_crops, enqueue_known_good, show_all, show_all_frames
from automl.study.setup import load_setup
from automl.views.frame import Frame
from automl.views.mel import Mel

TALL, CAMERA = [(80, 480)] * 40, [(640, 480)] * 40
MIXED = CAMERA[:30] + TALL[:10]
RANKS = {"best": 0, "fastest": 0, "affordable": 0}


def space_of(crop):
    return parse_space(f"backbone: {{pool: {{}}}}\naugmentation: {{crop: {crop}}}", "my.yaml")


@pytest.mark.parametrize(
    ("crop", "sizes", "line"),
    [
        ("{choice: {resize: {}, squash: {}}}", TALL, "leaves out 83 % of them; the first recipes have .*crop squash"),
        ("{choice: {resize: {}, squash: {}}}", MIXED, "10 of 40 images .* the search may draw .*crop squash"),
        ("{choice: {resize: {}, native: {}}}", TALL, "^warning: 40 of 40 .* my.yaml has resize, native; squash would"),
        ("native", MIXED, "^warning: 10 of 40 .* of my.yaml has native; squash would show all of it"),
        ("squash", TALL, None),
        ("resize", CAMERA, None),
    ],
)
def test_what_is_not_seen_is_told_in_one_line(crop, sizes, line):
    found = describe_crops(space_of(crop), sizes)
    if line is None:
        assert found is None
    else:
        assert re.search(line, found)
        assert "\n" not in found


def test_a_space_without_augmentation_cuts():
    assert "has resize; squash would" in describe_crops(parse_space("backbone: {pool: {}}", "my.yaml"), TALL)


def test_the_first_recipes_see_all_of_long_images_and_are_else_as_they_were():
    space = load_space("image")
    for params in space.find_known_good_params(RANKS):
        changed = show_all(space, TALL, "image", params)
        assert changed == params | {"augmentation.crop": "squash"}
        assert space.find_params({"augmentation": {"crop": "squash"}})["augmentation.crop"] == "squash"
        assert show_all(space, CAMERA, "image", params) == show_all(space, MIXED, "image", params) == params


def test_the_parameters_of_the_other_crop_go_with_it():
    params = {"augmentation.crop": "random_resized", "augmentation.crop.random_resized.min_scale": 0.5, "epochs": 1}
    assert show_all(load_space("image"), TALL, "image", params) == {"augmentation.crop": "squash", "epochs": 1}


@pytest.mark.parametrize("crop", ["squash", "native", "{choice: {resize: {}, native: {}}}"])
def test_a_space_that_has_no_choice_keeps_its_own(crop):
    assert show_all(space_of(crop), TALL, "image", {}) == {}


WIDE = [(1920, 1080)] * 20


def test_the_first_recipe_of_the_frame_view_sees_all_of_long_frames():
    space = load_space("video")
    line = describe_crops(space, WIDE, "video")
    assert "leaves out 44 % of them; the first recipes have view.frame.fit squash" in line
    changed = 0
    for params in space.find_known_good_params(RANKS):
        found = show_all(space, WIDE, "video", params)
        assert found == (params | {"view.frame.fit": "squash"} if params["view"] == "frame" else params)
        assert show_all(space, CAMERA, "video", params) == params
        changed += found != params
    assert changed == 1
    assert show_all_frames(space, WIDE, Frame(count=3)) == Frame(count=3, fit="squash")
    assert show_all_frames(space, CAMERA, Frame()) == Frame()
    assert show_all_frames(space, WIDE, Mel()) == Mel()


@pytest.mark.parametrize(
    ("view", "line"),
    [
        ("frame", "^warning: 20 of 20 videos .* view.frame.fit of my.yaml has middle; squash would show all of it"),
        ("{choice: {frame: {fit: squash}}}", None),
        ("{choice: {face: {}}}", None),
        ("{choice: {mel: {}}}", None),
    ],
)
def test_a_space_of_clips_that_cuts_is_warned_of(view, line):
    space = parse_space(f"backbone: {{pool: {{}}}}\nview: {view}", "my.yaml")
    found = describe_crops(space, WIDE, "video")
    assert found is None if line is None else re.search(line, found)
    assert show_all_frames(space, WIDE, Frame()) == Frame()


@pytest.mark.parametrize(("sizes", "crop"), [(TALL, "squash"), (CAMERA, "resize")])
def test_a_study_begins_with_all_of_long_images(new_study, sizes, crop):
    space = "backbone: {pool: {}}\nimage_size: 32\naugmentation: {crop: {choice: {resize: {}, squash: {}}}}\n"
    space += "known_good: [{tier: quick, backbone: fastest, augmentation: {crop: resize}}]"
    study, folder = new_study(space=space)
    enqueue_known_good(study, load_setup(study, folder), sizes)
    (trial,) = study.get_trials()
    assert trial.system_attrs["fixed_params"] == {"backbone": 0, "augmentation.crop": crop}
    assert trial.user_attrs["known_good"] == "quick"
