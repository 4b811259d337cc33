import socket

import pytest
from typer.testing import CliRunner

from automl.cli.main import app
from automl.errors import StudyError
from automl.recipe import Recipe
from automl.study.folder import StudyFolder


@pytest.fixture
def study(new_study, tmp_path):
    """A study of three trials that nobody had to train."""
    study, folder = new_study("faces", trials=5)
    for value in (0.8, 0.9):
        trial = study.ask()
        trial.set_user_attr(
            "recipe", Recipe(backbone="test_byobnet.r160_in1k", learning_rate=value / 1000).model_dump_json()
        )
        trial.set_user_attr("backbone", "test_byobnet.r160_in1k")
        study.tell(trial, value)
    study.ask()
    return folder


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "200"})


def test_studies_are_listed(study):
    found = run("studies", "--runs", study.path.parent)
    assert found.exit_code == 0
    header, line = found.stdout.splitlines()
    assert header.split() == ["study", "trials", "metric", "best", "backbone", "data"]
    assert line.split()[:7] == ["faces", "2", "of", "5", "auc", "0.9000", "test_byobnet.r160_in1k"]


def test_no_studies_say_how_to_begin(tmp_path):
    found = run("studies", "--runs", tmp_path / "runs")
    assert found.exit_code == 0
    assert "automl search" in found.stdout


def test_a_study_that_cannot_be_read_hides_no_other(study):
    for name, note in (("torn", "sqlite:////no/such/folder/x.db"), ("gone", "/no/such/folder/x.log")):
        folder = StudyFolder(study.path.parent / name)
        folder.make_folders()
        folder.storage_note.write_text(note)
    found = run("studies", "--runs", study.path.parent)
    assert found.exit_code == 0
    assert "faces" in found.stdout
    assert found.stderr.count("warning: ") == 2


@pytest.mark.parametrize("named", [True, False])
def test_the_best_recipe_again(study, named):
    found = run("best", *(["faces"] if named else []), "--runs", study.path.parent)
    assert found.exit_code == 0
    assert "best recipe: trial 1, validation auc 0.9000" in found.stdout
    assert "backbone: test_byobnet.r160_in1k" in found.stdout
    assert "2 complete, 1 unfinished" in found.stdout
    assert f"automl best faces --runs {study.path.parent}" in found.stdout


def test_a_study_without_a_complete_trial_says_so(new_study):
    _, folder = new_study("empty")
    found = run("best", "empty", "--runs", folder.path.parent)
    assert found.exit_code == 0
    assert "no trial is complete yet" in found.stdout


@pytest.mark.parametrize("command", ["best", "dashboard"])
def test_an_unknown_study_is_a_mistake(study, command):
    with pytest.raises(StudyError, match=r"no study 'bees' in .*; studies there: faces"):
        CliRunner().invoke(app, [command, "bees", "--runs", str(study.path.parent)], catch_exceptions=False)
    with pytest.raises(StudyError, match=r"no studies in .*; begin one with"):
        CliRunner().invoke(app, [command, "--runs", str(study.path)], catch_exceptions=False)


def test_a_port_that_is_taken_is_a_mistake(study):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        found = run("dashboard", "--runs", study.path.parent, "--port", port)
    assert isinstance(found.exception, StudyError)
    assert str(found.exception) == f"port {port} is taken; give another one with --port"


@pytest.mark.parametrize("port", ["0", "70000", "http"])
def test_a_port_that_is_none(study, port):
    assert run("dashboard", "faces", "--runs", study.path.parent, "--port", port).exit_code == 2
