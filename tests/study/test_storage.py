import json
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState
from sqlalchemy import event, make_url

from automl.errors import StudyError
from automl.spec import StudySpec
from automl.study import search as api
from automl.study import storage as storage_module
from automl.study import worker
from automl.study.artifacts import Artifacts
from automl.study.folder import StudyFolder, list_studies
from automl.study.setup import create_study
from automl.study.storage import (
    Patience,
    StorageLost,
    absolute_storage,
    hide_password,
    is_same_storage,
    open_storage,
    open_study,
    patience_of,
    read_storage_url,
    read_trials_once,
)
from automl.study.trial import Stop, TrialResult
from automl.study.trial_record import read_spec
from automl.study.worker import run_worker
from tests.fixtures.postgres import PASSWORD, free_port
from tests.fixtures.reporter import RecordingReporter
from tests.fixtures.studies import folder_of, setup_without_files, spec_without_files, take_trial

SETUP = setup_without_files()

ODD = "50%?#x {a} [b] 'c\" ü~"
"""A folder's name that a URL, a shell, a glob, a format string and a config file each read in their own way."""


def study_at(url, name="tones"):
    return optuna.create_study(study_name=name, storage=open_storage(str(url)), load_if_exists=True)


def as_optuna_reads(path):
    """The study's trials, by Optuna without our care."""
    return optuna.load_study(study_name="tones", storage=JournalStorage(JournalFileBackend(str(path)))).trials


# --- where a storage lies -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("journal", [False, True])
def test_runs_may_lie_in_a_folder_of_any_name(tmp_path, monkeypatch, journal):
    (tmp_path / ODD).mkdir()
    monkeypatch.chdir(tmp_path / ODD)
    folder = StudyFolder(Path("runs") / "tones")
    create_study(folder, spec_without_files(storage="study.log" if journal else None), SETUP).ask()
    made = tmp_path / ODD / ("study.log" if journal else "runs/tones/study.db")
    assert made.stat().st_size > 0
    assert [path.name for path in tmp_path.iterdir()] == [ODD]
    monkeypatch.chdir(tmp_path)
    (found,) = list_studies(Path(ODD) / "runs")
    assert len(open_study(found).trials) == 1
    assert len(open_study(StudyFolder(tmp_path / ODD / "runs" / "tones"), read_storage_url(found)).trials) == 1
    assert shlex.split(found.command_line("best")) == ["automl", "best", "tones", "--runs", f"{ODD}/runs"]


def test_a_tilde_is_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    create_study(StudyFolder(Path("~/runs/tones")), spec_without_files(), SETUP)
    assert (tmp_path / "runs" / "tones" / "study.db").exists()
    assert [folder.name for folder in list_studies(Path("~/runs"))] == ["tones"]
    assert absolute_storage("~/study.log") == str(tmp_path / "study.log")


@pytest.mark.parametrize("url", ["study.log", "sqlite:///study.db"])
def test_a_storage_is_the_same_file_from_any_folder(tmp_path, monkeypatch, url):
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
    folder = folder_of(tmp_path)
    monkeypatch.chdir(tmp_path / "here")
    study = create_study(folder, spec_without_files(storage=url), SETUP)
    monkeypatch.chdir(tmp_path / "there")
    study.set_user_attr("note", "from elsewhere")
    assert open_study(folder).user_attrs["note"] == "from elsewhere"
    monkeypatch.chdir(tmp_path / "here")
    by_its_whole_path = spec_without_files(storage=absolute_storage(url))
    assert create_study(folder, by_its_whole_path, SETUP).user_attrs["note"] == "from elsewhere"
    assert not list((tmp_path / "there").iterdir())


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "sqlite:///file:x?uri=true", "postgresql://h/db"])
def test_what_is_no_file_stays_as_it_is(url):
    assert absolute_storage(url) == url


