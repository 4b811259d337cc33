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

from automl.errors import SpecError, StudyError, WeightsError
from automl.evaluation.thresholds import apply_threshold
from automl.memory.estimate import estimate_training
from automl.models.combine import fit_fusion, read_fusion
from automl.models.folder import read_members, read_validation_scores
from automl.models.predict import load, predict
from automl.models.trained_on import read_trained_on
from automl.refit.fused_ensemble import ensemble, join_members, load_fused_ensemble
from automl.refit.output_folder import OutputFolder
from automl.study.confirm import confirm
from automl.study.folder import StudyFolder, hold_lock
from automl.study.replicate import Replicate
from automl.study.search import open_result
from automl.study.setup import StudyViews
from automl.study.storage import open_study
from automl.training.types import Diverged
from tests.fixtures.clips_study import FRAME, MEL, MUTE, NAME, TRIALS, make_study, recipe, write_clips
from tests.fixtures.replicates import RECIPE, add_trial
from tests.fixtures.reporter import RecordingReporter
from tests.fixtures.studies import entry

pytestmark = pytest.mark.slow
"""One study of two views, trained and joined, takes half a minute."""


def join(folder, told=None, **given):
    return join_members(folder, device="cpu", reporter=told or RecordingReporter(), **given)


def write(folder, out, told=None, **given):
    """Writes the model of a study."""
    where = {"runs": folder.path.parent, "out": out, "device": "cpu"}
    return ensemble(folder.name, reporter=told or RecordingReporter(), **(where | given))


def pairs(trained):
    """The view and the seed of each replicate."""
    return [(one.recipe.view.name, one.recipe.seed) for one in trained]


def test_the_best_recipe_of_each_view_is_trained_again_and_scored(joined):
    found, facts = load_fused_ensemble(joined), open_result(joined).setup
    assert [(member.name, member.trial, member.search_value) for member in found.members] == [
        ("frame", 1, 0.9),
        ("mel", 2, 0.8),
    ]
    views, scores, holdout = StudyViews(facts, "cpu"), {}, {}
    for member in found.members:
        assert member.recipe == TRIALS[member.trial][1].model_copy(update={"seed": 1})  # not the search's own, 0
        again = Replicate(member.trial, member.recipe, joined.replicate_folder(member.trial, 1))
        data = views.open_view(member.recipe.view)
        assert load_file(again.weights)
        scores[member.name] = again.read_validation(data.labels("validation"))
        holdout[member.name] = again.predict_split(data, "holdout", "cpu")
        labels, truth = data.labels("validation"), data.labels("holdout")
        auc = roc_auc_score(labels, scores[member.name][:, 1])
        assert member.validation.interval.value == member.validation.metrics["auc"] == pytest.approx(auc)
        assert member.holdout.interval.value == pytest.approx(roc_auc_score(truth, holdout[member.name][:, 1]))
        assert member.holdout.interval.low <= member.holdout.interval.value <= member.holdout.interval.high
    assert [(member.seen, member.train_samples) for member in found.members] == [(24, 8), (21, 8)]
    assert (found.samples, found.validation_samples, found.holdout_samples) == (24, 8, 8)
    # the very fusion, of which a view without sound has no part
    for table, split in ((scores, "validation"), (holdout, "holdout")):
        table["mel"] = np.where(views.open_view(MEL).counts(split)[:, None] > 0, table["mel"], np.nan)
    assert np.isnan(holdout["mel"][:, 0]).tolist() == [True, False, False, True] + [False] * 4
    assert found.fusion == fit_fusion(scores, labels, {"frame": 0.5, "mel": 0.5})
    assert found.validation.metrics["auc"] == roc_auc_score(labels, found.fusion.join_scores(scores)[:, 1])
    assert found.holdout.metrics["auc"] == roc_auc_score(truth, found.fusion.join_scores(holdout)[:, 1])
    assert (found.times_scored, found.holdout_note) == (1, "")


def test_what_is_done_is_not_done_again(joined, untrained):
    told = RecordingReporter()
    assert join(joined, told) == load_fused_ensemble(joined)
    assert untrained == []
    assert "joining the views of study clips on cpu: frame, mel; all are trained" in told


