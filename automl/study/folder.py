"""What a search writes: `runs/<study>/`, one folder a study, deleted as a whole."""

import fcntl
import os
import re
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from automl.errors import StudyError


@dataclass(frozen=True)
class StudyFolder:
    """The files of one study.

    Attributes:
        path: The folder, `runs/<study>`; a leading `~` is the home folder.
    """

    path: Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", self.path.expanduser())

    @property
    def name(self) -> str:
        """The study's name."""
        return self.path.name

    def command(self, name: str) -> str:
        """A command line on this study, for a person to type: `automl confirm faces --runs elsewhere`."""
        runs = [] if self.path.parent == Path("runs") else ["--runs", str(self.path.parent)]
        return shlex.join(["automl", name, self.name, *runs])

    @property
    def begun(self) -> bool:
        """Whether there is a study: a storage of its own, or the note of another one."""
        return self.database.exists() or self.storage_note.exists()

    @property
    def changed(self) -> float:
        """When something was last found in the study, in seconds since 1970.

        Not when the folder was changed: to read a database with a write-ahead log, SQLite lays files beside it.
        """
        results = (self.samples, self.trials, self.best, self.confirmed, self.confirmation, self.storage_note)
        there = [path.stat().st_mtime for path in results if path.exists()]
        return max(there, default=self.path.stat().st_mtime)

    @property
    def database(self) -> Path:
        """The embedded storage: one SQLite file."""
        return self.path / "study.db"

    @property
    def storage_url(self) -> str:
        """The embedded storage, as Optuna names it: a URL, in which `?`, `#` and `%` of a path are quoted.

        Raises:
            StudyError: If the path cannot be written as a URL with the installed SQLAlchemy.
        """
        from sqlalchemy import URL, make_url

        path = str(self.database.absolute())
        url = URL.create("sqlite", database=path).render_as_string(hide_password=False)
        if make_url(url).database != path:  # 2.0 does not quote
            raise StudyError(f"{self.path}: a folder called so needs SQLAlchemy 2.1; install it, or give other --runs")
        return url

    @property
    def storage_note(self) -> Path:
        """Holds the URL of a storage that is not the embedded one."""
        return self.path / "storage.url"

    @property
    def samples(self) -> Path:
        """The samples and splits, frozen when the study is created."""
        return self.path / "samples.csv"

    @property
    def best(self) -> Path:
        """The best recipe."""
        return self.path / "best.yaml"

    @property
    def trials(self) -> Path:
        """All trials as a table."""
        return self.path / "trials.csv"

    @property
    def confirmed(self) -> Path:
        """The recipe that was chosen when the best ones were trained again."""
        return self.path / "confirmed.yaml"

    @property
    def winner(self) -> Path | None:
        """The recipe to go on with: the confirmed one, else the best; None while no trial is complete."""
        return next((path for path in (self.confirmed, self.best) if path.is_file()), None)

    @property
    def confirmation(self) -> Path:
        """What that found."""
        return self.path / "confirm.json"

    @property
    def ensemble(self) -> Path:
        """What joining the views found."""
        return self.path / "ensemble.json"

    def retraining(self, trial: int, seed: int) -> Path:
        """The folder of one of a trial's retrainings: its checkpoint, weights and predictions."""
        return self.path / "confirm" / f"{trial:04d}-{seed}"

    def trial(self, number: int) -> Path:
        """The folder of a trial: its lock, its checkpoint, the traceback of its error."""
        return self.path / "trials" / f"{number:04d}"

    def progress(self, device: str) -> Path:
        """What the worker on a device is doing now."""
        return self.path / "workers" / f"{device.replace(':', '-')}.json"

    def log(self, device: str) -> Path:
        """What the worker on a device printed."""
        return self.path / "workers" / f"{device.replace(':', '-')}.log"

    def create(self) -> None:
        """Makes the folder.

        Raises:
            StudyError: If it cannot be written.
        """
        try:
            (self.path / "workers").mkdir(parents=True, exist_ok=True)
            (self.path / "trials").mkdir(exist_ok=True)
        except OSError as exc:
            raise StudyError(f"cannot write {self.path}: {exc.strerror}; choose another folder with --runs") from exc


def study_name(text: str) -> str:
    """Makes a folder name of a data set's name: what is not a letter, digit, `.`, `_` or `-` becomes `-`."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-._") or "study"


@contextmanager
def lock(path: Path, *, wait: bool = True) -> Iterator[bool]:
    """Holds an exclusive lock on a file; the kernel lets go of it when the process dies, however it dies.

    Args:
        path: The lock file; made when it is not there.
        wait: Whether to wait for another holder.

    Yields:
        Whether the lock is held (always, with `wait`).
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
            held = True
        except BlockingIOError:
            held = False
        yield held
    finally:
        os.close(handle)
