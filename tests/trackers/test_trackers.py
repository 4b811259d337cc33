"""Each tracker writes for real, without a network, and what it wrote is read back."""

import json
import sys
from dataclasses import replace

import pytest

from automl.errors import SpecError
from automl.trackers.registry import TRACKERS, check_trackers
from automl.trackers.tracker import TrialLog, flatten
from tests.fixtures.wandb_files import read_records

pytestmark = pytest.mark.filterwarnings("ignore")  # what other packages warn of

BEGUN = TrialLog(
    number=3,
    params={"backbone": "resnet18", "optimizer.name": "sgd", "learning_rate": 0.01, "pretrained": True},
    tags={"state": "running", "backbone": "resnet18"},
    started=1000.0,
    curve={4: {"auc": 0.7, "epoch": 1.0}},
)
ENDED = replace(
    BEGUN,
    tags={"state": "complete", "backbone": "resnet18"},
    ended=1060.0,
    curve=BEGUN.curve | {8: {"auc": 0.8, "epoch": 2.0}},
    final={"auc": 0.8, "accuracy": 0.75},
)
PRUNED = TrialLog(4, {"backbone": "b"}, {"state": "pruned", "reason": "auc 0.5 is behind"}, 1000.0, 1010.0)
FAILED = TrialLog(5, {}, {"state": "failed", "reason": "no such file"}, 1000.0, 1001.0)


def log_three_trials(name, folder):
    """Logs as a search does: a trial in two parts, in the second of which another one is better; returns the runs."""
    tracker = TRACKERS[name]("faces", folder)
    runs = [tracker.log_trial(BEGUN, "", 0)]
    assert tracker.log_trial(ENDED, runs[0], 4) == runs[0]
    runs += [tracker.log_trial(PRUNED, "", 0), tracker.log_trial(FAILED, "", 0)]
    tracker.mark_best(runs[0], "")
    better = replace(ENDED, number=6, final={"auc": 0.9})
    runs.append(tracker.log_trial(better, "", 0))
    tracker.mark_best(runs[3], runs[0])
    tracker.close()
    return runs


