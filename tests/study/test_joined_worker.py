"""`automl worker --data`: a machine that has nothing of the study but its storage, and a copy of the data."""

import shutil
import socket

import pytest
from optuna.trial import TrialState
from typer.testing import CliRunner

from automl.cli.main import app
from automl.data.dataset import open_dataset
from automl.errors import AutomlError, StudyError
from automl.spec import DataSpec
from automl.study.folder import StudyFolder
from automl.study.joined_worker import OwnPaths, join_and_train, join_as_begun
from automl.study.local_setup import LocalSetup
from automl.study.setup import load_setup
from automl.study.storage import open_study
from automl.study.trial_record import write_study_record
from tests.fixtures.reporter import RecordingReporter
from tests.fixtures.studies import train_in_this_process


@pytest.fixture
def begun(new_study, tmp_path, images, monkeypatch):
    """A study that another machine began, and a copy of its data here."""
    train_in_this_process(monkeypatch)
    storage = f"sqlite:///{tmp_path}/study.db"
    study, _ = new_study(trials=2, storage=storage)
    shutil.copytree(images, tmp_path / "copy")
    return study, storage


def work(*words):
    return CliRunner().invoke(app, ["worker", "--study", "tones", *map(str, words)])


def test_a_machine_joins_with_its_own_copy_and_trains_what_is_left(begun, tmp_path, monkeypatch):
    study, storage = begun
    monkeypatch.setenv("AUTOML_STORAGE", storage)
    result = work("--data", tmp_path / "copy", "--runs", tmp_path / "mine", "--device", "cpu")
    assert result.exit_code == 0, result.output
    assert f"joined study tones: its 48 samples are the same in {tmp_path}/copy; 1 of 1 backbone" in result.output
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE] * 2
    folder = StudyFolder(tmp_path / "mine" / "tones")
    assert open_study(folder).best_trial.number == study.best_trial.number  # commands on this machine find it
    assert folder.storage_note.stat().st_mode & 0o077 == 0
    assert LocalSetup.load(folder).joined
    assert open_study(folder)._storage.engine.url.database == f"{tmp_path}/study.db"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--data", "nowhere"], "no such file or folder: nowhere"),
        ([], "this machine has not joined the study: give --data, its own copy of /"),
        (["--data", "copy", "--device", "cuda:7"], "no device 'cuda:7' here"),
        (["--data", "copy", "--weights-dir", "nowhere"], "--weights-dir nowhere is not a folder"),
        (["--data", "copy", "--storage", "sqlite:///none.db"], "there is no file"),
    ],
)
def test_what_is_wrong_is_one_line_and_leaves_nothing_behind(begun, tmp_path, monkeypatch, words, message):
    _, storage = begun
    monkeypatch.chdir(tmp_path)
    given = [] if "--storage" in words else ["--storage", storage]
    result = work(*given, *words, "--runs", tmp_path / "mine")
    assert isinstance(result.exception, AutomlError)  # exit code 2, by `automl.cli.main.run`
    assert message in str(result.exception)
    assert not (tmp_path / "mine" / "tones").exists()


def test_a_worker_without_a_storage_says_where_it_may_be_given(tmp_path, monkeypatch):
    monkeypatch.delenv("AUTOML_STORAGE", raising=False)
    result = work("--data", tmp_path, "--runs", tmp_path)
    assert str(result.exception).startswith("a worker needs --storage or AUTOML_STORAGE")


def test_a_changed_file_is_named(begun, tmp_path):
    _, storage = begun
    (tmp_path / "copy" / "dark" / "03.png").write_bytes(b"changed")
    result = work("--storage", storage, "--data", tmp_path / "copy", "--runs", tmp_path / "mine")
    assert "1 file is of another size, such as dark/03.png: 7 bytes here" in str(result.exception)
    assert not (tmp_path / "mine" / "tones").exists()


def test_a_folder_of_another_storage_is_refused(begun, tmp_path):
    _, storage = begun
    folder = StudyFolder(tmp_path / "mine" / "tones")
    folder.make_folders()
    folder.storage_note.write_text(f"{tmp_path}/tones.log\n")
    with pytest.raises(AutomlError, match=r"holds a study of the storage .*tones\.log; give another folder"):
        join_and_train(folder, storage, OwnPaths(tmp_path / "copy"), "cpu", RecordingReporter())


def test_copies_that_were_taken_out_are_not_looked_for_again(images):
    spec = DataSpec(path=images, drop_copies=True, holdout_fraction=0.2)
    own = OwnPaths(data=images).describe_data(spec)
    assert own == spec.model_copy(update={"drop_copies": False})
    assert len(open_dataset(own, 0).samples) == 48


def test_a_study_of_an_earlier_version_is_not_joined(begun, tmp_path):
    study, storage = begun
    write_study_record(study, files="")
    result = work("--storage", storage, "--data", tmp_path / "copy", "--runs", tmp_path / "mine")
    assert "an earlier version of automl began study 'tones'" in str(result.exception)


def test_a_machine_with_data_under_the_same_path_joins_with_a_folder_of_its_own(new_study, tmp_path):
    study, folder = new_study()
    elsewhere = StudyFolder(tmp_path / "node" / "tones")
    join_as_begun(study, elsewhere, "cpu")
    there, here = load_setup(study, elsewhere).dataset.samples, load_setup(study, folder).dataset.samples
    assert there[["path", "label", "split"]].equals(here[["path", "label", "split"]])
    assert len(there) == 48


def test_a_machine_without_the_data_is_named(new_study, images, tmp_path):
    study, _ = new_study()
    away = images.rename(images.with_name("away"))
    try:
        with pytest.raises(StudyError, match=f"^{socket.gethostname()} cannot join the study: .*{images}"):
            join_as_begun(study, StudyFolder(tmp_path / "node" / "tones"), "cpu")
    finally:
        away.rename(images)
