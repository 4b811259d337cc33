import re

import pytest

from automl.errors import SpecError, StudyError
from automl.space.space import load_space, parse_space
from automl.study.known_good import (
    describe_crops,
    enqueue_earlier,
    enqueue_known_good,
    show_all,
    show_all_frames,
)
from automl.study.search import search
from automl.study.setup import load_setup
from automl.views.frame import Frame
from automl.views.mel import Mel
from tests.fixtures.studies import entry

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


def test_the_best_recipes_of_an_earlier_study_come_first(new_study):
    other = entry(backbone="test_resnet.r160_in1k", score=2.0)
    earlier, folder = new_study(name="earlier", pool=[entry(), other])
    for number, value in enumerate((0.7, 0.9, 0.8, 0.6, 0.95)):
        earlier.enqueue_trial({"backbone": number % 2, "learning_rate": 1e-3 * (number + 1)})
        trial = earlier.ask()
        trial.set_user_attr("backbone", ("test_byobnet.r160_in1k", "test_resnet.r160_in1k")[number % 2])
        trial.suggest_int("backbone", 0, 1)
        trial.suggest_float("learning_rate", 1e-3, 1e-2, log=True)
        earlier.tell(trial, value)
    study, new = new_study(name="later", pool=[other])
    lines = enqueue_earlier(study, load_setup(study, new), folder)
    assert [trial.system_attrs["fixed_params"] for trial in study.get_trials()] == [
        {"backbone": 0, "learning_rate": 2e-3}
    ]
    assert len(lines) == 3
    assert "trial 4 of earlier, because test_byobnet.r160_in1k is not in the pool" in lines[0]
    assert study.get_trials()[0].user_attrs["known_good"] == "earlier"


def test_an_earlier_study_of_another_space_or_without_a_result_is_refused(new_study):
    _, empty = new_study(name="empty")
    study, folder = new_study(name="later")
    setup = load_setup(study, folder)
    with pytest.raises(StudyError, match="no complete trial"):
        enqueue_earlier(study, setup, empty)
    _, unlike = new_study(name="unlike", space="backbone: {pool: {}}")
    with pytest.raises(StudyError, match="searched another space"):
        enqueue_earlier(study, setup, unlike)


GOOD = """backbone: {pool: {}}
image_size: 32
learning_rate: {float: [1e-4, 1e-2], log: true}
epochs: {ordered: [2, 4, 12]}
known_good:
- {tier: minutes, backbone: fastest, learning_rate: 1e-3, epochs: 2}
- {tier: quick, backbone: fastest, learning_rate: 1e-3, epochs: 4}
- {tier: medium, backbone: fastest, learning_rate: 2e-3, epochs: 12}
"""


@pytest.mark.parametrize(
    ("epochs_in_time", "tried", "left_out"),
    [(100, [2, 4, 12], ""), (2.5, [2], "same as another|2.5 of its 12"), (8, [2, 4, 12], ""), (0.5, [2], "its 12")],
)
def test_recipes_that_would_be_cut_short_or_be_the_same_are_not_tried(new_study, epochs_in_time, tried, left_out):
    seconds = 0.001 * 34 * 1.1 * epochs_in_time
    study, folder = new_study(space=GOOD, setup={"trial_seconds": seconds})
    setup = load_setup(study, folder)
    train = int((setup.dataset.samples["split"] == "train").sum())
    assert train == 34
    reasons = enqueue_known_good(study, setup, CAMERA)
    lengths = [setup.space.decode_params(trial.system_attrs["fixed_params"])["epochs"] for trial in study.get_trials()]
    assert lengths == tried
    assert len(reasons) == 3 - len(tried)
    assert not left_out or any(re.search(left_out, reason) for reason in reasons)


@pytest.mark.usefixtures("one_process")
@pytest.mark.parametrize(("earlier", "message"), [("nope", "no study 'nope'"), ("tones", "cannot begin with itself")])
def test_a_mistaken_warm_start_leaves_no_study_behind(images, tmp_path, earlier, message):
    with pytest.raises(StudyError, match=message):
        search(images, name="tones", warm_start=earlier, runs=tmp_path, pretrained="never", space="demo")
    assert not list(tmp_path.iterdir())


def test_a_warm_start_is_the_name_of_a_study_beside():
    with pytest.raises(SpecError, match="--warm-start: must be letters"):
        search("photos", warm_start="../runs/two")
