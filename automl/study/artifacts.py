"""Artifacts: the files of a study that other machines need, copied to where all of them reach, through fsspec.

A folder that the machines share, `s3://bucket/prefix`, or any other URL of fsspec. By default there is none: the files
stay in the study's folder, and a trial goes on where it began. What is copied is what another machine goes on from
(checkpoints, finished folds), and what people want to see (predictions, the best recipe, tracebacks, logs).

A thread copies, so that training does not wait. The newest content wins; a file is there whole or not at all. A store
that is away is waited for; nothing is lost meanwhile, because the files are here as well.
"""

import os
import re
import socket
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from urllib.parse import unquote

import optuna
from fsspec import AbstractFileSystem
from fsspec.core import url_to_fs

from automl.errors import StudyError, WeightsError, first_line, shorten
from automl.files import write_atomically
from automl.study.folder import StudyFolder
from automl.study.local_setup import LocalSetup
from automl.study.trial_record import read_spec, read_study_record
from automl.training.checkpoint import load_checkpoint
from automl.units import format_count, format_seconds

_PAUSES = (0.5, 30.0)
"""Seconds between two tries while the store is away: of the first, and at most; each is twice the one before."""

_TELL_SECONDS = 5.0
"""Who waits for copies longer than this is told how many are left."""

_FLUSH_SECONDS = 60.0
"""How long the last files are waited for when a worker ends and the store is away."""

Stop = Callable[[], bool]
Action = Literal["upload", "delete", "prune", "complete", "download"]


def absolute_artifacts(url: str) -> str:
    """Returns a folder with its path from the root, and a URL as it is."""
    return url if "://" in url or "::" in url else os.path.abspath(Path(url).expanduser())  # noqa: PTH100


def hide_credentials(url: str) -> str:
    """Returns a URL for people: without user, password and what follows a `?`."""
    return re.sub(r"\?.*", "", re.sub(r"//[^/]*@", "//***@", url))


def name_folder(study: str) -> str:
    """Makes the name of a new study's folder: two studies of one name do not meet in it."""
    return f"{study}-{uuid.uuid4().hex[:8]}"


