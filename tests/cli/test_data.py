import shutil
import subprocess
import sys

import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from automl.cli.data import data
from automl.errors import DataError, SpecError

app = typer.Typer()
app.command()(data)


@pytest.fixture
def folder(tmp_path):
    for split, n in (("train", 9), ("val", 4)):
        for name in ("cat", "dog"):
            (tmp_path / split / name).mkdir(parents=True)
            for k in range(n):
                Image.new("RGB", (20, 10), (k, len(name + split), ord(name[0]))).save(
                    tmp_path / split / name / f"{k}.png"
                )
    return tmp_path


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_plain_lines_when_piped(folder):
    found = run(folder, "--holdout-fraction", 0, "--real-class", "cat")
    assert found.exit_code == 0
    assert found.stdout.splitlines() == [
        f"data: {folder}",
        "format: folder",
        "classes: 2 (cat, dog)",
        "positive class: dog",
        "real class: cat",
        "width: 20 to 20 pixels, median 20",
        "height: 10 to 10 pixels, median 10",
        "train: 18 samples (cat 9, dog 9)",
        "validation: 8 samples (cat 4, dog 4)",
        "no problems found",
    ]


def test_what_is_wrong_is_told_by_name(folder):
    shutil.copy(folder / "train/cat/1.png", folder / "val/cat/copy.png")
    shutil.copy(folder / "train/dog/1.png", folder / "train/cat/copy.png")
    (folder / "train/cat/bad.png").write_text("no image")
    out = run(folder, "--holdout-fraction", 0).stdout
    assert "leak: train/cat/1.png = val/cat/copy.png: the same image in train and validation\n" in out
    assert "conflict: train/cat/copy.png = train/dog/1.png: the same image as cat and as dog\n" in out
    assert "unreadable: train/cat/bad.png: not an image\n" in out


def test_a_long_list_is_cut(folder):
    for k in range(14):
        (folder / f"train/cat/bad{k}.png").touch()
    lines = run(folder).stdout.splitlines()
    assert sum(line.startswith("unreadable:") for line in lines) == 11
    assert lines[-1] == "unreadable: … and 4 more"


def test_a_table_on_a_terminal(folder, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    out = run(folder, "--holdout-fraction", 0).output
    assert "│ validation │   4 │   4 │       8 │" in out


def test_mistakes_are_automl_errors(folder):
    assert isinstance(run(folder / "nowhere").exception, DataError)
    assert isinstance(run(folder, "--format", "zip").exception, SpecError)
    assert isinstance(run(folder, "--holdout-fraction", 2).exception, SpecError)
    assert isinstance(run(folder, "--real-class", "cow").exception, SpecError)


def test_the_command_is_light_to_import():
    code = "import sys, automl.cli.data; print(sorted({'torch', 'pandas', 'numpy', 'PIL'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.shared
def test_the_shared_faces(shared):
    lines = run(shared / "data" / "ffdi_faces").stdout.splitlines()
    assert "format: ffdi" in lines
    assert "real class: 0" in lines
    assert "holdout: 160 samples (0 80, 1 80)" in lines
