import shutil

import pytest
import torch

from automl.errors import SpecError, WeightsError
from automl.inspection.score_timeline import MOST_IMAGES, load_clip_model, score_clip
from automl.models.combine import Fusion
from automl.models.folder import write_ensemble
from automl.models.predict import Model, load
from automl.views.aggregate import Maximum
from automl.views.face import Face
from automl.views.frame import Frame
from automl.views.mel import Mel
from tests.fixtures import damaged as stand_ins
from tests.fixtures.models import write
from tests.fixtures.view_clips import background, moving_face, write_clip


@pytest.fixture(scope="module")
def empty(tmp_path_factory):
    """Three frames without a face, and no sound."""
    return write_clip(tmp_path_factory.mktemp("empty") / "empty.mkv", [background()] * 3)


def predicted(path, clip):
    return load(path, "cpu").predict(clip)["y_pred"].item()


def test_the_curve_is_denser_and_the_score_is_that_of_predict(tmp_path, talk):
    path = write(tmp_path / "model", view=Frame(count=2, placement="scenes"), aggregate=Maximum()).path
    found = score_clip(load_clip_model(path, "cpu"), talk, 8)
    (member,) = found.members
    assert found.class_name == "fake"
    assert found.score == member.score == pytest.approx(predicted(path, talk), abs=1e-6)
    assert (member.name, member.network, member.made_of) == ("frame", "test_byobnet.r160_in1k", "max of 2 images")
    assert member.times_seconds.tolist() == pytest.approx([0.1, 0.3, 0.5, 0.7, 0.9, 1.1, 1.3, 1.5])
    assert len(member.probabilities) == 8
    assert not member.seconds_each.any()
    assert len(set(member.probabilities.round(6))) > 1


def test_no_fewer_images_than_in_training_and_no_more_than_64(tmp_path, talk):
    model = load_clip_model(write(tmp_path / "model", view=Frame(count=6)).path, "cpu")
    assert len(score_clip(model, talk, 2).members[0].probabilities) == 6
    long = write_clip(tmp_path / "long.mkv", moving_face(MOST_IMAGES + 6, step=1))
    assert len(score_clip(model, long, 256).members[0].probabilities) == MOST_IMAGES


def test_a_picture_of_sound_shows_its_part(tmp_path, talk):
    model = load_clip_model(write(tmp_path / "model", view=Mel(count=2, seconds=0.5)).path, "cpu")
    (member,) = score_clip(model, talk, 64).members
    assert member.medium == "sound"
    assert member.times_seconds[[0, -1]].tolist() == pytest.approx([0.25, 1.35], abs=0.02)
    assert len(member.times_seconds) == 4  # as many as cover the clip
    assert member.seconds_each == pytest.approx(0.5)
    long = load_clip_model(write(tmp_path / "long", view=Mel(seconds=4)).path, "cpu")
    assert score_clip(long, talk, 64).members[0].seconds_each == pytest.approx(1.6, abs=0.02)


def test_a_frame_without_a_face_leaves_a_hole_in_the_curve(tmp_path, talk):
    model = load_clip_model(write(tmp_path / "model", view=Face(count=2, when_none="refuse")).path, "cpu")
    (member,) = score_clip(model, talk, 16).members
    assert member.score is not None
    assert len(member.times_seconds) == 15
    assert 0.9 not in member.times_seconds.round(2)


def test_where_more_images_show_nothing_those_of_the_training_are_the_curve(tmp_path):
    frames = [background()] * 16
    for position in (3, 4, 11, 12):  # in the middle of halves, and of no third
        frames[position] = moving_face(1, step=0)[0]
    clip = write_clip(tmp_path / "rare.mkv", frames)
    model = load_clip_model(write(tmp_path / "model", view=Face(count=2)).path, "cpu")
    assert len(score_clip(model, clip, 2).members[0].probabilities) == 2
    (member,) = score_clip(model, clip, 3).members
    assert member.times_seconds.tolist() == pytest.approx([0.4, 1.2], abs=0.11)


