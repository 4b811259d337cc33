"""Files of a study in a store that other machines reach: a folder, memory, and Amazon's protocol spoken by moto."""

import os
import threading
import time
import uuid
from pathlib import Path

import pytest
import torch

from automl.errors import StudyError
from automl.study import artifacts as artifacts_module
from automl.study.artifacts import (
    Artifacts,
    absolute_artifacts,
    check_artifacts,
    hide_credentials,
    name_folder,
    open_artifacts,
)
from automl.study.folder import StudyFolder
from automl.study.setup import create_study
from automl.study.trial_record import write_study_record
from tests.fixtures.studies import folder_of, setup_without_files, spec_without_files


@pytest.fixture(scope="module")
def s3_server():
    """A server that speaks S3; its credentials are in the environment, as a user's are."""
    pytest.importorskip("s3fs", reason="needs the extra s3")
    moto = pytest.importorskip("moto.server", reason="needs moto")
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "testing")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        import s3fs

        # Tests of a module do not all run in a row in one process: an earlier server of it may be remembered.
        s3fs.S3FileSystem.clear_instance_cache()
        s3fs.S3FileSystem().mkdir("bucket")
        yield
    server.stop()


@pytest.fixture(params=["folder", "memory", "s3"])
def url(request, tmp_path):
    if request.param == "folder":
        (tmp_path / "shared").mkdir()
        return str(tmp_path / "shared" / "study")
    if request.param == "memory":
        return f"memory://{uuid.uuid4().hex}/study"
    request.getfixturevalue("s3_server")
    return f"s3://bucket/{uuid.uuid4().hex}/study"


@pytest.fixture
def two(tmp_path, url):
    """Two machines' views of one study."""
    lines = []
    machines = [Artifacts(StudyFolder(tmp_path / name / "tones"), url, lines.append) for name in "ab"]
    for one in machines:
        one.folder.make_folders()
    yield machines
    assert lines == []


def write_checkpoint(folder, number=0, step=1, name="checkpoint.pt"):
    path = folder.trial_folder(number) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"progress": [step, 0.0, 0.0, 0], "weights": torch.full((1000,), float(step))}, path)
    return path


def step_of(path):
    return torch.load(path, weights_only=True)["progress"][0]


# --- between machines ---------------------------------------------------------------------------------------------


def test_a_checkpoint_reaches_another_machine_the_newest_wins(two):
    a, b = two
    a.check()
    assert not b.fetch_checkpoint(b.folder.trial_folder(0) / "checkpoint.pt")
    for step in range(1, 6):
        path = write_checkpoint(a.folder, step=step)
        a.upload(path)
    assert a.flush()
    there = b.folder.trial_folder(0) / "checkpoint.pt"
    assert b.has(there)
    assert b.fetch_checkpoint(there)
    assert step_of(there) == 5
    b.upload(write_checkpoint(b.folder, step=9))
    assert b.flush()
    assert a.fetch_checkpoint(path)  # its own one is older
    assert step_of(path) == 9
    write_checkpoint(a.folder, step=11)  # killed before it was copied: its own one is newer
    assert a.fetch_checkpoint(path)
    assert step_of(path) == 11
    assert a.flush()
    assert b.fetch_checkpoint(there)  # it was copied late
    assert step_of(there) == 11
    assert sorted(p.name for p in path.parent.iterdir()) == ["checkpoint.pt"]


def test_what_is_deleted_is_gone_for_all(two):
    a, b = two
    path = write_checkpoint(a.folder)
    a.upload(path)
    a.delete(path)
    assert a.flush()
    a.delete(path)  # there is nothing
    assert a.flush()
    assert not b.has(b.folder.trial_folder(0) / "checkpoint.pt")
    assert not b.fetch(b.folder.trial_folder(0) / "checkpoint.pt")


def test_the_last_states_of_trials_that_are_not_the_best_go_newer_ones_stay(two):
    a, b = two
    for number in (3, 4, 5, 10_000):
        a.upload(write_checkpoint(a.folder, number, name="last.pt"))
    assert a.flush()
    b.keep_last({4}, newest=5)
    assert b.flush()
    left = [n for n in (3, 4, 5, 10_000) if b.has(b.folder.trial_folder(n) / "last.pt")]
    assert left == [4, 10_000]


def test_any_file_of_the_folder_may_have_another_name_there(two):
    a, b = two
    log = a.folder.log_file("cpu")
    log.write_text("trained")
    a.upload(log, "workers/host-cpu.log")
    assert a.flush()
    fetched = b.folder.path / "workers" / "host-cpu.log"
    assert b.fetch(fetched)
    assert fetched.read_text() == "trained"
    with pytest.raises(ValueError, match="not in the subpath"):
        a.upload(Path("/etc/passwd"))