def test_what_a_confirmation_trained_is_taken_and_what_it_dropped_is_trained_again(fresh, untrained):
    confirm("clips", runs=fresh.path.parent, top=3, seeds=1, device="cpu", reporter=RecordingReporter())
    assert pairs(untrained) == [("frame", 1), ("mel", 1), ("mel", 1)]
    kept = {path.parent.name for path in fresh.path.glob("confirm/*/weights.safetensors")}
    untrained.clear()
    join(fresh)
    assert pairs(untrained) == [
        (view, 1) for view, name in (("frame", "0001-1"), ("mel", "0002-1")) if name not in kept
    ]
    assert len(untrained) == 1 + (kept == {"0003-1"})


def test_a_better_trial_since_takes_its_place(fresh, untrained):
    first = join(fresh)
    study, told = open_study(fresh), RecordingReporter()
    trial = add_trial(study, recipe(MEL, epochs=3), 0.99, None)
    found = join(fresh, told)
    assert [member.trial for member in found.members] == [trial.number, 1]
    assert pairs(untrained) == [("frame", 1), ("mel", 1), ("mel", 1)]
    assert "warning: the holdout was scored before: it is no longer unseen" in told
    assert (first.times_scored, found.times_scored) == (1, 2)
    assert "the holdout was scored 2 times: it is no longer unseen" in found.lines()


def test_a_smaller_metric_may_be_the_better_one(shared_study, tmp_path, untrained):
    folder = make_study(tmp_path / "runs" / "loss", shared_study.clips, metric="log_loss")
    assert [member.trial for member in join(folder).members] == [0, 3]


def test_where_there_is_one_view_the_best_recipe_of_each_backbone_is_joined(searched, tmp_path):
    others = [RECIPE.model_copy(update={"backbone": name}) for name in ("test_vit.r160_in1k", "test_resnet.r160_in1k")]
    folder, told = searched(0.7, 0.9, 0.8, recipes=[RECIPE, *others]), RecordingReporter()
    found = write(folder, tmp_path / "model", told, members=2)
    assert [member.name for member in found.members] == [other.backbone for other in others]
    assert (found.by, list(found.fusion.weights)) == ("backbone", [other.backbone for other in others])
    assert f"joining the backbones of study {folder.name} on cpu: {', '.join(found.fusion.weights)}" in told
    assert found.lines()[0].startswith("the weights were learned from the 10 validation images")
    assert found.rows()[1][:3] == ("image", "1", "test_vit.r160_in1k")
    model = load(tmp_path / "model", device="cpu")
    assert len(model.members) == 2
    image = open_result(folder).setup.dataset.samples["path"].iloc[0]
    scores = {one.folder.path.name: np.array([[0.3, 0.7]]) for one in model.members}
    assert model.combine(np.stack(list(scores.values()))).tolist() == found.fusion.join_scores(scores).tolist()
    assert 0 < model.predict(image)["y_pred"].iloc[0] < 1
    card = (tmp_path / "model" / "README.md").read_text()
    assert "is the best recipe of a backbone" in card
    assert "a silent one" not in card
    assert join(folder, by="view").by == "view"  # the other kind is not taken for this one
    with pytest.raises(SpecError, match="--by sound: models are joined by view or backbone"):
        join(folder, by="sound")
    with pytest.raises(SpecError, match="--members 0: give 1 or more"):
        join(folder, members=0)


def test_one_member_is_calibrated(searched, untrained):
    found = join(searched(0.9, 0.8))
    assert [member.name for member in found.members] == [RECIPE.backbone]
    assert found.validation.metrics["auc"] == pytest.approx(found.members[0].validation.metrics["auc"])
    assert found.members[0].seen == found.samples == 48


def test_without_a_holdout_it_is_said(shared_study, tmp_path, untrained):
    clips = shutil.copytree(shared_study.clips, tmp_path / "clips")
    rows = (clips / "labels.csv").read_text()
    (clips / "labels.csv").write_text("\n".join(row for row in rows.split() if "holdout" not in row))
    found = join(make_study(tmp_path / "runs" / "none", clips, holdout_fraction=0))
    assert found.holdout is None
    assert all(member.holdout is None for member in found.members)
    assert found.times_scored == 0
    assert found.lines() == [
        "the weights were learned from the 8 validation clips, so the fused validation score is too good; "
        "there is no holdout: no readable sample was set aside (--holdout-fraction of automl search)"
    ]


