"""What a search writes: `runs/<study>/`, one folder a study, deleted as a whole; how it is listed and locked."""

import re
import shlex
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, fields
from pathlib import Path

from filelock import FileLock, Timeout
from sqlalchemy import URL, make_url

from automl.errors import StudyError
from automl.files import explain_write_errors


@dataclass(frozen=True)
class StudyFolder:
    """The files of one study."""

    path: Path
    """The folder, `runs/<study>`; a leading `~` is the home folder."""
    database: Path = field(init=False, compare=False, metadata={"file": "study.db"})
    """The embedded storage: one SQLite file."""
    storage_note: Path = field(init=False, compare=False, metadata={"file": "storage.url"})
    """Holds the URL of a storage that is not the embedded one."""
    samples: Path = field(init=False, compare=False, metadata={"file": "samples.csv"})
    """The samples and splits, fixed when the study is created."""
    local: Path = field(init=False, compare=False, metadata={"file": "local.json"})
    """What of the study is this machine's own: paths, and what its card holds."""
    predictions: Path = field(init=False, compare=False, metadata={"file": "predictions"})
    """Of each complete trial, `0003.npz`: its predictions of samples that it was validated on."""
    best: Path = field(init=False, compare=False, metadata={"file": "best.yaml"})
    """The best recipe."""
    report: Path = field(init=False, compare=False, metadata={"file": "report.html"})
    """The page about the study."""
    trials: Path = field(init=False, compare=False, metadata={"file": "trials.csv"})
    """All trials as a table."""
    confirmed: Path = field(init=False, compare=False, metadata={"file": "confirmed.yaml"})
    """The recipe that was chosen when the best ones were trained again."""
    confirmation: Path = field(init=False, compare=False, metadata={"file": "confirm.json"})
    """The scores of the recipes that were trained again."""
    logged: Path = field(init=False, compare=False, metadata={"file": "logged.json"})
    """Which trials were logged to MLflow, W&B or TensorBoard, and under which names."""
    ensemble: Path = field(init=False, compare=False, metadata={"file": "ensemble.json"})
    """The scores of the views and of their fusion."""

    def __post_init__(self) -> None:
        path = self.path.expanduser()
        object.__setattr__(self, "path", path)
        for item in fields(self)[1:]:
            object.__setattr__(self, item.name, path / item.metadata["file"])

    @property
    def name(self) -> str:
        """The study's name."""
        return self.path.name

    def command_line(self, name: str) -> str:
        """Writes a command on this study, for a person to type: `automl confirm faces --runs elsewhere`."""
        runs = [] if self.path.parent == Path("runs") else ["--runs", str(self.path.parent)]
        return shlex.join(["automl", name, self.name, *runs])

    def list_next_commands(self, *, has_best: bool, confirmed: bool, views: int = 1) -> list[tuple[str, str]]:
        """Lists the commands that come after a search or a confirmation, each with what it is for."""
        steps = []
        if has_best and not confirmed:
            steps.append(
                (self.command_line("confirm"), "the best recipes with fresh seeds, scored once on the holdout")
            )
        if views > 1:
            steps.append((self.command_line("ensemble"), f"the best recipes of the {views} views, joined"))
        if has_best:
            steps.append((self.command_line("train"), f"a model of the {'confirmed' if confirmed else 'best'} recipe"))
            predict = f"automl predict models/{self.name} --data DIR --out submission.csv"
            steps.append((predict, "predictions of that model; --tta flip is mostly a little better"))
        steps.append((self.command_line("dashboard"), "every trial in the browser"))
        return steps

    @property
    def has_study(self) -> bool:
        """Whether there is a study: a storage of its own, or the note of another one."""
        return self.database.exists() or self.storage_note.exists()

    @property
    def changed(self) -> float:
        """When a result was last written, in seconds since 1970.

        Not when the folder was changed: to read a database with a write-ahead log, SQLite lays files beside it.
        """
        results = (self.samples, self.trials, self.best, self.confirmed, self.confirmation, self.storage_note)
        times = [path.stat().st_mtime for path in results if path.exists()]
        return max(times, default=self.path.stat().st_mtime)

    @property
    def storage_url(self) -> str:
        """The embedded storage, as Optuna names it: a URL, in which `?`, `#` and `%` of a path are quoted."""
        path = str(self.database.absolute())
        url = URL.create("sqlite", database=path).render_as_string(hide_password=False)
        if make_url(url).database != path:  # 2.0 does not quote
            raise StudyError(f"{self.path}: a folder called so needs SQLAlchemy 2.1; install it, or give other --runs")
        return url

    @property
    def winner(self) -> Path | None:
        """The recipe to go on with: the confirmed one, else the best; None while no trial is complete."""
        return next((path for path in (self.confirmed, self.best) if path.is_file()), None)

    def replicate_folder(self, trial: int, seed: int) -> Path:
        """Returns the folder of one of a trial's replicates: its checkpoint, weights and predictions."""
        return self.path / "confirm" / f"{trial:04d}-{seed}"

    def trial_folder(self, number: int) -> Path:
        """Returns the folder of a trial: its lock, its checkpoint, the traceback of its error."""
        return self.path / "trials" / f"{number:04d}"

    def predictions_file(self, number: int) -> Path:
        """Returns the file of a trial's predictions, which a complete one has."""
        return self.predictions / f"{number:04d}.npz"

    def log_file(self, label: str) -> Path:
        """Returns the file that holds what a worker printed, named by its label."""
        return self.path / "workers" / f"{re.sub('[^A-Za-z0-9._-]', '-', label)}.log"

    def make_folders(self) -> None:
        """Makes the folder and those in it."""
        with explain_write_errors(self.path, StudyError, "folder with --runs"):
            (self.path / "workers").mkdir(parents=True, exist_ok=True)
            (self.path / "trials").mkdir(exist_ok=True)

    def remove_unused(self) -> None:
        """Removes what `make_folders` and workers left where no study came of it."""
        if not self.has_study and not self.samples.exists():
            shutil.rmtree(self.path / "workers", ignore_errors=True)
            for path in (self.path / "trials", self.path):
                with suppress(OSError):  # it holds something, or is not there
                    path.rmdir()


