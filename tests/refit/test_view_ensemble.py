import json
import os
import shutil
import signal
from contextlib import nullcontext

import numpy as np
import pandas as pd
import pytest
from safetensors.torch import load_file
from sklearn.metrics import roc_auc_score

from automl.errors import StudyError, WeightsError
from automl.models.folder import read_fusion, read_members
from automl.models.predict import load, predict
from automl.refit.join import load_view_ensemble
from automl.refit.output_folder import Place
from automl.refit.view_ensemble import ensemble_views
from automl.study.retraining import Retraining
from tests.fixtures.clips_study import MUTE
from tests.fixtures.reporter import Told
from tests.fixtures.studies import begun, images  # noqa: F401 - fixtures
from tests.models.test_predict import Ear


@pytest.fixture
def table(shared_study):
    """The predictions of all clips by the model that was written, by name."""
    found = load(shared_study.model, "cpu").predict(shared_study.clips / "labels.csv")
    labels = pd.read_csv(shared_study.clips / "labels.csv").set_index("video_name")
    names = found["path"].str.rsplit("/").str[-1]
    return labels.join(found.set_index(names)["y_pred"])


def without_sound(fusion, frame):
    """What the fusion makes of the frames' score alone."""
    return fusion.score({"frame": np.array([[1 - frame, frame]]), "mel": np.full((1, 2), np.nan)})[0, 1]


# --- the folder


def test_the_folder_holds_a_model_of_each_view_and_what_joins_them(shared_study, joined):
    found, path = load_view_ensemble(joined), shared_study.model
    assert {part.name for part in path.iterdir()} == {"frame", "mel", "ensemble.json", "fusion.json", "README.md"}
    assert json.loads((path / "ensemble.json").read_text()) == pytest.approx(found.fusion.shares())
    assert read_fusion(path) == found.fusion
    for (folder, share), member in zip(read_members(path), found.members, strict=True):
        assert (folder.path.name, folder.recipe) == (member.view, member.recipe)
        assert share == pytest.approx(found.fusion.shares()[member.view])
        assert (folder.labels.prior, folder.labels.file_column) == ((0.5, 0.5), "video_name")
        assert folder.metrics["trained_on"] == {"samples": 8, "splits": "train"}
        assert folder.metrics["holdout"]["value"] == member.holdout.interval.value
        assert folder.metrics["holdout"]["source"] == "this model"
        weights = load_file(joined.retraining(member.trial, 1) / "weights.safetensors")
        written = load_file(folder.path / "model.safetensors")
        assert all((weights[name] == values).all() for name, values in written.items())
    card = (path / "README.md").read_text()
    assert card.startswith("# frame, mel of data, joined\n")
    assert "The members learned from train.\n" in card
    assert card.count("\n| ") == 5  # header, line, two views, fused
    assert f"| {found.holdout.interval.value:.4f} |" in card


# --- predictions


def test_predictions_are_those_that_were_scored(table, shared_study, joined):
    found = load_view_ensemble(joined)
    for split, scored in (("validation", found.validation), ("holdout", found.holdout)):
        rows = table[table["split"] == split]
        assert roc_auc_score(rows["target"], rows["y_pred"]) == pytest.approx(scored.metrics["auc"])
    rows = table[table["split"] == "validation"].sort_index()
    scores = {}
    for member in found.members:
        with np.load(joined.retraining(member.trial, 1) / "predictions.npz") as file:
            scores[member.view] = file["validation"]
    scores["mel"][[name in MUTE for name in rows.index]] = np.nan
    assert rows["y_pred"].to_numpy() == pytest.approx(found.fusion.score(scores)[:, 1], abs=1e-5)
    assert np.ptp(rows["y_pred"]) > 1e-4  # equal numbers mean something


def test_a_clip_without_sound_is_scored_by_its_frames(table, shared_study):
    frames = load(shared_study.model / "frame", "cpu").predict(shared_study.clips)
    alone = frames.set_index(frames["path"].str.rsplit("/").str[-1])["y_pred"]
    fusion = read_fusion(shared_study.model)
    for name in table.index:
        by_frames = table["y_pred"][name] == pytest.approx(without_sound(fusion, alone[name]), abs=1e-6)
        assert by_frames == (name in MUTE)


def test_a_folder_gives_one_row_a_clip_and_what_no_view_sees_the_prior(shared_study, tmp_path):
    ear, clips = Ear(), tmp_path / "clips"
    clips.mkdir()
    for name in ("holdout0.mkv", "holdout1.mkv"):
        shutil.copy(shared_study.clips / name, clips)
    (clips / "broken.mkv").write_text("no clip")
    done = predict(load(shared_study.model, "cpu"), clips, tmp_path / "out.csv", reporter=ear)
    rows = pd.read_csv(tmp_path / "out.csv")
    assert rows["video_name"].tolist() == ["broken.mkv", "holdout0.mkv", "holdout1.mkv"]
    assert rows["y_pred"][0] == 0.5
    assert (done.rows, done.unreadable, done.columns) == (3, 1, ("video_name", "y_pred"))
    assert any("broken.mkv" in warning for warning in ear.warnings)


