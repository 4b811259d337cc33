"""What a search shows of its workers."""

import socket
from types import SimpleNamespace

import optuna
import pytest

from automl.cli.study_progress import describe_totals, read_progress, read_workers
from automl.study.claims import WorkerRow, open_claims
from automl.study.storage import open_storage


@pytest.mark.parametrize(("ended", "says"), [(False, " · trial 0 features, 48 of 48 images"), (True, "")])
def test_what_a_worker_does_is_shown_while_its_trial_runs(tmp_path, ended, says):
    study = optuna.create_study(direction="maximize", storage=open_storage(f"sqlite:///{tmp_path}/study.db"))
    trial, claims = study.ask(), open_claims(study)
    claims.take(trial._trial_id, "a", None)
    doing = {"trial": 0, "epoch": 0.0, "doing": "features, 48 of 48 images"}
    claims.join(WorkerRow("a", 1, socket.gethostname(), "cpu", doing))
    claims.join(WorkerRow("b", 1, socket.gethostname(), "cpu", doing))  # a dead one, whose trial was taken over
    if ended:
        study.tell(trial, state=optuna.trial.TrialState.FAIL)
    result = SimpleNamespace(study=study, metric="auc", trials_wanted=3, claims=claims)
    assert describe_totals(read_progress(result, None, False)) == f"{int(ended)} of 3 trials{says}"


def test_a_worker_of_another_machine_is_shown_with_its_name(tmp_path):
    study = optuna.create_study(storage=open_storage(f"sqlite:///{tmp_path}/study.db"))
    trial, claims = study.ask(), open_claims(study)
    claims.take(trial._trial_id, "a", None)
    claims.join(WorkerRow("a", 1, "node7", "cuda:0", {"trial": 0, "epoch": 1.5}))
    (worker,) = read_workers(SimpleNamespace(claims=claims))
    assert (worker.device, worker.trial, worker.epoch) == ("node7 cuda:0", 0, 1.5)


def test_while_the_storage_is_away_no_worker_is_shown(tmp_path):
    study = optuna.create_study(storage=open_storage(f"sqlite:///{tmp_path}/study.db"))
    claims = open_claims(study)
    (tmp_path / "study.db").unlink()
    study._storage.remove_session()
    claims._engine.dispose()
    assert read_workers(SimpleNamespace(claims=claims)) == []