@pytest.mark.parametrize(
    ("storage", "shown"),
    [
        ("postgresql+psycopg://me:secret@host/db", "postgresql+psycopg://me:***@host/db"),
        ("postgresql://me:sec/ret#?%40@host:5432/db", "postgresql://me:***@host:5432/db"),
        ("postgresql://host/db?user=me&password=secret", "postgresql://host/db"),
        ("postgresql://me:sec@ret@host/db", "postgresql://***@host/db"),
        ("postgresql://me:secret@host:54x2/db", "postgresql://***@host:54x2/db"),
        ("postgresql:/me:secret@host/db", "postgresql://***@host/db"),
        ("nosuchdb://me:secret@host/db", "nosuchdb://me:***@host/db"),
        ("postgresql://host/db", "postgresql://host/db"),
        ("sqlite:////data/a b.db", "sqlite:////data/a b.db"),
        ("/data/me@home/study.log", "/data/me@home/study.log"),
    ],
)
def test_a_password_is_not_told(storage, shown):
    assert hide_password(storage) == shown
    if "secret" in storage:
        with pytest.raises(StudyError) as caught:
            open_storage(storage)
        assert "secret" not in str(caught.value)


def test_an_unquoted_at_in_a_password_is_explained():
    with pytest.raises(
        StudyError, match=r"postgresql://\*\*\*@host/db cannot be read: in a password, @ is written %40"
    ):
        open_storage("postgresql://me:sec@ret@host/db")


@pytest.mark.parametrize(
    ("url", "missing", "message"),
    [
        (
            "postgresql+psycopg://h/db",
            "psycopg",
            r"needs a driver \(.*psycopg.*\): pip install 'automl-timm\[postgresql\]'",
        ),
        ("postgresql+psycopg2://h/db", "psycopg2", r"pip install 'automl-timm\[postgresql\]'"),
        ("mysql+pymysql://h/db", "pymysql", r"needs a driver \(.*pymysql.*\): pip install pymysql"),
        ("mysql+mysqldb://h/db", "MySQLdb", r"pip install pymysql"),
    ],
)
def test_a_driver_that_is_missing_is_named_with_its_package(monkeypatch, url, missing, message):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(StudyError, match=message) as caught:
        open_storage(url)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "installed", "driver"),
    [
        ("postgresql://h/db", ["psycopg"], "postgresql+psycopg"),
        ("postgresql://h/db", ["psycopg2"], "postgresql+psycopg2"),
        ("postgres://h/db", ["psycopg", "psycopg2"], "postgresql+psycopg"),
        ("postgresql://h/db", [], "postgresql+psycopg"),
        ("postgresql+psycopg2://h/db", ["psycopg"], "postgresql+psycopg2"),
        ("mysql://h/db", ["pymysql"], "mysql+pymysql"),
        ("mysql://h/db", ["MySQLdb", "pymysql"], "mysql+mysqldb"),
        ("sqlite:////study.db", [], "sqlite"),
        ("oracle://h/db", [], "oracle"),
    ],
)
def test_a_url_without_a_driver_takes_one_that_is_installed(monkeypatch, url, installed, driver):
    monkeypatch.setattr(storage_module, "find_spec", lambda name: name if name in installed else None)
    assert storage_module._name_driver(make_url(url)).drivername == driver


def test_a_storage_is_the_same_whatever_its_driver_and_password():
    assert is_same_storage("postgresql://me:old@host/db", "postgresql+psycopg://me:new@host/db")
    assert not is_same_storage("postgresql://me:old@host/db", "postgresql://me:old@host/other")
    assert not is_same_storage("postgresql://host/db", "mysql://host/db")
    assert is_same_storage("/data/study.log", "/data/study.log")


def test_a_study_goes_on_from_any_folder(tmp_path, monkeypatch):
    given = {"path": "tones", "groups": "groups.csv"}
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path)
    spec = StudySpec.from_mapping({"data": given, "weights_dir": "weights"})
    create_study(StudyFolder(Path("runs/tones")), spec, SETUP)
    monkeypatch.chdir(tmp_path / "there")
    given = {"path": "../there/../tones", "groups": tmp_path / "groups.csv"}
    spec = StudySpec.from_mapping({"data": given, "weights_dir": "../weights"})
    study = create_study(StudyFolder(Path("../runs/tones")), spec, SETUP)
    assert read_spec(study).data.path == tmp_path / "tones"
    other = StudySpec.from_mapping({"data": {"path": "tones"}})
    with pytest.raises(StudyError, match=f"weights_dir was {tmp_path}/weights, is None"):
        create_study(StudyFolder(Path("../runs/tones")), other, SETUP)