# --- trained on everything


def test_final_members_learn_from_everything_and_a_stop_costs_nothing(joined, shared_study, tmp_path):
    class Stopping(Told):
        def show_progress(self, what):
            def on_step(done, total):
                if what == "training" and any("training test_byobnet" in line for line in self.lines) and done == 2:
                    os.kill(os.getpid(), signal.SIGINT)

            return nullcontext(on_step)

    out, told = tmp_path / "model", Told()
    with pytest.raises(KeyboardInterrupt):
        ensemble_views(joined, out, final=True, device="cpu", reporter=Stopping())
    with pytest.raises(WeightsError, match="no model in"):
        load(out)
    found = ensemble_views(joined, out, final=True, device="cpu", reporter=told)
    assert not any("training test_vit" in line for line in told.lines)  # it was finished
    assert read_fusion(out) == found.fusion == read_fusion(shared_study.model)
    for (folder, _), samples in zip(read_members(out), (24, 21), strict=True):
        assert folder.metrics["trained_on"] == {"samples": samples, "splits": "train, validation, holdout"}
        assert folder.metrics["holdout"]["source"].endswith("from the training split alone (automl ensemble)")
    assert "The members learned from train + validation + holdout." in (out / "README.md").read_text()
    assert not (out / "training.json").exists()
    found = load(out, "cpu").predict([shared_study.clips / name for name in ("holdout0.mkv", "holdout1.mkv")])
    assert found["y_pred"].between(0, 1).all()


# --- what goes wrong


def test_an_out_that_is_taken_is_told_before_anything_is_trained(fresh, untrained, tmp_path):
    def write(out, **given):
        return ensemble_views(fresh, out, device="cpu", reporter=Told(), **given)

    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").touch()
    for overwrite in (False, True):
        with pytest.raises(WeightsError, match="is not empty and holds no model of automl"):
            write(tmp_path / "photos", overwrite=overwrite)
    (tmp_path / "file").touch()
    with pytest.raises(WeightsError, match=r"cannot write .*file"):
        write(tmp_path / "file")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "ensemble.json").touch()
    with pytest.raises(WeightsError, match="holds a finished model; choose another --out, or --overwrite it"):
        write(tmp_path / "model")
    assert untrained == []
    assert (tmp_path / "model" / "ensemble.json").exists()


def test_overwriting_leaves_nothing_of_the_old_one(joined, shared_study, tmp_path):
    out = shutil.copytree(shared_study.model, tmp_path / "model")
    (out / "mel" / "metrics.json").write_text("old")
    with pytest.raises(WeightsError, match="holds a finished model"):
        ensemble_views(joined, out, device="cpu", reporter=Told())
    ensemble_views(joined, out, overwrite=True, device="cpu", reporter=Told())
    assert read_members(out)[1][0].metrics["metric"] == "auc"
    # and another model that takes its place is not joined by it
    assert not Place(out).begin({}, overwrite=True)
    assert [part.name for part in out.iterdir()] == ["training.json"]


def test_nothing_is_written_when_nothing_was_joined(fresh, untrained, tmp_path):
    assert ensemble_views(fresh, tmp_path / "model", timeout=1, device="cpu", reporter=Told()) is None
    assert not (tmp_path / "model").exists()


def test_a_study_without_a_complete_trial(begun, tmp_path):  # noqa: F811
    with pytest.raises(StudyError, match="no complete trial to join"):
        ensemble_views(begun("empty")[1], tmp_path / "model", device="cpu", reporter=Told())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "fusion.json"),
        ('{"weights": {"frame": 1}, "scales": {"frame": 1}, "neutral": {"frame": 0}}', "intercept: field required"),
        (
            '{"weights": {"face": 1}, "scales": {"face": 1}, "neutral": {"face": 0}, "intercept": 0}',
            "joins face, but ensemble.json names frame, mel; write the folder again",
        ),
    ],
)
def test_a_fusion_that_is_damaged_or_of_other_members(shared_study, tmp_path, content, message):
    out = shutil.copytree(shared_study.model, tmp_path / "model")
    (out / "fusion.json").write_text(content)
    with pytest.raises(WeightsError, match=message):
        load(out, "cpu")


def test_weights_that_were_lost_are_trained_again(joined, untrained, tmp_path, monkeypatch):
    (joined.retraining(2, 1) / "weights.safetensors").unlink()

    def load(self, classes):
        raise WeightsError("stop here")

    monkeypatch.setattr(Retraining, "load", load)
    with pytest.raises(WeightsError, match="stop here"):
        ensemble_views(joined, tmp_path / "model", device="cpu", reporter=Told())
    assert untrained == [("mel", 1)]
    assert load_view_ensemble(joined).times_scored == 2