def test_a_view_that_sees_nothing_of_a_split(shared_study, tmp_path, untrained):
    clips = shutil.copytree(shared_study.clips, tmp_path / "clips")
    rows = (clips / "labels.csv").read_text().split()
    mute = {"holdout0.mkv", "holdout3.mkv"}
    (clips / "labels.csv").write_text(
        "\n".join(row for row in rows if "holdout" not in row or row.split(",")[0] in mute) + "\n"
    )
    found = join(make_study(tmp_path / "runs" / "mute", clips))
    frame, mel = found.members
    assert (mel.name, mel.holdout.metrics["auc"]) == ("mel", 0.5)  # the shares of the classes, for all
    assert found.holdout.metrics["auc"] == frame.holdout.metrics["auc"]


# --- interruptions and time


def test_interrupted_it_goes_on(fresh, shared_study):
    class Interrupting(RecordingReporter):
        def show_progress(self, what):
            def on_step(done, total):
                if "view mel" in what and done == 2:
                    os.kill(os.getpid(), signal.SIGINT)

            return nullcontext(on_step)

    told = Interrupting()
    assert join(fresh, told) is None
    assert f"stopped before the end; automl ensemble clips --runs {fresh.path.parent} goes on where this" in told
    assert load_fused_ensemble(fresh) is None
    assert fresh.replicate_folder(2, 1).joinpath("checkpoint.pt").exists()
    found, whole = join(fresh), load_fused_ensemble(StudyFolder(shared_study.runs / NAME))
    assert found.fusion == whole.fusion
    assert found.holdout.metrics == whole.holdout.metrics


def test_views_there_is_no_time_for_are_left_out(fresh, untrained):
    told = RecordingReporter()
    assert join(fresh, told, timeout=50) is None
    assert "view frame is left out: training it again takes about 1m55s, and " in told
    assert [member.name for member in join(fresh, told, timeout=200).members] == ["frame"]
    assert "view mel is left out: training it again takes about 1m55s, and " in told
    assert f"automl ensemble clips --runs {fresh.path.parent} has no limit" in told
    assert pairs(untrained) == [("frame", 1)]
    assert [member.name for member in join(fresh).members] == ["frame", "mel"]
    assert pairs(untrained) == [("frame", 1), ("mel", 1)]
    assert len(join(fresh, timeout=1).members) == 2  # both are trained: it takes no time


# --- memory


def test_members_stay_within_a_memory_budget(shared_study, tmp_path, untrained, limited_to):
    trials = [(0.9, recipe(batch_size=8)), (0.8, recipe(MEL, batch_size=8))]
    folder = make_study(tmp_path / "runs" / "eight", shared_study.clips, trials)
    budget = estimate_training(trials[0][1], 2, batch_size=4)
    first = join(folder, gpu_mem=budget)
    assert [one.recipe.numerics.micro_batch_size for one in untrained] == [4, 4]
    assert [member.recipe.numerics.micro_batch_size for member in first.members] == [4, 4]
    assert limited_to == [budget, None]
    assert join(folder) == first  # what was trained within another budget is not trained again
    assert len(untrained) == 2


def test_the_study_s_memory_budget_holds(searched, untrained, limited_to):
    budget = estimate_training(RECIPE, 2, batch_size=4)
    join(searched(0.9, recipes=[RECIPE], pool=[entry(fits_all=False)], setup={"memory_bytes": budget}))
    assert [one.recipe.numerics.micro_batch_size for one in untrained] == [4]
    assert limited_to == [budget, None]


# --- what goes wrong


def test_a_recipe_that_diverges_is_left_out(fresh, untrained, monkeypatch):
    train, told = Replicate.train, RecordingReporter()

    def diverge(self, data, **how):
        if self.recipe.view == FRAME:
            raise Diverged("the loss is not finite after 3 steps")
        train(self, data, **how)

    monkeypatch.setattr(Replicate, "train", diverge)
    assert [member.name for member in join(fresh, told).members] == ["mel"]
    assert (
        "trial 1, view frame, test_vit.r160_in1k, seed 1: the loss is not finite after 3 steps; this recipe is" in told
    )


def test_what_cannot_be_joined(fresh, new_study, shared_study, tmp_path):
    with pytest.raises(StudyError, match="no complete trial"):
        join(new_study("empty")[1])
    with hold_lock(fresh.path / "confirm.lock"), pytest.raises(StudyError, match="by another process"):
        join(fresh)
    clips = write_clips(tmp_path / "three", classes=3)
    with pytest.raises(SpecError, match=r"has 3; automl train many --runs .* --ensemble K joins"):
        join(make_study(tmp_path / "runs" / "many", clips, trials=(), real_class=None))