# --- journals that were cut short ---------------------------------------------------------------------------------


@pytest.fixture
def lines(tmp_path, monkeypatch):
    """The lines of a journal of one study with one ended trial and a running one."""
    monkeypatch.setattr(os, "fsync", lambda _: None)  # which takes most of the time
    study = study_at(tmp_path / "whole.log")
    study.tell(study.ask({"x": optuna.distributions.FloatDistribution(0, 1)}), 0.5)
    study.ask().set_user_attr("host", "ü")
    return (tmp_path / "whole.log").read_bytes().splitlines(keepends=True)


def test_an_unfinished_last_line_is_cut_off_before_anything_is_appended(tmp_path, lines):
    before, last = b"".join(lines[:-1]), lines[-1]
    assert len(last) > 100
    path = tmp_path / "torn.log"
    for cut in range(len(last)):
        path.write_bytes(before + last[:cut])
        storage = open_storage(str(path))
        assert path.read_bytes() == before
        path.write_bytes(before + last[:cut])  # or that happens later
        storage.set_study_user_attr(0, "cut", cut)
        whole = path.read_bytes()
        assert whole.startswith(before)
        assert all(json.loads(line) for line in whole[len(before) :].splitlines())
        assert [trial.state for trial in as_optuna_reads(path)] == [TrialState.COMPLETE, TrialState.RUNNING]
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("torn")] == ["torn.log"]


def test_lines_glued_to_an_unfinished_one_are_mended_and_the_file_is_kept(tmp_path, lines, capsys):
    *before, one, two = lines
    for cut in range(1, len(two), 3):
        folder = tmp_path / str(cut)
        folder.mkdir()
        path = folder / "glued.log"
        broken = b"".join(before) + two[:cut] + one + two
        path.write_bytes(broken)
        open_storage(str(path))
        assert path.read_bytes() == b"".join(lines if cut < len(two) - 1 else [*before, two, one, two])
        assert len(as_optuna_reads(path)) == 2
        (kept,) = folder.glob("glued.log.*.damaged")
        assert kept.read_bytes() == broken
        assert f"is mended (line {len(lines) - 1}); as it was: {kept}" in capsys.readouterr().err


@pytest.mark.parametrize("damage", [b'{"op_code":2,"worker\n', b"\0\0\0\n", b"\xff\n", b"\n", b"[1]\n"])
def test_a_line_that_cannot_be_mended_is_named_and_nothing_is_changed(tmp_path, lines, damage):
    path = tmp_path / "bad journal.log"
    broken = b"".join([*lines[:2], damage, *lines[2:]])
    path.write_bytes(broken)
    with pytest.raises(StudyError, match=r"bad journal\.log is damaged in line 3, which holds no entry;") as caught:
        open_storage(str(path))
    assert path.read_bytes() == broken
    assert not list(tmp_path.glob("*.lock"))
    assert not list(tmp_path.glob("*.damaged"))
    _, _, command = str(caught.value).partition("keep what is above: ")
    subprocess.run(["sh", "-c", command], check=True)  # what it says to do helps
    assert path.read_bytes() == b"".join(lines[:2])
    assert study_at(path).study_name == "tones"


def test_a_line_that_another_program_damages_meanwhile_is_named(tmp_path):
    path = tmp_path / "study.log"
    study = study_at(path)
    whole = path.read_bytes()
    with path.open("ab") as journal:
        journal.write(b'{"op_code":2,"wor' + 2 * whole)
    with pytest.raises(StudyError, match=r"study\.log was damaged in line 2 by another program; run the same command"):
        _ = study.user_attrs
    assert study_at(path).user_attrs == {}