@pytest.mark.slow
@pytest.mark.parametrize("store", ["sqlite", "given"])
def test_mlflow_has_a_run_for_each_trial(tmp_path, monkeypatch, store):
    mlflow = pytest.importorskip("mlflow", reason="needs the extra mlflow")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    uri = f"sqlite:///{tmp_path / 'runs' / 'mlflow.db'}"
    (tmp_path / "runs" / "faces").mkdir(parents=True)
    if store == "given":
        uri = f"sqlite:///{tmp_path / 'elsewhere.db'}"
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    runs = log_three_trials("mlflow", tmp_path / "runs" / "faces")
    client = mlflow.MlflowClient(uri)
    experiment = client.get_experiment_by_name("faces")
    written = {run.info.run_id: run for run in client.search_runs([experiment.experiment_id])}
    assert set(written) == set(runs)
    first = written[runs[0]]
    assert (first.info.run_name, first.info.status, first.info.start_time, first.info.end_time) == (
        *("trial 3", "FINISHED"),
        *(1_000_000, 1_060_000),
    )
    assert first.data.params == {
        "backbone": "resnet18", "optimizer.name": "sgd", "learning_rate": "0.01", "pretrained": "True"
    }  # fmt: skip
    assert first.data.metrics == {"auc": 0.8, "epoch": 2.0, "accuracy": 0.75}
    curve = {(one.step, one.value) for one in client.get_metric_history(runs[0], "auc")}
    assert curve == {(4, 0.7), (8, 0.8)}
    assert [written[run].info.status for run in runs] == ["FINISHED", "KILLED", "FAILED", "FINISHED"]
    assert written[runs[1]].data.tags["reason"] == "auc 0.5 is behind"
    assert [written[run].data.tags.get("best") for run in runs] == ["false", None, None, "true"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["elsewhere.db"] * (store == "given") + ["runs"]


@pytest.mark.slow
def test_wandb_writes_a_run_for_each_trial_offline(tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb", reason="needs the extra wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    folder = tmp_path / "runs" / "faces"
    folder.mkdir(parents=True)
    runs = log_three_trials("wandb", folder)
    wandb.teardown()  # else a file may not have its end yet
    files = {path.stem.removeprefix("run-"): path for path in folder.glob("wandb/offline-run-*/*.wandb")}
    assert set(files) == set(runs)
    records = {run: read_records(path) for run, path in files.items()}
    started = next(one.run for one in records[runs[0]] if one.WhichOneof("record_type") == "run")
    assert (started.project, started.display_name) == ("faces", "trial 3")
    config = read_last(records[runs[0]], "config")
    assert config["optimizer.name"] == "sgd"
    assert config["backbone"] == "resnet18"
    history = [
        {item.key or item.nested_key[0]: json.loads(item.value_json) for item in one.history.item}
        for one in records[runs[0]]
        if one.WhichOneof("record_type") == "history"
    ]
    assert [(row["_step"], row["auc"], row["epoch"]) for row in history] == [(4, 0.7, 1.0), (8, 0.8, 2.0)]
    assert read_last(records[runs[0]], "summary")["accuracy"] == 0.75
    assert read_last(records[runs[1]], "summary")["reason"] == "auc 0.5 is behind"
    exits = [next(o.exit.exit_code for o in records[run] if o.WhichOneof("record_type") == "exit") for run in runs]
    assert exits == [0, 0, 1, 0]
    assert [read_last(records[run], "summary")["best"] for run in runs] == [False, False, False, True]


def read_last(records, kind):
    """Reads the last value of each key of `config` or `summary`."""
    values = {}
    for one in records:
        if one.WhichOneof("record_type") == kind:
            for item in getattr(one, kind).update:
                values[item.key or item.nested_key[0]] = json.loads(item.value_json)
    return values


def test_tensorboard_has_a_folder_for_each_trial(tmp_path):
    pytest.importorskip("tensorboard", reason="needs the extra tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = tmp_path / "runs" / "faces"
    runs = log_three_trials("tensorboard", folder)
    assert sorted(path.name for path in (folder / "tensorboard").iterdir()) == ["study", *sorted(runs)]
    events = EventAccumulator(str(folder / "tensorboard" / "trial-0003"))
    events.Reload()
    assert [(event.step, round(event.value, 6)) for event in events.Scalars("auc")] == [(4, 0.7), (8, 0.8)]
    assert [round(event.value, 6) for event in events.Scalars("final/accuracy")] == [0.75]
    assert {"state/text_summary", "_hparams_/session_start_info"} <= set(events.summary_metadata)
    study = EventAccumulator(str(folder / "tensorboard" / "study"))
    study.Reload()
    [first, last] = study.Tensors("best trial/text_summary")
    assert last.tensor_proto.string_val[0] == b"trial-0006, before: trial-0003"
    assert (first.step, last.step) == (3, 6)


@pytest.mark.parametrize("name", TRACKERS)
def test_a_tracker_that_is_not_installed_is_named_before_the_search(tmp_path, monkeypatch, name):
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, name, raising=False)
    (tmp_path / name).mkdir()  # W&B makes a folder of its own name where it is used
    with pytest.raises(SpecError, match=rf"--log {name} needs .* pip install 'automl-timm\[{name}\]'"):
        check_trackers([name])


def test_a_recipe_becomes_flat():
    nested = {"optimizer": {"name": "sgd", "momentum": 0.9}, "clip": None, "restarts": [0.5], "pretrained": True}
    assert flatten(nested) == {
        "optimizer.name": "sgd", "optimizer.momentum": 0.9, "restarts": "[0.5]", "pretrained": True
    }  # fmt: skip