@pytest.fixture
def table(shared_study):
    """The predictions of all clips by the model that was written, by name."""
    found = load(shared_study.model, "cpu").predict(shared_study.clips / "labels.csv")
    labels = pd.read_csv(shared_study.clips / "labels.csv").set_index("video_name")
    names = found["path"].str.rsplit("/").str[-1]
    return labels.join(found.set_index(names)["y_pred"])


def without_sound(fusion, frame):
    """What the fusion makes of the frames' score alone."""
    return fusion.join_scores({"frame": np.array([[1 - frame, frame]]), "mel": np.full((1, 2), np.nan)})[0, 1]


# --- the folder


def test_the_folder_holds_a_model_of_each_view_and_what_joins_them(shared_study, joined):
    found, path = load_fused_ensemble(joined), shared_study.model
    assert {part.name for part in path.iterdir()} == {
        *("frame", "mel", "ensemble.json", "fusion.json", "validation.json", "README.md")
    }
    assert json.loads((path / "ensemble.json").read_text()) == pytest.approx(found.fusion.weight_shares())
    assert read_fusion(path) == found.fusion
    for (folder, share), member in zip(read_members(path), found.members, strict=True):
        assert (folder.path.name, folder.recipe) == (member.name, member.recipe)
        assert share == pytest.approx(found.fusion.weight_shares()[member.name])
        assert (folder.labels.prior, folder.labels.file_column) == ((0.5, 0.5), "video_name")
        assert folder.metrics["trained_on"] == {"samples": 8, "splits": "train"}
        assert len(read_trained_on(folder.path)) == 8
        assert folder.metrics["holdout"]["value"] == member.holdout.interval.value
        assert folder.metrics["holdout"]["source"] == "this model"
        weights = load_file(joined.replicate_folder(member.trial, 1) / "weights.safetensors")
        written = load_file(folder.path / "model.safetensors")
        assert all((weights[name] == values).all() for name, values in written.items())
    card = (path / "README.md").read_text()
    assert "\n# frame, mel of data, joined\n" in card
    assert "The members learned from train.\n" in card
    assert card.count("\n| ") == 5  # header, line, two views, fused
    assert f"| {found.holdout.interval.value:.4f} |" in card


def test_an_ensemble_has_a_threshold_chosen_on_its_validation(shared_study, joined):
    found, kept = load_fused_ensemble(joined), read_validation_scores(shared_study.model)
    assert kept == found.validation_scores
    assert "models that learned from the training split alone" in kept.source
    setup = open_result(joined).setup
    labels = StudyViews(setup, "cpu").open_view(FRAME).labels("validation")
    assert [len(kept.scores[name]) for name in setup.dataset.classes] == np.bincount(labels).tolist()
    truth = np.repeat([0, 1], np.bincount(labels))
    scores = np.concatenate([kept.scores[name] for name in setup.dataset.classes])
    assert roc_auc_score(truth, scores) == pytest.approx(found.validation.interval.value)
    threshold = apply_threshold(kept, setup.dataset.classes, 1, truth, scores, 0.5)
    assert threshold.validation_fpr == threshold.fpr <= 0.5


# --- predictions


def test_predictions_are_those_that_were_scored(table, shared_study, joined):
    found = load_fused_ensemble(joined)
    for split, scored in (("validation", found.validation), ("holdout", found.holdout)):
        rows = table[table["split"] == split]
        assert roc_auc_score(rows["target"], rows["y_pred"]) == pytest.approx(scored.metrics["auc"])
    rows = table[table["split"] == "validation"].sort_index()
    scores = {}
    for member in found.members:
        with np.load(joined.replicate_folder(member.trial, 1) / "predictions.npz") as file:
            scores[member.name] = file["validation"]
    scores["mel"][[name in MUTE for name in rows.index]] = np.nan
    assert rows["y_pred"].to_numpy() == pytest.approx(found.fusion.join_scores(scores)[:, 1], abs=1e-5)
    assert np.ptp(rows["y_pred"]) > 1e-4  # equal numbers mean something