@dataclass
class Artifacts:
    """The files of one study in a store, as one process sees them; without a store, nothing is done."""

    folder: StudyFolder
    """This machine's folder of the study, in which the files have the same names."""
    url: str = ""
    """Of the store, with the study's folder in it."""
    print_line: Callable[[str], None] = print
    """Called once when the store is away, and once when it is back."""
    _system: AbstractFileSystem | None = field(default=None, init=False)
    _root: str = field(default="", init=False)
    _pending: dict[str, Action] = field(default_factory=dict, init=False)
    _changed: threading.Condition = field(default_factory=threading.Condition, init=False)
    _copying: str = field(default="", init=False)
    _away: float | None = field(default=None, init=False)
    _sources: dict[str, Path] = field(default_factory=dict, init=False)
    _kept: frozenset[int] = field(default=frozenset(), init=False)
    _newest: int = field(default=-1, init=False)

    def __post_init__(self) -> None:
        if self.url:
            self._system, self._root = _open_store(self.url)
            threading.Thread(target=self._work, name="artifacts", daemon=True).start()

    @property
    def shown(self) -> str:
        """The URL for people."""
        return hide_credentials(self.url)

    def check(self) -> None:
        """Writes a small file and deletes it again.

        Raises:
            StudyError: If that fails; the message says why, and what would be right.
        """
        if self._system is None:
            return
        name = f".{uuid.uuid4().hex}.check"
        try:
            with tempfile.NamedTemporaryFile() as file:
                self._write(name, file.name)
            self._system.rm_file(self._path(name))  # not an empty folder: it may be the one that was given
        except Exception as exc:  # each file system raises its own types
            raise StudyError(
                f"--artifacts {self.shown} cannot be written: {self._describe(exc)}; give a folder that is there, or a "
                "URL such as s3://bucket/prefix whose credentials this machine has"
            ) from exc

    # --- this machine → the store -----------------------------------------------------------------------------------

    def upload(self, path: Path, name: str = "") -> None:
        """Has a file of the study's folder copied soon; of several calls the newest content counts.

        `name` is what it is called there, if not as here.
        """
        if self._system is not None:
            name = name or self._name(path)
            self._sources[name] = path
            self._ask(name, "upload")

    def delete(self, path: Path) -> None:
        """Has a file deleted in the store."""
        if self._system is not None:
            self._ask(self._name(path), "delete")

    def delete_state(self, number: int, folds: int) -> None:
        """Has deleted in the store what an ended trial would have gone on from."""
        path = self.folder.trial_folder(number)
        names = [f"checkpoint-{k}.pt" for k in range(folds)] + [f"fold-{k}.npz" for k in range(folds)]
        for name in ["checkpoint.pt"] if folds == 1 else names:
            self.delete(path / name)

    def upload_log(self, label: str) -> None:
        """Has the log of a worker of this machine copied soon, under the machine's name."""
        name = re.sub(r"[^A-Za-z0-9._-]+", "-", socket.gethostname())
        log = self.folder.log_file(label)
        if log.exists():  # else a person started the worker, and sees what it prints
            self.upload(log, f"workers/{name}-{log.name}")

    def keep_last(self, kept: Iterable[int], newest: int) -> None:
        """Has the last states of trials deleted that are neither kept nor newer than the newest one known here."""
        if self._system is not None:
            self._kept, self._newest = frozenset(kept), newest
            self._ask("trials/*/last.pt", "prune")

    def upload_missing(self) -> None:
        """Has the predictions copied that are here and not there: an earlier process had ended before they were."""
        if self._system is not None:
            self._ask("predictions/*.npz", "complete")

    def fetch_soon(self, path: Path) -> None:
        """Has a file copied here, if it is there and not here."""
        if self._system is not None and not path.exists():
            self._sources[self._name(path)] = path
            self._ask(self._name(path), "download")

    def flush(self, stop: Stop = lambda: False, seconds: float = _FLUSH_SECONDS) -> bool:
        """Waits until everything is in the store; returns False, with a line for the user, if it is not.

        It gives up when the store has been away for so many seconds, or is away and `stop` returns True.
        """
        with self._changed:
            until, tell_at = time.monotonic() + seconds, time.monotonic() + _TELL_SECONDS
            while names := sorted({*self._pending, self._copying} - {""}):
                if self._away is None and time.monotonic() > tell_at:
                    tell_at = time.monotonic() + 60
                    left = format_count(len(names), "file")
                    self.print_line(f"artifacts: copying to {self.shown}: {left} left, such as {names[0]}")
                if self._away is None:  # however long a large file takes
                    until = time.monotonic() + seconds
                if time.monotonic() > until or (self._away is not None and stop()):
                    self.print_line(
                        f"artifacts: not in {self.shown}: {shorten(names)}; here they are in {self.folder.path}, and "
                        "are copied when this machine goes on with the study"
                    )
                    return False
                self._changed.wait(0.1)
        return True

    # --- the store → this machine -----------------------------------------------------------------------------------

    def has(self, path: Path) -> bool:
        """Returns whether a file is here or in the store; the store is not waited for."""
        if path.exists() or self._system is None:
            return path.exists()
        with suppress(Exception):
            return bool(self._system.exists(self._path(self._name(path))))
        return False

    def fetch(self, path: Path, stop: Stop = lambda: False) -> bool:
        """Copies a file here that is not here; returns whether it is here then.

        A store that is away is waited for until `stop` returns True.
        """
        if not path.exists() and self._system is not None:
            self._until_answered(lambda: self._download(path, path), stop)
        return path.exists()

    def fetch_checkpoint(self, path: Path, stop: Stop = lambda: False) -> bool:
        """Copies a checkpoint here if there is none, or one with fewer steps; returns whether one is here then.

        A damaged one, here or there, counts as none.
        """
        if self._system is None:
            return path.exists()
        own = _read_step(path)
        other = path.with_name(f"{path.name}.fetched")
        try:
            there = _read_step(other) if self._until_answered(lambda: self._download(path, other), stop) else -1
            if there > own:
                other.replace(path)
            elif own < 0:
                path.unlink(missing_ok=True)
            elif own > there:
                self.upload(path)
        finally:
            other.unlink(missing_ok=True)
        return path.exists()

    # --- the thread -------------------------------------------------------------------------------------------------

    def _ask(self, name: str, action: Action) -> None:
        with self._changed:
            self._pending.pop(name, None)  # it is the newest now
            self._pending[name] = action
            self._changed.notify_all()

    def _work(self) -> None:
        """Does what is pending, one after the other, as long as the process lives."""
        pause = _PAUSES[0]
        while True:
            with self._changed:
                while not self._pending:
                    self._changed.wait()
                name = self._copying = next(iter(self._pending))
                action = self._pending.pop(name)
            try:
                self._do(name, action)
            except Exception as exc:  # each file system raises its own types
                self._note_failure(exc)
                with self._changed:
                    self._pending = {name: action} | self._pending  # what was asked for meanwhile counts
                    self._copying = ""
                    self._changed.notify_all()
                time.sleep(pause)
                pause = min(2 * pause, _PAUSES[1])
                continue
            pause = _PAUSES[0]
            self._note_answer()
            with self._changed:
                self._copying = ""
                self._changed.notify_all()

    def _do(self, name: str, action: Action) -> None:
        assert self._system is not None  # noqa: S101 - nothing is pending without a store
        if action == "upload":
            try:
                file = self._sources[name].open("rb")
            except FileNotFoundError:
                return  # deleted meanwhile
            with file:  # by its number it stays the same one, even if another one takes its name meanwhile
                self._write(name, f"/dev/fd/{file.fileno()}")
        elif action == "delete":
            self._remove(self._path(name))
        elif action == "download":
            self._download(self._sources[name], self._sources[name])
        elif action == "complete":
            there = {str(path).rpartition("/")[2] for path in self._system.glob(self._path(name))}
            for here in self.folder.path.glob(name):
                if here.name not in there:
                    self.upload(here)
        else:
            for path in self._system.glob(self._path(name)):
                number = re.search(r"/(\d{4,})/last\.pt$", str(path))
                if number and int(number[1]) <= self._newest and int(number[1]) not in self._kept:
                    self._remove(str(path))

    def _write(self, name: str, source: str) -> None:
        """Writes a file whole: under another name first, where the store can rename; elsewhere a put is whole."""
        assert self._system is not None  # noqa: S101
        path = self._path(name)
        if not _has_folders(self._system):
            self._system.put_file(source, path)
            return
        folder, _, last = path.rpartition("/")
        _check_root(self._system, self._root)
        self._system.makedirs(folder, exist_ok=True)
        temporary = f"{folder}/.{last}.{uuid.uuid4().hex[:8]}.tmp"
        try:
            self._system.put_file(source, temporary)
            self._system.mv(temporary, path)
        except BaseException:
            with suppress(Exception):
                self._system.rm_file(temporary)
            raise

    def _remove(self, path: str) -> None:
        assert self._system is not None  # noqa: S101
        with suppress(FileNotFoundError):
            self._system.rm_file(path)
        folder = path.rpartition("/")[0]
        if _has_folders(self._system) and folder != self._root:
            with suppress(Exception):  # it holds something
                self._system.rmdir(folder)

    # --- answers and failures ---------------------------------------------------------------------------------------

    def _download(self, path: Path, target: Path) -> bool:
        """Copies a file here; returns whether there is one."""
        assert self._system is not None  # noqa: S101
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with write_atomically(target) as temporary:
                self._system.get_file(self._path(self._name(path)), str(temporary))
        except FileNotFoundError:
            _check_root(self._system, self._root)
            return False
        return True

    def _until_answered(self, call: Callable[[], bool], stop: Stop) -> bool:
        pause = _PAUSES[0]
        while True:
            try:
                answer = call()
            except Exception as exc:  # each file system raises its own types
                self._note_failure(exc)
            else:
                self._note_answer()
                return answer
            until = time.monotonic() + pause
            pause = min(2 * pause, _PAUSES[1])
            while time.monotonic() < until:
                if stop():
                    return False
                time.sleep(0.1)

    def _note_failure(self, error: Exception) -> None:
        with self._changed:
            first, self._away = self._away is None, self._away or time.monotonic()
        if first:
            self.print_line(f"the artifacts {self.shown} do not answer ({self._describe(error)}); trying again")

    def _note_answer(self) -> None:
        with self._changed:
            since, self._away = self._away, None
        if since is not None:
            self.print_line(f"the artifacts {self.shown} are back after {format_seconds(time.monotonic() - since)}")

    def _describe(self, error: Exception) -> str:
        """Describes an error without the URL's credentials."""
        text = first_line(error)
        for secret in re.findall(r"//([^/]*)@", self.url):
            for part in (secret, unquote(secret), *secret.split(":", 1), *unquote(secret).split(":", 1)):
                text = text.replace(part, "***") if part else text
        return text

    def _name(self, path: Path) -> str:
        """Returns a file's name within the study's folder; what lies outside has none."""
        return path.relative_to(self.folder.path).as_posix()

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"