def test_a_full_disk_is_waited_for(tmp_path, monkeypatch):
    path, told = tmp_path / "study.log", []
    study = study_at(path)
    patience_of(study).print_line = told.append
    append, failures = JournalFileBackend.append_logs, [1, 2, 3]

    def fails(self, logs):
        if not failures:
            return append(self, logs)
        failures.pop()
        with storage_module._hold(self._lock), path.open("ab") as journal:
            journal.write(json.dumps(logs[0]).encode()[:20])
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(JournalFileBackend, "append_logs", fails)
    trial = study.ask()
    study.tell(trial, 0.5)
    assert [trial.value for trial in as_optuna_reads(path)] == [0.5]
    away, back = told
    assert away == f"the storage {path} does not answer ([Errno 28] No space left on device); waiting up to 10m00s"
    assert back.startswith(f"the storage {path} is back after 0.")


@pytest.mark.filterwarnings("ignore:The value of `grace_period`:UserWarning")
def test_the_lock_of_a_killed_process_is_taken_over(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(storage_module, "_TAKE_OVER_SECONDS", 1)
    Path("logs").mkdir()
    study = study_at("logs/study.log")
    script = (
        "import time; from automl.study.storage import open_storage; path = 'logs/study.log';"
        "open_storage(path)._backend._lock.acquire(); open(path, 'ab').write(b'{\"op');"
        "print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as holder:
        assert holder.stdout.readline() == b"held\n"
        holder.kill()
    assert os.path.lexists("logs/study.log.lock")
    began = time.monotonic()
    study.set_user_attr("after", "all")
    assert time.monotonic() - began < 10
    assert study_at("logs/study.log").user_attrs == {"after": "all"}
    assert not os.path.lexists("logs/study.log.lock")


# --- databases that go away ---------------------------------------------------------------------------------------


class Outage:
    """Makes statements of a storage's database fail, and answers of commits get lost."""

    def __init__(self, storage):
        self.statements = self.commits = 0
        self.fails_at, self.failures, self.loses = 0, 0, None
        engine = storage._backend.engine
        self._commit, self._error = engine.dialect.do_commit, engine.dialect.dbapi.OperationalError
        engine.dialect.do_commit = self._commit_and_lose
        event.listen(engine, "do_execute", self._execute)

    def _execute(self, *_):
        self.statements += 1
        if self.failures and self.statements > self.fails_at:
            self.failures -= 1
            raise self._error("server closed the connection\n\tThis probably means")

    def _commit_and_lose(self, connection):
        self._commit(connection)
        self.commits += 1
        if self.commits == self.loses:
            raise self._error("SSL SYSCALL error: EOF detected")

    def begin(self, fails_at=0, failures=0, loses=None):
        self.statements = self.commits = 0
        self.fails_at, self.failures, self.loses = fails_at, failures, loses


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request, tmp_path, monkeypatch):
    """A study in a database, its outages, and what is told of them."""
    url = request.getfixturevalue("postgres") if request.param == "postgresql" else None
    monkeypatch.setattr(storage_module, "_PAUSES", (0.001, 0.01))
    monkeypatch.setattr("optuna.storages._rdb.storage.time.sleep", lambda _: None)
    folder, told = folder_of(tmp_path), []
    spec = spec_without_files(sampler="random", pruner="none", budget={"trials": 200}, storage=url)
    study = create_study(folder, spec, SETUP)
    patience_of(study).print_line = told.append
    return study, folder, Outage(study._storage), told


def one_trial(study, folder):
    """All that a worker asks of a storage."""
    with take_trial(study, folder) as (trial, _):
        trial.suggest_float("x", 0, 1)
        trial.report(0.4, 1)
        trial.set_user_attr("epochs_done", 1)
        worker._end_trial(study, Artifacts(folder), trial, TrialResult(TrialState.COMPLETE, 0.5))
    worker._check_failures(study)


def test_a_database_that_goes_away_at_any_moment_is_waited_for_and_that_is_told_once(database, caplog):
    study, folder, outage, told = database
    outage.begin()
    one_trial(study, folder)
    statements = outage.statements
    for fails_at in range(0, statements, 5 if study._storage.engine.dialect.name == "sqlite" else 10):
        told.clear()
        outage.begin(fails_at, failures=6)  # Optuna itself tries no more than five times
        one_trial(study, folder)
        assert len(told) == (0 if outage.failures else 2)
    assert fails_at > 20
    outage.begin(failures=6)
    told.clear()
    one_trial(study, folder)
    away, back = told
    assert away.endswith(" does not answer (server closed the connection); waiting up to 10m00s")
    assert back.startswith(f"{away.partition(' does not')[0]} is back after 0.")
    for trial in study.trials:
        assert (trial.state, trial.value, trial.intermediate_values) == (TrialState.COMPLETE, 0.5, {1: 0.4})
        assert trial.user_attrs == {"epochs_done": 1}
        assert list(trial.params) == ["x"]
    assert not caplog.records


def test_an_answer_that_is_lost_does_no_harm(database):
    study, folder, outage, _ = database
    outage.begin()
    one_trial(study, folder)
    for number in range(0, outage.commits, 1 if study._storage.engine.dialect.name == "sqlite" else 4):
        outage.begin(loses=number + 1)
        one_trial(study, folder)
    outage.begin()
    while any(trial.state == TrialState.RUNNING for trial in study.trials):  # created twice; now taken up
        one_trial(study, folder)
    assert all(trial.value == 0.5 and trial.params for trial in study.trials)
    study.enqueue_trial({"x": 0.25})
    outage.begin(loses=3)
    one_trial(study, folder)
    outage.begin()
    one_trial(study, folder)
    assert study.trials[-1].params == {"x": 0.25} or study.trials[-2].params == {"x": 0.25}


def test_a_database_that_stays_away_is_a_clear_error_and_not_waited_for_again(database):
    study, folder, outage, told = database
    patience_of(study).seconds = 0.2
    outage.begin(failures=10**9)
    url = hide_password(read_storage_url(folder))
    expected = f"the storage {url} has not answered for 0.2s (server closed the connection); when it does, the same"
    for longest in (5, 0.1):
        began = time.monotonic()
        with pytest.raises(StorageLost) as caught:
            study.get_trials()
        assert time.monotonic() - began < longest
        assert str(caught.value).startswith(expected)
    assert len(told) == 1
    outage.begin()
    assert study.get_trials() == []
    assert len(told) == 2


def test_a_wish_to_stop_ends_the_waiting_at_once(database):
    study, _, outage, _ = database
    began = time.monotonic()
    patience_of(study).should_stop = lambda: time.monotonic() - began > 0.3
    storage_module._PAUSES = (5.0, 5.0)
    outage.begin(failures=10**9)
    with pytest.raises(StorageLost, match="not waited for any longer"):
        study.ask()
    assert time.monotonic() - began < 2


def test_what_is_wrong_with_a_call_is_no_outage(database):
    study, _, _, told = database
    trial = study.ask()
    study.tell(trial, 0.5)
    with pytest.raises(optuna.exceptions.UpdateFinishedTrialError):
        study._storage.set_trial_state_values(trial._trial_id, TrialState.COMPLETE, [0.5])
    with pytest.raises(KeyError):
        study._storage.get_trial(10**6)
    assert told == []


def test_a_storage_that_is_known_is_waited_for_when_it_is_opened(tmp_path, monkeypatch):
    monkeypatch.setattr(storage_module, "_PAUSES", (0.01, 0.02))
    told = []

    def print_line(line):
        told.append(line)
        (tmp_path / "late").mkdir(exist_ok=True)

    url = f"sqlite:///{tmp_path}/late/study.db"
    with pytest.raises(StudyError, match="cannot open the storage"):
        open_storage(url)
    open_storage(url, Patience(print_line=print_line))
    assert ["does not answer (unable to open database file)" in told[0], "is back" in told[1]] == [True, True]
    with pytest.raises(StorageLost, match=r"has not answered for 0\.1s"):
        open_storage(f"sqlite:///{tmp_path}/never/study.db", Patience(seconds=0.1, print_line=print_line))


@pytest.mark.parametrize("asked_to_stop", [False, True])
def test_a_worker_whose_storage_is_gone_leaves_its_trial_to_the_next(new_study, tmp_path, asked_to_stop):
    study, folder = new_study(trials=1, storage=None)
    outage, stop = Outage(study._storage), Stop()
    patience_of(study).seconds = 0.3

    def print_line(line):
        if asked_to_stop:
            stop.soon.set()

    patience_of(study).print_line = print_line
    report = study._storage.set_trial_intermediate_value

    def goes_away(*values):
        outage.begin(failures=10**9)
        report(*values)

    study._storage.set_trial_intermediate_value = goes_away
    if asked_to_stop:
        run_worker(study, folder, "cpu", stop)
    else:
        with pytest.raises(StorageLost, match="has not answered"):
            run_worker(study, folder, "cpu", stop)
    (trial,) = open_study(folder).trials
    assert trial.state == TrialState.RUNNING
    assert not (folder.trial_folder(0) / "error.txt").exists()
    run_worker(open_study(folder), folder, "cpu", Stop())
    (trial,) = open_study(folder).trials
    assert (trial.state, trial.user_attrs["taken_up"]) == (TrialState.COMPLETE, 1)
    assert sorted(trial.intermediate_values)[-1] == 8


# --- a real PostgreSQL --------------------------------------------------------------------------------------------


def test_a_server_that_crashes_and_comes_back_while_it_is_used(postgres, postgres_server, tmp_path, monkeypatch):
    monkeypatch.setattr(storage_module, "_PAUSES", (0.01, 0.1))
    folder, told = folder_of(tmp_path), []
    study = create_study(folder, spec_without_files(sampler="random", pruner="none", storage=postgres), SETUP)
    patience_of(study).print_line = told.append
    one_trial(study, folder)
    for how in (signal.SIGINT, signal.SIGQUIT):
        postgres_server.stop(how)
        starting = threading.Timer(0.3, postgres_server.start, [False])
        starting.start()
        one_trial(study, folder)
        starting.join()
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE] * 3
    assert [line.partition("***@")[2].split(" ", 1)[1].split(" (")[0].split(" after")[0] for line in told] == [
        "does not answer",
        "is back",
    ] * 2
    assert not any(PASSWORD in line or "sesame" in line for line in told)


