import os
import shutil
import signal
from contextlib import nullcontext

import numpy as np
import pytest
from safetensors.torch import load_file
from sklearn.metrics import roc_auc_score

from automl.errors import SpecError, StudyError
from automl.models.fusion import fit_fusion
from automl.refit.join import join_views, load_view_ensemble
from automl.study.confirm import confirm
from automl.study.folder import StudyFolder, lock
from automl.study.retraining import Retraining
from automl.study.search import open_result
from automl.study.study import open_study
from automl.study.views import Views
from automl.training.types import Diverged
from tests.fixtures.clips_study import (
    FRAME,
    MEL,
    NAME,
    TRIALS,
    make_study,
    recipe,
    write_clips,
)
from tests.fixtures.reporter import Told
from tests.study.test_confirm import searched  # noqa: F401 - a fixture


def join(folder, told=None, **given):
    return join_views(folder, device="cpu", reporter=told or Told(), **given)


def test_the_best_recipe_of_each_view_is_trained_again_and_scored(joined):
    found, facts = load_view_ensemble(joined), open_result(joined).facts
    assert [(member.view, member.trial, member.search_value) for member in found.members] == [
        ("frame", 1, 0.9),
        ("mel", 2, 0.8),
    ]
    views, scores, holdout = Views(facts, "cpu"), {}, {}
    for member in found.members:
        assert member.recipe == TRIALS[member.trial][1].model_copy(update={"seed": 1})  # not the search's own, 0
        again = Retraining(member.trial, member.recipe, joined.retraining(member.trial, 1))
        data = views.data(member.recipe.view)
        assert load_file(again.weights)
        scores[member.view] = again.validation(data.labels("validation"))
        holdout[member.view] = again.predict(data, "holdout", "cpu")
        labels, truth = data.labels("validation"), data.labels("holdout")
        auc = roc_auc_score(labels, scores[member.view][:, 1])
        assert member.validation.interval.value == member.validation.metrics["auc"] == pytest.approx(auc)
        assert member.holdout.interval.value == pytest.approx(roc_auc_score(truth, holdout[member.view][:, 1]))
        assert member.holdout.interval.low <= member.holdout.interval.value <= member.holdout.interval.high
    assert [(member.seen, member.train_samples) for member in found.members] == [(24, 8), (21, 8)]
    assert (found.samples, found.validation_samples, found.holdout_samples) == (24, 8, 8)
    # the very fusion, of which a view without sound has no part
    for table, split in ((scores, "validation"), (holdout, "holdout")):
        table["mel"] = np.where(views.data(MEL).counts(split)[:, None] > 0, table["mel"], np.nan)
    assert np.isnan(holdout["mel"][:, 0]).tolist() == [True, False, False, True] + [False] * 4
    assert found.fusion == fit_fusion(scores, labels, {"frame": 0.5, "mel": 0.5})
    assert found.validation.metrics["auc"] == roc_auc_score(labels, found.fusion.score(scores)[:, 1])
    assert found.holdout.metrics["auc"] == roc_auc_score(truth, found.fusion.score(holdout)[:, 1])
    assert (found.times_scored, found.holdout_note) == (1, "")


def test_what_is_done_is_not_done_again(joined, untrained):
    told = Told()
    assert join(joined, told) == load_view_ensemble(joined)
    assert untrained == []
    assert "joining the views of study clips on cpu: frame, mel; all are trained" in told


def test_what_a_confirmation_trained_is_taken_and_what_it_dropped_is_trained_again(fresh, untrained):
    confirm(fresh, top=3, seeds=1, device="cpu", reporter=Told())
    assert untrained == [("frame", 1), ("mel", 1), ("mel", 1)]
    kept = {path.parent.name for path in fresh.path.glob("confirm/*/weights.safetensors")}
    untrained.clear()
    join(fresh)
    assert untrained == [(view, 1) for view, name in (("frame", "0001-1"), ("mel", "0002-1")) if name not in kept]
    assert len(untrained) == 1 + (kept == {"0003-1"})