def test_a_clip_without_sound_is_scored_by_its_frames(table, shared_study):
    frames = load(shared_study.model / "frame", "cpu").predict(shared_study.clips)
    alone = frames.set_index(frames["path"].str.rsplit("/").str[-1])["y_pred"]
    fusion = read_fusion(shared_study.model)
    for name in table.index:
        by_frames = table["y_pred"][name] == pytest.approx(without_sound(fusion, alone[name]), abs=1e-6)
        assert by_frames == (name in MUTE)


def test_a_folder_gives_one_row_a_clip_and_what_no_view_sees_the_prior(shared_study, tmp_path):
    reporter, clips = RecordingReporter(), tmp_path / "clips"
    clips.mkdir()
    for name in ("holdout0.mkv", "holdout1.mkv"):
        shutil.copy(shared_study.clips / name, clips)
    (clips / "broken.mkv").write_text("no clip")
    done = predict(load(shared_study.model, "cpu"), clips, tmp_path / "out.csv", reporter=reporter)
    rows = pd.read_csv(tmp_path / "out.csv")
    assert rows["video_name"].tolist() == ["broken.mkv", "holdout0.mkv", "holdout1.mkv"]
    assert rows["y_pred"][0] == 0.5
    assert (done.rows, done.unreadable, done.columns) == (3, 1, ("video_name", "y_pred"))
    assert any(line.startswith("warning: ") and "broken.mkv" in line for line in reporter.lines)


# --- trained on everything


def test_final_members_learn_from_everything_and_a_stop_costs_nothing(joined, shared_study, tmp_path):
    class Stopping(RecordingReporter):
        def show_progress(self, what):
            def on_step(done, total):
                if what == "training" and any("training test_byobnet" in line for line in self.lines) and done == 2:
                    os.kill(os.getpid(), signal.SIGINT)

            return nullcontext(on_step)

    out, told = tmp_path / "model", RecordingReporter()
    with pytest.raises(KeyboardInterrupt):
        write(joined, out, Stopping(), final=True)
    with pytest.raises(WeightsError, match="no model in"):
        load(out)
    found = write(joined, out, told, final=True)
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


def test_an_out_that_is_taken_is_refused_before_anything_is_trained(fresh, untrained, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").touch()
    for overwrite in (False, True):
        with pytest.raises(WeightsError, match="is not empty and holds no model of automl"):
            write(fresh, tmp_path / "photos", overwrite=overwrite)
    (tmp_path / "file").touch()
    with pytest.raises(WeightsError, match=r"cannot write .*file"):
        write(fresh, tmp_path / "file")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "ensemble.json").touch()
    with pytest.raises(WeightsError, match="holds a finished model; choose another --out, or --overwrite it"):
        write(fresh, tmp_path / "model")
    assert untrained == []
    assert (tmp_path / "model" / "ensemble.json").exists()


def test_overwriting_leaves_nothing_of_the_old_one(joined, shared_study, tmp_path):
    out = shutil.copytree(shared_study.model, tmp_path / "model")
    (out / "mel" / "metrics.json").write_text("old")
    with pytest.raises(WeightsError, match="holds a finished model"):
        write(joined, out)
    write(joined, out, overwrite=True)
    assert read_members(out)[1][0].metrics["metric"] == "auc"
    # and another model that takes its place is not joined by it
    assert not OutputFolder(out).start_training({}, overwrite=True)
    assert [part.name for part in out.iterdir()] == ["training.json"]


def test_nothing_is_written_when_nothing_was_joined(fresh, untrained, tmp_path):
    assert write(fresh, tmp_path / "model", timeout=1) is None
    assert not (tmp_path / "model").exists()


def test_a_study_without_a_complete_trial(new_study, tmp_path):
    with pytest.raises(StudyError, match="no complete trial"):
        write(new_study("empty")[1], tmp_path / "model")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "fusion.json"),
        ('{"weights": {"frame": 1}, "scales": {"frame": 1}, "neutral": {"frame": 0}}', "intercept: is missing"),
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
    (joined.replicate_folder(2, 1) / "weights.safetensors").unlink()

    def load(self, classes):
        raise WeightsError("stop here")

    monkeypatch.setattr(Replicate, "load_network", load)
    with pytest.raises(WeightsError, match="stop here"):
        write(joined, tmp_path / "model")
    assert pairs(untrained) == [("mel", 1)]
    assert load_fused_ensemble(joined).times_scored == 2
