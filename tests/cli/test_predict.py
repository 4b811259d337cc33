import csv

import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from automl.cli.predict import predict
from automl.errors import DataError, WeightsError
from tests.fixtures.models import write

app = typer.Typer()
app.command()(predict)


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def photos(tmp_path):
    (tmp_path / "photos").mkdir()
    for k in range(3):
        Image.new("RGB", (40, 50), (80 * k, 100, 0)).save(tmp_path / f"photos/{k}.png")
    return tmp_path / "photos"


def test_it_writes_a_submission(photos, tmp_path):
    model = write(tmp_path / "model")
    (photos / "2.png").write_text("broken")
    flags = ("--tta", "flip", "--batch-size", 2, "--device", "cpu", "--column", "score", "--file-column", "id")
    found = run(model.path, "--data", photos, "--out", tmp_path / "s.csv", *flags)
    assert found.exit_code == 0, found.output
    with (tmp_path / "s.csv").open(newline="") as handle:
        rows = list(csv.reader(handle))
    assert [row[0] for row in rows] == ["id", "0.png", "1.png", "2.png"]
    assert rows[0][1] == "score"
    assert all(0 <= float(row[1]) <= 1 for row in rows[1:])
    assert "warning: 1 of 3 files cannot be read" in found.output
    assert found.output.splitlines()[-1] == f"written: {tmp_path / 's.csv'} (3 rows: id, score)"


def test_mistakes_are_the_librarys(photos, tmp_path):
    model = write(tmp_path / "model")
    (tmp_path / "empty").mkdir()
    for arguments, error in (
        ((model.path, "--data", tmp_path / "empty"), DataError),
        ((model.path, "--data", photos, "--out", tmp_path), DataError),
        ((tmp_path / "model/model.pth", "--data", photos), WeightsError),
    ):
        found = run(*arguments)
        assert isinstance(found.exception, error)
        assert str(found.exception)


def test_data_must_be_given():
    found = run("model")
    assert found.exit_code == 2
    assert "--data" in found.output
