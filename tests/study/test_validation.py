from dataclasses import replace

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState
from sklearn.metrics import roc_auc_score

from automl.data.dataset import draw_split
from automl.errors import SpecError
from automl.recipe import Recipe
from automl.study import worker
from automl.study.membership import Membership
from automl.study.samplers import Halving
from automl.study.setup import StudyViews, load_setup
from automl.study.spaces import list_views
from automl.study.storage import open_study
from automl.study.trial import Stop, TrialCallbacks
from automl.study.validation import FoldResult, hold_out_clusters, read_predictions, split_for_trial, take_splits
from automl.study.worker import run_worker
from automl.training.types import Evaluation
from tests.fixtures.frozen_backbones import write_weights
from tests.fixtures.studies import entry


def results_of(study):
    return [(t.state, t.value, t.params, t.intermediate_values) for t in study.trials]


@pytest.fixture(scope="module")
def whole():
    return {}


def test_the_score_of_a_trial_is_the_mean_over_its_folds(new_study, whole):
    study, folder = new_study(trials=2, seed=3, folds=3, pruner="none")
    run_worker(study, folder, "cpu", Stop())
    samples = load_setup(study, folder).dataset.samples
    for trial in study.trials:
        with np.load(folder.predictions_file(trial.number), allow_pickle=False) as file:
            rows, probabilities, labels, folds = (file[n] for n in ("rows", "probabilities", "labels", "folds"))
        assert sorted(rows) == np.flatnonzero(samples["split"] != "holdout").tolist()  # each once
        assert (labels == samples["label"].to_numpy()[rows]).all()
        scores = [roc_auc_score(labels[folds == fold], probabilities[folds == fold, 1]) for fold in range(3)]
        assert trial.value == pytest.approx(np.mean(scores))
        assert trial.user_attrs["metrics"]["auc"] == pytest.approx(trial.value, abs=1e-6)
        assert trial.intermediate_values[8] == pytest.approx(scores[0])
        assert trial.intermediate_values[9] == pytest.approx(np.mean(scores[:2]))
        assert trial.intermediate_values[10] == pytest.approx(trial.value)
    assert not [*folder.path.glob("trials/*/*")]
    whole["results"] = results_of(study)


def test_a_trial_on_one_split_keeps_what_it_predicted(new_study):
    study, folder = new_study("one", trials=1, seed=3)
    run_worker(study, folder, "cpu", Stop())
    samples = load_setup(study, folder).dataset.samples
    rows, probabilities = read_predictions(folder.predictions_file(0), len(samples), 2)
    assert rows.tolist() == np.flatnonzero(samples["split"] == "validation").tolist()
    assert study.trials[0].value == pytest.approx(roc_auc_score(samples["label"].iloc[rows], probabilities[:, 1]))


def test_a_worker_that_dies_in_the_second_fold_repeats_none(new_study, whole, monkeypatch):
    study, folder = new_study("killed", trials=2, seed=3, folds=3, pruner="none")

    def die(_, progress):
        if progress["doing"] == "fold 2 of 3" and progress["step"] == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Membership, "note_progress", die)
        with pytest.raises(KeyboardInterrupt):
            run_worker(study, folder, "cpu", Stop())
    first = FoldResult.load(folder.trial_folder(0) / "fold-0.npz")
    assert first.metrics["auc"] == study.trials[0].intermediate_values[8]
    assert FoldResult.load(folder.trial_folder(0) / "fold-1.npz") is None
    seen = []
    monkeypatch.setattr(Membership, "note_progress", lambda _, progress: seen.append(progress["doing"]))
    run_worker(open_study(folder), folder, "cpu", Stop())
    assert seen[0] == "fold 2 of 3"
    assert results_of(study) == whole["results"]


def test_a_damaged_fold_is_trained_again(tmp_path):
    path = tmp_path / "0003" / "fold-0.npz"
    FoldResult({"auc": 0.5}, np.eye(2), np.arange(2)).save(path)
    assert FoldResult.load(path).metrics == {"auc": 0.5}
    path.write_bytes(path.read_bytes()[:100])
    assert FoldResult.load(path) is None


