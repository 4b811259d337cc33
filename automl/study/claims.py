"""Claims: which worker has which trial, kept beside the study, so that workers on any number of machines agree.

No lock is held across machines. A new trial is created and claimed in one transaction, which is rolled back if the
study had enough trials already; a trial is taken over by a compare-and-swap of its claim. What must be unique is
decided by the database alone, and a worker that was cut off in the middle leaves nothing that another one waits for.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sql
from optuna.study import Study
from optuna.trial import FrozenTrial
from sqlalchemy.exc import IntegrityError

from automl.errors import StudyError
from automl.files import write_text
from automl.study.storage import Database, Journal, Patience, StudyFull, hold_journal, repeat_until_answered

_TABLES = sql.MetaData()
_WORKERS = sql.Table(
    "automl_workers",
    _TABLES,
    sql.Column("worker", sql.String(32), primary_key=True),
    sql.Column("study_id", sql.Integer, nullable=False, index=True),
    sql.Column("beat", sql.Integer, nullable=False),
    sql.Column("host", sql.String(255), nullable=False),
    sql.Column("label", sql.String(64), nullable=False),
    sql.Column("doing", sql.Text, nullable=False),
)
_CLAIMS = sql.Table(
    "automl_claims",
    _TABLES,
    sql.Column("trial_id", sql.Integer, primary_key=True, autoincrement=False),
    sql.Column("study_id", sql.Integer, nullable=False, index=True),
    sql.Column("worker", sql.String(32), nullable=False),
)


@dataclass(frozen=True)
class WorkerRow:
    """A worker, as it shows itself."""

    worker: str
    """Its random name; a process that replaces it has another one."""
    beat: int
    """Counted up every few seconds while it lives."""
    host: str
    label: str
    """Its device, with a number where several share one."""
    doing: dict[str, Any] = field(default_factory=dict)
    """What it does now: `trial`, `epoch`, `value`, or `doing` in words."""


@dataclass(frozen=True)
class Snapshot:
    """Who works on a study now."""

    workers: dict[str, WorkerRow]
    """By their names."""
    claims: dict[int, str]
    """The worker that has each trial, by the trial's id in the storage."""


class Claims(ABC):
    """The claims of one study."""

    def __init__(self, study: Study) -> None:
        self._study_id = study._study_id
        self.patience: Patience = getattr(study._storage, "patience", Patience())

    @repeat_until_answered
    def join(self, row: WorkerRow) -> None:
        """Adds a worker."""
        self.beat(row)

    @abstractmethod
    def leave(self, worker: str) -> None:
        """Removes a worker and all its claims."""

    @abstractmethod
    def beat(self, row: WorkerRow) -> None:
        """Writes that a worker lives, and what it does; is not waited for.

        One that was taken for dead, and is not, is added again.
        """

    @abstractmethod
    def read(self) -> Snapshot:
        """Reads who works on the study; is not waited for."""

    @abstractmethod
    def take(self, trial_id: int, worker: str, owner: str | None) -> bool:
        """Takes a trial from its owner (None: it has none); returns whether nobody else was faster."""

    @abstractmethod
    def drop(self, trial_id: int, worker: str) -> None:
        """Gives a trial back."""

    @abstractmethod
    def begin(self, worker: str, limit: int, template: FrozenTrial | None = None) -> int | None:
        """Creates a trial that is running and claimed.

        Args:
            worker: Who has it.
            limit: Trials that the study may have.
            template: What it is like; None: it has no parameters yet.

        Returns:
            Its id in the storage; None where the study has as many trials as it may have.
        """


def open_claims(study: Study) -> Claims:
    """Opens the claims of a study, wherever it is stored."""
    storage = study._storage
    if isinstance(storage, Database):
        return _TableClaims(study, storage)
    if isinstance(storage, Journal):
        return _FileClaims(study, storage)
    raise StudyError(f"workers cannot share a {type(storage).__name__}; open the study with automl's open_study")


# --- databases ----------------------------------------------------------------------------------------------------


