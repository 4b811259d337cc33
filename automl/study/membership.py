"""A worker among others: its claims, the signs of life that it gives, and those of others that it looks for.

A worker is dead at once where its lock can be taken, on the machine that it ran on. Elsewhere it is dead when its beat
has not changed for a minute, as this process measures minutes: no clock of another machine is read, and one that is
stepped does no harm. After a break of the connection the minute begins anew, because nobody's beat came through.
"""

import os
import socket
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

from filelock import FileLock, Timeout
from optuna.study import Study
from optuna.trial import FrozenTrial

from automl.study.claims import Claims, Snapshot, WorkerRow, open_claims
from automl.study.storage import Database, Patience, StorageLost, repeat_until_answered

SILENT_SECONDS = 60.0
"""A worker of another machine whose beat has not changed for so long is dead."""

_LOCAL_SECONDS, _REMOTE_SECONDS = 1.0, 5.0
"""Between two beats: in a file of this machine, and in a database that many workers share."""


class Watch:
    """Looks at the workers of a study, and knows which of them live."""

    def __init__(self, claims: Claims) -> None:
        self._claims = claims
        self._seen: dict[str, tuple[int, float, int]] = {}
        """Of each worker its last beat, since when it is so, and how often it changed."""
        self._looked = 0.0
        self.snapshot = Snapshot({}, {})

    def look(self) -> Snapshot:
        """Reads who works on the study; raises the storage's error where it does not answer."""
        snapshot, now = self._claims.read(), time.monotonic()
        # After a break, a beat that is the same proves nothing: nobody's came through.
        unbroken = now - self._looked < SILENT_SECONDS / 4
        self._looked = now
        seen = {}
        for name, row in snapshot.workers.items():
            beat, since, changes = self._seen.get(name, (row.beat, now, 0))
            if row.beat != beat:
                seen[name] = (row.beat, now, changes + 1)
            else:
                seen[name] = (beat, since if unbroken else now, changes)
        self._seen, self.snapshot = seen, snapshot
        return snapshot

    def is_dead(self, worker: str) -> bool:
        """Returns whether a worker is known to be dead."""
        if worker not in self.snapshot.workers:
            return True  # it has left
        if (locked := _is_locked(worker)) is not None:
            return not locked
        return time.monotonic() - self._seen[worker][1] >= SILENT_SECONDS

    def is_alive(self, worker: str) -> bool:
        """Returns whether a worker is known to live; of one of another machine that takes some beats."""
        if worker not in self.snapshot.workers:
            return False
        locked = _is_locked(worker)
        return locked if locked is not None else self._seen[worker][2] > 0 and not self.is_dead(worker)


class Membership:
    """One worker of a study: use it as a context.

    A thread of its own gives the signs of life, and looks whether a trial was taken from this worker: then it was
    silent for too long, and must not go on with it.
    """

    def __init__(self, study: Study, label: str) -> None:
        self._claims = open_claims(study)
        self.row = WorkerRow(uuid.uuid4().hex, 0, socket.gethostname(), label)
        self.watch = Watch(self._claims)
        self._lock = FileLock(_lock_file(self.worker, make=True))
        self._wake, self._ended = threading.Event(), threading.Event()
        self._mutex = threading.Lock()
        self._held: int | None = None
        self._lost = False
        self._trains = False
        local = not isinstance(study._storage, Database) or study._storage.engine.dialect.name == "sqlite"
        self._period = _LOCAL_SECONDS if local else _REMOTE_SECONDS
        self._thread = threading.Thread(target=self._show_life, name="beat", daemon=True)

    @property
    def worker(self) -> str:
        """The worker's name."""
        return self.row.worker

    @property
    def patience(self) -> Patience:
        """How the storage is waited for."""
        return self._claims.patience

    @property
    def has_lost(self) -> bool:
        """Whether the trial that it has was taken from it."""
        return self._held is not None and self._lost

    def __enter__(self) -> Self:
        self._lock.acquire()
        self._claims.join(self.row)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Leaves the study. A trial that was not ended is free at once, for whoever comes next."""
        self._ended.set()
        self._wake.set()
        self._thread.join(_REMOTE_SECONDS)
        left = False
        with suppress(StorageLost):  # it has been waited for already
            if kind is None or not issubclass(kind, StorageLost):
                self._claims.leave(self.worker)
                left = True
        self._lock.release()
        if left:  # else the file says to others of this machine that this worker is dead
            Path(self._lock.lock_file).unlink(missing_ok=True)

    @repeat_until_answered
    def look(self) -> Snapshot:
        """Reads who works on the study, waiting for the storage."""
        return self.watch.look()

    def note_progress(self, doing: dict[str, Any]) -> None:
        """Notes what this worker does now; it is shown with the next beat, and at once where it begins to train."""
        trains = "doing" not in doing
        with self._mutex:
            self.row = replace(self.row, doing=doing)
        if trains and not self._trains:
            self._wake.set()
        self._trains = trains

    @contextmanager
    def hold(self, trial_id: int) -> Iterator[None]:
        """Has a trial that was taken or begun, until it is given back at the end."""
        self._held, self._lost = trial_id, False
        try:
            yield
        except StorageLost:
            raise
        except BaseException:
            self.drop_trial(trial_id)
            raise
        else:
            self.drop_trial(trial_id)
        finally:
            self._held = None
            with self._mutex:
                self.row = replace(self.row, doing={})

    def begin_trial(self, limit: int, template: FrozenTrial | None = None) -> int | None:
        """Creates a trial of its own: see `Claims.begin`."""
        return self._claims.begin(self.worker, limit, template)

    def take_trial(self, trial_id: int) -> bool:
        """Takes a trial that nobody has, or whose worker is dead."""
        owner = self.watch.snapshot.claims.get(trial_id)
        if owner is not None and owner != self.worker and not self.watch.is_dead(owner):
            return False
        if not self._claims.take(trial_id, self.worker, owner):
            return False
        if owner is not None and owner != self.worker:
            self._claims.leave(owner)  # what else it had is free
        return True

    def drop_trial(self, trial_id: int) -> None:
        """Gives a trial back."""
        self._claims.drop(trial_id, self.worker)

    def still_has(self, trial_id: int) -> bool:
        """Returns whether a trial was not taken from this worker."""
        # A claim that is taken again by its owner stays as it is.
        return self._claims.take(trial_id, self.worker, self.worker)

    def _show_life(self) -> None:
        """Gives a sign of life now and then, as long as the process lives."""
        while not self._ended.is_set():
            self._wake.wait(self._period)
            self._wake.clear()
            with self._mutex:
                self.row = row = replace(self.row, beat=self.row.beat + 1)
            # The storage is away: trials are what waits for it, with a line. The next beat may come through.
            with suppress(Exception):
                self._claims.beat(row)
                held = self._held
                owner = self.watch.look().claims.get(held) if held is not None else None
                if held is not None and held == self._held and owner not in (None, self.worker):
                    self._lost = True


def _lock_file(worker: str, *, make: bool = False) -> Path:
    """Returns the file that a worker keeps locked, in a folder of this user and this machine."""
    user = os.getuid() if hasattr(os, "getuid") else "user"
    folder = Path(tempfile.gettempdir()) / f"automl-workers-{user}"
    if make:
        with suppress(FileExistsError):
            folder.mkdir(mode=0o700)
    return folder / f"{worker}.lock"


def _is_locked(worker: str) -> bool | None:
    """Returns whether a worker of this machine lives; None where it is one of another machine."""
    path = _lock_file(worker)
    if not path.exists():
        return None
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    except OSError:
        return None  # another user's
    lock.release()
    return False
