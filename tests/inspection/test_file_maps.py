import math

import numpy as np
import pytest

from automl.data.transforms import eval_transform
from automl.errors import DataError, SpecError
from automl.inspection.file_maps import explain_file, rank_folder, refuse_other_media
from automl.models.folder import write_ensemble
from automl.models.predict import load
from automl.recipe.augmentation import Augmentation, NativeCrop, ResizeCrop, SquashCrop
from automl.reporter import show_nothing
from automl.views.face import Face
from automl.views.frame import Frame
from automl.views.mel import Mel
from tests.fixtures.models import write
from tests.fixtures.photos import make_photo, save_photos


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "photo.png"
    make_photo(1, 90, 60).save(path)
    return path


@pytest.mark.parametrize("crop", [ResizeCrop(), NativeCrop(), SquashCrop()], ids=lambda crop: crop.name)
def test_the_window_is_what_the_network_sees(crop):
    pipeline = eval_transform(Augmentation(crop=crop), 32)
    image = np.zeros((60, 150, 3), dtype=np.uint8)
    top, left, height, width = pipeline.find_window(60, 150)
    image[top : top + height, left : left + width] = 200
    assert pipeline(image).min() == 200
    assert (height, width) == {"resize": (60, 60), "native": (32, 32), "squash": (60, 150)}[crop.name]


def test_an_image_has_one_picture_with_both_maps(tmp_path, photo):
    model = load(write(tmp_path / "model").path, "cpu")
    calls = []
    found = explain_file(model, photo, progress=lambda done, total: calls.append((done, total)))
    assert found.class_name == "fake"
    assert found.score == pytest.approx(model.predict(photo)["y_pred"].item(), abs=1e-6)
    (view,) = found.views
    (picture,) = view.pictures
    assert picture.picture.size == (90, 60)
    assert picture.heat.shape == picture.occlusion.shape == (60, 90)
    assert picture.seen == pytest.approx((1 / 6, 0, 5 / 6, 1), abs=0.02)
    assert not picture.occlusion[:, :12].any()  # it was cut off
    assert -1 <= picture.agreement <= 1 or math.isnan(picture.agreement)
    assert calls[-1] == (49, 49)


def test_members_that_see_the_same_picture_share_a_map(tmp_path, photo):
    write(tmp_path / "both" / "a")
    write(tmp_path / "both" / "b", backbone="test_resnet")
    write_ensemble(tmp_path / "both", {"a": 0.75, "b": 0.25})
    both = load(tmp_path / "both", "cpu")
    (view,) = explain_file(both, photo).views
    alone = [explain_file(load(tmp_path / "both" / name, "cpu"), photo).views[0].pictures[0] for name in "ab"]
    mean = 0.75 * alone[0].occlusion + 0.25 * alone[1].occlusion
    assert view.networks == ("test_byobnet.r160_in1k", "test_resnet")
    assert view.pictures[0].occlusion == pytest.approx(mean / mean.max(), abs=1e-3)
    assert view.pictures[0].probability == pytest.approx(0.75 * alone[0].probability + 0.25 * alone[1].probability)


@pytest.mark.slow
def test_views_of_a_clip_are_apart_and_one_that_sees_nothing_says_why(tmp_path, talk):
    views = {"f": Frame(count=4), "m": Mel(count=2, seconds=0.5), "n": Face(count=2, which="all", when_none="refuse")}
    for name, view in views.items():
        write(tmp_path / "all" / name, view=view)
    write_ensemble(tmp_path / "all", {"f": 0.5, "m": 0.3, "n": 0.2})
    model = load(tmp_path / "all", "cpu")
    found = explain_file(model, talk, check=False, most=3)
    assert found.score == pytest.approx(model.predict(talk)["y_pred"].item(), abs=1e-6)
    frames, sound, faces = found.views
    assert [len(frames.pictures), frames.all_pictures] == [3, 4]
    times = [picture.time_seconds for picture in frames.pictures]
    assert times == sorted(times)
    assert all(picture.occlusion is None and picture.heat is not None for picture in frames.pictures)
    assert [picture.length_seconds for picture in sound.pictures] == pytest.approx([0.5, 0.5])
    assert faces.pictures or "no face found" in faces.problems[0]


def test_an_image_that_cannot_be_read_is_an_error(tmp_path):
    model = load(write(tmp_path / "model").path, "cpu")
    (tmp_path / "broken.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"broken\.png"):
        explain_file(model, tmp_path / "broken.png")


def test_a_model_of_clips_refuses_an_image(tmp_path, photo):
    model = load(write(tmp_path / "model", view=Frame(count=2)).path, "cpu")
    with pytest.raises(SpecError, match=r"photo\.png is an image, and .* was trained on videos; --model takes"):
        refuse_other_media(model, photo, "image")


def test_a_folder_is_sorted_by_score_and_says_what_is_left_out(tmp_path):
    model = load(write(tmp_path / "model").path, "cpu")
    save_photos(tmp_path / "photos", range(6))
    (tmp_path / "photos" / "broken.png").write_bytes(b"no image")
    ranked = rank_folder(model, tmp_path / "photos", 4, show_nothing)
    with pytest.warns(UserWarning, match="1 of 7 files"):
        table = model.predict(tmp_path / "photos").set_index("path")["y_pred"]
    expected = table[[path for path in table.index if "broken" not in path]].sort_values(ascending=False).head(4)
    assert [file.score for file in ranked.files] == pytest.approx(expected.tolist())
    assert [file.name for file in ranked.files] == [path.rpartition("/")[2] for path in expected.index]
    assert all(file.maps.heat.max() in (0, 1) for file in ranked.files)
    assert (ranked.total, ranked.unreadable, ranked.positive) == (7, 1, "fake")
    assert any("1 of 7 files cannot be read" in note and "broken.png" in note for note in ranked.notes)


def test_of_more_classes_the_least_sure_come_first(tmp_path):
    model = load(write(tmp_path / "model", classes=("a", "b", "c")).path, "cpu")
    save_photos(tmp_path / "photos", range(5))
    ranked = rank_folder(model, tmp_path / "photos", 3, show_nothing)
    table = model.predict(tmp_path / "photos")
    highest = table[["a", "b", "c"]].max(axis=1).sort_values()
    assert [file.score for file in ranked.files] == pytest.approx(highest.head(3).tolist())
    assert ranked.files[0].class_name == table.loc[highest.index[0], ["a", "b", "c"]].astype(float).idxmax()
    assert ranked.positive is None


def test_a_picture_whose_network_has_no_map_says_so(tmp_path, photo, monkeypatch):
    import automl.inspection.file_maps as module
    from automl.errors import RecipeError

    def refuse(*_args, **_options):
        raise RecipeError("no heat map of Odd")

    monkeypatch.setattr(module, "make_heat_maps", refuse)
    (view,) = explain_file(load(write(tmp_path / "model").path, "cpu"), photo).views
    assert view.problems == ("no heat map of Odd",)
    assert view.pictures[0].heat is None
    assert view.pictures[0].occlusion is not None
