"""`automl space`."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from automl.cli.space import space
from automl.errors import SpaceError


def run(*arguments: str) -> str:
    result = CliRunner().invoke(space, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    return result.output


def test_show_draws_every_part_and_counts() -> None:
    shown = run("show")
    for part in (
        "backbone rank in the pool",
        "sgd",
        "learning_rate ↑",
        "ordered 128, 160",
        "known-good recipes tried first",
    ):
        assert part in shown
    assert "max_aspect" in shown
    assert "width" not in shown  # AugMix's, left at its default
    assert "width = 3" in run("show", "image", "--full")


def test_show_of_a_file_that_names_everything(tmp_path: Path) -> None:
    path = tmp_path / "[red]mine.yaml"  # rich would read its name as markup
    path.write_text("backbone: resnet18\noptimizer: sgd\nepochs: {int: [2, 8], log: true}\n")
    shown = run("show", str(path))
    assert "[red]mine.yaml" in shown
    assert "optimizer = sgd" in shown
    assert "2 … 8, log" in shown
    assert "1 parameter, 1 of them" in shown


def test_validate() -> None:
    assert "valid. " in run("validate", "image")


@pytest.mark.parametrize("command", ["show", "validate"])
def test_what_is_drawn_in_vain_is_a_warning(tmp_path: Path, command: str) -> None:
    path = tmp_path / "[red]mine.yaml"
    path.write_text("tune: head\nlayer_decay: 0.8\n")
    shown = run(command, str(path)).splitlines()
    assert shown[-1] == f"warning: {path} line 2: layer_decay has no effect beside tune head"


def test_validate_tells_every_mistake(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("epoch: 3\nlearning_rate: {float: [2, 1]}\n")
    with pytest.raises(SpaceError) as caught:
        run("validate", str(path))
    assert len(str(caught.value).splitlines()) == 2


def test_schema_is_json() -> None:
    assert json.loads(run("schema"))["title"] == "automl search space"


def test_importing_the_commands_imports_nothing_heavy() -> None:
    code = "import sys, automl.cli.space; print([m for m in ('torch', 'optuna', 'pydantic') if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
