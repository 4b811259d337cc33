import re
import shutil

from typer.testing import CliRunner

from automl.cli.main import app
from automl.errors import SpecError, StudyError, WeightsError


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "100"})


def test_its_help_has_an_example():
    found = run("ensemble", "--help")
    assert found.exit_code == 0
    assert "Example: automl ensemble ffdv --out models/ffdv" in found.output
    for flag in ("--out", "--final", "--timeout", "--overwrite", "--weights-dir", "--runs", "--device"):
        assert flag in found.output


def test_the_views_and_their_weights_are_shown(joined, tmp_path):
    out = tmp_path / "model"
    found = run("ensemble", "clips", "--out", out, "--runs", joined.path.parent, "--device", "cpu")
    assert found.exit_code == 0, found.output
    lines = [re.split(r" {2,}", line) for line in found.stdout.splitlines()]
    header = next(i for i, cells in enumerate(lines) if cells[0] == "view")
    assert lines[header] == [
        "view", "trial", "backbone", "weight", "clips seen of 24", "validation auc", "holdout auc", "95 % interval"
    ]  # fmt: skip
    frame, mel, fused = lines[header + 1 : header + 4]
    assert frame[:3] == ["frame", "1", "test_vit.r160_in1k"]
    assert mel[:3] == ["mel", "2", "test_byobnet.r160_in1k"]
    assert (frame[4], mel[4]) == ("24", "21")
    assert re.fullmatch(r"\d\.\d{3}", mel[3])
    assert fused[0] == "fused"
    assert len(fused) == 4
    rest = "\n".join(found.stdout.splitlines()[header + 4 :])
    assert "the weights were learned from the 8 validation clips, so the fused validation score is too good" in rest
    assert "whole groups drawn" in rest or "samples drawn within each class" in rest
    assert f"next: automl predict {out} --data DIR --out submission.csv" in rest
    assert (out / "fusion.json").exists()


def test_mistakes(joined, shared_study, tmp_path):
    runs = joined.path.parent
    taken = shutil.copytree(shared_study.model, tmp_path / "model")
    for given, error, message in (
        (["bees", "--runs", runs], StudyError, "no study 'bees'"),
        (["--runs", tmp_path / "nowhere"], StudyError, "no studies in"),
        (["--runs", runs, "--timeout", "soon"], SpecError, "not a duration: 'soon'"),
        (["--runs", runs, "--device", "cuda:97", "--out", tmp_path / "x"], StudyError, "no device 'cuda:97'"),
        (["--runs", runs, "--out", taken], WeightsError, "choose another --out, or --overwrite it"),
    ):
        found = run("ensemble", *given)
        assert isinstance(found.exception, error), found.output
        assert message in str(found.exception)
