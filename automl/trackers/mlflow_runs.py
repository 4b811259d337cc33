"""MLflow: an experiment of the study's name, a run a trial.

https://mlflow.org/docs/latest/api_reference/python_api/mlflow.client.html. Without `MLFLOW_TRACKING_URI` the runs are
in an SQLite file beside the studies, as MLflow 3 keeps them by default: it refuses its folders of files.
"""

import logging
import os
import time
from itertools import islice
from pathlib import Path
from typing import Any

from automl.trackers.tracker import TrialLog

_STATUS = {"complete": "FINISHED", "pruned": "KILLED", "failed": "FAILED"}
_PARAMS_AT_ONCE, _VALUE = 100, 6000
"""What MLflow takes: parameters in a call, and characters of one."""


class MlflowTracker:
    """Logs trials to MLflow."""

    def __init__(self, study: str, folder: Path) -> None:
        """Opens or makes the experiment; `folder` is that of the study."""
        from mlflow import MlflowClient

        for name in ("mlflow", "alembic"):  # they tell of each table that they make
            logging.getLogger(name).setLevel(logging.WARNING)
        given = os.environ.get("MLFLOW_TRACKING_URI")
        runs = folder.absolute().parent
        self._uri = given or f"sqlite:///{runs / 'mlflow.db'}"
        self._client: Any = MlflowClient(tracking_uri=self._uri)
        known = self._client.get_experiment_by_name(study)
        location = (
            None if given else (runs / "mlartifacts").as_uri()
        )  # else a folder mlruns where the command was given
        self._experiment = known.experiment_id if known else self._client.create_experiment(study, location)

    def log_trial(self, trial: TrialLog, run: str, after: int) -> str:
        """Logs the new validations, and with the end of the trial its last metrics, and the run's status."""
        from mlflow.entities import Metric, Param, RunTag

        tags = [RunTag(name, value[:_VALUE]) for name, value in trial.tags.items()]
        if not run:
            started = self._client.create_run(self._experiment, int(trial.started * 1000), run_name=trial.name)
            run = str(started.info.run_id)
        params = iter(Param(name, str(value)[:_VALUE]) for name, value in trial.params.items())
        while part := list(islice(params, _PARAMS_AT_ONCE)):
            self._client.log_batch(run, params=part)
        now = int((trial.ended or time.time()) * 1000)
        metrics = [
            Metric(name, value, now, step)
            for step, values in sorted(trial.curve.items())
            if step > after
            for name, value in values.items()
        ]
        metrics += [Metric(name, value, now, trial.last_step) for name, value in trial.final.items()]
        self._client.log_batch(run, metrics=metrics, tags=tags)
        if trial.ended is not None:
            self._client.set_terminated(run, _STATUS[trial.tags["state"]], int(trial.ended * 1000))
        return run

    def mark_best(self, run: str, former: str) -> None:
        """Sets the tag `best` of one run alone."""
        if former:
            self._client.set_tag(former, "best", "false")
        self._client.set_tag(run, "best", "true")

    def close(self) -> None:
        """Does nothing: each call has written."""

    def describe(self) -> str:
        """Describes where the runs are."""
        return f"mlflow: {self._uri}; mlflow ui --backend-store-uri {self._uri}"