def test_members_that_see_nothing_say_why_and_the_others_go_on(tmp_path, empty):
    views = {"a": Mel(), "b": Face(count=3), "c": Frame(count=1), "d": Frame(count=2)}
    for name, view in views.items():
        write(tmp_path / name, view=view)
    write_ensemble(tmp_path, dict.fromkeys(views, 0.25))
    found = score_clip(load_clip_model(tmp_path, "cpu"), empty, 2)
    assert [member.name for member in found.members] == ["mel", "face", "frame 1", "frame 2"]
    problems = ["it has no sound track", "no face found in 3 of 3 frames", "", ""]
    assert [member.problem for member in found.members] == problems
    assert [member.score is None for member in found.members] == [True, True, False, False]
    assert [len(member.times_seconds) for member in found.members] == [0, 0, 2, 2]
    assert found.members[2].made_of == "one image"
    assert found.score == pytest.approx(predicted(tmp_path, empty), abs=1e-6)


def test_if_nobody_sees_anything_there_is_no_score(tmp_path, empty):
    found = score_clip(load_clip_model(write(tmp_path / "model", view=Mel()).path, "cpu"), empty, 8)
    assert found.score is None
    assert found.prior == 0.5
    assert (found.class_name, found.members[0].problem) == ("fake", "it has no sound track")


def test_a_member_whose_decoder_ends_sees_nothing(tmp_path, talk, monkeypatch):
    shutil.copy(talk, tmp_path / "exit.mkv")
    monkeypatch.setattr("automl.models.scorer.make_images", stand_ins.make_images)
    model = load_clip_model(write(tmp_path / "model", view=Frame(count=2)).path, "cpu")
    found = score_clip(model, tmp_path / "exit.mkv", 4)
    assert found.score is None
    assert found.members[0].problem == "its decoder ended (exit code 9)"


def test_of_more_than_two_classes_the_one_that_the_clip_is_taken_for_is_shown(tmp_path, talk):
    classes = ("real", "swap", "voice")
    path = write(tmp_path / "model", classes=classes, view=Frame(count=2)).path
    found = score_clip(load_clip_model(path, "cpu"), talk, 4)
    row = load(path, "cpu").predict(talk).iloc[0]
    assert found.class_name == max(classes, key=lambda name: row[name])
    assert found.score == pytest.approx(row[found.class_name], abs=1e-6)


def test_a_model_of_image_files_is_refused_before_its_weights_are_loaded(tmp_path):
    write(tmp_path / "a", view=Frame())
    write(tmp_path / "b")
    write_ensemble(tmp_path, {"a": 0.5, "b": 0.5})
    (tmp_path / "a" / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(SpecError, match=r"b was trained on image files, .*--model takes a model that was trained on"):
        load_clip_model(tmp_path, "cpu")


def test_what_is_no_model_folder_is_refused(tmp_path):
    with pytest.raises(WeightsError, match=r"no model in .*: it has no model\.safetensors"):
        load_clip_model(tmp_path, "cpu")


def test_outputs_that_are_not_finite_are_an_error(tmp_path, empty):
    model = load_clip_model(write(tmp_path / "model", view=Frame(count=1)).path, "cpu")
    for parameter in model.members[0].network.parameters():
        torch.nn.init.constant_(parameter, float("nan"))
    with pytest.raises(WeightsError, match="not finite"):
        score_clip(model, empty, 2)


@pytest.mark.slow
def test_a_fusion_joins_as_in_predict(tmp_path, talk):
    """What `automl ensemble` wrote is not averaged."""
    views = {"frame": Frame(count=2), "mel": Mel(count=1, seconds=0.5)}
    for name, view in views.items():
        write(tmp_path / "both" / name, view=view)
    fusion = Fusion({"frame": 2.0, "mel": 0.5}, {"frame": 0.3, "mel": 1.0}, {"frame": 0.1, "mel": -0.2}, 0.4)
    write_ensemble(tmp_path / "both", fusion.weight_shares(), fusion)
    both = load_clip_model(tmp_path / "both", "cpu")
    score = score_clip(both, talk, 4).score
    assert score == pytest.approx(predicted(tmp_path / "both", talk), abs=1e-6)
    assert score != pytest.approx(score_clip(Model(both.path, both.members), talk, 4).score, abs=1e-3)