@pytest.mark.slow
def test_a_connection_may_end_before_any_statement(postgres, postgres_server, tmp_path, monkeypatch):
    monkeypatch.setattr(storage_module, "_PAUSES", (0.01, 0.1))
    folder, seen, ends_at = folder_of(tmp_path), [], [-1]
    spec = spec_without_files(sampler="random", pruner="none", storage=postgres, budget={"trials": 200})
    study = create_study(folder, spec, SETUP)
    patience_of(study).print_line = lambda _: None
    name = make_url(postgres).database

    def end_connections(*_):
        seen.append(None)
        if len(seen) == ends_at[0]:
            postgres_server.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")

    event.listen(study._storage.engine, "do_execute", end_connections)
    one_trial(study, folder)
    statements = len(seen)
    for ends_at[0] in range(1, statements + 1, 5):
        seen.clear()
        one_trial(study, folder)
    assert statements > 30
    trials = open_study(folder).trials
    assert len(trials) == 1 + len(range(1, statements + 1, 5))
    for number, trial in enumerate(trials):
        assert (trial.number, trial.state, trial.value) == (number, TrialState.COMPLETE, 0.5)
        assert trial.intermediate_values == {1: 0.4}


def test_a_study_is_found_again_without_its_driver_and_with_another_password(postgres, postgres_server, tmp_path):
    folder = folder_of(tmp_path)
    create_study(folder, spec_without_files(storage=postgres), SETUP).ask()
    assert folder.storage_note.stat().st_mode & 0o777 == 0o600
    name = make_url(postgres).database
    plain = postgres_server.url(name, driver="postgresql")
    assert len(create_study(folder, spec_without_files(storage=plain), SETUP).trials) == 1
    assert read_storage_url(folder) == plain
    stored = postgres_server.execute("SELECT value_json FROM study_system_attributes", name)
    assert "sesame" not in str(stored)
    assert f"postgresql://automl:***@127.0.0.1:{postgres_server.port}/{name}" in str(stored)
    with pytest.raises(
        StudyError, match=r"exists in the storage postgresql://automl:\*\*\*@127.*; give --storage postg"
    ):
        create_study(folder, spec_without_files(), SETUP)
    with pytest.raises(StudyError, match=r"no study 'other' in the storage postgresql\+psycopg://automl:\*\*\*@127"):
        open_study(folder_of(tmp_path, "other"), postgres)


