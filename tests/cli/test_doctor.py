import io

import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

from automl.cli import doctor as module
from automl.doctor.gpu import Checkup, Finding, Trouble

APP = typer.Typer()
APP.command()(module.doctor)


@pytest.fixture
def checkup(monkeypatch):
    """Sets what is found."""

    def find(*troubles):
        found = Checkup((Finding("driver", "NVIDIA 550"), Finding("GPU 0", "Tesla T4 [16GB]")), troubles)
        monkeypatch.setattr("automl.doctor.environment.examine", lambda _: found)
        return found

    return find


@pytest.mark.parametrize(
    ("troubles", "lines", "code"),
    [
        ((), ["no troubles found"], 0),
        ((Trouble("little disk"),), ["warning: little disk"], 0),
        ((Trouble("little disk"), Trouble("no torch", fatal=True)), ["warning: little disk", "error: no torch"], 1),
    ],
)
def test_a_pipe_gets_a_line_each_and_the_exit_code_says_whether_a_search_can_be(checkup, troubles, lines, code):
    checkup(*troubles)
    result = CliRunner().invoke(APP)
    assert result.stdout.splitlines() == ["driver: NVIDIA 550", "GPU 0: Tesla T4 [16GB]", *lines]
    assert result.exit_code == code


def test_a_terminal_gets_columns(checkup):
    found = checkup(Trouble("no torch [here]", fatal=True))
    out = io.StringIO()
    module._show(found, Console(file=out, force_terminal=True, width=80, no_color=True))
    assert "Tesla T4 [16GB]" in out.getvalue()
    assert "error: no torch [here]" in out.getvalue()
    out = io.StringIO()
    module._show(checkup(), Console(file=out, force_terminal=True, width=80, no_color=True))
    assert "no troubles found" in out.getvalue()


def test_this_machine_is_looked_at(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    result = CliRunner().invoke(APP)
    assert result.exit_code in (0, 1)
    begins = {line.partition(":")[0] for line in result.stdout.splitlines()}
    assert {"Python", "torch", "driver", "cores", "memory", "cache", "weights hub"} <= begins
