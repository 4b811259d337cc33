import inspect
import subprocess
import sys
import time

import pytest
import typer
from typer.testing import CliRunner

from automl import __version__
from automl.cli import main
from automl.cli.main import app, run


def walk(command, path=()):
    """Every command and group of commands, by its words."""
    yield path, command
    for name, inner in getattr(command, "commands", {}).items():
        yield from walk(inner, (*path, name))


COMMANDS = dict(walk(typer.main.get_command(app)))


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_command_explains_itself(words):
    found = CliRunner().invoke(app, [*words, "--help"])
    assert found.exit_code == 0
    assert "Usage:" in found.output
    if not hasattr(COMMANDS[words], "commands"):
        assert f"Example: {' '.join(('automl', *words))}" in " ".join(found.output.split())


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_flag_and_argument_has_a_help_text(words):
    assert [item.name for item in COMMANDS[words].params if not getattr(item, "help", None)] == []


@pytest.mark.parametrize("command", [command.callback for command in app.registered_commands], ids=lambda c: c.__name__)
def test_few_parameters_of_a_command_are_written_by_hand(command):
    assert len(set(inspect.signature(command).parameters) - {*command.settings, "json"}) <= 12


def test_help_is_quick_and_loads_nothing_heavy():
    code = (
        "import sys\n"
        "from automl.cli.main import app\n"
        "for command in sys.argv[1:]:\n"
        "    try: app([*command.split(), '--help'])\n"
        "    except SystemExit as end: assert not end.code\n"
        "heavy = {'torch', 'timm', 'optuna', 'pandas', 'sklearn', 'torchvision', 'scipy', 'numpy', 'joblib'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    began = time.perf_counter()
    names = [" ".join(words) for words in COMMANDS]
    found = subprocess.run([sys.executable, "-c", code, *names], capture_output=True, text=True, check=True)
    assert found.stdout.splitlines()[-1] == "[]"
    assert time.perf_counter() - began < 60  # seconds on a loaded machine; 1 on an idle one


def test_version():
    assert CliRunner().invoke(app, ["--version"]).output == f"automl {__version__}\n"


def test_without_a_command_there_is_help():
    assert "Usage:" in CliRunner().invoke(app, []).output


def test_a_mistake_is_one_line_and_exit_code_2(tmp_path, capfd):
    with pytest.raises(SystemExit) as caught:
        run(["best", "bees", "--runs", str(tmp_path)])
    assert caught.value.code == 2
    printed = capfd.readouterr()
    assert printed.err.startswith("Error: no study 'bees' in ")
    assert (printed.err.count("\n"), printed.out) == (1, "")


@pytest.mark.parametrize(
    ("raised", "code", "printed"),
    [
        (KeyboardInterrupt(), 130, "stopped\n"),
        (OSError(28, "No space left on device", "/x"), 2, "Error: the disk is full (/x)"),
    ],
    ids=["ctrl-c", "disk"],
)
def test_what_ends_a_command(monkeypatch, capfd, raised, code, printed):
    def end(*_, **__):
        raise raised

    monkeypatch.setattr(main, "app", end)
    with pytest.raises(SystemExit) as caught:
        run()
    assert caught.value.code == code
    assert capfd.readouterr().err.startswith(printed)


@pytest.mark.parametrize(
    "words", ["--help", "backbones --limit 0", "backbones --csv --limit 0", "space show", "space schema"]
)
def test_a_closed_pipe_is_no_error(words):
    """As in `automl backbones | head`: whoever reads has seen enough."""
    command = [sys.executable, "-m", "automl", *words.split()]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait() == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("backbones --max-params abc", "--max-params: must be a number (got 'abc')"),
        ("search --trials abc", "--trials: must be a whole number (got 'abc')"),
        ("confirm --seeds 0", "--seeds: 0 is too small; give 1 or more"),
        ("backbones --nosuch", "no such option: --nosuch"),
        ("backbon", "no such command 'backbon'. Did you mean 'backbones'?; automl --help lists what there is"),
        ("predict", "missing argument 'model'; automl predict --help lists what there is"),
        ("probe --gpu-mem", "option '--gpu-mem' requires an argument"),
        ("space shov", "no such command 'shov'"),
    ],
)
def test_a_mistake_in_a_flag_is_one_line_too(words, message, capfd):
    with pytest.raises(SystemExit) as caught:
        run(words.split())
    assert caught.value.code == 2
    printed = capfd.readouterr()
    assert printed.err.startswith(f"Error: {message}")
    assert (printed.err.count("\n"), printed.out) == (1, "")


@pytest.mark.parametrize("words", [[], ["space"]])
def test_a_group_without_a_command_shows_help(words, capfd):
    with pytest.raises(SystemExit):
        run(words)
    assert "Usage: automl" in "".join(capfd.readouterr())


def test_a_mistake_of_the_program_is_not_hidden(monkeypatch):
    def end(*_, **__):
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
