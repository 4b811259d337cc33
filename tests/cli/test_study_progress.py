"""What a search shows of its workers."""

import json
from types import SimpleNamespace

import optuna
import pytest

from automl.cli.study_progress import describe_totals, read_progress
from automl.study.folder import StudyFolder


@pytest.mark.parametrize(("ended", "says"), [(False, " · trial 0 features, 48 of 48 images"), (True, "")])
def test_what_a_worker_does_is_shown_while_its_trial_runs(tmp_path, ended, says):
    study, folder = optuna.create_study(direction="maximize"), StudyFolder(tmp_path / "s")
    trial = study.ask()
    if ended:
        study.tell(trial, state=optuna.trial.TrialState.FAIL)
    (folder.path / "workers").mkdir(parents=True)
    written = {"trial": 0, "epoch": 0.0, "doing": "features, 48 of 48 images"}
    (folder.path / "workers" / "cpu.json").write_text(json.dumps(written))
    result = SimpleNamespace(study=study, folder=folder, metric="auc", trials_wanted=3)
    assert describe_totals(read_progress(result, None, False)) == f"{int(ended)} of 3 trials{says}"