def test_a_better_trial_since_takes_its_place(fresh, untrained):
    first = join(fresh)
    study, told = open_study(fresh), Told()
    trial = study.ask()
    better = recipe(MEL, epochs=3)
    for name, value in (("recipe", better.model_dump_json()), ("backbone", better.backbone)):
        trial.set_user_attr(name, value)
    study.tell(trial, 0.99)
    found = join(fresh, told)
    assert [member.trial for member in found.members] == [trial.number, 1]
    assert untrained == [("frame", 1), ("mel", 1), ("mel", 1)]
    assert "warning: the holdout was looked at before; it is no longer unseen" in told
    assert (first.times_scored, found.times_scored) == (1, 2)
    assert "the holdout was looked at 2 times: it is no longer unseen" in found.lines()


def test_a_smaller_metric_may_be_the_better_one(shared_study, tmp_path, untrained):
    folder = make_study(tmp_path / "runs" / "loss", shared_study.clips, metric="log_loss")
    assert [member.trial for member in join(folder).members] == [0, 3]


def test_one_view_is_calibrated(searched, untrained):  # noqa: F811
    found = join(searched(0.9, 0.8))
    assert [member.view for member in found.members] == ["image"]
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
        "the 8 validation clips taught the weights, so the fused figure flatters, and nothing is honest: "
        "no holdout: no readable sample was set aside (--holdout-fraction of automl search)"
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
    assert (mel.view, mel.holdout.metrics["auc"]) == ("mel", 0.5)  # the shares of the classes, for all
    assert found.holdout.metrics["auc"] == frame.holdout.metrics["auc"]


# --- interruptions and time


def test_interrupted_it_goes_on(fresh, shared_study):
    class Interrupting(Told):
        def show_progress(self, what):
            def on_step(done, total):
                if "view mel" in what and done == 2:
                    os.kill(os.getpid(), signal.SIGINT)

            return nullcontext(on_step)

    told = Interrupting()
    assert join(fresh, told) is None
    assert f"nothing was joined yet; automl ensemble clips --runs {fresh.path.parent} goes on where this" in told
    assert load_view_ensemble(fresh) is None
    assert fresh.retraining(2, 1).joinpath("checkpoint.pt").exists()
    found, whole = join(fresh), load_view_ensemble(StudyFolder(shared_study.runs / NAME))
    assert found.fusion == whole.fusion
    assert found.holdout.metrics == whole.holdout.metrics


def test_views_there_is_no_time_for_are_left_out(fresh, untrained):
    told = Told()
    assert join(fresh, told, timeout=50) is None
    assert "view frame is left out: training it again takes about 1m55s, and " in told
    assert [member.view for member in join(fresh, told, timeout=200).members] == ["frame"]
    assert "view mel is left out: training it again takes about 1m55s, and " in told
    assert f"automl ensemble clips --runs {fresh.path.parent} has no limit" in told
    assert untrained == [("frame", 1)]
    assert [member.view for member in join(fresh).members] == ["frame", "mel"]
    assert untrained == [("frame", 1), ("mel", 1)]
    assert len(join(fresh, timeout=1).members) == 2  # both are trained: it takes no time


# --- what goes wrong


def test_a_recipe_that_diverges_is_left_out(fresh, untrained, monkeypatch):
    train, told = Retraining.train, Told()

    def diverge(self, *arguments):
        if self.recipe.view == FRAME:
            raise Diverged("the loss is not finite after 3 steps")
        train(self, *arguments)

    monkeypatch.setattr(Retraining, "train", diverge)
    assert [member.view for member in join(fresh, told).members] == ["mel"]
    assert (
        "trial 1, view frame, test_vit.r160_in1k, seed 1: the loss is not finite after 3 steps; the recipe is" in told
    )


def test_mistakes(fresh, begun, shared_study, tmp_path):
    with pytest.raises(StudyError, match="no complete trial to join"):
        join(begun("empty")[1])
    with lock(fresh.path / "confirm.lock"), pytest.raises(StudyError, match="by another process"):
        join(fresh)
    clips = write_clips(tmp_path / "three", classes=3)
    with pytest.raises(SpecError, match="has 3; automl train many --ensemble K joins"):
        join(make_study(tmp_path / "runs" / "many", clips, trials=(), real_class=None))
