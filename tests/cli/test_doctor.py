import pytest
import typer
from typer.testing import CliRunner

from automl.cli.doctor import doctor
from automl.doctor import checks
from automl.doctor.report import Fact, Problem

APP = typer.Typer()
APP.command()(doctor)


@pytest.mark.parametrize("terminal", [False, True])
@pytest.mark.parametrize(
    ("problems", "lines", "code"),
    [
        ((), ["no problems found"], 0),
        ((Problem("little disk"),), ["warning: little disk"], 0),
        (
            (Problem("little disk"), Problem("no torch [here]", fatal=True)),
            ["warning: little disk", "error: no torch [here]"],
            1,
        ),
    ],
)
def test_a_line_for_each_and_the_exit_code_says_whether_a_search_can_be(monkeypatch, terminal, problems, lines, code):
    yielded = [Fact("driver", "NVIDIA 550"), Fact("GPU 0", "Tesla T4 [16GB]"), *problems]
    monkeypatch.setattr(checks, "CHECKS", (lambda _: yielded,))
    result = CliRunner().invoke(APP, env={"FORCE_COLOR": "1", "TERM": "dumb"} if terminal else None)
    assert result.stdout.splitlines() == ["driver: NVIDIA 550", "GPU 0: Tesla T4 [16GB]", *lines]
    assert result.exit_code == code


def test_this_machine_is_looked_at():
    result = CliRunner().invoke(APP)
    assert result.exit_code in (0, 1)
    begins = {line.partition(":")[0] for line in result.stdout.splitlines()}
    assert {"Python", "torch", "driver", "cores", "memory", "cache", "weights hub"} <= begins