def test_predictions_that_are_missing_there_are_copied_late(two):
    a, b = two
    for number in (0, 1):
        file = a.folder.predictions_file(number)
        file.parent.mkdir(exist_ok=True)
        file.write_text(f"of trial {number}")
    a.upload(file)
    assert a.flush()
    file.write_text("not copied again")
    a.upload_missing()
    assert a.flush()
    files = [b.folder.predictions_file(number) for number in (0, 1)]
    assert all(map(b.fetch, files))
    assert [file.read_text() for file in files] == ["of trial 0", "of trial 1"]


def test_a_damaged_checkpoint_counts_as_none(two):
    a, b = two
    path = write_checkpoint(a.folder)
    path.write_bytes(b"no checkpoint")
    a.upload(path)
    assert a.flush()
    there = b.folder.trial_folder(0) / "checkpoint.pt"
    assert not b.fetch_checkpoint(there)
    assert not a.fetch_checkpoint(path)
    assert not path.exists()  # it would fail the trial
    write_checkpoint(b.folder, step=2)
    assert b.fetch_checkpoint(there)
    assert step_of(there) == 2
    assert b.flush()
    assert a.fetch_checkpoint(path)
    assert step_of(path) == 2


def test_a_checkpoint_that_would_run_code_is_not_taken(two, tmp_path):
    a, b = two

    class Evil:
        def __reduce__(self):
            return (os.system, (f"touch {tmp_path}/evil",))

    path = a.folder.trial_folder(0) / "checkpoint.pt"
    path.parent.mkdir()
    torch.save({"progress": [9, Evil()]}, path)
    a.upload(path)
    assert a.flush()
    assert not b.fetch_checkpoint(b.folder.trial_folder(0) / "checkpoint.pt")
    assert not (tmp_path / "evil").exists()


def test_a_file_that_is_replaced_while_it_is_copied_arrives_whole(tmp_path):
    (tmp_path / "shared").mkdir()
    a = Artifacts(StudyFolder(tmp_path / "a" / "tones"), str(tmp_path / "shared" / "study"))
    path = a.folder.trial_folder(0) / "checkpoint.pt"
    path.parent.mkdir(parents=True)
    seen, stop = set(), threading.Event()

    def read():
        while not stop.is_set():
            try:
                seen.add((tmp_path / "shared" / "study" / "trials" / "0000" / "checkpoint.pt").read_bytes())
            except FileNotFoundError:
                continue

    reader = threading.Thread(target=read)
    reader.start()
    contents = {bytes([k]) * (200_000 + k) for k in range(30)}
    for content in contents:
        temporary = path.with_suffix(".tmp")
        temporary.write_bytes(content)
        temporary.replace(path)
        a.upload(path)
        time.sleep(0.01)
    assert a.flush()
    stop.set()
    reader.join()
    assert seen <= contents
    assert [p.name for p in (tmp_path / "shared" / "study" / "trials" / "0000").iterdir()] == ["checkpoint.pt"]


# --- a store that is away -----------------------------------------------------------------------------------------


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(artifacts_module, "_PAUSES", (0.05, 0.1))


def test_a_store_that_is_away_is_waited_for_and_nothing_is_lost(tmp_path, quick):
    shared, lines = tmp_path / "shared", []
    shared.mkdir()
    a = Artifacts(StudyFolder(tmp_path / "a" / "tones"), str(shared / "study"), lines.append)
    path = write_checkpoint(a.folder, step=1)
    shared.rename(tmp_path / "unmounted")
    a.upload(path)
    assert not a.flush(seconds=0.3)
    assert lines == [
        f"the artifacts {shared}/study do not answer (there is no folder {shared}); trying again",
        f"artifacts: not in {shared}/study: trials/0000/checkpoint.pt; here they are in {a.folder.path}, "
        "and are copied when this machine goes on with the study",
    ]
    assert not shared.exists()  # what is not mounted is not made
    write_checkpoint(a.folder, step=2)
    (tmp_path / "unmounted").rename(shared)
    assert a.flush()
    assert step_of(shared / "study" / "trials" / "0000" / "checkpoint.pt") == 2
    assert len(lines) == 3
    assert lines[2].startswith(f"the artifacts {shared}/study are back after ")


def test_the_file_that_is_being_copied_when_time_is_up_is_named(tmp_path, monkeypatch):
    begun, go_on, lines = threading.Event(), threading.Event(), []
    a = Artifacts(StudyFolder(tmp_path / "a" / "tones"), str(tmp_path / "study"), lines.append)
    monkeypatch.setattr(a, "_do", lambda *_: (begun.set(), go_on.wait()))
    a.upload(write_checkpoint(a.folder, step=1))
    begun.wait()
    assert not a.flush(seconds=-1)
    go_on.set()
    assert lines[0].startswith(f"artifacts: not in {tmp_path}/study: trials/0000/checkpoint.pt; here they are in ")


def test_who_waits_for_copies_is_told_how_many_are_left(tmp_path, monkeypatch):
    monkeypatch.setattr(artifacts_module, "_TELL_SECONDS", 0.0)
    lines, shown = [], threading.Event()
    folder, store = StudyFolder(tmp_path / "a" / "tones"), str(tmp_path / "study")
    a = Artifacts(folder, store, lambda line: shown.set() or lines.append(line))
    monkeypatch.setattr(a, "_do", lambda *_: shown.wait())
    a.upload(write_checkpoint(a.folder, step=1))
    assert a.flush()
    assert lines == [f"artifacts: copying to {tmp_path}/study: 1 file left, such as trials/0000/checkpoint.pt"]


