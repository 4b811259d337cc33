from collections import Counter

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState, create_trial

from automl.backbones.weights import make_model
from automl.degradations.degradation import load_degradations
from automl.recipe import Recipe
from automl.study.confirm import Candidate, rank_candidate
from automl.study.robustness import (
    TrainedNetwork,
    degrade_validation,
    find_front,
    plan_samples,
    score_robustness,
)
from automl.study.setup import StudyViews, load_setup
from automl.study.spaces import list_views
from automl.study.trial import Stop
from automl.study.trial_record import recipe_of
from automl.study.worker import run_worker
from automl.training.evaluation import split_probabilities
from automl.training.metrics import compute_metric
from automl.training.types import expected_input


@pytest.fixture
def robust(new_study):
    study, folder = new_study(trials=1, seed=3, metric="robust_auc")
    setup = load_setup(study, folder)
    return study, folder, setup, StudyViews(setup, "cpu").open_view(list_views(setup.space)[0])


def test_a_trial_is_worth_its_mean_over_degraded_copies(robust):
    study, folder, setup, _ = robust
    assert (setup.metric, setup.objective) == ("auc", "robust_auc")
    run_worker(study, folder, "cpu", Stop())
    (trial,) = study.trials
    assert trial.state == TrialState.COMPLETE
    degraded = trial.user_attrs["degraded"]
    assert list(degraded) == [one.name for one in load_degradations(medium="image")]
    assert trial.value == pytest.approx(np.mean(list(degraded.values())), abs=1e-6)
    assert trial.user_attrs["metrics"]["robust_auc"] == pytest.approx(trial.value, abs=1e-6)
    assert trial.intermediate_values[8] == pytest.approx(trial.user_attrs["metrics"]["auc"], abs=1e-6)  # until the end
    assert trial.user_attrs["spent"]["robust_seconds"] > 0
    assert not [*folder.path.glob("trials/*/last.pt")]  # the value of another trial is not of the same
    assert find_front(study, "auc") == [(0, trial.user_attrs["metrics"]["auc"], pytest.approx(trial.value, abs=1e-6))]


def test_each_degradation_has_samples_of_its_own(robust):
    *_, setup, data = robust
    view, degradations = list_views(setup.space)[0], load_degradations(medium="image")
    degraded, names, positions = degrade_validation(data, 6, view)
    table = degraded.samples.samples.assign(degradation=names, position=positions)
    copies = table[table["split"] == "validation"]
    assert len(copies) == 6 * len(degradations)
    assert not set(copies["path"]) & set(data.samples.samples["path"])
    sources = data.samples.samples.iloc[data.rows("validation")]
    assert copies["name"].tolist() == sources["name"].iloc[copies["position"]].tolist()
    drawn = set()
    for _, part in copies.groupby("degradation"):
        assert Counter(part["label"].tolist()) == {0: 3, 1: 3}
        drawn.add(tuple(part["position"]))
    assert len(drawn) > len(degradations) / 2
    again = degrade_validation(data, 6, view)[2]
    assert again.tolist() == positions.tolist()


def test_a_score_is_what_a_degradation_takes_from_all_clean_samples(robust):
    study, folder, _, data = robust
    run_worker(study, folder, "cpu", Stop())
    recipe = recipe_of(study.trials[0])
    model = make_model(recipe, 2)
    trained = TrainedNetwork(model, expected_input(model, recipe, data))
    clean = split_probabilities(model, recipe, data, "validation", trained.preprocessing, "cpu")
    scores = score_robustness(trained, recipe, data, clean, "cpu", 8)
    degraded, names, positions = degrade_validation(data, 8, recipe.view)
    probabilities = split_probabilities(model, recipe, degraded, "validation", trained.preprocessing, "cpu")
    rows = degraded.rows("validation")
    chosen = names[rows] == "blur-2"
    labels, positive = degraded.labels("validation")[chosen], data.positive
    after = compute_metric("auc", labels, probabilities[chosen], positive)
    before = compute_metric("auc", labels, clean[positions[rows[chosen]]], positive)
    whole = compute_metric("auc", data.labels("validation"), clean, positive)
    assert scores["blur-2"] == pytest.approx(np.clip(whole + after - before, 0, 1))


def test_copies_of_all_samples_give_the_auc_itself(robust):
    *_, setup, data = robust
    recipe = Recipe(backbone="test_resnet", image_size=32)
    model = make_model(recipe, 2)
    trained = TrainedNetwork(model, expected_input(model, recipe, data))
    clean = split_probabilities(model, recipe, data, "validation", trained.preprocessing, "cpu")
    scores = score_robustness(trained, recipe, data, clean, "cpu", 10**6)
    degraded, names, _ = degrade_validation(data, 10**6, list_views(setup.space)[0])
    probabilities = split_probabilities(model, recipe, degraded, "validation", trained.preprocessing, "cpu")
    for name, score in scores.items():
        chosen = names[degraded.rows("validation")] == name
        labels = degraded.labels("validation")[chosen]
        assert score == pytest.approx(compute_metric("auc", labels, probabilities[chosen], data.positive))


def test_the_cost_decides_how_many_samples(robust):
    *_, setup, _ = robust
    assert plan_samples(setup, list_views(setup.space)[0]) == 40  # the fewest: it is a tiny data set


def test_the_front_holds_what_no_other_trial_beats_in_both():
    study = optuna.create_study(direction="maximize")
    for clean, robust in ((0.9, 0.80), (0.95, 0.70), (0.85, 0.75), (0.95, 0.60), (0.97, 0.65)):
        study.add_trial(create_trial(value=robust, user_attrs={"metrics": {"auc": clean, "robust_auc": robust}}))
    assert find_front(study, "auc") == [(0, 0.9, 0.8), (1, 0.95, 0.7), (4, 0.97, 0.65)]


def test_a_confirmation_chooses_by_robustness_where_it_was_measured():
    values = {"trial": 0, "search_value": 0.9, "seeds": (1,), "validation": (0.9,), "recipe": {"backbone": "resnet18"}}
    plain = Candidate(mean=0.9, predictions=("a",), **values)
    assert rank_candidate(plain, 1) == 0.9
    assert rank_candidate(plain, -1) == -0.9
    assert rank_candidate(plain.model_copy(update={"robust": (0.6, 0.8)}), -1) == pytest.approx(0.7)
