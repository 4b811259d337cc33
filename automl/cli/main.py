"""The command line: parses, calls the library, prints. Nothing heavy is imported before a command needs it."""

import os
import signal
import sys
import threading
from collections.abc import Sequence
from importlib import import_module
from typing import Annotated, Any

import typer

from automl import __version__
from automl.cli.json_output import JsonCommand, open_output, write_failure
from automl.errors import AutomlError, first_line, is_disk_full
from automl.processes import count_workers, worker_environment

COMMANDS = (
    *("search", "best", "confirm", "ensemble", "train", "predict", "evaluate", "export", "studies"),
    *("report", "compare", "dashboard"),
    *("data", "preview", "inspect", "backbones", "weights", "probe", "doctor", "space", "worker"),
)
"""Each is the function, or the group of commands, of that name in the module `automl.cli` of that name."""

app = typer.Typer(
    name="automl",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for _name in COMMANDS:
    _command = getattr(import_module(f"automl.cli.{_name}"), _name)
    if isinstance(_command, typer.Typer):
        for _inner in _command.registered_commands:
            if _inner.callback is not None:
                _inner.callback = JsonCommand(_inner.callback)
        app.add_typer(_command, name=_name)
    else:
        app.command(hidden=_name == "worker")(JsonCommand(_command))


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"automl {__version__}")
        raise typer.Exit


@app.callback()
def _describe_program(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Finds the best timm backbone, and the best way to fine-tune it, under a GPU memory and time budget.

    Sizes: 16GB is 16·10⁹ bytes, 16GiB is 16·2³⁰. Durations: 8h30m, 40m, 90s.

    With --json, each command prints objects for programs (docs/agents.md).

    Example: automl search --data ffdi/ --gpu-mem 16GB --trials 50
    """


_INTERRUPTED = 130
_UsageError: type[Exception] = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "UsageError")
"""What Typer raises for a flag that does not exist, or a value that it cannot read."""


def run(words: Sequence[str] | None = None) -> None:
    """Runs the command line; a mistake the user can mend is one clear message and exit code 2.

    `words` are what follows `automl`; None: what this process was started with.
    """
    # CUDA would order unlike GPUs by speed, NVML orders them by bus: `cuda:1` must be the same one for both.
    os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    os.environ |= worker_environment(count_workers())  # before PyTorch and other libraries are loaded
    with open_output(sys.argv[1:] if words is None else words):
        sys.exit(_run_to_end(words))


def _run_to_end(words: Sequence[str] | None) -> int | str | None:
    """Runs the command and returns its exit code; prints what went wrong."""
    try:
        code = _run_app(words)
        if isinstance(code, int) and code:
            write_failure(code)
        return code
    except AutomlError as exc:
        message = str(exc)
    except _UsageError as exc:
        message = _describe_usage_error(exc)
    except BrokenPipeError:
        # `automl backbones | head`: the reader has seen enough. Python would complain again when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as exc:
        if not is_disk_full(exc):
            write_failure(1, f"{type(exc).__name__}: {first_line(exc)}")
            raise
        file = getattr(exc, "filename", None) or "no file named"
        message = f"the disk is full ({file}); free some space and try again"
    print(f"Error: {message}", file=sys.stderr)
    write_failure(2, message)
    return 2


def _run_app(words: Sequence[str] | None) -> int | str | None:
    """Runs the command and returns its exit code.

    Raises:
        BrokenPipeError: If nobody reads the output any more: Typer and rich make an exit code of it.
    """
    try:
        code = app(words, prog_name="automl", standalone_mode=False)
    except (KeyboardInterrupt, SystemExit) as exc:
        code = _INTERRUPTED if isinstance(exc, KeyboardInterrupt) else exc.code
        if isinstance(exc.__context__, BrokenPipeError):
            raise exc.__context__ from None
    if code == _INTERRUPTED:
        print("stopped", file=sys.stderr)  # Typer makes an exit code of Ctrl-C, and prints nothing
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # another Ctrl-C while libraries end: at once, no traceback
    sys.stdout.flush()
    return code if isinstance(code, int | str) else 0


def _describe_usage_error(exc: Any) -> str:
    """Writes in one line what is wrong with the words of a command, and where the right ones stand."""
    from pydantic import ValidationError

    from automl.schema import describe_mistake

    message, cause = exc.format_message(), exc.__cause__
    if isinstance(cause, ValidationError):  # Typer's own text is pydantic's
        flag = message.partition(": ")[0].removeprefix("Invalid value for ").strip("'")
        return f"{flag}: {describe_mistake(cause.errors()[0])}"
    command = exc.ctx.command_path if exc.ctx else "automl"
    return f"{message[:1].lower()}{message[1:].rstrip('.')}; {command} --help lists what there is"