def study_name(text: str) -> str:
    """Makes a folder name of a data set's name: what is not a letter, digit, `.`, `_` or `-` becomes `-`."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-._") or "study"


def list_studies(runs: Path) -> list[StudyFolder]:
    """Lists the studies under a folder, the one that was worked on last at the end."""
    folders = [folder for folder in map(StudyFolder, runs.expanduser().glob("*")) if folder.has_study]
    return sorted(folders, key=lambda folder: folder.changed)


def find_study(runs: Path, name: str | None) -> StudyFolder:
    """Finds the folder of the named study, whether or not it is there, or of the latest one."""
    if name is not None:
        folder, path = StudyFolder(runs / name), Path(name)
        if not folder.has_study and path.name != name and StudyFolder(path).has_study:
            raise StudyError(f"{name} is a path; give the study by its name: {path.name} --runs {path.parent}")
        return folder
    folders = list_studies(runs)
    if not folders:
        raise StudyError(f"no studies in {runs}; begin one with: automl search --gpu-mem 16GB --trials 50")
    return folders[-1]


def find_study_beside(recipe: Path) -> StudyFolder | None:
    """Finds the study in whose folder a recipe lies."""
    folder = StudyFolder(recipe.absolute().parent)
    return folder if folder.has_study else None


@contextmanager
def hold_lock(path: Path, *, wait: bool = True) -> Iterator[bool]:
    """Holds an exclusive lock on a file; the system lets go of it when the process dies, however it dies.

    Yields:
        Whether the lock is held: always, if another holder is waited for.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    with suppress(Timeout):
        lock.acquire(timeout=-1 if wait else 0)
    try:
        yield lock.is_locked
    finally:
        lock.release()
