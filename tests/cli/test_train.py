"""`automl train` by its words; what it does is tested in tests/refit/test_train.py."""

import pytest
from typer.testing import CliRunner

from automl.cli.main import app
from automl.errors import SpecError, StudyError
from automl.recipe import Recipe


@pytest.fixture(autouse=True)
def _offline(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def test_every_flag_reaches_the_library(tmp_path, images, monkeypatch):
    monkeypatch.chdir(tmp_path)
    values = {"image_size": 32, "batch_size": 8, "epochs": 0.5, "pretrained": False}
    Recipe(backbone="test_vit", **values).save(tmp_path / "r.yaml")
    words = ["train", "--recipe", "r.yaml", "--data", images, "--ema", "0.9", "--seed", "4", "--soup", "2"]
    words += ["--device", "cpu", "--positive-class", "dark", "--holdout-fraction", "0.2", "--with-holdout"]
    result = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
    assert result.exit_code == 0
    from automl.models.folder import read_model

    written = read_model(tmp_path / "models" / "tones")
    assert (written.recipe.ema_decay, written.recipe.seed, written.labels.positive) == (0.9, 4, 0)
    assert written.metrics["trained_on"]["samples"] == 48
    assert "8/8" in result.output


def test_mistakes(tmp_path):
    def call(*words):
        CliRunner().invoke(app, ["train", "--runs", str(tmp_path), *words], catch_exceptions=False)

    with pytest.raises(StudyError, match="no studies"):
        call()
    with pytest.raises(SpecError, match="--ensemble"):
        call("--ensemble", "2", "--recipe", "x.yaml")