# --- opening ------------------------------------------------------------------------------------------------------


def check_artifacts(url: str, folder: StudyFolder) -> None:
    """Makes sure that artifacts can be written to a folder, of which the last part is made, or to a URL.

    Raises:
        StudyError: If that fails; the message says why, and what would be right.
    """
    url = absolute_artifacts(url)
    if "://" not in url and "::" not in url and Path(url).parent.is_dir():
        with suppress(OSError):  # that it cannot be written is found out next
            Path(url).mkdir(exist_ok=True)
    Artifacts(folder, url.rstrip("/")).check()


def open_artifacts(study: optuna.Study, folder: StudyFolder, print_line: Callable[[str], None] = print) -> Artifacts:
    """Opens the artifacts of a study, as this machine reaches them.

    Raises:
        StudyError: If the URL is wrong, or its driver is not installed.
    """
    local, name = LocalSetup.load(folder), read_study_record(study).artifacts
    url = (local.artifacts if local else None) or read_spec(study).artifacts
    if not url or not name:
        return Artifacts(folder)
    if "//***@" in url:
        raise StudyError(f"the artifacts {url} need credentials, which the storage does not hold: give --artifacts")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise StudyError(f"study {study.study_name!r} names its artifacts {name!r}, which is no name of a folder")
    return Artifacts(folder, f"{url.rstrip('/')}/{name}", print_line)


