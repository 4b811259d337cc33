import os
import shutil
import sqlite3

import optuna
import pytest

from automl.errors import StudyError
from automl.study import sqlite
from automl.study.sqlite import StudyConnection, is_local
from automl.study.storage import open_storage


@pytest.fixture
def mounts(tmp_path, monkeypatch):
    """Says what is mounted."""

    def mount(*lines):
        (tmp_path / "mounts").write_text("\n".join(lines) + "\n")
        monkeypatch.setattr(sqlite, "_MOUNTS", tmp_path / "mounts")

    mount("/dev/vda / ext4 rw 0 0")
    return mount


@pytest.fixture
def unwritable(monkeypatch):
    """As for a user who may only read; root may write everywhere."""
    access = os.access
    monkeypatch.setattr(sqlite.os, "access", lambda path, mode: mode != os.W_OK and access(path, mode))


def connect(path):
    return sqlite3.connect(path, timeout=1, factory=StudyConnection)


def pragma(connection, name):
    return connection.execute(f"PRAGMA {name}").fetchone()[0]


def begin(path):
    storage = open_storage(f"sqlite:///{path}")
    study = optuna.create_study(study_name="tones", storage=storage)
    study.tell(study.ask(), 0.5)
    return storage, study


def close(storage):
    storage.remove_session()
    storage._backend.engine.dispose()


def test_a_study_is_kept_with_a_log_that_goes_when_it_is_closed(tmp_path, mounts):
    storage, _ = begin(tmp_path / "study.db")
    with storage._backend.engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 1  # NORMAL
    assert (tmp_path / "study.db-wal").exists()
    close(storage)
    assert not (tmp_path / "study.db-wal").exists()
    again = optuna.load_study(study_name="tones", storage=open_storage(f"sqlite:///{tmp_path / 'study.db'}"))
    assert again.trials[0].value == 0.5


def test_a_copy_with_its_log_is_whole(tmp_path, mounts):
    storage, _ = begin(tmp_path / "study.db")
    (tmp_path / "copy").mkdir()
    for file in tmp_path.glob("study.db*"):
        shutil.copy(file, tmp_path / "copy")
    copy = optuna.load_study(study_name="tones", storage=open_storage(f"sqlite:///{tmp_path}/copy/study.db"))
    assert copy.trials[0].value == 0.5
    close(storage)
    close(copy._storage)


def test_no_log_on_a_file_system_that_other_machines_write(tmp_path, mounts):
    with connect(tmp_path / "study.db") as local:
        assert pragma(local, "journal_mode") == "wal"
    local.close()
    mounts("/dev/vda / ext4 rw 0 0", f"server:/x {tmp_path} nfs4 rw 0 0")
    remote = connect(tmp_path / "study.db")
    assert pragma(remote, "journal_mode") == "delete"  # a study that was moved there changes its mode
    assert pragma(remote, "synchronous") == 2  # FULL
    remote.close()


@pytest.mark.parametrize(
    ("lines", "local"),
    [
        (["/dev/vda / ext4 rw 0 0"], True),
        (["/dev/vda / ext4 rw 0 0", "server:/x {} nfs4 rw 0 0"], False),
        (["overlay / overlay rw 0 0", "//server/x {} cifs rw 0 0", "none {}/my\\040runs tmpfs rw 0 0"], True),
        (["/dev/vda / ext4 rw 0 0", "a {} fuse.sshfs rw 0 0", "b {} xfs rw 0 0"], True),
        (["server:/ / nfs rw 0 0"], False),
        ([], False),
    ],
)
def test_where_a_file_lies(tmp_path, mounts, lines, local):
    mounts(*(line.format(tmp_path) for line in lines))
    assert is_local(tmp_path / "my runs" / "study.db") is local


def test_where_nothing_says_what_is_mounted_there_is_no_log(tmp_path, monkeypatch):
    monkeypatch.setattr(sqlite, "_MOUNTS", tmp_path / "none")
    assert not is_local(tmp_path / "study.db")


def test_who_may_only_read_reads_a_study_at_rest_and_an_open_one(tmp_path, mounts, unwritable):
    path = tmp_path / "study.db"
    storage, study = begin(path)
    reader = open_storage(f"sqlite:///{path}")
    assert len(optuna.load_study(study_name="tones", storage=reader).trials) == 1
    study.ask()
    assert len(optuna.load_study(study_name="tones", storage=reader).trials) == 2
    close(reader)
    close(storage)
    assert not (tmp_path / "study.db-wal").exists()
    reader = open_storage(f"sqlite:///{path}")
    found = optuna.load_study(study_name="tones", storage=reader)
    assert len(found.trials) == 2
    assert sorted(file.name for file in tmp_path.glob("study.db*")) == ["study.db"]
    close(reader)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_read(tmp_path):
    storage, _ = begin(tmp_path / "study.db")
    close(storage)
    tmp_path.chmod(0o555)
    try:
        reader = open_storage(f"sqlite:///{tmp_path / 'study.db'}")
        assert len(optuna.load_study(study_name="tones", storage=reader).trials) == 1
        close(reader)
    finally:
        tmp_path.chmod(0o755)


def test_a_database_in_memory_and_a_folder_that_is_not_there(tmp_path):
    assert pragma(connect(":memory:"), "journal_mode") == "memory"
    with pytest.raises(StudyError, match="cannot open the storage"):
        open_storage(f"sqlite:///{tmp_path}/none/study.db")
