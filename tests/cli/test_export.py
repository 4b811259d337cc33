import json

import pytest
from typer.testing import CliRunner

from automl.cli.main import app
from automl.errors import WeightsError
from automl.recipe import Recipe


def run(*arguments):
    return CliRunner().invoke(app, ["export", *(str(argument) for argument in arguments)])


def test_text_goes_to_standard_output(model, tmp_path):
    found = run(model.path)
    assert found.exit_code == 0
    (tmp_path / "printed.yaml").write_text(found.stdout)
    assert Recipe.load(tmp_path / "printed.yaml") == model.recipe
    assert json.loads(run(model.path, "--format", "json").stdout)["labels"]["positive"] == 1


def test_a_file_is_told_with_what_was_compared(model, tmp_path):
    found = run(model.path, "--format", "torch", "--out", tmp_path / "out.pt2")
    assert found.exit_code == 0
    wrote, difference = found.stdout.splitlines()
    assert wrote == f"wrote {tmp_path / 'out.pt2'}"
    assert difference.startswith("largest difference in probability from PyTorch: ")
    assert difference.endswith(" on 9 images of noise")
    assert run(model.path, "--out", tmp_path / "r.yaml").stdout == f"wrote {tmp_path / 'r.yaml'}\n"


@pytest.mark.parametrize(("format", "said"), [("timm", "python train.py --config"), ("python", "--samples")])
def test_training_elsewhere(model, format, said):
    found = run(model.path, "--format", format)
    assert found.exit_code == 0
    assert said in found.stdout
    if format == "timm":
        assert "train.py numbers the classes: 0: fake, 1: real" in found.stdout
        assert "not the order of automl's model: 0: real, 1: fake" in found.stdout
    else:
        compile(found.stdout, "script.py", "exec")


def test_a_mistake_is_an_error_of_automl(tmp_path):
    (tmp_path / "recipe.yaml").write_text("backbone: test_vit\n")
    with pytest.raises(WeightsError, match="needs a trained model"):
        raise run(tmp_path / "recipe.yaml", "--format", "onnx").exception