def fetch_predictions(study: optuna.Study, folder: StudyFolder, numbers: Iterable[int]) -> None:
    """Copies the predictions of trials here that other machines trained; artifacts that are away are not waited for."""
    missing = [path for number in numbers if not (path := folder.predictions_file(number)).exists()]
    artifacts = open_artifacts(study, folder) if missing else None
    if artifacts is not None and artifacts.url:
        for path in missing:
            artifacts.fetch(path, stop=lambda: True)


def _open_store(url: str) -> tuple[AbstractFileSystem, str]:
    """Opens the file system of a URL; returns it and the path in it."""
    shown = hide_credentials(url)
    try:
        # What another machine has written since must be seen.
        system, path = url_to_fs(url, use_listings_cache=False)
    except ImportError as exc:
        hint = "pip install 'automl-timm[s3]'" if url.startswith(("s3://", "s3a://")) else first_line(exc)
        raise StudyError(f"--artifacts {shown} needs a package that is not installed: {hint}") from exc
    except Exception as exc:  # each file system raises its own types
        raise StudyError(
            f"--artifacts {shown} is no URL that fsspec opens: {first_line(exc)}; give a folder, or a URL such as "
            "s3://bucket/prefix"
        ) from exc
    return system, str(path).rstrip("/")


def _has_folders(system: AbstractFileSystem) -> bool:
    """Returns whether a store can rename files, in one step; where fsspec copies instead, a put is whole."""
    return type(system).mv is not AbstractFileSystem.mv


def _check_root(system: AbstractFileSystem, root: str) -> None:
    """Raises FileNotFoundError if the folder above the study's is not there: its disk may not be mounted."""
    above = root.rpartition("/")[0]
    if _has_folders(system) and above and not system.isdir(above):
        raise FileNotFoundError(f"there is no folder {above}")


def _read_step(path: Path) -> int:
    """Reads the steps done at a checkpoint; -1: there is none, or a damaged one."""
    try:
        state = load_checkpoint(path)
        return -1 if state is None else int(state["progress"][0])
    except (WeightsError, KeyError, IndexError, TypeError, ValueError):
        return -1