class _TableClaims(Claims):
    """Claims in two tables of the study's database."""

    def __init__(self, study: Study, storage: Database) -> None:
        super().__init__(study)
        self._storage, self._engine = storage, storage.engine
        self._make_tables()

    @repeat_until_answered
    def _make_tables(self) -> None:
        self._storage.make_tables(_TABLES)

    @repeat_until_answered
    def leave(self, worker: str) -> None:
        """Removes a worker and all its claims."""
        with self._engine.begin() as connection:
            connection.execute(sql.delete(_CLAIMS).where(_CLAIMS.c.worker == worker))
            connection.execute(sql.delete(_WORKERS).where(_WORKERS.c.worker == worker))

    def beat(self, row: WorkerRow) -> None:
        """Writes that a worker lives, and what it does; is not waited for."""
        columns = _to_columns(row)
        same = sql.update(_WORKERS).where(_WORKERS.c.worker == row.worker)
        with self._engine.begin() as connection:
            if connection.execute(same.values(**columns)).rowcount == 0:
                connection.execute(sql.insert(_WORKERS).values(study_id=self._study_id, **columns))

    def read(self) -> Snapshot:
        """Reads who works on the study; is not waited for."""
        with self._engine.connect() as connection:
            rows = connection.execute(sql.select(_WORKERS).where(_WORKERS.c.study_id == self._study_id)).all()
            claims = sql.select(_CLAIMS.c.trial_id, _CLAIMS.c.worker).where(_CLAIMS.c.study_id == self._study_id)
            owners = {row.trial_id: row.worker for row in connection.execute(claims)}
        workers = {row.worker: _to_row(row._asdict()) for row in rows}
        return Snapshot(workers, owners)

    @repeat_until_answered
    def take(self, trial_id: int, worker: str, owner: str | None) -> bool:
        """Takes a trial from its owner (None: it has none); returns whether nobody else was faster."""
        with self._engine.begin() as connection:
            if owner is not None:
                ours = (_CLAIMS.c.trial_id == trial_id) & _CLAIMS.c.worker.in_((owner, worker))
                taken = connection.execute(sql.update(_CLAIMS).where(ours).values(worker=worker))
                return taken.rowcount == 1
        with self._engine.connect() as connection:
            try:
                connection.execute(self._claim(trial_id, worker))
                connection.commit()
            except IntegrityError:  # somebody has it: perhaps we, if only the answer to the first try was lost
                connection.rollback()
                has = sql.select(_CLAIMS.c.worker).where(_CLAIMS.c.trial_id == trial_id)
                return connection.execute(has).scalar() == worker
        return True

    @repeat_until_answered
    def drop(self, trial_id: int, worker: str) -> None:
        """Gives a trial back."""
        ours = (_CLAIMS.c.trial_id == trial_id) & (_CLAIMS.c.worker == worker)
        with self._engine.begin() as connection:
            connection.execute(sql.delete(_CLAIMS).where(ours))

    def begin(self, worker: str, limit: int, template: FrozenTrial | None = None) -> int | None:
        """Creates a trial that is running and claimed."""

        def guard(connection: sql.Connection, trial_id: int, number: int) -> None:
            if number >= limit:
                raise StudyFull
            # A database gives the id of a trial that was deleted, or whose creation was rolled back, once more.
            connection.execute(sql.delete(_CLAIMS).where(_CLAIMS.c.trial_id == trial_id))
            connection.execute(self._claim(trial_id, worker))

        with self._storage.guard_creation(guard):
            try:
                return self._storage.create_new_trial(self._study_id, template)
            except StudyFull:
                return None

    def _claim(self, trial_id: int, worker: str) -> sql.Insert:
        return sql.insert(_CLAIMS).values(trial_id=trial_id, study_id=self._study_id, worker=worker)


def _to_columns(row: WorkerRow) -> dict[str, Any]:
    return {**vars(row), "host": row.host[:255], "label": row.label[:64], "doing": json.dumps(row.doing)}


def _to_row(columns: dict[str, Any]) -> WorkerRow:
    values = {name: columns[name] for name in ("worker", "beat", "host", "label")}
    return WorkerRow(**values, doing=json.loads(columns["doing"]))


# --- journals -----------------------------------------------------------------------------------------------------


class _FileClaims(Claims):
    """Claims in a folder beside a journal; each change holds a lock that works on network file systems, too."""

    def __init__(self, study: Study, storage: Journal) -> None:
        super().__init__(study)
        self._storage = storage
        self._folder = storage.folder_of(self._study_id)
        self._lock = self._folder / "claims"  # whoever waits for the lock looks whether this file changes: never
        self._folder.mkdir(parents=True, exist_ok=True)
        self._lock.touch()

    @contextmanager
    def _change(self) -> Iterator[dict[int, str]]:
        """Gives the claims to be changed, and writes them."""
        with hold_journal(self._lock):
            claims = self._read_claims()
            before = dict(claims)
            yield claims
            if claims != before:
                write_text(self._folder / "claims.json", json.dumps(claims))

    def _read_claims(self) -> dict[int, str]:
        try:
            text = (self._folder / "claims.json").read_text(encoding="utf-8")
        except FileNotFoundError:
            return {}
        return {int(trial): str(worker) for trial, worker in json.loads(text).items()}

    @repeat_until_answered
    def leave(self, worker: str) -> None:
        """Removes a worker and all its claims."""
        with self._change() as claims:
            for trial in [trial for trial, owner in claims.items() if owner == worker]:
                del claims[trial]
        (self._folder / f"{worker}.worker").unlink(missing_ok=True)

    def beat(self, row: WorkerRow) -> None:
        """Writes that a worker lives, and what it does; is not waited for."""
        write_text(self._folder / f"{row.worker}.worker", json.dumps(_to_columns(row)))

    def read(self) -> Snapshot:
        """Reads who works on the study; is not waited for."""
        workers = {}
        for path in self._folder.glob("*.worker"):
            try:
                workers[path.stem] = _to_row(json.loads(path.read_text(encoding="utf-8")))
            except (OSError, ValueError):  # it has just left
                continue
        return Snapshot(workers, self._read_claims())

    @repeat_until_answered
    def take(self, trial_id: int, worker: str, owner: str | None) -> bool:
        """Takes a trial from its owner (None: it has none); returns whether nobody else was faster."""
        with self._change() as claims:
            free = claims.get(trial_id) in (owner, worker)
            if free:
                claims[trial_id] = worker
        return free

    @repeat_until_answered
    def drop(self, trial_id: int, worker: str) -> None:
        """Gives a trial back."""
        with self._change() as claims:
            if claims.get(trial_id) == worker:
                del claims[trial_id]

    @repeat_until_answered
    def begin(self, worker: str, limit: int, template: FrozenTrial | None = None) -> int | None:
        """Creates a trial that is running and claimed."""
        with self._change() as claims:
            if len(self._storage.get_all_trials(self._study_id, deepcopy=False)) >= limit:
                return None
            trial_id = self._storage.create_new_trial(self._study_id, template)
            claims[trial_id] = worker
        return trial_id
