import optuna
import pytest

from automl.recipe import Recipe
from automl.study.trial import TrialCallbacks
from automl.study.trial_record import read_trial_record
from automl.training.types import Evaluation

RECIPE = Recipe(backbone="resnet18", epochs=4.0)


def evaluation(eighth, value=0.5):
    return Evaluation(eighth, 10 * eighth, eighth / 2, {"auc": value}, 0.6, 7.0 * eighth, 0.25)


@pytest.fixture
def study(monkeypatch):
    """A study in memory that counts what is written to it."""
    study = optuna.create_study(direction="maximize")
    study.written = []

    def counted(name):
        method = getattr(study._storage, name)

        def write(*args):
            study.written.append(name)
            method(*args)

        monkeypatch.setattr(study._storage, name, write)

    for name in ("set_trial_user_attr", "set_trial_intermediate_value", "set_trial_system_attr"):
        counted(name)
    return study


def callbacks_of(study, trial):
    return TrialCallbacks(trial, study.get_trials(deepcopy=True)[trial.number], RECIPE, "auc", lambda _: None)


def test_an_evaluation_is_one_report_and_one_attribute(study):
    trial = study.ask()
    callbacks = callbacks_of(study, trial)
    for number, eighth in enumerate((1, 2, 4), start=1):
        callbacks.on_evaluation(evaluation(eighth))
        assert len(study.written) == 2 * number
    assert sorted(set(study.written)) == ["set_trial_intermediate_value", "set_trial_user_attr"]
    found = read_trial_record(study.trials[0]).spent
    assert found.pop("fit_seconds") >= 0
    assert found == {"epochs_done": 2.0, "train_seconds": 28.0, "validation_seconds": 0.75}
    assert set(study.trials[0].user_attrs) == {"spent"}


def test_the_most_memory_of_a_gpu_is_kept(study):
    trial, peaks = study.ask(), iter((2e9, 3e9, 1e9))
    frozen = study.get_trials(deepcopy=True)[trial.number]
    read_peak = lambda: next(peaks)  # noqa: E731
    callbacks = TrialCallbacks(trial, frozen, RECIPE, "auc", lambda _: None, read_peak=read_peak)
    for eighth in (1, 2, 4):  # the third is of a process that was started again
        callbacks.on_evaluation(evaluation(eighth))
    assert read_trial_record(study.trials[0]).spent["peak_bytes"] == 3e9


def test_a_trial_taken_up_again_goes_on_counting_and_tells_nothing_twice(study):
    trial = study.ask()
    first = callbacks_of(study, trial)
    for eighth in (1, 2):
        first.on_evaluation(evaluation(eighth))
    trial.set_user_attr("spent", read_trial_record(study.trials[0]).spent | {"fit_seconds": 100.0})
    study.written.clear()
    second = callbacks_of(study, trial)
    for eighth in (1, 2):  # as `fit` tells what lies behind a resumed run
        second.on_evaluation(evaluation(eighth))
    assert not study.written
    second.write_time()
    found = read_trial_record(study.trials[0]).spent
    assert 100 <= found["fit_seconds"] < 110
    assert (found["epochs_done"], found["validation_seconds"]) == (1.0, 0.5)


def test_a_trial_begun_with_an_earlier_version_goes_on_counting(study):
    trial = study.ask()
    for name, value in {"fit_seconds": 50.0, "epochs_done": 1.0, "train_seconds": 14.0}.items():
        trial.set_user_attr(name, value)
    callbacks = callbacks_of(study, trial)
    callbacks.on_evaluation(evaluation(4))
    found = read_trial_record(study.trials[0]).spent
    assert 50 <= found["fit_seconds"] < 60
    assert (found["epochs_done"], found["train_seconds"]) == (2.0, 28.0)
