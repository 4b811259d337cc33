"""Storages: where Optuna keeps a study, opened so that nothing is lost when one goes away or was cut short.

A database that restarts, a network that is gone, a full disk: every call of a storage is made again until it is
answered, up to `WAIT_SECONDS`. That a call is made twice when its answer alone was lost does no harm: attributes and
values are written over, and a trial that was created twice is taken up as one that a dead worker left behind.
"""

import json
import logging
import re
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from functools import wraps
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import BaseStorage, JournalStorage, RDBStorage, _CachedStorage
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock
from optuna.trial import FrozenTrial
from sqlalchemy import URL, Connection, Engine, MetaData, make_url
from sqlalchemy.exc import (
    ArgumentError,
    DBAPIError,
    InterfaceError,
    NoSuchModuleError,
    OperationalError,
    PendingRollbackError,
)

from automl.errors import StudyError, first_line, suggest_name
from automl.files import write_atomically
from automl.study.folder import StudyFolder, list_studies
from automl.study.sqlite import StudyConnection
from automl.units import format_seconds

WAIT_SECONDS = 600.0
"""How long a storage that has gone away is waited for: databases are moved and updated in minutes."""

_PAUSES = (0.1, 2.0)
"""Seconds between two tries: of the first, and at most; each is twice the one before."""

