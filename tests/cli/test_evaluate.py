import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from automl.cli.main import app, run
from tests.fixtures.models import write


@pytest.fixture
def faces(tmp_path, monkeypatch):
    """A label file of twelve images, a generator for each fake, and a model; the working folder is theirs."""
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "model")
    random = np.random.default_rng(0)
    rows = ["file,label,generator"]
    for k in range(12):
        pixels = random.integers(0, 160, (40, 40, 3)) + 60 * (k % 2)
        Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / f"{k}.png")
        rows.append(f"{k}.png,{k % 2},{'gan' if k % 2 else ''}")
    (tmp_path / "labels.csv").write_text("\n".join(rows) + "\n")
    return tmp_path


def test_it_prints_tables_and_writes_three_files(faces):
    flags = ["--rename-label", "0=real", "--rename-label", "1=fake", "--by", "generator", "--device", "cpu"]
    result = CliRunner().invoke(app, ["evaluate", "model", "--data", "labels.csv", "--out", "out", *flags])
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    for title in ("metrics", "classes, model", "by generator"):
        assert title in lines
    row = next(line for line in lines if line.startswith("gan"))
    assert "6 of class fake" in row
    assert "all 6 of class real" in row
    assert lines[-3:] == [f"written: out/{name}" for name in ("metrics.json", "predictions.csv", "index.html")]
    assert sorted(path.name for path in (faces / "out").iterdir()) == ["index.html", "metrics.json", "predictions.csv"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["model"], "name the labelled data set to evaluate on: --data"),
        (["model", "--data", "labels.csv"], "its labels are '0' (6), '1' (6), the model's classes are 'real', 'fake'"),
        (["model", "--data", "labels.csv", "--rename-label", "fake"], "--rename-label 'fake': write OLD=NEW"),
        (["model", "--data", "labels.csv", "--by", "kind"], "--by 'kind' is not one of its columns"),
        (["model", "--data", "labels.csv", "--fpr", "2"], "--fpr 2.0: a false-positive rate is between 0 and 1"),
        (["model", "--data", "labels.csv", "--out", "model"], "model is not empty and holds no evaluation"),
        (["nowhere", "--data", "nowhere", "--degrade", "nosuch"], "no degradation is named 'nosuch'"),
        (["nowhere", "--data", "nowhere", "--weights-dir", "nosuch"], "--weights-dir nosuch is not a folder"),
        (["labels.csv", "--data", "labels.csv"], "labels.csv is a file; give the folder that automl train wrote"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(faces, capsys, arguments, said):
    with pytest.raises(SystemExit) as caught:
        run(["evaluate", *arguments, "--device", "cpu"])
    assert caught.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("Error: ")
    assert said in line


def test_nothing_heavy_is_imported_for_the_help():
    code = "import sys, automl.cli.evaluate; sys.exit(bool({'torch', 'numpy', 'pandas', 'plotly'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
