import subprocess
import sys
import time

import pytest
from typer.testing import CliRunner

from automl import __version__
from automl.cli import main
from automl.cli.main import app, run
from automl.errors import StudyError

COMMANDS = [
    [],
    ["search"],
    ["best"],
    ["confirm"],
    ["ensemble"],
    ["train"],
    ["predict"],
    ["export"],
    ["studies"],
    ["dashboard"],
    ["data"],
    ["backbones"],
    ["space"],
    ["leaderboard"],
    ["worker"],
    ["space", "show"],
    ["space", "validate"],
    ["leaderboard", "refresh"],
]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_explains_itself(command):
    found = CliRunner().invoke(app, [*command, "--help"])
    assert found.exit_code == 0
    assert "Usage:" in found.output
    if command not in ([], ["space"], ["leaderboard"]):
        assert "Example: automl" in found.output


def test_help_is_quick_and_loads_nothing_heavy():
    code = (
        "import sys\n"
        "from automl.cli.main import app\n"
        "for command in sys.argv[1:]:\n"
        "    try: app([*command.split(), '--help'])\n"
        "    except SystemExit as end: assert not end.code\n"
        "heavy = {'torch', 'timm', 'optuna', 'pandas', 'sklearn', 'torchvision', 'scipy', 'numpy'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    began = time.process_time(), time.perf_counter()
    names = [" ".join(command) for command in COMMANDS]
    found = subprocess.run([sys.executable, "-c", code, *names], capture_output=True, text=True, check=True)
    assert found.stdout.splitlines()[-1] == "[]"
    assert time.perf_counter() - began[1] < 60  # seconds on a loaded machine; 1 on an idle one


def test_version():
    assert CliRunner().invoke(app, ["--version"]).output == f"automl {__version__}\n"


def test_without_a_command_there_is_help():
    assert "Usage:" in CliRunner().invoke(app, []).output


@pytest.mark.parametrize(
    ("raised", "code", "printed"),
    [
        (StudyError("no study 'bees'"), 2, "Error: no study 'bees'\n"),
        (KeyboardInterrupt(), 130, "stopped\n"),
        (OSError(28, "No space left on device", "/x"), 2, "Error: the disk is full (/x)"),
        (BrokenPipeError(), 0, ""),
    ],
    ids=["mistake", "ctrl-c", "disk", "pipe"],
)
def test_what_ends_a_command(monkeypatch, capfd, raised, code, printed):
    def end():
        raise raised

    monkeypatch.setattr(main, "app", end)
    monkeypatch.setattr(main.os, "dup2", lambda *_: None)
    with pytest.raises(SystemExit) as caught:
        run()
    assert caught.value.code == code
    assert capfd.readouterr().err.startswith(printed)


def test_a_mistake_of_the_program_is_not_hidden(monkeypatch):
    def end():
        raise ZeroDivisionError

    monkeypatch.setattr(main, "app", end)
    with pytest.raises(ZeroDivisionError):
        run()


def test_python_m_automl():
    found = subprocess.run([sys.executable, "-m", "automl", "--version"], capture_output=True, text=True, check=True)
    assert found.stdout == f"automl {__version__}\n"


def test_an_unknown_command_is_a_mistake():
    found = CliRunner().invoke(app, ["serch"])
    assert found.exit_code == 2
    assert "serch" in found.output
