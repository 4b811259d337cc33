import threading

import pytest
from optuna.trial import TrialState

from automl.recipe import Recipe
from automl.study import tracking
from automl.study.setup import load_setup
from automl.study.tracking import StudyLog
from tests.fixtures.studies import setup_without_files


class Recorder:
    """A tracker that keeps what it is given."""

    def __init__(self, study, folder):
        self.calls = CALLS
        self.calls.append(("open", study))

    def log_trial(self, trial, run, after):
        self.calls.append(("log", trial.number, trial.tags["state"], sorted(s for s in trial.curve if s > after)))
        return run or f"run-{trial.number}"

    def mark_best(self, run, former):
        self.calls.append(("best", run, former))

    def close(self):
        self.calls.append(("close",))

    def describe(self):
        return "recorder: in memory"


CALLS = []


@pytest.fixture
def begun(new_study, monkeypatch):
    """A study with a tracker in memory → (study, a function that logs it as a search does, lines printed)."""
    CALLS.clear()
    monkeypatch.setitem(tracking.TRACKERS, "mlflow", Recorder)
    study, folder = new_study()
    lines = []

    def log(*changes):
        """Opens the log, makes each change while it is open, and closes it; returns the calls since."""
        CALLS.clear()
        opened = StudyLog(["mlflow"], study, folder, load_setup(study, folder), lines.append)
        for change in changes:
            change()
            opened._log_news()
        opened.close()
        return list(CALLS)

    log.folder = folder
    return study, log, lines


def add_trial(study, value=None, state="complete", steps=(4, 8)):
    trial = study.ask()
    recipe = Recipe(backbone="test_byobnet.r160_in1k", learning_rate=1e-3)
    trial.set_user_attr("recipe", recipe.model_dump_json())
    trial.set_user_attr("epochs", 2.0)
    trial.set_user_attr("metrics", {"auc": value, "accuracy": 0.5})
    for step in steps:
        trial.report(0.5 + step / 100, step)
    if state == "complete":
        study.tell(trial, value)
    return trial


def test_trials_are_logged_once_and_the_best_is_marked(begun):
    study, log, lines = begun
    first = log(lambda: add_trial(study, 0.8), lambda: add_trial(study, 0.9))
    assert first == [
        ("open", "tones"),
        *[("log", 0, "complete", [4, 8]), ("best", "run-0", "")],
        *[("log", 1, "complete", [4, 8]), ("best", "run-1", "run-0")],
        ("close",),
    ]
    assert lines == ["log: recorder: in memory"]
    assert log(lambda: add_trial(study, 0.7)) == [
        *[("open", "tones"), ("log", 2, "complete", [4, 8])],  # the study is continued
        ("close",),
    ]


def test_a_trial_is_logged_as_it_goes(begun):
    study, log, _ = begun
    trials = []
    calls = log(
        lambda: trials.append(add_trial(study, state="running", steps=(1,))),
        lambda: None,
        lambda: trials[0].report(0.7, 4),
        lambda: study.tell(trials[0], 0.7),
    )
    logs = [call for call in calls if call[0] == "log"]
    assert logs == [("log", 0, "running", [1]), ("log", 0, "running", [4]), ("log", 0, "complete", [])]


def test_what_is_logged_of_a_trial(begun):
    study, _, _ = begun
    add_trial(study, 0.8)
    pruned = add_trial(study, 0.6, state="running")
    pruned.set_user_attr("reason", "auc 0.6 is behind")
    study.tell(pruned, state=TrialState.PRUNED)
    first, second = (tracking.describe_trial(trial, setup_without_files()) for trial in study.trials)
    assert first.params["backbone"] == "test_byobnet.r160_in1k"
    assert first.params["optimizer.name"] == "adamw"
    assert first.curve == {4: {"auc": 0.54, "epoch": 1.0}, 8: {"auc": 0.58, "epoch": 2.0}}
    assert first.final == {"auc": 0.8, "accuracy": 0.5}
    assert first.started < first.ended
    assert (second.tags["state"], second.tags["reason"], second.final) == ("pruned", "auc 0.6 is behind", {})


def test_a_tracker_that_fails_is_one_warning(begun, monkeypatch):
    study, log, lines = begun

    def fail(*_):
        raise ConnectionError("no route to the server\nand more")

    monkeypatch.setattr(Recorder, "log_trial", fail)
    log(lambda: add_trial(study, 0.8), lambda: add_trial(study, 0.9))
    assert lines[1:] == [
        "warning: --log mlflow: no route to the server; nothing more is logged there, and the same command logs what "
        "is missing"
    ]


def test_a_tracker_that_hangs_is_not_waited_for(begun, monkeypatch):
    study, log, lines = begun
    free = threading.Event()
    monkeypatch.setattr(tracking, "_END_SECONDS", 0.2)
    monkeypatch.setattr(Recorder, "close", lambda _: free.wait(20))
    log(lambda: add_trial(study, 0.8))
    free.set()
    assert "not done after 0 s; not waited for any longer" in lines[-1]


@pytest.mark.parametrize(
    "text", ["", "[]", '{"mlflow": {"trials": 3}}', '{"mlflow": {"trials": {"x": {}}, "best": 1}}']
)
def test_a_list_of_logged_trials_that_is_damaged_is_as_none(begun, text):
    study, log, lines = begun
    log(lambda: add_trial(study, 0.8))
    log.folder.logged.write_text(text)
    assert ("log", 0, "complete", [4, 8]) in log(lambda: None)
    assert not any("warning" in line for line in lines)
