from optuna.trial import TrialState, create_trial

from automl.space.space import parse_space
from automl.study.artifacts import Artifacts
from automl.study.setup import create_study
from automl.study.trial import TrialResult
from automl.study.trial_record import read_trial_record, trial_rows, trials_table
from automl.study.worker import _end_trial
from tests.fixtures.studies import SPACE, folder_of, setup_without_files, spec_without_files


def test_a_row_says_how_far_a_trial_came():
    trials = [
        create_trial(state=TrialState.PRUNED, value=None, intermediate_values={1: 0.5, 4: 0.4}),
        create_trial(state=TrialState.COMPLETE, value=0.7, intermediate_values={1: 0.5, 8: 0.7}),
        create_trial(state=TrialState.RUNNING),
        create_trial(state=TrialState.FAIL, user_attrs={"error": "no such file"}),
        create_trial(state=TrialState.WAITING),
    ]
    for number, trial in enumerate(trials):
        trial.number = number
    rows = trial_rows(trials[::-1])
    assert [row.state for row in rows] == ["pruned", "complete", "running", "failed"]
    assert [row.value for row in rows] == [0.4, 0.7, None, None]
    assert [row.best_value for row in rows[:2]] == [0.5, 0.7]
    assert trial_rows(trials, maximize=False)[0].best_value == 0.4
    assert trial_rows(trials, running="unfinished")[2].state == "unfinished"
    assert rows[3].reason == "no such file"


def test_what_a_trial_spent_is_read_of_studies_of_earlier_versions_too():
    then, now = {"epochs_done": 1.5, "fit_seconds": 20.0}, {"epochs_done": 3.0, "fit_seconds": 40.0}
    assert spent_of({}) == {}
    assert spent_of(then | {"backbone": "resnet18"}) == then
    assert spent_of({"spent": now}) == now
    assert spent_of(then | {"spent": now}) == now  # begun with the earlier version, and gone on with this one
    rows = [_row_of(then), _row_of({"spent": now}), _row_of({})]
    assert [row.epochs_done for row in rows] == [1.5, 3.0, 0.0]


def spent_of(user_attrs):
    return read_trial_record(create_trial(state=TrialState.PRUNED, user_attrs=user_attrs)).spent


def _row_of(user_attrs):
    return trial_rows([create_trial(state=TrialState.PRUNED, user_attrs=user_attrs)])[0]


def test_the_table_has_parameters_as_recipes_have_them(tmp_path):
    folder = folder_of(tmp_path)
    study = create_study(folder, spec_without_files(sampler="random"), setup_without_files())
    space = parse_space(SPACE)
    for _ in range(4):
        trial = study.ask()
        space.suggest_recipe(trial, backbones=3, self_blend=False)
        trial.set_user_attr("metrics", {"auc": 0.6, "f1": 0.5})
        _end_trial(study, Artifacts(folder), trial, TrialResult(TrialState.COMPLETE, 0.6))
    table = trials_table(study, space)
    assert list(table["number"]) == [0, 1, 2, 3]
    assert set(table["param.ema_decay"]) <= {0.0, 0.9}
    assert set(table["metric.f1"]) == {0.5}
