import subprocess
import sys

import pytest
import typer
from typer.testing import CliRunner

from automl.cli.main import run
from automl.cli.preview import preview
from tests.fixtures.photos import save_photos

APP = typer.Typer()
APP.command()(preview)


def test_it_writes_into_a_folder_of_the_datas_name_and_says_where(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for number, label in enumerate(("a", "b")):
        save_photos(tmp_path / "photos" / label, range(5 * number, 5 * number + 5))
    (tmp_path / "recipe.yaml").write_text("backbone: resnet18\nimage_size: 32\n")
    result = CliRunner().invoke(APP, ["--data", "photos", "--recipe", "recipe.yaml", "--samples", "2", "--seed", "3"])
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert "2 samples of 4 to train on, as the recipe recipe.yaml changes them." in lines
    assert lines[-2:] == ["written: preview/photos/preview.html", "written: preview/photos/preview.png"]
    assert (tmp_path / "preview/photos/preview.html").is_file()


def test_a_mistake_is_one_line_and_exit_code_2(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes.yaml").write_text("- no recipe\n")
    with pytest.raises(SystemExit) as caught:
        run(["preview", "--recipe", "notes.yaml"])
    assert caught.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("Error: notes.yaml is no recipe")


def test_help_needs_nothing_heavy():
    code = "import sys, automl.cli.preview; sys.exit(bool({'torch', 'optuna', 'PIL'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