def test_a_wrong_password_and_a_database_that_is_not_there_are_one_line(postgres_server):
    for url, reason in (
        (postgres_server.url(password="wrong one"), 'password authentication failed for user "automl"'),
        (postgres_server.url("nothing"), 'database "nothing" does not exist'),
        (postgres_server.url(port=free_port()), "Connection refused"),
    ):
        with pytest.raises(StudyError, match=reason) as caught:
            open_storage(url)
        message = str(caught.value)
        assert message.startswith("cannot open the storage postgresql+psycopg://automl:***@127.0.0.1:")
        assert not any(word in message for word in ("wrong", "sesame", "\n"))


def test_a_search_that_is_stopping_needs_no_storage_to_come_to_its_end(tmp_path):
    def gone(*_):
        raise StorageLost("gone")

    reporter = SimpleNamespace(show_study=gone, print_line=print)
    search = api._Search(spec_without_files(), tmp_path, reporter, 0.0, 0, None, None, None)
    with pytest.raises(StorageLost):
        search._show_progress(None, None)
    search.stopping = True
    search._show_progress(None, None)


def test_a_search_goes_on_while_its_results_cannot_be_written(tmp_path, monkeypatch):
    reporter = RecordingReporter()
    search = api._Search(spec_without_files(), tmp_path, reporter, 0.0, 0, None, None, None)
    search.log = SimpleNamespace(update=lambda: None)
    result, errors = (
        SimpleNamespace(study=study_at(tmp_path / "study.log")),
        [OSError(28, "No space left on device")] * 2,
    )

    def write(_):
        if errors:
            raise errors.pop()

    monkeypatch.setattr(api, "_write_results", write)
    monkeypatch.setattr(api._Search, "_copy_results", lambda *_: None)
    for still_full in (True, True, False):
        search.look_at = 0.0
        search._show_progress(result, None)
        assert (search.written == -1) is still_full
    assert reporter.lines == [
        "warning: the disk is full: best.yaml and trials.csv are behind ([Errno 28] No space left on device)"
    ]
    errors.append(OSError(13, "Permission denied"))
    search.look_at, search.written, search.write_at = 0.0, -1, 0.0
    with pytest.raises(OSError, match="Permission"):
        search._show_progress(result, None)


def test_trials_are_read_once_while_a_recipe_is_drawn(tmp_path):
    folder = folder_of(tmp_path)
    study = create_study(folder, spec_without_files(), setup_without_files())
    other, statements = open_study(folder), []
    event.listen(study._storage.engine, "before_cursor_execute", lambda *_: statements.append(1))
    study.ask()
    with read_trials_once(study):
        assert len(study.get_trials()) == 1
        other.ask()
        statements.clear()
        assert len(study.get_trials()) == 1
        assert not statements
    assert len(study.get_trials()) == 2
    with read_trials_once(study):
        assert len(study.get_trials()) == 2


@pytest.mark.parametrize("wrong", [{"password": "wrong"}, {"database": "nowhere"}, {"username": "nobody"}])
def test_a_server_that_refuses_is_not_waited_for(postgres, wrong):
    url = make_url(postgres).set(**wrong).render_as_string(hide_password=False)
    told = []
    with pytest.raises(StudyError, match=r"cannot open the storage .*(authentication failed|does not exist)"):
        open_storage(url, Patience(print_line=told.append))
    assert not told