def test_each_trial_has_its_own_split_and_none_is_continued(new_study):
    study, folder = new_study(trials=2, seed=3, resplit=True)
    run_worker(study, folder, "cpu", Stop())
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE] * 2
    assert not [*folder.path.glob("trials/*/last.pt")]
    setup = load_setup(study, folder)
    data = StudyViews(setup, "cpu").open_view(list_views(setup.space)[0])
    spec = worker.read_spec(study)
    (one,), (other,), (again,) = (split_for_trial(data, spec, number) for number in (0, 1, 0))
    assert one.rows("validation").tolist() == again.rows("validation").tolist()
    assert one.rows("validation").tolist() != other.rows("validation").tolist()
    assert one.rows("validation").tolist() != data.rows("validation").tolist()
    assert one.rows("holdout").tolist() == data.rows("holdout").tolist()


class _Behind(optuna.pruners.BasePruner):
    """Prunes at one step."""

    def __init__(self, step):
        self.step = step

    def prune(self, study, trial):
        return trial.last_step == self.step


def test_a_trial_is_ended_after_a_fold_that_is_behind():
    study = optuna.create_study(direction="maximize", pruner=_Behind(9))
    trial = study.ask()
    recipe = Recipe(backbone="resnet18", epochs=4.0)
    callbacks = TrialCallbacks(trial, study.get_trials()[0], recipe, "auc", lambda _: None, folds=3)
    callbacks.begin_fold(0)
    callbacks.on_evaluation(Evaluation(8, 80, 4.0, {"auc": 0.8}, 0.6, 7.0, 0.25))
    callbacks.end_fold([0.8])
    callbacks.begin_fold(1)
    callbacks.on_evaluation(Evaluation(8, 80, 4.0, {"auc": 0.6}, 0.6, 7.0, 0.25))
    with pytest.raises(optuna.TrialPruned, match=r"auc 0\.7000 after 2 of 3 folds is behind"):
        callbacks.end_fold([0.8, 0.6])
    (frozen,) = study.get_trials()
    assert frozen.intermediate_values == {8: 0.8, 9: pytest.approx(0.7)}
    assert frozen.user_attrs["spent"]["train_seconds"] == 14.0
    study.pruner = _Behind(10)  # there is nothing to spare any more
    callbacks.begin_fold(2)
    callbacks.end_fold([0.8, 0.6, 0.7])


def test_the_end_of_the_first_fold_is_a_rung():
    study = optuna.create_study(direction="maximize")
    for value in (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.97, 0.98, 0.99):
        study.add_trial(optuna.trial.create_trial(value=value, intermediate_values={8: value}))
    late = optuna.trial.create_trial(state=TrialState.RUNNING, intermediate_values={8: 0.96})
    late.number = 9
    assert Halving(folds=3).prune(study, late)  # of ten, the best three go on
    assert not Halving().prune(study, late)
    late.intermediate_values[8] = 0.985
    assert not Halving(folds=3).prune(study, late)


def test_whole_clusters_are_held_out(new_study, tmp_path):
    weights = write_weights(tmp_path, "test_resnet.r160_in1k")
    study, folder = new_study(trials=1)
    setup, spec, lines = load_setup(study, folder), worker.read_spec(study), []
    with pytest.raises(SpecError, match="--validation hard needs pretrained weights"):
        hold_out_clusters(setup, spec, "cpu", lines.append)
    one = replace(entry("test_resnet.r160_in1k"), weights=weights.source, weights_path=str(weights.path))
    setup = replace(setup, pool=replace(setup.pool, entries=(one,)))
    drawn = hold_out_clusters(setup, spec, "cpu", lines.append)
    sides = drawn.samples[drawn.samples["domain"] != ""].groupby("domain")["split"].agg(set)
    assert {"train"} in sides.tolist()
    assert {"validation"} in sides.tolist()
    assert all(len(side) == 1 for side in sides)
    assert (drawn.samples["split"] == "holdout").equals(setup.dataset.samples["split"] == "holdout")
    assert "clusters of samples that look alike to test_resnet.r160_in1k" in lines[0]
    # the same command again knows the split, other samples are others
    assert take_splits(setup.dataset, drawn).samples["split"].equals(drawn.samples["split"])
    other = replace(setup.dataset, samples=setup.dataset.samples.iloc[1:])
    assert take_splits(other, drawn) is other
    assert not draw_split(setup.dataset, 1).samples["split"].equals(setup.dataset.samples["split"])