def test_who_waits_for_a_checkpoint_hears_a_wish_to_stop(tmp_path, quick):
    lines = []
    a = Artifacts(StudyFolder(tmp_path / "a" / "tones"), str(tmp_path / "away" / "study"), lines.append)
    a.folder.make_folders()
    stops = iter([False, False, True])
    assert not a.fetch_checkpoint(a.folder.trial_folder(0) / "checkpoint.pt", lambda: next(stops))
    assert len(lines) == 1
    a.upload(write_checkpoint(a.folder))
    started = time.monotonic()
    assert not a.flush(lambda: True)
    assert time.monotonic() - started < 5


# --- what is wrong with a URL -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("s4://bucket/x", r"--artifacts s4://bucket/x is no URL that fsspec opens: Protocol not known: s4; give a"),
        ("gs://bucket/x", r"--artifacts gs://bucket/x needs a package that is not installed: .*gcsfs"),
        ("sftp://me:secret@host/x", r"--artifacts sftp://\*\*\*@host/x needs a package that is not installed"),
        ("/no/such/folder/study", r"--artifacts /no/such/folder/study cannot be written: there is no folder /no/such"),
    ],
)
def test_a_wrong_url_is_one_clear_line(tmp_path, url, message):
    with pytest.raises(StudyError, match=message) as caught:
        Artifacts(StudyFolder(tmp_path / "tones"), url).check()
    assert "secret" not in str(caught.value)


def test_a_folder_for_artifacts_is_made_where_its_disk_is(tmp_path):
    check_artifacts(str(tmp_path / "new"), StudyFolder(tmp_path / "runs"))
    assert [*(tmp_path / "new").iterdir()] == []
    with pytest.raises(StudyError, match="there is no folder"):
        check_artifacts(str(tmp_path / "not" / "mounted"), StudyFolder(tmp_path / "runs"))


def test_a_bucket_that_is_not_there_is_one_clear_line(tmp_path, s3_server):
    with pytest.raises(StudyError, match=r"--artifacts s3://none/x cannot be written: .*bucket does not exist.*; give"):
        Artifacts(StudyFolder(tmp_path / "tones"), "s3://none/x").check()


def test_a_folder_that_cannot_be_written_is_one_clear_line(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(StudyError, match=r"/file/study cannot be written: "):
        Artifacts(StudyFolder(tmp_path / "tones"), str(tmp_path / "file" / "study")).check()


def test_credentials_are_never_printed(tmp_path):
    assert hide_credentials("ftp://me:pass@host/x?key=1") == "ftp://***@host/x"
    assert hide_credentials("/folder") == "/folder"
    lines = []
    a = Artifacts(StudyFolder(tmp_path / "tones"), "memory://me:se%2Fcret@host/study", lines.append)
    a._note_failure(OSError("login of me with se/cret (se%2Fcret) failed"))
    assert lines == [
        "the artifacts memory://***@host/study do not answer (login of *** with *** (***) failed); trying again"
    ]


# --- of a study ---------------------------------------------------------------------------------------------------


def test_a_study_without_artifacts_copies_nothing(tmp_path):
    folder = folder_of(tmp_path)
    study = create_study(folder, spec_without_files(), setup_without_files())
    none = open_artifacts(study, folder)
    none.check()
    path = write_checkpoint(folder)
    none.upload(path)
    none.delete(path)
    none.keep_last([], 9)
    assert none.flush()
    assert none.has(path)
    assert none.fetch(path)
    assert none.fetch_checkpoint(path)
    assert not none.fetch(folder.best)


def test_two_studies_of_one_name_do_not_meet(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "shared").mkdir()
    urls = set()
    for runs in ("one", "two"):
        folder = StudyFolder(tmp_path / runs / "tones")
        study = create_study(folder, spec_without_files(artifacts="shared"), setup_without_files())
        again = create_study(folder, spec_without_files(artifacts="shared"), setup_without_files())
        urls |= {open_artifacts(study, folder).url, open_artifacts(again, folder).url}
    assert len(urls) == 2
    assert all(url.startswith(f"{tmp_path}/shared/tones-") for url in urls)
    assert name_folder("tones") != name_folder("tones")
    assert absolute_artifacts("s3://bucket/x") == "s3://bucket/x"


def test_a_storage_cannot_lead_out_of_the_artifacts(tmp_path):
    folder = folder_of(tmp_path)
    study = create_study(folder, spec_without_files(artifacts=str(tmp_path)), setup_without_files())
    write_study_record(study, artifacts="../elsewhere")
    with pytest.raises(StudyError, match=r"'\.\./elsewhere', which is no name of a folder"):
        open_artifacts(study, folder)