_KEEPALIVE = {"keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 2, "tcp_user_timeout": 20_000}
"""When the other end of a connection counts as gone (https://www.postgresql.org/docs/current/libpq-connect.html)."""

_CONNECT: dict[str, dict[str, Any]] = {
    "sqlite": {"timeout": 5, "factory": StudyConnection},  # one writer at a time: a worker waits for its turn
    **{driver: {"connect_timeout": 10} | _KEEPALIVE for driver in ("psycopg", "psycopg2")},
    # Longer than another transaction may be waited for (innodb_lock_wait_timeout).
    **{driver: {"connect_timeout": 10, "read_timeout": 60, "write_timeout": 60} for driver in ("pymysql", "mysqldb")},
}
"""How to connect, by driver. A single try has an end: some would wait for minutes, and hear no Ctrl-C meanwhile."""

_DRIVERS = {
    "postgresql": {"psycopg": "psycopg", "psycopg2": "psycopg2"},
    "mysql": {"mysqldb": "MySQLdb", "pymysql": "pymysql"},
}
"""By database: SQLAlchemy's names of drivers, and their modules; the first that is installed is taken."""

_INSTALL = {"postgresql": "pip install 'automl-timm[postgresql]'", "mysql": "pip install pymysql"}

_TAKE_OVER_SECONDS = 30
"""When a journal's lock is taken from a holder that shows no sign of life; it is held for milliseconds."""

optuna.logging.set_verbosity(optuna.logging.WARNING)
# It would log each try of an outage, with the statement.
logging.getLogger("optuna.storages._rdb.storage").setLevel(logging.ERROR)


class StorageLost(StudyError):  # noqa: N818 - it says what happened, as Parked and Diverged do
    """A storage did not answer in time; a running trial stays so, and can be taken up again."""


# --- waiting ------------------------------------------------------------------------------------------------------


def _to_stderr(line: str) -> None:
    with suppress(OSError):  # a log on a full disk
        print(line, file=sys.stderr, flush=True)


@dataclass
class Patience:
    """Waits for a storage that does not answer."""

    seconds: float = WAIT_SECONDS
    """How long, from the first call that failed."""
    print_line: Callable[[str], None] = _to_stderr
    """Called once when it waits, and once when the storage is back."""
    should_stop: Callable[[], bool] = lambda: False
    """Whether to give up at once."""
    storage: str = ""
    """The storage, as messages name it."""
    _since: float | None = field(default=None, init=False)
    _pause: float = field(default=0.0, init=False)

    def wait(self, error: Exception) -> None:
        """Sleeps after a call that failed, a little longer each time; raises StorageLost when no time is left."""
        now, reason = time.monotonic(), _describe_error(error)
        if self._since is None:
            self._since, self._pause = now, _PAUSES[0]
            limit = format_seconds(self.seconds)
            self.print_line(f"the {self.storage} does not answer ({reason}); waiting up to {limit}")
        until = min(now + self._pause, self._since + self.seconds)
        self._pause = min(2 * self._pause, _PAUSES[1])
        while not self.should_stop():
            if (now := time.monotonic()) >= self._since + self.seconds:
                raise StorageLost(
                    f"the {self.storage} has not answered for {format_seconds(self.seconds)} ({reason}); "
                    "when it does, the same command goes on where this one ended"
                ) from error
            if now >= until:
                return
            time.sleep(min(0.1, until - now))
        raise StorageLost(f"the {self.storage} does not answer ({reason}); not waited for any longer") from error

    def note_answer(self) -> None:
        """Notes that the storage has answered."""
        if self._since is not None:
            self.print_line(f"the {self.storage} is back after {format_seconds(time.monotonic() - self._since)}")
            self._since = None


def patience_of(study: optuna.Study) -> Patience:
    """Returns how a study's storage is waited for; the caller may set where its lines go and when it stops."""
    patience = getattr(study._storage, "patience", None)
    return patience if isinstance(patience, Patience) else Patience()


_Method = TypeVar("_Method", bound=Callable[..., Any])


def repeat_until_answered(method: _Method) -> _Method:
    """Makes a method that is called until the storage answers; its object has a `patience`."""

    @wraps(method)
    def call_again(self: Any, *args: Any, **kwargs: Any) -> Any:
        repeated = False
        while True:
            try:
                answer = method(self, *args, **kwargs)
            except UpdateFinishedTrialError:
                if not repeated or method.__name__ != "set_trial_state_values":
                    raise
                answer = True  # the first call had ended the trial, and only its answer was lost
            except Exception as exc:
                if not _is_gone(exc):
                    raise
                self.patience.wait(exc)
                repeated = True
                continue
            self.patience.note_answer()
            return answer

    return call_again  # type: ignore[return-value]


_Storage = TypeVar("_Storage", bound=type)


def _make_patient(storage: _Storage) -> _Storage:
    """Makes every public method of a storage wait for its answer."""
    for name in dir(BaseStorage):
        if not name.startswith("_"):
            setattr(storage, name, repeat_until_answered(getattr(storage, name)))
    return storage


class StudyFull(Exception):  # noqa: N818 - it says what happened
    """A study has as many trials as it may have."""


Guard = Callable[[Connection, int, int], None]
"""Called in the transaction that creates a trial, with its id and number; what it raises undoes the creation."""


class _Backend(RDBStorage):
    """Optuna's database, with a say in the creation of trials."""

    guard: Guard | None = None

    def _get_prepared_new_trial(self, study_id: int, template_trial: FrozenTrial | None, session: Any) -> Any:
        trial = super()._get_prepared_new_trial(study_id, template_trial, session)
        if self.guard is not None:  # the row is written: from here on, no other transaction can create one
            self.guard(session.connection(), int(trial.trial_id), int(trial.number))
        return trial


@_make_patient
class Database(_CachedStorage):
    """A database behind Optuna's own cache."""

    patience = Patience()
    _trials_read: set[int] | None = None
    """The studies whose trials were read within `read_once`; None: they are read each time."""

    @property
    def engine(self) -> Engine:
        """The connections to the database."""
        return self._backend.engine

    @contextmanager
    def read_once(self) -> Generator[None, None, None]:
        """Reads trials once, however often they are asked for within; for one thread."""
        with self._lock:
            self._trials_read = set()
        try:
            yield
        finally:
            self._trials_read = None

    def _read_trials_from_remote_storage(self, study_id: int) -> None:
        if self._trials_read is None:
            super()._read_trials_from_remote_storage(study_id)
        elif study_id not in self._trials_read:
            super()._read_trials_from_remote_storage(study_id)
            self._trials_read.add(study_id)

    def make_tables(self, tables: MetaData) -> None:
        """Makes tables of our own beside Optuna's, where they are not there."""
        try:
            tables.create_all(self.engine)
        except DBAPIError:  # another worker made them at the same moment
            tables.create_all(self.engine)

    @contextmanager
    def guard_creation(self, guard: Guard) -> Generator[None, None, None]:
        """Has a say in the trials that are created meanwhile; for one thread."""
        assert isinstance(self._backend, _Backend)  # noqa: S101 - `_connect` makes it so
        self._backend.guard = guard
        try:
            yield
        finally:
            self._backend.guard = None

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        """Creates a trial; returns its id."""
        self._backend.get_study_name_from_id(study_id)  # an outage here is waited for by us
        # In this one call Optuna itself tries again for some seconds, and hears no wish to stop meanwhile.
        return super().create_new_trial(study_id, template_trial)


@_make_patient
class Journal(JournalStorage):
    """A journal file."""

    patience = Patience()

    def __init__(self, path: Path) -> None:
        """Opens a journal, or makes one."""
        super().__init__(_JournalFile(path))
        self.path = path

    def folder_of(self, study_id: int) -> Path:
        """Returns the folder beside the journal for what is ours of a study."""
        return Path(f"{self.path}.workers") / str(study_id)


def _find_cause(error: BaseException) -> BaseException:
    """Returns SQLAlchemy's first error, which Optuna wraps.

    Where reading trials fails, Optuna reads them in another way, in the transaction that has failed.
    """
    if isinstance(error, optuna.exceptions.StorageInternalError) and error.__cause__:
        error = error.__cause__
    if isinstance(error, PendingRollbackError) and error.__context__:
        return error.__context__
    return error


def _is_gone(error: Exception) -> bool:
    """Returns whether an error means that the storage is out of reach, and not that a call was wrong."""
    cause = _find_cause(error)
    if isinstance(cause, DBAPIError):
        return isinstance(cause, InterfaceError | OperationalError) or cause.connection_invalidated
    return isinstance(cause, OSError)


def _is_refused(error: Exception) -> bool:
    """Returns whether a server has answered, and will not let this user in: a password, a database, a host."""
    text = str(_find_cause(error))
    return bool(re.search(r"\((1044|1045|1049)\b|FATAL: .*(authentication failed|does not exist|pg_hba)", text))


def _describe_error(error: Exception) -> str:
    cause = _find_cause(error)
    return first_line(getattr(cause, "orig", None) or cause)


# --- opening ------------------------------------------------------------------------------------------------------


def open_storage(url: str, patience: Patience | None = None) -> BaseStorage:
    """Opens an Optuna storage.

    Args:
        url: A database URL as Optuna takes it (`sqlite:///…`, `postgresql://…`, `mysql://…`), or the path of a file
            ending in `.log` for Optuna's journal. A journal that was cut short is mended.
        patience: Waits for a storage that does not answer now, if it is known to be one, and raises `StorageLost`;
            None: that is an error at once. One that goes away later is waited for in any case.
    """
    wait = patience is not None
    patience = patience or Patience()
    patience.storage = f"storage {hide_password(url)}"
    while True:
        try:
            storage = _connect(url)
        except StudyError:
            raise
        except Exception as exc:  # SQLAlchemy and the drivers raise many types
            if wait and _is_gone(exc) and not _is_refused(exc):
                patience.wait(exc)
                continue
            raise StudyError(f"cannot open the {patience.storage}: {_describe_error(exc)}") from exc
        patience.note_answer()
        storage.patience = patience
        return storage


def open_study(folder: StudyFolder, storage: str | None = None, patience: Patience | None = None) -> optuna.Study:
    """Loads a study that exists from its storage, by default the one it was created in; waits as `open_storage`.

    Raises:
        StudyError: If there is none in this folder or storage.
    """
    storage = storage or read_storage_url(folder)
    if storage == folder.storage_url and not folder.database.exists():
        known = [other.name for other in list_studies(folder.path.parent)]
        listed = f"{', '.join(known) or 'none'}{suggest_name(folder.name, known)}"
        raise StudyError(f"no study {folder.name!r} in {folder.path.parent}; studies there: {listed}")
    url = make_url(storage) if "://" in storage else None
    if url is not None and url.get_backend_name() == "sqlite" and url.database and not Path(url.database).is_file():
        raise StudyError(f"no study {folder.name!r}: there is no file {url.database}")  # SQLite would make an empty one
    try:
        return optuna.load_study(study_name=folder.name, storage=open_storage(storage, patience))
    except KeyError as exc:
        raise StudyError(f"no study {folder.name!r} in the storage {hide_password(storage)}") from exc


def read_trials_once(study: optuna.Study) -> AbstractContextManager[None]:
    """Reads the trials of a study once, however often a sampler asks for them within.

    TPE asks for each group of parameters, and reads each running trial anew: of 64 workers it was two seconds a trial.
    """
    storage = study._storage
    return storage.read_once() if isinstance(storage, Database) else nullcontext()


def read_storage_url(folder: StudyFolder) -> str:
    """Reads the URL of a study's storage."""
    if folder.storage_note.exists():
        return folder.storage_note.read_text(encoding="utf-8").strip()
    return folder.storage_url


def _connect(url: str) -> Database | Journal:
    if "://" not in url:
        if not url.endswith(".log"):
            raise StudyError(
                f"not a storage: {hide_password(url)!r}; give a URL such as sqlite:///study.db, or a .log journal file"
            )
        return Journal(Path(absolute_storage(url)))
    parsed = _name_driver(make_url(absolute_storage(url)))
    backend, _, driver = parsed.drivername.partition("+")
    name = backend if backend == "sqlite" else driver
    given = {key: value for key, value in _CONNECT.get(name, {}).items() if key not in parsed.query}
    arguments: dict[str, Any] = {"connect_args": given, "pool_pre_ping": name != "sqlite"}
    if name != "sqlite":  # a server has a hundred connections by default, and a worker keeps one of them
        arguments |= {"pool_size": 1, "max_overflow": 9}
    try:
        return Database(_Backend(parsed.render_as_string(hide_password=False), engine_kwargs=arguments))
    except NoSuchModuleError as exc:
        raise StudyError(f"not a storage: {hide_password(url)!r}; databases are sqlite, postgresql and mysql") from exc
    except ImportError as exc:
        how = _INSTALL.get(backend, "install it")
        reason = first_line(exc.__cause__ or exc)
        raise StudyError(f"the storage {hide_password(url)} needs a driver ({reason}): {how}") from exc


def _name_driver(url: URL) -> URL:
    """Names the driver in a URL that names none; raises StudyError if a password hides the URL's parts."""
    if "@" in (url.host or ""):
        raise StudyError(f"the storage {hide_password(str(url))} cannot be read: in a password, @ is written %40")
    backend, _, driver = url.drivername.partition("+")
    backend = {"postgres": "postgresql"}.get(backend, backend)  # libpq and hosts of databases write both
    known = _DRIVERS.get(backend, {})
    if not driver and known:
        driver = next((name for name, module in known.items() if find_spec(module)), next(iter(known)))
    return url.set(drivername=f"{backend}+{driver}" if driver else backend)


def find_sqlite_file(url: str) -> Path | None:
    """Finds the file of a SQLite storage; None: it is another one, or in memory."""
    if not url.startswith("sqlite"):
        return None
    path = Path(make_url(absolute_storage(url)).database or "")
    return path if path.is_absolute() else None


def absolute_storage(url: str) -> str:
    """Returns a storage that is a file with its path from the root; any other one as it is."""
    if "://" not in url:
        return str(Path(url).expanduser().absolute())
    if not url.startswith("sqlite"):
        return url
    parsed = make_url(url)
    if not parsed.database or parsed.database.startswith((":", "file:")):  # in memory, or SQLite's own kind of URL
        return url
    path = Path(parsed.database).expanduser().absolute()
    return parsed.set(database=str(path)).render_as_string(hide_password=False)


def hide_password(storage: str) -> str:
    """Returns how messages name a storage: without its password."""
    try:
        url = make_url(storage) if "://" in storage else None
    except (ArgumentError, ValueError):
        url = None
    if url is None or "@" in (url.host or ""):  # whatever stands before the last @ may be a part of a password
        scheme, _, rest = storage.partition(":")
        return f"{scheme}://***@{rest.rpartition('@')[2]}" if rest and "@" in rest else storage
    return url.set(query={}).render_as_string()


def is_same_storage(one: str, other: str) -> bool:
    """Returns whether two names are of one storage, whatever their drivers and passwords."""

    def compare_by(storage: str) -> str | URL:
        if "://" not in storage:
            return absolute_storage(storage)
        url = make_url(absolute_storage(storage))
        return url.set(drivername=_name_driver(url).get_backend_name(), password="")

    return compare_by(one) == compare_by(other)


# --- journals -----------------------------------------------------------------------------------------------------

_ENTRY = b'{"op_code":'
"""How an entry begins; inside an entry its quotes would be escaped."""


class _JournalLock(JournalFileSymlinkLock):
    """Optuna's lock; whoever holds it finds whole lines, so that what is appended is a line of its own.

    Optuna judges whether a holder is alive by following the link: with a relative path it leads nowhere, and the lock
    of a killed process is never taken over (Optuna 5.0).
    """

    def __init__(self, path: Path) -> None:
        super().__init__(str(path), grace_period=_TAKE_OVER_SECONDS)
        self._path = path

    def acquire(self) -> bool:
        super().acquire()
        try:
            _cut_unfinished(self._path)
        except BaseException:
            self.release()
            raise
        return True


class _JournalFile(JournalFileBackend):
    """Optuna's journal file, mended where a full disk or a kill cut it short."""

    def __init__(self, path: Path) -> None:
        """Opens a journal, or makes one; raises StudyError if it cannot be mended."""
        lock = _JournalLock(path)
        super().__init__(str(path), lock_obj=lock)
        if next(_list_damaged(path), None) is not None:
            with _hold(lock):  # which cuts an unfinished last line
                _mend_journal(path)
        self._path = path

    def read_logs(self, log_number_from: int) -> Generator[dict[str, Any], None, None]:
        """Reads entries as Optuna does, with an error that says what to do."""
        try:
            yield from super().read_logs(log_number_from)
        except ValueError as exc:
            number, _ = next(_list_damaged(self._path), ("?", b""))
            raise StudyError(
                f"the journal {self._path} was damaged in line {number} by another program; "
                "run the same command again: it mends it"
            ) from exc


@contextmanager
def hold_journal(path: Path) -> Generator[None, None, None]:
    """Holds a lock beside a journal, one that works on network file systems, too."""
    with _hold(JournalFileSymlinkLock(str(path), grace_period=_TAKE_OVER_SECONDS)):
        yield


@contextmanager
def _hold(lock: JournalFileSymlinkLock) -> Generator[None, None, None]:
    lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _cut_unfinished(path: Path) -> None:
    """Cuts off a last line without an end: its writer never learnt that it was written. Needs the lock."""
    with path.open("rb") as journal:
        if journal.seek(0, 2) == 0:
            return
        journal.seek(-1, 2)
        if journal.read() == b"\n":
            return
    with path.open("r+b") as journal:
        journal.truncate(journal.read().rfind(b"\n") + 1)


def _list_damaged(path: Path) -> Generator[tuple[int, bytes], None, None]:
    """Yields the lines of a journal that hold no entry, or several, with their numbers from 1."""
    with path.open("rb") as journal:
        for number, line in enumerate(journal, 1):
            if not (line.endswith(b"\n") and _is_entry(line)):
                yield number, line


def _is_entry(text: bytes) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False


def _mend_journal(path: Path) -> None:
    """Takes the entries out of lines that were glued to an unfinished one, if each ends in one. Needs the lock."""
    mended = {number: _extract_entries(line) for number, line in _list_damaged(path)}
    if not mended:
        return
    for number, entries in mended.items():
        if not entries:
            file = shlex.quote(str(path))
            raise StudyError(
                f"the journal {path} is damaged in line {number}, which holds no entry; restore it from a copy, or "
                f"keep what is above: cp {file} {file}.damaged && head -n {number - 1} {file}.damaged > {file}"
            )
    kept = path.with_name(f"{path.name}.{time.strftime('%Y%m%d-%H%M%S')}.damaged")
    shutil.copy2(path, kept)
    with write_atomically(path) as temporary, path.open("rb") as journal, temporary.open("wb") as whole:
        for number, line in enumerate(journal, 1):
            whole.writelines(mended.get(number, [line]))
    numbers = ", ".join(map(str, mended))
    _to_stderr(f"the journal {path} was cut short and is mended (line {numbers}); as it was: {kept}")


def _extract_entries(line: bytes) -> list[bytes]:
    """Returns the whole entries of a line in which others were cut short; none if it does not end in one."""
    pieces = [_ENTRY + piece for piece in line.removesuffix(b"\n").split(_ENTRY)[1:]]
    return [piece + b"\n" for piece in pieces if _is_entry(piece)] if pieces and _is_entry(pieces[-1]) else []
